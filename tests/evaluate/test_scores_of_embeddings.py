"""Fidelity, diversity and memorisation of embeddings whose truth is known."""

import json

import numpy as np
import pytest

from dataengine.errors import UserError
from dataengine.evaluate.diversity import diversity
from dataengine.evaluate.features import Features
from dataengine.evaluate.fidelity import fidelity
from dataengine.evaluate.memorisation import memorisation
from dataengine.evaluate.results import Column, Figure, Result, Row, show

FEATURES = Features("eight made-up numbers", "imagenet", lambda images: np.zeros((len(images), 8)))
GROUPS = [i // 2 for i in range(120)]


def cloud(n, shift=0.0, scale=1.0, seed=0):
    """n embeddings around (2, ..., 2), moved in another direction by `shift`."""
    return np.random.default_rng(seed).normal(size=(n, 8)) * scale + 2.0 + shift * np.array([1.0, -1.0] * 4)


REAL, BLURRED = cloud(120), cloud(120, shift=4.0, scale=0.2)


def test_images_drawn_like_real_ones_are_as_near_as_real_ones():
    result = fidelity(cloud(60, seed=1), REAL, BLURRED, GROUPS, FEATURES)
    assert 0.7 < result.value("generated", "ratio") < 1.4
    assert result.value("generated", "precision") == pytest.approx(
        result.value("real, other half", "precision"), abs=0.1
    )


@pytest.mark.parametrize("column", ["frechet", "ratio", "kernel", "gaussian"])
def test_distances_grow_with_what_is_wrong_and_are_largest_for_the_control(column):
    near, far = (fidelity(cloud(60, s, seed=1), REAL, BLURRED, GROUPS, FEATURES) for s in (0.0, 1.0))
    assert near.value("generated", column) < far.value("generated", column)
    assert far.value("real, other half", column) < far.value("generated", column)
    assert far.value("generated", column) < far.value("real, without detail", column)


def test_all_rows_compare_as_many_images():
    result = fidelity(cloud(37, seed=1), REAL, BLURRED, GROUPS, FEATURES)
    assert {row.n for row in result.rows} == {37}
    result = fidelity(cloud(500, seed=1), REAL, BLURRED, GROUPS, FEATURES)
    assert {row.n for row in result.rows} == {60}


def test_distances_are_called_as_in_papers_only_with_the_papers_features():
    def titles(kind):
        some = Features("x", kind, FEATURES.encode)
        return [c.title for c in fidelity(cloud(60), REAL, BLURRED, GROUPS, some).columns.values()]

    assert "FID" in titles("inception")
    assert "CMMD" in titles("clip")
    for kind in ("imagenet", "encoder", "dinov2"):
        assert not {"FID", "KID", "CMMD"} & set(titles(kind))


def test_a_collapsed_generator_is_less_diverse_and_found_by_every_column():
    wide, narrow = (diversity(x, REAL, GROUPS, FEATURES) for x in (cloud(60, seed=1), cloud(60, scale=0.1, seed=1)))
    for column in wide.columns:
        assert narrow.value("generated", column) < 0.7 * wide.value("generated", column)
    for column in ("recall", "coverage", "vendi"):
        assert wide.value("a tenth of it, repeated", column) < 0.9 * wide.value("real, other half", column)


def test_copies_are_found_and_new_images_are_not():
    training, held_out = cloud(200, seed=2), cloud(100, seed=3)
    copies = training[:50] + 0.01
    fresh, _ = memorisation(cloud(80, seed=4), held_out, training, copies, FEATURES)
    copied, neighbours = memorisation(training[20:60] + 0.02, held_out, training, copies, FEATURES)
    assert fresh.value("generated", "nearer") < 0.1
    assert copied.value("generated", "nearer") == 1.0
    assert fresh.value("noisy copies of training", "nearer") == 1.0
    assert neighbours.indices.tolist() == list(range(20, 60))
    assert copied.value("generated", "median") < 0.1 * fresh.value("generated", "median")


def test_intervals_hold_their_value():
    result, _ = memorisation(cloud(80, seed=4), cloud(100, seed=3), cloud(200, seed=2), cloud(10), FEATURES)
    for row in result.rows:
        for figure in row.figures.values():
            assert figure.low <= figure.value <= figure.high


def test_too_few_images_are_refused_with_their_number():
    with pytest.raises(UserError, match="only 5 images"):
        fidelity(cloud(5), REAL, BLURRED, GROUPS, FEATURES)
    with pytest.raises(UserError, match="one image or flight"):
        fidelity(cloud(60), REAL, BLURRED, [0] * 120, FEATURES)


def test_the_table_names_features_counts_and_controls(capsys):
    result = diversity(cloud(60, seed=1), REAL, GROUPS, FEATURES)
    show(result)
    printed = capsys.readouterr().out
    for text in ("eight made-up numbers", "control:", "60"):
        assert text in printed
    values = json.loads(json.dumps(result.as_json()))
    assert values["settings"]["features"] == "eight made-up numbers"
    assert values["rows"][0]["figures"]["recall"]["value"] == pytest.approx(
        result.value("generated", "recall"), rel=1e-5
    )


def test_a_metric_whose_control_is_no_worse_than_real_images_says_so(capsys):
    """Copies that are farther from training images than new ones are: these features do not see that they are."""
    training, held_out = cloud(200, seed=2), cloud(100, seed=3)
    blind, _ = memorisation(cloud(80, seed=4), held_out, training, cloud(50, shift=9.0), FEATURES)
    assert len(blind.failed_controls()) == 1
    show(blind)
    assert "is not meaningful here" in capsys.readouterr().out
    assert blind.as_json()["unmoved"] == blind.failed_controls()
    seeing, _ = memorisation(cloud(80, seed=4), held_out, training, training[:50] + 0.01, FEATURES)
    assert not seeing.failed_controls()
    assert not fidelity(cloud(60, seed=1), REAL, BLURRED, GROUPS, FEATURES).failed_controls()
    assert len(fidelity(cloud(60, seed=1), REAL, REAL, GROUPS, FEATURES).failed_controls()) == 6


@pytest.mark.parametrize("columns", [60, 200])
def test_all_figures_can_be_read_however_narrow_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["Frechet distance", "kernel distance", "precision", "recall", "density", "coverage"]
    figures = [{name: Figure(i + k / 10, i, i + 1) for k, name in enumerate(names)} for i in range(2)]
    rows = [Row("generated", "measured", 77, figures[0]), Row("real", "reference", 50, figures[1])]
    show(Result("fidelity", "Do they look real?", {name: Column(name, "lower") for name in names}, rows))
    printed = capsys.readouterr().out
    assert all(text in printed for row in figures for f in row.values() for text in str(f).splitlines())
    assert "…" not in printed
    assert all(printed.count(word) == 1 for word in ("generated", "77")), "each row once"
    assert printed.count("recall") == (2 if columns == 60 else 1), "control: a wide one has a table"

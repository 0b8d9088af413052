"""`synth --layout FILE` with an imported AeroGen: what is drawn, how many images are painted, and what is said."""

from __future__ import annotations

import json

import aerogen_shapes
import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine import geometry
from dataengine.cli import app
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.layouts.given import read_layout

DEMO = """13 0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375
6 0.5 0.625 0.75 0.5 0.8125 0.625 0.5625 0.75
"""  # class numbers of AeroGen: a ship, and a dam, which is number 8 in the preset


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny AeroGen with the published class order, of images of 128 px."""
    folder = tmp_path_factory.mktemp("aerogen")
    aerogen_shapes.import_tiny(folder).save_pretrained(folder / "model")
    return folder / "model"


def run(model, out, *options: str):
    command = ["synth", "--dataset", "dior-r", "--renderer", "whole", "--model", str(model), "--size", "128",
               "--filter", "off", "--steps", "2", "--out", str(out), "--workers", "1"]  # fmt: skip
    result = CliRunner().invoke(app, [*command, *options])
    return result.exit_code, f"{result.output} {result.exception or ''}"


def test_the_authors_demo_layout_is_drawn_by_name_without_the_data_set(model, tmp_path):
    (tmp_path / "demo.txt").write_text(DEMO)
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), "--n", "3")
    assert code == 0, said
    records = list(RunFolder(tmp_path / "run").records())
    assert len(records) == 3
    for record in records:
        assert record.labels.names() == ["ship", "dam"]
        expected = geometry.from_corners(
            np.float32([[[32, 32], [64, 32], [64, 48], [32, 48]], [[64, 80], [96, 64], [104, 80], [72, 96]]])
        )
        assert geometry.iou(record.labels.boxes, expected).diagonal().min() > 0.97
    assert len({record.sha256 for record in records}) == 3, "other seeds, other images"
    found = verify(tmp_path / "run")
    assert (found.faults, [note for note in found.notes if "layouts" in note]) == ([], [])


def test_lines_of_dota_are_in_pixels_and_scaled(tmp_path):
    file = tmp_path / "dota.txt"
    file.write_text("imagesource:demo\ngsd:0.5\n100 100 300 100 300 200 100 200 large-ship 0\n")
    layout = read_layout(file, 512, ("Large Ship",), numbered=(), scale=0.64)
    assert layout.boxes.round(3).tolist() == [[128.0, 96.0, 128.0, 64.0, 0.0]]
    assert layout.size == (512, 512)
    assert layout.origins == ("dota.txt",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("20 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", r"demo.txt:2: the class number 20 is not one of 0 to 19"),
        ("3 10 10 20 10 20 20 10 20", "demo.txt:2: coordinates after a class number are fractions"),
        ("3 0.1 0.1 0.2 0.1 0.2 0.2 0.1 nan", "demo.txt:2: coordinate 8"),
        ("10 10 40 10 40 20 10 20 zeppelin", "demo.txt:2: the class zeppelin is not one of this run"),
        ("210 10 240 10 240 20 210 20 ship", "demo.txt:2: less than 30% of its box lies in the image of 128 pixels"),
        ("13 -1.9 -1.9 1.9 -1.9 1.9 1.9 -1.9 1.9", "demo.txt:2: less than 30% of its box lies in the image"),
        ("10 10 10 10 10 10 10 10 ship", "demo.txt:2: its box is 0 x 0 pixels, which is too small to draw"),
        ("0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375 ship", "coordinates from 0 to 1 need a class number in front"),
        ("13 0.2 0.2 0.5 0.5 0.5 0.2 0.2 0.5", "demo.txt:2: its corners are no rectangle: they fill 0%"),
        ("13 0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375 0", "demo.txt:2: has 10 numbers; a class number and four"),
        ("10 10 ship", "demo.txt:2: has 1 points, not 4 corners"),
    ],
)
def test_a_line_at_fault_is_named(model, tmp_path, line, message):
    (tmp_path / "demo.txt").write_text(f"13 0.25 0.25 0.5 0.25 0.5 0.375 0.25 0.375\n{line}\n")
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), "--n", "1")
    assert code != 0
    assert message in said.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_difficulty_and_what_the_border_cuts_are_kept(tmp_path):
    file = tmp_path / "dota.txt"
    file.write_text("10 10 40 10 40 20 10 20 ship 1\n-10 40 10 40 10 60 -10 60 ship 0\n")
    layout = read_layout(file, 128, ("ship",), numbered=())
    assert layout.difficult.tolist() == [True, False]
    assert layout.visible.round(3).tolist() == [1.0, 0.5]


def test_the_report_is_about_the_classes_of_the_file(model, tmp_path):
    (tmp_path / "demo.txt").write_text(DEMO)
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), "--n", "1")
    assert code == 0, said
    assert "1 ship, 1 dam" in " ".join(said.split())
    assert "was accepted: the model cannot render" not in said
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["name"] for row in report["classes"]] == ["dam", "ship"]


def test_another_size_than_the_models_is_refused_before_anything_is_written(model, tmp_path):
    (tmp_path / "demo.txt").write_text(DEMO)
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), "--size", "256")
    assert code != 0
    assert "this renderer makes images of 128 pixels; give --size 128" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    (tmp_path / "demo.txt").write_text(content)
    with pytest.raises(UserError, match="has no object; write one a line"):
        read_layout(tmp_path / "demo.txt", 128, ("ship",), ())


@pytest.mark.parametrize("option", [("--layouts", "prior"), ("--balance", "0.1"), ("--rows", "0.5"), ("--night",)])
def test_options_of_samplers_do_not_go_with_it(model, tmp_path, option):
    (tmp_path / "demo.txt").write_text(DEMO)
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), *option)
    assert code != 0
    assert "--layout renders one layout as it is" in said


@pytest.mark.parametrize(("n", "shards"), [(1, [1]), (5, [5])])
def test_a_short_run_paints_no_more_than_it_needs(model, tmp_path, n, shards):
    """A full-size model takes minutes an image on a CPU: --n 1 must not paint sixteen."""
    (tmp_path / "demo.txt").write_text(DEMO)
    code, said = run(model, tmp_path / "run", "--layout", str(tmp_path / "demo.txt"), "--n", str(n))
    assert code == 0, said
    folders = sorted((tmp_path / "run" / "shards").iterdir())
    assert [len(list(folder.glob("*.png"))) for folder in folders] == shards
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]
    assert recipe["shard_size"] == n


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_images_as_they_are_painted(model, tmp_path, workers):
    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run import synth

    (tmp_path / "demo.txt").write_text(DEMO)
    recipe = Recipe(
        dataset="dior-r", renderer="whole", model=model, size=128, filter="off", steps=1, n=4,
        layout=tmp_path / "demo.txt",
    )  # fmt: skip
    events: list[str] = []
    synth(
        recipe, tmp_path / "run", workers,
        progress=lambda accepted, tried: events.append(f"{accepted} accepted"),
        painted=lambda n: events.append(f"{n} painted"),
    )  # fmt: skip
    assert events == [*["1 painted"] * 4, "4 accepted"], "one at a time on a CPU, before the shard of four is stored"


def test_more_boxes_than_the_model_was_trained_with_are_said(model, tmp_path):
    crowd = [f"13 {x} {y} {x + 0.08} {y} {x + 0.08} {y + 0.05} {x} {y + 0.05}"
             for x in (0.05, 0.25, 0.45, 0.65) for y in (0.1, 0.3, 0.5, 0.7)]  # fmt: skip
    for count, expected in ((16, True), (15, False)):
        (tmp_path / "crowd.txt").write_text("\n".join(crowd[:count]))
        code, said = run(model, tmp_path / str(count), "--layout", str(tmp_path / "crowd.txt"), "--n", "1")
        assert code == 0, said
        words = " ".join(said.split())
        assert ("trained with at most 15 objects an image; 20 of 20 sampled layouts have more" in words) is expected
        assert next(RunFolder(tmp_path / str(count)).records()).labels.names() == ["ship"] * count, "none is dropped"


def test_scheduler_and_eta_are_options_and_refused_where_they_mean_nothing(model, tmp_path):
    (tmp_path / "demo.txt").write_text(DEMO)
    demo = ("--layout", str(tmp_path / "demo.txt"), "--n", "1")
    images = {}
    for name, options in {"own": (), "no noise": ("--eta", "0"), "dpm": ("--scheduler", "dpm")}.items():
        code, said = run(model, tmp_path / name, *demo, *options)
        assert code == 0, said
        images[name] = next(RunFolder(tmp_path / name).records()).sha256
        assert "renders on" in said
    assert len(set(images.values())) == 3
    code, said = run(model, tmp_path / "x", *demo, "--scheduler", "dpm", "--eta", "0.2")
    assert code != 0
    assert "--eta is for --scheduler ddim" in said
    result = CliRunner().invoke(app, ["synth", "--dataset", "hit-uav", "--n", "1", "--scheduler", "ddim", "--out",
                                      str(tmp_path / "y")])  # fmt: skip
    assert "for models with text" in f"{result.output} {result.exception or ''}"

"""`dataengine evaluate ...` on painted images."""

import importlib.util
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout
from typer.testing import CliRunner

from dataengine.data import coco
from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError
from dataengine.evaluate.commands import app
from dataengine.render.frame import covered


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def other_dataset(tmp_path_factory):
    """24 more painted images."""
    root, rng, samples = tmp_path_factory.mktemp("other"), np.random.default_rng(11), []
    for i in range(24):
        layout = random_layout(rng)
        Image.fromarray(paint(layout, rng)).save(root / f"{i:03d}.png")
        samples.append(Sample(f"{i:03d}", root / f"{i:03d}.png", layout))
    coco.write(Dataset(("car", "van"), samples, "obb", name="other"), root / "coco")
    return root / "coco"


def figures(result):
    return {
        table["name"]: {row["name"]: {k: v["value"] for k, v in row["figures"].items()} for row in table["rows"]}
        for table in json.loads(result.stdout)
    }


def test_fidelity_and_diversity_of_the_same_kind_of_image_are_those_of_real_halves(toy_dataset, other_dataset):
    common = (other_dataset, "--real", toy_dataset, "--features", "encoder", "--json")
    found = figures(run("fidelity", *common))["fidelity"]
    assert found["generated"]["ratio"] < 2 < found["real, without detail"]["ratio"]
    found = figures(run("diversity", *common))["diversity"]
    assert found["generated"]["vendi"] > 0.8 * found["real, other half"]["vendi"]


def test_softer_objects_and_softer_ground_are_distinguished_from_sharp_ones(toy_dataset, other_dataset, tmp_path):
    sharp = figures(run("sharpness", other_dataset, "--real", toy_dataset, "--json"))["sharpness"]
    rows = sharp["generated"], sharp["real"], sharp["real, blurred by half a pixel"]
    for key in ("ground", "car", "van"):
        made, real, blurred = (row[key] for row in rows)
        assert made == pytest.approx(real, rel=0.1), "the same kind of image"
        assert blurred < 0.9 * real
    soft = coco.read(other_dataset)
    for sample in soft:
        picture = np.asarray(Image.open(sample.image))
        inside = covered(sample.layout.boxes, picture.shape)[..., None]
        Image.fromarray(np.where(inside, cv2.GaussianBlur(picture, (0, 0), 1), picture)).save(
            tmp_path / sample.image.name
        )
    soft = replace(soft, samples=[replace(sample, image=tmp_path / sample.image.name) for sample in soft])
    coco.write(soft, tmp_path / "soft")
    found = run("sharpness", tmp_path / "soft", "--real", toy_dataset, "--json")
    made, notes = figures(found)["sharpness"]["generated"], json.loads(found.stdout)[0]["notes"]
    assert made["car"] < 0.8 * rows[0]["car"], "objects alone were blurred"
    assert made["ground"] == pytest.approx(rows[0]["ground"], rel=0.05)
    assert any(note.startswith("car: generated 0.") for note in notes)


def clouds(folder, n, seed):
    """A plain folder of n images of soft colours, each unlike the others."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        small.resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def test_copies_of_training_images_are_found(tmp_path):
    training, held_out, made = (clouds(tmp_path / name, 24, seed) for seed, name in enumerate(("a", "b", "c")))
    arguments = ("--real", held_out, "--training", training, "--json")
    copied = figures(run("memorisation", training, *arguments))["memorisation"]
    fresh = figures(run("memorisation", made, *arguments))["memorisation"]
    assert copied["generated"]["nearer"] == 1.0
    assert copied["noisy copies of training"]["nearer"] > 0.9
    assert fresh["generated"]["nearer"] < 0.2


def test_copied_parts_are_a_table_of_their_own(tmp_path):
    training, held_out = (clouds(tmp_path / name, 24, seed) for seed, name in enumerate(("a", "b")))
    found = run("memorisation", training, "--real", held_out, "--training", training, "--json")
    assert set(figures(found)) == {"memorisation", "copied parts"}


def test_layout_and_classification_print_tables_with_their_controls(toy_dataset, other_dataset, toy_detector):
    printed = run("layout", other_dataset, "--real", toy_dataset, "--detector", toy_detector).stdout
    for text in ("AP50, DOTA", "AP50, COCO", "control: labels of another image", "car, medium"):
        assert text in printed
    printed = run("classification", other_dataset, "--real", toy_dataset).stdout
    assert "CAS" in printed
    assert "logistic regression" in printed


def test_the_same_command_gives_the_same_figures(toy_dataset, other_dataset):
    arguments = ("fidelity", other_dataset, "--real", toy_dataset, "--features", "encoder", "--json")
    assert run(*arguments).stdout == run(*arguments).stdout


def test_the_report_is_one_file_with_images_and_says_what_is_left_out(
    toy_dataset, other_dataset, toy_detector, tmp_path
):
    out = tmp_path / "report.html"
    arguments = (other_dataset, "--real", toy_dataset, "--features", "encoder", "--detector", toy_detector)
    run("report", *arguments, "--training", toy_dataset, "--out", out)
    page = out.read_text()
    for heading in (
        "Fidelity",
        "Sharpness",
        "Diversity",
        "Layout score",
        "Classification accuracy score",
        "Memorisation",
    ):
        assert f"<h2>{heading}</h2>" in page
    addresses = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(addresses) >= 10
    assert all(address.startswith("data:image/") for address in addresses), "nothing is fetched from elsewhere"
    assert "Left out" not in page
    plain = tmp_path / "plain"
    plain.mkdir()
    for sample in coco.read(other_dataset):
        (plain / sample.image.name).write_bytes(sample.image.read_bytes())
    run("report", plain, "--real", toy_dataset, "--features", "encoder", "--out", out)
    assert out.read_text().count("Left out") == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--features", "oil"), "oil"),
        (("--real", "nowhere"), "nowhere"),
        (("--real-split", "autumn"), "autumn"),
        (("--all-attempts",), "manifest"),
    ],
)
def test_a_users_mistake_is_one_sentence(toy_dataset, other_dataset, change, says):
    with pytest.raises(UserError, match=says):
        run("fidelity", other_dataset, "--real", toy_dataset, "--features", "encoder", *change)


def test_a_report_that_cannot_be_written_is_refused_before_any_work(toy_dataset, other_dataset, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        run("report", other_dataset, "--real", toy_dataset, "--out", tmp_path / "none" / "report.html")


@pytest.mark.parametrize(("command", "module"), [("fidelity", "torchmetrics"), ("layout", "faster_coco_eval")])
def test_a_missing_package_is_reported_with_its_fix(toy_dataset, other_dataset, monkeypatch, command, module):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == module else found(name, *more))
    with pytest.raises(UserError, match=rf"{module}.*pip install 'aerial-dataengine\[evaluate\]'"):
        run(command, other_dataset, "--real", toy_dataset)

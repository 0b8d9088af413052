"""`dataengine train`: its outputs and errors."""

from __future__ import annotations

import pytest
from toy_scenes import paint, random_layout

from dataengine.data import coco
from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError
from dataengine.train.commands import app


@pytest.fixture
def run():
    from typer.testing import CliRunner

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def data(tmp_path):
    import numpy as np
    from PIL import Image

    rng, samples = np.random.default_rng(0), []
    for i in range(3):
        layout = random_layout(rng, 96)
        Image.fromarray(paint(layout, rng)).save(tmp_path / f"{i}.png")
        samples.append(Sample(str(i), tmp_path / f"{i}.png", layout))
    coco.write(Dataset(("car", "van"), samples, "obb", name="toy"), tmp_path / "data")
    return tmp_path / "data"


def test_a_training_writes_a_pipeline_and_samples_and_reports_skipped_images(run, data, tmp_path):
    (data / "images" / "train" / "1.png").write_bytes(b"no image")
    out = tmp_path / "out"
    result = run("renderer", data, "--out", out, "--steps", 2, "--batch-size", 2, "--copies", 0)
    assert "1.png" in result.stderr
    assert (out / "pipeline" / "model_index.json").exists()
    assert list((out / "samples").glob("*.png")), "sample grids"


def test_a_few_step_renderer_is_distilled_only_once(run, data, tmp_path):
    from dataengine.render.renderer import load_renderer

    short = ("--steps", 2, "--batch-size", 2)
    run("renderer", data, "--out", tmp_path / "slow", *short, "--copies", 0)
    slow, fast = tmp_path / "slow" / "pipeline", tmp_path / "fast" / "pipeline"
    run("fewer-steps", data, "--model", slow, "--to", 3, "--out", tmp_path / "fast", *short)
    assert load_renderer(fast, "in-scene").steps == 3
    assert load_renderer(slow, "in-scene").steps > 3
    assert list((tmp_path / "fast" / "unet" / "samples").glob("*.png")), "sample grids"
    with pytest.raises(UserError, match=r"few steps already \(3\)"):
        run("fewer-steps", data, "--model", fast, "--out", tmp_path / "again", *short)
    run("fewer-steps", data, "--model", fast, "--guidance", 1.5, "--to", 3, "--out", tmp_path / "again", *short)
    guided = load_renderer(tmp_path / "again" / "pipeline", "in-scene")
    assert (guided.steps, guided.guidance_scale) == (3, 1.0), "guidance is distilled, so no second pass is needed"
    assert not (tmp_path / "again" / "unet").exists(), "steps are not distilled twice"


@pytest.mark.parametrize(("option", "value"), [("--learning-rate", "-1"), ("--learning-rate", "nan")])
def test_a_number_out_of_range_is_reported_with_its_option(run, data, tmp_path, option, value):
    with pytest.raises(UserError, match=rf"{option[2:].replace('-', '_')}: .* not {value}"):
        run("renderer", data, "--out", tmp_path / "out", "--steps", 2, option, value)


def test_a_folder_with_foreign_files_or_a_file_is_refused(run, data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        run("renderer", data, "--out", tmp_path / "mine", "--steps", 1)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(UserError, match="cannot be written"):
        run("renderer", data, "--out", tmp_path / "mine" / "thesis.tex", "--steps", 1)


def test_a_full_disk_is_one_sentence(run, data, tmp_path, monkeypatch):
    from dataengine.train import loop

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(UserError, match="No space left on device"):
        run("renderer", data, "--out", tmp_path / "out", "--steps", 1, "--batch-size", 2, "--copies", 0)

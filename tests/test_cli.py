from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dataengine.errors import UserError
from dataengine.files import read_text

ROOT = Path(__file__).parents[1]


def dataengine(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run the command line as a user does."""
    program = [sys.executable, "-c", "from dataengine.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)


def test_help_names_every_command_and_loads_no_heavy_library():
    program = (
        "import sys; sys.argv = ['dataengine', '--help']; from dataengine.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'cv2', 'onnxruntime', 'albumentations', 'scipy'} & set(sys.modules)\n"
        "print('heavy:', heavy)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    for command in ("synth", "data", "layout", "train", "filter", "evaluate", "doctor"):
        assert command in run.stdout
    assert "heavy: set()" in run.stdout


def test_the_package_runs_as_a_module():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "dataengine", "--help"]
    assert "synth" in subprocess.run(program, capture_output=True, text=True, env=environment, check=True).stdout


def test_brackets_in_names_are_no_markup(tmp_path):
    from dataengine.data import coco
    from dataengine.data.layout import Dataset, Layout, Sample

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    layout = Layout([[32, 32, 20, 10, 0]], [0], ("[/red]",), (64, 64))
    coco.write(Dataset(("[/red]",), [Sample("a", tmp_path / "a.png", layout)]), tmp_path / "set[final]")
    run = dataengine("data", "info", tmp_path / "set[final]")
    assert run.returncode == 0, run.stderr
    assert "[/red]" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["synth", "--dataset", "atlantis"], "atlantis"),
        (["synth", "--n", "0"], "n:"),
        (["synth", "--config", "no-such.yaml"], "no-such.yaml"),
        (["synth", "--dataset", "dior", "--data", "no-such-folder"], "no-such-folder"),
        (["synth", "--renderer", "oil"], "renderer"),
        (["data", "info", "no-such-folder"], "no-such-folder"),
        (["train", "renderer", "no-such-folder", "--out", "x", "--kind", "oil"], "--kind oil"),
        (["train", "renderer", "no-such-folder", "--out", "x", "--kind", "whole", "--decoder", "y"], "--decoder y"),
        (["train", "renderer", "no-such-folder", "--out", "x", "--start", "y"], "y: no model_index.json"),
        (["train", "decoder", "no-such-folder", "--out", "x", "--crop", "50"], "--crop 50"),
    ],
)
def test_a_users_mistake_is_one_sentence_that_names_it_and_a_status_of_two(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dataengine(*arguments)
    assert run.returncode == 2
    assert says in run.stderr
    assert "Traceback" not in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_synth_prints_its_report_as_json_and_continues_what_is_there(toy_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    values = json.loads(toy_recipe.model_dump_json(exclude_none=True))
    recipe.write_text(json.dumps(values))  # JSON is YAML
    arguments = ("synth", "--config", recipe, "--out", tmp_path / "run", "--workers", "1", "--json")
    first = dataengine(*arguments)
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["accepted"] == toy_recipe.n
    assert json.loads(dataengine(*arguments).stdout) == report
    other = dataengine(*arguments, "--seed", "5")
    assert other.returncode == 2
    assert "another seed" in other.stderr


def test_a_dry_run_makes_nothing_and_says_what_it_would(toy_recipe, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(toy_recipe.model_dump_json(exclude_none=True))
    run = dataengine("synth", "--config", recipe, "--out", tmp_path / "run", "--dry-run", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["seconds_per_image_and_worker"] > 0
    told = dataengine("synth", "--config", recipe, "--out", tmp_path / "run", "--dry-run")
    assert all(word in told.stdout for word in ("an image takes", f"{toy_recipe.n} images into", "nothing was written"))
    assert "{" not in told.stdout, "words for people; --json for scripts"
    assert not (tmp_path / "run").exists()


def test_doctor_gives_versions_and_says_what_is_missing():
    run = dataengine("doctor", "--json")
    findings = json.loads(run.stdout)
    assert findings["required"]["torch"]
    assert run.returncode == (1 if findings["missing"] else 0)


def test_doctor_says_how_to_get_what_is_missing(capsys):
    from dataengine import doctor

    findings = doctor.examine()
    findings["optional"] = {name: f"missing; {how}" for name, how in doctor.OPTIONAL.items()}
    doctor.show(findings)
    assert ".[train]" in capsys.readouterr().out.replace("\n", "")


def test_an_error_is_one_line_whatever_the_name_that_it_repeats(tmp_path):
    name = "a\nb\x1b[31mred"
    with pytest.raises(UserError, match="cannot be read") as error:
        read_text(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value), "nor does it command the terminal"
    assert r"a\nb\x1b[31mred" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value), "as when it comes from a worker"
    assert str(UserError("Zürich 🚗: ok")) == "Zürich 🚗: ok", "control: letters stay"


def test_help_says_what_holds_if_an_option_is_left_out():
    run = dataengine("synth", "--help")
    for default in ("layouts [yes]", "steps [the renderer's own]", "real ones [0]"):
        assert default in " ".join(run.stdout.split())

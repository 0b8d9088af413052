from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import FIRST_OPTIONS, PANELS, RENAMED_OPTIONS, app
from dataengine.errors import UserError
from dataengine.files import read_text

ROOT = Path(__file__).parents[1]


def dataengine(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run the command line as a user does."""
    program = [sys.executable, "-c", "from dataengine.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(program, capture_output=True, text=True, env=environment, check=False)


def commands(command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """(words, command) of a command and all below it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT_COMMAND))


def parse(words: list[str]) -> tuple[str, ...]:
    """Parse a command line without running it; the words of its command. Raises for options that do not exist."""
    command, path = ROOT_COMMAND, ()
    while hasattr(command, "commands"):
        if words[0] not in command.commands and path == ("release",):
            words = ["make", *words]
        path, words = (*path, words[0]), words[1:]
        command = command.commands[path[-1]]
    command.make_context(path[-1], list(words))
    return path


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "dataengine")
def test_the_help_of_each_command_ends_with_an_example_that_parses(path):
    shown = CliRunner().invoke(app, [*path, "--help"], terminal_width=80)
    last = shown.stdout.rstrip().splitlines()[-1].strip()
    assert last.startswith("Example: dataengine "), shown.stdout
    parsed = parse(shlex.split(last)[2:])
    assert parsed[: len(path)] == path, "the example is of this command, or of one of the group"
    assert hasattr(COMMANDS[path], "commands") or parsed == path


def test_each_option_and_argument_has_a_help_text():
    unexplained = [
        (path, parameter.name)
        for path, command in COMMANDS.items()
        for parameter in command.params
        if not getattr(parameter, "help", None) and not getattr(parameter, "hidden", False)
    ]
    assert unexplained == []


def test_synth_has_an_option_for_each_field_of_a_recipe_in_five_panels():
    from dataengine.engine.recipe import Recipe

    options = {parameter.name: parameter for parameter in COMMANDS[("synth",)].params}
    assert set(Recipe.model_fields) < set(options)
    assert {options[name].rich_help_panel for name in Recipe.model_fields} == set(PANELS)
    for name, field in Recipe.model_fields.items():
        assert options[name].help.startswith(field.description)
    shown = dataengine("synth", "--help").stdout
    headings = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == ["Common options", *PANELS]
    common = shown[shown.index("Common options:") : shown.index("Data:")]
    assert [line.split()[0] for line in common.splitlines() if line.startswith("  --")] == [
        f"--{name}" for name in FIRST_OPTIONS
    ]
    assert "<reuse|prior|diffusion|map>" in shown or "[reuse|prior|diffusion|map]" in shown


def test_the_choices_of_options_are_those_that_the_code_knows():
    from dataengine.data.commands import FormatName
    from dataengine.data.formats import FORMATS
    from dataengine.export.commands import mmrotate_command, shards_command
    from dataengine.export.shards import SUFFIXES
    from dataengine.mmrotate import DetectorName
    from dataengine.mmrotate.training_config import DETECTORS, LAYOUTS

    assert get_args(FormatName) == tuple(FORMATS)
    assert get_args(DetectorName) == tuple(DETECTORS)
    assert get_args(get_type_hints(shards_command)["format"]) == tuple(SUFFIXES)
    assert get_args(get_type_hints(mmrotate_command)["layout"]) == tuple(LAYOUTS)


@pytest.fixture
def recipes(monkeypatch):
    """The recipes that commands plan to run."""
    found = []
    monkeypatch.setattr("dataengine.engine.show.print_plan", lambda recipe, out, as_json: found.append(recipe))
    return found


def test_lists_are_separated_by_commas_or_given_by_repeating_the_option(recipes):
    for words in (
        "--classes plane,ship --draw-as plane=boat,ship=van --balance plane=0.1,ship=0.2",
        "--classes plane --classes ship --draw-as plane=boat --draw-as ship=van --balance plane=0.1 --balance ship=0.2",
    ):
        done = CliRunner().invoke(app, ["synth", "--dataset", "dior", *words.split(), "--dry-run"])
        assert done.exit_code == 0, done.output
    one, other = recipes
    assert one == other
    assert one.classes == ("plane", "ship")
    assert one.draw_as == {"plane": "boat", "ship": "van"}
    assert one.balance == {"plane": 0.1, "ship": 0.2}


def test_options_of_the_command_line_override_a_file(recipes, tmp_path):
    (tmp_path / "recipe.yaml").write_text("dataset: dior\nclasses: [plane]\nn: 5\nenhance: false\n")
    words = ["--config", tmp_path / "recipe.yaml", "--n", 7, "--enhance", "--dry-run"]
    assert CliRunner().invoke(app, ["synth", *map(str, words)]).exit_code == 0
    [recipe] = recipes
    assert (recipe.n, recipe.enhance, recipe.classes, recipe.seed) == (7, True, ("plane",), 0)


def test_an_option_of_version_0_1_works_under_its_old_name_and_says_the_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dataengine("synth", "--dataset", "dior", "--class", "plane", "--class=ship", "--altitude", "2", "1")
    assert run.stderr.splitlines() == [
        "warning: --class is deprecated; use --classes",
        "error: altitude: give the lower number first: 1 2.",
    ]
    for path, renamed in RENAMED_OPTIONS.items():
        command = COMMANDS[path if path != ("release",) else ("release", "make")]
        known = {name for parameter in command.params for name in parameter.opts}
        assert set(renamed.values()) <= known
        assert not set(renamed) & known


def test_help_names_every_command_and_loads_no_heavy_library():
    program = (
        "import sys; sys.argv = ['dataengine', '--help']; from dataengine.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'cv2', 'onnxruntime', 'albumentations', 'scipy', 'pydantic', 'numpy'}\n"
        "print('heavy:', heavy & set(sys.modules))"
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["world", "--data", "nowhere"], "--data nowhere: does not exist"),
        (["world", "--dataset", "atlantis"], "'atlantis' is not a known data set"),
        (["world", "--dataset", "hrplanes", "--map-gsd", "0.2"], "give --map, or leave them out"),
        (["world", "--dataset", "hrplanes", "--tiles", "t", "--tile-size", "64"], "cannot overlap by 200"),
        (["rerender", "nowhere", "--night"], "'nowhere' is not a known data set"),
        (["improve", "nowhere", "--out", "x"], "nowhere does not exist"),
        (["run", "verify", "nowhere"], "nowhere: no recipe.json here"),
        (["export", "mmrotate", "nowhere", "--real", "x", "--out", "y", "--scale", "0"], "--scale 0"),
        (["evaluate", "lift", "x", "--real", "y", "--test", "z", "--out", "o", "--images", "5,many"], "5,many"),
    ],
)
def test_a_mistake_is_reported_before_libraries_that_take_seconds_are_imported(words, said, tmp_path):
    program = (
        "import sys; from dataengine.cli import main; sys.argv = ['dataengine', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print(sorted({'torch', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "[]\n"), done.stderr
    assert said in done.stderr


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
        (["synth", "--nn", "5"], "No such option: --nn"),
        (["data", "tile", "x"], "Missing argument 'out'. See dataengine data tile --help."),
        (["data", "draw", "x", "--out", "y.png", "--n", "0"], "'--n': Input should be greater than or equal to 1. See"),
        (
            ["evaluate", "lift", "x", "--real", "y", "--test", "z", "--out", "o", "--images", "5,many"],
            "--images 5,many",
        ),
        (["train", "renderer", "no-such-folder", "--out", "x", "--kind", "oil"], "'--kind': 'oil' is not one of"),
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
    text = dataengine("synth", "--config", recipe, "--out", tmp_path / "run", "--dry-run").stdout
    assert all(words in text for words in ("one image takes", f"{toy_recipe.n} images into", "nothing was written"))
    assert "{" not in text, "text for people; --json for scripts"
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
    assert "'aerial-dataengine[train]'" in capsys.readouterr().out.replace("\n", "")


def test_an_error_is_one_line_whatever_the_name_that_it_repeats(tmp_path):
    name = "a\nb\x1b[31mred"
    with pytest.raises(UserError, match="cannot be read") as error:
        read_text(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value), "nor does it command the terminal"
    assert r"a\nb\x1b[31mred" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value), "as when it comes from a worker"
    assert str(UserError("Zürich 🚗: ok")) == "Zürich 🚗: ok", "control: letters stay"


def test_help_shows_the_defaults():
    run = dataengine("synth", "--help")
    for default in ("[default: yes]", "steps. [default: the renderer's own]", "[default: 200]", "[default: 0.95]"):
        assert default in " ".join(run.stdout.split())


@pytest.mark.parametrize("words", ["synth --balance", "synth --altitude 5", "release make --name"])
def test_an_option_without_its_value_is_one_sentence(words):
    run = dataengine(*words.split())
    assert run.returncode == 2
    assert run.stderr.startswith("error: Option '--"), run.stderr
    assert run.stderr.endswith(" --help.\n"), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr

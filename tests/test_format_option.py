"""Every command that reads a data set can be told its format."""

from __future__ import annotations

import json

import pytest
import typer
from PIL import Image

from dataengine.cli import app
from dataengine.errors import UserError

# command -> {the argument or option with a data set: the option with its format}
READING = {
    "data info": {"path": "format"},
    "data draw": {"path": "format"},
    "data check": {"path": "format"},
    "data convert": {"path": "format"},
    "data tile": {"path": "format"},
    "data split": {"path": "format"},
    "data merge": {"paths": "format"},
    "improve": {"data": "format"},
    "world": {"data": "format"},
    "filter calibrate": {"dataset": "format"},
    "filter judge": {"dataset": "format"},
    "filter label": {"images": "format"},
    "layout fit": {"dataset": "format"},
    "layout store": {"dataset": "format"},
    "layout sample": {"source": "format"},
    "layout score": {"source": "format", "real": "real_format"},
    "layout draw": {"data": "format"},
    "train decoder": {"data": "format"},
    "train detector": {"data": "format"},
    "train full": {"data": "format"},
    "train layouts": {"data": "format"},
    "train renderer": {"data": "format"},
    "train fewer-steps": {"data": "format"},
    "evaluate fidelity": {"made": "format", "real": "real_format"},
    "evaluate diversity": {"made": "format", "real": "real_format"},
    "evaluate sharpness": {"made": "format", "real": "real_format"},
    "evaluate memorisation": {"made": "format", "real": "real_format", "training": "training_format"},
    "evaluate layout": {"made": "format", "real": "real_format"},
    "evaluate classification": {"made": "format", "real": "real_format"},
    "evaluate report": {"made": "format", "real": "real_format", "training": "training_format"},
    "evaluate lift": {"real": "format", "test": "format", "more_real": "format"},
    "export mmrotate": {"run": "format", "real": "real_format"},
    "export shards": {"source": "source_format"},
    "release make": {"training": "training_format", "held_out": "held_out_format"},
    "view": {"folder": "format", "real": "real_format"},
    "rerender": {"dataset": "format"},
    "sequence": {"dataset": "format"},
    "superres": {"dataset": "format"},
    "synth": {"data": "format", "scenes": "scenes_format", "into": "into_format"},
}
DATA_NAMES = {"data", "dataset", "real", "training", "held_out", "scenes", "into", "more_real"}
NO_DATA_SET = {
    (name, "dataset") for name in ("synth", "world", "data sample", "layout draw", "model import aerogen")
}  # names of presets


def commands(group=None, words=()) -> dict[str, typer.core.TyperCommand]:
    """{words of the command line: command}."""
    group = group or typer.main.get_command(app)
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*words, name))
        else:
            found[" ".join((*words, name))] = command
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", sorted(READING))
def test_a_command_that_reads_data_has_the_option(name):
    options = {option.name: option for option in COMMANDS[name].params}
    for data, format in READING[name].items():
        assert data in options
        assert f"--{format.replace('_', '-')}" in options[format].opts


def test_no_command_that_reads_data_is_forgotten():
    for name, command in COMMANDS.items():
        known = READING.get(name, {})
        unknown = {option.name for option in command.params} & DATA_NAMES - known.keys()
        assert {word for word in unknown if (name, word) not in NO_DATA_SET} == set(), name


@pytest.fixture
def two_formats(tmp_path):
    """A folder that labelme's files and a COCO file describe, with 12 and 24 cars."""
    root = tmp_path / "set"
    root.mkdir()
    for i in range(12):
        Image.new("RGB", (64, 64), (i, i, i)).save(root / f"{i}.png")
        shape = {"label": "car", "shape_type": "rectangle", "points": [[10, 10], [30, 20]]}
        content = {"shapes": [shape], "imagePath": f"{i}.png", "imageHeight": 64, "imageWidth": 64}
        (root / f"{i}.json").write_text(json.dumps(content))
    boxes = [(i, x) for i in range(12) for x in (10, 40)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(12)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": 1, "bbox": [x, 10, 15, 10]} for n, (i, x) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "all.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(("format", "objects"), [("labelme", 12), ("coco", 24)])
def test_the_format_that_is_stated_is_read(format, objects, two_formats, tmp_path, capsys):
    """In `data`, `layout` and `evaluate`; the others hand the option to the same functions."""
    from dataengine.evaluate.windows import read_real
    from dataengine.layouts.commands import fit_command
    from dataengine.layouts.stored import load_layouts

    assert sum(len(sample.layout) for sample in read_real(two_formats, None, format)) == objects
    fit_command(two_formats, tmp_path / "prior.json", format, None, 64, 1)
    assert f"{objects} objects" in capsys.readouterr().out
    with pytest.raises(UserError, match="several formats"):
        read_real(two_formats)
    from dataengine.layouts.commands import store_command

    store_command(two_formats, tmp_path / "layouts.npz", format, None)
    assert sum(map(len, load_layouts(tmp_path / "layouts.npz"))) == objects

"""The commands of docs/scale.md run with fewer images, and its program reads what they export."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dataengine.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]


def test_a_run_is_made_verified_exported_and_read_as_the_page_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("webdataset")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    output = ""
    for line in block("bash").replace("--n 100000", "--n 3 --workers 1 --batch-size 4").splitlines():
        done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:], catch_exceptions=False)
        assert done.exit_code == 0, line + done.output
        output += done.output
    assert "render" in output
    assert "accepted; unchanged" in output
    assert not (tmp_path / "runs" / "large" / "dota").exists()

    program = block("python").replace(
        '["category_name"]\n', '["category_name"]\n    print("tar", image.size, *names)\n'
    )
    program += '    print("parquet", image.size, *map(rows.features["objects"]["category"].feature.int2str, classes))\n'
    capsys.readouterr()
    exec(program, {})
    records = map(json.loads, (tmp_path / "runs" / "large" / "manifest.jsonl").read_text().splitlines())
    kept = [record["labels"] for record in records if record["verdict"]["kept"]]
    objects = [" ".join(labels["classes"][i] for i in labels["labels"]) for labels in kept]
    assert len(kept) == 3
    expected = [f"{form} (256, 256) {names}" for form in ("tar", "parquet") for names in objects]
    assert capsys.readouterr().out.splitlines() == expected


def test_the_command_for_a_cluster_has_only_options_that_exist():
    synth = get_command(app).commands["synth"]
    known = {name for option in synth.params for name in (*option.opts, *option.secondary_opts)}
    [line] = [line for line in block("sh").splitlines() if line.startswith("dataengine")]
    assert set(re.findall(r"--[a-z-]+", line)) <= known

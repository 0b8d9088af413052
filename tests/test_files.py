"""Only regular files are read, and small texts cannot cost much."""

from __future__ import annotations

import ast
import os
import socket
import time
from pathlib import Path

import pytest

from dataengine import files
from dataengine.errors import UserError
from dataengine.files import open_regular, parse_json, read_bytes, read_text, read_yaml

PACKAGE = Path(files.__file__).parent


@pytest.fixture
def special(tmp_path):
    """{kind: path} of what is no regular file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    listening = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(tmp_path)  # the path of a socket has at most 107 characters
    listening.bind("socket")
    os.chdir(before)
    yield {name: tmp_path / name for name in ("pipe", "device", "folder", "loop", "socket")}
    listening.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("pipe", "pipe"), ("device", "device"), ("folder", "folder"), ("loop", "symbolic links"), ("socket", "address")],
)
def test_what_is_no_regular_file_is_refused_at_once_in_one_sentence(kind, said, special):
    with pytest.raises(OSError, match=said):
        open_regular(special[kind])
    with pytest.raises(UserError, match=f"cannot be read .*{said}"):
        read_text(special[kind])


def test_a_regular_file_is_read_whole_and_up_to_its_limit(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, more than 4"):
        read_bytes(tmp_path / "a", 4)


def test_line_ends_of_all_systems_are_one(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "a") == "a\nb\nc\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n: 1" + ":1" * 100_000, "no plain number"),
        ("n: 1" + ":1" * 50_000 + ".5", "no plain number"),
        ("n: " + "9" * 5000, "no plain number"),
        ("n: 0x" + "f" * 200_000, "no plain number"),
        ("n: " + "x" * 300_000, "more than 262,144"),
        ("n: " + "[" * 20_000, "nested too deeply"),
        ("a: &a [1]\nb: *a", "aliases"),
    ],
)
def test_a_small_yaml_file_cannot_cost_much(text, said, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    before = time.process_time()
    with pytest.raises(UserError, match=said) as told:
        read_yaml(tmp_path / "a.yaml")
    assert time.process_time() - before < 5
    assert len(str(told.value)) < 400


def test_plain_yaml_numbers_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb: -1.5e+3\nc: 0x1f\nd: .inf\ne: '12:30'\nf: 1_000\n")
    assert read_yaml(tmp_path / "a.yaml") == {
        "a": 1, "b": -1500.0, "c": 31, "d": float("inf"), "e": "12:30", "f": 1000,
    }  # fmt: skip


def test_a_repeated_key_among_150000_is_found_in_time():
    text = "{" + ", ".join(f'"k{i}": 1' for i in range(150_000)) + ', "k149999": 2}'
    before = time.process_time()
    with pytest.raises(ValueError, match="key 'k149999' twice"):
        parse_json(text)
    assert time.process_time() - before < 5, "comparing all pairs takes minutes"


def test_a_number_of_5000_digits_is_refused_in_words():
    with pytest.raises(ValueError, match="a number of more than 4,300 digits"):
        parse_json("9" * 5000)


def _reads(tree: ast.AST) -> set[str]:
    """Calls in a module that open a file for reading other than by `dataengine.files`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("read_bytes", "read_text"):
                found.add(f"line {node.lineno}: {node.func.attr}")
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "open":
            mode = next((argument.value for argument in node.args[1:2] if isinstance(argument, ast.Constant)), "r")
            if str(mode).startswith("r"):
                found.add(f"line {node.lineno}: open")
    return found


@pytest.mark.parametrize("file", sorted((PACKAGE / "data").glob("*.py")), ids=lambda file: file.stem)
def test_readers_of_labels_open_files_by_the_one_helper(file):
    assert _reads(ast.parse(file.read_text())) == set()


def test_another_way_of_opening_is_found():
    text = "open(path, 'rb').read()\npath.read_bytes()\nread_bytes(path)\nopen(path, 'w')"
    assert _reads(ast.parse(text)) == {"line 1: open", "line 2: read_bytes"}

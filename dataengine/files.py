"""Text files read as UTF-8 and files that appear whole or not at all, with the user's mistakes in one sentence."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile

from dataengine.errors import UserError


def read_text(path: str | Path) -> str:
    """The file's text, UTF-8 with or without a byte order mark. Raises UserError when it is not, or cannot be read."""
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escape for half of a character outside the first 65,536


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text, UTF-8 or (as bytes) UTF-16. ValueError says what is wrong, also for what Python lets
    pass: a key that an object has twice, of which one would be lost, nesting beyond its own depth, and halves of
    characters, which no file can be written with."""
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        value = json.loads(text, object_pairs_hook=_distinct)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a character, \\u{ord(error.object[error.start]):x}, which is no text") from None
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8, so it is no JSON file") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None


def _distinct(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {twice!r} twice in one object; keep one of them")
    return content


def check_writable(out: Path) -> None:
    """Before minutes of work, not after them: whether a folder, which need not exist yet, can be written to.

    Nothing is left behind. Raises UserError where it cannot."""
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); give another --out.") from None


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file that is there whole or not at all. Raises UserError when the folder cannot be written to."""
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            fresh.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(fresh, path)
        finally:
            if fresh.exists():
                fresh.unlink()
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); choose a folder you can write to") from error


def read_onnx(path: Path) -> bytes:
    """An ONNX model, all of it. Raises UserError when it leaves weights to other files, whose paths lead anywhere and
    whose content no hash of the model knows."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None
    if b"\n\x08location" in data:  # the key of TensorProto.external_data, as protobuf writes it
        raise UserError(f"{path}: leaves weights to other files; save it as one (onnx.save without external data).")
    return data


DEEPEST = 100  # layers of a block or of a model


def refuse_depth(config: Path) -> None:
    """Raises UserError for a model's config.json that asks for so many layers that building them would not end, which
    it must not do before its weights are looked at, or that others may read otherwise than we: a key twice, for one.
    What else is wrong in it is left to those who read it."""
    try:
        text = read_text(config)
    except UserError:
        return
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{config} {error}; copy the model again.") from None
    for name, value in content.items() if isinstance(content, dict) else ():
        depths = value if isinstance(value, list) else [value]
        if "layers" in name and any(isinstance(n, int | float) and n > DEEPEST for n in depths):
            raise UserError(f"{config}: {name} asks for more than {DEEPEST} layers; copy the model again.")


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_whole` leaves in a folder when it is killed half-way."""
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+", file.name) and file.is_file():
            file.unlink()


def read_yaml(path: str | Path) -> dict:
    """The fields of a YAML file. Raises UserError, with the line, when it is no list of `field: value` lines."""
    import yaml

    try:
        values = yaml.load(read_text(path), _loader()) or {}  # plain values only: a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two from numbers and dates
        raise UserError(f"{path}: {_fault(error)}.") from None
    except RecursionError:
        raise UserError(f"{path}: it is nested too deeply to be a list of settings.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: it has to be a list of `field: value` lines.")
    return values


@lru_cache
def _loader() -> type:
    """PyYAML's safe loader without what makes a small file a huge one, or loses half of it, unnoticed."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):  # ten lines of them can stand for more than memory holds
                mark = self.peek_event().start_mark
                raise yaml.MarkedYAMLError(None, None, "aliases, *name, are not followed", mark)
            return super().compose_node(parent, index)

        def construct_scalar(self, node):
            value = super().construct_scalar(node)
            try:
                value.encode()
            except UnicodeEncodeError:
                raise yaml.MarkedYAMLError(None, None, "half a character is no text", node.start_mark) from None
            return value

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep)

    return Plain


def _fault(error: Exception) -> str:
    """Where and why a text is not YAML, from PyYAML's error."""
    mark, why = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1} is not valid YAML ({why})" if mark is not None else f"not valid YAML ({why})"

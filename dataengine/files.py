"""Reading UTF-8 text, JSON, YAML and ONNX files, and atomic writes; every failure is one sentence for the user."""

from __future__ import annotations

import errno
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from dataengine.errors import UserError


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises UserError for unreadable or other text."""
    try:
        return Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # the escape of half a character beyond U+FFFF


def parse_json(text: str | bytes) -> object:
    """The value of a JSON text; bytes may be UTF-8, UTF-16 or UTF-32.

    Raises ValueError, with the reason, for invalid JSON. Stricter than `json.loads`: repeated keys of an object, of
    which one would be lost, and unpaired surrogates, which cannot be written to a file, are errors too.

    >>> parse_json('{"n": 1}')
    {'n': 1}
    >>> parse_json('{"n": 1, "n": 2}')
    Traceback (most recent call last):
    ValueError: has the key 'n' twice in one object; keep one of them
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        value = json.loads(text, object_pairs_hook=_unique_keys)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a character, \\u{ord(error.object[error.start]):x}, which is not text") from None
    except UnicodeDecodeError:
        raise ValueError("is not JSON: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON ({error.msg} at line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deeply to be read") from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"has the key {repeated!r} twice in one object; keep one of them")
    return content


def check_writable(out: Path) -> None:
    """Raises UserError if a folder, which may not exist yet, cannot be written to. Call it before minutes of work.

    Nothing is left on the disk.
    """
    existing = out.resolve()
    while not existing.exists():
        existing = existing.parent
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); give another --out.") from None


def user_cache() -> Path:
    """The package's own folder for what a user's machine keeps: below $XDG_CACHE_HOME or ~/.cache. It may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataengine"


def make_room(error: OSError) -> str:
    """Advice to begin a sentence with: "free some space or " if the disk is full, else nothing."""
    return "free some space or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


def disk_space(n_bytes: float) -> str:
    """A size on disk for people.

    >>> disk_space(670), disk_space(2_300_000), disk_space(12_000_000_000)
    ('0.67 kB', '2.3 MB', '12 GB')
    """
    for limit, unit, factor in ((1e5, "kB", 1e3), (1e8, "MB", 1e6)):
        if n_bytes < limit:
            return f"{n_bytes / factor:.2g} {unit}"
    return f"{n_bytes / 1e9:.2g} GB"


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a file atomically: it appears complete or not at all. Raises UserError if it cannot be written."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); choose a folder you can write to") from error


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX model. Raises UserError if it refers to weights in other files: their paths could lead
    anywhere, and the hash of the model would not cover them."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None
    if b"\n\x08location" in data:  # the key of TensorProto.external_data, as protobuf writes it
        raise UserError(
            f"{path}: its weights are in other files; save it as one file (onnx.save without external data)."
        )
    return data


MAX_LAYERS = 100  # of a block or of a model


def check_depth(config: Path) -> None:
    """Raises UserError for a model's config.json that is not valid JSON or has a number of layers above `MAX_LAYERS`,
    whose construction might not end. Other faults are left to the code that loads the model."""
    try:
        text = read_text(config)
    except UserError:
        return
    try:
        content = parse_json(text)
    except ValueError as error:
        raise UserError(f"{config} {error}; copy the model again.") from None
    for name, value in content.items() if isinstance(content, dict) else ():
        for depth in value if isinstance(value, list) else [value]:
            if "layers" in name and isinstance(depth, int | float) and depth > MAX_LAYERS:
                raise UserError(f"{config}: {name} asks for more than {MAX_LAYERS} layers; copy the model again.")


def remove_unfinished(folder: Path) -> None:
    """Remove the partial files that an interrupted `write_whole` leaves in a folder."""
    for file in folder.iterdir():
        if re.fullmatch(r"\..+\.\d+", file.name) and file.is_file():
            file.unlink()


def read_yaml(path: str | Path) -> dict:
    """The mapping in a YAML file, plain values only. Raises UserError, with the line, for anything else."""
    import yaml

    try:
        values = yaml.load(read_text(path), _loader()) or {}  # plain values only: a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two for numbers and dates
        raise UserError(f"{path}: {_fault(error)}.") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; write one `field: value` a line.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: is not a mapping; write one `field: value` a line.")
    return values


@lru_cache
def _loader() -> type:
    """PyYAML's safe loader, which also rejects aliases, repeated keys and unpaired surrogates."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def compose_node(self, parent, index):
            if self.check_event(yaml.AliasEvent):  # ten lines of aliases can expand beyond the memory
                mark = self.peek_event().start_mark
                raise yaml.MarkedYAMLError(None, None, "aliases such as *name are not supported", mark)
            return super().compose_node(parent, index)

        def construct_scalar(self, node):
            value = super().construct_scalar(node)
            try:
                value.encode()
            except UnicodeEncodeError:
                raise yaml.MarkedYAMLError(None, None, "half a character is not text", node.start_mark) from None
            return value

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value} is repeated", key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep)

    return StrictLoader


def _fault(error: Exception) -> str:
    """Line and reason of a PyYAML error."""
    mark, reason = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1} is not valid YAML ({reason})" if mark is not None else f"not valid YAML ({reason})"


def lock(file: Path, shared: bool = False) -> IO[str]:
    """The file, open and locked. The lock ends when the file is closed or the process ends, however it ends.

    Any number of processes may hold a shared lock, or one process an exclusive one. A shared lock only reads the file,
    which must exist. Raises BlockingIOError while another process holds a lock that excludes this one.
    """
    import portalocker

    stream = open(file, "r" if shared else "a")  # noqa: SIM115  open as long as the lock is held
    kind = portalocker.LockFlags.SHARED if shared else portalocker.LockFlags.EXCLUSIVE
    try:
        portalocker.lock(stream, kind | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        stream.close()
        raise BlockingIOError(errno.EAGAIN, "is locked by another process", str(file)) from None
    except portalocker.LockException as error:  # on a disk that knows no locks
        stream.close()
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(file)) from error
    return stream

"""Reading UTF-8 text, JSON, YAML and ONNX files, and atomic writes; every failure is one sentence for the user."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from stat import S_IFMT, S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG
from tempfile import TemporaryFile
from typing import IO, BinaryIO, Literal, TypeVar

from dataengine.errors import UserError, first_fault, shown

T = TypeVar("T")
MAX_TEXT_BYTES = 2**28  # of label files and lists of names; a million objects of DOTA have 80 MB
MAX_CONFIG_BYTES = 2**22  # of settings in JSON
MAX_YAML_BYTES = 2**18  # PyYAML reads 100 kB/s on a slow core
MAX_SCALAR = 300  # characters of a number in YAML; Python's own take time that grows with their square


def read_json_as(
    file: Path, validate: Callable[[object], T], fields: Iterable[str], advice: str = "", max_bytes: int | None = None
) -> T:
    """What `validate` of pydantic makes of a JSON file. Raises UserError for what it refuses and for other text.

    fields: known names, of which the sentence offers the nearest. advice: how to go on.
    """
    from pydantic import ValidationError

    ending = f"; {advice}." if advice else "."
    try:
        return validate(parse_json(read_text(file, max_bytes)))
    except ValidationError as error:
        raise UserError(f"{file}: {first_fault(error, fields)}{ending}") from None
    except ValueError as error:
        raise UserError(f"{file} {error}{ending}") from None


def open_regular(path: str | Path) -> BinaryIO:
    """A file open for reading in binary. Every reader opens files of others with it.

    Raises OSError for a pipe, which would block until somebody writes to it, for a device, which may never end, and for
    a folder or a socket; its `strerror` says which it is. Links are followed.

    >>> open_regular("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 22] it is a device, not a file: '/dev/zero'
    """
    # O_NONBLOCK: opening a pipe without a writer does not block
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
        if not S_ISREG(mode):
            kinds = {"a pipe": S_ISFIFO, "a device": lambda mode: S_ISCHR(mode) or S_ISBLK(mode)}
            kind = next((name for name, is_kind in kinds.items() if is_kind(mode)), f"of kind {S_IFMT(mode):o}")
            raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, max_bytes: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError as `open_regular` does, and for more than `max_bytes`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {max_bytes:,}", str(path))
        content = file.read(size + 1)  # no more: some files of the system have no end
    if len(content) > size:
        raise OSError(errno.EBUSY, "it grows while it is read", str(path))
    return content


def read_text(path: str | Path, max_bytes: int | None = None) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, with line ends as "\\n".

    max_bytes: what a file of its kind may have at most; None for no limit. Raises UserError for unreadable, longer or
    other text.
    """
    try:
        text = read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the name and its permissions") from None
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


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
        value = json.loads(text, object_pairs_hook=unique_keys)
        refuse_surrogates(text, value)
        return value
    except INVALID_JSON as error:
        raise ValueError(json_fault(error)) from None


INVALID_JSON = (UnicodeError, ValueError, RecursionError)  # which json raises for invalid texts


def json_fault(error: Exception) -> str:
    """What is wrong with a JSON text, by the error that `json` raised."""
    if isinstance(error, UnicodeEncodeError):
        return f"has half a character, \\u{ord(error.object[error.start]):x}, which is not text"
    if isinstance(error, UnicodeDecodeError):
        return "is not JSON: it is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"is not valid JSON ({error.msg} at line {error.lineno}, column {error.colno})"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read"
    if str(error).startswith("Exceeds the limit"):  # of Python: longer ones take time that grows with their square
        return f"has a number of more than {sys.get_int_max_str_digits():,} digits"
    return str(error)


def refuse_surrogates(text: str, value: object) -> None:
    """Raises UnicodeEncodeError if an escape of half a character in a JSON text is no whole one in its value."""
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()


def unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """The object with these keys, for `object_pairs_hook` of `json`. Raises ValueError for a repeated key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"has the key {shown(repeated)} twice in one object; keep one of them")
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


def cannot_write(error: OSError, place: Path, advice: str) -> UserError:
    """The sentence for an output that could not be written. place: where the error names no file; advice: how to go on.

    >>> full = OSError(errno.ENOSPC, "No space left on device", "runs/a")
    >>> str(cannot_write(full, Path("runs"), "choose another folder."))
    'runs/a: cannot be written (No space left on device); free some space or choose another folder.'
    """
    file = error.filename or place
    return UserError(f"{file}: cannot be written ({error.strerror or error}); {make_room(error)}{advice}")


def refuse_links(folder: Path) -> None:
    """Raises UserError for a link, pipe, socket or device anywhere below a folder that is going to be written to.

    The folder itself may be a link. Call it before anything is written there: what is written to a link is written
    somewhere else.
    """
    folders = [folder] if folder.is_dir() else []
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    kind = "a link" if entry.is_symlink() else "a pipe, socket or device"
                    raise UserError(
                        f"{entry.path}: is {kind}, and what is written to it would go elsewhere; remove it, or choose "
                        "another folder."
                    )


def create(path: Path, mode: Literal["x", "xb"] = "x") -> IO:
    """A new file open for writing, as UTF-8 text or as bytes. Raises OSError.

    A file, link or pipe of that name is removed before, so that nothing is written to what it led to."""
    path.unlink(missing_ok=True)
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there; of a link only the link. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def create_folder(path: Path) -> None:
    """A new, empty folder, in place of whatever has that name. Raises OSError."""
    remove(path)
    path.mkdir(parents=True)


def ensure_folder(path: Path) -> None:
    """A folder, made if it is not there. Raises UserError where it cannot be, as where a file has its name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(error, path, "remove what is in the way, or choose another folder.") from None


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
    """Write a file atomically: it appears complete or not at all, in place of a file or link of that name.

    Raises UserError if it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with create(partial, "xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error.strerror}); choose a folder you can write to") from error


MAX_ONNX_BYTES = 2**30  # a protobuf message ends at 2 GiB; detectors have up to some hundred million weights


def read_onnx(path: Path) -> bytes:
    """The bytes of an ONNX model. Raises UserError if it refers to weights in other files: their paths could lead
    anywhere, and the hash of the model would not cover them."""
    try:
        data = read_bytes(path, MAX_ONNX_BYTES)
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
        text = read_text(config, MAX_CONFIG_BYTES)
    except UserError:
        if not config.exists():
            return
        raise
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
        values = (
            yaml.load(read_text(path, MAX_YAML_BYTES), _loader()) or {}
        )  # plain values only: a subclass of SafeLoader
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

        def construct_number(self, node):
            text = node.value.lower()
            if len(text) > MAX_SCALAR or (":" in text and not text.startswith(".")):
                problem = f"{shown(node.value)} is no plain number; put text in quotes"  # 1:30 is 90 in base 60
                raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
            is_float = node.tag.endswith("float")
            return super().construct_yaml_float(node) if is_float else super().construct_yaml_int(node)

        def construct_mapping(self, node, deep=False):
            seen = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.MarkedYAMLError(None, None, f"the key {key.value} is repeated", key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep)

    for kind in ("int", "float"):
        StrictLoader.add_constructor(f"tag:yaml.org,2002:{kind}", StrictLoader.construct_number)
    return StrictLoader


def _fault(error: Exception) -> str:
    """Line and reason of a PyYAML error."""
    mark, reason = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1} is not valid YAML ({reason})" if mark is not None else f"not valid YAML ({reason})"


def lock(file: Path, shared: bool = False) -> IO[str]:
    """The file, open and locked. The lock ends when the file is closed or the process ends, however it ends.

    Any number of processes may hold a shared lock, or one process an exclusive one. A shared lock only reads the file,
    which must exist. Raises BlockingIOError while another process holds a lock that excludes this one, UserError if the
    file is a link or no regular file.
    """
    import portalocker

    wanted = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    try:  # a pipe is not waited for
        number = os.open(file, wanted | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV):
            raise UserError(f"{file}: is a link or no regular file; remove it.") from None
        raise
    if not S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise UserError(f"{file}: is no regular file; remove it.")
    stream = os.fdopen(number, "r" if shared else "r+")  # open as long as the lock is held
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

"""Tamperings of a folder, generated: every field of its JSON files, every file and folder, and things added to it.

A tampering is one change of a copy of the folder. `examine` says what a verifier makes of each: it has to report it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from dataengine.errors import UserError
from dataengine.folders import walk

MAX_CPU_SECONDS = 20  # for one verification, which takes a fraction of a second
MAX_SECONDS = 200  # for one that waits, as for a pipe; a busy machine may halt it
TEXTS = (".txt", ".md", ".yaml", ".sha256", "")


@dataclass(frozen=True)
class Tampering:
    """kind: what is done, such as "number changed". file: where, from the folder on. place: the field in it."""

    kind: str
    file: str
    place: str
    apply: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.kind}: {self.file}{f' {self.place}' if self.place else ''}"


@dataclass
class Outcome:
    """Tamperings by what a verifier made of them. ignored: with the reason why they do not matter."""

    reported: list[Tampering] = field(default_factory=list)
    missed: list[Tampering] = field(default_factory=list)
    crashed: list[tuple[Tampering, str]] = field(default_factory=list)
    hung: list[Tampering] = field(default_factory=list)
    ignored: Counter = field(default_factory=Counter)

    @property
    def all_reported(self) -> bool:
        """Whether nothing was missed, and no verification crashed or hung."""
        return len(self.reported) == self.matter

    @property
    def matter(self) -> int:
        """How many matter."""
        return len(self.reported) + len(self.missed) + len(self.crashed) + len(self.hung)

    def __str__(self) -> str:
        kinds = Counter(one.kind for one in self.reported)
        counts = f"{len(self.missed)} missed, {len(self.crashed)} crashes, {len(self.hung)} hangs"
        rows = [f"{self.matter} tamperings that matter: {len(self.reported)} reported, {counts}"]
        rows += [f"  {n:4} {kind}" for kind, n in kinds.most_common()]
        rows += [f"  MISSED {one}" for one in self.missed]
        rows += [f"  CRASH {one}: {error}" for one, error in self.crashed]
        rows += [f"  HANG {one}" for one in self.hung]
        return "\n".join([*rows, *(f"  {n:4} ignored: {reason}" for reason, n in self.ignored.items())])


class _Hang(BaseException):
    pass


def examine(
    folder: Path,
    tamperings: Iterable[Tampering],
    work: Path,
    is_reported: Callable[[Path], bool],
    does_not_matter: Callable[[Tampering], str] = lambda one: "",
    afterwards: Callable[[Path], None] = lambda copy: None,
) -> Outcome:
    """Do each tampering to a copy of the folder in `work`.

    is_reported: whether the verifier finds a fault in the copy; a UserError counts as one. does_not_matter: the reason,
    "" for a tampering that matters. afterwards: what whoever tampers does in the end, such as new checksums.
    """

    def stop(*_) -> None:
        raise _Hang

    outcome, copy = Outcome(), work / folder.name
    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    try:
        for one in tamperings:
            if reason := does_not_matter(one):
                outcome.ignored[reason] += 1
                continue
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            one.apply(copy)
            afterwards(copy)
            signal.setitimer(signal.ITIMER_PROF, MAX_CPU_SECONDS)
            signal.alarm(MAX_SECONDS)
            try:
                (outcome.reported if is_reported(copy) else outcome.missed).append(one)
            except UserError:
                outcome.reported.append(one)
            except _Hang:
                outcome.hung.append(one)
            except Exception as error:
                outcome.crashed.append((one, f"{type(error).__name__}: {error}"))
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        shutil.rmtree(copy, ignore_errors=True)
    return outcome


def of_folder(folder: Path) -> Iterator[Tampering]:
    """All tamperings with what a folder holds."""
    entries = list(walk(folder))
    files = [name for name, kind in entries if kind == "file"]
    for name in files:
        yield from _of_file(name)
        if name.endswith((".json", ".jsonl")):
            yield from of_json_file(folder, name)
        elif Path(name).suffix in TEXTS:
            yield from _of_text(folder, name)
        elif other := next((each for each in files if each != name and _alike(each, name)), None):
            yield Tampering("files swapped", name, other, lambda f, a=name, b=other: _swap(f / a, f / b))
    for name in ["", *(name for name, kind in entries if kind == "folder")]:
        yield from _of_subfolder(name)


def few_of(tamperings: Iterable[Tampering]) -> Iterator[Tampering]:
    """A tenth of them that has every kind: one tampering of every fourth field, and of every second other one. Files
    whose names differ in digits count as one, and so do elements of a list."""
    seen: Counter = Counter()
    for one in tamperings:
        is_field = one.place and one.file.endswith(("json", "jsonl"))
        key = "|".join(re.sub(r"\d+", "#", text) for text in (one.file, one.place if is_field else one.kind))
        number = crc32(key.encode())
        if seen[key] == number % 3 and number // 3 % (4 if is_field else 2) == 0:
            yield one
        seen[key] += 1


def _alike(a: str, b: str) -> bool:
    return Path(a).suffix == Path(b).suffix and re.sub(r"\d+", "#", a) == re.sub(r"\d+", "#", b)


def _of_file(name: str) -> Iterator[Tampering]:
    def change(kind: str, apply: Callable[[Path], None]) -> Tampering:
        return Tampering(kind, name, "", lambda folder: apply(folder / name))

    yield change("file deleted", Path.unlink)
    yield change("file emptied", lambda file: file.write_bytes(b""))
    yield change("file cut in half", lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]))
    yield change("bytes appended", lambda file: file.write_bytes(file.read_bytes() + b"\n"))
    yield change("bit flipped", _flip)
    yield change("file became a folder", lambda file: (file.unlink(), file.mkdir()))
    yield change("file became a link", _link_away)
    yield change("file became an endless device", lambda file: (file.unlink(), file.symlink_to("/dev/zero")))
    yield change("file became a pipe", lambda file: (file.unlink(), os.mkfifo(file)))


def _of_subfolder(name: str) -> Iterator[Tampering]:
    def change(kind: str, apply: Callable[[Path], None]) -> Tampering:
        return Tampering(kind, name, "", lambda folder: apply(folder / name))

    yield change("file added", lambda place: (place / "notes.txt").write_text("x"))
    yield change("image added", lambda place: (place / "99999999.png").write_bytes(b"\x89PNG\r\n\x1a\n"))
    yield change("hidden file added", lambda place: (place / ".hidden").write_text("x"))
    yield change("empty folder added", lambda place: (place / "empty").mkdir())
    yield change("link added", lambda place: (place / "link").symlink_to("/etc"))
    yield change("pipe added", lambda place: os.mkfifo(place / "pipe"))
    if name:
        yield change("folder deleted", shutil.rmtree)
        yield change("folder renamed", lambda place: place.rename(place.with_name(f"{place.name}-1")))
        yield change("folder emptied", lambda place: (shutil.rmtree(place), place.mkdir()))


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes() or b"\1")
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _link_away(file: Path) -> None:
    """The same content, from elsewhere."""
    target = file.parents[len(file.parents) - 2] / "tmp" / f"tampering-{os.getpid()}"
    target = Path(os.environ.get("TMPDIR", "/tmp"), target.name)
    shutil.move(file, target)
    file.symlink_to(target)


def _swap(a: Path, b: Path) -> None:
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other), b.write_bytes(one)


def _of_text(folder: Path, name: str) -> Iterator[Tampering]:
    lines = (folder / name).read_text().splitlines(keepends=True)

    def change(kind: str, changed: list[str]) -> Tampering:
        return Tampering(kind, name, "", lambda folder: (folder / name).write_text("".join(changed)))

    if lines:
        yield change("line deleted", lines[1:])
        yield change("line doubled", [lines[0], *lines])
        at = next((i for i, line in enumerate(lines) if re.search(r"\d", line)), None)
        if at is not None:
            changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), lines[at], count=1)
            yield change("digit changed", [*lines[:at], changed, *lines[at + 1 :]])
    if len(set(lines)) > 1:
        yield change("lines reversed", lines[::-1])
    yield change("blank line added", [*lines, "\n"])


def of_json_file(folder: Path, name: str) -> Iterator[Tampering]:
    """Each field of a JSON file, or of the first and last line of a JSONL file, in its own layout."""
    text = (folder / name).read_text()
    if not name.endswith(".jsonl"):
        indent = 2 if "\n  " in text else None
        end = "\n" if text.endswith("\n") else ""
        value = json.loads(text)
        if _dumped(value, indent) + end != text:
            return  # another layout, such as a trace's
        for kind, place, changed in of_json(value):
            yield Tampering(kind, name, place, _write(name, _dumped(changed, indent) + end))
        return
    lines = text.splitlines()
    for at in sorted({0, len(lines) - 1}):
        value = json.loads(lines[at])
        for kind, place, changed in of_json(value):
            new = "".join(f"{line}\n" for line in (*lines[:at], _dumped(changed, None), *lines[at + 1 :]))
            yield Tampering(kind, name, f"{at}{place}", _write(name, new))
    for kind, changed in (
        ("line deleted", lines[1:]),
        ("line doubled", [lines[0], *lines]),
        ("lines reversed", lines[::-1]),
        ("line is no object", ["[]", *lines[1:]]),
    ):
        if changed != lines:
            yield Tampering(kind, name, "lines", _write(name, "".join(f"{line}\n" for line in changed)))


def _dumped(value: object, indent: int | None) -> str:
    return json.dumps(value, indent=indent)


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


def of_json(value: object) -> Iterator[tuple[str, str, object]]:
    """(kind, place, changed value) for every part of a JSON value; of longer lists the first and the last element."""
    for path, part in _parts(value):
        place = "".join(f".{key}" for key in path)
        for kind, changed in _changes(part):
            yield kind, place, _with(value, path, changed)
        if path and isinstance(path[-1], str):
            yield "field deleted", place, _without(value, path)


def _parts(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    yield path, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _parts(part, (*path, key))
    elif isinstance(value, list):
        for i in sorted({0, len(value) - 1} if value else ()):
            yield from _parts(value[i], (*path, i))


def _changes(part: object) -> Iterator[tuple[str, object]]:
    if isinstance(part, bool):
        yield "flag turned", not part
        yield "flag became a number", int(part)
    elif isinstance(part, int | float):
        yield "number changed", part + 1
        yield "number became text", str(part)
        yield "number became huge", 10**30
    elif isinstance(part, str):
        yield "text changed", part + "x"
        yield "text became a regular expression", "(a+)+$("
        yield "text became a path", "../../../etc/passwd"
    elif part is None:
        yield "nothing became a number", 1
        yield "nothing became text", "(a|a)*$"
    elif isinstance(part, list):
        if part:
            yield "element deleted", part[1:]
            yield "element doubled", [part[0], *part]
        if part[::-1] != part:
            yield "elements reversed", part[::-1]
        yield "element added", [*part, part[-1] if part else 1]
        yield "list became an object", {}
    elif isinstance(part, dict):
        yield "field added", {**part, "added": [1]}
        yield "object became a list", []
    if part is not None:
        yield "field became null", None


def _with(value: object, path: tuple, changed: object) -> object:
    if not path:
        return changed
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], changed)
    return copy


def _without(value: object, path: tuple) -> object:
    if len(path) == 1:
        return {key: part for key, part in value.items() if key != path[0]}
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _without(value[path[0]], path[1:])
    return copy

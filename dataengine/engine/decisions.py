"""What a person decided about the images of a run: `decisions.jsonl` beside its manifest.

The file is only ever appended to, one change a line, so that a run and its manifest stay what was made, decisions can
be undone, and an export can name the changes that it contains by their number. A change names each image by its index
and the beginning of its file's SHA-256, so it never applies to another image.

    {"at": "2026-05-01T09:30:00Z", "do": "reject", "images": [[12, "9f86d081884c7d65"]]}
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dataengine.errors import UserError, first_fault
from dataengine.files import cannot_write, lock, parse_json, read_text

if TYPE_CHECKING:
    from dataengine.engine.run_folder import RunFolder

MIN_SIDE_PX = 1.0
MAX_OBJECTS = 10_000  # of a corrected image
LOCK_WAIT_S = 5.0
Do = Literal["accept", "reject", "filter", "tag", "untag", "correct", "restore", "undo", "redo"]


def _finite(box: tuple[float, ...]) -> tuple[float, ...]:
    if not all(math.isfinite(value) and abs(value) < 1e6 for value in box):
        raise ValueError("a number is too large")
    if min(box[2:4]) < MIN_SIDE_PX:
        raise ValueError(f"a side is shorter than {MIN_SIDE_PX:g} pixel")
    return box


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class EditedObject(_Strict):
    """One label of a corrected image. of: its number among the labels in the manifest, None for one that was added.
    box: cx, cy, w, h in pixels and theta in radians, sides in any order."""

    of: Annotated[int, Field(ge=0)] | None = None
    cls: Annotated[str, Field(min_length=1, max_length=200)] = Field(alias="class")
    box: Annotated[tuple[float, float, float, float, float], AfterValidator(_finite)]
    difficult: bool = False


class Change(_Strict):
    """One line of the file.

    do: "accept" or "reject" the images, or leave them to the "filter" again; "tag" and "untag" them with `tag`;
    "correct" one image, whose labels become `objects`, or "restore" its labels of the manifest; "undo" the last change
    that is not undone, "redo" the last one undone. images: (index, beginning of its file's SHA-256) of each.
    by: the tool that decided, such as "page" or "cvat". at: when, in UTC.
    """

    at: str = ""
    by: str = "page"
    do: Do
    images: tuple[tuple[Annotated[int, Field(ge=0)], str], ...] = ()
    tag: Annotated[str, Field(max_length=60, pattern=r"^([^\s,][^\n,]*)?$")] = ""
    objects: Annotated[tuple[EditedObject, ...], Field(max_length=MAX_OBJECTS)] | None = None

    def model_post_init(self, _) -> None:
        if (self.do in ("undo", "redo")) == bool(self.images):
            raise ValueError(f"{self.do} with {len(self.images) or 'no'} images")
        if (self.do in ("tag", "untag")) != bool(self.tag):
            raise ValueError("a tag is missing, or there is one too many")
        if (self.do == "correct") != (self.objects is not None) or (self.objects is not None and len(self.images) > 1):
            raise ValueError("a correction is of the labels of one image")

    def to_json(self) -> str:
        """The change as one line of the file, without its end."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


@dataclass(frozen=True)
class Decision:
    """What all changes together say of one image. sha: beginning of its file's SHA-256. accepted: None where the filter
    decides. objects: its labels, None where they are those of the manifest."""

    sha: str
    accepted: bool | None = None
    tags: tuple[str, ...] = ()
    objects: tuple[EditedObject, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is decided."""
        return self.accepted is None and not self.tags and self.objects is None


def read_changes(file: Path, first: int | None = None) -> list[Change]:
    """The changes in a file, all or the first ones; none without a file. A last line without an end is one that was not
    finished, and counts as none. Raises UserError with the line that is damaged."""
    lines, _ = _lines(read_text(file)) if file.exists() else ([], "")
    if first is not None and first > len(lines):
        raise UserError(
            f"{file}: has {len(lines)} changes, fewer than the {first} in the run's data sets; put it back from a copy."
        )
    changes = []
    for number, line in enumerate(lines[:first], 1):
        try:
            parse_json(line)  # refuses repeated keys and half characters
            changes.append(Change.model_validate_json(line))
        except ValidationError as error:
            raise _damaged(file, number, first_fault(error)) from None
        except ValueError as error:
            raise _damaged(file, number, str(error)) from None
    try:
        effective(changes)
    except ValueError as error:
        raise UserError(f"{file}: {error}; put it back from a copy, or remove its last lines.") from None
    return changes


def _lines(text: str) -> tuple[list[str], str]:
    """The lines of the file, and its text without a last line that was not finished when the program was killed."""
    *lines, rest = text.split("\n")
    try:
        Change.model_validate_json(rest)
    except ValueError:
        return lines, text[: len(text) - len(rest)]
    return [*lines, rest], f"{text}\n"  # complete but for its end


def _damaged(file: Path, line: int, reason: str) -> UserError:
    return UserError(f"{file}:{line}: no decision ({reason}); put it back from a copy, or remove this line.")


def effective(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """The changes that count, and those that were undone and can be redone, the last one last. Raises ValueError for an
    undo or redo of nothing.

    >>> reject = Change(do="reject", images=[(0, "00")])
    >>> [len(part) for part in effective([reject, reject, Change(do="undo")])]
    [1, 1]
    """
    past: list[Change] = []
    undone: list[Change] = []
    for number, change in enumerate(changes, 1):
        if change.do in ("undo", "redo"):
            source, target = (past, undone) if change.do == "undo" else (undone, past)
            if not source:
                raise ValueError(f"line {number}: there is nothing to {change.do}")
            target.append(source.pop())
        else:
            past.append(change)
            undone.clear()
    return past, undone


def fold(changes: Sequence[Change]) -> dict[int, Decision]:
    """The decision on each image that has one, by its index. Raises ValueError as `effective`.

    >>> changes = [Change(do="tag", tag="good", images=[(3, "ab")]), Change(do="reject", images=[(3, "ab"), (4, "cd")])]
    >>> fold(changes)[3]
    Decision(sha='ab', accepted=False, tags=('good',), objects=None)
    """
    found: dict[int, Decision] = {}
    for change in effective(changes)[0]:
        for index, sha in change.images:
            before = found.get(index)
            if before is None or before.sha != sha:  # the file was replaced, so what was said of it before is void
                before = Decision(sha)
            found[index] = _after(before, change)
    return {index: decision for index, decision in found.items() if not decision.empty}


def _after(before: Decision, change: Change) -> Decision:
    match change.do:
        case "accept" | "reject" | "filter":
            return replace(before, accepted={"accept": True, "reject": False, "filter": None}[change.do])
        case "tag":
            return replace(before, tags=tuple(sorted({*before.tags, change.tag})))
        case "untag":
            return replace(before, tags=tuple(tag for tag in before.tags if tag != change.tag))
        case _:
            return replace(before, objects=change.objects)


def read_decisions(run: RunFolder, first: int | None = None) -> dict[int, Decision]:
    """The decisions on a run's images by their index, after all changes or the first ones. Raises UserError."""
    return fold(read_changes(run.decisions, first))


def append(run: RunFolder, new: Iterable[Change], known: tuple[int, list[Change]] | None = None) -> list[Change]:
    """Append changes to the run's file; all changes after that. Any number of programs may append at a time.

    known: the size of the file in bytes when it was last read, and its changes; it is read again only if it has grown.

    Raises UserError where the file is damaged or cannot be written, and for an undo or redo of nothing.
    """
    new = list(new)
    try:
        with _locked(run) as file:
            same = known is not None and known[0] == os.fstat(file.fileno()).st_size
            changes = known[1] if same else read_changes(run.decisions)
            try:
                effective([*changes, *new])
            except ValueError:
                raise UserError(f"there is nothing to {new[-1].do}.") from None
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            new = [change if change.at else change.model_copy(update={"at": now}) for change in new]
            whole = _lines(read_text(run.decisions))[1].encode()
            content = whole + "".join(f"{change.to_json()}\n" for change in new).encode()
            begin = min(os.fstat(file.fileno()).st_size, len(whole))  # what stands there stays as it is
            os.ftruncate(file.fileno(), begin)
            os.pwrite(file.fileno(), content[begin:], begin)
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(error, run.decisions, "free the file, then decide again.") from None
    return [*changes, *new]


def _locked(run: RunFolder):
    """The file, open and locked; waits while another program writes to it."""
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            return lock(run.decisions)
        except BlockingIOError:
            if time.monotonic() > until:
                raise UserError(f"{run.decisions}: another program is writing to it; try again.") from None
            time.sleep(0.02)


def counts(decisions: Mapping[int, Decision]) -> dict[str, int]:
    """Numbers of images that are accepted, rejected, tagged and corrected by hand."""
    return {
        "accepted": sum(one.accepted is True for one in decisions.values()),
        "rejected": sum(one.accepted is False for one in decisions.values()),
        "tagged": sum(bool(one.tags) for one in decisions.values()),
        "corrected": sum(one.objects is not None for one in decisions.values()),
    }


def changes_in(report: object) -> int:
    """How many of the changes by hand the data sets of a run contain, as its report says.

    >>> changes_in({"by_hand": {"changes": 3}}), changes_in({})
    (3, 0)
    """
    by_hand = report.get("by_hand") if isinstance(report, dict) else None
    n = by_hand.get("changes") if isinstance(by_hand, dict) else 0
    return n if isinstance(n, int) and n >= 0 else 0

"""The stages of `dataengine improve` that are finished, in one file, so that the same command continues."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dataengine.errors import UserError
from dataengine.files import parse_json, read_text, write_whole

Value = TypeVar("Value")
BUDGET = ("rounds", "hours")  # settings that may change until the test part is looked at
LATER_SETTINGS = {"scale": 1.0}  # with their values in folders that were begun before they were there
TESTED = "test"  # the last stage


class Journal:
    """`improve.json`: the settings, the value of each finished stage, and the seconds that they took.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first = Journal(Path(folder, "improve.json"), {"seeds": 3})
    ...     made = first.once("filter", lambda: {"share": 0.95})
    ...     Journal(Path(folder, "improve.json"), {"seeds": 3}).once("filter", lambda: 1 / 0)
    {'share': 0.95}
    """

    def __init__(self, file: Path, settings: dict):
        """The file is written if it is new. Raises UserError where it holds the stages of other settings or is damaged,
        and where there is none, but other files, which must not be replaced."""
        self.file = file
        self.content = {"settings": settings, "seconds": 0.0, "stages": {}}
        if not file.exists():
            foreign = sorted(entry.name for entry in file.parent.iterdir() if entry.name[0] != ".")
            if foreign:
                raise UserError(
                    f"{file.parent} has files of others ({foreign[0]}), which would be in the way; give another --out."
                )
            self._write()
            return
        try:
            stored = parse_json(read_text(file))
            before = LATER_SETTINGS | stored["settings"]
            stages, seconds = dict(stored["stages"]), float(stored["seconds"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file}: is damaged; give another --out.") from None
        free = () if TESTED in stages else BUDGET
        changed = sorted(name for name in settings if settings[name] != before.get(name) and name not in free)
        if changed:
            once = " The test part has been looked at, so its rounds are over." if TESTED in stages else ""
            raise UserError(
                f"{file.parent} was begun with another {', '.join(changed)}; give another --out, or the settings of "
                f"before ({', '.join(f'{name}={before.get(name)}' for name in changed)}).{once}"
            )
        self.content = {"settings": settings, "seconds": seconds, "stages": stages}

    @property
    def stages(self) -> dict:
        """Values of the finished stages by name."""
        return self.content["stages"]

    @property
    def hours(self) -> float:
        """How long the finished stages took, in all calls together."""
        return self.content["seconds"] / 3600

    def once(self, stage: str, make: Callable[[], Value]) -> Value:
        """The value of a stage: the stored one, or that of `make`, a JSON value, which is stored."""
        if stage not in self.stages:
            started = time.monotonic()
            self.stages[stage] = json.loads(json.dumps(make()))  # as it is read again
            self.content["seconds"] += round(time.monotonic() - started, 3)
            self._write()
        return self.stages[stage]

    def _write(self) -> None:
        write_whole(self.file, json.dumps(self.content, indent=2) + "\n")

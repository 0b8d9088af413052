"""What verification of a run finds: faults, and how to fix them."""

from __future__ import annotations

from dataclasses import dataclass, field

from dataengine.errors import UserError

AGAIN = "the same `dataengine synth` command makes it again"
REMOVE = "remove it; a run does not need it"
PUT_BACK = "put it back from a copy; where all settings are right, the same `dataengine synth` command writes it again"


@dataclass(frozen=True)
class Fault:
    """What is wrong, in one sentence, and how to fix it."""

    message: str
    fix: str = AGAIN


@dataclass
class Findings:
    """notes: what could not be compared here, which is no fault; images: those of the manifest that were compared with
    their checksum, or blocks of a world (what); fingerprint: see `fingerprint`, "" for a run that is not finished."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: int = 0
    accepted: int = 0
    what: str = "images"
    fingerprint: str = ""

    def add(self, message: str, fix: str = AGAIN) -> None:
        """One more fault."""
        self.faults.append(Fault(str(UserError(message)), fix))  # unprintable characters of file names are escaped

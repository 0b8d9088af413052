"""One line of a manifest: what was asked of an image, and what came out."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import get_args

import numpy as np

from dataengine.data.layout import Kind, Layout, layout_from_json, layout_to_json
from dataengine.judge.verdict import Repair, Verdict
from dataengine.render.canvas import ObjectOrigin, Provenance

KINDS = get_args(Kind)
# what values of the wrong type or shape raise on the way to a record
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, RecursionError)


@dataclass(frozen=True)
class ByHand:
    """What a person decided about an image.

    accepted: None where the filter decided. tags: names. dropped_for: the filter's reason for dropping it, "" where it
    kept it. was: for each label its number in the manifest, None for an added one; None where no label was corrected.
    changed: numbers of the labels that were moved, renamed, marked or added. removed: how many are gone.
    """

    accepted: bool | None = None
    tags: tuple[str, ...] = ()
    dropped_for: str = ""
    was: tuple[int | None, ...] | None = None
    changed: tuple[int, ...] = ()
    removed: int = 0


@dataclass(frozen=True)
class Record:
    """One image that was tried.

    index: number of the attempt, from 0. seed: of everything random in it. image: path of its PNG file, from the run
    folder on. sha256: of that file. provenance: of what was painted into. layout_from: names of the real images that
    the layout was made from; None in runs of versions that did not record it. left_out: objects of the layout for which
    there was no room. asked: the objects to be painted. labels: the image's labels, painted objects first, then those
    that the scene held before. objects_from: for each object in `asked` the real one that it was painted from, None for
    noise; empty at strength 1, and in runs of versions that did not record it. by_hand: what a person decided, which
    `labels` and `verdict` follow then; None in a manifest.
    """

    index: int
    seed: int
    image: str
    sha256: str
    provenance: Provenance
    layout_from: tuple[str, ...] | None
    left_out: int
    asked: Layout
    labels: Layout
    verdict: Verdict
    objects_from: tuple[ObjectOrigin | None, ...] = ()
    by_hand: ByHand | None = None

    @property
    def name(self) -> str:
        """Name of the image in data sets that are written."""
        return f"{self.index:08d}"

    @property
    def accepted(self) -> bool:
        """Whether the filter, or else a person, kept the image."""
        return self.verdict.kept

    @property
    def erased(self) -> list[int]:
        """Numbers of the objects in `asked` that were painted, not found, and removed from the image again."""
        return [repair.index for repair in self.verdict.repairs if repair.action == "erased"]

    @property
    def object_images(self) -> tuple[str, ...]:
        """Names of the real images that painted objects come from, each once; also of those erased again."""
        return tuple(dict.fromkeys(start.image for start in self.objects_from if start is not None))

    @property
    def n_painted(self) -> int:
        """How many of the labels are painted objects; they come first."""
        painted = len(self.asked) - len(self.erased)
        if self.by_hand is None or self.by_hand.was is None:
            return painted
        return sum(number is not None and number < painted for number in self.by_hand.was)

    def to_json(self) -> str:
        """The record as one line of a manifest, without its end."""
        scene = self.provenance
        values = {
            "index": self.index,
            "seed": self.seed,
            "image": self.image,
            "sha256": self.sha256,
            "scene": scene.label,
            "scene_license": scene.license,
            "scene_source": scene.source,
            "layout_from": None if self.layout_from is None else list(self.layout_from),
            "unreadable_scenes": list(scene.unreadable),
            "left_out": self.left_out,
            "asked": layout_to_json(self.asked),
            "objects_from": [None if start is None else _start_to_json(start) for start in self.objects_from],
            "labels": layout_to_json(self.labels),
            "verdict": asdict(self.verdict),
        }
        if self.layout_from is None:
            del values["layout_from"]
        if not self.objects_from:
            del values["objects_from"]
        if self.by_hand is not None:
            values["by_hand"] = asdict(self.by_hand)
        return json.dumps(values)

    @classmethod
    def from_json(cls, line: str | bytes) -> Record:
        """What `to_json` wrote; runs of earlier versions may lack what is said of scenes, layouts and objects left out.

        Raises ValueError for anything else.
        """
        try:
            values = json.loads(line)
            layout_from, verdict = values.get("layout_from"), values["verdict"]
            record = cls(
                index=values["index"],
                seed=values.get("seed", -1),
                image=values["image"],
                sha256=values["sha256"],
                provenance=provenance_from_json(values),
                layout_from=None if layout_from is None else _all(str, layout_from),
                left_out=values.get("left_out", 0),
                asked=layout_from_json(values["asked"]),
                labels=layout_from_json(values["labels"]),
                verdict=Verdict(**{**verdict, "repairs": [Repair(**repair) for repair in verdict["repairs"]]}),
                objects_from=_starts(values.get("objects_from", [])),
                by_hand=_by_hand(values.get("by_hand"), len(values["labels"]["labels"])),
            )
            if record.objects_from and len(record.objects_from) != len(record.asked):
                raise ValueError("it is not known which real object each painted one comes from")
            _all(str, [record.image, record.sha256, record.verdict.reason])
            _all(str, record.verdict.missed), _all(str, record.verdict.extra), _all(int | float, record.verdict.scores)
            if not isinstance(record.verdict.kept, bool):
                raise ValueError("the verdict is missing")
            if min(_all(int, [record.seed + 1, record.index, record.left_out, *record.erased])) < 0:
                raise ValueError("a count is below 0")
            if max(record.erased, default=-1) >= len(record.asked):
                raise ValueError("an object was erased that was not asked for")
            for key, layout in (("asked", record.asked), ("labels", record.labels)):
                if len(_all(int, values[key]["size"])) != 2 or min(layout.size) < 1 or layout.kind not in KINDS:
                    raise ValueError("an image has no size, or its boxes are of no kind")
                if not np.isfinite(layout.boxes).all() or not np.isfinite(layout.ignored).all():
                    raise ValueError("a box is not finite")
                if not ((layout.visible >= 0) & (layout.visible <= 1)).all():
                    raise ValueError("an object is visible to more than the whole of it")
                if len({*layout.classes}) < len(layout.classes):
                    raise ValueError("two classes have one name")
                _all(int, values[key]["labels"]), _all(bool, values[key]["difficult"])
                if len(layout) and not 0 <= layout.labels.min() <= layout.labels.max() < len(layout.classes):
                    raise ValueError("a label has no class")
        except MALFORMED as error:
            raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0]) from None
        return record


def _start_to_json(start: ObjectOrigin) -> dict:
    """Boxes and scale as of a layout, and the turn as an angle, after mirroring left to right where that was done."""
    boxes = {"box": start.box, "asked_box": start.asked_box, "whole_box": start.whole_box}
    return {
        "image": start.image,
        "mirrored": start.mirrored,
        "turned_deg": start.turn_deg,
        "scale": round(start.scale, 4),
        **{key: [round(float(value), 4) for value in box] for key, box in boxes.items()},
    }


def _starts(values: list) -> tuple[ObjectOrigin | None, ...]:
    """What `_start_to_json` wrote for each object. Raises ValueError, or other MALFORMED, for anything else."""
    if not isinstance(values, list):
        raise ValueError("objects_from is no list")
    return tuple(None if one is None else _start_from_json(one) for one in values)


def _start_from_json(values: dict) -> ObjectOrigin:
    _all(str, [values["image"]]), _all(bool, [values["mirrored"]])
    numbers = [values["turned_deg"], values["scale"], *values["box"], *values["asked_box"], *values["whole_box"]]
    if len(_all(int | float, numbers)) != 17 or not np.isfinite(numbers).all():
        raise ValueError("a box of a real object is damaged")
    angle = np.radians(values["turned_deg"])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([-1.0 if values["mirrored"] else 1.0, 1.0])
    boxes = (np.float32(values[key]) for key in ("box", "asked_box", "whole_box"))
    box, asked_box, whole_box = boxes
    return ObjectOrigin(values["image"], box, turn, float(values["scale"]), asked_box, whole_box)


def _by_hand(values: dict | None, n: int) -> ByHand | None:
    """What a person decided about an image of n labels. Raises ValueError, or other MALFORMED, for anything else."""
    if values is None:
        return None
    by_hand = ByHand(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    _all(str, [*by_hand.tags, by_hand.dropped_for]), _all(int, [*by_hand.changed, by_hand.removed])
    was = by_hand.was
    if not isinstance(by_hand.accepted, bool | None) or (was is not None and len(_all(int | None, [*was])) != n):
        raise ValueError("what was decided by hand is damaged")
    return by_hand


def _all(kind: type, values: list) -> tuple:
    """The values of a JSON list, if all are of this kind. Raises ValueError for anything else."""
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise ValueError(f"not a list of {getattr(kind, '__name__', kind)}")
    return tuple(values)


def provenance_from_json(values: dict) -> Provenance:
    """The provenance in a record's `scene`, `scene_license`, `scene_source` and `unreadable_scenes`: the only parser of
    `Provenance.label`. A real image may have any name, but its label ends with the window. Raises ValueError for values
    of another type."""
    text, license, source = (values.get(key, "") for key in ("scene", "scene_license", "scene_source"))
    given = {"license": license, "source": source, "unreadable": tuple(values.get("unreadable_scenes", ()))}
    if not all(isinstance(part, str) for part in (text, license, source, *given["unreadable"])):
        raise ValueError("a field of the scene is not text")
    if not text:
        return Provenance("blank", **given)
    if match := re.fullmatch(r"generated:(\d+)", text):
        return Provenance("generated", seed=int(match[1]), **given)
    if text.endswith("@augmented"):
        return Provenance("augmented", text.removesuffix("@augmented"), **given)
    if match := re.fullmatch(r"(.*)@(\d+),(\d+)", text, re.DOTALL):
        return Provenance("window", match[1], int(match[2]), int(match[3]), **given)
    return Provenance("window", text, **given)

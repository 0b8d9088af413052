"""What a renderer paints on: an image, the labelled objects in it, and the new ones that are to be painted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from dataengine.data.layout import Layout
from dataengine.layouts.windows import cut
from dataengine.render.placement import empty_layout, merge

if TYPE_CHECKING:
    from dataengine.render.control import GroundControl
    from dataengine.render.layout_pipeline import LayoutPipeline
    from dataengine.render.reference import ReferenceSampler


@dataclass(frozen=True)
class Provenance:
    """Where a canvas comes from.

    kind: "blank" (the renderer makes the whole image), "generated" (a scene that a model made from `seed`), "window" (a
    part of a real image, from pixel `left`, `top` on; both None where it is the image as it was opened) or "augmented"
    (a part of a real image, turned, scaled and with other light). name: of the real image in its data set. license,
    source: of that image; "" where unknown. unreadable: names of images that were drawn before it and could not be
    decoded.
    """

    kind: Literal["blank", "generated", "window", "augmented"] = "blank"
    name: str = ""
    left: int | None = None
    top: int | None = None
    seed: int | None = None
    license: str = ""
    source: str = ""
    unreadable: tuple[str, ...] = ()

    @property
    def generated(self) -> bool:
        """Whether no pixel of the canvas is real."""
        return self.kind in ("blank", "generated")

    @property
    def label(self) -> str:
        """One word for people and manifests: "NAME@LEFT,TOP", "NAME@augmented", "generated:SEED", or "" for a blank
        canvas.

        >>> Provenance("window", "harbour", 40, 120).label
        'harbour@40,120'
        """
        if self.kind == "blank":
            return ""
        if self.kind == "generated":
            return f"generated:{self.seed}"
        if self.kind == "augmented":
            return f"{self.name}@augmented"
        return self.name if self.left is None else f"{self.name}@{self.left},{self.top}"


@dataclass(frozen=True)
class ObjectOrigin:
    """The real object that a painted one starts from.

    image: name of its image in the data set. box: float32 (5,), its label there. turn: float64 (2, 2), how it is turned
    or mirrored as a whole, from that image to the new one; orthogonal. scale: how much larger it is painted. asked_box:
    float32 (5,), box of the layout, before it was fitted to the object. whole_box: float32 (5,), box of the whole
    object in the canvas's window; the label is the part of it inside the image. index, frame_turn: number of the object
    in `RealObjects`, and `turn` from frame to frame; of no meaning in a record.
    """

    image: str
    box: np.ndarray
    turn: np.ndarray
    scale: float
    asked_box: np.ndarray
    whole_box: np.ndarray
    index: int = -1
    frame_turn: np.ndarray = field(default_factory=lambda: np.eye(2))

    @property
    def turn_deg(self) -> float:
        """Angle of the turn in degrees, clockwise, in [0, 360); after mirroring left to right where `mirrored`."""
        x, y = self.turn[:, 0] * (-1 if self.mirrored else 1)
        return round(float(np.degrees(np.arctan2(y, x))) % 360, 2) % 360

    @property
    def mirrored(self) -> bool:
        """Whether the object was mirrored."""
        return bool(np.linalg.det(self.turn) < 0)


@dataclass(frozen=True)
class Canvas:
    """An image, the labelled objects in it, and the objects to be painted.

    image: uint8 (H, W, 3); all black where `provenance.kind` is "blank". existing: labelled objects in the image.
    new: objects to be painted, in pixels of the window, whose size is `new.size`. corner: (left, top) of the window in
    the image; it covers the whole image unless new objects go into a part of a larger, labelled one. left_out: objects
    that a layout asked for, and that had no room. turn: (2, 2), how the real image was turned or mirrored. shadow:
    direction of the shadows in `image` in radians, clockwise from the right; `nan` where unknown. starts: for each new
    object the real one that it starts from, None for noise; empty before any was chosen. complete: whether this is a
    labelled image of which every label stays, however little of its object is visible.
    """

    image: np.ndarray
    existing: Layout
    new: Layout
    provenance: Provenance = field(default_factory=Provenance)
    corner: tuple[int, int] = (0, 0)
    left_out: int = 0
    turn: np.ndarray = field(default_factory=lambda: np.eye(2))
    shadow: float = math.nan
    starts: tuple[ObjectOrigin | None, ...] = ()
    complete: bool = False

    def __post_init__(self) -> None:
        assert self.image.shape[1::-1] == self.existing.size, "boxes of another size than their image are wrong"

    @property
    def blank(self) -> bool:
        """Whether the renderer makes the whole image."""
        return self.provenance.kind == "blank"

    @property
    def whole(self) -> bool:
        """Whether the window is the whole image."""
        return self.new.size == self.existing.size

    def window(self) -> Canvas:
        """The window as a canvas of its own."""
        if self.whole:
            return self
        (left, top), (width, height) = self.corner, self.new.size
        part = self.image[top : top + height, left : left + width]
        existing = cut(self.existing, left, top, self.new.size, min_visible=0)
        return replace(self, image=part, existing=existing, corner=(0, 0))

    def keep(self, chosen: Layout) -> Canvas:
        """The canvas with only those of its new objects that are in `chosen`, a part of them, perhaps moved. Called
        before real objects are chosen for them."""
        return replace(self, new=chosen, left_out=self.left_out + len(self.new) - len(chosen))

    def put_back(self, painted: np.ndarray) -> tuple[np.ndarray, Layout]:
        """The whole image with the painted window, uint8 (H, W, 3), and its labels: the new objects first, then those
        that were there."""
        image = self.image.copy()
        left, top = self.corner
        height, width = painted.shape[:2]
        image[top : top + height, left : left + width] = painted
        boxes = self.new.boxes + np.float32([left, top, 0, 0, 0])
        new = replace(self.new, boxes=boxes, size=self.existing.size, ignored=None)
        return image, new.joined(self.existing.in_kind(self.new.kind))

    def untouched(self) -> Painted:
        """The image as it is, for a canvas without room for anything new."""
        if self.whole:
            return Painted(self.image, merge(self.existing, self.new, 0.0), self, None)
        return Painted(*self.put_back(self.window().image), self, None)


@dataclass(frozen=True)
class Painted:
    """A canvas with its new objects painted, before any filter has judged it.

    image: uint8 (H, W, 3). labels: of the image, painted objects first, then those that it held before. before: the
    image before the objects were painted; None where there is none: all of it was made at once, or a generated scene
    already shows rough forms of them. numbers: int64 (K,), for each painted object its number in `canvas.new`.
    """

    image: np.ndarray
    labels: Layout
    canvas: Canvas
    before: np.ndarray | None
    numbers: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.numbers is None:
            object.__setattr__(self, "numbers", np.arange(len(self.canvas.new)))

    @property
    def held_before(self) -> np.ndarray:
        """Bool (N,): which of the labels are those of objects that the image held before."""
        return np.arange(len(self.labels)) >= len(self.numbers)


class Canvases(Protocol):
    """Gives a canvas for each layout; canvas i depends on layouts[i] and seeds[i] alone."""

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]: ...


class BlankCanvases:
    """Nothing: the renderer makes the whole image."""

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]:
        """A black image of each layout's size."""
        return [Canvas(np.zeros((*x.size[::-1], 3), np.uint8), empty_layout(x), x) for x in layouts]


class GeneratedCanvases:
    """Scenes from a whole-image renderer: for machines that have no images at all."""

    def __init__(self, pipeline: LayoutPipeline, domain: str, steps: int | None = None, occupied: bool = True):
        """domain: the appearance, one of the pipeline's. steps: the pipeline's own if None. occupied: the scene is made
        with the layout's objects in it, to be painted over, so that cars stand on roads; else it is empty. `control`,
        if set, makes the ground follow a map, and `references` look like other images."""
        self.pipeline, self.domain, self.steps, self.occupied = pipeline, domain, steps, occupied
        self.control: GroundControl | None = None
        self.references: ReferenceSampler | None = None
        pipeline.domain_number(domain)  # an unknown one is reported now

    def draw(self, layouts: Sequence[Layout], seeds: Sequence[int]) -> list[Canvas]:
        """A scene of each layout's acquisition."""
        empty = [empty_layout(replace(layout, classes=())) for layout in layouts]
        options = {} if self.control is None else {"control": self.control.of(layouts)}
        if self.references is not None:
            options["references"] = self.references.draw(seeds)
        shown = layouts if self.occupied else empty
        images = self.pipeline(shown, seeds, self.domain, self.steps, guidance_scale=1.0, **options)
        return [
            Canvas(image, existing, layout, Provenance("generated", seed=seed))
            for image, existing, layout, seed in zip(images, empty, layouts, seeds, strict=True)
        ]

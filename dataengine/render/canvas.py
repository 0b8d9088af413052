"""What a renderer paints on: an image, the labelled objects in it, and the new ones that are to be painted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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

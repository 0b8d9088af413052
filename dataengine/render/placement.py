"""Layout algebra that all renderers share: which objects touch, what stays, and what an image holds in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Layout, model_key
from dataengine.errors import UserError
from dataengine.layouts.constraints import MIN_VISIBLE

ROOM_SHARE = 0.15  # of an object's long side, that it keeps free around it
TOUCH_MARGIN_PX = 2.0  # around a painted object, in addition to a renderer's own margin


def class_numbers(layout: Layout, known: Sequence[str]) -> np.ndarray:
    """Labels of the layout in a model's numbering, int64 (N,), matched by name (`model_key`).

    Raises UserError that names the classes the model does not know.
    """
    number = {model_key(name): i for i, name in enumerate(known)}
    unknown = sorted({name for name in layout.names() if model_key(name) not in number})
    if unknown:
        raise UserError(
            f"the renderer does not know the class{'es' if len(unknown) > 1 else ''} {', '.join(unknown)}; "
            f"it knows {', '.join(known)}. Leave them out, or train a renderer on them."
        )
    return np.array([number[model_key(name)] for name in layout.names()], np.int64)


def domain_number(domain: str | None, domains: Sequence[str]) -> int:
    """Number of a data set's look among those that a model was trained on; for None that of the learned null, which
    comes after them. Raises UserError for an unknown name.

    >>> domain_number("dota", ["hit-uav", "dota"]), domain_number(None, ["hit-uav", "dota"])
    (1, 2)
    """
    if domain is None:
        return len(domains)
    if domain not in domains:
        raise UserError(f"the renderer was not trained on {domain!r}; it knows {', '.join(domains)}.")
    return list(domains).index(domain)


def check_sizes(layouts: Sequence[Layout], size: int) -> None:
    """Raise UserError unless all layouts are of the size x size pixels that a model makes."""
    for layout in layouts:
        if layout.size != (size, size):
            raise UserError(
                f"this renderer makes {size}x{size} pixels, not {layout.size[0]}x{layout.size[1]}; give --size {size}."
            )


def empty_layout(layout: Layout) -> Layout:
    """The same image with nothing in it."""
    return replace(
        layout, boxes=np.zeros((0, 5)), labels=np.zeros(0), difficult=None, visible=None, ignored=np.zeros((0, 5))
    )


def known_only(layout: Layout, classes: Sequence[str]) -> Layout:
    """The layout with only the objects of these classes, compared by `model_key`."""
    known = {model_key(name) for name in classes}
    return layout.select(np.array([model_key(name) in known for name in layout.names()], bool))


def free_of(layout: Layout, boxes: np.ndarray, margin: float) -> np.ndarray:
    """Bool (N,): objects whose box, grown by `margin` of its long side, touches none of the boxes (M, 5)."""
    grown = layout.boxes.copy()
    grown[:, 2:4] += 2 * margin * layout.boxes[:, 2:3]
    return ~(geometry.intersection(grown, boxes) > 0).any(1)


def _touching(existing: Layout, new: Layout, margin: float) -> np.ndarray:
    """Bool (N, M): which of the N existing objects stand where one of the M new ones is painted, margin included."""
    grown = new.boxes.copy()
    grown[:, 2:4] += 2 * margin * new.boxes[:, 2:3] + 2 * TOUCH_MARGIN_PX
    return geometry.intersection(existing.boxes, grown) > 0


def parted(existing: Layout, new: Layout, margin: float) -> tuple[Layout, Layout]:
    """`(kept, removed)`: the existing objects that the new layout leaves alone, and those it touches, in its kind."""
    existing = existing.in_kind(new.kind)
    touched = _touching(existing, new, margin).any(1)
    return existing.select(~touched), existing.select(touched)


def beside(existing: Layout, new: Layout, margin: float) -> Layout:
    """The objects of the new layout that touch none of the existing ones, so that these may stay; perhaps none."""
    return new.select(~_touching(existing.in_kind(new.kind), new, margin).any(0))


def merge(existing: Layout, new: Layout, margin: float) -> Layout:
    """The new layout joined by the existing objects that it leaves alone (`parted`) and by the ignored regions. An
    object of which the border leaves too little is an ignored region, too: it is visible, and has no label."""
    kept, _ = parted(existing, new, margin)
    enough = kept.visible >= MIN_VISIBLE
    return new.joined(replace(kept.select(enough), ignored=np.concatenate([kept.ignored, kept.boxes[~enough]])))

"""A layout as plain values, in the form of a run's manifest."""

from __future__ import annotations

import numpy as np

from dataengine.data.layout import Acquisition, Layout


def layout_to_json(layout: Layout) -> dict:
    """The layout as plain values; boxes rounded to 1/1000 pixel, angles to 1e-6."""
    return {
        "size": list(layout.size),
        "kind": layout.kind,
        "classes": list(layout.classes),
        "labels": layout.labels.tolist(),
        "boxes": [[*(round(float(v), 3) for v in box[:4]), round(float(box[4]), 6)] for box in layout.boxes],
        "difficult": layout.difficult.tolist(),
        "visible": [round(float(v), 4) for v in layout.visible],
        "ignored": [[round(float(v), 3) for v in box] for box in layout.ignored],
        "acquisition": layout.acquisition.model_dump(mode="json", exclude_none=True),
    }


def layout_from_json(values: dict) -> Layout:
    """What `layout_to_json` wrote. Raises ValueError, TypeError, KeyError or AssertionError for anything else."""
    if not all(isinstance(name, str) for name in values["classes"]):
        raise ValueError("a class has no name")
    return Layout(
        boxes=np.array(values["boxes"], np.float32).reshape(-1, 5),
        labels=np.array(values["labels"]),
        classes=tuple(values["classes"]),
        size=tuple(values["size"]),
        kind=values["kind"],
        difficult=np.array(values["difficult"], bool),
        visible=np.array(values["visible"], np.float32),
        ignored=np.array(values["ignored"], np.float32).reshape(-1, 5),
        acquisition=Acquisition.model_validate(values["acquisition"]),
    )

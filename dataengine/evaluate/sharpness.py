"""Are generated images as sharp as real ones? A detector trained on softer images learns a false difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dataengine.errors import UserError
from dataengine.evaluate.results import Column, Figure, Result, Row, bootstrap
from dataengine.evaluate.windows import MIN_IMAGES, Window
from dataengine.render.frame import covered

CONTROL_BLUR_PX = 0.5  # standard deviation
N_RESAMPLES = 200
MIN_PIXELS = 9
GROUND = "ground"


def sharpness(generated: Sequence[Window], real: Sequence[Window], seed: int = 0, bar=lambda x, title: x) -> Result:
    """Fine contrast (standard deviation of the Laplacian) of the objects of each class and of the ground outside all
    boxes: the median over objects or images. Reference: real images. Control: real images blurred by half a pixel.

    bar: wraps a sequence to show progress. Raises UserError for fewer than 8 images per side.
    """
    if min(len(generated), len(real)) < MIN_IMAGES:
        raise UserError(
            f"only {min(len(generated), len(real))} images per side can be compared; the minimum is {MIN_IMAGES}."
        )
    rng = np.random.default_rng(seed)
    found = {
        ("generated", "measured"): _contrasts(bar(generated, "generated")),
        ("real", "reference"): _contrasts(bar(real, "real")),
        ("real, blurred by half a pixel", "control"): _contrasts(bar(real, "real, blurred"), _blurred),
    }
    classes = tuple(dict.fromkeys(name for x in generated for name in x.layout.names()))
    columns = {name: Column(name, "reference") for name in (GROUND, *classes)}
    rows = [
        Row(name, role, len(each), {key: _median([x.get(key, []) for x in each], rng) for key in columns})
        for (name, role), each in found.items()
    ]
    notes = [
        f"{key}: generated {generated_value / real_value:.2f} of real, blurred {blurred_value / real_value:.2f}"
        for key in columns
        for generated_value, real_value, blurred_value in [[row.figures[key].value for row in rows]]
        if generated_value > 0 and real_value > 0
    ]
    return Result(
        "sharpness",
        "Are they as sharp as real images?",
        columns,
        rows,
        {"measured": "standard deviation of the Laplacian inside each box, and outside all boxes; medians"},
        interval="95 %, by resampling images",
        notes=notes,
    )


def _blurred(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), CONTROL_BLUR_PX)


def _contrasts(
    windows: Sequence[Window], change: Callable[[np.ndarray], np.ndarray] = lambda image: image
) -> list[dict[str, list[float]]]:
    """For each image after `change`: contrasts in grey levels of its ground and, by class, of its objects."""
    import cv2

    found = []
    for window in windows:
        layout = window.layout
        detail = cv2.Laplacian(change(window.pixels()).astype(np.float32).mean(2), cv2.CV_32F)
        counted = layout.select(~layout.difficult)
        ground = ~covered(np.concatenate([layout.boxes, layout.ignored]), detail.shape)
        objects = [covered(box[None], detail.shape) for box in counted.boxes]
        figures: dict[str, list[float]] = {}
        for key, mask in zip((GROUND, *counted.names()), (ground, *objects), strict=True):
            if mask.sum() >= MIN_PIXELS:
                figures.setdefault(key, []).append(float(detail[mask].std()))
        found.append(figures)
    return found


def _median(of_images: Sequence[list[float]], rng: np.random.Generator) -> Figure:
    """Median of all values, with its interval over images; NaN where there are none."""
    measured = [np.array(values) for values in of_images if values]
    if not measured:
        return Figure(np.nan)
    draws = (rng.integers(0, len(measured), len(measured)) for _ in range(N_RESAMPLES))
    return bootstrap(
        float(np.median(np.concatenate(measured))),
        [np.median(np.concatenate([measured[i] for i in draw])) for draw in draws],
    )

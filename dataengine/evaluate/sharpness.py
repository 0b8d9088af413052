"""Are pictures as sharp as real ones? A detector trained on softer ones learns a difference that is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dataengine.errors import UserError
from dataengine.evaluate.pictures import LEAST, Picture
from dataengine.evaluate.results import Column, Figure, Result, Row, bootstrap
from dataengine.render.frame import covered

BLUR = 0.5  # pixels, standard deviation: of the control
RESAMPLES = 200
FEWEST_PIXELS = 9
GROUND = "ground"


def sharpness(made: Sequence[Picture], real: Sequence[Picture], seed: int = 0, bar=lambda x, title: x) -> Result:
    """Fine contrast (standard deviation of the Laplacian) of the objects of each class and of the ground around all of
    them: the median over objects and over pictures, of generated and of real ones, and of real ones blurred by half a
    pixel (control).

    bar: wraps a sequence to show progress. Raises UserError where there are fewer than 8 pictures on a side.
    """
    if min(len(made), len(real)) < LEAST:
        raise UserError(f"only {min(len(made), len(real))} pictures a side can be compared; {LEAST} are the least.")
    rng = np.random.default_rng(seed)
    found = {
        ("generated", "measured"): _contrasts(bar(made, "generated")),
        ("real", "reference"): _contrasts(bar(real, "real")),
        ("real, blurred by half a pixel", "control"): _contrasts(bar(real, "real, blurred"), _blurred),
    }
    classes = tuple(dict.fromkeys(name for x in made for name in x.layout.names()))
    columns = {name: Column(name, "reference") for name in (GROUND, *classes)}
    rows = [
        Row(name, role, len(each), {key: _median([x.get(key, []) for x in each], rng) for key in columns})
        for (name, role), each in found.items()
    ]
    notes = [
        f"{key}: generated {made_value / real_value:.2f} of real, blurred {blurred_value / real_value:.2f}"
        for key in columns
        for made_value, real_value, blurred_value in [[row.figures[key].value for row in rows]]
        if made_value > 0 and real_value > 0
    ]
    return Result(
        "sharpness",
        "Are they as sharp as real pictures?",
        columns,
        rows,
        {"measured": "standard deviation of the Laplacian inside the boxes, and beside all of them; medians"},
        interval="95 %, by resampling pictures",
        notes=notes,
    )


def _blurred(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(image, (0, 0), BLUR)


def _contrasts(
    pictures: Sequence[Picture], change: Callable[[np.ndarray], np.ndarray] = lambda image: image
) -> list[dict[str, list[float]]]:
    """Of each picture, changed by `change`, in grey levels: figures of its ground and, by class, of its objects."""
    import cv2

    found = []
    for picture in pictures:
        layout = picture.layout
        detail = cv2.Laplacian(change(picture.pixels()).astype(np.float32).mean(2), cv2.CV_32F)
        counted = layout.select(~layout.difficult)
        ground = ~covered(np.concatenate([layout.boxes, layout.ignored]), detail.shape)
        objects = [covered(box[None], detail.shape) for box in counted.boxes]
        figures: dict[str, list[float]] = {}
        for key, mask in zip((GROUND, *counted.names()), (ground, *objects), strict=True):
            if mask.sum() >= FEWEST_PIXELS:
                figures.setdefault(key, []).append(float(detail[mask].std()))
        found.append(figures)
    return found


def _median(of_pictures: Sequence[list[float]], rng: np.random.Generator) -> Figure:
    """The median of all figures, with its interval over pictures; NaN where there are none."""
    some = [np.array(values) for values in of_pictures if values]
    if not some:
        return Figure(np.nan)
    draws = (rng.integers(0, len(some), len(some)) for _ in range(RESAMPLES))
    return bootstrap(
        float(np.median(np.concatenate(some))), [np.median(np.concatenate([some[i] for i in draw])) for draw in draws]
    )

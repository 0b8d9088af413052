"""The kind of imagery that a renderer or a detector was trained on: `imagery.json` in its folder.

Class names match across kinds of imagery: a renderer of thermal cars would paint them into colour images without a
word. So a model says what it has seen, and a data set that differs is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from dataengine.data.images import read_picture
from dataengine.data.layout import Dataset, Sample, model_key
from dataengine.files import read_json_as, write_whole
from dataengine.render import IMAGERY_FILE

SAMPLES = 16  # images that are looked at, spread over the data set
MIN_COLOUR_LEVELS = 3.0  # of 255, between the channels of a pixel, median of an image: grey ones have 0
MAX_GSD_RATIO = 2.0  # beyond the range that was trained on

Bands = Literal["grey", "colour"]
Gsd = Annotated[float, Field(gt=0, le=1000)]


class Imagery(BaseModel):
    """What images of some classes a model was trained on.

    classes: by name. bands: one channel, or colour. spectrum: such as "thermal", for people. gsd_m: smallest and
    largest metres per pixel; None where unknown. night: whether by night or by day; None for both or unknown. source:
    the data set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    classes: tuple[str, ...]
    bands: Bands
    spectrum: str = ""
    gsd_m: tuple[Gsd, Gsd] | None = None
    night: bool | None = None
    source: str = ""

    def __str__(self) -> str:
        spectrum = f"{self.spectrum} " if self.spectrum else ""
        gsd = f" of {self.gsd_m[0]:g} to {self.gsd_m[1]:g} m per pixel" if self.gsd_m else ""
        time = {None: "", False: " by day", True: " by night"}[self.night]
        return f"{self.bands} {spectrum}images{gsd}{time}"


_LIST = TypeAdapter(tuple[Imagery, ...])


def read_imagery(folder: Path) -> tuple[Imagery, ...]:
    """What the model in a folder was trained on; empty where nothing says so, as of models of 0.1.0 or of others.

    Raises UserError for a damaged file.
    """
    file = Path(folder) / IMAGERY_FILE
    if not file.is_file():
        return ()
    return read_json_as(file, _LIST.validate_python, Imagery.model_fields, "correct the file")


def write_imagery(folder: Path, imagery: Sequence[Imagery]) -> None:
    """Store what a model was trained on in its folder."""
    write_whole(
        Path(folder) / IMAGERY_FILE, json.dumps([one.model_dump(mode="json") for one in imagery], indent=2) + "\n"
    )


def bands_of(picture: np.ndarray) -> Bands:
    """Whether an image (H, W, 3) uint8 has colour.

    >>> bands_of(np.full((4, 4, 3), (120, 120, 121), np.uint8)), bands_of(np.full((4, 4, 3), (90, 120, 90), np.uint8))
    ('grey', 'colour')
    """
    return "colour" if np.median(np.ptp(picture.astype(np.int16), axis=2)) >= MIN_COLOUR_LEVELS else "grey"


def measured(dataset: Dataset) -> Imagery | None:
    """The imagery of a data set: bands as most of some images have them, the rest as its images state it; None where no
    image can be read."""
    found = [bands_of(picture) for sample in _spread(dataset) if (picture := read_picture(sample)) is not None]
    if not found:
        return None
    acquisitions = [sample.layout.acquisition for sample in dataset]
    gsds = [a.gsd_m for a in acquisitions if a.gsd_m is not None]
    nights = {a.night for a in acquisitions}
    return Imagery(
        classes=tuple(dataset.classes),
        bands="colour" if found.count("colour") > len(found) / 2 else "grey",
        gsd_m=(min(gsds), max(gsds)) if gsds else None,
        night=nights.pop() if len(nights) == 1 else None,
        source=dataset.name,
    )


def _spread(dataset: Dataset) -> list[Sample]:
    samples = list(dataset)
    return (
        [samples[i] for i in sorted({round(i) for i in np.linspace(0, len(samples) - 1, SAMPLES)})] if samples else []
    )


def difference(trained: Imagery, own: Imagery) -> str:
    """How images differ from those that a model was trained on, as a phrase; "" where they do not.

    >>> thermal = Imagery(classes=("Car",), bands="grey", spectrum="thermal", gsd_m=(0.04, 0.22))
    >>> difference(thermal, Imagery(classes=("car",), bands="colour"))
    'in colour'
    >>> difference(thermal, Imagery(classes=("car",), bands="grey", gsd_m=(1.0, 2.0)))
    'at 1 to 2 m per pixel'
    """
    if own.bands != trained.bands:
        return "in colour" if own.bands == "colour" else "grey"
    if own.gsd_m and trained.gsd_m:
        low, high = trained.gsd_m[0] / MAX_GSD_RATIO, trained.gsd_m[1] * MAX_GSD_RATIO
        if own.gsd_m[1] < low or own.gsd_m[0] > high:
            return f"at {own.gsd_m[0]:g} to {own.gsd_m[1]:g} m per pixel"
    if None not in (own.night, trained.night) and own.night != trained.night:
        return "by night" if own.night else "by day"
    return ""


def mismatches(
    trained: Iterable[Imagery], own: Imagery | None, classes: Sequence[str]
) -> dict[str, tuple[Imagery, str]]:
    """{class: (what the model was trained on, how the images differ)} of the classes that the model has seen in images
    of another kind only."""
    if own is None:
        return {}
    found = {}
    for name in classes:
        known = [one for one in trained if model_key(name) in map(model_key, one.classes)]
        differences = [difference(one, own) for one in known]
        if known and all(differences):
            found[name] = known[0], differences[0]
    return found


def imagery_difference(folder: Path, dataset: Dataset) -> str:
    """A sentence on how the images of a data set differ from those that the model in a folder learnt its classes from;
    "" where they do not, or nothing is known."""
    wrong = mismatches(read_imagery(folder), measured(dataset), dataset.classes)
    if not wrong:
        return ""
    trained, how = next(iter(wrong.values()))
    return f"the detector knows {', '.join(wrong)} from {trained} ({trained.source}), and these images are {how}"

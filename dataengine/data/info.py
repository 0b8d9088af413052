"""Statistics of a data set, and their table for the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from dataengine.data.layout import UNKNOWN, Acquisition, Dataset


@dataclass(frozen=True)
class Spread:
    """Five quantiles of a quantity, None without values."""

    minimum: float | None
    p10: float | None
    median: float | None
    p90: float | None
    maximum: float | None


@dataclass(frozen=True)
class ClassInfo:
    """Statistics of a class: objects, images with the class, sides in pixels, and aspect ratio (long / short side)."""

    name: str
    objects: int
    images: int
    difficult: int
    long_side: Spread
    short_side: Spread
    aspect_ratio: Spread


@dataclass(frozen=True)
class Info:
    """Statistics of a data set. `dataclasses.asdict` makes a JSON value of them.

    angles: number of objects in each of 12 bins of 15 degrees from -90 degrees (le90), without objects that are square
            up to 5 % and have no angle.
    areas:  number of objects by COCO's bounds: small below 32x32 pixels, medium below 96x96, large.
    """

    name: str
    format: str
    kind: str
    images: int
    empty_images: int
    objects: int
    difficult: int
    ignored_regions: int
    problems: int
    image_sizes: dict[str, int]
    objects_per_image: Spread
    areas: dict[str, int]
    angles: list[int]
    known_acquisition: dict[str, int]
    classes: list[ClassInfo]


def spread(values: np.ndarray) -> Spread:
    """Minimum, 10th percentile, median, 90th percentile and maximum, rounded to 3 decimals.

    >>> spread(np.arange(11))
    Spread(minimum=0.0, p10=1.0, median=5.0, p90=9.0, maximum=10.0)
    """
    if len(values) == 0:
        return Spread(None, None, None, None, None)
    return Spread(*(round(float(value), 3) for value in np.quantile(values, (0, 0.1, 0.5, 0.9, 1))))


def info(dataset: Dataset) -> Info:
    """Statistics of a data set and of its classes."""
    layouts = [sample.layout for sample in dataset]
    boxes = np.concatenate([layout.boxes for layout in layouts]) if layouts else np.zeros((0, 5), np.float32)
    labels = np.concatenate([layout.labels for layout in layouts]) if layouts else np.zeros(0, np.int64)
    difficult = np.concatenate([layout.difficult for layout in layouts]) if layouts else np.zeros(0, bool)
    owners = np.repeat(np.arange(len(layouts)), [len(layout) for layout in layouts])
    images_with = Counter(np.unique(np.column_stack([owners, labels]), axis=0)[:, 1].tolist())
    sizes = Counter(f"{layout.size[0]}x{layout.size[1]}" for layout in layouts)
    area = boxes[:, 2] * boxes[:, 3]
    long = boxes[boxes[:, 2] > 1.05 * boxes[:, 3]]
    angles = np.histogram(np.degrees(long[:, 4]), bins=12, range=(-90, 90))[0]
    small, medium = area < 32**2, (area >= 32**2) & (area < 96**2)
    acquisitions = [layout.acquisition for layout in layouts if layout.acquisition is not UNKNOWN]
    known = {
        field: sum(getattr(acquisition, field) is not None for acquisition in acquisitions)
        for field in Acquisition.model_fields
    }
    per_class = []
    for label, name in enumerate(dataset.classes):
        mask = labels == label
        w, h = boxes[mask, 2], boxes[mask, 3]
        sides = spread(w), spread(h), spread(w / h)
        per_class.append(ClassInfo(name, int(mask.sum()), images_with[label], int(difficult[mask].sum()), *sides))
    return Info(
        name=dataset.name,
        format=dataset.format,
        kind=dataset.kind,
        images=len(dataset),
        empty_images=sum(len(layout) == 0 for layout in layouts),
        objects=len(boxes),
        difficult=int(difficult.sum()),
        ignored_regions=sum(len(layout.ignored) for layout in layouts),
        problems=len(dataset.problems),
        image_sizes=dict(sizes.most_common(20)),
        objects_per_image=spread(np.array([len(layout) for layout in layouts])),
        areas={"small": int(small.sum()), "medium": int(medium.sum()), "large": int((~small & ~medium).sum())},
        angles=angles.tolist(),
        known_acquisition={field: n for field, n in known.items() if n},
        classes=per_class,
    )


def print_info(figures: Info) -> None:
    """Print statistics of a data set as text and a table."""
    from rich.console import Console
    from rich.table import Table

    from dataengine.tables import keep_names_whole

    console = Console(markup=False, highlight=False)
    boxes = "rotated" if figures.kind == "obb" else "horizontal"
    console.print(figures.name, style="bold", end="")
    console.print(
        f": {figures.format} format, {boxes} boxes, {figures.images} images "
        f"({figures.empty_images} empty), {figures.objects} objects ({figures.difficult} difficult), "
        f"{figures.ignored_regions} ignored regions, {figures.problems} problems"
    )
    table = Table("class", *(f"{title} " for title in ("objects", "images", "long side", "short side", "aspect ratio")))
    keep_names_whole(table, (entry.name for entry in figures.classes if entry.objects))
    for column in table.columns[1:]:
        column.justify = "right"
    absent = [entry.name for entry in figures.classes if not entry.objects]
    for entry in (entry for entry in figures.classes if entry.objects):
        spreads = (entry.long_side, entry.short_side, entry.aspect_ratio)
        table.add_row(entry.name, str(entry.objects), str(entry.images), *map(_text, spreads))
    console.print(table)
    if absent:
        console.print(f"classes without objects: {', '.join(absent)}")
    console.print("sides in pixels: median (10 % to 90 %)", style="dim")
    console.print(f"objects per image: {_text(figures.objects_per_image)}, up to {figures.objects_per_image.maximum:g}")
    console.print("areas: " + ", ".join(f"{count} {name}" for name, count in figures.areas.items()))
    if figures.kind == "obb":
        angles = ", ".join(f"{15 * i - 90}°: {n}" for i, n in enumerate(figures.angles) if n)
        console.print(f"angles of objects that are not square: {angles}")
    sizes = list(figures.image_sizes.items())
    console.print("image sizes: " + ", ".join(f"{size}: {n}" for size, n in sizes[:5]) + (", ..." if sizes[5:] else ""))
    if figures.known_acquisition:
        known = figures.known_acquisition.items()
        console.print("metadata: " + ", ".join(f"{field} of {n} images" for field, n in known))


def _text(values: Spread) -> str:
    return "-" if values.median is None else f"{values.median:.3g} ({values.p10:.3g} to {values.p90:.3g})"

"""Figures of a data set as tables in the terminal."""

from __future__ import annotations

from dataengine.data.info import Info, Spread


def print_info(figures: Info) -> None:
    """Print what `info` found."""
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    boxes = "rotated" if figures.kind == "obb" else "horizontal"
    console.print(figures.name, style="bold", end="")
    console.print(
        f": {figures.format} format, {boxes} boxes, {figures.images} images "
        f"({figures.empty_images} empty), {figures.objects} objects ({figures.difficult} difficult), "
        f"{figures.ignored_regions} ignored regions, {figures.problems} problems"
    )
    table = Table("class", *(f"{title} " for title in ("objects", "images", "long side", "short side", "aspect ratio")))
    for column in table.columns[1:]:
        column.justify = "right"
    for entry in figures.classes:
        spreads = (entry.long_side, entry.short_side, entry.aspect_ratio)
        table.add_row(entry.name, str(entry.objects), str(entry.images), *map(_text, spreads))
    console.print(table)
    console.print("sides in pixels: median (10 % to 90 %)", style="dim")
    console.print(f"objects per image: {_text(figures.objects_per_image)}, up to {figures.objects_per_image.maximum:g}")
    console.print("areas: " + ", ".join(f"{count} {name}" for name, count in figures.areas.items()))
    if figures.kind == "obb":
        angles = ", ".join(f"{15 * i - 90}°: {n}" for i, n in enumerate(figures.angles) if n)
        console.print(f"angles, of what is not square: {angles}")
    sizes = list(figures.image_sizes.items())
    console.print("image sizes: " + ", ".join(f"{size}: {n}" for size, n in sizes[:5]) + (", ..." if sizes[5:] else ""))
    if figures.known_acquisition:
        known = figures.known_acquisition.items()
        console.print("metadata: " + ", ".join(f"{field} of {n} images" for field, n in known))


def _text(values: Spread) -> str:
    return "-" if values.median is None else f"{values.median:.3g} ({values.p10:.3g} to {values.p90:.3g})"

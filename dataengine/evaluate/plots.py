"""Plots and contact sheets of the report, each as a data URL."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import restrict_layout
from dataengine.evaluate.results import Figure, Result, Role
from dataengine.evaluate.windows import Window

COLOURS = {"measured": "#1f6feb", "reference": "#57606a", "control": "#d0a215"}
SHEET_COLUMNS = 8
MAX_CELL_PX = 224


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _svg(figure) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "dataengine"}):  # the same figures give the same file
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _address(buffer.getvalue(), "svg+xml")


def bars(result: Result) -> str:
    """A bar chart with a panel for each column and a bar for each row, with its interval."""
    figure = _figure(2.6 * len(result.columns), 2.2)
    for axes, (key, column) in zip(np.atleast_1d(figure.subplots(1, len(result.columns))), result.columns.items(),
                                   strict=True):  # fmt: skip
        for place, row in enumerate(result.rows):
            value = row.figures[key]
            axes.bar(place, value.value, color=COLOURS[row.role], label=row.name)
            if np.isfinite(value.low):
                axes.vlines(place, value.low, value.high, color="black", linewidth=1)
        axes.set_title(column.heading, fontsize=9)
        axes.set_xticks([])
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    return _svg(figure)


def trainings(
    values: dict[str, Sequence[float]], figures: dict[str, Figure], roles: dict[str, Role], title: str
) -> str:
    """One column for each arm: a dot for each training, and the mean with its interval."""
    figure = _figure(max(4.0, 1.3 * len(values)), 3)
    axes = figure.subplots()
    for place, (name, each) in enumerate(values.items()):
        colour, mean = COLOURS[roles[name]], figures[name]
        axes.plot([place] * len(each), each, "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(place, mean.value, "_", color=colour, markersize=24, markeredgewidth=2)
        if np.isfinite(mean.low):
            axes.vlines(place, mean.low, mean.high, color=colour, linewidth=1)
    axes.set_xticks(range(len(values)), list(values), fontsize=8)
    axes.set_ylabel(title)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def embedding_map(real: np.ndarray, generated: np.ndarray) -> str:
    """Scatter plot of real (M, E) and generated embeddings (N, E) on the first two principal axes of the real ones."""
    figure = _figure(5, 4)
    axes = figure.subplots()
    _, _, directions = np.linalg.svd(real - real.mean(0), full_matrices=False)
    for name, x, role in (("real", real, "reference"), ("generated", generated, "measured")):
        axes.scatter(*((x - real.mean(0)) @ directions[:2].T).T, s=8, alpha=0.5, color=COLOURS[role], label=name)
    axes.set_title("embeddings on the two principal axes of the real ones", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(frameon=False)
    return _svg(figure)


def histograms(distances: dict[str, np.ndarray]) -> str:
    """Overlaid histograms of sets of distances (N,); the first is the measured one."""
    figure = _figure(6, 3)
    axes = figure.subplots()
    edges = np.linspace(0, max(d.max() for d in distances.values()), 40)
    for (name, values), colour in zip(distances.items(), COLOURS.values(), strict=True):
        axes.hist(values, edges, density=True, alpha=0.6, color=colour, label=name)
    axes.set_xlabel("distance to the nearest training image")
    axes.set_yticks([])
    axes.legend(frameon=False)
    return _svg(figure)


def sheet(
    windows: Sequence[Window], classes: Sequence[str], captions: Sequence[str] | None = None, max_scale: float = 1.0
) -> str:
    """Contact sheet of images with their boxes, in the colours of `classes`, each enlarged up to `max_scale` times."""
    drawn = [
        draw(x.pixels(), restrict_layout(x.layout, tuple(classes)), min(max_scale, MAX_CELL_PX / max(x.layout.size)))
        for x in windows
    ]
    return _jpeg(contact_sheet(drawn, captions, columns=SHEET_COLUMNS, classes=classes))


def pairs(left: Sequence[Window], right: Sequence[Window], captions: Sequence[str]) -> str:
    """Contact sheet of image pairs without boxes."""
    cells = []
    for both in zip(left, right, strict=True):
        images = [Image.fromarray(x.pixels()) for x in both]
        for image in images:
            image.thumbnail((MAX_CELL_PX, MAX_CELL_PX))
        cell = Image.new("RGB", (sum(x.width for x in images) + 2, max(x.height for x in images)), "white")
        cell.paste(images[0], (0, 0))
        cell.paste(images[1], (images[0].width + 2, 0))
        cells.append(cell)
    return _jpeg(contact_sheet(cells, captions, columns=SHEET_COLUMNS // 2))


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return _address(buffer.getvalue(), "jpeg")

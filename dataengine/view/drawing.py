"""Setup of `layout draw`: the recipe from a run or from options, and the images to draw on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.images import read_header, rgb
from dataengine.data.layout import Layout
from dataengine.data.pixel_range import PixelRange, find_range
from dataengine.engine.fetched import with_fetched
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe, load_recipe
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.judge.calibration import Calibration
from dataengine.render.canvas import Canvas, Provenance
from dataengine.render.placement import empty_layout
from dataengine.view.images import NotServedError
from dataengine.view.studio import Studio

if TYPE_CHECKING:
    from dataengine.view.app import Site

MAX_SIDE_PX = 4096


def make_studio(options: dict, run: Path | None, image: Path | None, out: Path, site: Site) -> Studio:
    """A studio whose parts load in the background. Raises UserError for invalid options."""
    given = {name: value for name, value in options.items() if value is not None}
    if run is not None:
        stored = site.made.index.source.settings
        for name in ("data", "format"):  # the images to draw on; the scenes stay those of the run
            given.pop(name, None)
        settings = {name: value for name, value in stored.items() if value is not None and name not in given}
        recipe = load_recipe(None, settings | given)
    elif not given.keys() & {"dataset", "data"}:
        raise UserError("give --dataset with the name of a preset, --data with your labelled data set, or --run.")
    else:
        recipe = load_recipe(None, given)
    file = None if image is None else _read_canvas(image)
    calibration = RunFolder(run).calibration if run is not None and "detector" not in given else None

    def load_all() -> tuple[Recipe, Parts]:
        stored = Calibration.load(calibration) if calibration is not None and calibration.exists() else None
        chosen, notes = with_fetched(recipe) if run is None else (recipe, [])
        parts = load_parts(chosen, stored)
        parts.notes[:0] = notes
        return parts.recipe, parts

    @lru_cache(maxsize=4)
    def open_image(picture: tuple[str, int]) -> Canvas:
        side, i = picture
        if side == "file" and file is not None:
            return file
        gallery = getattr(site, side, None) if side in ("made", "real") else None
        if gallery is None:
            raise UserError("there is no such image to draw on.")
        try:
            entry = gallery.index.entry(i)
            pixels = _pixels(gallery.file(i), entry.pixel_range)
        except (IndexError, NotServedError):
            raise UserError("there is no such image to draw on.") from None
        # of an image of a run, what it was painted on: its scene, with that one's source and licence
        own = Provenance("window", entry.name, license=entry.license, source=entry.source)
        provenance = own if entry.record is None else entry.record.provenance
        return Canvas(pixels, entry.labels, empty_layout(entry.labels), provenance)

    return Studio(load_all, open_image, out, image)


def _read_canvas(image: Path) -> Canvas:
    """The image of --image as a canvas without labelled objects."""
    try:
        deep = read_header(image).deep
        pixels = _pixels(image, find_range(image, [image])[0] if deep else None)
    except ValueError as error:
        raise UserError(f"--image {image}: {error}.") from None
    height, width = pixels.shape[:2]
    nothing = Layout(np.zeros((0, 5)), np.zeros(0), (), (width, height))
    return Canvas(pixels, nothing, nothing, Provenance("window", image.name))


def _pixels(file: Path, pixel_range: PixelRange | None) -> np.ndarray:
    """uint8 (H, W, 3). Raises ValueError for a broken image, UserError for one that is too large."""
    pixels = rgb(file, pixel_range)
    if max(pixels.shape[:2]) > MAX_SIDE_PX:
        raise UserError(f"{file}: more than {MAX_SIDE_PX} pixels wide or high; tile it first (dataengine data tile).")
    return pixels

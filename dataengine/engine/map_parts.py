"""The map of a run as a condition: what a renderer's side network follows at the place of each layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import weights
from dataengine.data.layout import Layout, model_key
from dataengine.engine.recipe import OFF, PACKAGED, Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.layouts.map_sampler import MapSampler
from dataengine.layouts.sampler import FilteredSampler, Sampler
from dataengine.maps.features import Map
from dataengine.maps.grid import check_gsd
from dataengine.maps.ground import Ground
from dataengine.maps.raster import MapRaster, map_raster, picture
from dataengine.render.canvas import Canvases, GeneratedCanvases
from dataengine.render.imagery import read_imagery
from dataengine.render.renderer import Renderer
from dataengine.world.canvases import WindowedCanvases
from dataengine.world.noise import Rect

if TYPE_CHECKING:
    from diffusers import ControlNetModel

    from dataengine.render.control import Control, ControlInput


@dataclass(frozen=True)
class MapControl:
    """A side network and the map that it follows. given: its channels; None for a published one, which takes the map's
    colours. side: of its condition in pixels. identity: hash of its weights, or the hub id."""

    map: Map
    ground: Ground
    network: ControlNetModel
    given: ControlInput | None
    side: int
    scale: float
    identity: str

    def of(self, layouts: Sequence[Layout]) -> Control:
        """The control of a batch of layouts of a `MapSampler`."""
        return self._control([self.raster(layout, Rect(0, 0, *layout.size)) for layout in layouts])

    def within(self, layout: Layout, rects: Sequence[Rect]) -> Control:
        """The control of rectangles of a layout's image, in its pixels; they may reach beyond it."""
        return self._control([self.raster(layout, rect) for rect in rects])

    def raster(self, layout: Layout, rect: Rect) -> MapRaster:
        """The map under a rectangle of a layout's image."""
        at = layout.acquisition
        grid = self.map.grid_at(at.longitude_deg, at.latitude_deg, at.gsd_m, layout.size)
        a, b, c, d, e, f = grid.transform
        corner = (c + a * rect.left + b * rect.top, f + d * rect.left + e * rect.top)
        part = replace(grid, transform=(a, b, corner[0], d, e, corner[1]), size=(rect.width, rect.height))
        return map_raster(self.map, part, self.ground)

    def _control(self, rasters: Sequence[MapRaster]) -> Control:
        import torch

        from dataengine.render.control import Control

        return Control(self.network, torch.from_numpy(np.stack(list(map(self._condition, rasters)))), self.scale)

    def _condition(self, raster: MapRaster) -> np.ndarray:
        import cv2

        if self.given is not None:
            return self.given.condition(raster, self.side)
        colours = picture(raster, self.ground, edges=False).astype(np.float32) / 255
        return cv2.resize(colours, (self.side, self.side), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)


def check_map(recipe: Recipe, model_folder: Path, sampler: Sampler, notes: list[str]) -> None:
    """Check the scale of a map against the renderer, and note what follows from a map. Raises UserError for metres per
    pixel that the renderer was not trained on."""
    if recipe.layouts != "map":
        return
    base = map_sampler_of(sampler)
    drawn = {model_key(name) for name in base.classes}
    trained = [one for one in read_imagery(model_folder) if one.gsd_m and drawn & {*map(model_key, one.classes)}]
    known, used = [one.gsd_m for one in trained], scales(recipe, base)
    for gsd_m in (min(used), max(used)):
        if known:
            check_gsd(gsd_m, (min(low for low, _ in known), max(high for _, high in known)), "--map-gsd")
    notes.append(
        f"objects stand where {recipe.map} has room for them. Publish images from OpenStreetMap with the words "
        '"© OpenStreetMap contributors" (Open Database License)'
    )


def map_sampler_of(sampler: Sampler) -> MapSampler:
    base = sampler.sampler if isinstance(sampler, FilteredSampler) else sampler
    assert isinstance(base, MapSampler)
    return base


def scales(recipe: Recipe, sampler: MapSampler) -> list[float]:
    """Metres per pixel of a run's images."""
    return [recipe.map_gsd] if recipe.map_gsd else [a.gsd_m for a in sampler.prior.prior.acquisitions]


def use_control(
    recipe: Recipe, renderer: Renderer, model_folder: Path, canvases: Canvases, sampler: Sampler, notes: list[str]
) -> tuple[Recipe, MapControl | None]:
    """The recipe with its control settled, and that control: of the renderer of whole images, or of generated scenes,
    which then follow it.

    Raises UserError for a control that does not fit, and for one that would have no ground to make.
    """
    if recipe.layouts != "map" or recipe.control == OFF:
        return recipe, None
    ground, folder = renderer, model_folder
    generated = isinstance(canvases, GeneratedCanvases | WindowedCanvases)
    if generated:
        ground, folder = canvases.pipeline, weights.packaged("whole")
    elif renderer.paints_on == "scene":
        if recipe.control is not None:
            raise UserError("--control: the scenes of this run are real images, which follow no map; leave it out.")
        notes.append("scenes are real images, so the ground does not follow the map")
        return recipe, None
    recipe, control = settle_control(recipe, ground, folder, sampler, notes)
    if control is not None and generated:
        canvases.control = control
    return recipe, control


def settle_control(
    recipe: Recipe, ground: Renderer, folder: Path, sampler: Sampler, notes: list[str]
) -> tuple[Recipe, MapControl | None]:
    """The recipe with its control settled, and that control, for the renderer of the ground in a folder. Raises
    UserError for one that does not fit."""
    if recipe.control == OFF:
        return recipe, None
    if recipe.control is None:
        if why := _no_packaged_control(folder):
            notes.append(f"the ground does not follow the map: {why}")
            return recipe, None
        recipe = recipe.model_copy(update={"control": PACKAGED})
        notes.append("the ground follows the map, by the packaged control; --control off leaves it free")
    base = map_sampler_of(sampler)
    return recipe, load_map_control(recipe, ground, base.map, base.ground, scales(recipe, base))


def _no_packaged_control(folder: Path) -> str:
    """Why the packaged control is not for the renderer in a folder; "" where it is."""
    from dataengine.render.control import read_input

    if not weights.has("control"):
        return "give --control with a model of dataengine train control"
    trained_for = read_input(weights.packaged("control")).renderer
    if not (folder / "unet").is_dir() or folder_hash(folder / "unet") != trained_for:
        return "the packaged control is for another renderer; give --control with a model of dataengine train control"
    return ""


def load_map_control(
    recipe: Recipe, renderer: Renderer, the_map: Map, ground: Ground, used: Sequence[float]
) -> MapControl:
    """The control of a recipe, checked against the renderer of the ground and the map. used: metres per pixel."""
    from dataengine.render.control import check_fits, condition_side, load_control

    source = str(weights.packaged("control")) if recipe.control == PACKAGED else recipe.control
    network, given = load_control(source)
    check_fits(network, renderer.unet, source)
    if given is not None:
        wrong = given.classes != ground.names if not given.groups else not {*given.classes} <= {*ground.names}
        if wrong:
            raise UserError(
                f"--control {source}: follows {', '.join(given.classes)}, and the map's table has "
                f"{', '.join(ground.names)}; train it again."
            )
        for gsd_m in (min(used), max(used)):
            check_gsd(gsd_m, given.gsd_m, "--map-gsd")
    folder = Path(source)
    return MapControl(
        the_map, ground, network.to(renderer.unet.device), given, condition_side(renderer.unet),
        1.0 if recipe.control_scale is None else recipe.control_scale,
        folder_hash(folder) if folder.is_dir() else source,
    )  # fmt: skip

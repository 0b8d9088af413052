"""The map of a run as a condition: what a renderer's side network follows at the place of each layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Layout, model_key
from dataengine.engine.recipe import Recipe, folder_hash
from dataengine.errors import UserError
from dataengine.layouts.map_sampler import MapSampler
from dataengine.layouts.sampler import FilteredSampler, Sampler
from dataengine.maps.features import Map
from dataengine.maps.grid import check_gsd
from dataengine.maps.ground import Ground
from dataengine.maps.raster import MapRaster, map_raster, picture
from dataengine.render.imagery import read_imagery
from dataengine.render.renderer import Renderer

if TYPE_CHECKING:
    from diffusers import ControlNetModel

    from dataengine.render.control import Control


@dataclass(frozen=True)
class MapControl:
    """A side network and the map that it follows. as_picture: whether it takes the map's colours, as published ones do,
    or channels of classes. side: of its condition in pixels. identity: hash of its weights, or the hub id."""

    map: Map
    ground: Ground
    network: ControlNetModel
    as_picture: bool
    side: int
    scale: float
    identity: str

    def raster(self, layout: Layout) -> MapRaster:
        """The map under a layout of a `MapSampler`."""
        a = layout.acquisition
        grid = self.map.grid_at(a.longitude_deg, a.latitude_deg, a.gsd_m, layout.size)
        return map_raster(self.map, grid, self.ground)

    def of(self, layouts: Sequence[Layout]) -> Control:
        """The control of a batch of layouts."""
        import cv2
        import torch

        from dataengine.render.control import Control, condition_of

        conditions = []
        for raster in map(self.raster, layouts):
            if self.as_picture:
                colours = picture(raster, self.ground, edges=False).astype(np.float32) / 255
                resized = cv2.resize(colours, (self.side, self.side), interpolation=cv2.INTER_AREA)
                conditions.append(resized.transpose(2, 0, 1))
            else:
                conditions.append(condition_of(raster, self.side))
        return Control(self.network, torch.from_numpy(np.stack(conditions)), self.scale)


def use_map(
    recipe: Recipe, renderer: Renderer, model_folder: Path, sampler: Sampler, notes: list[str]
) -> MapControl | None:
    """Check the scale of a map against the renderer, note what follows from a map, and load the recipe's control.

    Raises UserError for metres per pixel that a model was not trained on, and a control that does not fit.
    """
    if recipe.layouts != "map":
        return None
    base = sampler.sampler if isinstance(sampler, FilteredSampler) else sampler
    assert isinstance(base, MapSampler)
    used = [recipe.map_gsd] if recipe.map_gsd else [a.gsd_m for a in base.prior.prior.acquisitions]
    drawn = {model_key(name) for name in base.classes}
    trained = [one for one in read_imagery(model_folder) if one.gsd_m and drawn & {*map(model_key, one.classes)}]
    known = [one.gsd_m for one in trained]
    for gsd_m in (min(used), max(used)):
        if known:
            check_gsd(gsd_m, (min(low for low, _ in known), max(high for _, high in known)), "--map-gsd")
    notes.append(
        f"objects stand where {recipe.map} has room for them. Publish images from OpenStreetMap with the words "
        '"© OpenStreetMap contributors" (Open Database License)'
    )
    if recipe.control is None:
        notes.append("the ground does not follow the map: give --control with a model of dataengine train control")
        return None
    return load_map_control(recipe, renderer, base, used)


def load_map_control(recipe: Recipe, renderer: Renderer, sampler: MapSampler, used: Sequence[float]) -> MapControl:
    """The control of a recipe, checked against the renderer and the map."""
    from dataengine.render.control import check_fits, condition_side, load_control

    network, given = load_control(recipe.control)
    check_fits(network, renderer.unet, recipe.control)
    if given is not None:
        if given.classes != sampler.ground.names:
            raise UserError(
                f"--control {recipe.control}: follows {', '.join(given.classes)}, and the map's table has "
                f"{', '.join(sampler.ground.names)}; train it again."
            )
        for gsd_m in (min(used), max(used)):
            check_gsd(gsd_m, given.gsd_m, "--map-gsd")
    folder = Path(recipe.control)
    return MapControl(
        sampler.map, sampler.ground, network.to(renderer.unet.device), given is None, condition_side(renderer.unet),
        1.0 if recipe.control_scale is None else recipe.control_scale,
        folder_hash(folder) if folder.is_dir() else recipe.control,
    )  # fmt: skip

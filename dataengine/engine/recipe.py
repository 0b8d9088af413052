"""What a run makes: everything that decides its result, and nothing that does not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dataengine.data.layout import Acquisition
from dataengine.data.presets import config_file
from dataengine.errors import UserError, first_fault
from dataengine.files import read_yaml


def _low_to_high(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"give the lower number first: {given[1]:g} {given[0]:g}")
    return given


Range = Annotated[tuple[float, float], AfterValidator(_low_to_high)]
RANGES = {"altitude": "altitude_m", "gsd": "gsd_m", "camera_angle": "camera_angle_deg"}  # field of `Acquisition` each


class Recipe(BaseModel):
    """Settings of `dataengine synth`. Workers and batch size are not among them: they must not change the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str | None = Field(None, description="a preset's name, or the path of its YAML file; else data's own")
    data: Path | None = Field(None, description="folder of the labelled data set")
    n: int = Field(200, gt=0, description="accepted images wanted")
    seed: int = Field(0, ge=0)
    size: int = Field(256, ge=64, le=4096, description="side of the images in pixels")
    layouts: Literal["reuse", "prior", "diffusion"] = "reuse"
    layout_model: Path | None = Field(None, description="folder of a layout model, for layouts: diffusion")
    layout_scale: float = Field(1.0, gt=0, le=8, description="of real layouts: 0.64 shows 800 pixels in 512")
    altitude: Range | None = Field(None, description="only as from this height, low and high, in metres")
    gsd: Range | None = Field(None, description="only of this ground sample distance, low and high, in metres a pixel")
    camera_angle: Range | None = Field(None, description="only at this angle, low and high; 90 looks straight down")
    night: bool | None = Field(None, description="only as by night (true) or by day (false); both if not said")
    label_filter: float | None = Field(None, gt=0, description="standard deviations from real boxes; off if not said")
    enhance: bool = Field(True, description="layouts scaled, turned, flipped and merged, whether real or diffused")
    rows: float = Field(0.0, ge=0, le=1, description="share of objects that become rows, as far apart as real ones")
    classes: tuple[str, ...] | None = Field(None, description="make only these classes")
    draw_as: dict[str, str] = Field({}, description="class of the layouts: what is drawn in its boxes instead")
    balance: float | dict[str, float] | None = Field(None, description="least share of objects for every class")
    renderer: Literal["in-scene", "whole"] = "in-scene"
    model: Path | None = Field(None, description="folder of a trained renderer instead of the packaged one")
    scenes: Path | None = Field(None, description="folder of images or a data set to paint into")
    augment_scenes: bool = Field(
        False, description="turn, scale and re-light scenes, which keep their objects: of few, many"
    )
    likely_places: bool = Field(False, description="new objects go where surroundings look as around real ones")
    strength: float = Field(1.0, gt=0, le=1, description="noise from which objects begin; below 1, over real ones")
    into: Path | None = Field(None, description="labelled data set whose pictures get new objects beside their own")
    encoder: str | None = Field(None, description="of reference images, for a model that was trained with them")
    steps: int | None = Field(None, gt=0, le=1000, description="denoising steps; the renderer's own if not said")
    guidance_scale: float | None = Field(None, ge=0, le=50, description="the renderer's own if not said")
    semantic_filter: Path | None = Field(None, description="folder of a CLIP model that image and prompt must agree in")
    filter: Literal["drop", "difficult", "repair", "erase", "off"] = Field(
        default_factory=lambda given: "erase" if given.get("renderer") == "in-scene" else "difficult"
    )
    detector: Path | None = Field(None, description="folder of a detector instead of the packaged one")
    calibration: Path | None = None
    pass_share: float = Field(0.95, gt=0, lt=1, description="share of real images that the filter lets pass")
    max_attempts: int | None = Field(None, gt=0, description="give up after this many images; 20 times n if not said")
    mix: bool = Field(False, description="also write a data set of real and synthetic images together")
    shard_size: int = Field(16, gt=0, le=1024, description="images that are made and stored together")

    @model_validator(mode="after")
    def _of_something(self) -> Recipe:
        if self.dataset is None and self.data is None:
            raise ValueError("give --dataset with the name of a preset, or --data with your labelled data set")
        if (self.layouts == "diffusion") != (self.layout_model is not None):
            raise ValueError("layouts: diffusion and a layout_model (dataengine train layouts) belong together")
        if self.layouts == "prior" and not self.enhance:
            raise ValueError(
                "enhance: layouts of the prior are new ones; only those of reuse and diffusion are changed"
            )
        if self.rows and (self.layouts != "reuse" or not self.enhance):
            raise ValueError("rows: only real layouts that are changed get them (layouts: reuse, enhance: true)")
        if self.filter == "erase" and self.renderer != "in-scene":
            raise ValueError("filter: erase needs renderer: in-scene, which knows the picture without its objects")
        if self.likely_places and (self.renderer != "in-scene" or self.into is not None):
            raise ValueError("--likely-places is for scenes: it goes with --renderer in-scene, and without --into")
        if self.into is not None and self.scenes is not None:
            raise ValueError("give --into or --scenes, not both")
        return self

    @property
    def name(self) -> str:
        """What the run is called: the preset's name, or the folder's where there is none."""
        return Path(self.dataset).stem if self.dataset is not None else self.data.resolve().stem

    @property
    def budget(self) -> int:
        """Attempts after which the run gives up."""
        return self.max_attempts or max(20 * self.n, 100)

    def wants(self, taken: Acquisition) -> bool:
        """Whether a picture taken so is like those asked for; never where it is unknown what was asked for."""
        ranges = [(getattr(self, option), getattr(taken, name)) for option, name in RANGES.items()]
        within = all(r is None or (value is not None and r[0] <= value <= r[1]) for r, value in ranges)
        return within and self.night in (None, taken.night)

    def identity(self, parts: dict[str, str]) -> str:
        """Hash of the recipe and of the parts (model, detector, layouts ... by content) that it is carried out with."""
        text = self.model_dump_json() + repr(sorted(parts.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_recipe(path: Path | None, overrides: dict) -> Recipe:
    """A recipe from a YAML file (or the defaults), with the overrides that are not None.

    A path that does not exist may be the name of a packaged recipe (configs/recipes), such as dior-r.
    Raises UserError that names the file and the field at fault.
    """
    values: dict = {}
    if path is not None:
        values = read_yaml(path if path.exists() else config_file("recipes", str(path)) or path)
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        where = f"{path}: " if path is not None else ""
        raise UserError(f"{where}{first_fault(error, Recipe.model_fields)}.") from None


def pairs(given: Sequence[str] | None) -> dict[str, str] | None:
    """["car=windmill"] -> {"car": "windmill"}; None for nothing. Raises UserError for anything else."""
    found = [text.partition("=") for text in given or ()]
    for old, _, new in found:
        if not old.strip() or not new.strip():
            raise UserError(f"--draw-as {old}: give two names, such as car=windmill.")
    return {old.strip(): new.strip() for old, _, new in found} or None


def folder_hash(folder: Path) -> str:
    """Hash of the content of all files below a folder, or of one file; 16 hexadecimal digits."""
    total = hashlib.sha256()
    files = [folder] if folder.is_file() else sorted(f for f in folder.rglob("*") if f.is_file())
    for file in files:
        if file.suffix in (".md", ".png"):  # a model card may be mended without the model being another
            continue
        total.update(file.name.encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:16]

"""Settings of a run: everything that decides its result, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dataengine.data.commands import FormatName
from dataengine.data.layout import Acquisition
from dataengine.data.pixel_range import parse as parse_pixel_range
from dataengine.data.presets import config_file
from dataengine.data.rename import parse_pairs
from dataengine.errors import UserError, first_fault
from dataengine.files import read_yaml
from dataengine.layouts.balance import parse_balance
from dataengine.render import IMAGERY_FILE, PROVENANCE_FILE, RENDERERS


def _low_to_high(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"give the lower number first: {limits[1]:g} {limits[0]:g}")
    return limits


def _names(value: object) -> object:
    """ "plane, ship" -> ["plane", "ship"]; a list stays as it is."""
    names = [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
    if names in ([], ()):
        raise UserError("--classes: give at least one class, such as plane,ship, or leave the option out.")
    return names


def _pairs(option: str) -> BeforeValidator:
    """Reads "car=windmill,van=boat" as {"car": "windmill", "van": "boat"}; a dict stays as it is."""
    return BeforeValidator(lambda value: parse_pairs(value, option) if isinstance(value, str) else value)


def _shares(value: object) -> object:
    """ "ship=0.2,van=0.1" -> {"ship": 0.2, "van": 0.1}, and "0.1" -> 0.1; numbers and dicts stay as they are."""
    return parse_balance(value) if isinstance(value, str) else value


def _field(panel: str, default: object, description: str, unset: str | None = None, **settings) -> Any:
    """A field that `dataengine synth --help` shows in `panel`; `unset` describes the default where that is None."""
    return Field(default, description=description, json_schema_extra={"panel": panel, "unset": unset}, **settings)


def _pixel_range(text: str | None) -> str | None:
    """ "7000:9000", checked."""
    if text is not None:
        try:
            parse_pixel_range(text)
        except UserError as error:
            raise ValueError(str(error).removeprefix("--pixel-range ").rstrip(".")) from None
    return text


RendererKind = Literal[*dict.fromkeys(entry.kind for entry in RENDERERS)]
Range = Annotated[tuple[float, float], AfterValidator(_low_to_high)]
# fields without a meaning where --layout gives the layout
LAYOUT_FIELDS = {"layouts", "layout_model", "balance", "rows", "label_filter", "enhance", "altitude", "gsd",
    "camera_angle", "night"}  # fmt: skip
# added after version 0.1.0: without effect on the identity of runs that leave them out
LATER_FIELDS = (
    "pixel_range", "layout", "scheduler", "eta", "rename", "map", "map_box", "map_gsd", "control", "control_scale",
    "like",
)  # fmt: skip
PACKAGED, OFF = "packaged", "off"  # of `control`
MAX_SHARD = 16  # images, unless --shard-size is given
RANGES = {"altitude": "altitude_m", "gsd": "gsd_m", "camera_angle": "camera_angle_deg"}  # field of `Acquisition` each


class Recipe(BaseModel):
    """Settings of `dataengine synth`, each an option of the command, a field of its YAML file and a Python argument.

    Workers and batch size are not among them, because they must not change the result. Lists may be given as text, as
    on the command line: "plane,ship" for `classes`, "ship=0.2,van=0.1" for `balance`.

    >>> recipe = Recipe(dataset="hit-uav", n=50, classes="car,person")
    >>> recipe.classes
    ('car', 'person')
    >>> recipe.filter
    'erase'
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str | None = _field("Data", None, "Preset (hit-uav, dior ...) or YAML file; not needed with --data.")
    data: Path | None = _field("Data", None, "Folder of your labelled data set, in any supported format.")
    pixel_range: Annotated[str | None, AfterValidator(_pixel_range)] = _field(
        "Data",
        None,
        "Values of images of more than 8 bits that become black and white, LOW:HIGH.",
        "pixel-range.json, or measured",
    )
    format: FormatName | None = _field("Data", None, "Format of --data.", "recognised by content")
    n: int = _field("Run", 200, "Number of accepted images to make.", gt=0)
    seed: int = _field("Run", 0, "Random seed; another seed gives another data set.", ge=0)
    size: int = _field("Rendering", 256, "Side of the images in pixels.", ge=64, le=4096)
    layouts: Literal["reuse", "prior", "diffusion", "map"] = _field(
        "Layouts", "reuse", "Source of layouts: real ones augmented, a fitted prior, a diffusion model, or a map."
    )
    map: Path | None = _field(
        "Layouts", None, "Map for --layouts map and --control: OSM PBF, GeoJSON, GeoPackage or Overture GeoParquet."
    )
    map_box: tuple[float, float, float, float] | None = _field(
        "Layouts", None, "Part of --map in degrees: west, south, east, north.", "all"
    )
    map_gsd: float | None = _field(
        "Layouts", None, "Metres per pixel of images of the map.", "that of the data set's images", gt=0, le=100
    )
    control: str | None = _field(
        "Rendering", None, "ControlNet that makes the ground follow --map: a folder, a hub id, packaged, or off.",
        "packaged, for the packaged ground",
    )  # fmt: skip
    control_scale: float | None = _field(
        "Rendering", None, "Strength of --control; 0 is the renderer without it.", "1", ge=0, le=5
    )
    layout: Path | None = _field(
        "Layouts",
        None,
        "Render this one layout in every image: a text file with an object a line, in DOTA's form or with a class "
        "number and four corners from 0 to 1.",
    )
    layout_model: Path | None = _field(
        "Layouts", None, "Model folder of dataengine train layouts, for --layouts diffusion."
    )
    layout_scale: float = _field("Layouts", 1.0, "Scale of real layouts; 0.64 fits 800 pixels into 512.", gt=0, le=8)
    altitude: Range | None = _field(
        "Data", None, "Use only layouts and scenes taken from LOW to HIGH metres above ground."
    )
    gsd: Range | None = _field("Data", None, "Use only layouts and scenes of LOW to HIGH metres per pixel.")
    camera_angle: Range | None = _field(
        "Data", None, "Use only layouts and scenes taken at LOW to HIGH degrees; 90 looks straight down."
    )
    night: bool | None = _field("Data", None, "Use only layouts and scenes taken at night, or by day.", "both")
    label_filter: float | None = _field(
        "Layouts", None, "Resample layouts with boxes beyond this many standard deviations of real ones.", "off", gt=0
    )
    enhance: bool = _field("Layouts", True, "Scale, rotate, flip and merge layouts.")
    rows: float = _field(
        "Layouts", 0.0, "Share of objects (0 to 1) to arrange in rows, spaced like real ones.", ge=0, le=1
    )
    classes: Annotated[tuple[str, ...], BeforeValidator(_names)] | None = _field(
        "Data", None, "Make only these classes: plane,ship.", "all"
    )
    rename: Annotated[dict[str, str] | None, _pairs("--rename")] = _field(
        "Data", None, "New names of classes of --data: small-vehicle=Car,plane=airplane."
    )
    draw_as: Annotated[dict[str, str], _pairs("--draw-as")] = _field(
        "Rendering", {}, "Render another class in the boxes of one: car=windmill; needs a model with text."
    )
    balance: Annotated[float | dict[str, float] | None, BeforeValidator(_shares)] = _field(
        "Layouts", None, "Minimum share of all objects, for every class (0.1) or for some (ship=0.2,van=0.1)."
    )
    renderer: RendererKind = _field("Rendering", "in-scene", "Paint objects into scenes, or generate the whole image.")
    model: Path | None = _field("Rendering", None, "Folder of a trained renderer.", "the packaged or fetched one")
    scenes: Path | None = _field(
        "Data", None, "Images or data set to paint objects into.", "images of --data, or generated scenes"
    )
    scenes_format: FormatName | None = _field("Data", None, "Format of --scenes.", "recognised by content")
    augment_scenes: bool = _field(
        "Rendering", False, "Rotate, scale and relight scenes together with their objects, for small data sets."
    )
    likely_places: bool = _field(
        "Layouts",
        False,
        "Move objects to places that look like the surroundings of real objects in --data; "
        "on by default with --strength below 1 and with --into.",
    )
    strength: float = _field(
        "Rendering",
        1.0,
        "Denoising strength: 1 paints objects from noise; 0.3 repaints real objects cut out of --data.",
        gt=0,
        le=1,
    )
    into: Path | None = _field(
        "Data", None, "Labelled data set whose images receive new objects in addition to their own."
    )
    into_format: FormatName | None = _field("Data", None, "Format of --into.", "recognised by content")
    like: Path | None = _field(
        "Rendering", None, "Folder of images that the ground is to look like; they need no labels."
    )
    encoder: str | None = _field(
        "Rendering", None, "Encoder of reference images, for a model trained with one.", "the packaged one"
    )
    steps: int | None = _field("Rendering", None, "Denoising steps.", "the renderer's own", gt=0, le=1000)
    scheduler: Literal["ddim", "dpm", "unipc", "euler", "euler-a"] | None = _field(
        "Rendering", None, "Sampler of a model with text, such as AeroGen's.", "the model's own"
    )
    eta: float | None = _field(
        "Rendering", None, "Noise that DDIM adds at each step, 0 to 1.", "the model's own", ge=0, le=1
    )
    guidance_scale: float | None = _field(
        "Rendering", None, "Classifier-free guidance: null + scale * (condition - null).", "the renderer's own",
        ge=0, le=50,
    )  # fmt: skip
    semantic_filter: Path | None = _field(
        "Filter", None, "Folder of a CLIP model; drops images that do not match their prompt.", "off"
    )
    filter: Literal["drop", "difficult", "repair", "erase", "off"] = Field(
        default_factory=lambda given: "erase" if given.get("renderer") == "in-scene" else "difficult",
        description="What happens to objects that the detector does not find (docs/filter.md).",
        json_schema_extra={"panel": "Filter", "unset": "erase; difficult with --renderer whole"},
    )
    detector: Path | None = _field("Filter", None, "Folder of your own ONNX detector.", "the packaged one")
    calibration: Path | None = _field(
        "Filter",
        None,
        "Thresholds of the detector, from dataengine filter calibrate.",
        "packaged, or measured on --data",
    )
    pass_share: float = _field("Filter", 0.95, "Share of real images that the calibrated filter accepts.", gt=0, lt=1)
    max_attempts: int | None = _field("Run", None, "Stop after this many rendered images.", "20 times --n", gt=0)
    mix: bool = _field("Run", False, "Also write real and synthetic images as one data set.")
    shard_size: int = Field(
        default_factory=lambda given: min(MAX_SHARD, given.get("n", MAX_SHARD)),
        description="Images stored together as one shard.",
        json_schema_extra={"panel": "Run", "unset": f"{MAX_SHARD}, or --n if that is less"},
        gt=0,
        le=1024,
    )

    @model_validator(mode="before")
    @classmethod
    def _real_objects_stand_where_real_ones_do(cls, values: Any) -> Any:
        """`likely_places` is on where objects start from real ones or go into complete images, unless it is given or
        does not apply."""
        if not isinstance(values, dict) or values.get("likely_places") is not None:
            return values
        strength, renderer = values.get("strength", 1.0), values.get("renderer", "in-scene")
        real = (isinstance(strength, int | float) and strength < 1) or values.get("into") is not None
        placed = values.get("layout") is not None or values.get("layouts") == "map"
        return {**values, "likely_places": real and renderer == "in-scene" and not placed}

    @model_validator(mode="after")
    def _check_combinations(self) -> Recipe:
        if self.dataset is None and self.data is None:
            raise ValueError("give --dataset with the name of a preset, or --data with your labelled data set")
        if (self.layouts == "diffusion") != (self.layout_model is not None):
            raise ValueError("layouts: diffusion and layout_model (from dataengine train layouts) require each other")
        if self.layouts == "prior" and not self.enhance:
            raise ValueError("enhance: false works only with layouts: reuse or diffusion, not with layouts: prior")
        if self.rows and (self.layouts != "reuse" or not self.enhance):
            raise ValueError("rows: works only with layouts: reuse and enhance: true")
        if (self.layouts == "map") != (self.map is not None):
            raise ValueError("--layouts map and --map, with the file of a map, require each other")
        given = [name for name in ("map_box", "map_gsd", "control") if getattr(self, name) is not None]
        if given and self.map is None:
            raise ValueError(f"{given[0]}: works only with layouts: map")
        if self.control_scale is not None and (self.map is None or self.control == OFF):
            raise ValueError("control_scale: works only with layouts: map and a control")
        if self.layouts == "map" and (self.balance is not None or self.likely_places or self.into is not None):
            raise ValueError("layouts: map decides where objects stand: leave out balance, likely_places and into")
        if self.layouts == "map" and self.layout_scale != 1:
            raise ValueError("layouts: map has its scale from map_gsd: leave out layout_scale")
        if self.filter == "erase" and self.renderer != "in-scene":
            raise ValueError("filter: erase works only with renderer: in-scene, which has each scene without objects")
        if self.likely_places and self.renderer != "in-scene":
            raise ValueError("--likely-places works only with --renderer in-scene")
        # a stored recipe states them all, most by their default
        chosen = {name for name in LAYOUT_FIELDS if getattr(self, name) != type(self).model_fields[name].default}
        if self.layout is not None and chosen:
            raise ValueError(f"--layout renders one layout as it is: leave out {', '.join(sorted(chosen))}")
        if self.layout is not None and self.into is not None:
            raise ValueError("give --layout or --into, not both")
        if self.eta is not None and self.scheduler not in (None, "ddim"):
            raise ValueError(f"--eta is for --scheduler ddim, not {self.scheduler}")
        if self.into is not None and self.scenes is not None:
            raise ValueError("give --into or --scenes, not both")
        return self

    @property
    def name(self) -> str:
        """Name of the run: that of the preset, or of the data set's folder."""
        return Path(self.dataset).stem if self.dataset is not None else self.data.resolve().stem

    @property
    def budget(self) -> int:
        """Maximum number of attempts of the run."""
        return self.max_attempts or max(20 * self.n, 100)

    def wants(self, acquisition: Acquisition) -> bool:
        """Whether an image acquired this way matches the recipe's ranges; unknown values match no stated range."""
        for option, name in RANGES.items():
            limits, value = getattr(self, option), getattr(acquisition, name)
            if limits is not None and (value is None or not limits[0] <= value <= limits[1]):
                return False
        return self.night in (None, acquisition.night)

    def identity(self, parts: dict[str, str]) -> str:
        """Hash of the recipe and of the content of its parts (model, detector, layouts ...); 16 hexadecimal digits."""
        unused = {name for name in LATER_FIELDS if getattr(self, name) is None}
        text = self.model_dump_json(exclude=unused) + repr(sorted(parts.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_recipe(path: Path | None, overrides: dict) -> Recipe:
    """The recipe of a YAML file (or the defaults), with the overrides that are not None.

    A path that does not exist may be the name of a packaged recipe (configs/recipes), such as dior-r.
    Raises UserError with the file and the field at fault.
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


def folder_hash(folder: Path) -> str:
    """Hash of the content of all files below a folder, or of one file; 16 hexadecimal digits."""
    total = hashlib.sha256()
    files = [folder] if folder.is_file() else sorted(f for f in folder.rglob("*") if f.is_file())
    for file in files:
        # a model card, what a model was trained on, and where it comes from may be written down later without a change
        # of the model
        if file.suffix in (".md", ".png") or file.name in (IMAGERY_FILE, PROVENANCE_FILE):
            continue
        total.update(file.name.encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:16]

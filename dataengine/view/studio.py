"""Layouts drawn by hand: rendered with a run's own parts, judged by its own filter, and kept if the person says so.

AeroGen (Tang et al. 2024) has "edit layouts interactively" on its list of what is to come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dataengine import geometry
from dataengine.data.layout import UNKNOWN, Acquisition, Layout, class_key
from dataengine.engine.attempt import detect, judge_labels
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import Verdict
from dataengine.layouts.constraints import MIN_VISIBLE, cut_by_border
from dataengine.render.canvas import BlankCanvases, Canvas
from dataengine.seeds import Stream, generator
from dataengine.view.gallery import class_colour

REMEMBERED = 32  # images that were rendered last, which can still be kept
MOST_BOXES = 500


def _not_flat(value: float) -> float:
    if abs(value) > 1e6:
        raise ValueError("lies farther out than any image is large")
    return value


Number = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_not_flat)]


class Box(BaseModel):
    """One drawn box: class by name, pixels, radians; sides in any order."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    cls: str = Field(alias="class")
    cx: Number
    cy: Number
    w: Annotated[Number, Field(ge=1)]
    h: Annotated[Number, Field(ge=1)]
    theta: Number = 0.0


class Order(BaseModel):
    """What is to be rendered. ground: "drawn" is a scene of the run's own, made for `ground_boxes` (those drawn, if
    none are given) and `ground_seed`; "picture" is the image that was opened, whose objects stay as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boxes: tuple[Box, ...] = Field(min_length=1, max_length=MOST_BOXES)
    seed: int = Field(ge=0, lt=2**62)  # as text in JSON, since JavaScript's numbers end at 2^53
    ground: Literal["drawn", "picture"] = "drawn"
    ground_boxes: tuple[Box, ...] | None = Field(None, max_length=MOST_BOXES)
    ground_seed: int | None = Field(None, ge=0, lt=2**62)
    picture: tuple[Literal["made", "real", "file"], int] | None = None
    acquisition: Acquisition = UNKNOWN
    steps: int | None = Field(None, gt=0, le=1000)
    guidance_scale: float | None = Field(None, ge=0, le=50)


@dataclass(frozen=True)
class Rendered:
    """image uint8 (H, W, 3); asked: the drawn layout; labels: after the filter; verdict: what the filter says of it.

    found: whether each drawn object was found (empty where nobody looked). detections: what the filter's detector saw,
    None without one. scene, license: of what was painted into. origin: "side:number" of the image that was opened.
    """

    order: Order
    image: np.ndarray
    asked: Layout
    labels: Layout
    verdict: Verdict
    found: list[bool]
    detections: Detections | None
    scene: str
    license: str
    origin: str


@dataclass
class Job:
    """state: "waiting", "rendering", "done", "failed" (with the error's sentence) or "replaced" by a later order."""

    number: int
    order: Order
    state: str = "waiting"
    error: str = ""
    result: Rendered | None = None


class Studio:
    """Parts that are loaded in the background, and orders that are rendered there one after the other.

    load: gives recipe and parts. opened: (side, number) -> the image to draw on, as a canvas without new objects.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Recipe, Parts]],
        opened: Callable[[tuple[str, int]], Canvas],
        out: Path,
        file: Path | None = None,
    ):
        self.opened, self.out, self.file = opened, out, file
        self.jobs: dict[int, Job] = {}
        self.kept = None
        self._numbers, self._lock = count(1), threading.Lock()
        self._worker = ThreadPoolExecutor(1, "render")
        self._loading = self._worker.submit(self._load, load)

    def _load(self, load: Callable[[], tuple[Recipe, Parts]]) -> tuple[Recipe, Parts]:
        from dataengine.view.kept import Kept

        recipe, parts = load()
        self.kept = Kept(self.out, recipe, parts)
        return recipe, parts

    def parts(self) -> tuple[Recipe, Parts]:
        """Recipe and parts, waited for. Raises UserError when they cannot be loaded."""
        return self._loading.result()

    def summary(self) -> dict:
        """What the page needs to draw: `state` ("loading", "ready" or "failed"), and once ready the classes with
        colours, the size of a drawn ground, settings, and how many images are kept."""
        found = {"out": str(self.out), "file": self.file is not None}
        if not self._loading.done():
            return {**found, "state": "loading"}
        try:
            recipe, parts = self.parts()
        except UserError as error:
            return {**found, "state": "failed", "error": str(error)}
        return {
            **found,
            "state": "ready",
            "classes": [{"name": name, "colour": class_colour(k)} for k, name in enumerate(parts.classes)],
            "kind": parts.preset.kind,
            "size": recipe.size,
            "grounds": _grounds(recipe, parts),
            "guidance_scale": _first(recipe.guidance_scale, parts.renderer.guidance_scale),
            "steps": recipe.steps or parts.renderer.steps,
            "fixed_steps": bool(parts.renderer.few_steps),
            "sides": self._usual_sides(parts),
            "filter": recipe.filter,
            "notes": parts.notes,
            "kept": self.kept.indices(),
        }

    def _usual_sides(self, parts: Parts) -> dict[str, list[float]]:
        """Median width and height in pixels of each class in sampled layouts, where a new box begins."""
        layouts = [parts.sampler.sample(np.random.default_rng((7, i))) for i in range(40)]
        boxes = np.concatenate([layout.boxes for layout in layouts])
        names = np.array([name for layout in layouts for name in layout.names()])
        return {
            name: [round(float(v), 1) for v in np.median(boxes[names == name, 2:4], axis=0)]
            for name in np.unique(names)
        }

    def sampled(self, seed: int) -> Layout:
        """A layout of the run's own sampler, to begin with."""
        return self.parts()[1].sampler.sample(generator(seed, Stream.LAYOUT))

    def submit(self, order: Order) -> Job:
        """Render as soon as those before are done; orders that still wait are replaced. Raises UserError for what can
        be told at once."""
        if self._loading.done():
            self._laid_out(order)
        with self._lock:
            for job in self.jobs.values():
                if job.state == "waiting":
                    job.state = "replaced"
            job = Job(next(self._numbers), order)
            self.jobs[job.number] = job
            for number in [n for n, j in self.jobs.items() if j.state not in ("waiting", "rendering")][:-REMEMBERED]:
                del self.jobs[number]
        self._worker.submit(self._work, job)
        return job

    def _work(self, job: Job) -> None:
        with self._lock:
            if job.state == "replaced":
                return
            job.state = "rendering"
        try:
            job.result = self.rendered(job.order)
            job.state = "done"
        except UserError as error:
            job.error, job.state = str(error), "failed"
        except Exception as error:  # the page would wait for ever
            job.error, job.state = f"{type(error).__name__}: {error}", "failed"
            raise

    def rendered(self, order: Order) -> Rendered:
        """The image of an order, and what the filter says of it. Raises UserError for a layout that cannot be drawn.

        The same order gives the same image (contract 4): noise comes from its seed alone.
        """
        recipe, parts = self.parts()
        asked, canvas = self._laid_out(order)
        guidance_scale = _first(order.guidance_scale, recipe.guidance_scale)
        recipe = recipe.model_copy(update={"steps": order.steps or recipe.steps, "guidance_scale": guidance_scale})
        if canvas is None:
            canvas = self._ground(order, asked)
        canvas = replace(canvas, new=asked)
        [painted] = parts.renderer.paint([canvas], [order.seed], parts.paint_settings(recipe))
        detections = detect(parts, painted.image)
        # every box stays, found or not: whoever draws sees which was not
        labels, verdict = judge_labels(parts, recipe, painted, detections)
        scores = np.array(verdict.scores[: len(asked)])
        found = parts.calibration.found(asked, scores).tolist() if len(scores) else []
        scene = canvas.provenance
        origin = "" if order.picture is None else f"{order.picture[0]}:{order.picture[1]}"
        return Rendered(
            order, painted.image, asked, labels, verdict, found, detections, scene.label, scene.license, origin
        )

    def _ground(self, order: Order, asked: Layout) -> Canvas:
        """A canvas of the run's own, for `order.ground_boxes` if those are given."""
        _, parts = self.parts()
        if parts.renderer.paints_on == "blank":
            return BlankCanvases().draw([asked], [order.seed])[0]
        layout, seed = asked, order.seed
        if order.ground_boxes:
            layout = layout_of(order.ground_boxes, parts, asked.size, order.acquisition)
            seed = _first(order.ground_seed, order.seed)
        return parts.canvases.draw([layout], [seed])[0]

    def _laid_out(self, order: Order) -> tuple[Layout, Canvas | None]:
        """The layout of an order, and the opened image if it is drawn on that."""
        recipe, parts = self.parts()
        _check(order, recipe, parts)
        canvas = self.opened(order.picture) if order.ground == "picture" else None
        size = canvas.existing.size if canvas is not None else (recipe.size, recipe.size)
        return layout_of(order.boxes, parts, size, order.acquisition), canvas

    def keep(self, number: int) -> int:
        """Write a rendered image to the folder; its number there. Raises UserError where it is no longer held."""
        job = self.jobs.get(number)
        if job is None or job.result is None:
            raise UserError("this image is no longer here; render it again.")
        return self.kept.add(job.result)


def _first(value: float | None, default: float | None) -> float | None:
    """The value, which may be 0, or else the default."""
    return default if value is None else value


def _grounds(recipe: Recipe, parts: Parts) -> list[str]:
    """Which grounds an order may have: the whole-image renderer paints into no image, and a run that was painted
    into labelled images has no scenes of its own."""
    if parts.renderer.paints_on == "blank":
        return ["drawn"]
    return ["picture"] if recipe.into is not None else ["drawn", "picture"]


def _check(order: Order, recipe: Recipe, parts: Parts) -> None:
    if order.ground not in _grounds(recipe, parts):
        what = "the whole-image renderer makes the ground itself" if order.ground == "picture" else (
            "this run was painted into labelled images, and has no ground of its own"
        )  # fmt: skip
        raise UserError(f"{what}; choose the other ground.")
    if order.ground == "picture" and order.picture is None:
        raise UserError("no image is open; choose one to draw on.")
    few = parts.renderer.few_steps
    if few and order.steps not in (None, few):
        raise UserError(f"this renderer was trained to draw in {few} steps; leave them so.")


def layout_of(boxes: tuple[Box, ...], parts: Parts, size: tuple[int, int], taken: Acquisition) -> Layout:
    """The drawn boxes as a layout of the run's classes, cut by the border. Raises UserError that names the box at
    fault: an unknown class, or one that lies mostly outside."""
    number = {class_key(name): i for i, name in enumerate(parts.classes)}
    for k, box in enumerate(boxes, 1):
        if class_key(box.cls) not in number:
            raise UserError(f"box {k}: there is no class {box.cls} here; there are {', '.join(parts.classes)}.")
    values = geometry.regularize(np.array([[b.cx, b.cy, b.w, b.h, b.theta] for b in boxes], np.float32).reshape(-1, 5))
    if parts.preset.kind == "hbb":
        values = geometry.hulls(values)
    inside = geometry.visible_fraction(values, size)
    for k, share in enumerate(inside, 1):
        if share < MIN_VISIBLE:
            raise UserError(f"box {k}: only {share:.0%} of it lies inside of the image; move it in, or delete it.")
    labels = np.array([number[class_key(box.cls)] for box in boxes], np.int64)
    drawn = Layout(values, labels, parts.classes, size, parts.preset.kind, acquisition=taken)
    return cut_by_border(drawn)

"""Layouts drawn by hand: rendered with a run's renderer, judged by its filter, and kept on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout, class_key
from dataengine.engine.attempt import detect, judge_labels
from dataengine.engine.parts import Parts
from dataengine.engine.recipe import Recipe
from dataengine.errors import UserError
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import Verdict
from dataengine.layouts.constraints import MIN_VISIBLE, cut_by_border
from dataengine.render.canvas import BlankCanvases, Canvas, Provenance
from dataengine.seeds import Stream, generator
from dataengine.view.gallery import class_colour
from dataengine.view.render_request import Box, RenderRequest

MAX_RESULTS = 32  # rendered images that are held, so that they can still be kept


@dataclass(frozen=True)
class Rendered:
    """image: uint8 (H, W, 3). asked: the drawn layout. labels, verdict: after the filter.

    found: whether each drawn object was found (empty without a detector). detections: of the filter's detector, None
    without one. provenance: of the canvas. origin: "side:number" of the opened image, else "". rule: what the filter
    allows, "" without one.
    """

    request: RenderRequest
    image: np.ndarray
    asked: Layout
    labels: Layout
    verdict: Verdict
    found: list[bool]
    detections: Detections | None
    provenance: Provenance
    origin: str
    rule: str = ""


@dataclass
class Job:
    """state: "waiting", "rendering", "done", "failed" (with `error`) or "replaced" by a later request. stage: what is
    being done, for people; began: when rendering began, by `time.monotonic`. usual_s: how long the last one took."""

    number: int
    request: RenderRequest
    state: str = "waiting"
    stage: str = ""
    began: float = 0.0
    usual_s: float | None = None
    error: str = ""
    result: Rendered | None = None


class Studio:
    """Parts loaded in a background thread, and requests rendered there one after the other.

    load: returns recipe and parts. open_image: (side, number) -> the image to draw on, as a canvas without new objects.
    folder: where images are kept, None while the parts load.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Recipe, Parts]],
        open_image: Callable[[tuple[str, int]], Canvas],
        out: Path,
        file: Path | None = None,
    ):
        self.open_image, self.out, self.file = open_image, out, file
        self.jobs: dict[int, Job] = {}
        self.folder = None
        self._took_s: float | None = None
        self._numbers, self._lock = count(1), threading.Lock()
        self._worker = ThreadPoolExecutor(1, "render")
        self._loading = self._worker.submit(self._load, load)

    def _load(self, load: Callable[[], tuple[Recipe, Parts]]) -> tuple[Recipe, Parts]:
        from dataengine.view.hand_drawn import HandDrawnFolder

        recipe, parts = load()
        self.folder = HandDrawnFolder(self.out, recipe, parts)
        return recipe, parts

    def parts(self) -> tuple[Recipe, Parts]:
        """Wait for recipe and parts. Raises UserError when they cannot be loaded."""
        return self._loading.result()

    def summary(self) -> dict:
        """State of the studio for the page: `state` ("loading", "ready" or "failed"), and once ready the classes with
        colours, the size of generated scenes, settings, and the kept images."""
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
            "guidance_scale": _or_default(recipe.guidance_scale, parts.renderer.guidance_scale),
            "steps": recipe.steps or parts.renderer.steps,
            "fixed_steps": bool(parts.renderer.few_steps),
            "sides": self._typical_sizes(parts),
            "filter": recipe.filter,
            "notes": parts.notes,
            "kept": self.folder.indices(),
        }

    def _typical_sizes(self, parts: Parts) -> dict[str, list[float]]:
        """Median width and height in pixels of each class in sampled layouts: the initial size of a new box."""
        layouts = [parts.sampler.sample(np.random.default_rng((7, i))) for i in range(40)]
        boxes = np.concatenate([layout.boxes for layout in layouts])
        names = np.array([name for layout in layouts for name in layout.names()])
        return {
            name: [round(float(v), 1) for v in np.median(boxes[names == name, 2:4], axis=0)]
            for name in np.unique(names)
        }

    def sample(self, seed: int) -> Layout:
        """A layout of the run's own sampler, to begin with."""
        return self.parts()[1].sampler.sample(generator(seed, Stream.LAYOUT))

    def submit(self, request: RenderRequest) -> Job:
        """Queue a request; it replaces requests that still wait. Raises UserError for an invalid request."""
        if self._loading.done():
            self._layout_and_canvas(request)
        with self._lock:
            for job in self.jobs.values():
                if job.state == "waiting":
                    job.state = "replaced"
            job = Job(next(self._numbers), request)
            self.jobs[job.number] = job
            for number in [n for n, j in self.jobs.items() if j.state not in ("waiting", "rendering")][:-MAX_RESULTS]:
                del self.jobs[number]
        self._worker.submit(self._work, job)
        return job

    def _work(self, job: Job) -> None:
        with self._lock:
            if job.state == "replaced":
                return
            job.state, job.began, job.usual_s = "rendering", time.monotonic(), self._took_s

        def at(stage: str) -> None:
            job.stage = stage

        try:
            job.result = self.render(job.request, at)
            job.state = "done"
            self._took_s = time.monotonic() - job.began
        except UserError as error:
            job.error, job.state = str(error), "failed"
        except Exception as error:  # the page would wait forever
            job.error, job.state = f"{type(error).__name__}: {error}", "failed"
            raise

    def render(self, request: RenderRequest, at: Callable[[str], None] = lambda stage: None) -> Rendered:
        """Render a request and apply the filter. at: called with each stage. Raises UserError for an invalid request.

        The image depends on the request only: all noise comes from its seed.
        """
        recipe, parts = self.parts()
        asked, canvas = self._layout_and_canvas(request)
        guidance_scale = _or_default(request.guidance_scale, recipe.guidance_scale)
        recipe = recipe.model_copy(update={"steps": request.steps or recipe.steps, "guidance_scale": guidance_scale})
        if canvas is None:
            at("making the ground")
            canvas = self._own_canvas(request, asked)
        canvas = replace(canvas, new=asked)
        at("painting")
        [painted] = parts.renderer.paint([canvas], [request.seed], parts.paint_settings(recipe))
        asked = painted.canvas.new  # boxes of real objects are fitted to these
        at("looking with the detector")
        detections = detect(parts, painted.image)
        # boxes that were not found stay; the page marks them
        labels, verdict = judge_labels(parts, recipe, painted, detections)
        scores = np.array(verdict.scores[: len(asked)])
        found = parts.calibration.found(asked, scores).tolist() if len(scores) else []
        origin = "" if request.picture is None else f"{request.picture[0]}:{request.picture[1]}"
        rule = parts.calibration.rule if parts.calibration else ""
        return Rendered(
            request, painted.image, asked, labels, verdict, found, detections, canvas.provenance, origin, rule
        )

    def _own_canvas(self, request: RenderRequest, asked: Layout) -> Canvas:
        """A canvas of the run, generated for `request.ground_boxes` if given."""
        _, parts = self.parts()
        if parts.renderer.paints_on == "blank":
            return BlankCanvases().draw([asked], [request.seed])[0]
        layout, seed = asked, request.seed
        if request.ground_boxes:
            layout = drawn_layout(request.ground_boxes, parts, asked.size, request.acquisition)
            seed = _or_default(request.ground_seed, request.seed)
        return parts.canvases.draw([layout], [seed])[0]

    def _layout_and_canvas(self, request: RenderRequest) -> tuple[Layout, Canvas | None]:
        """The layout of a request, and the opened image if the request uses it as ground."""
        recipe, parts = self.parts()
        _check_request(request, recipe, parts)
        canvas = self.open_image(request.picture) if request.ground == "picture" else None
        size = canvas.existing.size if canvas is not None else (recipe.size, recipe.size)
        return drawn_layout(request.boxes, parts, size, request.acquisition), canvas

    def keep(self, number: int) -> int:
        """Write a rendered image to the folder; returns its number there. Raises UserError where it is gone."""
        job = self.jobs.get(number)
        if job is None or job.result is None:
            raise UserError("this image is no longer available; render it again.")
        return self.folder.add(job.result)


def _or_default(value: float | None, default: float | None) -> float | None:
    """The value, which may be 0, or else the default."""
    return default if value is None else value


def _grounds(recipe: Recipe, parts: Parts) -> list[str]:
    """Valid grounds of a request. A whole-image renderer cannot paint into an image, and a run that paints into
    labelled images has no scenes."""
    if parts.renderer.paints_on == "blank":
        return ["drawn"]
    return ["picture"] if recipe.into is not None else ["drawn", "picture"]


def _check_request(request: RenderRequest, recipe: Recipe, parts: Parts) -> None:
    if request.ground not in _grounds(recipe, parts):
        what = "the whole-image renderer makes the ground itself" if request.ground == "picture" else (
            "this run paints into labelled images and has no ground of its own"
        )  # fmt: skip
        raise UserError(f"{what}; choose the other ground.")
    if request.ground == "picture" and request.picture is None:
        raise UserError("no image is open; open one to draw on.")
    few = parts.renderer.few_steps
    if few and request.steps not in (None, few):
        raise UserError(f"this renderer is trained for {few} steps; leave steps empty.")


def drawn_layout(boxes: tuple[Box, ...], parts: Parts, size: tuple[int, int], acquisition: Acquisition) -> Layout:
    """The drawn boxes as a layout of the run's classes, clipped at the border. Raises UserError with the number of a
    box that has an unknown class or lies mostly outside."""
    number = {class_key(name): i for i, name in enumerate(parts.classes)}
    for k, box in enumerate(boxes, 1):
        if class_key(box.cls) not in number:
            raise UserError(f"box {k}: there is no class {box.cls}; choose {', '.join(parts.classes)}.")
    values = geometry.regularize(np.array([[b.cx, b.cy, b.w, b.h, b.theta] for b in boxes], np.float32).reshape(-1, 5))
    if parts.preset.kind == "hbb":
        values = geometry.hulls(values)
    inside = geometry.visible_fraction(values, size)
    for k, share in enumerate(inside, 1):
        if share < MIN_VISIBLE:
            raise UserError(f"box {k}: only {share:.0%} of it lies inside the image; move or delete it.")
    labels = np.array([number[class_key(box.cls)] for box in boxes], np.int64)
    drawn = Layout(values, labels, parts.classes, size, parts.preset.kind, acquisition=acquisition)
    return cut_by_border(drawn)

"""Layouts drawn by a trained `LayoutDenoiser`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from dataengine.data.layout import ACQUISITION_FIELDS, Acquisition, Layout, acquisition_values
from dataengine.errors import UserError
from dataengine.files import check_depth
from dataengine.layouts.constraints import apart, cut_by_border
from dataengine.layouts.denoiser import LayoutDenoiser, from_numbers

STEPS = 30
SMALLEST_SIDE = 2.0  # pixels
TRIES = 8


class DiffusionSampler:
    """Draws new layouts: how many boxes and how the picture was taken as in a real one, the boxes by diffusion.

    Boxes that overlap more than real ones do are left out, later ones first.
    """

    def __init__(
        self,
        model: LayoutDenoiser,
        size: tuple[int, int],
        steps: int = STEPS,
        wanted: Callable[[Acquisition], bool] = lambda taken: True,
    ):
        """wanted: of the acquisitions of real layouts, those to draw for. Raises UserError for another size than the
        model's, and where no acquisition is wanted."""
        c = model.config
        if size != (c.size, c.size):
            raise UserError(f"this layout model draws {c.size}x{c.size} pixels, not {size[0]}x{size[1]}; "
                            f"give --size {c.size}, or train one of that size.")  # fmt: skip
        self.model, self.size, self.steps = model.eval(), size, steps
        self.classes, self.kind = tuple(c.classes), c.kind
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        every = [(count, Acquisition.model_validate_json(taken)) for count, taken in c.occasions]
        self.occasions = [(count, taken) for count, taken in every if wanted(taken)]
        if not self.occasions:
            raise UserError("the layout model has seen no picture that was taken as asked for.")

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object."""
        for _ in range(TRIES):
            layout = self._draw(rng, *self.occasions[rng.integers(len(self.occasions))])
            if len(layout):
                return layout
        raise UserError("the layout model draws no box that is in the picture; train it for longer.")

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator, count: int, taken: Acquisition) -> Layout:
        c = self.model.config
        conditions = torch.from_numpy(acquisition_values(taken, ACQUISITION_FIELDS))[None]
        present = torch.ones(1, count, dtype=torch.bool)
        x = torch.from_numpy(rng.standard_normal((1, count, self.model.out.out_features)).astype(np.float32))
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / self.steps, self.steps))
        for t in self.scheduler.timesteps:
            clean = self.model(x, t.expand(1), conditions, present)
            velocity = (x - clean) / (t / 1000)
            x = self.scheduler.step(velocity, t, x, return_dict=False)[0]
        boxes, labels = from_numbers(x[0].numpy(), tuple(c.log_size), c.size)
        good = (boxes[:, 2:4] >= SMALLEST_SIDE).all(1)
        layout = Layout(boxes, labels, self.classes, self.size, self.kind, acquisition=taken).select(good)
        if self.kind == "hbb":
            upright = np.abs(np.sin(2 * layout.boxes[:, 4])) < 1e-3
            layout = layout.select(upright)
        layout = cut_by_border(layout)
        return layout.select(apart(layout.boxes, c.max_overlap))


def load_layout_model(folder: Path) -> LayoutDenoiser:
    """The model that `dataengine train layouts` wrote. Raises UserError where there is none."""
    check_depth(Path(folder) / "config.json")
    try:
        return LayoutDenoiser.from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # what a config asks for may be wrong in every way that torch knows
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{folder}: no layout model can be loaded ({reason}); give OUT/model of dataengine train "
                        "layouts.") from None  # fmt: skip

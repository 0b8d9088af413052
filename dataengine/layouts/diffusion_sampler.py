"""Layouts sampled from a trained `LayoutDenoiser`."""

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
MIN_SIDE_PX = 2.0
MAX_TRIALS = 8  # layouts sampled until one has an object


class DiffusionSampler:
    """New layouts: the number of boxes and the acquisition are those of a real layout, the boxes come from diffusion.

    Of boxes that overlap more than real ones, the later one is removed.
    """

    def __init__(
        self,
        model: LayoutDenoiser,
        size: tuple[int, int],
        steps: int = STEPS,
        wanted: Callable[[Acquisition], bool] = lambda acquisition: True,
    ):
        """wanted: selects the acquisitions of real layouts to sample for. steps: of the diffusion. Raises UserError
        when `size` is not the model's, and when no acquisition is selected."""
        c = model.config
        if size != (c.size, c.size):
            raise UserError(f"this layout model makes layouts of {c.size}x{c.size} pixels, not {size[0]}x{size[1]}; "
                            f"give --size {c.size}, or train a model of that size.")  # fmt: skip
        self.model, self.size, self.steps = model.eval(), size, steps
        self.classes, self.kind = tuple(c.classes), c.kind
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        occasions = [(count, Acquisition.model_validate_json(text)) for count, text in c.occasions]
        self.occasions = [(count, acquisition) for count, acquisition in occasions if wanted(acquisition)]
        if not self.occasions:
            raise UserError(
                "the layout model has no layout with the requested acquisition; widen a range or leave an option out."
            )

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object. Raises UserError when none of `MAX_TRIALS` has one."""
        for _ in range(MAX_TRIALS):
            layout = self._denoise(rng, *self.occasions[rng.integers(len(self.occasions))])
            if len(layout):
                return layout
        raise UserError("the layout model places no box inside the image; train it longer.")

    @torch.no_grad()
    def _denoise(self, rng: np.random.Generator, count: int, acquisition: Acquisition) -> Layout:
        c = self.model.config
        conditions = torch.from_numpy(acquisition_values(acquisition, ACQUISITION_FIELDS))[None]
        present = torch.ones(1, count, dtype=torch.bool)
        x = torch.from_numpy(rng.standard_normal((1, count, self.model.out.out_features)).astype(np.float32))
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / self.steps, self.steps))
        for t in self.scheduler.timesteps:
            clean = self.model(x, t.expand(1), conditions, present)
            velocity = (x - clean) / (t / 1000)
            x = self.scheduler.step(velocity, t, x, return_dict=False)[0]
        boxes, labels = from_numbers(x[0].numpy(), tuple(c.log_size), c.size)
        large = (boxes[:, 2:4] >= MIN_SIDE_PX).all(1)
        layout = Layout(boxes, labels, self.classes, self.size, self.kind, acquisition=acquisition).select(large)
        if self.kind == "hbb":
            upright = np.abs(np.sin(2 * layout.boxes[:, 4])) < 1e-3
            layout = layout.select(upright)
        layout = cut_by_border(layout)
        return layout.select(apart(layout.boxes, c.max_overlap))


def load_layout_model(folder: Path) -> LayoutDenoiser:
    """The model in a folder written by `dataengine train layouts`. Raises UserError when it cannot be loaded."""
    check_depth(Path(folder) / "config.json")
    try:
        return LayoutDenoiser.from_pretrained(folder, use_safetensors=True)
    except Exception as error:  # a wrong config makes torch and diffusers raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{folder}: cannot load a layout model ({reason}); give OUT/model of dataengine train layouts."
        ) from None

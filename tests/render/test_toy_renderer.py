"""A renderer takes one file and one line in RENDERERS: this is one that paints flat rectangles, from class to run.

python tests/render/test_toy_renderer.py ARGUMENTS      # `dataengine ARGUMENTS`, with the toy renderer's line
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from dataengine import geometry
from dataengine.engine.run_folder import RunFolder
from dataengine.render import RENDERERS, RendererClass
from dataengine.render.canvas import Painted
from dataengine.render.placement import merge
from dataengine.render.renderer import DEFAULTS

COLOURS = {"car": (255, 0, 255), "van": (0, 255, 255)}


class ToyRenderer:
    label_effect, paints_on = "keeps", "scene"
    steps, guidance_scale, few_steps, margin, reference_width, batch_size = 1, 1.0, None, 0.0, 0, 16
    classes = tuple(COLOURS)

    @classmethod
    def from_pretrained(cls, folder: Path, **_) -> ToyRenderer:
        return cls()

    def to(self, device: str) -> ToyRenderer:
        return self

    def paint(self, canvases, seeds, settings=DEFAULTS) -> list[Painted]:
        return [self._paint(canvas) for canvas in canvases]

    def _paint(self, canvas) -> Painted:
        image = canvas.image.copy()
        for name, corners in zip(canvas.new.names(), geometry.to_corners(canvas.new.boxes), strict=True):
            cv2.fillPoly(image, [np.rint(corners - 0.5).astype(np.int32)], COLOURS[name])
        return Painted(image, merge(canvas.existing, canvas.new, self.margin), canvas, canvas.image)


def dataengine(*arguments, with_line: bool = True) -> subprocess.CompletedProcess:
    """The command, in a process of its own."""
    program = [sys.executable, *([__file__] if with_line else ["-m", "dataengine"])]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*program, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
    )  # fmt: skip


def test_a_new_renderer_makes_a_data_set_end_to_end(toy_dataset, tmp_path):
    model, out, n = tmp_path / "model", tmp_path / "run", 5
    model.mkdir()
    (model / "model_index.json").write_text(json.dumps({"_class_name": "ToyRenderer"}))
    command = ["synth", "--data", toy_dataset, "--renderer", "toy", "--model", model, "--filter", "off", "--n", n,
               "--size", 96, "--workers", 1, "--out", out]  # fmt: skip
    without = dataengine(*command, with_line=False)
    assert without.returncode == 2, "control: without its line nobody knows it"
    assert "'toy' is not one of 'in-scene', 'whole'" in without.stderr
    made = dataengine(*command)
    assert made.returncode == 0, made.stdout + made.stderr
    records = list(RunFolder(out).records())
    assert len(records) == n
    assert sum(len(record.asked) for record in records) > n
    for record in records:
        assert record.accepted
        image = np.asarray(Image.open(out / record.image))
        assert record.labels.names()[: len(record.asked)] == record.asked.names()
        x, y = record.asked.boxes[:, :2].astype(int).T
        np.testing.assert_array_equal(image[y, x], np.array([COLOURS[name] for name in record.asked.names()]))
        painted = (image[:, :, None] == np.array(list(COLOURS.values()))).all(3).any(2)
        assert 0 < painted.mean() < 0.5, "the scene is to be seen around them"
    assert dataengine("run", "verify", out).returncode == 0


if __name__ == "__main__":
    RENDERERS.append(RendererClass("ToyRenderer", "test_toy_renderer", "toy"))
    from dataengine.cli import main

    main()

"""A trained mmrotate detector as an ONNX model for the filter: pixels in, decoded boxes and scores out.

The model includes the steps of the test pipeline before the network (resizing, channel order, normalisation) and the
decoding of boxes, as standard operators; the reader applies non-maximum suppression by the same rule. Only one-stage
detectors can be exported: two-stage detectors select regions with operators of mmcv, and serve the filter directly.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dataengine.errors import UserError
from dataengine.judge.detector import OnnxDetector
from dataengine.mmrotate.detector import load_model
from dataengine.render import IMAGERY_FILE

if TYPE_CHECKING:
    import onnx

POINT_HEADS = ("RotatedFCOSHead", "RotatedRTMDetHead", "RotatedRTMDetSepBNHead", "H2RBoxHead", "H2RBoxV2Head")
ANCHOR_HEADS = ("RetinaHead", "RotatedRetinaHead")
SIDE_MULTIPLE = 32  # the input side of the network is a multiple of it, for the feature pyramid


def export_detector(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    image_size: int = 256,
    *,
    score_threshold: float | None = None,
    half: bool = False,
) -> float:
    """Write `out/model.onnx` and `out/config.json`, which `OnnxDetector` reads.

    image_size:      side of the square input of the model; larger images are read in windows of it.
    score_threshold: least score of a detection; None for that of the `test_cfg` of the detector.
    half:            store weights in 16 bits.

    Returns the largest difference of a box between onnxruntime and torch on noise, in pixels. Raises UserError for a
    detector that cannot be exported, before anything is written.
    """
    model = load_model(config, checkpoint)
    if "test_dataloader" not in model.cfg:
        raise UserError(
            f"{config}: it has no test_dataloader, whose pipeline prepares images; give the complete config."
        )
    decoded, test = Decoded(model, image_size), model.cfg.model.test_cfg
    settings = {
        "classes": list(model.dataset_meta["classes"]),
        "image_size": image_size,
        "score_threshold": float(test.score_thr if score_threshold is None else score_threshold),
        "nms_iou": float(test.nms.iou_threshold),
    }
    return write_onnx(decoded, settings, Path(out), half)


class Decoded(torch.nn.Module):
    """A one-stage mmrotate detector with its preprocessing and box decoding.

    `images` float32 (B, 3, S, S) RGB in [0, 255] -> boxes (B, P, 5) as cx, cy, w, h, theta in pixels of `images`, and
    scores (B, P, C) in [0, 1].
    """

    def __init__(self, model: torch.nn.Module, image_size: int):
        super().__init__()
        head = getattr(model, "bbox_head", None)
        self.kind = type(head).__name__
        if self.kind not in POINT_HEADS + ANCHOR_HEADS:
            raise UserError(
                f"{type(model).__name__} ({self.kind if head is not None else 'two stages'}) cannot be exported "
                "to ONNX with standard operators; give the filter its mmrotate work folder: --detector WORK_FOLDER."
            )
        self.model, self.image_size = model.eval(), image_size
        self.factor = _resize_factor(model, image_size)
        self.side = round(image_size * self.factor)
        if self.side % SIDE_MULTIPLE:
            raise UserError(
                f"--image-size {image_size}: the input of the network would have {self.side} pixels, which is not a "
                f"multiple of {SIDE_MULTIPLE}; choose another size."
            )
        # a test pipeline loads BGR images
        self.bgr = not model.cfg.model.data_preprocessor.get("bgr_to_rgb", False)
        self.eval()  # the exporter restores the mode of this module in all its parts

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        preprocessor = self.model.data_preprocessor
        if self.factor != 1:
            size = (self.side, self.side)
            images = torch.nn.functional.interpolate(images, size, mode="bilinear", align_corners=False).round()
        if self.bgr:
            images = images[:, [2, 1, 0]]
        features = self.model.extract_feat((images - preprocessor.mean) / preprocessor.std)
        decode = self._points if self.kind in POINT_HEADS else self._anchors
        boxes, scores = decode(self.model.bbox_head(features))
        return torch.cat([boxes[..., :4] / self.factor, boxes[..., 4:]], -1), scores

    def _points(self, outputs: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode heads that predict four distances and an angle at each point: boxes (B, P, 5), scores (B, P, C)."""
        head = self.model.bbox_head
        scores, distances, angles, *centerness = outputs
        points = head.prior_generator.grid_priors([level.shape[-2:] for level in scores], device=scores[0].device)
        boxes, probabilities = [], []
        for i in range(len(scores)):
            probability = scores[i].sigmoid()
            if centerness:
                probability = probability * centerness[0][i].sigmoid()
            flat = angles[i].flatten(2).transpose(1, 2)  # (B, P, code)
            angle = head.angle_coder.decode(flat.flatten(0, 1), keepdim=True).reshape(*flat.shape[:2], 1)
            encoded = torch.cat([distances[i].flatten(2).transpose(1, 2), angle], -1)  # (B, P, 5)
            boxes.append(head.bbox_coder.decode(points[i][None, :, :2].expand(len(flat), -1, -1), encoded))
            probabilities.append(probability.flatten(2).transpose(1, 2))
        boxes, probabilities = torch.cat(boxes, 1), torch.cat(probabilities, 1)
        if agnostic := getattr(head, "rotation_agnostic_classes", None):
            return self._by_class(boxes, probabilities, agnostic)
        return boxes, probabilities

    def _by_class(self, boxes: torch.Tensor, scores: torch.Tensor, agnostic: list[int]) -> tuple:
        """A box for each point and class: H2RBox-v2 sets the angle of round classes to 0 and shrinks some of them."""
        n = scores.shape[-1]
        sides, angles = torch.ones(n), torch.ones(n)
        angles[agnostic] = 0
        sides[self.model.bbox_head.agnostic_resize_classes or []] = 0.85
        change = torch.stack([torch.ones(n), torch.ones(n), sides, sides, angles], -1)  # (C, 5)
        of_class = boxes[:, :, None] * change  # (B, P, C, 5)
        return of_class.flatten(1, 2), (scores[..., None] * torch.eye(n)).flatten(1, 2)

    def _anchors(self, outputs: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode heads that predict a change of each anchor: boxes (B, P, 5), scores (B, P, C)."""
        head = self.model.bbox_head
        scores, changes = outputs
        anchors = head.prior_generator.grid_priors([level.shape[-2:] for level in scores], device=scores[0].device)
        boxes, probabilities = [], []
        for i in range(len(scores)):
            b, _, height, width = scores[i].shape
            change = changes[i].permute(0, 2, 3, 1).reshape(-1, 5)
            priors = getattr(anchors[i], "tensor", anchors[i]).repeat(b, 1)
            # as in mmrotate, centres are clipped to the image
            decoded = head.bbox_coder.decode(priors, change, max_shape=(self.side, self.side))
            boxes.append(getattr(decoded, "tensor", decoded).reshape(b, -1, 5))
            n = height * width * head.num_base_priors
            probabilities.append(scores[i].permute(0, 2, 3, 1).reshape(b, n, -1).sigmoid())
        return torch.cat(boxes, 1), torch.cat(probabilities, 1)


def _resize_factor(model: torch.nn.Module, image_size: int) -> float:
    """The factor by which the test pipeline resizes a square image of that side."""
    from mmdet.utils import get_test_pipeline_cfg

    factor = 1.0
    for step in get_test_pipeline_cfg(model.cfg.copy()):
        if step["type"].endswith("Resize"):
            scale = step.get("scale")
            factor *= step["scale_factor"] if scale is None else min(np.atleast_1d(scale)) / image_size
        elif not step["type"].endswith(("LoadImageFromFile", "Annotations", "BoxType", "Pad", "PackDetInputs")):
            raise UserError(f"the test pipeline has a step {step['type']}, which cannot be exported to ONNX.")
    return float(factor)


def write_onnx(decoded: Decoded, settings: dict, out: Path, half: bool) -> float:
    """Write the folder and return the largest difference of a box to torch on noise, in pixels."""
    import onnx

    size = decoded.image_size
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing; the result is compared with torch below
        raw = Path(folder) / "raw.onnx"
        torch.onnx.export(
            decoded,
            (torch.full((1, 3, size, size), 110.0),),
            str(raw),
            input_names=["images"],
            output_names=["boxes", "scores"],
            opset_version=17,
            dynamo=False,
        )
        content = halve_weights(onnx.load(raw)) if half else onnx.load(raw)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        expected = ("model.onnx", "config.json", IMAGERY_FILE)
        if out.exists() and any(entry.name not in expected for entry in out.iterdir()):
            raise UserError(f"{out} contains other files; give another --out.")
        with tempfile.TemporaryDirectory(prefix=".detector-", dir=out.parent) as folder:
            work = Path(folder)
            onnx.save(content, work / "model.onnx")
            (work / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
            difference = _difference(decoded, OnnxDetector(work, threads=1))
            out.mkdir(exist_ok=True)
            for name in ("model.onnx", "config.json"):
                os.replace(work / name, out / name)
    except OSError as error:
        raise UserError(f"{error.filename or out} could not be written ({error.strerror or error}).") from error
    return difference


def _difference(decoded: Decoded, detector: OnnxDetector) -> float:
    """The largest difference of centres, sides, and ends of the long sides; theta and theta + pi are the same box."""
    side = decoded.image_size
    images = np.random.default_rng(0).uniform(0, 255, (1, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        expected = decoded(torch.from_numpy(images))[0].numpy()
    change = detector.session.run(None, {"images": images})[0] - expected
    end = np.abs(np.sin(change[..., 4])) * expected[..., 2:4].max(-1) / 2
    return float(max(np.abs(change[..., :4]).max(), end.max()))


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large weights as fp16 and cast them to fp32 in the graph: half the file size, the same arithmetic."""
    from onnx import TensorProto, helper, numpy_helper

    casts, initializers = [], []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > 256 and np.abs(values).max() < 6e4:
            initializers.append(numpy_helper.from_array(values.astype(np.float16), weight.name + "_fp16"))
            casts.append(helper.make_node("Cast", [weight.name + "_fp16"], [weight.name], to=TensorProto.FLOAT))
        else:
            initializers.append(weight)
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model

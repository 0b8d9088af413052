"""Detectors for the filter: any ONNX model with decoded boxes and scores as outputs, or any mmrotate detector."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dataengine import geometry
from dataengine.data.records import MAX_CLASSES, ClassName
from dataengine.errors import UserError, one_line
from dataengine.files import MAX_CONFIG_BYTES, read_bytes, read_json_as, read_onnx

MIN_OUTPUT_BOXES, PIXELS_PER_BOX = 100_000, 4  # a model may give the larger of both: boxes, and one for so many pixels
MAX_CANDIDATES = 600  # highest-scored boxes that enter non-maximum suppression
WINDOW_OVERLAP_PX = 128  # of the windows of a large image, at most half of the window


@dataclass(frozen=True)
class Detections:
    """boxes float32 (N, 5) le90, scores float32 (N,) descending, labels int64 (N,) in the detector's classes."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> Detections:
        """The detections selected by a bool mask or indices."""
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])


class Detector(Protocol):
    """The interface of detectors. identity: a hash that changes whenever the detections may change."""

    classes: tuple[str, ...]
    identity: str

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image, uint8 (H, W, 3) RGB."""
        ...


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, iou_threshold: float) -> Detections:
    """Greedy non-maximum suppression by rotated IoU within each class.

    boxes (N, 5), scores (N,), labels (N,). The result is sorted by descending score.

    >>> boxes = np.float32([[10, 10, 8, 4, 0], [11, 10, 8, 4, 0], [40, 10, 8, 4, 0]])
    >>> suppress(boxes, np.float32([0.5, 0.75, 0.25]), np.array([0, 0, 0]), 0.2).scores.tolist()
    [0.75, 0.25]
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    overlap = geometry.iou(boxes, boxes) * (labels[:, None] == labels[None])
    keep = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if keep[i]:
            keep[i + 1 :] &= overlap[i, i + 1 :] <= iou_threshold
    return Detections(boxes[keep], scores[keep], labels[keep])


class DetectorConfig(BaseModel):
    """`config.json` in the folder of `model.onnx`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classes: tuple[ClassName, ...] = Field(min_length=1, max_length=MAX_CLASSES)
    image_size: int = Field(gt=0, le=8192, description="side of the model's square input in pixels")
    score_threshold: float = Field(0.05, ge=0, le=1)
    nms_iou: float = Field(0.2, ge=0, le=1)


def read_config(folder: Path) -> DetectorConfig:
    """The config of a detector's folder. Raises UserError for missing or invalid files."""
    for name in ("config.json", "model.onnx"):
        if not (folder / name).exists():
            raise UserError(
                f"{folder}: no {name} in this folder; a detector folder has config.json and model.onnx, or is the "
                "work folder of an mmrotate training, with last_checkpoint."
            )
    file = folder / "config.json"
    return read_json_as(file, DetectorConfig.model_validate, DetectorConfig.model_fields, max_bytes=MAX_CONFIG_BYTES)


class OnnxDetector:
    """`model.onnx`: `images` float32 (1, 3, S, S) in [0, 255] RGB -> `boxes` (1, P, 5), `scores` (1, P, C) in [0, 1].

    Images are processed one at a time, so that a result does not depend on the batch. Images larger than S are split
    into overlapping windows, smaller ones are padded with their mean colour. Each window yields only the detections
    centred in its own part, since the neighbouring window sees more of an object near the border.
    """

    def __init__(self, folder: str | Path, threads: int = 0):
        """folder: with model.onnx and config.json. threads: of onnxruntime, 0 for all cores. Raises UserError for
        missing or invalid files."""
        import onnxruntime

        folder = Path(folder)
        self.config = read_config(folder)
        self.file = folder / "model.onnx"
        data = read_onnx(self.file)
        self.identity = _hash(data, folder / "config.json")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many types for a bad file
            raise UserError(f"{self.file}: onnxruntime cannot load it ({one_line(error)}).") from None
        self.classes = self.config.classes
        outputs = [output.name for output in self.session.get_outputs()]
        if [i.name for i in self.session.get_inputs()] != ["images"] or outputs != ["boxes", "scores"]:
            raise UserError(
                f"{folder / 'model.onnx'}: its input must be 'images' and its outputs 'boxes' and 'scores'."
            )

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image, uint8 (H, W, 3) of any size."""
        return [self._detect(image) for image in images]

    def _run(self, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (P, 5) and scores (P, C) of a window (1, 3, S, S). Raises UserError for outputs of other shapes."""
        try:
            boxes, scores = self.session.run(None, {"images": window})
            n, form = np.shape(boxes)[1], (np.shape(boxes), np.shape(scores))
        except Exception as error:  # onnxruntime raises many types for an inconsistent model
            raise UserError(f"{self.file}: onnxruntime cannot run it ({one_line(error)}).") from None
        limit = max(MIN_OUTPUT_BOXES, self.config.image_size**2 // PIXELS_PER_BOX)
        if n > limit:
            raise UserError(f"{self.file}: outputs {n:,} boxes, more than {limit:,}; suppress some in the model.")
        if form != ((1, n, 5), (1, n, len(self.classes))):
            raise UserError(
                f"{self.file}: outputs boxes {form[0]} and scores {form[1]}, not (1, P, 5) and (1, P, "
                f"{len(self.classes)}), since config.json has {len(self.classes)} classes."
            )
        return boxes[0], scores[0]

    def _detect(self, image: np.ndarray) -> Detections:
        size = self.config.image_size
        height, width = image.shape[:2]
        boxes, scores, labels = [], [], []
        for top, upper, lower in window_spans(height, size):
            for left, first, last in window_spans(width, size):
                part = image[top : top + size, left : left + size]
                window = np.empty((size, size, 3), np.float32)
                window[:] = part.mean((0, 1))
                window[: part.shape[0], : part.shape[1]] = part
                found, score = self._run(window.transpose(2, 0, 1)[None].copy())
                i, label = np.nonzero(score >= self.config.score_threshold)
                shifted = found[i] + np.float32([left, top, 0, 0, 0])
                x, y = shifted[:, 0], shifted[:, 1]
                own = (first <= x) & (x < last) & (upper <= y) & (y < lower)
                own &= np.isfinite(shifted).all(1) & (shifted[:, 2:4] > 0).all(1)
                boxes.append(shifted[own]), scores.append(score[i, label][own]), labels.append(label[own])
        regular = geometry.regularize(np.concatenate(boxes))
        return suppress(regular, np.concatenate(scores), np.concatenate(labels), self.config.nms_iou)


def window_spans(length: int, size: int) -> list[tuple[int, float, float]]:
    """Windows of `size` along one side of an image of `length`: [(start, first, last)].

    Each window yields the detections centred in its span [first, last). The spans cover `length` once; each is half the
    overlap inside its window, except at the ends.

    >>> window_spans(100, 256)
    [(0, 0.0, 100.0)]
    >>> window_spans(384, 256)
    [(0, 0.0, 192.0), (128, 192.0, 384.0)]
    """
    if length <= size:
        return [(0, 0.0, float(length))]
    overlap = min(WINDOW_OVERLAP_PX, size // 2)
    n = -(-(length - overlap) // (size - overlap))
    starts = [round(i * (length - size) / (n - 1)) for i in range(n)]
    between = [(after + before + size) / 2 for before, after in pairwise(starts)]
    return list(zip(starts, [0.0, *between], [*between, float(length)], strict=True))


def _hash(weights: bytes, config: Path) -> str:
    return hashlib.sha256(weights + read_bytes(config, MAX_CONFIG_BYTES)).hexdigest()[:16]


def identity_of(folder: str | Path) -> str:
    """The `identity` that the detector in a folder has once it is loaded, from the bytes of its files alone.

    Nothing is loaded, so the folder may be a stranger's. Raises UserError or OSError where a file is missing.
    """
    folder = Path(folder)
    if (folder / "last_checkpoint").is_file():
        from dataengine.mmrotate.detector import files_identity, work_dir_parts

        return files_identity(*work_dir_parts(folder))
    for name in ("model.onnx", "config.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: has no file {name}.")
    return _hash(read_onnx(folder / "model.onnx"), folder / "config.json")


def load_detector(folder: str | Path, threads: int = 0) -> Detector:
    """The detector in a folder: an ONNX model with its config.json, or the work folder of an mmrotate training.

    threads: on the CPU, 0 for all cores. Packaged detectors run in this process, all others in a child process with
    limits (`judge/child.py`). Raises UserError when the folder holds neither, or invalid files.
    """
    from dataengine import weights
    from dataengine.judge.child import ChildDetector

    if Path(folder).resolve().is_relative_to(Path(weights.__file__).resolve().parent):
        return OnnxDetector(folder, threads)
    if (Path(folder) / "last_checkpoint").exists():
        from dataengine.mmrotate.detector import work_dir_parts

        work_dir_parts(folder)  # what is missing is said at once
    else:
        read_config(Path(folder))
    return ChildDetector(folder, threads)

"""A detector trained with mmrotate, as a detector of the filter."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine import geometry
from dataengine.errors import UserError, one_line
from dataengine.files import MAX_CONFIG_BYTES, read_text
from dataengine.judge.detector import Detections
from dataengine.mmrotate.registered import checked_part, import_own_modules, registered_names
from dataengine.mmrotate.safe_config import read_config

if TYPE_CHECKING:
    import torch

INSTALL_HINT = "dataengine train detector and tools/install_mmrotate.sh install it (docs/mmrotate.md)"


class MmrotateDetector:
    """A detector from a config and a checkpoint of mmrotate, which runs the test pipeline of the config.

    Images are processed one at a time. Configs and checkpoints are read without executing code from them (contract 11).
    """

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None, threads: int = 0):
        """device: None for CUDA if available, else the CPU. threads: on the CPU, 0 for all cores. Raises UserError when
        mmrotate or a file is missing, or config and checkpoint do not match."""
        self.model = load_model(config, checkpoint)
        if "test_dataloader" not in self.model.cfg:
            raise UserError(
                f"{config}: it has no test_dataloader, whose pipeline prepares images; give the complete config."
            )
        import torch
        from mmdet.utils import get_test_pipeline_cfg
        from mmengine.dataset import Compose

        if threads:
            torch.set_num_threads(threads)
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classes = tuple(self.model.dataset_meta["classes"])
        self.identity = files_identity(config, checkpoint)
        steps = [{"type": "mmdet.LoadImageFromNDArray"}, *get_test_pipeline_cfg(self.model.cfg.copy())[1:]]
        # without the steps that load labels
        steps = [s for s in steps if "Annotations" not in s["type"] and "Convert" not in s["type"]]
        self.pipeline = Compose(checked_part(config, "test_dataloader.dataset.pipeline", steps, registered_names()))

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image, uint8 (H, W, 3) RGB."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        import torch

        data = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0})
        batch = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
        with torch.no_grad():
            predicted = self.model.test_step(batch)[0].pred_instances.cpu()
        boxes = np.asarray(getattr(predicted.bboxes, "tensor", predicted.bboxes), np.float32).reshape(-1, 5)
        valid = np.isfinite(boxes).all(1) & (boxes[:, 2:4] > 0).all(1)
        scores, labels = predicted.scores.numpy()[valid], predicted.labels.numpy().astype(np.int64)[valid]
        order = np.argsort(-scores, kind="stable")
        return Detections(geometry.regularize(boxes[valid][order]), scores[order], labels[order])


def work_dir_parts(folder: str | Path) -> tuple[Path, Path]:
    """(config, checkpoint) of the work folder of a training with mmengine. Raises UserError when one is missing."""
    folder = Path(folder)
    pointer = folder / "last_checkpoint"
    if not pointer.exists():
        raise UserError(f"{folder}: it has no last_checkpoint; give the work folder of a finished mmrotate training.")
    checkpoint = folder / Path(read_text(pointer, MAX_CONFIG_BYTES).strip()).name  # the folder may have been moved
    configs = sorted(folder.glob("*.py"))
    if not checkpoint.is_file() or len(configs) != 1 or not configs[0].is_file():
        missing = f"no {checkpoint.name}" if not checkpoint.is_file() else f"{len(configs)} configs (*.py), not one"
        raise UserError(f"{folder}: it has {missing}; give the work folder of a finished mmrotate training.")
    return configs[0], checkpoint


def files_identity(config: str | Path, checkpoint: str | Path) -> str:
    """Hash of both files, 16 hexadecimal digits."""
    return hashlib.sha256(Path(config).read_bytes() + Path(checkpoint).read_bytes()).hexdigest()[:16]


def load_model(config: str | Path, checkpoint: str | Path) -> torch.nn.Module:
    """The trained detector, in eval mode on the CPU, with the attributes `cfg` and `dataset_meta`.

    checkpoint: .pth of mmengine, or .safetensors if the config lists the classes. Raises UserError when mmrotate or a
    file is missing, config or checkpoint cannot be read safely, or the two do not match.
    """
    for path in (config, checkpoint):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file.")
    values = read_config(config)
    try:
        with redirect_stdout(sys.stderr):  # the import of mmrotate prints, and stdout is for results
            from mmdet.registry import MODELS
            from mmengine.config import Config
            from mmengine.model import revert_sync_batchnorm
            from mmrotate.utils import register_all_modules

            import dataengine.mmrotate.cpu_layers  # noqa: F401

            register_all_modules()
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); {INSTALL_HINT}") from None
    if not isinstance(values.get("model"), dict):
        raise UserError(f"{config}: it has no `model`; give the config that the detector was trained with.")
    import_own_modules(config, values)
    values["model"] = checked_part(config, "model", values["model"], registered_names())
    _use_cpu_layers(values["model"])
    try:
        settings = Config(values, filename=str(config))
        model = revert_sync_batchnorm(MODELS.build(settings.model))
    except Exception as error:  # mmengine and the layers raise many types for wrong values
        raise UserError(f"{config}: mmengine cannot build it ({type(error).__name__}: {one_line(error)}).") from None
    model = model.train()  # e2cnn stores the weights of the training mode
    weights, meta = _read_checkpoint(Path(checkpoint))
    expected = model.state_dict()
    wrong = [name for name in expected.keys() | weights.keys() if _shape(expected, name) != _shape(weights, name)]
    if wrong:
        raise UserError(
            f"{checkpoint} does not match {config}: {len(wrong)} weights are missing, unknown or of another shape, "
            f"such as {min(wrong)}."
        )
    model.load_state_dict(weights)
    classes = meta.get("classes") or settings.get("classes")
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes) or not classes:
        raise UserError(f"{checkpoint} has no class names, and {config} no `classes`; add them to the config.")
    model.dataset_meta = {"classes": tuple(classes)}
    model.cfg = settings
    return model.eval()


def _shape(weights: dict, name: str) -> tuple | None:
    return tuple(weights[name].shape) if name in weights else None


def _use_cpu_layers(part: object) -> None:
    """Replace layers that mmcv has for CUDA only by those of this package."""
    if isinstance(part, dict):
        layer = part.get("roi_layer")
        invariant = isinstance(layer, dict) and layer.get("type") == "RiRoIAlignRotated"
        if invariant and part.get("type") == "RotatedSingleRoIExtractor":
            part["type"] = "RotationInvariantRoIExtractor"
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ():
        _use_cpu_layers(item)


def _read_checkpoint(path: Path) -> tuple[dict, dict]:
    """(weights, metadata of the data set). If mmengine averaged weights, it stores the averages as the weights."""
    import torch
    from mmengine.logging import HistoryBuffer

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path), {}
    core = np._core.multiarray
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint32", "bool")]
    harmless = [HistoryBuffer, np.ndarray, np.dtype, core._reconstruct, core.scalar, *dtypes]
    harmless.append((_statistic, "builtins.getattr"))
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)|Unsupported (class|operand) \S+", str(error))
        raise UserError(
            f"{path}: contains more than weights ({match[0] if match else error}), which could run any program and is "
            "not loaded; save only weights: {'state_dict': ..., 'meta': {'dataset_meta': {'classes': ...}}}."
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: torch cannot read it ({error}).") from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path}: it has no `state_dict`; give a checkpoint written by mmengine.")
    meta = content.get("meta", {}).get("dataset_meta", {})
    return content["state_dict"], {key.lower(): value for key, value in meta.items()}


def _statistic(owner: object, name: str) -> object:
    """Replaces `getattr` in a checkpoint: mmengine stores the means of its log with it, anything else is refused."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"GLOBAL getattr of {name}")
    return getattr(owner, name)

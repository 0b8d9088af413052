"""Any detector that mmrotate has trained looks at images for the filter."""

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
from dataengine.errors import UserError
from dataengine.files import read_text
from dataengine.judge.detector import Detections
from dataengine.mmrotate.safe_config import import_custom_modules, refuse_code

if TYPE_CHECKING:
    import torch

INSTALL = "install it with tools/install_mmrotate.sh (docs/mmrotate.md)"


class MmrotateDetector:
    """Config and checkpoint of mmrotate. Images go through one at a time, by the config's own test pipeline.

    Checkpoints and configs are read without running anything that they hold (contract 11).
    """

    def __init__(self, config: str | Path, checkpoint: str | Path, device: str | None = None, threads: int = 0):
        """device: None is CUDA where it is there. threads: on the CPU, 0 for all cores. Raises UserError when mmrotate
        or a file is missing, or the two do not belong together."""
        self.model = load_model(config, checkpoint)
        if "test_dataloader" not in self.model.cfg:
            raise UserError(
                f"{config}: no test_dataloader in it, whose pipeline prepares images; give the whole config."
            )
        import torch
        from mmdet.utils import get_test_pipeline_cfg
        from mmengine.dataset import Compose

        if threads:
            torch.set_num_threads(threads)
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.classes = tuple(self.model.dataset_meta["classes"])
        self.identity = hashlib.sha256(Path(config).read_bytes() + Path(checkpoint).read_bytes()).hexdigest()[:16]
        steps = get_test_pipeline_cfg(self.model.cfg.copy())
        steps[0] = {"type": "mmdet.LoadImageFromNDArray"}
        # labels are not there, and not needed
        self.pipeline = Compose([s for s in steps if "Annotations" not in s["type"] and "Convert" not in s["type"]])

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image, uint8 (H, W, 3) RGB."""
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        import torch

        data = self.pipeline({"img": np.ascontiguousarray(image[..., ::-1]), "img_id": 0})
        batch = {"inputs": [data["inputs"]], "data_samples": [data["data_samples"]]}
        with torch.no_grad():
            found = self.model.test_step(batch)[0].pred_instances.cpu()
        boxes = np.asarray(getattr(found.bboxes, "tensor", found.bboxes), np.float32).reshape(-1, 5)
        sound = np.isfinite(boxes).all(1) & (boxes[:, 2:4] > 0).all(1)
        scores, labels = found.scores.numpy()[sound], found.labels.numpy().astype(np.int64)[sound]
        order = np.argsort(-scores, kind="stable")
        return Detections(geometry.regularize(boxes[sound][order]), scores[order], labels[order])


def work_dir_parts(folder: str | Path) -> tuple[Path, Path]:
    """(config, checkpoint) in a folder that mmengine trained in. Raises UserError that says what is missing."""
    folder = Path(folder)
    named = folder / "last_checkpoint"
    if not named.exists():
        raise UserError(f"{folder}: no last_checkpoint here; give the work folder of a finished mmrotate training.")
    checkpoint = folder / Path(read_text(named).strip()).name  # the folder may have been moved
    configs = sorted(folder.glob("*.py"))
    if not checkpoint.exists() or len(configs) != 1:
        missing = f"no {checkpoint.name}" if not checkpoint.exists() else f"{len(configs)} configs (*.py), not one"
        raise UserError(f"{folder}: {missing} here; give the work folder of a finished mmrotate training.")
    return configs[0], checkpoint


def load_model(config: str | Path, checkpoint: str | Path) -> torch.nn.Module:
    """The trained detector, in eval mode on the CPU, with `cfg` and `dataset_meta`.

    checkpoint: .pth of mmengine, or .safetensors, whose classes then stand in the config. Raises UserError.
    """
    for path in (config, checkpoint):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file.")
    refuse_code(config)
    try:
        with redirect_stdout(sys.stderr):  # mmrotate prints when it is imported, and a result may go to stdout
            from mmdet.registry import MODELS
            from mmengine.config import Config
            from mmengine.model import revert_sync_batchnorm
            from mmrotate.utils import register_all_modules

            import dataengine.mmrotate.cpu_layers  # noqa: F401

            register_all_modules()
    except ImportError as error:
        raise UserError(f"mmrotate is not installed ({error}); {INSTALL}") from None
    try:
        settings = Config.fromfile(str(config), import_custom_modules=False)
        import_custom_modules(settings)
    except Exception as error:  # of values that do not fit, mmengine raises many types
        raise UserError(f"{config}: mmengine cannot read it ({type(error).__name__}: {error}).") from None
    if "model" not in settings:
        raise UserError(f"{config}: no `model` in it; give the config that the detector was trained with.")
    _made_fit(settings.model)
    model = revert_sync_batchnorm(MODELS.build(settings.model)).train()  # the mode whose weights e2cnn stores
    weights, meta = _read_checkpoint(Path(checkpoint))
    own = model.state_dict()
    wrong = [name for name in own.keys() | weights.keys() if _shape(own, name) != _shape(weights, name)]
    if wrong:
        raise UserError(
            f"{checkpoint} does not belong to {config}: {len(wrong)} weights are missing, unknown or of another shape, "
            f"such as {min(wrong)}."
        )
    model.load_state_dict(weights)
    classes = meta.get("classes") or settings.get("classes")
    if not classes:
        raise UserError(f"{checkpoint}: no class names in it, nor `classes` in {config}; add them to the config.")
    model.dataset_meta = {"classes": tuple(classes)}
    model.cfg = settings
    return model.eval()


def _shape(weights: dict, name: str) -> tuple | None:
    return tuple(weights[name].shape) if name in weights else None


def _made_fit(part: dict) -> None:
    """No pretrained weights are fetched, since the checkpoint replaces them all, and every layer has a CPU form."""
    part.pop("init_cfg", None)
    if part.get("type") == "RotatedSingleRoIExtractor" and part["roi_layer"]["type"] == "RiRoIAlignRotated":
        part["type"] = "RotationInvariantRoIExtractor"
    for value in part.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, dict):
                _made_fit(item)


def _read_checkpoint(path: Path) -> tuple[dict, dict]:
    """(weights, what is told of the data set). mmengine stores averaged weights, where it made such, in their place."""
    import torch
    from mmengine.logging import HistoryBuffer

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path), {}
    core = np._core.multiarray
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "uint32", "bool")]
    harmless = [HistoryBuffer, np.ndarray, np.dtype, core._reconstruct, core.scalar, *kinds]
    harmless.append((_statistic, "builtins.getattr"))
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)|Unsupported (class|operand) \S+", str(error))
        raise UserError(
            f"{path}: holds more than weights ({found[0] if found else error}), which is not loaded, since it could "
            "run any program; save the weights alone: {'state_dict': ..., 'meta': {'dataset_meta': {'classes': ...}}}."
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: torch cannot read it ({error}).") from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path}: no `state_dict` in it; give a checkpoint that mmengine wrote.")
    meta = content.get("meta", {}).get("dataset_meta", {})
    return content["state_dict"], {key.lower(): value for key, value in meta.items()}


def _statistic(owner: object, name: str) -> object:
    """What stands for `getattr` in a checkpoint: mmengine stores the means of its log by it, and nothing else may."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "mean", "current"):
        raise pickle.UnpicklingError(f"GLOBAL getattr of {name}")
    return getattr(owner, name)

"""Reference images: their embeddings, which a whole-image model attends to as tokens, and a sampler of new ones.

After Graikos et al. (2024), who condition on a self-supervised embedding of the image, and ZoomLDM (2025), which takes
a grid of them. A token describes the appearance of a place, not the positions of its objects. Label effect: keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dataengine.errors import UserError, install, one_line
from dataengine.files import read_onnx

Encoder = Callable[[Sequence[np.ndarray]], np.ndarray]
KEPT_VARIANCE = 0.99  # share of the embeddings' variance in the principal components that are sampled


def load_encoder(source: str | Path, grid: int = 1, image_size: int = 224) -> Encoder:
    """A function from images uint8 (H, W, 3) to embeddings float32 (B, grid * grid, E).

    source: an `.onnx` file that maps images float32 (1, 3, S, S) in [0, 255] to a feature map (1, E, h, w); the folder
    of a transformers vision model; or "timm:NAME" with pretrained weights. Feature maps are averaged over grid x grid
    parts. Raises UserError for an unknown source or a library that is not installed.
    """
    text = str(source)
    if text.endswith(".onnx"):
        return _onnx_encoder(Path(source), grid)
    if text.startswith("timm:"):
        return _timm_encoder(text.removeprefix("timm:"), grid, image_size)
    if (Path(source) / "config.json").exists():
        return _transformers_encoder(Path(source), grid)
    raise UserError(f"{source}: is no encoder; give an .onnx file, the folder of a transformers model, or timm:NAME.")


def _pooled(maps: np.ndarray, grid: int) -> np.ndarray:
    """Means of feature maps (B, E, h, w) over the cells of a grid, row by row, (B, grid * grid, E)."""
    import torch
    from torch.nn import functional as F

    means = F.adaptive_avg_pool2d(torch.from_numpy(maps).float(), grid)
    return means.flatten(2).transpose(1, 2).numpy()


def _squares(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Images resized to size x size, float32 (B, 3, size, size) in [0, 255]."""
    import cv2

    resized = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack(resized).astype(np.float32).transpose(0, 3, 1, 2)


def _onnx_encoder(file: Path, grid: int) -> Encoder:
    import onnxruntime

    if not file.exists():
        raise UserError(f"{file}: does not exist; check the spelling.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        providers = onnxruntime.get_available_providers()
        session = onnxruntime.InferenceSession(read_onnx(file), options, providers=providers)
    except UserError:
        raise
    except Exception as error:  # onnxruntime raises many types for a bad file
        raise UserError(f"{file}: onnxruntime cannot load it ({one_line(error)}).") from None
    first, shapes = next(iter(session.get_inputs()), None), [output.shape for output in session.get_outputs()]
    size = first.shape[2] if first is not None and len(first.shape) == 4 else None
    if not isinstance(size, int) or not shapes or len(shapes[0]) != 4:
        raise UserError(f"{file}: must have one input (1, 3, S, S) and one output, a feature map (1, E, h, w).")

    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        maps = [session.run(None, {first.name: square[None]})[0] for square in _squares(images, size)]
        return _pooled(np.concatenate(maps), grid)

    return encode


def _timm_encoder(name: str, grid: int, size: int) -> Encoder:
    try:
        import timm
    except ImportError:
        raise UserError(f"timm encoders need: {install('reference')}.") from None
    import torch

    model = timm.create_model(name, pretrained=True, features_only=True).eval()
    data = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(data[k])[:, None, None] * 255 for k in ("mean", "std"))

    @torch.no_grad()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        pixels = (torch.from_numpy(_squares(images, size)) - mean) / std
        return _pooled(model(pixels)[-1].numpy(), grid)

    return encode


def _transformers_encoder(folder: Path, grid: int) -> Encoder:
    try:
        from transformers import AutoModel
    except ImportError:
        raise UserError(f"transformers encoders need: {install('text')}.") from None
    import torch

    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded as an encoder ({str(error).strip().splitlines()[0]}).") from None
    model = model.eval()
    model = getattr(model, "vision_model", model)
    size, patch = model.config.image_size, model.config.patch_size
    mean, std = torch.tensor([0.485, 0.456, 0.406]) * 255, torch.tensor([0.229, 0.224, 0.225]) * 255

    @torch.no_grad()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        pixels = (torch.from_numpy(_squares(images, size)) - mean[:, None, None]) / std[:, None, None]
        states = model(pixel_values=pixels).last_hidden_state  # (B, T, E): class or register tokens, then the patches
        side = size // patch
        maps = states[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
        return _pooled(maps.numpy(), grid)

    return encode


class ReferenceSampler:
    """Samples embeddings like those of a set of real images, from a Gaussian kernel density over their principal
    components. (Graikos et al. train a small diffusion model; a density needs no training.)"""

    def __init__(self, embeddings: np.ndarray):
        """embeddings float32 (M, R, E) of real images. Raises UserError for fewer than 3."""
        if len(embeddings) < 3:
            raise UserError(f"{len(embeddings)} reference images: at least 3 are needed.")
        self.shape = embeddings.shape[1:]
        flat = embeddings.reshape(len(embeddings), -1).astype(np.float64)
        self.mean = flat.mean(0)
        _, sizes, axes = np.linalg.svd(flat - self.mean, full_matrices=False)
        share = np.cumsum(sizes**2) / max((sizes**2).sum(), 1e-12)
        n = min(int(np.searchsorted(share, KEPT_VARIANCE)) + 1, len(sizes))
        self.axes, self.scales = axes[:n], np.maximum(sizes[:n] / np.sqrt(len(flat)), 1e-9)
        self.points = (flat - self.mean) @ self.axes.T / self.scales  # (M, n), unit variance
        self.bandwidth = len(flat) ** (-1 / (n + 4))  # Scott's rule

    @property
    def identity(self) -> str:
        """Hash of the real images' embeddings."""
        return hashlib.sha256((self.points * self.scales @ self.axes + self.mean).round(4).tobytes()).hexdigest()[:16]

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Sample embeddings float32 (len(seeds), R, E); embedding i depends on seeds[i] alone."""
        samples = []
        for seed in seeds:
            rng = np.random.default_rng((seed, 0x4EF))
            point = self.points[rng.integers(len(self.points))]
            h = self.bandwidth  # shrunk towards the mean, to keep the variance of the real embeddings
            samples.append((point + h * rng.standard_normal(len(point))) / np.sqrt(1 + h**2))
        flat = np.stack(samples) * self.scales @ self.axes + self.mean
        return flat.reshape(-1, *self.shape).astype(np.float32)

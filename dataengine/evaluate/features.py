"""Feature networks: they embed images, and metrics compare sets of embeddings.

Distances depend on the feature network, so its name is stored with every result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dataengine.errors import UserError, install

BATCH_SIZE = 16
ENCODER_GRID = 4  # parts per side of `encoder-grid`
SOURCES = "lite2, lite0, encoder, encoder-grid, clip:FOLDER, dinov2:FOLDER or inception:FILE"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2_SIDE = 224  # as in Stein et al. (2023); the position embeddings are trained for 518


@dataclass(frozen=True)
class Features:
    """name: display name with the embedding dimension and the input size.
    kind: "imagenet", "encoder", "clip", "dinov2" or "inception".
    encode: images uint8 (H, W, 3) -> embeddings float32 (B, E)."""

    name: str
    kind: str
    encode: Callable[[Sequence[np.ndarray]], np.ndarray]

    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Embeddings float64 (N, E) of images uint8 (H, W, 3), one batch in memory at a time."""
        parts = [self.encode(batch) for batch in _batches(images)]
        return np.concatenate(parts).astype(np.float64)


def load_features(source: str) -> Features:
    """Load features by name: `lite2` and `lite0` (EfficientNet-Lite, ImageNet), `encoder` (packaged, trained on aerial
    images), `encoder-grid` (the same on each of 4 x 4 parts, so that position counts), `clip:FOLDER` and
    `dinov2:FOLDER` (transformers models), `inception:FILE` (weights of FID).

    Raises UserError for an unknown name, a missing package, and a folder or file without such a model.
    """
    kind, _, place = source.partition(":")
    loaders = {"clip": _clip, "dinov2": _dinov2, "inception": _inception}
    if kind in loaders and place:
        if not Path(place).exists():
            raise UserError(f"--features {source}: {place} does not exist; check the spelling.")
        return loaders[kind](Path(place))
    if source in ("lite0", "lite2"):
        return _imagenet(source)
    if source in ("encoder", "encoder-grid"):
        return _encoder(ENCODER_GRID if source == "encoder-grid" else 1)
    raise UserError(f"--features {source}: unknown features; choose {SOURCES}.")


def _batches(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    images = iter(images)
    while batch := list(islice(images, BATCH_SIZE)):
        yield batch


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _squares(images: Sequence[np.ndarray], side: int) -> torch.Tensor:
    """float32 (B, 3, side, side) in [0, 255]; downscaling is antialiased (Parmar et al. 2022: FID depends on it)."""
    import cv2

    resized = [
        cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA if side < min(x.shape[:2]) else cv2.INTER_CUBIC)
        for x in images
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().to(_device())


def imagenet_encoder(size: str, side: int | None = None) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Encoder by EfficientNet-Lite of images scaled to side x side, by default its training size."""
    from dataengine.imagenet import ImageNetEmbedding

    network = ImageNetEmbedding(size).to(_device())

    @torch.inference_mode()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        return network(_squares(images, side or network.side)).float().cpu().numpy()

    return encode


def _imagenet(size: str) -> Features:
    encode = imagenet_encoder(size)
    return Features(f"EfficientNet-{size.title()}, ImageNet, 1280 numbers", "imagenet", encode)


def _encoder(grid: int) -> Features:
    from dataengine import weights
    from dataengine.render.reference import load_encoder

    encode = load_encoder(weights.packaged("encoder") / "model.onnx", grid)
    parts = f", {grid} x {grid} parts" if grid > 1 else ""
    name = f"packaged aerial encoder{parts}, {96 * grid**2} numbers"
    return Features(name, "encoder", lambda images: encode(images).reshape(len(images), -1))


def _from_folder(model_class: str, folder: Path):
    try:
        import transformers
    except ImportError:
        raise UserError(f"features of CLIP and DINOv2 need: {install('text')}.") from None
    try:
        loaded, report = getattr(transformers, model_class).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f"{folder}: no {model_class} found; the folder needs config.json and model.safetensors ({why})."
        ) from None
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"{folder}: not a {model_class}: {missing[0]} and {len(missing) - 1} other weights are missing."
        )
    return loaded.to(_device()).eval()


def _normalized(images: Sequence[np.ndarray], side: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    shift, scale = (torch.tensor(x, device=_device())[:, None, None] for x in (mean, std))
    return (_squares(images, side) / 255 - shift) / scale


def _clip(folder: Path) -> Features:
    """Projected image embeddings, as CMMD uses them (Jayasumana et al. 2024: ViT-L/14 at 336 pixels)."""
    model = _from_folder("CLIPVisionModelWithProjection", folder)
    side, width = model.config.image_size, model.config.projection_dim

    @torch.inference_mode()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        return model(_normalized(images, side, CLIP_MEAN, CLIP_STD)).image_embeds.float().cpu().numpy()

    return Features(f"CLIP {folder.resolve().name}, {width} numbers, {side} px", "clip", encode)


def _dinov2(folder: Path) -> Features:
    """Class tokens after the last norm (Stein et al. 2023)."""
    model = _from_folder("Dinov2Model", folder)
    side = min(DINOV2_SIDE, model.config.image_size)

    @torch.inference_mode()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        states = model(_normalized(images, side, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
        return states[:, 0].float().cpu().numpy()

    name = f"DINOv2 {folder.resolve().name}, {model.config.hidden_size} numbers, {side} px"
    return Features(name, "dinov2", encode)


def _inception(file: Path) -> Features:
    """The Inception network of FID (Heusel et al. 2017), 2048 dimensions, from the weights file of torch-fidelity that
    torchmetrics also uses. It resizes images to 299 pixels internally, as TensorFlow does."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError(f"Inception's features need: {install('inception')}.") from None
    try:
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file)
        ).to(_device())
    except Exception as error:  # pickle, zip and state dicts raise many types for a wrong file
        why = str(error).splitlines()[0]
        raise UserError(f"{file}: no weights of torch-fidelity's Inception for FID ({why}).") from None

    @torch.inference_mode()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        embeddings = [network(torch.from_numpy(x).permute(2, 0, 1)[None].to(_device()))[0] for x in images]
        return torch.cat(embeddings).float().cpu().numpy()

    return Features("Inception-v3 of FID, 2048 numbers", "inception", encode)

"""Networks that turn a picture into numbers, in which distances between sets of pictures are measured.

A distance means nothing without the name of its features, so that name travels with every result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dataengine.errors import UserError, install

BATCH = 16
GRID = 4
SOURCES = "lite2, lite0, encoder, encoder-grid, clip:FOLDER, dinov2:FOLDER or inception:FILE"
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2_SIDE = 224  # as Stein et al. (2023) use it; its position embeddings are made for 518


@dataclass(frozen=True)
class Features:
    """name: for people, with the number of values and the side that pictures are scaled to.

    kind: "imagenet", "encoder", "clip", "dinov2" or "inception".
    encode: images uint8 (H, W, 3) -> float32 (B, E).
    """

    name: str
    kind: str
    encode: Callable[[Sequence[np.ndarray]], np.ndarray]

    def embed(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """float64 (N, E) of any number of images, of which only a batch is in memory at a time."""
        parts = [self.encode(batch) for batch in _batches(images)]
        return np.concatenate(parts).astype(np.float64)


def load_features(source: str) -> Features:
    """The features of a name: `lite2` and `lite0` (EfficientNet-Lite, ImageNet), `encoder` (the packaged one, trained
    on aerial pictures), `encoder-grid` (the same of 4 x 4 parts, which say what lies where), `clip:FOLDER` and
    `dinov2:FOLDER` (transformers models), `inception:FILE` (weights of FID).

    Raises UserError for an unknown name, a missing package, and a folder or file that holds no such model.
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
        return _encoder(GRID if source == "encoder-grid" else 1)
    raise UserError(f"--features {source}: no such features; give {SOURCES}.")


def _batches(images: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
    images = iter(images)
    while batch := list(islice(images, BATCH)):
        yield batch


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _squares(images: Sequence[np.ndarray], side: int) -> torch.Tensor:
    """float32 (B, 3, side, side) in [0, 255]; smoothed where they shrink (Parmar et al. 2022: FID depends on it)."""
    import cv2

    resized = [
        cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA if side < min(x.shape[:2]) else cv2.INTER_CUBIC)
        for x in images
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float().to(_device())


def imagenet_encoder(size: str, side: int | None = None) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """EfficientNet-Lite's embeddings of images scaled to side x side, by default what it was trained with."""
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
        raise UserError(f"{folder}: holds no {model_class} with config.json and model.safetensors ({why}).") from None
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"{folder}: holds another model than a {model_class}; {missing[0]} and {len(missing) - 1} more "
                        "weights are missing.")  # fmt: skip
    return loaded.to(_device()).eval()


def _normalized(images: Sequence[np.ndarray], side: int, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    shift, scale = (torch.tensor(x, device=_device())[:, None, None] for x in (mean, std))
    return (_squares(images, side) / 255 - shift) / scale


def _clip(folder: Path) -> Features:
    """Image embeddings (projected), as CMMD takes them (Jayasumana et al. 2024: of ViT-L/14 at 336 pixels)."""
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
    """The Inception network of FID (Heusel et al. 2017), 2048 numbers: the weights file of torch-fidelity, which
    torchmetrics uses too. It scales pictures to 299 itself, as TensorFlow's did."""
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
        raise UserError(f"{file}: holds no weights of FID's Inception as torch-fidelity has them ({why}).") from None

    @torch.inference_mode()
    def encode(images: Sequence[np.ndarray]) -> np.ndarray:
        found = [network(torch.from_numpy(x).permute(2, 0, 1)[None].to(_device()))[0] for x in images]
        return torch.cat(found).float().cpu().numpy()

    return Features("Inception-v3 of FID, 2048 numbers", "inception", encode)

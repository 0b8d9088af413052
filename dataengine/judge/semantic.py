"""AeroGen's semantic filter: the CLIP similarity of an image and its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dataengine.data.layout import Layout
from dataengine.errors import UserError, install
from dataengine.render.text import prompt_of

# of the training images of CLIP, for each channel
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MIN_IMAGES = 20  # real images to calibrate on


class SemanticFilter:
    """Cosine similarity of the CLIP embeddings of image and prompt of a layout, with a calibrated threshold."""

    def __init__(self, folder: Path):
        """folder: a CLIP model of transformers with its tokenizer. Raises UserError when it cannot be loaded."""
        try:
            from transformers import CLIPModel, CLIPTokenizer
        except ImportError:
            raise UserError(f"the semantic filter needs: {install('text')}.") from None
        try:
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
            self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{folder}: cannot load a CLIP model ({reason}); give a folder with model and tokenizer."
            ) from None
        self.threshold: float | None = None

    @torch.no_grad()
    def scores(self, images: Sequence[np.ndarray], layouts: Sequence[Layout]) -> np.ndarray:
        """Cosine similarities, float32 (B,) in [-1, 1]; images uint8 (H, W, 3) of any size."""
        import cv2

        size = self.model.config.vision_config.image_size
        pixels = [cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) / 255 for image in images]
        tensor = torch.from_numpy((np.stack(pixels) - CLIP_MEAN) / CLIP_STD).float().permute(0, 3, 1, 2)
        tokens = self.tokenizer(
            [prompt_of(layout) for layout in layouts], padding="max_length", truncation=True, return_tensors="pt",
            max_length=self.model.config.text_config.max_position_embeddings,
        )  # fmt: skip
        found = self.model(pixel_values=tensor, input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        cosine = torch.nn.functional.cosine_similarity(found.image_embeds, found.text_embeds)
        return cosine.numpy().astype(np.float32)

    def calibrate(self, images: Sequence[np.ndarray], layouts: Sequence[Layout], pass_share: float) -> None:
        """Set the threshold that this share of the real images passes. Raises UserError for fewer than `MIN_IMAGES`."""
        if len(images) < MIN_IMAGES:
            raise UserError(f"the semantic filter needs {MIN_IMAGES} or more real images; there are {len(images)}.")
        scores = np.concatenate([self.scores([i], [x]) for i, x in zip(images, layouts, strict=True)])
        self.threshold = float(np.quantile(scores, 1 - pass_share))

    def failure(self, image: np.ndarray, layout: Layout) -> str:
        """Why the image is dropped, in one phrase, or "" if it passes."""
        assert self.threshold is not None, "calibrate first"
        score = float(self.scores([image], [layout])[0])
        return f"CLIP {score:.3f} below {self.threshold:.3f}" if score < self.threshold else ""

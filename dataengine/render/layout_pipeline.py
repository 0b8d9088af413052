"""The whole-image renderer: AeroGen's form, the entire picture from its layout."""

# no postponed annotations: diffusers reads the types of the pipeline's arguments
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from dataengine.data.layout import Layout
from dataengine.render.control import Control
from dataengine.render.inpaint import Known, composite
from dataengine.render.layout_batch import layout_rasters
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.placement import check_sizes, class_numbers, domain_number
from dataengine.render.precision import fast_autocast
from dataengine.render.renderer import paint_whole
from dataengine.render.thumbnail_decoder import THUMBNAIL_RATIO, ThumbnailDecoder, decode_thumbnails, thumbnails_of
from dataengine.seeds import Noise, noise_seed


class LayoutPipeline(DiffusionPipeline):
    """Renders whole images from layouts of the model's own size: thumbnail first, then pixels. Label effect: keeps."""

    label_effect = "keeps"
    batch_size = 16
    paints_on = "blank"
    margin = 0.0
    paint = paint_whole

    def __init__(
        self,
        unet: LayoutUNet,
        decoder: ThumbnailDecoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        grey_domains: list[str] | None = None,
        few_steps: int | None = None,
        decoder_steps: int = 10,
        decoder_few_steps: int | None = None,
    ):
        """grey_domains: the model's domains with a one-channel sensor; their images come out grey. few_steps: the only
        number of steps that the layout model was trained for, if it was (`train.adversarial`). decoder_steps,
        decoder_few_steps: those of the decoder."""
        super().__init__()
        self.register_modules(unet=unet, decoder=decoder, scheduler=scheduler)
        self.register_to_config(
            grey_domains=list(grey_domains or ()), few_steps=few_steps, decoder_steps=decoder_steps,
            decoder_few_steps=decoder_few_steps,
        )  # fmt: skip
        self.few_steps, self.steps, self.guidance_scale = few_steps, few_steps or 12, 1.0
        self.classes, self.reference_width = tuple(unet.config.classes), unet.config.reference_width
        self.size = unet.config.sample_size * THUMBNAIL_RATIO  # side of its images in pixels

    def domain_number(self, domain: str | None) -> int:
        """Number of a data set's look; the learned null for None. Raises UserError for an unknown name."""
        return domain_number(domain, self.unet.config.domains)

    @torch.no_grad()
    def __call__(
        self,
        layouts: Sequence[Layout],
        seeds: Sequence[int],
        domain: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        references: np.ndarray | None = None,
        images: Sequence[np.ndarray] | None = None,
        masks: Sequence[np.ndarray] | None = None,
        control: Control | None = None,
    ) -> list[np.ndarray]:
        """Images uint8 (H, W, 3), one for each layout; the noise of image i depends on seeds[i] only (contract 4).

        num_inference_steps, guidance_scale: the model's own if None. Guidance:
        `null + guidance_scale * (layout - null)`. references float32 (B, R, E): embeddings of real images,
        for a model that was trained with them. images and masks uint8 (H, W, 3) and (H, W): pictures to paint into,
        only where the mask is 1; layouts then say all that is to be seen in them. control: makes the ground of the
        thumbnails follow a map. Raises UserError for layouts of
        another size than the model's and for classes it does not know.
        """
        steps = num_inference_steps or self.steps
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        check_sizes(layouts, self.size)
        labels = [class_numbers(layout, self.classes) for layout in layouts]
        number = self.domain_number(domain)
        batch = self.unet.layout_batch(layouts, labels, [number] * len(layouts), references)
        looks = list(self.decoder.config.domains)  # it may have been trained on other data sets than the layout model
        look = torch.tensor([looks.index(domain) if domain in looks else len(looks)])
        known_classes = self.decoder.config.classes
        rasters = torch.from_numpy(layout_rasters(layouts, known_classes)) if known_classes else None
        generators = [torch.Generator().manual_seed(noise_seed(seed, Noise.WHOLE_IMAGE)) for seed in seeds]
        known, pixels = self._known(images, masks)
        with fast_autocast(self.unet.device):
            thumbnails = sample_latents(
                self.unet, batch, generators=generators, steps=steps, guidance_scale=guidance_scale,
                scheduler=self.scheduler, known=known, few=bool(self.config.few_steps), control=control,
            )  # fmt: skip
            # one at a time: a picture's noise and arithmetic must not depend on its batch, and it fills the cores alone
            pictures = torch.cat([
                decode_thumbnails(
                    self.decoder, thumbnails[i : i + 1], look, generators=[generators[i]],
                    steps=self.config.decoder_few_steps or self.config.decoder_steps, scheduler=self.scheduler,
                    known=pixels[i] if pixels else None, rasters=rasters[i : i + 1] if known_classes else None,
                    few=bool(self.config.decoder_few_steps),
                )
                for i in range(len(layouts))
            ])  # fmt: skip
        if domain in self.config.grey_domains:
            pictures = pictures.mean(1, keepdim=True).expand_as(pictures)
        drawn = list(((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy())
        if images is None:
            return drawn
        return [composite(*parts) for parts in zip(images, drawn, masks, strict=True)]

    def _known(self, images, masks) -> tuple[Known | None, list[Known] | None]:
        """What is to stay, for thumbnails all at once and for the decoder one by one; None where nothing is given."""
        if images is None:
            return None, None
        clean = torch.stack([torch.from_numpy(np.ascontiguousarray(i)).permute(2, 0, 1) / 127.5 - 1 for i in images])
        mask = torch.stack([torch.from_numpy(m)[None].float() for m in masks])
        clean, mask = clean.to(self.unet.device), mask.to(self.unet.device)
        cells = torch.nn.functional.max_pool2d(mask, THUMBNAIL_RATIO)
        pixels = [Known(clean[i : i + 1], mask[i : i + 1]) for i in range(len(clean))]
        return Known(thumbnails_of(clean), cells), pixels

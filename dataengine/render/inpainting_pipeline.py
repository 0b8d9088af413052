"""One latent model that in-paints: whole images from layouts, objects in real scenes, and scenes."""

# no postponed annotations: diffusers reads the types of the pipeline's arguments
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

from dataengine.data.layout import Layout
from dataengine.render.autoencoder import LATENT_RATIO, Autoencoder
from dataengine.render.inpaint import Known, composite
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet, sample_latents
from dataengine.render.placement import check_sizes, class_numbers, domain_number
from dataengine.render.precision import fast_autocast
from dataengine.render.renderer import paint_whole
from dataengine.seeds import Noise, noise_seed

NOISE_SHIFT = 2.83  # sqrt(32 * 32 * 32 / 4096): larger latents need more noise (Zheng et al. 2025, section 4.2)


class InpaintingPipeline(DiffusionPipeline):
    """Renders images from layouts of the model's own size, whole or inside a mask. Label effect: keeps."""

    label_effect = "keeps"
    paints_on = "blank"
    margin = 0.0
    batch_size = 16
    steps, few_steps = 20, None
    paint = paint_whole

    def __init__(
        self,
        unet: LayoutUNet,
        autoencoder: Autoencoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
        latent_mean: list[float] | None = None,
        latent_spread: list[float] | None = None,
        grey_domains: list[str] | None = None,
        guidance_scale: float = 1.0,
    ):
        """latent_mean, latent_spread: of each channel, to standardise the autoencoder's latents; 0 and 1 if None.
        grey_domains: the model's domains with a one-channel sensor; their images come out grey. guidance_scale: unless
        another is asked for."""
        super().__init__()
        self.register_modules(unet=unet, autoencoder=autoencoder, scheduler=scheduler)
        channels = unet.config.latent_channels
        self.register_to_config(
            latent_mean=list(latent_mean or [0.0] * channels), latent_spread=list(latent_spread or [1.0] * channels),
            grey_domains=list(grey_domains or ()), guidance_scale=guidance_scale,
        )  # fmt: skip
        self.guidance_scale = guidance_scale
        self.classes, self.reference_width = tuple(unet.config.classes), unet.config.reference_width
        self.size = unet.config.sample_size * LATENT_RATIO  # side of its images in pixels

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        values = (self.config.latent_mean, self.config.latent_spread)
        mean, spread = (torch.tensor(list(v), device=self.unet.device)[:, None, None] for v in values)
        return mean, spread

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> torch.Tensor:
        """Standardised latents float32 (B, C, S, S) of images uint8 (B, H, W, 3)."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(self.unet.device) / 127.5 - 1
        mean, spread = self._statistics()
        with fast_autocast(self.unet.device):
            latents = self.autoencoder.encode(pixels.to(self.autoencoder.dtype))
        return (latents.float() - mean) / spread

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Images uint8 (B, H, W, 3) of standardised latents (B, C, S, S)."""
        mean, spread = self._statistics()
        with fast_autocast(self.unet.device):
            pixels = self.autoencoder.decode((latents * spread + mean).to(self.autoencoder.dtype)).float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def denoise(
        self,
        batch: LayoutBatch,
        generators: list[torch.Generator],
        steps: int | None = None,
        guidance_scale: float | None = None,
        known: Known | None = None,
    ) -> torch.Tensor:
        """Standardised latents (B, C, S, S) of layouts; what is known stays outside the mask."""
        with fast_autocast(self.unet.device):
            return sample_latents(
                self.unet, batch, generators=generators, steps=steps or self.steps, scheduler=self.scheduler,
                guidance_scale=self.guidance_scale if guidance_scale is None else guidance_scale, known=known,
            )  # fmt: skip

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
    ) -> list[np.ndarray]:
        """Images uint8 (H, W, 3), one for each layout; the noise of image i depends on seeds[i] only (contract 4).

        num_inference_steps, guidance_scale: the model's own if None. Guidance:
        `null + guidance_scale * (layout - null)`. images and masks uint8 (H, W, 3) and (H, W): pictures to paint into,
        only where the mask is 1; layouts then say all that is to be seen in them. Raises UserError for layouts of
        another size than the model's and for classes and domains it does not know.
        """
        check_sizes(layouts, self.size)
        number = domain_number(domain, self.unet.config.domains)
        labels = [class_numbers(layout, self.classes) for layout in layouts]
        batch = self.unet.layout_batch(layouts, labels, [number] * len(layouts), references)
        generators = [torch.Generator().manual_seed(noise_seed(seed, Noise.WHOLE_IMAGE)) for seed in seeds]
        known = None if images is None else self.known(images, masks)
        latents = self.denoise(batch, generators, num_inference_steps, guidance_scale, known)
        # one at a time: a picture's arithmetic must not depend on its batch
        drawn = [self.decode(latent[None])[0] for latent in latents]
        if domain in self.config.grey_domains:
            drawn = [np.repeat(image.mean(2, keepdims=True).round().astype(np.uint8), 3, 2) for image in drawn]
        if images is None:
            return drawn
        return [composite(*parts) for parts in zip(images, drawn, masks, strict=True)]

    def known(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Known:
        """Pictures uint8 (H, W, 3) in the model's latents, and every cell that the masks (H, W) touch."""
        cells = torch.stack([torch.from_numpy(mask)[None].float() for mask in masks]).to(self.unet.device)
        return Known(self.encode(np.stack(images)), torch.nn.functional.max_pool2d(cells, LATENT_RATIO))

"""The whole-image renderer at full size: AeroGen's form, latents of an autoencoder, with text."""

# no postponed annotations: diffusers reads the types of the pipeline's arguments
import inspect
from collections.abc import Sequence

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.schedulers import KarrasDiffusionSchedulers
from transformers import CLIPTextModel, CLIPTokenizer

from dataengine.data.layout import Layout, class_key
from dataengine.errors import UserError
from dataengine.render.control import Control
from dataengine.render.inpaint import Known, composite
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.placement import check_sizes, class_numbers
from dataengine.render.precision import fast_autocast
from dataengine.render.renderer import paint_whole
from dataengine.render.text import check_tokenizer, embed_names, encode_prompts, padding_of, prompt_of, words
from dataengine.seeds import Noise, noise_seed

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
}  # names for --scheduler: classes of diffusers
RIDGE = 0.1  # of the mean similarity of two class names, when a new class is placed among the known ones


class LatentPipeline(DiffusionPipeline):
    """Renders whole images from layouts of the model's own size. Label effect: keeps."""

    label_effect = "keeps"
    paints_on = "blank"
    margin = 0.0
    few_steps = None
    paint = paint_whole
    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        unet: LayoutUNet,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: KarrasDiffusionSchedulers,
        dropped_in_training: list[str] | None = None,
        classes_from_text: bool = False,
        steps: int = 20,
        guidance_scale: float = 7.5,
        eta: float = 0.0,
    ):
        """scheduler: any of diffusers that predicts noise. dropped_in_training: of "text" and "layout", those that the
        model has seen as null, which alone can be guided (contract 7). classes_from_text: the class vectors are this
        text encoder's own, so that new classes can be embedded directly. steps, guidance_scale, eta: used unless others
        are asked for. Raises UserError for a tokenizer of another text encoder."""
        super().__init__()
        reader = text_encoder.config
        check_tokenizer(tokenizer, reader.vocab_size, "the model's tokenizer", padding_of(reader))
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        self.register_to_config(
            dropped_in_training=list(dropped_in_training or ()), classes_from_text=classes_from_text, steps=steps,
            guidance_scale=guidance_scale, eta=eta,
        )  # fmt: skip
        self.steps, self.guidance_scale, self.eta = steps, guidance_scale, eta
        self.classes, self.reference_width = tuple(unet.config.classes), unet.config.reference_width
        # side of its images in pixels
        self.size = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)

    @property
    def batch_size(self) -> int:
        """Images that are best painted together: on a CPU, they gain nothing from company."""
        return 1 if self.device.type == "cpu" else 4

    @property
    def trained_boxes(self) -> int | None:
        """Most objects in an image of its training, if its form has a limit: AeroGen's attends to that many tokens."""
        return None if self.unet.config.masked_attention else self.unet.config.padded_to

    def use_scheduler(self, name: str | None = None, eta: float | None = None) -> None:
        """Draw with another of `SCHEDULERS`, set up for this model's noise, and another eta.

        Raises UserError for an eta where the scheduler has none; the model's own is then 0.
        """
        if name is not None:
            self.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(self.scheduler.config)
        if "eta" in inspect.signature(self.scheduler.step).parameters:
            self.eta = self.eta if eta is None else eta
        elif eta is None:
            self.eta = 0.0
        else:
            raise UserError(f"--eta: {type(self.scheduler).__name__} has none; give --scheduler ddim.")

    def add_classes(self, names: Sequence[str]) -> None:
        """Let it draw classes that were never labels, by what their names mean to the text encoder.

        Where the known classes' vectors are not of this encoder, a new one is placed among them by kernel ridge
        regression from the names' embeddings, so it can only be a mixture of what is known.
        """
        names = [name for name in names if class_key(name) not in {class_key(known) for known in self.classes}]
        if not names:
            return
        every = embed_names([words(n) for n in (*self.classes, *names)], self.tokenizer, self.text_encoder)
        known, new = every[: len(self.classes)], every[len(self.classes) :]
        if not self.config.classes_from_text:
            vectors = self.unet.box_encoder.classes.weight.detach()
            directions = torch.nn.functional.normalize(every - known.mean(0), dim=1)
            known, new = directions[: len(known)], directions[len(known) :]
            kernel = known @ known.T
            kernel += RIDGE * kernel.diagonal().mean() * torch.eye(len(known), device=kernel.device)
            centre = vectors.mean(0)
            new = centre + new @ known.T @ torch.linalg.solve(kernel, (vectors - centre).to(kernel.dtype))
        self.unet.add_classes(names, new)
        self.classes = tuple(self.unet.config.classes)

    @torch.no_grad()
    def __call__(
        self,
        layouts: Sequence[Layout],
        seeds: Sequence[int],
        domain: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        layout_guidance_scale: float = 1.0,
        prompts: Sequence[str] | None = None,
        references: np.ndarray | None = None,
        eta: float | None = None,
        images: Sequence[np.ndarray] | None = None,
        masks: Sequence[np.ndarray] | None = None,
        control: Control | None = None,
    ) -> list[np.ndarray]:
        """Images uint8 (H, W, 3), one for each layout; the noise of image i depends on seeds[i] only (contract 4).

        num_inference_steps, guidance_scale, eta (of DDIM): the model's own if None. Guidance on text:
        `null + guidance_scale * (text - null)`, both with the layout, as in AeroGen; on the layout the same formula on
        top: `+ (layout_guidance_scale - 1) * (both - text alone)`. prompts: built from each layout if None. references
        float32 (B, R, E). images and masks: images to paint into, as in `LayoutPipeline`.
        control: makes the ground follow a map, with and without the text, as diffusers' pipelines do.
        Layouts with much the same number of boxes are rendered together, so that none waits on another's padding and no
        image depends on its company. Raises UserError for layouts of another size than the model's, for classes it does
        not know, and for guidance on a condition that it has never seen as null.
        """
        steps = num_inference_steps or self.steps
        guidance_scale = self.guidance_scale if guidance_scale is None else guidance_scale
        eta = self.eta if eta is None else eta
        check_sizes(layouts, self.size)
        for name, scale in (("text", guidance_scale), ("layout", layout_guidance_scale)):
            if scale != 1.0 and name not in self.config.dropped_in_training:
                raise UserError(f"this renderer never saw a null {name}, so it cannot be guided by it: give 1.")
        prompts = [prompt_of(layout) for layout in layouts] if prompts is None else list(prompts)
        labels = [class_numbers(layout, self.classes) for layout in layouts]
        domains = list(self.unet.config.domains)
        number = domains.index(domain) if domain in domains else len(domains)
        padded = [-(-max(1, len(layout)) // self.unet.config.padded_to) for layout in layouts]
        drawn: list[np.ndarray] = [None] * len(layouts)
        for count in sorted(set(padded)):
            part = [i for i in range(len(layouts)) if padded[i] == count]
            batch = self.unet.layout_batch(
                [layouts[i] for i in part], [labels[i] for i in part], [number] * len(part),
                None if references is None else references[part],
            )  # fmt: skip
            generators = [torch.Generator().manual_seed(noise_seed(seeds[i], Noise.LATENT_IMAGE)) for i in part]
            with fast_autocast(self.unet.device):
                known = None if images is None else self.known([images[i] for i in part], [masks[i] for i in part])
                latents = self.denoise(
                    batch.to(self.unet.device), [prompts[i] for i in part], generators, steps,
                    guidance_scale, layout_guidance_scale, eta, known, control and control.part(part),
                )  # fmt: skip
                for i, latent in zip(part, latents, strict=True):
                    drawn[i] = self.decode(latent[None])[0]
        if images is None:
            return drawn
        return [composite(*parts) for parts in zip(images, drawn, masks, strict=True)]

    def known(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Known:
        """Pictures and masks in the autoencoder's latents."""
        pixels = torch.stack([torch.from_numpy(np.ascontiguousarray(i)).permute(2, 0, 1) / 127.5 - 1 for i in images])
        clean = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        mask = torch.stack([torch.from_numpy(m)[None].float() for m in masks]).to(clean.device)
        cells = torch.nn.functional.max_pool2d(mask, mask.shape[-1] // clean.shape[-1])
        return Known(clean.float() * self.vae.config.scaling_factor, cells)

    def denoise(
        self,
        batch: LayoutBatch,
        prompts: Sequence[str],
        generators: list[torch.Generator],
        steps: int,
        guidance_scale: float,
        layout_guidance_scale: float,
        eta: float = 0.0,
        known: Known | None = None,
        control: Control | None = None,
    ) -> torch.Tensor:
        """Latents (B, C, S, S) of a batch by the pipeline's scheduler."""
        c, device = self.unet.config, self.unet.device
        text = encode_prompts(prompts, self.tokenizer, self.text_encoder).to(self.unet.dtype)
        null = encode_prompts([""], self.tokenizer, self.text_encoder).to(self.unet.dtype).expand_as(text)
        self.scheduler.set_timesteps(steps, device=device)
        shape = (c.latent_channels, c.sample_size, c.sample_size)
        first = torch.stack([torch.randn(shape, generator=g) for g in generators]).to(device)
        x = first * self.scheduler.init_noise_sigma
        taken = inspect.signature(self.scheduler.step).parameters
        extra = {k: v for k, v in {"eta": eta, "generator": generators}.items() if k in taken}
        for k, t in enumerate(self.scheduler.timesteps):
            given = self.scheduler.scale_model_input(x, t).to(self.unet.dtype)
            times = t.expand(len(x))
            both = self.unet(given, times, batch, text, control=control).float()
            noise = both
            if guidance_scale != 1.0:
                without = self.unet(given, times, batch, null, control=control).float()
                noise = without + guidance_scale * (both - without)
            if layout_guidance_scale != 1.0:
                alone = self.unet(given, times, batch.unknown(), text, control=control).float()
                noise = noise + (layout_guidance_scale - 1) * (both - alone)
            x = self.scheduler.step(noise, t, x, **extra, return_dict=False)[0]
            if known is not None:
                later = self.scheduler.timesteps[k + 1 : k + 2]
                left = self.scheduler.add_noise(known.clean, first, later) if len(later) else known.clean
                x = known.put_back(x, left)
        return x

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (B, C, S, S) -> uint8 (B, H, W, 3)."""
        pixels = self.vae.decode(latents.to(self.vae.dtype) / self.vae.config.scaling_factor).sample.float()
        return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

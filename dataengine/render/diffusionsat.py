"""DiffusionSat's single-image models (Khanna et al. 2024): Stable Diffusion 2.1 with seven embeddings of metadata.

Its boxes are void: nothing in it knows a layout. It re-renders pictures (`dataengine rerender --model`), and a filter
says which objects still hold.
"""

# no postponed annotations: diffusers reads the types of the pipeline's arguments
import inspect
from collections.abc import Sequence
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.schedulers import KarrasDiffusionSchedulers
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError, one_line
from dataengine.files import MAX_CONFIG_BYTES, parse_json, read_text
from dataengine.render.text import encode_prompts, words
from dataengine.seeds import Noise, noise_seed

FIRST_YEAR, YEARS = 1980, 120  # its years count from 1980, and one is 1/120 of the scale
SCALE = 1000.0  # its numbers are as large as timesteps
CONDITIONS = frozenset({"longitude_deg", "latitude_deg", "gsd_m", "cloud", "date"})
PATCH = 64  # pixels of a side: the latents of its pictures are halved three times


def seven_numbers(acquisition: Acquisition) -> np.ndarray:
    """Acquisition as DiffusionSat's metadata, float32 (7,): longitude, latitude, metres per pixel, cloud, year, month,
    day, each from 0 to about 1000 (its section 3.2, and `metadata_normalize` in its code).

    Unknown fields are 0, as in its training, although 0 is also a real value: no cloud, or 180 degrees west.
    Raises UserError for a year that it has no number for.

    >>> import datetime
    >>> known = Acquisition(gsd_m=0.5, cloud=0.25, date=datetime.date(2010, 6, 15), longitude_deg=0, latitude_deg=-45)
    >>> seven_numbers(known).round().tolist()
    [500.0, 250.0, 500.0, 250.0, 250.0, 500.0, 484.0]
    >>> seven_numbers(Acquisition()).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    a, shares = acquisition, [0.0] * 7
    if a.longitude_deg is not None:
        shares[0] = (a.longitude_deg + 180) / 360
    if a.latitude_deg is not None:
        shares[1] = (a.latitude_deg + 90) / 180
    shares[2] = a.gsd_m or 0.0
    shares[3] = a.cloud or 0.0
    if a.date is not None:
        if not FIRST_YEAR <= a.date.year <= FIRST_YEAR + YEARS:
            raise UserError(f"{a.date}: DiffusionSat has numbers for the years {FIRST_YEAR} to {FIRST_YEAR + YEARS}.")
        shares[4:] = (a.date.year - FIRST_YEAR) / YEARS, a.date.month / 12, a.date.day / 31
    return np.array(shares, np.float32) * np.float32(SCALE)


def caption_of(layout: Layout) -> str:
    """A caption in the form of its training, with the first class of the layout.

    >>> caption_of(Layout([[5, 5, 4, 2, 0]], [0], ("storagetank",), (16, 16)))
    'a satellite image of a storage tank'
    """
    names = list(dict.fromkeys(layout.names()))
    return f"a satellite image of a {words(names[0])}" if names else "a satellite image"


class SatUNet(UNet2DConditionModel):
    """diffusers' U-Net with a `TimestepEmbedding` for each number of metadata, added to that of the timestep.

    It has the names of tensors and of settings of the published `SatUNet`, so its folders load.
    """

    def __init__(self, num_metadata: int = 7, use_metadata: bool = True, **unet):
        super().__init__(**unet)
        self.register_to_config(num_metadata=num_metadata, use_metadata=use_metadata)
        width = self.config.block_out_channels[0]
        self.metadata_embedding = nn.ModuleList(TimestepEmbedding(width, 4 * width) for _ in range(num_metadata))

    @staticmethod
    def _get_init_keys(input_class) -> set[str]:
        """Settings that a config may hold: `**unet` stands for those of diffusers' U-Net."""
        keys = set(inspect.signature(UNet2DConditionModel.__init__).parameters)
        return keys | {"num_metadata", "use_metadata"} if input_class is SatUNet else keys

    def get_aug_embed(self, emb, encoder_hidden_states, added_cond_kwargs) -> torch.Tensor:
        """What diffusers adds to the embedding of the timestep: here, of `metadata` (B, 7)."""
        metadata = added_cond_kwargs["metadata"]
        waves = self.time_proj(metadata.flatten()).unflatten(0, metadata.shape).to(emb.dtype)  # (B, 7, width)
        return sum(embed(waves[:, i]) for i, embed in enumerate(self.metadata_embedding))


class DiffusionSatPipeline(DiffusionPipeline):
    """Satellite images from captions and acquisitions, or real ones under another acquisition. Label effect: voids."""

    label_effect = "voids"
    conditions = CONDITIONS

    def __init__(
        self,
        unet: SatUNet,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: KarrasDiffusionSchedulers,
    ):
        super().__init__()
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        self.size = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def __call__(
        self,
        captions: Sequence[str],
        acquisitions: Sequence[Acquisition],
        seeds: Sequence[int],
        steps: int = 50,
        guidance_scale: float = 1.0,
        images: Sequence[np.ndarray] | None = None,
        strength: float = 1.0,
    ) -> list[np.ndarray]:
        """Images uint8 (H, W, 3), of the model's size, or of that of `images`, from which they start at the noise level
        that `strength` reaches (SDEdit). The noise of image i depends on seeds[i] only (contract 4).

        Guidance: `null + guidance_scale * (condition - null)`; the null has the empty caption and zeros as metadata.
        The defaults are those of the paper's tables, but for its 100 steps.
        """
        drawn = []
        for k, (caption, acquisition, seed) in enumerate(zip(captions, acquisitions, seeds, strict=True)):
            image = None if images is None else images[k]
            generator = torch.Generator().manual_seed(noise_seed(seed, Noise.LATENT_IMAGE))
            drawn.append(self._one(caption, acquisition, generator, steps, guidance_scale, image, strength))
        return drawn

    def _one(self, caption, acquisition, generator, steps, guidance_scale, image, strength) -> np.ndarray:
        device, dtype = self.unet.device, self.unet.dtype
        text = encode_prompts(["", caption], self.tokenizer, self.text_encoder).to(dtype)
        metadata = torch.from_numpy(np.stack([np.zeros(7, np.float32), seven_numbers(acquisition)])).to(device)
        if guidance_scale == 1.0:
            text, metadata = text[1:], metadata[1:]
        self.scheduler.set_timesteps(steps, device=device)
        times = self.scheduler.timesteps[steps - max(1, min(steps, round(steps * strength))) :]
        if image is None:
            side = self.unet.config.sample_size
            shape = (1, self.vae.config.latent_channels, side, side)
            x = torch.randn(shape, generator=generator).to(device) * self.scheduler.init_noise_sigma
        else:
            clean = self._encoded(image)
            noise = torch.randn(clean.shape, generator=generator).to(device)
            x = self.scheduler.add_noise(clean, noise, times[:1])
        for t in times:
            given = self.scheduler.scale_model_input(x, t).to(dtype).expand(len(text), -1, -1, -1)
            conditions = {"metadata": metadata}
            noise = self.unet(given, t, text, added_cond_kwargs=conditions).sample.float()
            if guidance_scale != 1.0:
                noise = noise[:1] + guidance_scale * (noise[1:] - noise[:1])
            x = self.scheduler.step(noise, t, x, return_dict=False)[0]
        pixels = self.vae.decode(x.to(self.vae.dtype) / self.vae.config.scaling_factor).sample.float()
        drawn = ((pixels[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return drawn if image is None else drawn[: image.shape[0], : image.shape[1]]

    def _encoded(self, image: np.ndarray) -> torch.Tensor:
        """Latents (1, C, h, w) of an image, mirrored at its lower and right edge to a whole number of patches."""
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % PATCH), (0, -width % PATCH), (0, 0)), "symmetric")
        pixels = torch.from_numpy(padded).permute(2, 0, 1)[None] / 127.5 - 1
        latents = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype)).latent_dist.mean
        return latents.float() * self.vae.config.scaling_factor


def unet_folder(folder: Path) -> Path:
    """Where the U-Net with metadata lies in a published folder: `unet`, or that of the last `checkpoint-N`, since its
    training leaves Stable Diffusion's own next to the rest. Raises UserError where there is none."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    last = sorted(checkpoints, key=lambda path: int(path.name.partition("-")[2]))[-1:]
    for place in (folder / "unet", *(path / "unet" for path in last)):
        file = place / "config.json"
        if not file.is_file():
            continue
        try:
            config = parse_json(read_text(file, MAX_CONFIG_BYTES))
        except ValueError as error:
            raise UserError(f"{file} {error}; copy the model again.") from None
        if isinstance(config, dict) and config.get("num_metadata") and config.get("use_metadata", True):
            return place
    raise UserError(
        f"{folder}: no U-Net with metadata in unet/ or checkpoint-*/unet/; give a folder of a single-image model of "
        "DiffusionSat."
    )


def fetch(hub_id: str) -> Path:
    """The folder of a model of the hub, downloaded where it is not there yet; no pickled weights."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    except Exception as error:  # of the network, or of a name that no hub has
        raise UserError(
            f"--model {hub_id}: neither a folder nor a hub id that can be reached ({one_line(error)})."
        ) from None


def load_diffusionsat(folder: Path) -> DiffusionSatPipeline:
    """The pipeline of a diffusers folder, from safetensors only. Raises UserError for anything else.

    A folder with pickled weights (`.bin`) is converted once with `dataengine model import diffusionsat`.
    """
    unet = unet_folder(folder)
    for part in (unet, folder / "vae", folder / "text_encoder"):
        if not list(part.glob("*.safetensors")):
            pickled = " It has pickled weights: convert it with dataengine model import diffusionsat."
            raise UserError(f"{part}: no .safetensors file.{pickled if list(part.glob('*.bin')) else ''}")
    try:
        return DiffusionSatPipeline(
            SatUNet.from_pretrained(unet, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False).eval(),
            AutoencoderKL.from_pretrained(folder / "vae", use_safetensors=True, local_files_only=True),
            CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, local_files_only=True),
            CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            _scheduler(folder / "scheduler" / "scheduler_config.json"),
        )
    except UserError:
        raise
    except Exception as error:  # what a config asks for may be wrong in every way that torch knows
        raise UserError(f"{folder}: the model cannot be loaded ({one_line(error)}); copy it again.") from error


def _scheduler(file: Path) -> KarrasDiffusionSchedulers:
    config = parse_json(read_text(file, MAX_CONFIG_BYTES))
    name = config.get("_class_name", "")
    found = getattr(diffusers, name, None) if str(name).endswith("Scheduler") else None
    if found is None:
        raise UserError(f"{file}: {name!r} is no scheduler of diffusers; give DDIMScheduler.")
    return found.from_config(config)

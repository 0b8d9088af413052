"""Converts AeroGen's published checkpoint, with latent diffusion's tensor names, to a `LatentPipeline`.

Every tensor is accounted for: unused ones are listed here, and any other that is left over, missing or of another shape
is an error. No pickled code is executed: unknown objects in the file become inert placeholders.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from dataengine.data.layout import class_key
from dataengine.errors import UserError, one_line
from dataengine.files import open_regular
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.text import check_tokenizer

# rows of the authors' category_embeddings.npy, and class numbers of their layout files; mmrotate has another order
AEROGEN_CLASSES = (
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam", "Expressway-Service-area",
    "Expressway-toll-station", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium", "storagetank",
    "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip
# each other's nearest in the authors' file
NEAREST_ROWS = tuple(map(class_key, ("Expressway-Service-area", "Expressway-toll-station")))
UNET, BOXES, VAE, TEXT = "model.diffusion_model.", "condition_tokenizer.", "first_stage_model.", "cond_stage_model."
REGIONAL = f"{UNET}maskcrossattention."
N_POSITION = 128  # 8 corner coordinates at 8 frequencies, sine and cosine
# Never used by the original: a GroupNorm, and second projections in self-attentions. Without effect: query and key of
# an attention to a single key. Derived from the configuration: the noise schedule, and the text's position ids.
UNUSED = re.compile(
    rf"{re.escape(REGIONAL)}(norm1|norm2|crossattn\.to_[qk])\."
    r"|\.attn1\.to_[kv]_control\.weight$"
    r"|\.position_ids$"
    r"|^model_ema\."
    r"|^((sqrt_|log_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?|betas|posterior_\w+|logvar|lvlb_weights"
    r"|scale_factor)$"
)


class Inert(dict):
    """Replaces any object in a checkpoint that is not a tensor: accepts everything, does nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__()

    def __setstate__(self, state) -> None: ...

    def __call__(self, *args, **kwargs) -> Inert:
        return self

    def append(self, item) -> None: ...

    def extend(self, items) -> None: ...

    def add(self, item) -> None: ...


_HARMLESS = {
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("collections", "OrderedDict"),
}


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain containers; everything else becomes `Inert`, so that no code of the file runs."""

    def __init__(self, file, **options):
        super().__init__(file, **options)
        self._file = file

    def load(self):
        """Load the next pickle, without BYTEARRAY8 opcodes: for one, Python allocates as many bytes as a damaged or
        hostile file claims to hold, perhaps all memory. Checkpoints have none."""
        start = self._file.tell()
        for opcode, _, _ in pickletools.genops(self._file):
            if opcode.name == "BYTEARRAY8":
                raise pickle.UnpicklingError("it requests memory that no tensor needs")
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str):
        if (module, name) in _HARMLESS or (module == "torch" and name.endswith("Storage")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        return type(name, (Inert,), {})


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a Lightning checkpoint, a plain checkpoint or a .safetensors file, memory-mapped where possible.

    Raises UserError for any other file.
    """
    try:
        open_regular(file).close()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); download it again.") from None
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as tensors:
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: cannot be read ({error}); download it again.") from None
    # the two names that torch needs of a pickle module; its own safe reader rejects unknown objects
    inert = SimpleNamespace(Unpickler=_Unpickler, load=lambda f, **k: _Unpickler(f, **k).load(), __name__="pickle")
    try:
        loaded = torch.load(file, map_location="cpu", mmap=True, weights_only=False, pickle_module=inert)
    except Exception as error:  # pickle and torch raise many types for a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{file}: is not a checkpoint of torch.save ({reason}); download it again.") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not tensors:
        raise UserError(f"{file}: holds no tensors under 'state_dict'; give AeroGen's checkpoint.")
    return tensors


def _shape(state: dict[str, torch.Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise UserError(f"the checkpoint lacks {name}, which every AeroGen model has; give AeroGen's checkpoint.")
    return tuple(state[name].shape)


def _count(state: dict[str, torch.Tensor], pattern: str) -> int:
    return len({found.group(1) for name in state if (found := re.match(pattern, name))})


def unet_config(state: dict[str, torch.Tensor], sample_size: int) -> dict:
    """Arguments of `LayoutUNet`, inferred from the tensors' shapes."""
    blocks = _count(state, rf"{re.escape(UNET)}input_blocks\.(\d+)\.")
    downs = _count(state, rf"{re.escape(UNET)}input_blocks\.(\d+)\.0\.op\.weight")
    levels = downs + 1
    layers = (blocks - 1 - downs) // levels
    first = [1 + level * (layers + 1) for level in range(levels)]  # first block of each level
    hidden, joined = _shape(state, f"{BOXES}linears.0.weight")
    return {
        "sample_size": sample_size,
        "latent_channels": _shape(state, f"{UNET}input_blocks.0.0.weight")[1],
        "patch": 1,
        "block_out_channels": [_shape(state, f"{UNET}input_blocks.{i}.0.out_layers.3.weight")[0] for i in first],
        "layers_per_block": layers,
        "attention_levels": [f"{UNET}input_blocks.{i}.1.norm.weight" in state for i in first],
        "cross_attention_dim": _shape(state, f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1],
        "heads": 8,
        "norm_num_groups": 32,
        "prediction": "epsilon",
        "masked_attention": False,
        "corners": "grid",
        "areas": "grid",
        "angle": False,
        "painted_channels": 0,
        "regional": f"{REGIONAL}proj_in.weight" in state,
        "fields": [],
        "category_width": joined - N_POSITION,
        "box_hidden": hidden,
        "padded_to": 15,
    }


def _with_averages(file: Path, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with the averaged tensors of the denoiser, regional attention included, in place of the raw ones.
    Boxes, autoencoder and text encoder have no average. Raises UserError where a tensor of the denoiser has none."""
    averaged = dict(state)
    for name in (name for name in state if name.startswith(UNET)):
        average = state.get(f"model_ema.{name.removeprefix('model.').replace('.', '')}")
        if average is None:
            raise UserError(f"{file}: has no averaged weights (model_ema) of {name}; drop --ema.")
        averaged[name] = average
    return averaged


def _unet_tensors(state: dict[str, torch.Tensor], config: dict) -> dict[str, torch.Tensor]:
    """The denoiser's tensors under `LayoutUNet`'s names."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    converted = convert_ldm_unet_checkpoint(state, config, extract_ema=False)
    tensors = {}
    for name, value in converted.items():
        name = re.sub(r"attn2\.to_([kv])_control", r"attn2.processor.to_\1_box", name)
        if "_control" not in name:
            tensors[f"unet.{name}"] = value
    if config["regional"]:
        tensors |= {f"conv_in.{part}": tensors.pop(f"unet.conv_in.{part}") for part in ("weight", "bias")}
        names = {"proj_in": "proj_in", "to_v": "crossattn.to_v", "to_out": "crossattn.to_out.0", "norm": "norm3",
                 "ffn.net.0.proj": "ffn.net.0.proj", "ffn.net.2": "ffn.net.2", "proj_out": "proj_out"}  # fmt: skip
        for ours, theirs in names.items():
            for part in ("weight", "bias"):
                if f"{REGIONAL}{theirs}.{part}" in state:
                    tensors[f"regional_attention.{ours}.{part}"] = state[f"{REGIONAL}{theirs}.{part}"]
    for name in [name for name in state if name.startswith(BOXES)]:
        ours = name.removeprefix(BOXES).replace("linears", "mlp")
        tensors[f"box_encoder.{ours}".replace("text_feature", "category").replace("_feature", "")] = state[name]
    first = tensors["box_encoder.mlp.0.weight"]  # input order: theirs category, position; ours position, category
    tensors["box_encoder.mlp.0.weight"] = torch.cat([first[:, -N_POSITION:], first[:, :-N_POSITION]], 1)
    return tensors


def _vae_config(state: dict[str, torch.Tensor]) -> dict:
    levels = _count(state, rf"{re.escape(VAE)}encoder\.down\.(\d+)\.")
    widths = [_shape(state, f"{VAE}encoder.down.{i}.block.0.conv1.weight")[0] for i in range(levels)]
    return {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(state, rf"{re.escape(VAE)}encoder\.down\.0\.block\.(\d+)\."),
        "latent_channels": _shape(state, f"{VAE}post_quant_conv.weight")[0],
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    }


def _load(model: torch.nn.Module, tensors: dict[str, torch.Tensor], part: str, file: Path) -> None:
    """Assign tensors to a model on the meta device. Raises UserError that names the first mismatch."""
    wanted = model.state_dict()
    missing = sorted(name for name in wanted if tensors.get(name) is None)
    if missing:
        raise UserError(f"{file}: {len(missing)} tensors of the {part} are missing, such as {missing[0]}.")
    for name, value in tensors.items():
        if name in wanted and wanted[name].shape != value.shape:
            raise UserError(
                f"{file}: {part} tensor {name} has shape {tuple(value.shape)}, not {tuple(wanted[name].shape)}; "
                "give AeroGen's checkpoint, unchanged."
            )
    model.load_state_dict({name: tensors[name] for name in wanted}, assign=True)
    model.eval().requires_grad_(False)


def import_aerogen(
    file: Path,
    categories: Path,
    tokenizer,
    sample_size: int = 64,
    ema: bool = False,
    classes: Sequence[str] = AEROGEN_CLASSES,
):
    """Convert AeroGen's checkpoint to a `LatentPipeline`, ready for `save_pretrained`.

    categories: the authors' category_embeddings.npy, (len(classes), 768). classes: the names of its rows, by which data
    sets find them. tokenizer: CLIP's, which the checkpoint does not contain. sample_size: side of the latents, an
    eighth of the image's side. ema: use the averaged weights of the denoiser, which some checkpoints have.
    The pipeline draws as the authors' inference.py: DDIM of 50 steps, eta 0.2, guidance 7.5.
    Raises UserError for a tensor that is missing, left over or of another shape, for another tokenizer, and for the
    horizontal model.
    """
    from diffusers import AutoencoderKL, DDIMScheduler
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    from dataengine.render.latent_pipeline import LatentPipeline

    state = read_state_dict(file)
    if ema and not any(name.startswith("model_ema.") for name in state):
        raise UserError(f"{file}: has no averaged weights (model_ema); drop --ema.")
    position = _shape(state, f"{BOXES}null_position_feature")[0]
    if position != N_POSITION:
        raise UserError(
            f"{file}: its boxes are {position // 16} numbers ({position} features), as in AeroGen's horizontal model; "
            f"only the rotated one, with 8 ({N_POSITION} features), can be imported. It draws upright boxes too."
        )
    config = unet_config(state, sample_size)
    vectors = _category_vectors(categories, len(classes), config["category_width"])
    denoiser = _unet_tensors(_with_averages(file, state) if ema else state, config) | {
        "box_encoder.classes.weight": vectors
    }
    vae_config = _vae_config(state)
    decoder = convert_ldm_vae_checkpoint({k: v for k, v in state.items() if k.startswith(VAE)}, vae_config)
    words, width = _shape(state, f"{TEXT}transformer.text_model.embeddings.token_embedding.weight")
    check_tokenizer(tokenizer, words, f"--tokenizer {tokenizer.name_or_path}")
    text_config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=_shape(state, f"{TEXT}transformer.text_model.encoder.layers.0.mlp.fc1.weight")[0],
        num_hidden_layers=_count(state, rf"{re.escape(TEXT)}transformer\.text_model\.encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, width // 64),  # as in every CLIP model
        max_position_embeddings=_shape(state, f"{TEXT}transformer.text_model.embeddings.position_embedding.weight")[0],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        unet = LayoutUNet(list(classes), [], **config)
        vae = AutoencoderKL(**vae_config)
        text_encoder = CLIPTextModel(text_config)
    prefix = "text_model." if any(name.startswith("text_model.") for name in text_encoder.state_dict()) else ""
    text = {
        name.replace(f"{TEXT}transformer.text_model.", prefix): value
        for name, value in state.items()
        if name.startswith(TEXT)
    }
    denoiser["text_null"] = torch.zeros(config["cross_attention_dim"])  # the original's null text is the empty prompt
    parts = {"denoiser": (unet, denoiser), "autoencoder": (vae, decoder), "text encoder": (text_encoder, text)}
    for part, (model, tensors) in parts.items():
        _load(model, tensors, part, file)
    _refuse_left_over(file, state, list(parts.values()), ema)
    for name, buffer in text_encoder.named_buffers():
        if buffer.is_meta:  # position ids, which are not stored
            parent = text_encoder.get_submodule(name.rpartition(".")[0])
            parent.register_buffer(name.rpartition(".")[2], torch.arange(buffer.shape[-1])[None], persistent=False)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.0120, beta_schedule="scaled_linear", prediction_type="epsilon",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    return LatentPipeline(
        unet, vae, text_encoder, tokenizer, scheduler, dropped_in_training=["text"], steps=50, guidance_scale=7.5,
        eta=0.2,
    )  # fmt: skip


def _category_vectors(file: Path, n: int, width: int) -> torch.Tensor:
    try:
        with open_regular(file) as opened:
            vectors = np.load(opened, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: cannot be read as a .npy file of numbers ({one_line(error)}).") from None
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f":
        raise UserError(f"{file}: is no .npy file of real numbers; give AeroGen's category_embeddings.npy.")
    if vectors.shape != (n, width):
        raise UserError(
            f"{file}: has shape {vectors.shape}, not ({n}, {width}), one row per class; give AeroGen's "
            "category_embeddings.npy, or the names of the rows with --classes."
        )
    vectors = vectors.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(1) | ~vectors.any(1))
    if len(wrong):
        raise UserError(f"{file}: row {wrong[0]} holds no vector (zeros, or numbers that are not finite).")
    return torch.from_numpy(vectors)


def order_warning(vectors: np.ndarray, classes: Sequence[str]) -> str:
    """A sentence where class vectors (N, D) seem to be in another order than `classes`; "" where they do not.

    In the authors' file the two kinds of expressway stations are each other's nearest (cosine similarity).
    """
    keys = [class_key(name) for name in classes]
    if not set(NEAREST_ROWS) <= set(keys):
        return ""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = unit @ unit.T - 2 * np.eye(len(unit))
    rows = [keys.index(name) for name in NEAREST_ROWS]
    if similar[rows[0]].argmax() == rows[1] and similar[rows[1]].argmax() == rows[0]:
        return ""
    return (
        f"the vectors of {classes[rows[0]]} and {classes[rows[1]]} are not each other's nearest, as in AeroGen's file: "
        "check that the rows are in this order"
    )


# converted to new tensors: 1x1 convolutions as linear layers, and the first layer of the box encoder
CONVERTED = re.compile(
    rf"^{re.escape(VAE)}(encoder|decoder)\.mid\.attn_1\.(q|k|v|proj_out)\.weight$|^{BOXES}linears\.0\.weight$"
)


def _refuse_left_over(file: Path, state: dict[str, torch.Tensor], parts: list, ema: bool) -> None:
    """Raise UserError when a tensor of the checkpoint is neither in a model nor known to be unused."""
    used = {id(value) for _, tensors in parts for value in tensors.values()}
    left = sorted(
        name
        for name, value in state.items()
        if id(value) not in used
        and not CONVERTED.match(name)
        and not UNUSED.search(name)
        and not (ema and name.startswith(UNET))  # the averaged ones are used
    )
    for model, tensors in parts:
        known = model.state_dict()
        left += sorted(name for name in tensors if name not in known and not UNUSED.search(name))
    if left:
        raise UserError(f"{file}: {len(left)} tensors have no place in the model, such as {left[0]}.")

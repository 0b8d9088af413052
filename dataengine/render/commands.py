"""`dataengine model`: convert published models for `dataengine synth --model`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Convert published models.")
importing = typer.Typer(no_args_is_help=True, help="Convert a published checkpoint to a folder for synth --model.")
app.add_typer(importing, name="import")


@importing.command()
def aerogen(
    file: Annotated[Path, typer.Argument(help="AeroGen's checkpoint, such as aerogen_diorr_last.ckpt.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    categories: Annotated[Path, typer.Option(help="category_embeddings.npy of AeroGen's repository (datasets/).")],
    tokenizer: Annotated[
        str, typer.Option(help="Folder or hub id of CLIP's tokenizer, such as openai/clip-vit-large-patch14.")
    ],
    dataset: Annotated[str, typer.Option(help="Preset with the class list of the category embeddings.")] = "dior-r",
    size: Annotated[int, typer.Option(min=64, help="Side of the training images in pixels.")] = 512,
    ema: Annotated[
        bool, typer.Option("--ema", help="Use the averaged (EMA) weights of the denoiser, if the file has them.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits, which halves the size.")] = False,
) -> None:
    """Convert AeroGen's published weights. Every tensor is checked; no code in the file is executed.

    Example: dataengine model import aerogen diorr.ckpt --categories embeddings.npy --tokenizer clip --out aerogen
    """
    from dataengine.errors import UserError, install
    from dataengine.files import cannot_write, create_folder

    for path in (file, categories):
        if not path.exists():
            raise UserError(f"{path}: does not exist; check the spelling.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already; give another --out.")
    if size % 64:
        raise UserError(f"--size {size}: must be a multiple of 64.")
    try:
        from transformers import CLIPTokenizer
    except ImportError:
        raise UserError(f"models with text need: {install('text')}.") from None
    import torch

    from dataengine.data.presets import load_preset
    from dataengine.render.aerogen_import import import_aerogen

    classes = load_preset(dataset).classes
    try:
        tokens = CLIPTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {tokenizer}: cannot be loaded ({reason}); give a folder or a hub id.") from None
    pipeline = import_aerogen(file, categories, classes, tokens, size // 8, ema)
    if half:
        pipeline.to(torch.float16)
    fresh = out.with_name(f".{out.name}.new")
    try:
        create_folder(fresh)
        pipeline.save_pretrained(fresh)
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    except OSError as error:
        raise cannot_write(error, out, "give another --out.") from None
    print(
        f"model: {out}; use it with: dataengine synth --dataset {dataset} --renderer whole --model {out} --size {size}"
    )

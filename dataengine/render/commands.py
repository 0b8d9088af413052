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
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the rows of the category embeddings, a,b,... [default: AeroGen's order of DIOR]"),
    ] = None,
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

    from dataengine.render.aerogen_import import AEROGEN_CLASSES, import_aerogen, order_warning

    names = [name.strip() for name in classes.split(",")] if classes else AEROGEN_CLASSES
    try:
        tokens = CLIPTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {tokenizer}: cannot be loaded ({reason}); give a folder or a hub id.") from None
    pipeline = import_aerogen(file, categories, tokens, size // 8, ema, names)
    if warning := order_warning(pipeline.unet.box_encoder.classes.weight.numpy(), names):
        print(f"warning: {warning}.")
    if half:
        pipeline.to(torch.float16)
    fresh = out.with_name(f".{out.name}.new")
    try:
        pipeline.save_pretrained(fresh)
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error}); free some space.") from None
    print(f"classes by row: {', '.join(names)}")
    print(f"model: {out}; use it with: dataengine synth --dataset dior-r --renderer whole --model {out} --size {size}")

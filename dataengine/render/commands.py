"""`dataengine model`: fetch and convert published models for `dataengine synth --model`."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Fetch and convert published models.")
importing = typer.Typer(no_args_is_help=True, help="Convert a published checkpoint to a folder for synth --model.")
app.add_typer(importing, name="import")


@app.command("get")
def get_command(
    name: Annotated[str, typer.Argument(help="Name of a published model; dataengine model list shows them.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model. [default: where dataengine synth finds it]")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits, which halves the size.")] = False,
    keep_download: Annotated[
        bool, typer.Option("--keep-download", help="Keep the downloaded files after the import.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Fetch without asking.")] = False,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder with the files, downloaded by hand; uses no network.")
    ] = None,
) -> None:
    """Fetch a published model from its authors' pages, verify it and convert it for dataengine synth.

    Sizes, licence and checksums are shown first. If a download is interrupted, the same command continues it.

    Example: dataengine model get aerogen-dior-r --half
    """
    from dataengine.download import agreed, check_space, download_all, download_folder, locked
    from dataengine.files import check_writable
    from dataengine.render import published

    model = published.find_published(name)
    default = published.default_folder(model)
    out = default if out is None else out
    if published.is_imported(out):
        print(f"{name} is in {out} already; remove that folder to fetch it again")
        return
    published.check_out(out)
    check_writable(out)
    if source is not None:
        published.check_files(model, source)
        sizes = [(source / file).stat().st_size for file in model.file_names]
        check_space(published.imported_bytes(model, sum(sizes), half), out, ", or --half")
        print(f"licence: {model.licence}\nimporting; these files are not compared with the published ones")
        warning = published.import_files(model, source, out, half, None)
    else:
        repositories, folder = published.describe_all(model), download_folder(out)
        needed = published.bytes_needed(model, repositories, folder, half)
        print("\n".join(published.plan(model, repositories, out, needed)))
        check_space(needed, out, ", or --half")
        if not agreed(yes):
            print("nothing was fetched")
            raise typer.Exit(1)
        with locked(folder):
            download_all(repositories, folder)
            print("verified; importing")
            warning = published.import_files(model, folder, out, half, repositories)
        if keep_download:
            print(f"downloaded files: {folder}")
        else:
            shutil.rmtree(folder)
    if warning:
        print(f"warning: {warning}.")
    if model.form == "diffusionsat":
        print(f"model: {out}; use it with: dataengine rerender FOLDER --date 2024-07-01 --model {out}")
        return
    chosen = "" if out == default else f" --model {out} --size {model.size} --layout-scale {model.layout_scale}"
    print(
        f"model: {out}; use it with: dataengine synth --dataset {model.dataset} --data FOLDER --renderer whole"
        f"{chosen} --filter off"
    )


@app.command("list")
def list_command() -> None:
    """List published models that can be fetched, and which of them are on this machine.

    Example: dataengine model list
    """
    from dataengine.files import disk_space
    from dataengine.render import published

    for model in published.PUBLISHED:
        folder = published.default_folder(model)
        print(f"{model.name}: {model.draws}")
        print(f"  images: {model.size} pixels, {model.gsd_m[0]:g} to {model.gsd_m[1]:g} m per pixel")
        sizes = [disk_space(size) for size in (model.download_bytes, model.model_bytes, model.model_bytes / 2)]
        print("  download: {}; model: {}, or {} with --half".format(*sizes))
        print(f"  licence: {model.licence}")
        print(f"  pages: {', '.join(source.page for source in model.sources)}")
        print(f"  {f'in {folder}' if published.is_imported(folder) else 'not fetched'}")


@importing.command()
def diffusionsat(
    folder: Annotated[Path, typer.Argument(help="Folder, or .zip, of a single-image model of DiffusionSat.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits, which halves the size.")] = False,
) -> None:
    """Convert DiffusionSat's published weights for dataengine rerender. No code in the files is executed.

    Example: dataengine model import diffusionsat finetune_sd21 --out models/diffusionsat
    """
    from tempfile import TemporaryDirectory

    from dataengine.errors import UserError
    from dataengine.render import published
    from dataengine.render.diffusionsat_import import import_archive, import_folder

    if not folder.exists():
        raise UserError(f"{folder}: does not exist; check the spelling.")
    published.check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".unpacked-", dir=out.parent) as work:
        read = import_folder if folder.is_dir() else import_archive
        published.write_model(read(folder, Path(work)), out, half)
    print(f"model: {out}; use it with: dataengine rerender FOLDER --date 2024-07-01 --model {out}")


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
    from dataengine.data.layout import class_key
    from dataengine.render.aerogen_import import AEROGEN_CLASSES, import_aerogen, order_warning
    from dataengine.render.published import write_model

    names = [name.strip() for name in classes.split(",")] if classes else AEROGEN_CLASSES
    if twice := sorted(name for name, count in Counter(map(class_key, names)).items() if count > 1):
        raise UserError(f"--classes: {', '.join(twice)} is there twice; give each row its own name.")
    try:
        tokens = CLIPTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--tokenizer {tokenizer}: cannot be loaded ({reason}); give a folder or a hub id.") from None
    pipeline = import_aerogen(file, categories, tokens, size // 8, ema, names)
    if warning := order_warning(pipeline.unet.box_encoder.classes.weight.numpy(), names):
        print(f"warning: {warning}.")
    write_model(pipeline, out, half)
    print(f"classes by row: {', '.join(names)}")
    print(f"model: {out}; use it with: dataengine synth --dataset dior-r --renderer whole --model {out} --size {size}")

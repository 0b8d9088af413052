"""DiffusionSat's published folders, and the archives that hold them, as safetensors. Pickled code is never executed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

from dataengine.errors import UserError
from dataengine.render.aerogen_import import read_state_dict
from dataengine.render.diffusionsat import DiffusionSatPipeline, load_diffusionsat, unet_folder

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
KINDS = (".json", ".txt", ".bin", ".safetensors")
MAX_UNPACKED_BYTES = 40 << 30  # of all files that are needed from an archive


def import_archive(archive: Path, work: Path) -> DiffusionSatPipeline:
    """The model in a .zip, unpacked into the folder `work`. Raises UserError for another file."""
    try:
        with ZipFile(archive) as opened:
            members = [info for info in opened.infolist() if _is_needed(info.filename)]
            if sum(info.file_size for info in members) > MAX_UNPACKED_BYTES:
                raise UserError(f"{archive}: unpacks to more than {MAX_UNPACKED_BYTES >> 30} GB; download it again.")
            for info in members:
                opened.extract(info, work / "archive")  # which drops leading "/" and ".."
    except (BadZipFile, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); download it again.") from None
    found = sorted((work / "archive").rglob("vae/config.json"), key=lambda file: len(file.parts))
    if not found:
        raise UserError(f"{archive}: holds no folder with a vae/ in it; give a single-image model of DiffusionSat.")
    return import_folder(found[0].parents[1], work)


def _is_needed(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix in KINDS and path.parent.name in PARTS and "optimizer" not in path.name


def import_folder(folder: Path, work: Path) -> DiffusionSatPipeline:
    """The model in a folder of diffusers' form, with weights as safetensors or pickled. work: a folder for copies.

    Raises UserError for a folder that holds no single-image model of DiffusionSat.
    """
    sources = {"unet": unet_folder(folder), **{part: folder / part for part in PARTS[1:]}}
    model = work / "model"
    for part, source in sources.items():
        if not source.is_dir():
            raise UserError(f"{folder}: has no {part}/; give the whole folder of a single-image model of DiffusionSat.")
        (model / part).mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix in (".json", ".txt"):
                shutil.copy(file, model / part / file.name)
        _weights(source, model / part)
    return load_diffusionsat(model)


def _weights(source: Path, target: Path) -> None:
    """The weights of a part as one file of safetensors; none for a part without weights."""
    from safetensors.torch import save_file

    tensors = sorted(source.glob("*.safetensors"))
    for file in tensors:
        try:
            os.link(file, target / file.name)
        except OSError:  # on another disk
            shutil.copy(file, target / file.name)
    pickled = sorted(source.glob("*.bin"))
    if tensors or not pickled:
        return
    state = {name: value.contiguous() for file in pickled for name, value in read_state_dict(file).items()}
    state.pop("text_model.embeddings.position_ids", None)  # no weight; later versions refuse it
    name = "model" if source.name == "text_encoder" else "diffusion_pytorch_model"
    save_file(state, target / f"{name}.safetensors", metadata={"format": "pt"})

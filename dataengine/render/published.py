"""Models that their authors published and `dataengine model get` fetches, imports and keeps for `dataengine synth`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from dataengine.download import bytes_missing, find_named, free_bytes, stated
from dataengine.errors import UserError, install
from dataengine.files import cannot_write, create_folder, disk_space, user_cache
from dataengine.folders import sha256_of
from dataengine.hosts import RemoteRepository, Source, Unreachable, describe
from dataengine.render import PROVENANCE_FILE

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class PublishedModel:
    """A published model in a form that we import.

    form: how it is imported. draws: for people. dataset: preset whose layouts and classes it draws, "" for none. size:
    side of its images in pixels. layout_scale: shows a whole image of the data set in that size. gsd_m: smallest and
    largest metres per pixel of its images. licence: what its authors state, for people. download_bytes: about, for the
    list. model_bytes: after the import, in 32 bits. checkpoint: its file name among the sources' files. categories:
    that of AeroGen's class vectors; the others are the tokenizer's.
    """

    name: str
    draws: str
    dataset: str
    size: int
    layout_scale: float
    gsd_m: tuple[float, float]
    licence: str
    download_bytes: int
    model_bytes: int
    checkpoint: str
    categories: str
    sources: tuple[Source, ...]
    form: Literal["aerogen", "diffusionsat"] = "aerogen"

    @property
    def file_names(self) -> list[str]:
        """Names of all files; they lie in one folder."""
        return [Path(path).name for source in self.sources for path in source.paths]

    @property
    def by_hand(self) -> str:
        """How to do without the network, as the rest of a sentence."""
        urls = ", ".join(url for source in self.sources for url in source.urls)
        return f"download {urls} into one folder, and import them with: dataengine model get {self.name} --from FOLDER"


def _diffusionsat(size: int, record: str, archive: str) -> PublishedModel:
    return PublishedModel(
        name=f"diffusionsat-{size}",
        draws="satellite images by date, place, cloud and metres per pixel (DiffusionSat, Khanna et al., ICLR 2024); "
        "it re-renders pictures, and knows no boxes",
        dataset="",
        size=size,
        layout_scale=1.0,
        gsd_m=(0.3, 10),
        licence="see its record on Zenodo; Stable Diffusion 2.1, from which it was trained, is under Open RAIL++-M",
        download_bytes=5_000_000_000,
        model_bytes=5_220_000_000,  # 880 million values of the U-Net, 340 of the text encoder, 84 of the autoencoder
        checkpoint=archive,
        categories="",
        sources=(Source("zenodo", record, (archive,)),),
        form="diffusionsat",
    )


PUBLISHED = (
    PublishedModel(
        name="aerogen-dior-r",
        draws="aerial images with rotated boxes of DIOR's 20 classes (AeroGen, Tang et al., CVPR 2025)",
        dataset="dior-r",
        size=512,
        layout_scale=0.64,
        gsd_m=(0.8, 47),  # DIOR's 0.5 to 30 m, 800 pixels scaled to 512
        licence="unclear: the authors state none for code or weights; ask them before you publish what it makes",
        download_bytes=9_500_000_000,
        model_bytes=4_460_000_000,  # 1,113 million values, and the tokenizer (tools/bench/import_aerogen.py)
        checkpoint="aerogen_diorr_last.ckpt",
        categories="category_embeddings.npy",
        sources=(
            Source("hub", "Sonetto702/AeroGen", ("aerogen_diorr_last.ckpt",)),
            Source("github", "Sonettoo/AeroGen", ("datasets/category_embeddings.npy",)),
            Source(
                "hub",
                "openai/clip-vit-large-patch14",
                ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
            ),
        ),
    ),
    _diffusionsat(512, "13751498", "finetune_sd21_sn-satlas-fmow_snr5_md7norm_bs64.zip"),
    _diffusionsat(256, "13756199", "finetune_sd21_256_sn-satlas-fmow_snr5_md7norm_bs64.zip"),
)


def find_published(name: str) -> PublishedModel:
    """The published model of a name. Raises UserError, with all names, for another.

    >>> find_published("aerogen-dior-r").size
    512
    """
    return find_named(name, PUBLISHED, "model")


def default_folder(model: PublishedModel) -> Path:
    """Where a model is kept, and found by `dataengine synth`, unless another folder is given."""
    return user_cache() / "models" / model.name


def is_imported(folder: Path) -> bool:
    """Whether a folder holds a model that `model get` made."""
    return (folder / PROVENANCE_FILE).is_file()


def describe_all(model: PublishedModel) -> list[RemoteRepository]:
    """What the hosts state about the files of a model. Raises UserError, with what to do by hand, without network."""
    try:
        return [describe(source) for source in model.sources]
    except Unreachable as error:
        raise UserError(f"no answer from {error}: {model.by_hand}.") from None


def plan(model: PublishedModel, repositories: Sequence[RemoteRepository], out: Path, needed: int) -> list[str]:
    """What would be fetched, line by line: pages, commits, licences, and size and checksum of each file."""
    lines = [f"{model.name}: {model.draws}", f"licence: {model.licence}"]
    lines += stated(repositories)
    lines.append(f"into {out}: needs {disk_space(needed)} until it is imported, {disk_space(free_bytes(out))} are free")
    return lines


def check_out(out: Path) -> None:
    """Raises UserError for a folder that cannot take a model, or where transformers is missing: before any download."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise UserError(f"models with text need: {install('text')}.") from None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already and is no fetched model; give another --out.")


def imported_bytes(model: PublishedModel, download_bytes: int, half: bool) -> int:
    """Disk space for the imported model, which is never larger than what it is made of."""
    return min(model.model_bytes // 2 if half else model.model_bytes, download_bytes)


def bytes_needed(model: PublishedModel, repositories: Sequence[RemoteRepository], folder: Path, half: bool) -> int:
    """Disk space for what is still to be downloaded to a folder, and for the imported model next to it."""
    files = [file for repository in repositories for file in repository.files]
    missing = sum(bytes_missing(file, folder) for file in files)
    if model.form == "diffusionsat":  # the archive is unpacked next to it
        missing += sum(file.size for file in files)
    return missing + imported_bytes(model, sum(file.size for file in files), half)


def check_files(model: PublishedModel, folder: Path) -> None:
    """Raises UserError where files of a model are missing from a folder."""
    missing = [name for name in model.file_names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: {', '.join(missing)} missing there; {model.by_hand}.")


def import_files(
    model: PublishedModel, folder: Path, out: Path, half: bool, repositories: Sequence[RemoteRepository] | None
) -> str:
    """Import the files in a folder and write the model with its provenance; a warning, or "".

    repositories: what the files were verified against; None for a user's own copies, of which nobody knows the commit.
    Raises UserError as `import_aerogen` does.
    """
    if model.form == "diffusionsat":
        from dataengine.render.diffusionsat_import import import_archive

        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unpacked-", dir=out.parent) as work:
            pipeline = import_archive(folder / model.checkpoint, Path(work))
            write_model(pipeline, out, half, _provenance(model, folder, half, repositories))
        return ""
    from transformers import CLIPTokenizer

    from dataengine.render.aerogen_import import AEROGEN_CLASSES, import_aerogen, order_warning

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder}: the tokenizer cannot be loaded ({str(error).strip().splitlines()[0]}).") from None
    pipeline = import_aerogen(folder / model.checkpoint, folder / model.categories, tokenizer, model.size // 8)
    write_model(pipeline, out, half, _provenance(model, folder, half, repositories))
    return order_warning(pipeline.unet.box_encoder.classes.weight.float().numpy(), AEROGEN_CLASSES)


def _provenance(
    model: PublishedModel, folder: Path, half: bool, repositories: Sequence[RemoteRepository] | None
) -> dict:
    described = repositories or [None] * len(model.sources)
    checksums = {file.name: file.checksum for repository in repositories or () for file in repository.files}

    def about(path: str) -> dict:
        file = folder / Path(path).name
        kind, _, digest = checksums.get(file.name, "").partition(":")
        return {"name": path, "size": file.stat().st_size, "sha256": digest if kind == "sha256" else sha256_of(file)}

    return {
        "name": model.name,
        "date": date.today().isoformat(),
        "bits": 16 if half else 32,
        "licence": model.licence,
        "verified": repositories is not None,
        "repositories": [
            {
                "page": source.page,
                "commit": repository.commit if repository else None,
                "stated_licence": (repository.licence or None) if repository else None,
                "files": [about(path) for path in source.paths],
            }
            for source, repository in zip(model.sources, described, strict=True)
        ],
    }


def write_model(pipeline: DiffusionPipeline, out: Path, half: bool, provenance: dict | None = None) -> None:
    """Write an imported model as a folder that appears complete or not at all. Raises UserError if the disk is full."""
    import torch

    if half:
        pipeline.to(torch.float16)
    unfinished = out.with_name(f".{out.name}.new")
    try:
        create_folder(unfinished)
        pipeline.save_pretrained(unfinished)
        if provenance is not None:
            (unfinished / PROVENANCE_FILE).write_text(json.dumps(provenance, indent=2) + "\n")
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except OSError as error:
        raise cannot_write(error, out, "give another --out.") from None

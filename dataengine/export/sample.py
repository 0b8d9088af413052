"""A small labelled data set drawn by the packaged models, marked as synthetic in every file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from dataengine import __version__
from dataengine.data import coco
from dataengine.data.presets import load_preset
from dataengine.data.staging import check_empty
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.export.release.marks import GENERATED, marked, xmp_packet
from dataengine.files import cannot_write, check_writable, remove

TRAIN_SHARE = 0.7
FEW = 32  # images for which a second process takes longer to load than to draw
LICENCE_URL = "https://creativecommons.org/licenses/by/4.0/"
README = """# A synthetic sample

{n} images with labels, drawn by dataengine {version} with its packaged models of {title}. **No image is real.**
Use them to learn the commands. They imitate few kinds of scenes, and figures that are measured on them say nothing
about real images.

- Every PNG file says so itself: its XMP packet names the IPTC digital source type `trainedAlgorithmicMedia`, and a text
  chunk `dataengine` has the seed.
- Splits: {splits}. Classes: {classes}.
- Made by `dataengine data sample --dataset {dataset} --n {n} --seed {seed}`.
- The models were trained on {title} ({licence}, {source}).
"""


def draw_sample(
    out: Path, dataset: str, n: int, seed: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, int]:
    """Draw n labelled images of a packaged preset into a new or empty folder, in COCO form with the splits train and
    val; {split: its images}. The same arguments draw the same images.

    progress: called with the number of images drawn and of all. Raises UserError for a folder that is not empty, a disk
    that is full, and where the models accept too few of their own images.
    """
    check_empty(out, "sample")
    check_writable(out)
    preset = load_preset(dataset)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".sample-", dir=out.parent) as work:
            result = synth(
                Recipe(dataset=dataset, n=n, seed=seed), Path(work) / "run", 1 if n <= FEW else None, datasets=False,
                progress=lambda accepted, tried: progress(accepted, n),
            )  # fmt: skip
            if result.accepted < n:
                raise UserError(f"only {result.accepted} of {n} images were accepted; give another --seed.")
            made = RunFolder(result.out).accepted_images()
            samples = []
            for sample in made:
                file = Path(work) / "marked" / f"{sample.name}.png"
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(_marked(sample.image.read_bytes(), preset.name, seed, sample.name))
                source = f"synthetic: dataengine, packaged models of {preset.title}"
                samples.append(replace(sample, image=file, source=source, license=preset.licence))
            cut = round(TRAIN_SHARE * n)
            parts = {"train": samples[:cut], "val": samples[cut:]}
            folder = Path(work) / "sample"
            for name, part in parts.items():
                coco.write(replace(made, samples=part, name=f"synthetic sample of {preset.title}"), folder, split=name)
            counts = {name: len(part) for name, part in parts.items()}
            text = README.format(
                n=n, version=__version__, title=preset.title, splits=", ".join(f"{k} {v}" for k, v in counts.items()),
                classes=", ".join(made.classes), dataset=dataset, seed=seed, licence=preset.licence,
                source=preset.source,
            )  # fmt: skip
            (folder / "README.md").write_text(text, "utf-8")
            remove(out)
            folder.rename(out)
    except OSError as error:
        raise cannot_write(error, out, "give another --out.") from None
    return counts


def _marked(png: bytes, dataset: str, seed: int, name: str) -> bytes:
    tool = f"dataengine {__version__}"
    details = {"synthetic": True, "dataset": dataset, "seed": seed, "image": name, "tool": tool}
    return marked(png, xmp_packet(GENERATED, f"trained on {dataset}: CC BY 4.0", LICENCE_URL, tool), details)

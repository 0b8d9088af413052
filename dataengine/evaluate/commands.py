"""`dataengine evaluate`: figures of generated pictures beside those of real ones and of controls."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dataengine.evaluate.pictures import Picture
    from dataengine.evaluate.results import Result
    from dataengine.judge.detector import OnnxDetector

app = typer.Typer(
    help="Measure generated pictures against real ones that no model was trained on. MADE is a run folder, a labelled "
    "data set in any known format, or (without the layout score) a plain folder of images, also of another system. "
    "Every figure stands beside that of real pictures and of a control, which must come out worse.",
    no_args_is_help=True,
)


class FitChoice(StrEnum):
    window = "window"
    resize = "resize"


class GroupChoice(StrEnum):
    image = "image"
    flight = "flight"


Made = Annotated[Path, typer.Argument(help="Generated pictures: a run folder, a data set, or a folder of images.")]
Real = Annotated[Path, typer.Option(help="Real pictures to compare with: a data set that no model was trained on.")]
Training = Annotated[Path, typer.Option(help="The data set that the generator was trained on.")]
Split = Annotated[str | None, typer.Option(help="Only this split of MADE. Left out, all of them.")]
RealSplit = Annotated[str | None, typer.Option(help="Only this split of --real, such as test.")]
TrainingSplit = Annotated[str | None, typer.Option(help="Only this split of --training, such as train.")]
AllAttempts = Annotated[bool, typer.Option("--all-attempts", help="Of a run: dropped images too, as before filtering.")]
FeaturesName = Annotated[
    str,
    typer.Option(
        "--features", help="lite2, lite0, encoder, encoder-grid, clip:FOLDER, dinov2:FOLDER or inception:FILE."
    ),
]
DetectorFolder = Annotated[
    Path | None,
    typer.Option("--detector", help="Folder with model.onnx and config.json. Left out, the packaged evaluation one."),
]
Images = Annotated[int, typer.Option(min=8, help="At most this many pictures a side, drawn at random.")]
Size = Annotated[
    tuple[int, int] | None,
    typer.Option(help="WIDTH HEIGHT of the pictures compared [what all generated ones have]."),
]
Fit = Annotated[
    FitChoice, typer.Option(help="Larger pictures: windows at native resolution, or the whole picture made smaller.")
]
Windows = Annotated[int, typer.Option(min=1, help="Random windows of each larger picture.")]
Group = Annotated[
    GroupChoice, typer.Option(help="What halves of the real data never divide: an image, or a HIT-UAV flight.")
]
Seed = Annotated[int, typer.Option(help="Which pictures, windows and halves are drawn.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.command("fidelity")
def fidelity_command(
    made: Made,
    real: Real,
    split: Split = None,
    real_split: RealSplit = None,
    all_attempts: AllAttempts = False,
    features: FeaturesName = "lite2",
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    group: Group = GroupChoice.image,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do they look real? Frechet and kernel distances, CMMD, precision and density of the manifold.

    FID, KID and CMMD are only called so with the features that papers use: inception:FILE and clip:FOLDER.

    Example: dataengine evaluate fidelity runs/first --real path/to/held-out
    """
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.fidelity import fidelity
    from dataengine.evaluate.pictures import without_detail
    from dataengine.evaluate.report import embedded

    network = load_features(features)
    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    bar = _bar(json)
    embeddings = embedded(network, ours, bar, "generated"), embedded(network, theirs, bar, "real")
    blurred = embedded(network, theirs, bar, "real, without detail", without_detail)
    _print([fidelity(*embeddings, blurred, [x.group for x in theirs], network, seed)], json)


@app.command("diversity")
def diversity_command(
    made: Made,
    real: Real,
    split: Split = None,
    real_split: RealSplit = None,
    all_attempts: AllAttempts = False,
    features: FeaturesName = "lite2",
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    group: Group = GroupChoice.image,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do they differ as real ones do? Recall and coverage of the manifold, Vendi score, distance of pairs.

    Example: dataengine evaluate diversity runs/first --real path/to/held-out
    """
    from dataengine.evaluate.diversity import diversity
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import embedded

    network = load_features(features)
    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    bar = _bar(json)
    embeddings = embedded(network, ours, bar, "generated"), embedded(network, theirs, bar, "real")
    _print([diversity(*embeddings, [x.group for x in theirs], network, seed)], json)


@app.command("memorisation")
def memorisation_command(
    made: Made,
    real: Real,
    training: Training,
    split: Split = None,
    real_split: RealSplit = None,
    training_split: TrainingSplit = None,
    all_attempts: AllAttempts = False,
    features: FeaturesName = "encoder-grid",
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Are they copies? Distance to the nearest training picture, beside that of held-out ones and of noisy copies.

    All training pictures are compared, in as many windows as --windows says; a copy of a part that no window shows is
    not found.

    Example: dataengine evaluate memorisation runs/first --real path/to/held-out --training path/to/train
    """
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import copies_of_training

    network = load_features(features)
    group = GroupChoice.image
    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    trained = _trained(training, training_split, ours, size, fit, windows)
    _print([copies_of_training(ours, theirs, trained, network, seed, _bar(json))[0]], json)


@app.command("layout")
def layout_command(
    made: Made,
    real: Real,
    split: Split = None,
    real_split: RealSplit = None,
    all_attempts: AllAttempts = False,
    detector: DetectorFolder = None,
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    group: Group = GroupChoice.image,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do they show their labels? AP of a detector that had no part in making them, as DOTA and as COCO count it.

    Give a detector that was trained on real pictures only, and not the one that filtered.

    Example: dataengine evaluate layout runs/first --real path/to/held-out
    """
    from dataengine.evaluate.layout_score import layout_score

    judge = _detector(detector)
    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    _print(layout_score(ours, theirs, judge, seed, _bar(json)), json)


@app.command("classification")
def classification_command(
    made: Made,
    real: Real,
    split: Split = None,
    real_split: RealSplit = None,
    all_attempts: AllAttempts = False,
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    group: Group = GroupChoice.image,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Do their objects teach what real ones look like? Classification accuracy score (CAS).

    Example: dataengine evaluate classification runs/first --real path/to/held-out
    """
    from dataengine.evaluate.classification_score import classification_score

    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    _print(classification_score(ours, theirs, seed, _bar(json)), json)


@app.command("report")
def report_command(
    made: Made,
    real: Real,
    out: Annotated[Path, typer.Option(help="The HTML file to write; it needs nothing beside it.")],
    training: Annotated[Path | None, typer.Option(help="The data set that the generator was trained on.")] = None,
    split: Split = None,
    real_split: RealSplit = None,
    training_split: TrainingSplit = None,
    all_attempts: AllAttempts = False,
    features: FeaturesName = "lite2",
    detector: DetectorFolder = None,
    images: Images = 1000,
    size: Size = None,
    fit: Fit = FitChoice.window,
    windows: Windows = 2,
    group: Group = GroupChoice.image,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """All of them in one HTML file, with plots, pictures, and what lies nearest to training pictures.

    Example: dataengine evaluate report runs/first --real path/to/held-out --training path/to/train --out report.html
    """
    from dataengine.errors import UserError
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import sections, write_report

    if not out.parent.is_dir():
        raise UserError(f"{out}: {out.parent} is no folder; make it first, or give another --out.")
    network, judge = load_features(features), _detector(detector)
    ours, theirs = _sides(made, real, split, real_split, all_attempts, images, size, fit, windows, group, seed)
    trained = _trained(training, training_split, ours, size, fit, windows) if training else []
    found = sections(ours, theirs, trained, network, judge, seed, _bar(json))
    settings = {
        "generated": f"{made.resolve().name}{', all attempts' if all_attempts else ''}: {len(ours)} pictures",
        "real": f"{real.resolve().name}: {len(theirs)} pictures",
        "training": f"{training.resolve().name}: {len(trained)} pictures" if training else "not given",
        "size": " x ".join(map(str, ours[0].layout.size)) + f", by {fit.value}",
        "features": network.name,
        "seed": str(seed),
    }
    write_report(out, f"Evaluation of {made.resolve().name}", settings, found)
    _print([result for section in found for result in section.results], json)
    for section in found:
        if section.left_out:
            typer.echo(f"{section.heading} is left out: {section.left_out}", err=True)
    typer.echo(f"report: {out}", err=json)


def _sides(
    made: Path, real: Path, split: str | None, real_split: str | None, all_attempts: bool, images: int,
    size: tuple[int, int] | None, fit: str, of_each: int, group: str, seed: int,
) -> tuple[list[Picture], list[Picture]]:  # fmt: skip
    """Generated and real pictures of one size."""
    from dataengine.evaluate.pictures import chosen, common_size, read_made, read_real, windows

    ours, theirs = read_made(made, split, all_attempts), read_real(real, real_split)
    for path, dataset in ((made, ours), (real, theirs)):
        _say_problems(path, dataset)
    size = size or common_size(ours)
    pictures = windows(ours, size, fit, 1, "image", seed), windows(theirs, size, fit, of_each, group, seed)
    return chosen(pictures[0], images, seed), chosen(pictures[1], images, seed)


def _trained(
    path: Path, split: str | None, ours: list[Picture], size: tuple[int, int] | None, fit: str, of_each: int
) -> list[Picture]:
    from dataengine.evaluate.pictures import read_real, windows

    dataset = read_real(path, split)
    _say_problems(path, dataset)
    return windows(dataset, size or ours[0].layout.size, fit, of_each)


def _say_problems(path: Path, dataset) -> None:
    if dataset.problems:
        first, n = dataset.problems[0], len(dataset.problems)
        typer.echo(f"{first} ({n} problems; see all with: dataengine data check {path})", err=True)


def _detector(folder: Path | None) -> OnnxDetector:
    from dataengine.judge.detector import OnnxDetector
    from dataengine.weights import packaged

    return OnnxDetector(folder or packaged("evaluation-detector"), threads=1)


def _bar(hidden: bool):
    """Wraps a sequence in a bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)

    def run(sequence: Sequence, title: str):
        return track(sequence, title, console=console, disable=hidden, transient=True)

    return run


def _print(results: list[Result], as_json: bool) -> None:
    import json as json_module

    from dataengine.evaluate.results import show

    if as_json:
        typer.echo(json_module.dumps([result.as_json() for result in results], indent=2))
        return
    for result in results:
        show(result)

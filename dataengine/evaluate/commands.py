"""`dataengine evaluate`: metrics of generated images, next to those of real images and of controls."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dataengine.data.commands import Format, FormatName, RealFormat
from dataengine.errors import require
from dataengine.evaluate.lift_command import lift_command

if TYPE_CHECKING:
    from dataengine.evaluate.windows import Window
    from dataengine.judge.detector import Detector

app = typer.Typer(
    help="Measure generated images against real images that no model was trained on. MADE is a run folder, a labelled "
    "data set, or (except for layout scores) a folder of images, also from other systems. Each metric stands next to "
    "that of real images and of a control, which must be worse.",
    no_args_is_help=True,
)
app.command("lift")(lift_command)
LINE_S = 10.0  # between two lines of progress where there is no terminal


FeaturesName = Annotated[
    str,
    typer.Option(
        "--features", help="Feature network: lite2, lite0, encoder, encoder-grid, clip:DIR, dinov2:DIR, inception:FILE."
    ),
]
DetectorFolder = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        help="Folder of an ONNX detector or of an mmrotate training. [default: the packaged evaluation detector]",
    ),
]
TrainingFormat = Annotated[
    FormatName | None, typer.Option(help="Format of --training. [default: recognised by content]")
]
TrainingSplit = Annotated[
    str | None, typer.Option(help="Use only this split of --training, such as train. [default: all]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@dataclass(frozen=True)
class Sides:
    """Generated and real images to compare, all of one size.

    cut: function from a data set's path, split and format to its images, prepared like those of `real`. name,
    real_name: titles of both sides. how: description of how the images were brought to one size.
    """

    made: list[Window]
    real: list[Window]
    cut: Callable[[Path, str | None, str | None], list[Window]]
    seed: int
    name: str
    real_name: str
    how: str


def _sides(
    made: Annotated[Path, typer.Argument(metavar="MADE", help="Run folder, data set, or folder of images.")],
    real: Annotated[Path, typer.Option(help="Real images: a data set that no model was trained on.")],
    format: Format = None,
    split: Annotated[str | None, typer.Option(help="Use only this split of MADE. [default: all]")] = None,
    real_format: RealFormat = None,
    real_split: Annotated[
        str | None, typer.Option(help="Use only this split of --real, such as test. [default: all]")
    ] = None,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Include the images that the filter of a run dropped.")
    ] = False,
    images: Annotated[
        int, typer.Option(min=8, help="Use at most this many images of each side, chosen at random.")
    ] = 1000,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="WIDTH HEIGHT", help="Size of the compared images. [default: that of the generated images]"
        ),
    ] = None,
    fit: Annotated[
        Literal["window", "resize"], typer.Option(help="Cut windows out of larger images, or resize the whole image.")
    ] = "window",
    windows: Annotated[int, typer.Option(min=1, help="Number of random windows of each larger real image.")] = 2,
    group: Annotated[
        Literal["image", "flight"], typer.Option(help="Unit that is never split between halves of the real images.")
    ] = "image",
    seed: Annotated[int, typer.Option(help="Random seed of images, windows and halves.")] = 0,
) -> Sides:
    """Generated and real images of one size."""
    from dataengine.evaluate.windows import common_size, cut_windows, random_windows, read_generated, read_real

    ours = read_generated(made, split, all_attempts, format)
    theirs = read_real(real, real_split, real_format)
    _print_problems(made, ours)
    _print_problems(real, theirs)
    size = size or common_size(ours)

    def cut(path: Path, part: str | None, form: str | None) -> list[Window]:
        dataset = read_real(path, part, form)
        _print_problems(path, dataset)
        return cut_windows(dataset, size, fit, windows, "image", seed)

    generated = random_windows(ours, images, size, fit, 1, "image", seed)
    held_out = random_windows(theirs, images, size, fit, windows, group, seed)
    name = made.resolve().name + (", all attempts" if all_attempts else "")
    how = f"{size[0]} x {size[1]} pixels, {'windows of' if fit == 'window' else 'resized from'} larger images"
    return Sides(generated, held_out, cut, seed, name, real.resolve().name, how)


def compares(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the arguments and options of `_sides` before its own; it receives the resulting `Sides`."""
    shared = inspect.signature(_sides, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def run(**values) -> None:
        command(_sides(**{name: values.pop(name) for name in shared}), **values)

    keyword = inspect.Parameter.KEYWORD_ONLY  # so that options with and without a default may follow in any order
    run.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in (*shared.values(), *own)])
    return run


@app.command("fidelity")
@compares
def fidelity_command(sides: Sides, features: FeaturesName = "lite2", json: Json = False) -> None:
    """Measure realism: Frechet and kernel distances, CMMD, manifold precision and density.

    The names FID, KID and CMMD are used only with the feature networks of the papers: inception:FILE and clip:DIR.

    Example: dataengine evaluate fidelity runs/first --real path/to/held-out
    """
    require("evaluate", "torchmetrics")
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.fidelity import fidelity
    from dataengine.evaluate.report import embedded
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.windows import remove_detail

    network, bar = load_features(features), _bar(json)
    made, real = embedded(network, sides.made, bar, "generated"), embedded(network, sides.real, bar, "real")
    blurred = embedded(network, sides.real, bar, "real, without detail", remove_detail)
    print_results([fidelity(made, real, blurred, [x.group for x in sides.real], network, sides.seed)], json)


@app.command("diversity")
@compares
def diversity_command(sides: Sides, features: FeaturesName = "lite2", json: Json = False) -> None:
    """Measure diversity: manifold recall and coverage, Vendi score, distance of pairs.

    Example: dataengine evaluate diversity runs/first --real path/to/held-out
    """
    from dataengine.evaluate.diversity import diversity
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import embedded
    from dataengine.evaluate.results import print_results

    network, bar = load_features(features), _bar(json)
    made, real = embedded(network, sides.made, bar, "generated"), embedded(network, sides.real, bar, "real")
    print_results([diversity(made, real, [x.group for x in sides.real], network, sides.seed)], json)


@app.command("sharpness")
@compares
def sharpness_command(sides: Sides, json: Json = False) -> None:
    """Measure sharpness: fine contrast of each class's objects and of the ground around them.

    Example: dataengine evaluate sharpness runs/first --real path/to/held-out
    """
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.sharpness import sharpness

    print_results([sharpness(sides.made, sides.real, sides.seed, _bar(json))], json)


@app.command("memorisation")
@compares
def memorisation_command(
    sides: Sides,
    training: Annotated[Path, typer.Option(help="Data set that the generator was trained on.")],
    training_format: TrainingFormat = None,
    training_split: TrainingSplit = None,
    features: FeaturesName = "encoder-grid",
    json: Json = False,
) -> None:
    """Measure memorisation: distance to the nearest training image, and parts that are copied from training images.

    The first table compares whole images with --windows windows of each training image. The second one matches local
    features with all of each training image, and finds parts that were cut out elsewhere, mirrored, turned, scaled or
    lit differently.

    Example: dataengine evaluate memorisation runs/first --real path/to/held-out --training path/to/train
    """
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import copied_parts_of_training, copies_of_training
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.windows import read_real

    network, trained = load_features(features), sides.cut(training, training_split, training_format)
    whole, _ = copies_of_training(sides.made, sides.real, trained, network, sides.seed, _bar(json))
    images = read_real(training, training_split, training_format)
    parts, _ = copied_parts_of_training(sides.made, sides.real, images, sides.seed, _bar(json))
    print_results([whole, parts], json)


@app.command("layout")
@compares
def layout_command(sides: Sides, detector: DetectorFolder = None, json: Json = False) -> None:
    """Measure label accuracy: average precision (DOTA and COCO) of a detector that was not used to make the images.

    Use a detector that was trained only on real images, and not the one of the filter.

    Example: dataengine evaluate layout runs/first --real path/to/held-out
    """
    require("evaluate", "faster_coco_eval")
    from dataengine.evaluate.layout_score import layout_score
    from dataengine.evaluate.results import print_results

    print_results(layout_score(sides.made, sides.real, _detector(detector), sides.seed, _bar(json)), json)


@app.command("classification")
@compares
def classification_command(sides: Sides, json: Json = False) -> None:
    """Measure object quality: accuracy on real objects of a classifier trained on generated ones (CAS).

    Example: dataengine evaluate classification runs/first --real path/to/held-out
    """
    from dataengine.evaluate.classification_score import classification_score
    from dataengine.evaluate.results import print_results

    print_results(classification_score(sides.made, sides.real, sides.seed, _bar(json)), json)


@app.command("report")
@compares
def report_command(
    sides: Sides,
    out: Annotated[Path, typer.Option(help="HTML file to write, complete in itself.")],
    training: Annotated[Path | None, typer.Option(help="Data set that the generator was trained on.")] = None,
    training_format: TrainingFormat = None,
    training_split: TrainingSplit = None,
    features: FeaturesName = "lite2",
    detector: DetectorFolder = None,
    json: Json = False,
) -> None:
    """Write all metrics to one HTML file, with plots, sample images and the nearest training images.

    Example: dataengine evaluate report runs/first --real path/to/held-out --training path/to/train --out report.html
    """
    require("evaluate", "torchmetrics", "faster_coco_eval", "matplotlib", "jinja2")
    from dataengine.errors import UserError
    from dataengine.evaluate.features import load_features
    from dataengine.evaluate.report import sections, write_report
    from dataengine.evaluate.results import print_results
    from dataengine.evaluate.summary import summary

    if not out.parent.is_dir():
        raise UserError(f"{out}: {out.parent} is no folder; create it, or give another --out.")
    network, judge = load_features(features), _detector(detector)
    trained = sides.cut(training, training_split, training_format) if training else []
    found = sections(sides.made, sides.real, trained, network, judge, sides.seed, _bar(json))
    settings = {
        "generated": f"{sides.name}: {len(sides.made)} images",
        "real": f"{sides.real_name}: {len(sides.real)} images",
        "training": f"{training.resolve().name}: {len(trained)} images" if training else "not given",
        "compared": sides.how,
        "features": network.name,
        "seed": str(sides.seed),
    }
    lines = summary(found)
    write_report(out, f"Evaluation of {sides.name}", settings, found, summary=lines)
    for line in lines:
        typer.echo(line, err=json)
    print_results([result for section in found for result in section.results], json)
    for section in found:
        if section.left_out:
            typer.echo(f"{section.heading} is skipped: {section.left_out}", err=True)
    typer.echo(f"report: {out}", err=json)


def _print_problems(path: Path, dataset) -> None:
    for note in dataset.notes:
        typer.echo(f"{path}: {note}", err=True)
    if dataset.problems:
        first, n = dataset.problems[0], len(dataset.problems)
        typer.echo(f"{first} ({n} problems; see all with: dataengine data check {path})", err=True)


def _detector(folder: Path | None) -> Detector:
    from dataengine.judge.detector import load_detector
    from dataengine.weights import packaged

    return load_detector(folder or packaged("evaluation-detector"), threads=1)


def _bar(hidden: bool):
    """A function that shows progress over a sequence on standard error: a bar in a terminal, else a line now and
    then, so that a log shows it, too."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)

    def run(sequence: Sequence, title: str):
        if hidden or console.is_terminal:
            return track(sequence, title, console=console, disable=hidden, transient=True)
        return _told(sequence, title)

    return run


def _told(sequence: Sequence, title: str) -> Iterator:
    """The sequence; a line on standard error at its beginning, and each `LINE_S` seconds."""
    typer.echo(f"{title}: {len(sequence)}", err=True)
    last = time.monotonic()
    for done, one in enumerate(sequence):
        if time.monotonic() - last > LINE_S:
            typer.echo(f"{title}: {done} of {len(sequence)}", err=True)
            last = time.monotonic()
        yield one

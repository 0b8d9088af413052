"""`dataengine filter`: set the filter's thresholds on real images, judge a labelled folder with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from dataengine.data.layout import Dataset
    from dataengine.judge.calibration import Calibration, Threshold
    from dataengine.judge.detector import Detector
    from dataengine.judge.verdict import Acceptance

app = typer.Typer(
    help="The filter lets a detector look at each image, which is kept when few of its labelled objects are missed and "
    "few others are seen. How few is measured on real images (calibrate), never typed in; then any labelled folder, "
    "real or synthetic, can be judged (judge).",
    no_args_is_help=True,
)

Source = Annotated[Path, typer.Argument(help="A labelled data set in any known format.")]
DetectorFolder = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        help="Folder with model.onnx and config.json, or work folder of mmrotate. Left out, the packaged detector.",
    ),
]
Split = Annotated[str | None, typer.Option(help="Only this split, such as val. Left out, all of them.")]
Classes = Annotated[
    str | None,
    typer.Option(help="Only these classes, with commas: plane,ship. Names match in any case."),
]
Images = Annotated[int | None, typer.Option(min=1, help="At most this many images, drawn at random. Else, all.")]
Seed = Annotated[int, typer.Option(help="Which images --images draws.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the detector; 0 for one per core.")]
CUT_VISIBLE = 0.3  # least share inside of an object that a tile's border cuts; with less of one, the tile is doubtful
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.command("calibrate")
def calibrate_command(
    dataset: Source,
    out: Annotated[Path, typer.Option(help="The calibration to write, JSON; synth and judge take it.")],
    detector: DetectorFolder = None,
    pass_share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of these real images that is to pass; more is laxer.")
    ] = 0.95,
    split: Split = None,
    classes: Classes = None,
    images: Images = None,
    seed: Seed = 0,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Find the rule under which a stated share of real images passes, and the fewest with another image's labels.

    Give real images that neither detector nor renderer was trained on: on its own training images a detector is too
    sure, and the rule comes out too strict. They should have the size of the images to be judged (see data tile). 200
    images are enough, 20 the least.

    Example: dataengine filter calibrate data/hit-uav --split val --out calibration.json
    """
    from dataengine.errors import UserError
    from dataengine.files import check_writable
    from dataengine.judge.calibrate import calibrate

    found = _detector(detector, threads)
    data, loaders = _read(dataset, split, classes, images, seed)
    if out.is_dir():
        raise UserError(f"{out}: cannot be written, since it is a folder; give a file with --out.")
    check_writable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    layouts = [sample.layout for sample in data]
    calibration = calibrate(
        found, loaders, layouts, data.name or dataset.resolve().name, pass_share, _bar("Calibrating", json)
    )
    calibration.save(out)
    if json:
        typer.echo(calibration.model_dump_json(indent=2))
    else:
        _print_calibration(calibration, out)


@app.command("judge")
def judge_command(
    dataset: Source,
    calibration: Annotated[Path, typer.Option(help="What calibrate wrote for this detector.")],
    detector: DetectorFolder = None,
    split: Split = None,
    classes: Classes = None,
    images: Images = None,
    seed: Seed = 0,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Say which images of a labelled folder show their labels: how many would be kept, and what is found of each class.

    Nothing is written or changed. With --json, the verdict on each image is printed too.

    Example: dataengine filter judge runs/first/dota --calibration calibration.json
    """
    from dataengine.judge.calibration import Calibration
    from dataengine.judge.verdict import acceptance, judge

    rule = Calibration.load(calibration)
    found = _detector(detector, threads)
    rule.check(found)
    data, loaders = _read(dataset, split, classes, images, seed)
    rule.check_classes(dict.fromkeys(name for sample in data for name in sample.layout.names()))
    verdicts = [
        judge(found.detect([load()])[0], sample.layout, found.classes, rule, "drop")[1]
        for sample, load in _bar("Judging", json)(list(zip(data, loaders, strict=True)))
    ]
    result = acceptance([sample.layout for sample in data], verdicts, data.classes)
    if json:
        _print_json(result, {sample.name: verdict for sample, verdict in zip(data, verdicts, strict=True)}, rule)
    else:
        _print_acceptance(result, rule)


@app.command("label")
def label_command(
    pictures: Annotated[
        Path, typer.Argument(help="Real images without labels: a folder, or a data set of no objects.")
    ],
    calibration: Annotated[Path, typer.Option(help="What calibrate wrote for this detector.")],
    out: Annotated[Path, typer.Option(help="New folder of the labelled data set, COCO.")],
    detector: DetectorFolder = None,
    tile_size: Annotated[
        int | None, typer.Option(min=32, help="Cut images into tiles, so that a doubtful place costs only its own.")
    ] = None,
    sure: Annotated[
        float | None, typer.Option(min=0, max=1, help="Detections from this score on are objects [as calibrated].")
    ] = None,
    doubt: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Weaker detections from this score on are doubtful [as calibrated]."),
    ] = None,
    keep_doubtful: Annotated[
        bool,
        typer.Option("--keep-doubtful", help="Keep images with doubtful places, these marked as regions to ignore."),
    ] = False,
    horizontal: Annotated[bool, typer.Option("--horizontal", help="Write upright boxes.")] = False,
    threads: Threads = 0,
) -> None:
    """Label real images that have no labels, where the detector leaves no doubt: more scenes to paint into.

    Detections of whose like nine in ten were right on the calibration's images become objects; images (tiles) with a
    doubtful one are left out, unless they are kept for scenes, whose windows pass marked places by. What the detector
    does not see stays unlabelled; the lower --doubt, the less is left, and the fewer objects without a label in it.

    Example: dataengine filter label flights --calibration calibration.json --keep-doubtful --out scenes
    """
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from dataengine.data import coco
    from dataengine.data.formats import labelled_or_plain
    from dataengine.data.tile import tile
    from dataengine.errors import UserError
    from dataengine.files import check_writable
    from dataengine.judge.calibration import Calibration
    from dataengine.judge.labelling import label_pictures

    rule = Calibration.load(calibration)
    found = _detector(detector, threads)
    rule.check(found)
    if out.exists():
        raise UserError(f"{out} is there already; give another --out.")
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    kind = "hbb" if horizontal else "obb"
    labelled = label_pictures(labelled_or_plain(pictures), found, rule, kind, sure, doubt, _bar("Labelling", False))
    with TemporaryDirectory(prefix=".tiles-", dir=out.parent) as tiles:
        if tile_size is not None:
            labelled = tile(labelled, tiles, tile_size, 0, CUT_VISIBLE)
        clear = [sample for sample in labelled if not len(sample.layout.ignored)]
        kept = labelled.samples if keep_doubtful else clear
        if not kept:
            raise UserError(
                f"{pictures}: every image shows something doubtful; give --keep-doubtful, a --tile-size, or a better "
                "detector."
            )
        coco.write(replace(labelled, samples=kept), out)
    for problem in labelled.problems[:5]:
        typer.echo(str(problem), err=True)
    counts = Counter(name for sample in kept for name in sample.layout.names())
    told = ", ".join(f"{counts[name]} {name}" for name in labelled.classes)
    typer.echo(f"{out}: {len(clear)} of {len(labelled)} images show nothing doubtful; {told}")
    if not counts:
        typer.echo("No object was found: are these images of the kind that the calibration was made on?", err=True)


@app.command("export-detector")
def export_detector_command(
    config: Annotated[Path, typer.Argument(help="Config that the detector was trained with, .py.")],
    checkpoint: Annotated[Path, typer.Argument(help="Its weights, .pth or .safetensors.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx and config.json, which --detector takes.")],
    image_size: Annotated[
        int, typer.Option(min=32, help="Side of the images that the model takes; larger ones are read in windows.")
    ] = 256,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of a detection [the config's].")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in 16 bits: half the file, nearly the same.")
    ] = False,
) -> None:
    """Turn an mmrotate detector of one stage into an ONNX model, which the filter reads without mmrotate.

    Detectors of two stages, and S2ANet, serve the filter directly: give --detector their work folder. Needs mmrotate.

    Example: dataengine filter export-detector work/fcos/rotated-fcos.py work/fcos/epoch_12.pth --out work/detector
    """
    from dataengine.mmrotate.onnx_export import export_detector

    difference = export_detector(config, checkpoint, out, image_size, score_threshold=score_threshold, half=half)
    typer.echo(f"{out}: boxes within {difference:.3f} px of mmrotate's")


def _detector(folder: Path | None, threads: int) -> Detector:
    from dataengine.judge.detector import load_detector
    from dataengine.weights import packaged

    return load_detector(folder or packaged("detector"), threads)


def _read(
    path: Path, split: str | None, classes: str | None, n_images: int | None, seed: int
) -> tuple[Dataset, list[Callable[[], np.ndarray]]]:
    """The samples whose images can be decoded, and a loader for each; the others are named on standard error."""
    from dataclasses import replace

    import numpy as np

    from dataengine.data import formats
    from dataengine.data import images as image_files
    from dataengine.data.layout import Problem
    from dataengine.errors import UserError

    names = None if classes is None else [name.strip() for name in classes.split(",") if name.strip()]
    dataset = formats.read(path, split=split, classes=names)
    samples, problems = dataset.samples, list(dataset.problems)
    if n_images is not None and n_images < len(samples):
        chosen = np.random.default_rng(seed).permutation(len(samples))[:n_images]
        samples = [samples[i] for i in sorted(chosen)]
    readable = []
    for sample in samples:
        try:
            image_files.decode(sample.image)
        except ValueError as error:
            problems.append(Problem(sample.image, None, f"{error}; left out"))
        else:
            readable.append(sample)
    for problem in problems[:5]:
        typer.echo(str(problem), err=True)
    if problems:
        typer.echo(f"{len(problems)} problems; see all with: dataengine data check {path}", err=True)
    if not readable:
        raise UserError(f"{path}: none of the images can be decoded; see dataengine data check {path}.")

    def load(file: Path) -> np.ndarray:
        return np.asarray(image_files.load(file).convert("RGB"))

    loaders = [lambda file=sample.image: load(file) for sample in readable]
    return replace(dataset, samples=readable, problems=problems), loaders


def _bar(title: str, hidden: bool) -> Callable[[Sequence], Iterable]:
    """Wraps a sequence in a bar with rate and remaining time on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))

    def run(sequence: Sequence) -> Iterable:
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=hidden) as bar:
            task = bar.add_task(title, total=len(sequence), rate="")
            for item in sequence:
                yield item
                speed = bar.tasks[0].speed
                bar.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")

    return run


def _print_calibration(calibration: Calibration, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    table = Table("class", "objects", "found from score", "touching another", "extra from score", title=str(out))
    for name, objects in calibration.objects.items():
        alone, close = calibration.thresholds[name], calibration.crowded_thresholds.get(name)
        limits = _by_size(alone), "the same" if close is None else _by_size(close)
        table.add_row(name, str(objects), *limits, f"{calibration.extra_scores[name]:.2f}")
    console.print(table)
    extra = f"{calibration.extra_objects} + {calibration.extra_share:.0%} of its objects"
    console.print(
        f"An image passes with up to {calibration.missed_share:.0%} of its objects missed and up to {extra} extra.\n"
        f"Of {calibration.images} real images {calibration.pass_share:.1%} pass; "
        f"with another image's labels {calibration.shuffled_pass_share:.1%}, "
        f"with their objects smudged {calibration.smudged_pass_share:.1%} (the controls)."
    )


def _by_size(threshold: Threshold) -> str:
    """A class's threshold in words, by the sides of its objects."""
    steps = threshold if isinstance(threshold, list) else [(0.0, threshold)]
    return ", ".join(
        (f"from {side:.0f} px " if side else "") + (f"{score:.2f}" if score else "not judged") for side, score in steps
    )


def _print_acceptance(result: Acceptance, rule: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    table = Table("class", "objects", "found", "share", "in kept images", "extra")
    for row in result.classes:
        share = f"{row.found / row.objects:.1%}" if row.objects else "-"
        table.add_row(row.name, str(row.objects), str(row.found), share, str(row.kept), str(row.extra))
    console.print(table)
    console.print(
        f"{result.kept} of {result.images} images kept ({result.kept / result.images:.1%}); of the real images "
        f"calibrated on {rule.pass_share:.1%}, with another image's labels {rule.shuffled_pass_share:.1%}, "
        f"with their objects smudged {rule.smudged_pass_share:.1%}."
    )
    for reason, n in result.dropped_for.items():
        console.print(f"dropped for {reason}: {n}")


def _print_json(result: Acceptance, verdicts: dict, rule: Calibration) -> None:
    import json
    from dataclasses import asdict

    real = {name: value for name, value in rule.model_dump().items() if name.endswith("pass_share")}
    each = [{"name": name, **asdict(verdict)} for name, verdict in verdicts.items()]
    typer.echo(json.dumps(asdict(result) | {"calibrated": real, "verdicts": each}, indent=2))

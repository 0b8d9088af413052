"""`dataengine filter`: calibrate the filter on real images, judge labelled images, label images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataengine.data.commands import Format, class_list

if TYPE_CHECKING:
    import numpy as np

    from dataengine.data.layout import Dataset
    from dataengine.judge.calibration import Calibration, Threshold
    from dataengine.judge.detector import Detector
    from dataengine.judge.verdict import Acceptance

app = typer.Typer(
    help="Filter labelled images with a detector. An image is accepted if the detector misses few of its labelled "
    "objects and finds few others. `calibrate` measures these limits on real images; `judge` applies them to any "
    "labelled data set, real or synthetic.",
    no_args_is_help=True,
)

Source = Annotated[Path, typer.Argument(help="Labelled data set in any supported format.")]
DetectorFolder = Annotated[
    Path | None,
    typer.Option(
        "--detector",
        help="Folder with model.onnx and config.json, or work folder of mmrotate. [default: the packaged detector]",
    ),
]
Split = Annotated[str | None, typer.Option(help="Use only this split, such as val. [default: all]")]
Classes = Annotated[
    str | None,
    typer.Option(help="Use only these classes: plane,ship. Case is ignored. [default: all]"),
]
Images = Annotated[
    int | None, typer.Option(min=1, help="Use at most this many images, chosen at random. [default: all]")
]
Seed = Annotated[int, typer.Option(help="Random seed of the choice of --images.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of the detector; 0 means one per core.")]
MIN_VISIBLE = 0.3  # share of an object inside a tile; an object cut to less makes the tile doubtful
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")]


@app.command("calibrate")
def calibrate_command(
    dataset: Source,
    out: Annotated[Path, typer.Option(help="Calibration file to write (.json), for synth and judge.")],
    format: Format = None,
    detector: DetectorFolder = None,
    pass_share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of these real images to accept; higher is laxer.")
    ] = 0.95,
    split: Split = None,
    classes: Classes = None,
    images: Images = None,
    seed: Seed = 0,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Find thresholds that accept a given share of real images and the fewest images with wrong labels.

    Use real images that neither the detector nor the renderer was trained on: a detector is overconfident on its
    training images, which makes the thresholds too strict. The images should have the size of those to be judged (see
    dataengine data tile). 200 images are enough; 20 are the minimum.

    Example: dataengine filter calibrate data/hit-uav --split val --out calibration.json
    """
    from dataengine.errors import UserError
    from dataengine.files import check_writable
    from dataengine.judge.calibrate import calibrate
    from dataengine.render.imagery import imagery_difference
    from dataengine.weights import packaged

    found = _detector(detector, threads)
    data, loaders = _read(dataset, format, split, classes, images, seed)
    if out.is_dir():
        raise UserError(f"{out}: cannot be written, because it is a folder; give a file with --out.")
    check_writable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    layouts = [sample.layout for sample in data]
    if difference := imagery_difference(detector or packaged("detector"), data):
        typer.echo(difference, err=True)
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
    calibration: Annotated[
        Path, typer.Option(help="Calibration file for this detector, from dataengine filter calibrate.")
    ],
    format: Format = None,
    detector: DetectorFolder = None,
    split: Split = None,
    classes: Classes = None,
    images: Images = None,
    seed: Seed = 0,
    threads: Threads = 0,
    json: Json = False,
) -> None:
    """Count the images of a labelled data set that the filter would accept, and the objects found of each class.

    Changes no file. --json also prints the verdict on each image.

    Example: dataengine filter judge runs/first/dota --calibration calibration.json
    """
    from dataengine.judge.calibration import Calibration
    from dataengine.judge.verdict import acceptance, judge

    rule = Calibration.load(calibration)
    found = _detector(detector, threads)
    rule.check(found)
    data, loaders = _read(dataset, format, split, classes, images, seed)
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
    images: Annotated[
        Path, typer.Argument(help="Real images without labels: a folder, or a data set without objects.")
    ],
    calibration: Annotated[
        Path, typer.Option(help="Calibration file for this detector, from dataengine filter calibrate.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the labelled data set (COCO).")],
    format: Format = None,
    detector: DetectorFolder = None,
    tile_size: Annotated[
        int | None,
        typer.Option(
            min=32,
            help="Cut images into tiles of this side, so that a doubtful detection costs one tile. [default: no tiles]",
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum score of an object. [default: as calibrated]")
    ] = None,
    doubtful_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Minimum score of a doubtful detection. [default: as calibrated]"),
    ] = None,
    keep_doubtful: Annotated[
        bool,
        typer.Option("--keep-doubtful", help="Keep images with doubtful detections, marked as regions to ignore."),
    ] = False,
    horizontal: Annotated[bool, typer.Option("--horizontal", help="Write horizontal boxes.")] = False,
    threads: Threads = 0,
) -> None:
    """Label real images with a detector, for use as scenes.

    Detections with a precision of 90 % or more on the calibration images become objects. Images (or tiles) with a
    doubtful detection are skipped unless --keep-doubtful is given; windows of scenes avoid marked regions. Objects that
    the detector misses stay unlabelled: a lower --doubtful-score leaves fewer of them, and fewer images.

    Example: dataengine filter label flights --calibration calibration.json --keep-doubtful --out scenes
    """
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from dataengine.data import formats
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
        raise UserError(f"{out} exists already; give another --out.")
    check_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    kind = "hbb" if horizontal else "obb"
    labelled = label_pictures(
        labelled_or_plain(images, format), found, rule, kind, min_score, doubtful_score, _bar("Labelling", False)
    )
    with TemporaryDirectory(prefix=".tiles-", dir=out.parent) as tiles:
        if tile_size is not None:
            labelled = tile(labelled, tiles, tile_size, 0, MIN_VISIBLE)
        clear = [sample for sample in labelled if not len(sample.layout.ignored)]
        kept = labelled.samples if keep_doubtful else clear
        if not kept:
            raise UserError(
                f"{images}: every image has a doubtful detection; give --keep-doubtful, a --tile-size, or a better "
                "detector."
            )
        left_out = formats.write(replace(labelled, samples=kept), out, "coco")
    for message in [*labelled.notes, *[*labelled.problems, *left_out][:5]]:
        typer.echo(str(message), err=True)
    counts = Counter(name for sample in kept for name in sample.layout.names())
    objects = ", ".join(f"{counts[name]} {name}" for name in labelled.classes)
    typer.echo(f"{out}: {len(clear)} of {len(labelled)} images have no doubtful detection; {objects}")
    if not counts:
        typer.echo("No object was found: are these images like those of the calibration?", err=True)


@app.command("export-detector")
def export_detector_command(
    config: Annotated[Path, typer.Argument(help="Config of the detector's training (.py).")],
    checkpoint: Annotated[Path, typer.Argument(help="Weights of the detector (.pth or .safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx and config.json, for --detector.")],
    image_size: Annotated[
        int, typer.Option(min=32, help="Input side of the model in pixels; larger images are read in windows.")
    ] = 256,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum score of a detection. [default: that of the config]")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in 16 bits; halves the file with nearly equal results.")
    ] = False,
) -> None:
    """Convert a one-stage mmrotate detector to an ONNX model, which the filter runs without mmrotate.

    Two-stage detectors and S2ANet need no conversion: give --detector their work folder. Needs mmrotate.

    Example: dataengine filter export-detector work/fcos/rotated-fcos.py work/fcos/epoch_12.pth --out work/detector
    """
    from dataengine.mmrotate.onnx_export import export_detector

    difference = export_detector(config, checkpoint, out, image_size, score_threshold=score_threshold, half=half)
    typer.echo(f"{out}: boxes differ by at most {difference:.3f} px from mmrotate's")


def _detector(folder: Path | None, threads: int) -> Detector:
    from dataengine.judge.detector import load_detector
    from dataengine.weights import packaged

    return load_detector(folder or packaged("detector"), threads)


def _read(
    path: Path, format: str | None, split: str | None, classes: str | None, n_images: int | None, seed: int
) -> tuple[Dataset, list[Callable[[], np.ndarray]]]:
    """The samples whose images can be decoded, and a loader for each; the others are reported on standard error."""
    from dataclasses import replace

    import numpy as np

    from dataengine.data import formats
    from dataengine.data import images as image_files
    from dataengine.data.layout import Problem
    from dataengine.data.records import with_classes_left_out
    from dataengine.errors import UserError

    dataset = formats.read(path, format, split=split, classes=class_list(classes))
    if classes is not None:
        dataset = with_classes_left_out(dataset)
    samples, problems = dataset.samples, list(dataset.problems)
    if n_images is not None and n_images < len(samples):
        chosen = np.random.default_rng(seed).permutation(len(samples))[:n_images]
        samples = [samples[i] for i in sorted(chosen)]
    readable = []
    for sample in samples:
        try:
            image_files.rgb(sample.image, sample.pixel_range)
        except ValueError as error:
            problems.append(Problem(sample.image, None, f"{error}; skipped"))
        else:
            readable.append(sample)
    for message in [*dataset.notes, *problems[:5]]:
        typer.echo(str(message), err=True)
    if problems:
        typer.echo(f"{len(problems)} problems; see all with: dataengine data check {path}", err=True)
    if not readable:
        raise UserError(f"{path}: none of the images can be decoded; see dataengine data check {path}.")

    loaders = [lambda sample=sample: image_files.rgb(sample.image, sample.pixel_range) for sample in readable]
    return replace(dataset, samples=readable, problems=problems), loaders


def _bar(title: str, hidden: bool) -> Callable[[Sequence], Iterable]:
    """A function that shows progress over a sequence on standard error, with rate and remaining time."""
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

    from dataengine.tables import keep_names_whole

    console = Console(markup=False)
    table = Table("class", "objects", "min score", "min score if touching", "min score of extra", title=str(out))
    keep_names_whole(table, calibration.objects)
    for name, objects in calibration.objects.items():
        alone, close = calibration.thresholds[name], calibration.crowded_thresholds.get(name)
        limits = _by_size(alone), "the same" if close is None else _by_size(close)
        table.add_row(name, str(objects), *limits, f"{calibration.extra_scores[name]:.2f}")
    console.print(table)
    extra = f"{calibration.extra_objects} + {calibration.extra_share:.0%} of its objects"
    console.print(
        f"An image is accepted with up to {calibration.missed_share:.0%} of its objects missed and {extra} extra.\n"
        f"Accepted of {calibration.images} real images: {calibration.pass_share:.1%}; controls: "
        f"{calibration.shuffled_pass_share:.1%} with another image's labels, "
        f"{calibration.smudged_pass_share:.1%} with blurred objects.\n"
        f"Found of noise, chequers and grey blobs in place of objects: {calibration.control_found_share:.1%}."
    )
    if warning := calibration.warning():
        console.print(warning, style="yellow")


def _by_size(threshold: Threshold) -> str:
    """A class's threshold as text, by the side of its objects; steps of one threshold are one.

    >>> _by_size([(0, 0), (19, 0), (34, 0.5)])
    'not judged, from 34 px 0.50'
    """
    steps = threshold if isinstance(threshold, list) else [(0.0, threshold)]
    steps = [step for i, step in enumerate(steps) if not i or step[1] != steps[i - 1][1]]
    return ", ".join(
        (f"from {side:.0f} px " if side else "") + (f"{score:.2f}" if score else "not judged") for side, score in steps
    )


def _print_acceptance(result: Acceptance, rule: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table

    from dataengine.tables import keep_names_whole

    console = Console(markup=False)
    table = Table("class", "objects", "found", "share", "in accepted images", "extra")
    keep_names_whole(table, (row.name for row in result.classes))
    for row in result.classes:
        share = f"{row.found / row.objects:.1%}" if row.objects else "-"
        table.add_row(row.name, str(row.objects), str(row.found), share, str(row.kept), str(row.extra))
    console.print(table)
    console.print(
        f"{result.kept} of {result.images} images accepted ({result.kept / result.images:.1%}); in the calibration "
        f"{rule.pass_share:.1%} of real images, {rule.shuffled_pass_share:.1%} with another image's labels, "
        f"{rule.smudged_pass_share:.1%} with blurred objects."
    )
    for reason, n in result.dropped_for.items():
        console.print(f"dropped, {reason}: {n}")


def _print_json(result: Acceptance, verdicts: dict, rule: Calibration) -> None:
    import json
    from dataclasses import asdict

    real = {name: value for name, value in rule.model_dump().items() if name.endswith("pass_share")}
    each = [{"name": name, **asdict(verdict)} for name, verdict in verdicts.items()]
    typer.echo(json.dumps(asdict(result) | {"calibrated": real, "verdicts": each}, indent=2))

"""`dataengine layout`: fit a prior, sample layouts, measure how well they match real ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dataengine.data.commands import Format, RealFormat

if TYPE_CHECKING:
    from dataengine.data.layout import Layout
    from dataengine.layouts.sampler import Sampler

app = typer.Typer(
    help="Sample layouts, that is the boxes and classes of objects, before any image is rendered. Three samplers: real "
    "layouts augmented (scaled, shifted, rotated, flipped, merged; the default), a fitted prior, or a diffusion model.",
    no_args_is_help=True,
)

Split = Annotated[str | None, typer.Option(help="Use only this split, such as train. [default: all]")]
Side = Annotated[int, typer.Option(min=16, help="Side of the layouts in pixels, at native resolution.")]
Balance = Annotated[
    str | None,
    typer.Option(
        help="Minimum share of all objects, for every class (0.2) or for some (ship=0.2,van=0.1). [default: class "
        "frequencies of the data]"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed; layout i depends only on the seed and i.")]


@app.command("fit")
def fit_command(
    dataset: Annotated[Path, typer.Argument(help="Labelled data set in any supported format.")],
    out: Annotated[Path, typer.Option(help="Prior to write (.json), below 100 kB for most data sets.")],
    format: Format = None,
    split: Split = None,
    size: Side = 256,
    windows: Annotated[int, typer.Option(min=1, help="Number of windows cut from each image to fit on.")] = 4,
) -> None:
    """Fit a prior to a data set's layouts: counts, class co-occurrence, sizes, angles, positions, rows, overlaps.

    The file contains quantiles and shares, no layout of the data set, and can be edited by hand.

    Example: dataengine layout fit data/hit-uav --split train --out prior.json
    """
    from dataengine.layouts.prior_fit import fit

    prior = fit(_read(dataset, format, split), (size, size), windows=windows)
    prior.save(out)
    typer.echo(
        f"{out}: {prior.n_objects} objects in {prior.n_layouts} windows of {size} x {size}, "
        f"{len(prior.scenes)} scene types, {out.stat().st_size / 1000:.0f} kB"
    )


@app.command("store")
def store_command(
    dataset: Annotated[Path, typer.Argument(help="Labelled data set in any supported format.")],
    out: Annotated[Path, typer.Option(help="File to write (.npz): about 10 bytes per object, no images.")],
    format: Format = None,
    split: Split = None,
) -> None:
    """Store a data set's real layouts in one small file, which `sample` can use without the data set.

    Example: dataengine layout store data/hit-uav --split train --out layouts.npz
    """
    from dataengine.layouts.stored import save_layouts

    layouts = [sample.layout for sample in _read(dataset, format, split)]
    save_layouts(out, layouts)
    typer.echo(f"{out}: {len(layouts)} layouts, {out.stat().st_size / 1000:.0f} kB")


@app.command("sample")
def sample_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Data set or stored layouts (.npz) to augment, prior (.json), or model folder of dataengine train "
            "layouts."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Contact sheet to write (.png), with boxes in class colours; boxes cut by the border are dashed."
        ),
    ],
    n: Annotated[int, typer.Option(min=1, help="Number of layouts to sample.")] = 24,
    seed: Seed = 0,
    format: Format = None,
    split: Split = None,
    size: Side = 256,
    balance: Balance = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="Map to place the objects on, with the frequencies of SOURCE.")
    ] = None,
    map_gsd: Annotated[
        float | None, typer.Option(min=0.01, help="Metres per pixel on the map. [default: those of SOURCE]")
    ] = None,
    map_box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="WEST SOUTH EAST NORTH", help="Part of the map, in degrees. [default: all]"),
    ] = None,
) -> None:
    """Sample layouts and draw them on a contact sheet, before spending time on images.

    Example: dataengine layout sample prior.json --n 24 --balance 0.2 --out sheet.png
    """
    from collections import Counter

    from dataengine.data.draw import contact_sheet, draw, save_sheet
    from dataengine.errors import UserError

    if map_file is None:
        sampler, backgrounds = _sampler(source, format, split, size, balance), [None] * n
        layouts = _sampled(sampler, n, seed)
    else:
        if balance is not None:
            raise UserError("--balance does not work with --map, whose places decide what there is.")
        sampler = _map_sampler(source, format, split, size, map_file, map_gsd, map_box)
        layouts = _sampled(sampler, n, seed)
        backgrounds = [sampler.picture(layout) for layout in layouts]
    captions = [", ".join(f"{c} {name}" for name, c in Counter(layout.names()).items()) for layout in layouts]
    save_sheet(contact_sheet([draw(*pair) for pair in zip(backgrounds, layouts, strict=True)], captions), out)
    counts = Counter(name for layout in layouts for name in layout.names())
    total = sum(counts.values())
    shares = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in counts.most_common())
    typer.echo(f"{out}: {n} layouts, {total} objects: {shares}")


@app.command("score")
def score_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Layouts to measure: a prior (.json), stored layouts (.npz), a data set or a layout model."
        ),
    ],
    real: Annotated[Path, typer.Option(help="Real data set to compare with; use one that SOURCE was not fitted on.")],
    real_format: RealFormat = None,
    real_split: Annotated[
        str | None, typer.Option(help="Use only this split of --real, such as val. [default: all]")
    ] = None,
    format: Format = None,
    split: Split = None,
    n: Annotated[int, typer.Option(min=10, help="Number of layouts to sample.")] = 1000,
    seed: Seed = 0,
    size: Side = 256,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")] = False,
) -> None:
    """Measure the distance between sampled and real layouts; 0 is a perfect fit.

    Also shows the distance between two halves of the real layouts (the floor) and that of uniformly random boxes.

    Example: dataengine layout score prior.json --real data/hit-uav --real-split val
    """
    import numpy as np

    from dataengine.errors import UserError
    from dataengine.layouts.fit_score import TERMS, UniformSampler, fit_score, floor
    from dataengine.layouts.windows import random_windows

    sampler = _sampler(source, format, split, size, None)
    data = _read(real, real_format, real_split, sampler.classes)
    held_out = random_windows((s.layout for s in data), sampler.size, np.random.default_rng(0), n=6)
    if len(held_out) < 20:
        raise UserError(f"{real} has only {len(held_out)} windows with objects; a comparison needs at least 20")
    control = UniformSampler(sampler.classes, sampler.size, sampler.kind)
    scores = {
        "sampled": fit_score(_sampled(sampler, n, seed), held_out),
        "floor": floor(held_out, np.random.default_rng(0)),
        "uniform": fit_score(_sampled(control, n, seed), held_out),
    }
    if json:
        import dataclasses
        import json as json_module

        typer.echo(json_module.dumps({name: dataclasses.asdict(score) for name, score in scores.items()}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", *scores, "what is compared", title="Distance to real layouts, lower is better")
    table.add_row("score", *(f"{score.score:.3f}" for score in scores.values()), "mean of the rows below")
    for term, meaning in TERMS.items():
        if term in scores["sampled"].terms:
            cells = (f"{score.terms[term]:.3f}" if term in score.terms else "" for score in scores.values())
            table.add_row(term, *cells, meaning)
    Console(markup=False).print(table)


def _read(path: Path, format: str | None, split: str | None, classes: tuple[str, ...] | None = None):
    from dataengine.data.formats import read

    dataset = read(path, format, split=split, classes=classes)
    for note in dataset.notes:
        typer.echo(note, err=True)
    if dataset.problems:
        more = f" and {len(dataset.problems) - 1} more; see dataengine data check" if dataset.problems[1:] else ""
        typer.echo(f"skipped: {dataset.problems[0]}{more}", err=True)
    return dataset


def _sampler(source: Path, format: str | None, split: str | None, side: int, balance: str | None) -> Sampler:
    from dataengine.errors import UserError
    from dataengine.layouts.balance import parse_balance
    from dataengine.layouts.prior import Prior
    from dataengine.layouts.prior_sampler import PriorSampler
    from dataengine.layouts.reuse import ReuseSampler
    from dataengine.layouts.stored import load_layouts

    shares = parse_balance(balance)
    if (source / "config.json").exists():
        from dataengine.layouts.diffusion_sampler import DiffusionSampler, load_layout_model

        if shares is not None:
            raise UserError("--balance does not work with a layout model, which samples classes as it has learnt them.")
        return DiffusionSampler(load_layout_model(source), (side, side))
    if source.suffix == ".npz":
        return ReuseSampler(load_layouts(source), (side, side), shares)
    if source.suffix == ".json" and _is_prior(source):
        return PriorSampler(Prior.load(source), (side, side), shares)
    if not source.exists():
        raise UserError(f"{source} does not exist; give a prior (.json), stored layouts (.npz) or a data set")
    return ReuseSampler(_read(source, format, split), (side, side), shares)


def _map_sampler(source: Path, format: str | None, split: str | None, side: int, file: Path, gsd_m, box) -> Sampler:
    from dataclasses import replace

    from dataengine.data.layout import restrict_layout
    from dataengine.errors import UserError
    from dataengine.layouts.map_sampler import map_sampler
    from dataengine.layouts.map_table import on_maps
    from dataengine.layouts.stored import load_layouts

    layouts = load_layouts(source) if source.suffix == ".npz" else [s.layout for s in _read(source, format, split)]
    if not layouts:
        raise UserError(f"{source}: has no layout.")
    classes = on_maps(layouts[0].classes)
    if left_out := [name for name in layouts[0].classes if name not in classes]:
        typer.echo(f"left out, since maps do not have them: {', '.join(left_out)}", err=True)
    layouts = [replace(restrict_layout(layout, classes), ignored=None) for layout in layouts]
    return map_sampler(file, [layout for layout in layouts if len(layout)], (side, side), gsd_m, box)


def _is_prior(path: Path) -> bool:
    """Whether a JSON file is a prior and no annotation file; true for a missing file, which `Prior.load` reports."""
    if not path.is_file():
        return True
    with open(path, encoding="utf-8", errors="replace") as file:
        return "dataengine-prior" in file.read(200)


def _sampled(sampler: Sampler, n: int, seed: int) -> list[Layout]:
    import numpy as np

    return [sampler.sample(np.random.default_rng((seed, i))) for i in range(n)]

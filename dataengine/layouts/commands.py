"""`dataengine layouts`: fit a prior, look at sampled layouts, measure how well they fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dataengine.data.layout import Layout
    from dataengine.layouts.sampler import Sampler

app = typer.Typer(
    help="Draw layouts, that is which objects stand where, before any picture is made. Three samplers: real layouts "
    "used again (scaled, shifted, turned, flipped, merged; the default), new ones grown from a prior, or diffused.",
    no_args_is_help=True,
)

Split = Annotated[str | None, typer.Option(help="Only this split, such as train. Left out, all of them.")]
Side = Annotated[int, typer.Option(min=16, help="Width and height of the layouts in pixels, at native resolution.")]
Balance = Annotated[
    str | None,
    typer.Option(
        help="Least share of all objects that rare classes are raised to: 0.2 for every class, or "
        "OtherVehicle=0.1,Bicycle=0.3 for some. Left out, classes are as frequent as in the data."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Layout i depends on the seed and i only.")]


@app.command("fit")
def fit_command(
    dataset: Annotated[Path, typer.Argument(help="A labelled data set in any known format.")],
    out: Annotated[Path, typer.Option(help="The prior to write: readable JSON, below 100 kB for most data sets.")],
    split: Split = None,
    size: Side = 256,
    windows: Annotated[int, typer.Option(min=1, help="Windows cut from each image to learn from.")] = 4,
) -> None:
    """Learn what a data set's layouts are like: counts, classes together, sizes, angles, places, rows, overlaps.

    The file holds quantiles and shares, no layout of the data set, and can be edited by hand.

    Example: dataengine layout fit data/hit-uav --split train --out prior.json
    """
    from dataengine.layouts.prior_fit import fit

    prior = fit(_read(dataset, split), (size, size), windows=windows)
    prior.save(out)
    typer.echo(
        f"{out}: {prior.n_objects} objects in {prior.n_layouts} windows of {size} x {size}, "
        f"{len(prior.scenes)} scene types, {out.stat().st_size / 1000:.0f} kB"
    )


@app.command("store")
def store_command(
    dataset: Annotated[Path, typer.Argument(help="A labelled data set in any known format.")],
    out: Annotated[Path, typer.Option(help="The file to write, .npz: about 10 bytes an object, no pictures.")],
    split: Split = None,
) -> None:
    """Keep a data set's real layouts in one small file, from which `sample` can draw without the data set.

    Example: dataengine layout store data/hit-uav --split train --out layouts.npz
    """
    from dataengine.layouts.stored import save_layouts

    layouts = [sample.layout for sample in _read(dataset, split)]
    save_layouts(out, layouts)
    typer.echo(f"{out}: {len(layouts)} layouts, {out.stat().st_size / 1000:.0f} kB")


@app.command("sample")
def sample_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A data set or stored layouts (.npz): real layouts are used again. A prior (.json): grown. The model "
            "folder of dataengine train layouts: diffused."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Contact sheet to write, .png: boxes in class colours, dashed where cut.")],
    n: Annotated[int, typer.Option(min=1, help="How many layouts to draw.")] = 24,
    seed: Seed = 0,
    split: Split = None,
    size: Side = 256,
    balance: Balance = None,
) -> None:
    """Draw layouts and look at them, before spending time on pictures.

    Example: dataengine layout sample prior.json --n 24 --balance 0.2 --out sheet.png
    """
    from collections import Counter

    from dataengine.data.draw import contact_sheet, draw
    from dataengine.errors import UserError

    sampler = _sampler(source, split, size, balance)
    layouts = _drawn(sampler, n, seed)
    captions = [", ".join(f"{c} {name}" for name, c in Counter(layout.names()).items()) for layout in layouts]
    try:
        contact_sheet([draw(None, layout) for layout in layouts], captions).save(out)
    except (OSError, ValueError) as error:
        raise UserError(f"{out} could not be written ({error}); give a .png in a folder you can write to") from error
    counts = Counter(name for layout in layouts for name in layout.names())
    total = sum(counts.values())
    shares = ", ".join(f"{name} {count} ({count / total:.0%})" for name, count in counts.most_common())
    typer.echo(f"{out}: {n} layouts, {total} objects: {shares}")


@app.command("score")
def score_command(
    source: Annotated[
        Path,
        typer.Argument(help="What to measure: a prior (.json), stored layouts (.npz), a data set, a layout model."),
    ],
    real: Annotated[Path, typer.Option(help="The data set to compare with, best one that the source has not seen.")],
    real_split: Annotated[str | None, typer.Option(help="Split of the real data set, such as val.")] = None,
    split: Split = None,
    n: Annotated[int, typer.Option(min=10, help="How many layouts to draw.")] = 1000,
    seed: Seed = 0,
    size: Side = 256,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for a script instead of a table.")] = False,
) -> None:
    """Measure how far sampled layouts are from real ones: 0 is a perfect fit.

    Beside it stand the floor, that is one half of the real layouts against the other, and uniformly random boxes.

    Example: dataengine layout score prior.json --real data/hit-uav --real-split val
    """
    import numpy as np

    from dataengine.errors import UserError
    from dataengine.layouts.fit_score import TERMS, UniformSampler, fit_score, floor
    from dataengine.layouts.windows import random_windows

    sampler = _sampler(source, split, size, None)
    data = _read(real, real_split, sampler.classes)
    held_out = random_windows((s.layout for s in data), sampler.size, np.random.default_rng(0), n=6)
    if len(held_out) < 20:
        raise UserError(f"{real} gives only {len(held_out)} windows with objects; at least 20 are needed to compare")
    control = UniformSampler(sampler.classes, sampler.size, sampler.kind)
    scores = {
        "sampled": fit_score(_drawn(sampler, n, seed), held_out),
        "floor": floor(held_out, np.random.default_rng(0)),
        "uniform": fit_score(_drawn(control, n, seed), held_out),
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


def _read(path: Path, split: str | None, classes: tuple[str, ...] | None = None):
    from dataengine.data.formats import read

    dataset = read(path, split=split, classes=classes)
    if dataset.problems:
        more = f" and {len(dataset.problems) - 1} more; see dataengine data check" if dataset.problems[1:] else ""
        typer.echo(f"left out: {dataset.problems[0]}{more}", err=True)
    return dataset


def _sampler(source: Path, split: str | None, side: int, balance: str | None) -> Sampler:
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
            raise UserError("--balance is for reuse and prior; a layout model draws classes as it has learnt them.")
        return DiffusionSampler(load_layout_model(source), (side, side))
    if source.suffix == ".npz":
        return ReuseSampler(load_layouts(source), (side, side), shares)
    if source.suffix == ".json" and _is_prior(source):
        return PriorSampler(Prior.load(source), (side, side), shares)
    if not source.exists():
        raise UserError(f"{source} does not exist; give a prior (.json), stored layouts (.npz) or a data set")
    return ReuseSampler(_read(source, split), (side, side), shares)


def _is_prior(path: Path) -> bool:
    """Told from an annotation file in JSON by its head; a missing file counts, so that `Prior.load` says so."""
    if not path.is_file():
        return True
    with open(path, encoding="utf-8", errors="replace") as file:
        return "dataengine-prior" in file.read(200)


def _drawn(sampler: Sampler, n: int, seed: int) -> list[Layout]:
    import numpy as np

    return [sampler.sample(np.random.default_rng((seed, i))) for i in range(n)]

"""All evaluations of one set of generated pictures as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataengine.errors import UserError
from dataengine.evaluate import plots
from dataengine.evaluate.classification_score import classification_score
from dataengine.evaluate.diversity import diversity
from dataengine.evaluate.features import Features, load_features
from dataengine.evaluate.fidelity import fidelity
from dataengine.evaluate.layout_score import layout_score
from dataengine.evaluate.manifold import nearest
from dataengine.evaluate.memorisation import FEATURES, Neighbours, memorisation
from dataengine.evaluate.pictures import Picture, chosen, noisy, without_detail
from dataengine.evaluate.results import Result
from dataengine.evaluate.sharpness import sharpness
from dataengine.files import write_whole
from dataengine.judge.detector import Detector

ON_SHEET = 32
PAIRS = 16
COPIES = 100  # training pictures that the control of memorisation copies
Bar = Callable[[Sequence, str], Sequence]


@dataclass
class Section:
    """pictures: (caption, address) of plots and sheets, below the tables."""

    heading: str
    results: list[Result] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    left_out: str = ""


def embedded(features: Features, pictures: Sequence[Picture], bar: Bar, title: str, change=None) -> np.ndarray:
    """Embeddings (N, E) of pictures, each changed by `change` first if that is given."""
    images = (x.pixels() if change is None else change(x.pixels()) for x in bar(pictures, title))
    return features.embed(images)


def copies_of_training(
    made: Sequence[Picture],
    real: Sequence[Picture],
    training: Sequence[Picture],
    features: Features,
    seed: int,
    bar: Bar,
) -> tuple[Result, Neighbours]:
    """`memorisation` of pictures, with its control made from some of the training pictures."""
    titles = {"generated": made, "real": real, "training": training}
    sets = [embedded(features, pictures, bar, title) for title, pictures in titles.items()]
    rng = np.random.default_rng(seed)
    some = chosen(list(training), COPIES, seed)
    copies = embedded(features, some, bar, "noisy copies", lambda x: noisy(x, rng))
    return memorisation(*sets, copies, features, seed)


def sections(
    made: Sequence[Picture],
    real: Sequence[Picture],
    training: Sequence[Picture],
    features: Features,
    detector: Detector,
    seed: int,
    bar: Bar,
) -> list[Section]:
    """Everything that can be said of generated pictures; what cannot, since labels, classes or training pictures are
    missing, is a section that says why."""
    classes = tuple(dict.fromkeys(name for x in [*made, *real] for name in x.layout.names()))
    found = [Section("Pictures", pictures=_samples(made, real, classes, seed))]
    made_x, real_x = embedded(features, made, bar, "generated"), embedded(features, real, bar, "real")
    blurred = embedded(features, real, bar, "real, without detail", without_detail)
    groups = [picture.group for picture in real]
    table = fidelity(made_x, real_x, blurred, groups, features, seed)
    shown = [("", plots.bars(table)), ("", plots.embedding_map(real_x, made_x))]
    found.append(Section("Fidelity", [table], shown + _extremes(made, classes, made_x, real_x)))
    table = sharpness(made, real, seed, bar)
    found.append(Section("Sharpness", [table], [("", plots.bars(table))]))
    table = diversity(made_x, real_x, groups, features, seed)
    found.append(Section("Diversity", [table], [("", plots.bars(table))]))
    for heading, score in (
        ("Layout score", lambda: layout_score(made, real, detector, seed, bar)),
        ("Classification accuracy score", lambda: classification_score(made, real, seed, bar)),
    ):
        try:
            tables = score()
            found.append(Section(heading, tables, [("", plots.bars(tables[0]))]))
        except UserError as error:
            found.append(Section(heading, left_out=str(error)))
    if not training:
        found.append(Section("Memorisation", left_out="the pictures that the generator was trained on were not given "
                                                      "(--training)."))  # fmt: skip
        return found
    table, neighbours = copies_of_training(made, real, training, load_features(FEATURES), seed, bar)
    distances = neighbours.distances["generated"]
    order = np.argsort(distances)[:PAIRS]
    beside = plots.pairs(
        [made[i] for i in order],
        [training[neighbours.indices[i]] for i in order],
        [f"{made[i].name}: {distances[i]:.2f} to {training[neighbours.indices[i]].name}" for i in order],
    )
    caption = "The generated pictures that are nearest to a training picture, each with it beside"
    found.append(Section("Memorisation", [table], [("", plots.histograms(neighbours.distances)), (caption, beside)]))
    return found


def _samples(made: Sequence[Picture], real: Sequence[Picture], classes: Sequence[str], seed: int) -> list:
    return [
        (f"{name}, drawn at random", plots.sheet(chosen(list(pictures), ON_SHEET, seed), classes))
        for name, pictures in (("Generated", made), ("Real", real))
    ]


def _extremes(
    made: Sequence[Picture], classes: Sequence[str], made_x: np.ndarray, real_x: np.ndarray
) -> list[tuple[str, str]]:
    """Sheets of the generated pictures that are farthest from any real one, and nearest to one."""
    distances, _ = nearest(made_x, real_x)
    order = np.argsort(-distances)
    return [
        (
            f"Generated, {what} a real picture, with the distance to it",
            plots.sheet([made[i] for i in some], classes, [f"{distances[i]:.2f}" for i in some]),
        )
        for what, some in (("farthest from", order[: ON_SHEET // 2]), ("nearest to", order[: -ON_SHEET // 2 - 1 : -1]))
    ]


def write_report(out: Path, title: str, settings: dict[str, str], found: Sequence[Section]) -> None:
    """One HTML file with the sections, whole or not at all. Raises UserError where it cannot be written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dataengine.evaluate", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(title=title, settings=settings, sections=found)
    write_whole(out, page)

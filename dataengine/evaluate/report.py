"""All evaluations of one set of generated images in a self-contained HTML file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataengine.data.images import read_or_fail, read_picture
from dataengine.data.layout import Dataset
from dataengine.errors import UserError
from dataengine.evaluate import plots
from dataengine.evaluate.classification_score import classification_score
from dataengine.evaluate.copies import CopyFinder, copied_parts, planted_copy
from dataengine.evaluate.diversity import diversity
from dataengine.evaluate.features import Features, load_features
from dataengine.evaluate.fidelity import fidelity
from dataengine.evaluate.layout_score import layout_score
from dataengine.evaluate.manifold import nearest
from dataengine.evaluate.memorisation import FEATURES, Neighbours, memorisation
from dataengine.evaluate.results import Result
from dataengine.evaluate.sharpness import sharpness
from dataengine.evaluate.windows import Window, add_noise, random_subset, remove_detail
from dataengine.files import write_whole
from dataengine.judge.detector import Detector

IMAGES_PER_SHEET = 32
N_PAIRS = 16
N_COPIES = 100  # training images in the control of memorisation
INTRODUCTION = (
    "Read each figure together with its features, its number of images and the rows below it: the reference compares "
    "real images with real images, and the control must be worse. Figures in papers are measured in other ways and are "
    "not comparable."
)
Bar = Callable[[Sequence, str], Sequence]


@dataclass
class Section:
    """text: sentences above the tables. images: (caption, data URL) of plots and sheets below the tables. left_out: why
    there are no results."""

    heading: str
    results: list[Result] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)
    left_out: str = ""
    text: list[str] = field(default_factory=list)


def embedded(features: Features, windows: Sequence[Window], bar: Bar, title: str, change=None) -> np.ndarray:
    """Embeddings (N, E) of images, after applying `change` to each if given."""
    images = (x.pixels() if change is None else change(x.pixels()) for x in bar(windows, title))
    return features.embed(images)


def copies_of_training(
    generated: Sequence[Window],
    real: Sequence[Window],
    training: Sequence[Window],
    features: Features,
    seed: int,
    bar: Bar,
) -> tuple[Result, Neighbours]:
    """`memorisation` of images; the control is made from random training images."""
    titles = {"generated": generated, "real": real, "training": training}
    sets = [embedded(features, windows, bar, title) for title, windows in titles.items()]
    rng = np.random.default_rng(seed)
    sources = random_subset(list(training), N_COPIES, seed)
    copies = embedded(features, sources, bar, "noisy copies", lambda x: add_noise(x, rng))
    return memorisation(*sets, copies, features, seed)


def copied_parts_of_training(
    generated: Sequence[Window], real: Sequence[Window], training: Dataset, seed: int, bar: Bar
) -> tuple[Result, np.ndarray]:
    """`copied_parts` of images, and which of the generated ones; its control is planted from training images."""
    rng, side = np.random.default_rng(seed), min(generated[0].layout.size)
    samples = [sample for sample in training if read_picture(sample) is not None]
    finder = CopyFinder(read_or_fail(sample) for sample in bar(samples, "local features of training"))
    sources = [samples[i] for i in rng.choice(len(samples), min(N_COPIES, len(samples)), replace=False)]
    found = [
        finder.find_all(images)
        for images in (
            (window.pixels() for window in bar(generated, "generated")),
            (window.pixels() for window in bar(real, "real")),
            (planted_copy(read_or_fail(sample), side, rng) for sample in bar(sources, "planted copies")),
        )
    ]
    return copied_parts(*found, seed)


def sections(
    generated: Sequence[Window],
    real: Sequence[Window],
    training: Sequence[Window],
    features: Features,
    detector: Detector,
    seed: int,
    bar: Bar,
) -> list[Section]:
    """Sections of the report. A section without results states why: missing labels, classes or training images."""
    classes = tuple(dict.fromkeys(name for x in [*generated, *real] for name in x.layout.names()))
    found = [Section("Images", images=_samples(generated, real, classes, seed))]
    generated_x, real_x = embedded(features, generated, bar, "generated"), embedded(features, real, bar, "real")
    blurred = embedded(features, real, bar, "real, without detail", remove_detail)
    groups = [window.group for window in real]
    table = fidelity(generated_x, real_x, blurred, groups, features, seed)
    shown = [("", plots.bars(table)), ("", plots.embedding_map(real_x, generated_x))]
    found.append(Section("Fidelity", [table], shown + _extremes(generated, classes, generated_x, real_x)))
    table = sharpness(generated, real, seed, bar)
    found.append(Section("Sharpness", [table], [("", plots.bars(table))]))
    table = diversity(generated_x, real_x, groups, features, seed)
    found.append(Section("Diversity", [table], [("", plots.bars(table))]))
    for heading, score in (
        ("Layout score", lambda: layout_score(generated, real, detector, seed, bar)),
        ("Classification accuracy score", lambda: classification_score(generated, real, seed, bar)),
    ):
        try:
            tables = score()
            found.append(Section(heading, tables, [("", plots.bars(tables[0]))]))
        except UserError as error:
            found.append(Section(heading, left_out=str(error)))
    if not training:
        found.append(Section("Memorisation", left_out="the training images of the generator are not given "
                                                      "(--training)."))  # fmt: skip
        return found
    table, neighbours = copies_of_training(generated, real, training, load_features(FEATURES), seed, bar)
    distances = neighbours.distances["generated"]
    order = np.argsort(distances)[:N_PAIRS]
    sheet = plots.pairs(
        [generated[i] for i in order],
        [training[neighbours.indices[i]] for i in order],
        [f"{generated[i].name}: {distances[i]:.2f} to {training[neighbours.indices[i]].name}" for i in order],
    )
    caption = "Generated images nearest to a training image, each with that training image on the right"
    found.append(Section("Memorisation", [table], [("", plots.histograms(neighbours.distances)), (caption, sheet)]))
    return found


def _samples(generated: Sequence[Window], real: Sequence[Window], classes: Sequence[str], seed: int) -> list:
    return [
        (f"{name}, drawn at random", plots.sheet(random_subset(list(windows), IMAGES_PER_SHEET, seed), classes))
        for name, windows in (("Generated", generated), ("Real", real))
    ]


def _extremes(
    generated: Sequence[Window], classes: Sequence[str], generated_x: np.ndarray, real_x: np.ndarray
) -> list[tuple[str, str]]:
    """Sheets of the generated images farthest from, and nearest to, any real image."""
    distances, _ = nearest(generated_x, real_x)
    order = np.argsort(-distances)
    return [
        (
            f"Generated, {what} a real image, with the distance",
            plots.sheet([generated[i] for i in sources], classes, [f"{distances[i]:.2f}" for i in sources]),
        )
        for what, sources in (
            ("farthest from", order[: IMAGES_PER_SHEET // 2]),
            ("nearest to", order[: -IMAGES_PER_SHEET // 2 - 1 : -1]),
        )
    ]


def write_report(
    out: Path,
    title: str,
    settings: dict[str, str],
    found: Sequence[Section],
    introduction: str = INTRODUCTION,
    summary: Sequence[str] = (),
) -> None:
    """Write the sections to one HTML file, atomically. summary: sentences that come first. Raises UserError where it
    cannot be written."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dataengine.evaluate", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("report.html.j2").render(
        title=title, settings=settings, sections=found, introduction=introduction, summary=summary
    )
    write_whole(out, page)

"""A selection of a run's or a data set's images as a data set: by tags, by a filter of the page, by a list of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError
from dataengine.files import read_text
from dataengine.view.address import PAGE_PARAMETERS
from dataengine.view.filters import read_filter
from dataengine.view.gallery import Gallery
from dataengine.view.images import NotServedError
from dataengine.view.index import load_index
from dataengine.view.source import open_source


@dataclass(frozen=True)
class Selection:
    """The images, and sentences about what is left out."""

    dataset: Dataset
    notes: list[str] = field(default_factory=list)


def select(
    folder: Path,
    tags: Sequence[str] = (),
    filter: str = "",
    names: Sequence[str] | None = None,
    unused: bool = False,
    format: str | None = None,
    split: str | None = None,
) -> Selection:
    """The images that have all tags, match the filter and are in the list of names.

    filter: an address of the page, or its part after "?". unused: also images that the filter dropped or a person
    rejected; without it they are left out, with a note. Labels are as a person corrected them. Raises UserError for an
    invalid filter, an unknown name or tag, a missing image file, and where no image is left.
    """
    source = open_source(folder, split, format)
    gallery = Gallery(load_index(source))
    index, choices = gallery.index, gallery.choices
    for tag in tags:
        if choices is None or tag not in choices.tagged:
            known = "none" if choices is None else ", ".join(sorted(choices.tagged)) or "none"
            raise UserError(f"--tag {tag}: no image of {folder} has this tag; there are: {known}.")
    query = filter_of(filter)
    ids = gallery.matches(query.model_copy(update={"tag": (*query.tag, *tags)}))
    if names is not None:
        numbers = {name: i for i, name in enumerate(index.names)}
        if unknown := [name for name in names if name not in numbers]:
            raise UserError(
                f"--names: {folder} has no image {unknown[0]}; give names as the page shows them, one a line."
            )
        ids = ids[np.isin(ids, [numbers[name] for name in names])]
    notes = []
    if choices is not None and not unused:
        used = (choices.accepted == 1) | ((choices.accepted == -1) & (index.columns.kept == 1))
        if left_out := int((~used[ids]).sum()):
            notes.append(f"{left_out} of {len(ids)} images are left out: dropped by the filter or rejected (--unused)")
        ids = ids[used[ids]]
    if not len(ids):
        raise UserError(f"{folder}: no image is selected{'; ' + notes[0] if notes else ''}.")
    return Selection(_dataset(gallery, ids.tolist()), [*notes, *source.problems])


def filter_of(text: str):
    """The filter in an address of the page, or in its part after "?".

    >>> filter_of("http://127.0.0.1:8765/?class=car&size=..16&view=statistics").cls
    ('car',)
    """
    part = urlsplit(text).query if "?" in text else text
    try:
        values = parse_qs(part, keep_blank_values=True, strict_parsing=bool(part))
    except ValueError:
        raise UserError(
            f"--filter {text}: give the page's address, or its part after '?', such as class=car."
        ) from None
    return read_filter({name: given for name, given in values.items() if name not in PAGE_PARAMETERS})


def read_names(file: Path) -> list[str]:
    """Names of images, one a line; empty lines are skipped."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def _dataset(gallery: Gallery, ids: list[int]) -> Dataset:
    index, source = gallery.index, gallery.index.source
    classes = dict.fromkeys(source.classes)
    entries = [index.entry(i) for i in ids]
    for entry in entries:
        classes.update(dict.fromkeys(entry.labels.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    samples = []
    for i, entry in zip(ids, entries, strict=True):
        try:
            file = gallery.file(i) if source.kind == "run" else source.root / entry.image
        except NotServedError as error:
            raise UserError(f"{source.root / entry.image}: {error}; put the image back.") from None
        of = np.array([numbers[name] for name in entry.labels.classes], np.int64)
        layout = replace(entry.labels, labels=of[entry.labels.labels], classes=tuple(classes))
        made = "dataengine" if source.kind == "run" else entry.source
        samples.append(Sample(entry.name, file, layout, made, entry.license, pixel_range=entry.pixel_range))
    kinds = {sample.layout.kind for sample in samples}
    return Dataset(tuple(classes), samples, "obb" if "obb" in kinds else "hbb", name=f"selection of {source.title}")

"""Folders of images that need not be a labelled data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataengine.data import formats
from dataengine.data.images import measure
from dataengine.data.layout import Dataset, Layout, Problem, Sample
from dataengine.errors import UserError

LABEL_SUFFIXES = (".json", ".xml", ".yaml", ".yml")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def labelled_or_plain(folder: Path) -> Dataset:
    """A data set's images with their labels, or the images of a plain folder, taken to be empty of objects."""
    if not folder.exists():
        raise UserError(f"{folder} does not exist; give a folder of images, or a labelled data set.")
    if folder.suffix.lower() in IMAGE_SUFFIXES and folder.is_file():
        raise UserError(f"{folder} is one image; give the folder that holds it.")
    every = sorted(file for file in folder.rglob("*") if file.is_file() and file.name[0] != ".")
    files = [file for file in every if file.suffix.lower() in IMAGE_SUFFIXES]
    try:
        return formats.read(folder)
    except UserError:
        stems = {file.stem for file in files}
        labels = [f for f in every if f.suffix.lower() in LABEL_SUFFIXES or (f.suffix == ".txt" and f.stem in stems)]
        if labels or folder.is_file():  # whose objects would go unlabelled into the result
            raise
    samples, problems = [], []
    for file in files:
        try:
            layout = Layout(np.zeros((0, 5)), np.zeros(0), (), measure(file))
        except ValueError as error:
            problems.append(Problem(file, None, f"{error}; it is passed over"))
            continue
        samples.append(Sample(file.relative_to(folder).with_suffix("").as_posix(), file, layout))
    if not samples:
        raise UserError(f"{folder}: no images in this folder.")
    return Dataset((), samples, problems=problems)

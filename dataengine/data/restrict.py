"""A data set's layouts with some of its classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataengine.data.layout import Dataset, Layout, class_key


def restrict(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The data set with only these classes; objects of other classes become ignored regions, since they are seen."""
    if tuple(dataset.classes) == classes:
        return dataset
    samples = [replace(sample, layout=restrict_layout(sample.layout, classes)) for sample in dataset]
    return replace(dataset, classes=classes, samples=samples)


def restrict_layout(layout: Layout, classes: tuple[str, ...]) -> Layout:
    """The layout with labels in `classes`, matched by name without regard to case."""
    number = {class_key(name): i for i, name in enumerate(classes)}
    labels = np.array([number.get(class_key(name), -1) for name in layout.names()], np.int64)
    inside = layout.select(labels >= 0)
    ignored = np.concatenate([layout.ignored, layout.boxes[labels < 0]])
    return replace(inside, labels=labels[labels >= 0], classes=classes, ignored=ignored)

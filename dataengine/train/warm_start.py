"""Going on from the weights of a model that may have other classes, data sets or inputs."""

from __future__ import annotations

import torch

from dataengine.data.layout import class_key

TABLES = {  # one row a name: the setting that lists the names, and the row of the first; rows after them have none
    "class_embedding.weight": "classes",
    "box_encoder.classes.weight": "classes",
    "domain_embedding.weight": "domains",
}


@torch.no_grad()
def take_weights(model: torch.nn.Module, start: torch.nn.Module) -> None:
    """Copy into `model` every tensor of `start` that has a place there; the others stay as they are.

    Rows of classes and data sets go by name; a new name gets the row of the unknown one. A first layer that reads more
    channels than before gets zeros for the new ones, which come last, so that the model draws at first what `start`
    draws.
    """
    old = start.state_dict()
    for name, tensor in model.state_dict().items():
        given = old.get(name)
        if given is None:
            continue
        if name in TABLES:
            _take_rows(tensor, given, model.config[TABLES[name]], start.config[TABLES[name]])
        elif given.shape == tensor.shape:
            tensor.copy_(given)
        elif tensor.ndim == 4 and tensor[:, :1].shape == given[:, :1].shape and tensor.shape[1] > given.shape[1]:
            tensor.zero_()
            tensor[:, : given.shape[1]] = given


def _take_rows(table: torch.Tensor, given: torch.Tensor, names: list[str], old_names: list[str]) -> None:
    if table.shape[1] != given.shape[1]:
        return
    extra = len(given) - len(old_names)  # rows after the names: nothing, unknown
    rows = {class_key(name): row for name, row in zip(old_names, given, strict=False)}
    for i, name in enumerate(names):
        if class_key(name) in rows:
            table[i] = rows[class_key(name)]
        elif extra:
            table[i] = given[-1]
    if extra:
        table[-extra:] = given[-extra:]

"""Initialisation from a trained model that may have other classes, domains or inputs."""

from __future__ import annotations

import torch

from dataengine.data.layout import class_key

NAMED_ROWS = {  # tensors with one row per name, and the setting that lists the names; rows after those have no name
    "class_embedding.weight": "classes",
    "box_encoder.classes.weight": "classes",
    "domain_embedding.weight": "domains",
}


@torch.no_grad()
def copy_weights(model: torch.nn.Module, start: torch.nn.Module) -> None:
    """Copy every tensor of `start` that fits into `model`; the model's other tensors stay unchanged.

    Rows of classes and domains are matched by name; a new name gets the row of the unknown one. A first layer with more
    input channels gets zeros for the new ones, which come last, so that the model initially predicts what `start`
    predicts.
    """
    old = start.state_dict()
    for name, tensor in model.state_dict().items():
        source = old.get(name)
        if source is None:
            continue
        if name in NAMED_ROWS:
            _copy_rows(tensor, source, model.config[NAMED_ROWS[name]], start.config[NAMED_ROWS[name]])
        elif source.shape == tensor.shape:
            tensor.copy_(source)
        elif tensor.ndim == 4 and tensor[:, :1].shape == source[:, :1].shape and tensor.shape[1] > source.shape[1]:
            tensor.zero_()
            tensor[:, : source.shape[1]] = source


def _copy_rows(table: torch.Tensor, source: torch.Tensor, names: list[str], old_names: list[str]) -> None:
    if table.shape[1] != source.shape[1]:
        return
    extra = len(source) - len(old_names)  # rows after the names: nothing, unknown
    rows = {class_key(name): row for name, row in zip(old_names, source, strict=False)}
    for i, name in enumerate(names):
        if class_key(name) in rows:
            table[i] = rows[class_key(name)]
        elif extra:
            table[i] = source[-1]
    if extra:
        table[-extra:] = source[-extra:]

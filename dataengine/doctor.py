"""What is installed here, on what it would run, and how to get what is missing."""

from __future__ import annotations

import platform
from importlib import metadata, util

from dataengine import weights

REQUIRED = ("torch", "diffusers", "accelerate", "onnxruntime", "shapely", "albumentations", "typer")
OPTIONAL = {
    "tensorboard": "pip install '.[train]'",
    "transformers": "pip install '.[text]'",
    "peft": "pip install '.[lora]'",
    "faster-coco-eval": "pip install '.[evaluate]'",
    "torchmetrics": "pip install '.[evaluate]'",
    "matplotlib": "pip install '.[evaluate]'",
    "efficientnet-lite-pytorch": "pip install '.[imagenet]'",
    "torch-fidelity": "pip install '.[inception]', after torch and torchvision of one version",
    "onedl-mmrotate": "tools/install_mmrotate.sh in an environment of its own (docs/mmrotate.md)",
    "starlette": "pip install '.[view]'",
    "ray": "pip install '.[ray]'",
    "webdataset": "pip install '.[shards]'",
    "datasets": "pip install '.[shards]'",
    "mlcroissant": "pip install '.[release]'",
    "timm": "pip install '.[reference]'",
    "pycocotools": "pip install '.[test]'",
}
PACKAGED = (
    "in-scene", "whole", "detector", "evaluation-detector", "encoder", "layouts/hit-uav.npz", "layouts/hrplanes.npz",
    "calibration/hit-uav.json", "calibration/hrplanes.json",
)  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def examine() -> dict:
    """Versions, device, packaged parts, optional parts with the command that installs each."""
    required = {name: _version(name) for name in REQUIRED}
    device = {"cpu": platform.processor() or platform.machine(), "cuda": None, "native_bf16": None}
    if util.find_spec("torch"):
        import torch

        from dataengine.render.precision import has_native_bf16

        chosen = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        device["cuda"] = torch.cuda.get_device_name() if chosen.type == "cuda" else None
        device["native_bf16"] = has_native_bf16(chosen)
        device["threads"] = torch.get_num_threads()
    parts = {name: weights.has(name) for name in PACKAGED}
    return {
        "dataengine": _version("dataengine"),
        "python": platform.python_version(),
        "required": required,
        "device": device,
        "packaged": parts,
        "optional": {name: _version(name) or f"missing; {how}" for name, how in OPTIONAL.items()},
        "missing": [n for n, v in required.items() if v is None] + [n for n, there in parts.items() if not there],
    }


def show(findings: dict) -> None:
    """Print the findings as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("part", "state", title=f"dataengine {findings['dataengine']}, Python {findings['python']}")
    for name, version in findings["required"].items():
        table.add_row(name, version or Text("missing: pip install .", "red"))
    for name, value in findings["device"].items():
        table.add_row(f"device: {name}", "no" if value is None else str(value))
    for name, there in findings["packaged"].items():
        table.add_row(f"packaged: {name}", "there" if there else Text("missing: install dataengine again", "red"))
    for name, version in findings["optional"].items():
        table.add_row(f"optional: {name}", version)
    console = Console(markup=False)
    console.print(table)
    console.print("The commands are for dataengine's own folder; on PyPI the name belongs to another project.")

"""Which parts are installed, the device that runs them, and how to install what is missing."""

from __future__ import annotations

import platform
from importlib import metadata, util

import dataengine
from dataengine import weights
from dataengine.errors import DISTRIBUTION, install
from dataengine.mmrotate import environment

REQUIRED = ("torch", "diffusers", "accelerate", "onnxruntime", "shapely", "albumentations", "typer")
OPTIONAL = {
    "tensorboard": install("train"),
    "transformers": install("text"),
    "peft": install("lora"),
    "faster-coco-eval": install("evaluate"),
    "torchmetrics": install("evaluate"),
    "matplotlib": install("evaluate"),
    "efficientnet-lite-pytorch": install("imagenet"),
    "torch-fidelity": f"{install('inception')}, after torch and torchvision of matching versions",
    "rasterio": install("world"),
    "pyogrio": install("maps"),
    "osmium": install("maps"),
    "starlette": install("view"),
    "ray": install("ray"),
    "webdataset": install("shards"),
    "datasets": install("shards"),
    "mlcroissant": install("release"),
    "timm": install("reference"),
    "pycocotools": install("test"),
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
    """Versions, device, packaged models, and optional packages with the command that installs each."""
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
        "dataengine": dataengine.__version__,
        "python": platform.python_version(),
        "required": required,
        "device": device,
        "packaged": parts,
        "optional": {name: _version(name) or f"missing; {how}" for name, how in OPTIONAL.items()},
        "mmrotate": environment.state(),
        "missing": [n for n, v in required.items() if v is None]
        + [n for n, installed in parts.items() if not installed],
    }


def show(findings: dict) -> None:
    """Print the findings of `examine` as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("part", "state", title=f"dataengine {findings['dataengine']}, Python {findings['python']}")
    for name, version in findings["required"].items():
        table.add_row(name, version or Text(f"missing: {install()}", "red"))
    for name, value in findings["device"].items():
        table.add_row(f"device: {name}", "no" if value is None else str(value))
    for name, installed in findings["packaged"].items():
        table.add_row(
            f"packaged: {name}", "installed" if installed else Text(f"missing: reinstall {DISTRIBUTION}", "red")
        )
    for name, version in findings["optional"].items():
        table.add_row(f"optional: {name}", version)
    table.add_row("mmrotate", findings["mmrotate"])
    Console(markup=False).print(table)

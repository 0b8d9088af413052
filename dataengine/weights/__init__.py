"""The packaged weights: models, detectors, stored layouts and calibrations, each in a folder or file of its own."""

from __future__ import annotations

from pathlib import Path

from dataengine.errors import UserError

FOLDER = Path(__file__).parent


def has(name: str) -> bool:
    """Whether a packaged part of this name, such as "detector" or "layouts/hit-uav.npz", is there."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts  # a stranger's recipe may name anything
    return inside and (FOLDER / name).exists()


def packaged(name: str) -> Path:
    """Path of a packaged part. Raises UserError where this installation lacks it."""
    if not has(name):
        raise UserError(f"this installation has no packaged {name!r}; install dataengine again, or give your own.")
    return FOLDER / name

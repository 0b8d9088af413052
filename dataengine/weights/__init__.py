"""Packaged models, detectors, stored layouts and calibrations, each in its own folder or file."""

from __future__ import annotations

from pathlib import Path

from dataengine.errors import UserError

FOLDER = Path(__file__).parent


def has(name: str) -> bool:
    """Whether a part such as "detector" or "layouts/hit-uav.npz" is packaged. Paths out of the package are not."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts  # recipes of others may name any path
    return inside and (FOLDER / name).exists()


def packaged(name: str) -> Path:
    """Path of a packaged part. Raises UserError if this installation does not have it."""
    if not has(name):
        raise UserError(f"this installation has no packaged {name!r}; reinstall dataengine or give a path.")
    return FOLDER / name

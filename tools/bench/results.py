"""What the benchmarks have in common: the machine, and their figures as lines and as JSON."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import numpy as np


def machine() -> dict[str, str]:
    """What the figures of a benchmark depend on beside the code."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def append(result: dict, file: Path | None) -> None:
    """Append a result to a file of JSON lines; without a file, nothing."""
    if file is not None:
        with file.open("a") as opened:
            opened.write(json.dumps(result) + "\n")


def print_and_append(result: dict, file: Path | None) -> None:
    """Print a result, a line each, and `append` it."""
    print("\n".join(f"{key}: {value}" for key, value in result.items()))
    append(result, file)

"""Installs mmrotate (OpenMMLab's maintained line, import name mmrotate) into the environment of this Python.

    python3 -m venv mmrotate-venv && . mmrotate-venv/bin/activate && tools/install_mmrotate.sh [REQUIREMENT ...]

`dataengine train detector` does the same for the environment that it keeps. The order matters: first torch and
torchvision of one build, then onedl-mmcv compiled against that torch, then the rest. An installed torch and torchvision
that load together are kept, such as those of a CUDA machine. REQUIREMENT: what is installed last; without one, this
checkout with the packages of its tests. Environment variables:

    MMCV_WHEELS  folder with a prebuilt wheel of onedl-mmcv for the CPU; default ../shared/wheels if it exists
    MAX_JOBS     processes that compile onedl-mmcv if there is no wheel; default: all cores

It runs before anything is installed, so it imports the standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TORCH, TORCHVISION = "2.13.0", "0.28.0"
OLDEST_TORCH, FIRST_TOO_NEW_TORCH = (2, 8), (2, 14)  # that onedl-mmcv compiles against
MMCV = "onedl-mmcv>=2.3.6,<2.4"
WORKS = "from mmcv.ops import box_iou_rotated, nms_rotated; import mmrotate.models, mmrotate.datasets"


def say(text: str) -> None:
    print(f"install_mmrotate: {text}", file=sys.stderr, flush=True)


def stop(text: str) -> None:
    """Say why it ends, and end with status 2."""
    say(text)
    sys.exit(2)


def pip(*words: str, **variables: str) -> None:
    """`pip install WORDS`. Ends with a sentence where it fails, below what pip printed."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words]
    if subprocess.run(command, env=os.environ | variables, check=False).returncode:
        stop(f"pip could not install {' '.join(words)}; its message is above. The same command continues")


def ask(program: str) -> str | None:
    """What a Python program prints in this environment; None where it fails."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def prebuilt_wheel(folder: Path, tag: str) -> Path | None:
    """The wheel of onedl-mmcv for a Python such as cp311 in a folder, which may not exist."""
    return next(iter(sorted(folder.glob(f"**/onedl_mmcv-*-{tag}-*.whl"))), None)


def install_mmcv(torch_version: str) -> None:
    """From a prebuilt wheel for the CPU where there is one for this torch and Python, else compiled."""
    cuda = ask("import torch; print(int(torch.cuda.is_available()))") == "1"
    wheels = Path(os.environ.get("MMCV_WHEELS") or CHECKOUT.parent / "shared" / "wheels")
    prebuilt = prebuilt_wheel(wheels, f"cp{sys.version_info[0]}{sys.version_info[1]}")
    if not cuda and prebuilt and torch_version == TORCH:
        say(f"onedl-mmcv from {prebuilt}")
        pip(str(prebuilt))
        return
    if cuda and ask("from torch.utils.cpp_extension import CUDA_HOME; assert CUDA_HOME") is None:
        stop("this machine has a CUDA device but no CUDA compiler; install the CUDA toolkit of torch's version (nvcc)")
    say("onedl-mmcv from source, 10 to 20 minutes on two cores")
    pip("ninja", "setuptools", "wheel", "psutil")
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    variables = {"MMCV_WITH_OPS": "1", "FORCE_CUDA": str(int(cuda)), "MAX_JOBS": jobs}
    pip("--no-build-isolation", "--no-binary", "onedl-mmcv", MMCV, **variables)


def main(requirements: Sequence[str]) -> None:
    if sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        stop(
            "no virtual environment is active; make one first: python3 -m venv mmrotate-venv && "
            ". mmrotate-venv/bin/activate"
        )
    pip("--upgrade", "pip")
    if ask("import torch, torchvision") is None:
        say(f"torch {TORCH} and torchvision {TORCHVISION}")
        # === : no other build (2.13.0+...), which torchvision cannot load
        pip(f"torch==={TORCH}", f"torchvision=={TORCHVISION}")
    torch_version = (ask("import torch; print(torch.__version__)") or "0.0").partition("+")[0]
    if not OLDEST_TORCH <= tuple(map(int, torch_version.split(".")[:2])) < FIRST_TOO_NEW_TORCH:
        stop(
            "onedl-mmcv compiles against torch 2.8 to 2.13; install such a torch with its torchvision, or none, and "
            "repeat"
        )
    if ask("from mmcv.ops import nms_rotated") is None:
        install_mmcv(torch_version)
    say("mmrotate and the rest")
    pip(*(requirements or ("-e", f"{CHECKOUT}[mmrotate,test]")))
    if subprocess.run([sys.executable, "-c", WORKS], check=False).returncode:
        stop("mmrotate is installed but cannot be imported; the reason is above. Make the environment again")
    versions = "from importlib.metadata import version as v; print(*(f'{n} {v(n)}' for n in %r), sep=', ')"
    say(f"done: {ask(versions % (('torch', 'onedl-mmcv', 'onedl-mmrotate'),))}")


if __name__ == "__main__":
    main(sys.argv[1:])

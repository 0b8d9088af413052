"""Time and memory of importing a checkpoint with the names and shapes of AeroGen's, at full width, of random values.

    python tools/bench/import_aerogen.py --work work/import            # 9 GB of disk

The command is the user's own, `dataengine model import aerogen`, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from aerogen_shapes import published_shapes

ROOT = Path(__file__).resolve().parents[2]


def write_checkpoint(file: Path) -> int:
    """A Lightning-like checkpoint; its number of values."""
    state = {}
    for name, shape in published_shapes().items():
        whole = name.endswith("position_ids")
        state[name] = torch.arange(shape[-1])[None] if whole else torch.empty(shape).normal_(0, 0.02)
    torch.save({"state_dict": state, "global_step": 1}, file)
    return sum(value.numel() for value in state.values())


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of CLIP's size, without CLIP's words."""
    from transformers import CLIPTokenizer

    folder.mkdir(exist_ok=True)
    words = [f"w{i}" for i in range(49406)] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(folder, model_max_length=77).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    values = write_checkpoint(work / "random.ckpt")
    write_tokenizer(work / "tokenizer")
    np.save(work / "categories.npy", np.random.default_rng(0).normal(size=(20, 768)).astype(np.float32))
    command = [
        sys.executable, "-m", "dataengine", "model", "import", "aerogen", work / "random.ckpt", "--out", work / "model",
        "--categories", work / "categories.npy", "--tokenizer", work / "tokenizer",
    ]  # fmt: skip
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, cwd=ROOT)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = sum(file.stat().st_size for file in (work / "model").rglob("*") if file.is_file())
    print(json.dumps({
        "tensors": len(published_shapes()), "values": values, "seconds": round(seconds, 1),
        "peak_memory_gb": round(peak, 2), "folder_gb": round(size / 1e9, 2), "torch": torch.__version__,
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()

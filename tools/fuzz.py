"""Feed readers broken files: each must give a value or the one clear error (UserError), and never anything else.

    python tools/fuzz.py READER --inputs 100000        # READER: one of --list, or all
    python tools/fuzz.py coco --seed 0 --only 4711     # that input again, with its traceback
    python tools/fuzz.py READER --costs                # 100 small files that may cost much: time and peak memory

Inputs are valid files of our own writers, changed at random in their bytes and in their structure; input i depends on
(--seed, i) only. Also looked at: boxes are finite, labels are of the class list, images lie below the data set's
folder, errors are one line, no input takes longer than ten seconds or, where torch is not needed, three gigabytes.
Exit status 1 if anything was found; the inputs that did it are kept in --keep.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz_costs import Cost, cost, put_hostile
from fuzz_mutations import mutated
from fuzz_readers import READERS, Reader

from dataengine.errors import UserError

SLOW = 10  # seconds
MEMORY = 3 * 2**30


class Slow(BaseException):
    """An input took too long; no `except Exception` of a reader may swallow it."""


@dataclass
class Fed:
    """What became of the inputs: accepted gave a value (what was amiss in it is among its problems), refused the clear
    error; found: tracebacks of the others, at most ten, after which feeding ends."""

    outcomes: Counter = field(default_factory=Counter)
    found: list[str] = field(default_factory=list)


def strike(reader: Reader, folder: Path, files: list[Path], seed: int, index: int) -> tuple[str, str, Path, bytes]:
    """Read input `index`: ("accepted", "refused" or a traceback, with the file that was changed and its content)."""
    rng = np.random.default_rng((seed, index))
    file = files[rng.integers(len(files))]
    before = file.read_bytes()
    content = mutated(before, file.suffix, rng)
    file.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, SLOW)
    outcome, said = "accepted", ""
    try:
        reader.read(folder)
    except reader.allowed as error:
        outcome = "refused"
        if "\n" in str(error) and reader.allowed == (UserError,):
            outcome, said = "crash", f"an error of several lines: {error}"
    except (Exception, Slow):
        outcome, said = "crash", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        file.write_bytes(before)
    return outcome, said, file, content


def fuzz(name: str, inputs: range, seed: int, keep: Path | None = None) -> Fed:
    """Feed a reader these inputs."""
    fed = Fed()
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None

    def slow(number, frame):
        raise Slow(f"longer than {SLOW} s")

    before = signal.signal(signal.SIGALRM, slow)
    with tempfile.TemporaryDirectory(dir=place) as work:
        folder = Path(work).resolve() / "in"
        folder.mkdir()
        files = READERS[name].make(folder)
        READERS[name].read(folder)  # what is not changed is sound
        for index in inputs:
            outcome, said, file, content = strike(READERS[name], folder, files, seed, index)
            fed.outcomes[outcome] += 1
            if outcome == "crash":
                fed.found.append(f"{name}, input {index}, {file.name}:\n{said}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{seed}-{index}-{file.name}").write_bytes(content)
                if len(fed.found) == 10:
                    break
    signal.signal(signal.SIGALRM, before)
    return fed


def costs(name: str, inputs: range, seed: int) -> list[tuple[int, Cost]]:
    """What a reader spends on hostile files, of which input i depends on (seed, i) only."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    found = []
    with tempfile.TemporaryDirectory(dir=place) as work:
        model = Path(work).resolve() / "model"
        model.mkdir()
        files = [file.relative_to(model) for file in READERS[name].make(model)]
        for index in inputs:
            rng = np.random.default_rng((seed, index))
            folder = Path(work).resolve() / "in"
            shutil.copytree(model, folder)
            way = put_hostile(folder / files[rng.integers(len(files))], rng)
            found.append((index, cost(lambda folder=folder: READERS[name].read(folder), READERS[name].allowed, way)))
            shutil.rmtree(folder)
    return found


def show_costs(name: str, inputs: range, seed: int) -> bool:
    """Print what a reader spends as a line of a table; whether an input exceeds the budget."""
    started = time.perf_counter()
    found = costs(name, inputs, seed)
    slowest, largest = (max(found, key=lambda pair, of=of: getattr(pair[1], of)) for of in ("seconds", "peak"))
    refused = sum(each.outcome == "refused" for _, each in found)
    faults = [(index, each) for index, each in found if each.fault]
    print(
        f"| {name} | {len(found)} | {refused} | {len(faults)} | {slowest[1].seconds:.1f} s ({slowest[1].way}) | "
        f"{largest[1].peak / 2**20:.0f} MB ({largest[1].way}) | {time.perf_counter() - started:.0f} s |",
        flush=True,
    )
    for index, each in faults:
        print(f"{name}, input {index}, {each.way}: {each.fault}\n{each.said}", file=sys.stderr, flush=True)
    return bool(faults)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="?", default="all", choices=["all", *READERS])
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--costs", action="store_true", help="hostile files that may cost much, 100 of them")
    parser.add_argument("--only", type=int, help="only the input of this number")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(READERS))
        return
    quiet()
    failed = False
    if arguments.costs:
        inputs = range(min(arguments.inputs, 100)) if arguments.only is None else [arguments.only]
        names = list(READERS) if arguments.reader == "all" else [arguments.reader]
        titles = ("reader", "files", "refused", "above the budget", "slowest", "most memory", "in all")
        print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|", flush=True)
        exceeded = [show_costs(name, inputs, arguments.seed) for name in names]
        sys.exit(any(exceeded))
    for name in READERS if arguments.reader == "all" else [arguments.reader]:
        if not READERS[name].heavy and arguments.reader != "all":
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        started = time.perf_counter()
        inputs = range(arguments.inputs) if arguments.only is None else range(arguments.only, arguments.only + 1)
        fed = fuzz(name, inputs, arguments.seed, arguments.keep)
        told = [f"{fed.outcomes[outcome]} {outcome}" for outcome in ("crash", "refused", "accepted")]
        print(f"{name}: {sum(fed.outcomes.values())} inputs, {time.perf_counter() - started:.0f} s,", ", ".join(told))
        print("".join(f"{text}\n" for text in fed.found), end="", flush=True)
        failed |= bool(fed.found)
    sys.exit(failed)


def quiet() -> None:
    """Warnings of libraries about what they skip; it is counted, not read."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ |= {"DIFFUSERS_VERBOSITY": "critical", "TRANSFORMERS_VERBOSITY": "critical"}


if __name__ == "__main__":
    main()

"""How much code a run enters: files and functions of the package, in all threads, for `synth --n 1 --workers 1`.

Comprehensions count as functions, since they are on Python 3.11; `defined` leaves them and lambdas out. The second line
counts only what is entered while an image is made: below a function of engine/attempt.py.

python tools/bench/entered.py [--list]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from pathlib import Path

import dataengine

PACKAGE = Path(dataengine.__file__).parent
CO_OPTIMIZED = 1  # set for functions and comprehensions, not for the bodies of classes and modules
IMAGE_FILES = ("attempt.py", "shard.py", "judging.py")  # of engine; the last two until version 0.1.0

Found = dict[str, Counter]  # {file, relative to the package: {function: how often it was entered}}


def entered(arguments: list[str]) -> tuple[Found, Found]:
    """What one command enters, in all and while it makes images."""
    import dataengine.cli

    everything, image = defaultdict(Counter), defaultdict(Counter)

    def makes_an_image(frame) -> bool:
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            if file.name in IMAGE_FILES and file.parent == PACKAGE / "engine" and frame.f_code.co_flags & CO_OPTIMIZED:
                return True
            frame = frame.f_back
        return False

    def profile(frame, event: str, _argument) -> None:
        code = frame.f_code
        if event != "call" or not code.co_flags & CO_OPTIMIZED or not code.co_filename.startswith(str(PACKAGE)):
            return
        file = str(Path(code.co_filename).relative_to(PACKAGE))
        everything[file][code.co_qualname] += 1
        if code.co_qualname not in image[file] and makes_an_image(frame):
            image[file][code.co_qualname] += 1

    sys.argv = ["dataengine", *arguments]
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        dataengine.cli.main()
    except SystemExit as error:
        if error.code:
            raise
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return everything, image


def counts(found: Found) -> dict[str, int]:
    """Files, functions, and functions without comprehensions and lambdas."""
    names = [name for functions in found.values() for name in functions]
    files = sum(map(bool, found.values()))
    return {"files": files, "functions": len(names), "defined": sum(not name.endswith(">") for name in names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also name every function")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = ["synth", "--dataset", "hit-uav", "--n", "1", "--workers", "1", "--out", f"{folder}/run"]
        found = entered(command)
    for name, part in zip(("run", "image"), found, strict=True):
        if arguments.list:
            for file, functions in sorted(part.items()):
                print(f"{name} {file}: {', '.join(functions)}")
    for name, part in zip(("run", "image"), found, strict=True):
        print(json.dumps({"part": name} | counts(part)))


if __name__ == "__main__":
    main()

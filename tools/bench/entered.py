"""How much code a run enters: files and functions of the package, in all threads, for `synth --n 1 --workers 1`.

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

PACKAGE = Path(__file__).resolve().parents[2] / "dataengine"
CO_OPTIMIZED = 1  # set for functions and comprehensions, not for the bodies of classes and modules


def entered(arguments: list[str]) -> dict[str, Counter]:
    """{file, relative to the package: {function: how often it was entered}} of one command."""
    import dataengine.cli

    found: dict[str, Counter] = defaultdict(Counter)

    def profile(frame, event: str, _argument) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(str(PACKAGE)):
            found[str(Path(code.co_filename).relative_to(PACKAGE))][code.co_qualname] += 1

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
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also name every function")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = ["synth", "--dataset", "hit-uav", "--n", "1", "--workers", "1", "--out", f"{folder}/run"]
        found = entered(command)
    if arguments.list:
        for file, functions in sorted(found.items()):
            print(f"{file}: {', '.join(f'{name} {count}' for name, count in functions.items())}")
    print(
        json.dumps({"command": " ".join(command[:-2]), "files": len(found), "functions": sum(map(len, found.values()))})
    )


if __name__ == "__main__":
    main()

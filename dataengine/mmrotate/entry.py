"""Runs a module of this dataengine with another Python, as `python -m` does: `python -P entry.py MODULE ARGUMENTS`.

The other environment has the dependencies but not this package, or another version of it. Its own packages come first:
of the environment that this file lies in, it uses dataengine alone.
"""

import runpy
import sys
from importlib import util
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]

if __name__ == "__main__":
    spec = util.spec_from_file_location(
        "dataengine", PACKAGE / "__init__.py", submodule_search_locations=[str(PACKAGE)]
    )
    sys.modules["dataengine"] = module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.append(str(PACKAGE.parent))  # of the processes that it starts
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

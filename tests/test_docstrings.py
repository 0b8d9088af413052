"""Examples in docstrings: each one runs and prints what it says, and each public function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import dataengine

NEEDS_MMROTATE = ("mmengine", "mmdet", "mmrotate", "mmcv", "e2cnn")
MODULES = sorted(module.name for module in pkgutil.walk_packages(dataengine.__path__, "dataengine."))
MODULES.remove("dataengine.__main__")  # runs the command line


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] not in NEEDS_MMROTATE:
            raise
        pytest.skip(f"{name} needs mmrotate")
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of {name} fail; see the output above"


@pytest.mark.parametrize("name", dataengine.__all__)
def test_a_public_function_has_an_example(name):
    value = getattr(dataengine, name)
    assert value.__doc__, f"{name} has no docstring"
    if inspect.isfunction(value):
        assert ">>> " in value.__doc__, f"{name} has no example in its docstring"

"""Checks that a config of mmengine, which is a Python file, contains only values, without executing it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dataengine.errors import UserError
from dataengine.files import read_text

if TYPE_CHECKING:
    from mmengine.config import Config

_LIBRARIES = r"(?:mmengine|mmcv|mmdet|mmrotate)"
# mmengine imports and calls any Python object that a dotted `type` names, such as os.system
_TYPE = re.compile(rf"(?:{_LIBRARIES}\.)?[A-Za-z_]\w*")
_IMPORT = re.compile(rf"(?:{_LIBRARIES}|dataengine\.(?:judge|mmrotate))(?:\.\w+)*")
_BASE = re.compile(r"(?:mmrotate|mmdet)::(?:[\w-]+/)*[\w.-]+\.py")
# {module that configs of version 0.1.0 import: its present name}
_MOVED = {
    "dataengine.judge.cpu_forms": "dataengine.mmrotate.cpu_layers",
    "dataengine.judge.imagenet_backbone": "dataengine.mmrotate.imagenet_backbone",
}
_BUILDERS = ("dict", "list", "tuple", "set")


def refuse_code(config: str | Path) -> None:
    """Raises UserError, which names the line, for a config with more than named values, since mmengine would run it."""
    text = read_text(config)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{config}: mmengine cannot read it ({type(error).__name__}: {error}).") from None
    if "{{" in text:  # mmengine replaces it by a file name or an environment variable before parsing
        raise _fault(config, text[: text.index("{{")].count("\n") + 1, "`{{`, which mmengine replaces")
    names: set[str] = set()
    for line in tree.body:
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            continue  # a docstring
        targets = line.targets if isinstance(line, ast.Assign) else []
        if len(targets) != 1 or not isinstance(targets[0], ast.Name):
            raise _fault(config, line.lineno, f"a statement ({type(line).__name__})")
        _refuse_in(config, line.value, names)
        name = targets[0].id
        if name in ("_base_", "custom_imports"):
            _refuse_foreign_files(config, line, name)
        elif name in _BUILDERS:
            raise _fault(config, line.lineno, f"another {name}")
        names.add(name)


def _refuse_in(config: str | Path, value: ast.expr, names: set[str]) -> None:
    """Raises UserError for anything but plain values and names of values."""
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            is_builder = isinstance(node.func, ast.Name) and node.func.id in _BUILDERS
            entries = [(keyword.arg, keyword.value) for keyword in node.keywords]
            if not is_builder:
                raise _fault(config, node.lineno, "a call")
        elif isinstance(node, ast.Dict):
            keys = (key.value if isinstance(key, ast.Constant) else None for key in node.keys)
            entries = list(zip(keys, node.values, strict=True))
        elif isinstance(node, ast.Name):
            if node.id not in names and node.id not in _BUILDERS:
                raise _fault(config, node.lineno, f"the name {node.id}, which has no value yet")
            continue
        elif isinstance(node, ast.Constant | ast.List | ast.Tuple | ast.Set | ast.UnaryOp | ast.expr_context
                        | ast.unaryop | ast.keyword):  # fmt: skip
            continue
        else:
            raise _fault(config, getattr(node, "lineno", value.lineno), f"a {type(node).__name__}")
        for key, entry in entries:
            if key is None:  # unpacked from another dict, or an expression
                raise _fault(config, node.lineno, "a dict whose keys are not literals")
            if key in ("type", "_scope_") and not _is_type(entry):
                raise _fault(config, entry.lineno, "a `type` that is not a class of the libraries of mmengine")


def _is_type(value: ast.expr) -> bool:
    text = value.value if isinstance(value, ast.Constant) else 0
    return text is None or (isinstance(text, str) and _TYPE.fullmatch(text) is not None)


def _refuse_foreign_files(config: str | Path, line: ast.Assign, name: str) -> None:
    """Raises UserError for base files and imports that are not part of the libraries of mmengine or of dataengine."""
    allowed = _BASE if name == "_base_" else _IMPORT
    for node in ast.walk(line.value):
        if isinstance(node, ast.Name) and node.id not in _BUILDERS:
            raise _fault(config, line.lineno, f"a {name} that is not a literal")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not allowed.fullmatch(node.value):
            # the keys of custom_imports if it is written as {...}
            if name == "custom_imports" and node.value in ("imports", "allow_failed_imports"):
                continue
            raise _fault(config, node.lineno, f"{node.value!r} as {name}, which is another file")


def import_custom_modules(config: Config) -> None:
    """Import the modules that the config lists as `custom_imports`, and list those of version 0.1.0 by their new names.

    Read the config with `Config.fromfile(path, import_custom_modules=False)`: mmengine does not know the new names.
    """
    from mmengine.utils import import_modules_from_strings

    custom = config.get("custom_imports")
    if not custom:
        return
    listed = custom["imports"]
    custom["imports"] = [_MOVED.get(name, name) for name in ([listed] if isinstance(listed, str) else listed)]
    import_modules_from_strings(**custom)


def _fault(config: str | Path, line: int, what: str) -> UserError:
    return UserError(
        f"{config}:{line}: contains {what}, so reading it could run any program; give the config in the work folder of "
        "the training, where mmengine writes plain values (or convert a config that you trust: "
        "mmengine.Config.fromfile(...).dump(...))."
    )

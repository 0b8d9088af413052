"""Configs of mmengine, which are Python files, as plain values: their syntax is read and nothing in them is executed.

A config is a list of assignments. A value is a number, text, None, a list, tuple or dict (`{...}` or `dict(...)`) of
values, arithmetic on numbers, or a name that was bound before. Everything else is refused with its line. Which classes
the values may name is decided in `registered`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from dataengine.errors import UserError, shown
from dataengine.files import MAX_CONFIG_BYTES, read_text
from dataengine.mmrotate.registered import check_names

MAX_VALUES = 300_000  # in a config with its bases, counted as often as they are named; those of mmrotate have 2,000
MAX_DEPTH = 100  # of nested values
MAX_BASES = 8  # files that inherit from each other
MAX_INTEGER = 10**18  # a product of products would fill the memory

_BASES_OF = ("mmrotate", "mmdet")  # libraries that are installed with configs, as `mmrotate::NAME.py`
_BASE_NAME = re.compile(rf"({'|'.join(_BASES_OF)})::((?:[\w-]+/)*[\w-][\w.-]*\.py)")
_VARIABLE = re.compile(r"\{\{\s*(fileDirname|fileBasename|fileBasenameNoExtension|fileExtname)\s*\}\}")
_ARITHMETIC: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SIGNS: dict[type, Callable] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def read_config(file: str | Path) -> dict:
    """The values of a config, merged with those of its bases as mmengine merges them, without executing it.

    Bases are relative paths, or configs that are installed with mmrotate or mmdet (`mmrotate::...`), and are read in
    the same way. Raises UserError, with the line, for anything but plain values, for a `type` that is an import path,
    and for a file that cannot be read.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "a.py")
    >>> written = file.write_text("lr = 0.01 / 4\\nmodel = dict(type='mmdet.FCOS', sizes=[8, 16], lr=lr)")
    >>> read_config(file)
    {'lr': 0.0025, 'model': {'type': 'mmdet.FCOS', 'sizes': [8, 16], 'lr': 0.0025}}
    """
    values = _read(Path(file), _Budget(file), ())
    check_names(file, values)
    return values


@dataclass
class _Budget:
    """Values that may still be named: a list of a list of a list, each twice, would be endless to walk through."""

    config: str | Path
    left: int = MAX_VALUES

    def charge(self, value: object) -> None:
        """Raises UserError where a value, with all in it, does not fit."""
        waiting = [(value, 0)]
        while waiting:
            item, depth = waiting.pop()
            self.left -= 1
            if self.left < 0 or depth > MAX_DEPTH:
                raise UserError(f"{self.config}: has more than {MAX_VALUES} values, or nests them too deeply.")
            if isinstance(item, dict | list | tuple):
                items = item.values() if isinstance(item, dict) else item
                waiting += [(inner, depth + 1) for inner in items]


def _read(file: Path, budget: _Budget, children: tuple[Path, ...]) -> dict:
    """children: the configs that inherit from this one."""
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"{file}: no such config; give a Python file (.py) of mmengine.")
    if file.resolve() in children or len(children) > MAX_BASES:
        raise UserError(f"{children[0]}: its bases inherit from each other, {file} again.")
    try:
        tree = ast.parse(read_text(file, MAX_CONFIG_BYTES))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{file}: mmengine cannot read it ({type(error).__name__}: {error}).") from None
    reader = _Reader(file, budget)
    try:
        base: dict = {}
        for name, scope in reader.bases(tree):
            values = _read(name, budget, (*children, file.resolve()))
            if repeated := sorted(values.keys() & base.keys()):
                raise UserError(f"{file}: two of its bases have {', '.join(repeated)}; keep one of them.")
            base |= _scoped(values, scope) if scope else values
        reader.names["_base_"] = base
        for line in tree.body:
            reader.statement(line)
        values = {name: value for name, value in reader.names.items() if name != "_base_"}
        budget.charge([values, base])  # a value may have been put into itself
        values.pop("_deprecation_", None)
        return _merged(file, values, base)
    except RecursionError:
        raise UserError(f"{file}: nests its values too deeply.") from None


@dataclass
class _Reader:
    """names: the values that are bound so far."""

    file: Path
    budget: _Budget
    names: dict[str, object] = field(default_factory=dict)

    def fault(self, node: ast.AST, what: str) -> UserError:
        """The refusal of a part of the config."""
        return UserError(
            f"{self.file}:{getattr(node, 'lineno', 1)}: contains {what}, but a config is read as plain values and "
            "never executed; give the config in the work folder of the training, where mmengine writes plain values "
            "(or convert a config that you trust: mmengine.Config.fromfile(...).dump(...))."
        )

    def bases(self, tree: ast.Module) -> list[tuple[Path, str | None]]:
        """(file, library that it is installed with) of each base."""
        found = [line for line in tree.body if isinstance(line, ast.Assign) and _is_name(line.targets[0], "_base_")]
        if len(found) > 1:
            raise self.fault(found[1], "a second _base_")
        result = []
        for line in found:
            listed = self.value(line.value)
            for name in [listed] if isinstance(listed, str) else listed if isinstance(listed, list | tuple) else [None]:
                result.append(self._base(line, name))
        return result

    def _base(self, line: ast.Assign, name: object) -> tuple[Path, str | None]:
        if isinstance(name, str) and (match := _BASE_NAME.fullmatch(name)):
            spec = find_spec(match[1])  # does not import it
            if spec is None or spec.origin is None:
                raise UserError(f"{self.file}:{line.lineno}: {match[1]}, whose {name} is its base, is not installed.")
            return Path(spec.origin).parent / ".mim" / "configs" / match[2], match[1]
        if not isinstance(name, str) or "::" in name or "\0" in name or Path(name).is_absolute():
            raise self.fault(line, f"the _base_ {shown(name)}, which is no relative path")
        return self.file.parent / name, None

    def statement(self, line: ast.stmt) -> None:
        """Bind one assignment. Raises UserError for any other statement but a docstring."""
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str):
            return
        if not isinstance(line, ast.Assign) or len(line.targets) != 1:
            raise self.fault(line, f"a statement ({type(line).__name__})")
        target = line.targets[0]
        if _is_name(target, "_base_"):
            return
        value = self.value(line.value)
        if isinstance(target, ast.Name):
            if target.id == "dict" or target.id.startswith("__"):
                raise self.fault(line, f"another {target.id}")
            self.names[target.id] = value
        elif isinstance(target, ast.Attribute | ast.Subscript):
            owner, key = self._owner(target)
            is_item = isinstance(owner, list) and type(key) is int and -len(owner) <= key < len(owner)
            if not is_item and not (isinstance(owner, dict) and isinstance(key, str)):
                raise self.fault(line, "an assignment to no part of a value")
            owner[key] = value
        else:
            raise self.fault(line, "more than one name before =")

    def value(self, node: ast.expr) -> object:
        """The value of an expression."""
        match node:
            case ast.Constant(value=str() as text):
                return self._text(node, text)
            case ast.Constant(value=None | bool()):
                return node.value
            case ast.Constant(value=int() | float()):
                return self._number(node, node.value)
            case ast.List() | ast.Tuple():
                items = [self.value(item) for item in node.elts]
                return items if isinstance(node, ast.List) else tuple(items)
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return {self._key(node, key): self.value(item) for key, item in pairs}
            case ast.Call(func=ast.Name(id="dict"), args=[]):
                return self._keywords(node)
            case ast.UnaryOp() if type(node.op) in _SIGNS:
                return _SIGNS[type(node.op)](self._number(node, self.value(node.operand)))
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = self._number(node, self.value(node.left)), self._number(node, self.value(node.right))
                try:
                    return self._number(node, _ARITHMETIC[type(node.op)](left, right))
                except (ArithmeticError, ValueError) as error:
                    raise self.fault(node, f"a number that does not exist ({error})") from None
            case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as named])]) if _root(named) == "_base_":
                return self.value(named)  # {{_base_.name}}, which mmengine replaces
            case ast.Name() | ast.Attribute() | ast.Subscript():
                found = self._named(node)
                self.budget.charge(found)
                return found
        raise self.fault(node, "a call" if isinstance(node, ast.Call) else f"a value of the kind {type(node).__name__}")

    def _keywords(self, node: ast.Call) -> dict:
        """The value of `dict(a=1, **b)`."""
        named: dict = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            added = {keyword.arg: value} if keyword.arg is not None else value
            if not isinstance(added, dict) or added.keys() & named.keys():
                raise self.fault(node, "a dict with a key twice, or ** of what is no dict")
            named |= added
        return named

    def _text(self, node: ast.Constant, text: str) -> str:
        """The text with the variables that mmengine replaces by the place of the config."""
        place = self.file.absolute()
        known = {
            "fileDirname": place.parent.as_posix(),
            "fileBasename": place.name,
            "fileBasenameNoExtension": place.stem,
            "fileExtname": place.suffix,
        }
        if "{{" in _VARIABLE.sub("", text):
            raise self.fault(node, "`{{`, which mmengine replaces by what is not in the file")
        return _VARIABLE.sub(lambda match: known[match[1]], text)

    def _number(self, node: ast.expr, value: object) -> int | float:
        if not isinstance(value, int | float) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
            raise self.fault(node, f"{shown(value)} as a number")
        return value

    def _key(self, node: ast.Dict, key: ast.expr | None) -> str | int:
        if not isinstance(key, ast.Constant) or type(key.value) not in (str, int):
            raise self.fault(node, "a dict whose keys are not literals")
        return self._text(key, key.value) if isinstance(key.value, str) else self._number(key, key.value)

    def _named(self, node: ast.expr) -> object:
        """What a name, or the part of a named value, stands for."""
        if isinstance(node, ast.Name):
            if node.id not in self.names:
                raise self.fault(node, f"the name {node.id}, which has no value yet")
            return self.names[node.id]
        if not isinstance(node, ast.Attribute | ast.Subscript):
            raise self.fault(node, f"a part of a {type(node).__name__}")
        owner, key = self._owner(node)
        if isinstance(owner, dict) and key in owner:
            return owner[key]
        if isinstance(owner, list | tuple) and type(key) is int and -len(owner) <= key < len(owner):
            return owner[key]
        raise self.fault(node, f"{shown(key)}, which the value before it does not have")

    def _owner(self, node: ast.Attribute | ast.Subscript) -> tuple[object, object]:
        """The value that `node` is a part of, and the name or number of the part."""
        key = node.attr if isinstance(node, ast.Attribute) else self.value(node.slice)
        if type(key) not in (str, int):
            raise self.fault(node, f"{shown(key)} as the name of a part")
        return self._named(node.value), key


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _root(node: ast.expr) -> str | None:
    """The name that a chain of attributes begins with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _scoped(value: object, scope: str, outermost: bool = True) -> object:
    """The values of a base of a library; the outermost dicts with a `type` say which library resolves it."""
    if isinstance(value, dict):
        begins = outermost and "type" in value
        own = {"_scope_": scope} if begins and value.get("_scope_") is None else {}
        return {name: _scoped(item, scope, outermost and not begins) for name, item in value.items()} | own
    if isinstance(value, list | tuple):
        return type(value)(_scoped(item, scope, outermost) for item in value)
    return value


def _merged(file: Path, own: dict, base: dict) -> dict:
    """Values of a config over those of its base: dicts are merged, unless `_delete_=True` is in them."""
    result = dict(base)
    for name, value in own.items():
        if isinstance(value, dict):
            value = dict(value)
            if name in result and not value.pop("_delete_", False):
                if not isinstance(result[name], dict):
                    raise UserError(f"{file}: {name} is a dict, but none in its base; add _delete_=True to it.")
                value = _merged(file, value, result[name])
        result[name] = value
    return result

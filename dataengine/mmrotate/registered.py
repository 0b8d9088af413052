"""Which classes a config may name: those registered by mmengine, mmcv, mmdet, mmrotate or this package, by name.

mmengine imports whatever else a `type` names, be it `os.system` or a file of the working directory, and some classes
evaluate texts or load files that their arguments name. So a part of a config is checked before it is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import import_module

from dataengine.errors import UserError, shown

LIBRARIES = ("mmengine", "mmcv", "mmdet", "mmrotate")
DETECTOR_REGISTRIES = ("MODELS", "TASK_UTILS", "TRANSFORMS")  # of each library: parts of a detector and its pipeline
Names = dict[str, set[str]]  # by library; "" has all of them

# {module that configs of version 0.1.0 import: its present name}
_MOVED = {
    "dataengine.judge.cpu_forms": "dataengine.mmrotate.cpu_layers",
    "dataengine.judge.imagenet_backbone": "dataengine.mmrotate.imagenet_backbone",
}
_OWN_MODULES = {*_MOVED, *_MOVED.values()}
_LIBRARY_MODULE = re.compile(rf"({'|'.join(LIBRARIES)})(\.[a-z]\w*)*")
_CLASS = re.compile(rf"[A-Za-z]\w*|({'|'.join(LIBRARIES)})\.[A-Z]\w*")
_WORD = re.compile(r"(?!_)\w*")
_INITIAL_WEIGHTS = ("init_cfg", "pretrained")  # replaced by the checkpoint
# functions and layers of mmcv.ops, which mmcv and mmdet look up by name without a registry, by the key of their dict
_OPERATORS = {
    "nms": {"nms", "soft_nms", "nms_rotated", "nms_quadri"},
    "roi_layer": {"RoIAlign", "RoIPool", "RoIAlignRotated", "RiRoIAlignRotated"},
}


def check_names(config: object, values: dict) -> None:
    """Raises UserError unless each `type` and each of `custom_imports` in a config has the form of a class or module
    that may be named. It needs no mmrotate, and does not know which classes exist (`checked_part` does)."""
    for where, part in _dicts(values):
        if (name := part.get("type")) is not None and not (isinstance(name, str) and _CLASS.fullmatch(name)):
            raise _not_registered(config, where, name)
        if (scope := part.get("_scope_")) is not None and scope not in LIBRARIES:
            raise UserError(f"{config}: {where}_scope_ is {shown(scope)}; it must be one of {', '.join(LIBRARIES)}.")
    for name in custom_modules(config, values):
        if name not in _OWN_MODULES and not _LIBRARY_MODULE.fullmatch(name):
            raise UserError(
                f"{config}: custom_imports has {shown(name)}, which is no module of {', '.join(LIBRARIES)} or "
                "dataengine, and is not imported; use a detector of these."
            )


def check_registered(config: object, values: object, known: Names) -> None:
    """Raises UserError for a `type` in a config that is not registered, and as `check_names`."""
    check_names(config, values)
    for where, part in _dicts(values):
        if (name := part.get("type")) is not None and not _is_known(where.removesuffix("."), name, known):
            raise _not_registered(config, where, name)


def custom_modules(config: object, values: dict) -> list[str]:
    """The modules in a config's `custom_imports`. Raises UserError for anything but a name or a list of names."""
    custom = values.get("custom_imports") or {}
    listed = custom.get("imports", []) if isinstance(custom, dict) else None
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{config}: custom_imports must be dict(imports=[...]) with names of modules.")
    return list(listed)


def import_own_modules(config: object, values: dict) -> None:
    """Import the modules of this package that a config lists, and list those of version 0.1.0 by their new names.

    The libraries register their own classes (`register_all_modules`)."""
    names = [_MOVED.get(name, name) for name in custom_modules(config, values)]
    for name in names:
        if name in _OWN_MODULES:
            import_module(name)
    if names:
        values["custom_imports"]["imports"] = names


def registered_names(kinds: Sequence[str] | None = DETECTOR_REGISTRIES) -> Names:
    """The classes that the libraries register, of all registries if `kinds` is None."""
    from mmengine.registry import Registry

    names: Names = {library: set() for library in ("", *LIBRARIES)}
    for library in LIBRARIES:
        try:
            module = import_module(f"{library}.registry")
        except ModuleNotFoundError:  # mmcv registers its classes with mmengine
            continue
        for kind in vars(module) if kinds is None else kinds:
            if isinstance(registry := getattr(module, kind, None), Registry):
                registry.import_from_location()  # modules of the library that it has not imported yet
                names[library] |= registry.module_dict.keys()
    return {library: found | names["mmengine"] for library, found in names.items()} | {"": set().union(*names.values())}


def checked_part(config: object, name: str, part: object, known: Names) -> object:
    """A copy of a part of a config that may be built, without initial weights, which the checkpoint replaces.

    name: of the part, for messages. Raises UserError for a `type` that is not registered, and for a text that is not
    a plain word: it could name a file, an address or a Python expression.

    >>> known = {"": {"FCOS"}, "mmdet": {"FCOS"}}
    >>> checked_part("a.py", "model", {"type": "mmdet.FCOS", "style": "caffe", "init_cfg": {"type": "Normal"}}, known)
    {'type': 'mmdet.FCOS', 'style': 'caffe'}
    >>> checked_part("a.py", "model", {"type": "FCOS", "teacher": "my/teacher.py"}, known)
    Traceback (most recent call last):
    dataengine.errors.UserError: a.py: model.teacher is 'my/teacher.py'; a detector may have only plain words there.
    """
    if isinstance(part, dict):
        copied = {}
        for key, value in part.items():
            where = f"{name}.{key}"
            if key in _INITIAL_WEIGHTS:
                continue
            if key in ("type", "_scope_"):
                if key == "type" and value is not None and not _is_known(name, value, known):
                    raise _not_registered(config, f"{name}.", value)
                copied[key] = value
            else:
                copied[key] = checked_part(config, where, value, known)
        return copied
    if isinstance(part, list | tuple):
        return type(part)(checked_part(config, f"{name}[{i}]", item, known) for i, item in enumerate(part))
    if isinstance(part, str) and not _WORD.fullmatch(part):
        raise UserError(f"{config}: {name} is {shown(part)}; a detector may have only plain words there.")
    return part


def _is_known(owner: str, name: object, known: Names) -> bool:
    if not isinstance(name, str) or not _CLASS.fullmatch(name):
        return False
    library, _, own_name = name.rpartition(".")
    operators = _OPERATORS.get(owner.rpartition(".")[2].partition("[")[0], set())
    return own_name in known.get(library, ()) or name in operators


def _dicts(value: object, where: str = "") -> Iterator[tuple[str, dict]]:
    """(its place, a dict) for every dict in a value. The place ends in a point, if it has a name."""
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from _dicts(item, f"{where}{key}.")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _dicts(item, f"{where.removesuffix('.')}[{i}].")


def _not_registered(config: object, where: str, name: object) -> UserError:
    return UserError(
        f"{config}: {where}type is {shown(name)}, which is no class that {', '.join(LIBRARIES)} or dataengine register "
        "by that name, and is not imported; use a detector of these."
    )

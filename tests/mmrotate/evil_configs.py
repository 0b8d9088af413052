"""Configs that write the file `marker` where they are executed, or built, as mmengine does; and the files they name."""

from __future__ import annotations

import os
import pickle
import pydoc
import re
import sys
from importlib import import_module
from pathlib import Path

TOUCH = "touch marker"
SYSTEM = f"__import__('os').system('{TOUCH}')"
BUILT = f"'type': 'os.system', 'command': '{TOUCH}'"

# texts that are no plain values, or name what is no class
REFUSED_AS_THEY_ARE = [
    f"import os\nos.system('{TOUCH}')",
    f"from os import system\nsystem('{TOUCH}')",
    "import evil",
    SYSTEM,
    f"a = {SYSTEM}",
    f"a = [1, (2, {SYSTEM})]",
    f"a = dict(b={{'c': {SYSTEM}}})",
    f"a = {{{SYSTEM}: 1}}",
    f"a = {{{SYSTEM}}}",
    f"a = -{SYSTEM}",
    f"a = 1 + {SYSTEM}",
    f"a = [0][{SYSTEM}]",
    f"a = dict(b=0)\na[str({SYSTEM})] = 1",
    f"a: {SYSTEM} = 1",
    f"a = 1\na += {SYSTEM}",
    f"a = (b := {SYSTEM})",
    f"a = (lambda: {SYSTEM})()",
    f"a = [{SYSTEM} for i in (1,)]",
    f"a = {{i: {SYSTEM} for i in (1,)}}",
    f"a = list({SYSTEM} for i in (1,))",
    f'a = f"{{{SYSTEM}}}"',
    f"a = 1 if {SYSTEM} else 2",
    f"a = {SYSTEM} or 1",
    f"a = 0 < {SYSTEM}",
    f"a, b = {SYSTEM}, 1",
    f"a = dict(*[{SYSTEM}] and [])",
    f"a = exec(\"{SYSTEM}\")",
    f"a = eval(\"{SYSTEM}\")",
    f"a = getattr(__import__('os'), 'system')('{TOUCH}')",
    f"a = compile(\"{SYSTEM}\", '', 'eval')\nb = eval(a)",
    "a = open('marker', 'w')",
    "with open('marker', 'w') as f:\n    pass",
    f"def f(a={SYSTEM}):\n    pass",
    f"@(lambda f: {SYSTEM})\ndef f():\n    pass",
    f"class A:\n    {SYSTEM}",
    f"if True:\n    {SYSTEM}",
    f"for i in (1,):\n    {SYSTEM}",
    f"while {SYSTEM}:\n    pass",
    f"try:\n    {SYSTEM}\nfinally:\n    pass",
    f"match {SYSTEM}:\n    case _:\n        pass",
    f"assert {SYSTEM} == 0",
    f"raise ValueError({SYSTEM})",
    f"del [{SYSTEM}][0]",
    f"a = '\\0'; {SYSTEM}",
    f"model = dict([('type', 'os.system'), ('command', '{TOUCH}')])",
    f"model = dict([['type', 'os.system'], ['command', '{TOUCH}']])",
    f"model = dict({{{BUILT}}})",
    f"model = dict(**{{{BUILT}}})",
    f"model = {{**{{{BUILT}}}}}",
    f"part = {{{BUILT}}}\nmodel = dict(**part)",
    f"model = {{{BUILT}}}",
    f"key = 'type'\nmodel = {{key: 'os.system', 'command': '{TOUCH}'}}",
    f"model = {{'ty' 'pe': 'os.system', 'command': '{TOUCH}'}}",
    f"name = 'os.system'\nmodel = dict(type=name, command='{TOUCH}')",
    f"model = dict(type='os.' + 'system', command='{TOUCH}')",
    f"model = dict(type='os.' 'system', command='{TOUCH}')",
    f"model = dict(type='os\\x2esystem', command='{TOUCH}')",
    f"model = dict(type='%s.system' % 'os', command='{TOUCH}')",
    f"model = dict(type='.'.join(['os', 'system']), command='{TOUCH}')",
    f"model = dict(type='posix.system', command='{TOUCH}')",
    "model = dict(type='subprocess.run', args=['touch', 'marker'])",
    "model = dict(type='pathlib.Path.touch', self='marker')",
    "model = dict(type='mmengine.load', file='evil.pkl')",
    "model = dict(type='mmengine.fileio.load', file='evil.pkl')",
    "custom_hooks = [dict(type='mmengine.load', file='evil.pkl')]",
    "test_dataloader = dict(dataset=dict(pipeline=[dict(type='mmengine.load', file='evil.pkl')]))",
    "visualizer = ((dict(type='mmengine.load', file='evil.pkl'),),)",
    "model = dict()\nmodel['type'] = 'mmengine.load'\nmodel['file'] = 'evil.pkl'",
    "model = dict(b=[dict(type='FCOS')])\nmodel['b'][0] = dict(type='mmengine.load', file='evil.pkl')",
    "_base_ = './base.py'\nmodel = _base_.model\nmodel.type = 'mmengine.load'\nmodel.file = 'evil.pkl'",
    "_base_ = './base.py'\nmodel = dict(type='mmengine.load', file='evil.pkl', _delete_=True)",
    "_base_ = './base.py'\nmodel = {{_base_.evil}}",
    "_base_ = './other.py'",
    "_base_ = ['base.py', 'sub/../other.py']",
    "model = dict(type='evil.Model')",
    "model = dict(type='FCOS', _scope_='evil')",
    "custom_imports = dict(imports=['evil'])",
    "custom_imports = dict(imports='evil', allow_failed_imports=False)",
    "custom_imports = {'imports': ('evil',)}",
    "names = ['evil']\ncustom_imports = dict(imports=names)",
    "_base_ = './base.py'\ncustom_imports = dict(imports=_base_.modules)",
    f"a = {{{{'$EVIL:{SYSTEM}'}}}}",
    f"a = '{{{{$EVIL:' + {SYSTEM} + '}}}}'",
]  # fmt: skip

# values, whose names are classes by their form; mmengine imports what is not registered, and classes use texts
REFUSED_BY_REGISTRY = [
    "model = dict(type='evil')",
    "model = dict(type='FCOS', backbone=dict(type='evil'))",
    "model = dict(type='FCOS', necks=[[dict(type='evil')]])",
    "model = dict(type='mmengine.Config', filename='other.py')",
    "model = dict(type='FCOS', test_cfg=dict(nms=dict(type='evil')))",
    "model = dict(type='FCOS', nms_rotated=dict(type='nms_rotated', evil='evil.py'))",
    "model = dict(type='mmdet.Teaching', teacher_config='other.py')",
    "model = dict(type='mmdet.Teaching', teacher_config='sub/../other.py')",
    f"model = dict(type='mmdet.Evaluating', warp_mode=\"{SYSTEM}\")",
    "model = dict(type='mmdet.Loading', teacher_ckpt='evil.pkl')",
    "model = dict(type='mmdet.Loading', teacher_ckpt='./evil.pkl')",
]

# classes as those of mmdet and mmengine that evaluate texts, or read configs and checkpoints that they are given
MMENGINE = """
import pickle, sys
def load(file): pickle.load(open(file, 'rb'))
def Config(filename): exec(open(filename).read())
"""
MMDET = """
import pickle
def Teaching(teacher_config): exec(open(teacher_config).read())
def Evaluating(warp_mode): eval(warp_mode)
def Loading(teacher_ckpt): pickle.load(open(teacher_ckpt, 'rb'))
"""


class Touch:
    """Pickled, it writes the marker when it is loaded."""

    def __reduce__(self):
        return eval, (SYSTEM,)


def write_evil(folder: Path, text: str) -> Path:
    """The config, beside all files that an evil config can name."""
    (folder / "sub").mkdir()
    (folder / "mmengine").mkdir()
    (folder / "mmengine/__init__.py").write_text(MMENGINE)
    (folder / "mmengine/fileio.py").write_text(MMENGINE)
    (folder / "mmdet.py").write_text(MMDET)
    (folder / "evil.py").write_text(f"{SYSTEM}\nclass Model: pass\n")
    (folder / "evil.pkl").write_bytes(pickle.dumps(Touch()))
    (folder / "other.py").write_text(f"{SYSTEM}\n")
    base = "modules = ['evil']\nmodel = dict(type='FCOS')\nevil = dict(type='os.system', command='touch marker')\n"
    (folder / "base.py").write_text(base if re.search(r"modules|_base_\.evil", text) else "model = dict(type='FCOS')\n")
    (folder / "config.py").write_text(text + "\n")
    return folder / "config.py"


def run_as_mmengine(config: Path) -> None:
    """Execute the config and build what it names in another process, as mmengine does."""
    child = os.fork()  # a fresh interpreter would take a second for each config
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.chdir(config.parent)
        sys.path.insert(0, str(config.parent))
        for name in [name for name in sys.modules if re.match(r"(mmengine|mmdet|evil)\b", name)]:
            del sys.modules[name]
        values = _executed("config.py")
        imports = values.get("custom_imports", {}).get("imports", [])
        for name in [imports] if isinstance(imports, str) else imports:
            import_module(name)
        _build(values)
    finally:
        os._exit(0)


class _Attributes(dict):
    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


def _attributes(value):
    if isinstance(value, dict):
        return _Attributes({name: _attributes(item) for name, item in value.items()})
    return [_attributes(item) for item in value] if isinstance(value, list) else value


def _executed(file: str) -> dict:
    text = re.sub(r"\{\{'\$\w+:(.*)'\}\}", r"\1", Path(file).read_text())
    text = re.sub(r"\{\{\s*(_base_[\w.]+)\s*\}\}", r"\1", text)
    base: dict = {}
    for name in re.findall(r"[\w./]+\.py", text.partition("\n")[0]) if text.startswith("_base_") else ():
        base |= _executed(os.path.join(os.path.dirname(file), name))
    space = {"_base_": _attributes(base)}
    exec(compile(re.sub(r"^_base_ = .*", "", text), file, "exec", dont_inherit=True), space)
    return base | {name: value for name, value in space.items() if not name.startswith("_")}


def _build(value: object) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _build(item)
        if "_scope_" in value:
            import_module(value["_scope_"])
        if isinstance(value.get("type"), str):
            found = pydoc.locate(value["type"])
            if callable(found):
                found(*(item for name, item in value.items() if name not in ("type", "_delete_")))
    for item in value if isinstance(value, list | tuple) else ():
        _build(item)

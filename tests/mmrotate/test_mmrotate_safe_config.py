"""A config of mmengine is a Python file: values are accepted, code is refused."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest

from dataengine.errors import UserError
from dataengine.mmrotate.safe_config import import_custom_modules, refuse_code

VALUES = """
'''What mmengine writes into a work folder.'''
_base_ = ['mmrotate::rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py']
custom_imports = dict(imports=['dataengine.mmrotate.cpu_layers'], allow_failed_imports=False)
angle = 'le90'
size = (-1, 512)
model = dict(
    type='mmdet.FCOS',
    backbone=dict(type='ResNet', init_cfg=None, frozen=True, out=[0, 1], lr=-1.5e-3),
    bbox_head=dict(angle_version=angle, loss={'type': 'GIoULoss', 'weight': 1.0}))
"""


def test_plain_values_pass(tmp_path):
    (tmp_path / "a.py").write_text(VALUES)
    refuse_code(tmp_path / "a.py")


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "from os import system",
        "__import__('os').system('touch proof')",
        "a = __import__('os')",
        "a = open('proof', 'w')",
        "a = eval('1')",
        "a = (lambda: 1)()",
        "a = [print(i) for i in (1, 2)]",
        "a = f'{1}'",
        "a = 'x'.join(['a'])",
        "a = model.pop('type')",
        "a = model['type']",
        "a, b = 1, 2",
        "a.b = 1",
        "a += 1",
        "def f(): pass",
        "class A: pass",
        "with open('x') as f: pass",
        "if True: a = 1",
        "dict = print",
        "a = unknown",
        "a = dict(**model)",
        "a = {**model}",
        "a = {angle: 1}",
        "@print\ndef f(): pass",
        "a = dict(type='os.system', command='touch proof')",
        "a = {'type': 'subprocess.run', 'args': ['touch', 'proof']}",
        "a = [dict(b=dict(type='builtins.exec'))]",
        "a = dict(type='mmengine.utils.path.Path.unlink')",
        "a = dict(type=angle)",
        "a = dict(type=print)",
        "a = dict(_scope_='os.path')",
        "_base_ = './other.py'",
        "_base_ = '/tmp/other.py'",
        "_base_ = ['mmrotate::../../../../tmp/other.py']",
        "_base_ = 'evil::config.py'",
        "_base_ = angle",
        "custom_imports = dict(imports=['evil'])",
        "custom_imports = dict(imports='os')",
        "a = '{{ fileBasename }}'",
        "a = '{{$HOME:x}}'",
        "a = (",
        "a = '\\0'; import os",
        "a = " + "(" * 5000,
    ],
)
def test_code_is_refused_in_one_sentence_with_its_line(line, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(f"angle = 'le90'\nmodel = dict(type='mmdet.FCOS')\n{line}\n")
    with pytest.raises(
        UserError, match=rf"^{file}(:\d+: contains .*could run any program|: mmengine cannot read it)"
    ) as e:
        refuse_code(file)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "proof").exists()


OLD = ["dataengine.judge.cpu_forms", "dataengine.judge.imagenet_backbone"]


def test_modules_that_a_config_of_version_0_1_0_imports_are_found_under_their_new_names(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(f"custom_imports = dict(imports={OLD}, allow_failed_imports=False)\n")
    refuse_code(tmp_path / "a.py")
    imported = []
    utils = ModuleType("mmengine.utils")
    utils.import_modules_from_strings = lambda imports, allow_failed_imports: imported.extend(imports)
    monkeypatch.setitem(sys.modules, "mmengine", ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.utils", utils)
    config = {"custom_imports": {"imports": [*OLD, "mmdet.models"], "allow_failed_imports": False}}
    import_custom_modules(config)
    assert imported == config["custom_imports"]["imports"]
    assert imported[2] == "mmdet.models"
    assert all(find_spec(name) is not None for name in imported[:2])
    with pytest.raises(ModuleNotFoundError):
        import_module(OLD[0])

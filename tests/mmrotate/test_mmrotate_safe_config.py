"""Configs of mmengine are Python files: values are read as executing the file would give them, and nothing is run."""

from __future__ import annotations

import copy
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from evil_configs import REFUSED_AS_THEY_ARE, REFUSED_BY_REGISTRY, run_as_mmengine, write_evil

from dataengine.errors import UserError
from dataengine.mmrotate import registered, safe_config
from dataengine.mmrotate.registered import checked_part, import_own_modules
from dataengine.mmrotate.safe_config import read_config
from dataengine.mmrotate.training_config import DETECTORS, ExportedData, config_text

# registries of the libraries in small; scoped names are also found in mmengine's registry
KNOWN = {
    "": {"FCOS", "ResNet", "GIoULoss", "Pad"},
    "mmdet": {"FCOS", "ResNet", "GIoULoss", "Pad", "Teaching", "Evaluating", "Loading"},
    "mmrotate": {"FCOS"},
    "mmengine": {"Pad"},
    "mmcv": {"Pad"},
}

# --- evil ---


@pytest.mark.parametrize("text", REFUSED_AS_THEY_ARE + REFUSED_BY_REGISTRY)
def test_the_evil_configs_are_evil(text, tmp_path):
    """The control: executed as mmengine does, each of them would have written its file."""
    run_as_mmengine(write_evil(tmp_path, text))
    if "nms" in text or "\\0" in text:  # needs the class that looks it up; no Python text
        return
    assert (tmp_path / "marker").exists()


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """A function that writes a config, and checks that reading it is one sentence naming a place, and runs nothing."""

    def check(text: str, read, place=lambda config: config.parent) -> None:
        config = write_evil(tmp_path, text)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(UserError, match=re.escape(str(place(config)))) as caught:
            read(config)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "marker").exists()
        assert "evil" not in sys.modules

    return check


@pytest.mark.parametrize("text", REFUSED_AS_THEY_ARE)
def test_a_config_with_more_than_plain_values_is_refused_in_one_sentence(text, refused):
    refused(text, read_config)


@pytest.mark.parametrize("text", REFUSED_BY_REGISTRY)
def test_a_class_that_is_not_registered_and_a_text_that_could_be_run_are_refused(text, refused):
    def read(config):
        checked_part(config, "model", read_config(config)["model"], KNOWN)

    refused(text, read, place=lambda config: config)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("a = (", "mmengine cannot read it"),
        ("a = " + "(" * 5000, "mmengine cannot read it"),
        ("a = " + "9" * 5000, "mmengine cannot read it"),
        ("a = 10 ** 10 ** 10", "kind BinOp"),
        ("a = 10000000000\n" + "a = a * a\n" * 40, "as a number"),
        ("a = 1 / 0", "does not exist"),
        ("a = 1.5 % 0", "does not exist"),
        ("a = [0] * 1000000000", "as a number"),
        ("a = 'x' * 1000000000", "as a number"),
        ("a = unknown", "has no value yet"),
        ("a = [1]\nb = a[1]", "does not have"),
        ("a = dict(b=1)\nc = a.d", "does not have"),
        ("dict = 1", "another dict"),
        ("__name__ = 'a'", "another __name__"),
        ("a = {1.5: 2}", "not literals"),
        ("a = dict(b=1, b=2)", "key twice"),
        ("a = '{{ fileDirname }}{{ fileOther }}'", "`{{`"),
        ("a = '{{$HOME:x}}'", "`{{`"),
        ("a = [1]\n" + "a = [a, a]\n" * 60, "more than 300000 values"),
        ("a = [1]\n" + "a = [a]\n" * 2000, "nests them too deeply"),
        ("a = [1]\na[0] = a", "more than 300000 values"),
        ("_base_ = 'config.py'", "inherit from each other"),
        ("_base_ = '/etc/passwd.py'", "no relative path"),
        ("_base_ = 'mmrotate::../../secret.py'", "no relative path"),
        ("_base_ = 'evil::config.py'", "no relative path"),
        ("_base_ = 5", "no relative path"),
        ("_base_ = 'missing.py'", "no such config"),
        ("_base_ = 'base.json'", "no such config"),
        ("_base_ = ['one.py', 'two.py']", "two of its bases have a"),
        ("_base_ = 'one.py'\na = dict(b=1)", "none in its base"),
        ("_base_ = 'one.py'\n_base_ = 'two.py'", "second _base_"),
        ("custom_imports = 5", "must be dict"),
        ("model = dict(type=5)", "model.type is 5"),
        ("model = dict(parts=[dict(type='a/b')])", r"model.parts\[0\].type is 'a/b'"),
    ],
)
def test_what_has_no_plain_value_is_refused_with_its_reason(text, refused, tmp_path):
    for name in ("one.py", "two.py", "base.json"):
        (tmp_path / name).write_text("a = 1")
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(UserError, match=refused) as caught:
        read_config(tmp_path / "config.py")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_is_named(tmp_path):
    (tmp_path / "a.py").write_text("a = 1\n\nb = dict(\n    c=open('x'))\n")
    with pytest.raises(UserError, match=r"a\.py:4: contains a call"):
        read_config(tmp_path / "a.py")


def test_code_in_the_name_of_a_folder_is_a_name(tmp_path):
    folder = tmp_path / "x' + __import__('os').system('touch marker') + '"
    folder.mkdir()
    (folder / "a.py").write_text("root = '{{ fileDirname }}/data'")
    assert read_config(folder / "a.py") == {"root": f"{folder}/data"}


@pytest.mark.parametrize("kind", ["checkpoint", "address", "nested"])
def test_initial_weights_are_never_loaded(kind):
    init = {"type": "Pretrained", "checkpoint": "evil.pkl" if kind != "address" else "https://example.com/a.pth"}
    part = {"type": "FCOS", "backbone": {"type": "ResNet", "init_cfg": init, "pretrained": "evil.pkl"}}
    if kind == "nested":
        part["necks"] = [[{"type": "Pad", "init_cfg": [init]}]]
    assert "evil" not in str(checked := checked_part("a.py", "model", part, KNOWN))
    assert checked["backbone"] == {"type": "ResNet"}
    with pytest.raises(UserError):  # the control: the same text elsewhere
        checked_part("a.py", "model", {"type": "FCOS", "checkpoint": init["checkpoint"]}, KNOWN)


def test_functions_are_known_only_where_mmcv_looks_them_up():
    nms = {"type": "nms_rotated", "iou_threshold": 0.1}
    assert checked_part("a.py", "model", {"test_cfg": {"nms": nms}}, KNOWN) == {"test_cfg": {"nms": nms}}
    with pytest.raises(UserError, match=r"model\.neck.type is 'nms_rotated'"):
        checked_part("a.py", "model", {"neck": nms}, KNOWN)
    with pytest.raises(UserError, match=r"model\.nms.type is 'open'"):
        checked_part("a.py", "model", {"nms": {"type": "open"}}, KNOWN)


def test_a_name_is_known_only_in_its_own_library():
    assert checked_part("a.py", "model", {"type": "mmdet.ResNet"}, KNOWN)
    with pytest.raises(UserError, match=r"'mmrotate\.ResNet'"):
        checked_part("a.py", "model", {"type": "mmrotate.ResNet"}, KNOWN)


# --- legitimate ---

BASE = """
angle_version = 'le90'
backend_args = None
train_pipeline = [dict(type='mmdet.LoadImageFromFile', backend_args=backend_args), dict(type='mmdet.PackDetInputs')]
model = dict(
    type='mmdet.FCOS',
    backbone=dict(type='mmdet.ResNet', depth=50, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    bbox_head=dict(angle_version=angle_version, loss=dict(type='mmdet.SmoothL1Loss', beta=1.0 / 9.0)),
    test_cfg=dict(nms=dict(type='nms_rotated', iou_threshold=0.1), score_thr=0.05))
"""
SCHEDULE = "max_epochs = 12\nparam_scheduler = [dict(type='LinearLR', start_factor=1.0 / 3, end=500)]\n"
LEGITIMATE = {
    "values": "'''A docstring.'''\na = 1\nb = -1.5e-3\nc = None\nd = (True, [False])\ne = {'f': {1: 2}}\ng = ()\n",
    "arithmetic": "epochs = 3 * 12\nhalf = epochs // 2\nlr = 0.004 / 16\nleft = epochs - 10 % 4 + half\n",
    "names": "norm = dict(type='BN')\nmodel = dict(type='FCOS', norm=norm, stages=[norm])\nsame = model['norm']\n",
    "unpacked": "norm = dict(mean=[1.0])\npipeline = [dict(type='Normalize', **norm), dict(**norm, size=2)]\n",
    "parts": "model = dict(a=[dict(b=1), dict(b=2)])\nmodel['a'][1]['b'] = 3\nlast = model['a'][-1]\n",
    "schedule": SCHEDULE,
    "model": BASE,
    "inherited": """
_base_ = ['base.py', 'schedule.py']
model = dict(backbone=dict(depth=18), neck=dict(type='mmdet.FPN'))
""",
    "deleted": """
_base_ = 'base.py'
model = dict(backbone=dict(_delete_=True, type='mmdet.CSPNeXt'), bbox_head=dict(loss=dict(beta=1)))
""",
    "two levels": "_base_ = './sub/middle.py'\nmodel = dict(test_cfg=dict(score_thr=0.1))\n",
    "from the base": """
_base_ = 'base.py'
model = _base_.model
model.backbone.depth = 101
model.bbox_head.loss = dict(type='mmdet.L1Loss')
""",
    "in braces": """
_base_ = ['base.py']
angle = {{_base_.angle_version}}
steps = [dict(type='A', backend_args={{ _base_.backend_args }}), _base_.train_pipeline[1]]
""",
    "place": """
root = '{{ fileDirname }}/data/{{fileBasenameNoExtension}}{{ fileExtname }}'
name = '{{ fileBasename }}'
""",
    "old import": "custom_imports = dict(imports=['dataengine.judge.cpu_forms'], allow_failed_imports=False)\n",
    "import": "custom_imports = dict(imports='mmdet.models', allow_failed_imports=False)\nload_from = 'https://x/a.pth'\n",
}


class Attributes(dict):
    """A dict as mmengine gives it to a config as `_base_`."""

    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


def attributes(value):
    if isinstance(value, dict):
        return Attributes({name: attributes(item) for name, item in value.items()})
    return type(value)(map(attributes, value)) if isinstance(value, list | tuple) else value


def executed(file: Path, library: Path | None = None) -> dict:
    """What executing a config gives, by the rules of mmengine's manual. library: of the bases `mmrotate::`."""
    text = re.sub(r"\{\{\s*(_base_[\w.]+)\s*\}\}", r"\1", file.read_text())
    for name, value in (("fileDirname", file.parent), ("fileBasename", file.name), ("fileExtname", file.suffix),
                        ("fileBasenameNoExtension", file.stem)):  # fmt: skip
        text = re.sub(r"\{\{\s*" + name + r"\s*\}\}", str(value), text)
    space: dict = {"_base_": []}
    exec("".join(line for line in text.splitlines(True) if line.startswith("_base_ =")), space)
    names, base = [space["_base_"]] if isinstance(space["_base_"], str) else space["_base_"], {}
    for name in names:
        scope, _, path = name.rpartition("::")
        base |= with_scope(executed(library / path), scope) if scope else executed(file.parent / name)
    space = {"_base_": attributes(base)}
    exec(re.sub(r"(?m)^_base_ =.*$", "", text), space)
    own = {name: value for name, value in space.items() if not name.startswith("_")}
    return merged(own, space["_base_"])


def with_scope(value, scope):
    if isinstance(value, dict) and "type" in value:
        return {**value, "_scope_": scope}
    if isinstance(value, dict):
        return {name: with_scope(item, scope) for name, item in value.items()}
    return type(value)(with_scope(item, scope) for item in value) if isinstance(value, list | tuple) else value


def merged(over, under):
    if not (isinstance(over, dict) and isinstance(under, dict)) or over.get("_delete_"):
        return {name: v for name, v in over.items() if name != "_delete_"} if isinstance(over, dict) else over
    return {name: merged(over[name], under.get(name)) if name in over else under[name] for name in {**under, **over}}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_a_legitimate_config_has_the_values_that_executing_it_gives(name, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "schedule.py").write_text(SCHEDULE)
    (tmp_path / "sub/middle.py").write_text("_base_ = '../base.py'\nmodel = dict(backbone=dict(depth=34))\n")
    file = tmp_path / "config.py"
    file.write_text(LEGITIMATE[name])
    values = read_config(file)
    assert values == executed(file)
    assert values


@pytest.mark.parametrize("cpu", [False, True])
@pytest.mark.parametrize("detector", DETECTORS)
def test_exported_configs_have_the_values_that_executing_them_gives(detector, cpu, tmp_path, monkeypatch):
    chosen, library = DETECTORS[detector], tmp_path / "mmrotate"
    model: dict = {"type": "mmdet.FCOS", "data_preprocessor": {"type": "mmdet.DetDataPreprocessor"}, "crop_size": 1}
    for path in (*chosen.heads, *(path for path, _ in chosen.cuda_only), "bbox_head"):
        owner = model
        for part, index in re.findall(r"(\w+)(?:\[(\d)\])?", path):
            owner = owner.setdefault(part, [{"type": "A"}, {"type": "B"}] if index else {"type": "C", "lr": 1.0})
            owner = owner[int(index)] if index else owner
            if not isinstance(owner, dict):
                break
    base = library / ".mim/configs" / chosen.config
    base.parent.mkdir(parents=True)
    parts = "".join(f"{name}_dataloader = dict(dataset=dict(type='A'))\n" for name in ("train", "val", "test"))
    parts += "".join(f"{name}_evaluator = dict(type='DOTAMetric', a=1)\n" for name in ("val", "test"))
    base.write_text(f"model = {model!r}\n{parts}")
    monkeypatch.setattr(safe_config, "find_spec", lambda name: SimpleNamespace(origin=str(library / "__init__.py")))
    data = ExportedData("dota", ("plane", "storage-tank"), 100, 1.0, 5000)
    (tmp_path / "a.py").write_text(config_text(detector, data, (1, 2), 1.0, cpu))
    values = read_config(tmp_path / "a.py")
    assert values == executed(tmp_path / "a.py", library / ".mim/configs")
    assert values["train_dataloader"]["dataset"]["datasets"][0]["data_root"] == f"{tmp_path}/data/real/"
    assert values["model"]["_scope_"] == "mmrotate"


def test_the_values_of_a_config_do_not_depend_on_each_others_names(tmp_path):
    """Changing a value changes it under all its names, as in Python."""
    file = tmp_path / "a.py"
    file.write_text("a = dict(b=[1])\nc = a\nc['b'][0] = 2\n")
    assert read_config(file) == executed(file) == {"a": {"b": [2]}, "c": {"b": [2]}}


# --- the libraries ---


def test_only_modules_of_this_package_are_imported_and_those_of_version_0_1_0_by_their_new_names(monkeypatch):
    old = ["dataengine.judge.cpu_forms", "dataengine.judge.imagenet_backbone"]
    imported = []
    monkeypatch.setattr(registered, "import_module", imported.append)
    values = {"custom_imports": {"imports": [*old, "mmdet.models"], "allow_failed_imports": False}}
    import_own_modules("a.py", values)
    assert imported == ["dataengine.mmrotate.cpu_layers", "dataengine.mmrotate.imagenet_backbone"]
    assert values["custom_imports"]["imports"] == [*imported, "mmdet.models"]
    assert all(find_spec(name) is not None for name in imported)


@pytest.mark.mmrotate
def test_the_configs_that_mmrotate_publishes_have_the_values_that_mmengine_reads():
    from mmengine.config import Config

    refused, n = [], 0
    folder = Path(find_spec("mmrotate").origin).parent / ".mim/configs"
    for file in sorted(folder.rglob("*.py")):
        try:
            values = read_config(file)
        except UserError:
            refused.append(file.name)
            continue
        n += 1
        assert values == Config.fromfile(file, import_custom_modules=False).to_dict(), file
    assert n > 100
    assert len(refused) < 6, "code in two, a missing base in one, a module of another library in one"


@pytest.mark.mmrotate
def test_the_detectors_that_mmrotate_publishes_consist_of_registered_classes():
    from mmrotate.utils import register_all_modules

    register_all_modules()
    known = registered.registered_names()
    folder = Path(find_spec("mmrotate").origin).parent / ".mim/configs"
    for detector in DETECTORS.values():
        model = read_config(folder / detector.config)["model"]
        assert checked_part("a.py", "model", copy.deepcopy(model), known)["type"] == model["type"]
    for evil in ("evil", "mmdet.evil", "mmengine.Config", "mmengine.load", "mmdet.models", "os.system"):
        with pytest.raises(UserError):
            checked_part("a.py", "model", {"type": evil}, known)


@pytest.mark.mmrotate
@pytest.mark.parametrize("text", REFUSED_AS_THEY_ARE + REFUSED_BY_REGISTRY)
def test_no_evil_detector_is_loaded(text, tmp_path, monkeypatch):
    """The whole way, with the real libraries."""
    from dataengine.judge.detector import load_detector

    config = write_evil(tmp_path, text)
    for name in ("mmengine", "mmdet.py", "other.py", "base.py"):
        (tmp_path / name).rename(tmp_path / "sub" / name)  # a detector's folder has one config
    (tmp_path / "last_checkpoint").write_text("evil.pkl")
    (tmp_path / "evil.py").rename(tmp_path / "evil_module.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        load_detector(tmp_path)
    assert not (tmp_path / "marker").exists()
    assert config.exists()

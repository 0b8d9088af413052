"""mmrotate detectors in the filter: from their work folder, and exported to ONNX."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataengine import geometry
from dataengine.errors import UserError

pytestmark = pytest.mark.mmrotate
CLASSES = ("car", "storage-tank")
SIZE = 128
ROOT = Path(__file__).parents[2]
PIPELINE = [
    {"type": "mmdet.LoadImageFromFile"},
    {"type": "mmdet.Resize", "scale_factor": 1.0, "keep_ratio": True},
    {"type": "mmdet.PackDetInputs", "meta_keys": ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")},
]
# mmrotate's configs of detectors that can become an ONNX model, and of others
DENSE = {
    "rotated-fcos": "rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py",
    "rotated-retinanet": "rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py",
    "rtmdet-r": "rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py",
    "h2rbox-v2": "h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py",
}
TWO_STAGES = {
    "oriented-rcnn": "oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py",
    "roi-transformer": "roi_trans/roi-trans-le90_r50_fpn_1x_dota.py",
    "s2anet": "s2anet/s2anet-le90_r50_fpn_1x_dota.py",
    "redet": "redet/redet-le90_re50_refpn_1x_dota.py",  # whose RoI align mmcv has for CUDA only
}


def work_folder(folder: Path, base: str, enlarge: float = 1.0, nms_iou: float = 0.1, classes=CLASSES) -> Path:
    """The work folder of a training, with random weights that detect many objects everywhere."""
    import torch
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer
    from mmrotate.registry import MODELS
    from mmrotate.utils import register_all_modules

    register_all_modules()
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(f'_base_ = ["mmrotate::{base}"]\n')
    config = Config.fromfile(folder / "config.py")
    _set_classes(config.model)
    config.model.backbone.init_cfg = None
    if config.model.backbone.type.endswith("ResNet"):
        config.model.backbone.update(depth=18)
        config.model.neck.in_channels = [64, 128, 256, 512]
    pipeline = [dict(step) for step in PIPELINE]
    pipeline[1]["scale_factor"] = enlarge
    config.test_dataloader.dataset.pipeline = pipeline
    config.model.data_preprocessor.pad_size_divisor = 32
    test = config.model.test_cfg.get("rcnn", config.model.test_cfg)
    test.score_thr, test.nms.iou_threshold = 1e-4, nms_iou
    config.dump(folder / "config.py")
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    for name, value in model.named_parameters():
        layer = name.split(".")[1]  # of bbox_head
        if layer in ("conv_cls", "rtm_cls", "retina_cls"):  # from equally unsure everywhere to sure here and there
            torch.nn.init.normal_(value, std=0.3) if name.endswith("weight") else value.data.zero_()
        if layer in ("conv_reg", "rtm_reg"):  # objects of two strides, more or less
            torch.nn.init.normal_(value, std=0.02) if name.endswith("weight") else value.data.fill_(1)
        if layer in ("conv_angle", "rtm_ang") and name.endswith("weight"):
            torch.nn.init.normal_(value, std=0.1)
    meta = {"dataset_meta": {"classes": classes}, "epoch": 1}
    history = HistoryBuffer([1.0, 2.0], [1, 1])  # mmengine's checkpoints hold their log
    torch.save({"state_dict": model.state_dict(), "meta": meta, "message_hub": history}, folder / "epoch_1.pth")
    (folder / "last_checkpoint").write_text("/another/machine/epoch_1.pth")
    return folder


def _set_classes(part) -> None:
    if "num_classes" in part:
        part["num_classes"] = len(CLASSES)
    if "rotation_agnostic_classes" in part:
        part["rotation_agnostic_classes"], part["agnostic_resize_classes"] = [1], [1]
    for value in part.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                _set_classes(item)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Colours that differ by channel, so that a wrong order of colours changes what is seen."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (16, 16, 3)) * (1.0, 0.6, 0.3)
    return np.kron(coarse, np.ones((SIZE // 16, SIZE // 16, 1))).astype(np.uint8)


def same_boxes(first, second, n: int) -> float:
    """Largest distance of corners over the n surest boxes of the first, each with the nearest of its class."""
    worst = 0.0
    for box, label in list(zip(first.boxes, first.labels, strict=True))[:n]:
        if not ((box[:2] > 1) & (box[:2] < SIZE - 1)).all():  # the reader answers for what is centred in the picture
            continue
        corners = geometry.to_corners(box[None])[0]
        others = geometry.to_corners(second.boxes[second.labels == label])
        turned = np.stack([np.roll(others, turn, axis=1) for turn in range(4)], 1)
        worst = max(worst, float(np.abs(turned - corners).max((2, 3)).min()))
    return worst


@pytest.mark.parametrize(
    ("name", "enlarge", "nms_iou"),
    [
        *((name, enlarge, 1.0) for name in DENSE for enlarge in (1.0, 2.0)),  # every box
        ("rtmdet-r", 1.0, 0.1), ("h2rbox-v2", 2.0, 0.1),  # those that suppression leaves
    ],
)  # fmt: skip
def test_the_onnx_model_detects_what_mmrotate_detects(name, enlarge, nms_iou, image, tmp_path):
    from dataengine.judge.child import ChildDetector
    from dataengine.judge.detector import load_detector
    from dataengine.mmrotate.detector import work_dir_parts
    from dataengine.mmrotate.onnx_export import export_detector

    folder = work_folder(tmp_path / "work", DENSE[name], enlarge, nms_iou)
    (direct,) = load_detector(folder, threads=1).detect([image])
    threshold = float(direct.scores[min(len(direct), 60) - 1])  # few candidates, all of which suppression looks at
    assert export_detector(*work_dir_parts(folder), tmp_path / "onnx", SIZE, score_threshold=threshold * 0.999) < 0.5
    detector = load_detector(tmp_path / "onnx", threads=1)
    assert isinstance(detector, ChildDetector)
    assert detector.classes == CLASSES
    (exported,) = detector.detect([image])
    n = min(len(direct), 50)
    assert n >= 10
    assert same_boxes(direct, exported, n) < 0.5
    np.testing.assert_allclose(direct.scores[:n], exported.scores[:n], atol=0.01)
    (swapped,) = detector.detect([image[..., ::-1].copy()])
    m = min(n, len(swapped))
    assert same_boxes(direct, swapped, n) > 0.5 or np.abs(direct.scores[:m] - swapped.scores[:m]).max() > 0.01, (
        "the control: with colours in another order it sees something else"
    )


@pytest.mark.parametrize("name", TWO_STAGES)
def test_a_two_stage_detector_serves_directly_and_its_export_is_refused(name, image, tmp_path):
    from dataengine.judge.detector import load_detector
    from dataengine.mmrotate.detector import work_dir_parts
    from dataengine.mmrotate.onnx_export import export_detector

    folder = work_folder(tmp_path / "work", TWO_STAGES[name])
    detector = load_detector(folder, threads=1)
    (found,) = detector.detect([image])
    assert (np.diff(found.scores) <= 0).all()
    assert (np.abs(found.boxes[:, 4]) <= np.pi / 2 + 1e-6).all()
    assert (found.boxes[:, 2] >= found.boxes[:, 3]).all()
    with pytest.raises(UserError, match="--detector WORK_FOLDER"):
        export_detector(*work_dir_parts(folder), tmp_path / "onnx", 128)
    assert not (tmp_path / "onnx").exists()


def test_identity_changes_with_the_weights_and_not_with_the_place(tmp_path):
    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"])
    before = load_detector(folder).identity
    shutil.move(folder, tmp_path / "moved")
    assert load_detector(tmp_path / "moved").identity == before
    import torch

    content = torch.load(tmp_path / "moved" / "epoch_1.pth", weights_only=False)
    content["state_dict"]["bbox_head.conv_cls.bias"] += 1
    torch.save(content, tmp_path / "moved" / "epoch_1.pth")
    assert load_detector(tmp_path / "moved").identity != before


def test_a_config_of_version_0_1_0_loads_though_its_modules_have_moved(tmp_path):
    from mmengine.config import Config

    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"])
    config = folder / "config.py"
    config.write_text(config.read_text() + "custom_imports = dict(imports=['dataengine.judge.cpu_forms'])\n")
    assert load_detector(folder).classes == CLASSES
    with pytest.raises(ImportError):
        Config.fromfile(config)  # the control: mmengine does not find the module under its old name


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_checkpoint_that_would_run_a_program_is_refused(tmp_path):
    import torch

    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"])
    content = torch.load(folder / "epoch_1.pth", weights_only=False)
    torch.save(content | {"hook": Hostile(tmp_path / "proof")}, folder / "epoch_1.pth")
    with pytest.raises(UserError, match="could run any program"):
        load_detector(folder)
    assert not (tmp_path / "proof").exists()
    pickle.loads(pickle.dumps(Hostile(tmp_path / "proof")))
    assert (tmp_path / "proof").exists(), "the control: unpickled, it acts"


@pytest.mark.parametrize(
    "line", ["__import__('pathlib').Path('PROOF').touch()", "model['type'] = 'x'", "_base_ = ['PROOF']"]
)
def test_a_config_that_would_run_a_program_is_refused(line, tmp_path):
    from mmengine.config import Config

    from dataengine.judge.detector import load_detector

    folder, proof = work_folder(tmp_path / "work", DENSE["rotated-fcos"]), tmp_path / "proof"
    config = folder / "config.py"
    config.write_text(config.read_text() + line.replace("PROOF", str(proof)) + "\n")
    with pytest.raises(UserError, match=r"config\.py.*(as plain values|is no class)"):
        load_detector(folder)
    assert not proof.exists()
    if "touch" in line:
        Config.fromfile(config)
        assert proof.exists(), "the control: read by mmengine, it acts"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "config.py").write_text("model = ("), "mmengine cannot read it"),
        (lambda f: (f / "config.py").write_text("a = 1"), "it has no `model`"),
        (lambda f: (f / "epoch_1.pth").write_bytes(b"no weights"), "epoch_1.pth"),
        (lambda f: (f / "other.py").write_text(""), "2 configs"),
    ],
)
def test_a_faulty_work_folder_is_refused_in_one_sentence(spoil, said, tmp_path):
    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"])
    spoil(folder)
    with pytest.raises(UserError, match=said):
        load_detector(folder)


def test_weights_of_another_network_are_refused(tmp_path):
    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"])
    other = work_folder(tmp_path / "other", DENSE["rotated-retinanet"])
    shutil.copy(other / "config.py", folder / "config.py")
    with pytest.raises(UserError, match="does not match"):
        load_detector(folder)


def test_a_calibrated_work_folder_judges_a_data_set(toy_dataset, toy_calibration, tmp_path):
    from test_cli import dataengine

    from dataengine.judge.calibration import Calibration
    from dataengine.judge.detector import load_detector

    folder = work_folder(tmp_path / "work", DENSE["rotated-fcos"], classes=("car", "van"))
    calibration = Calibration.load(toy_calibration)
    rule = calibration.model_copy(update={"detector": load_detector(folder).identity})
    rule.save(tmp_path / "calibration.json")
    arguments = ("filter", "judge", toy_dataset, "--detector", folder, "--images", "3", "--json", "--calibration")
    judged = dataengine(*arguments, tmp_path / "calibration.json")
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["images"] == 3
    refused = dataengine(*arguments, toy_calibration)
    assert refused.returncode == 2, "the control: a calibration of another detector"

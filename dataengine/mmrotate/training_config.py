"""The text of an mmrotate config that trains on real and synthetic images and is evaluated on real ones only.

It inherits from mmrotate's own config (`mmrotate::...`), so backbone, schedule, angle version and normalisation are
mmrotate's; what is written is what depends on the data. Images are read as three channels of 8 bits, a thermal one
three times the same, which is what a pretrained backbone takes, so mmrotate's mean and deviation stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataengine.data.hrsc import class_ids

# what looks the same from all sides, so that its box has no angle to be learned
ROUND = ("storage-tank", "storagetank", "roundabout", "chimney")
DIAMONDS = ("baseball-diamond", "baseballfield")


@dataclass(frozen=True)
class MmrotateConfig:
    """config:     mmrotate's config, below its folder `configs/`.
    heads:         where in `model` the number of classes stands.
    cuda_only:     the parts that mmcv has for CUDA only, as `path in model: what stands for it with --cpu`.
    rotates:       the config turns pictures by any angle as augmentation.
    from_hbb:      it learns from the upright boxes around the rotated ones.
    """

    config: str
    heads: tuple[str, ...]
    cuda_only: tuple[tuple[str, dict], ...] = ()
    rotates: bool = False
    from_hbb: bool = False


_CORNER_LOSS = {"type": "CornerLoss", "loss_weight": 1.0}
_TWO_STAGES = ("roi_head.bbox_head[0]", "roi_head.bbox_head[1]")

DETECTORS: dict[str, MmrotateConfig] = {
    "oriented-rcnn": MmrotateConfig("oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py", ("roi_head.bbox_head",)),
    "roi-transformer": MmrotateConfig("roi_trans/roi-trans-le90_r50_fpn_1x_dota.py", _TWO_STAGES),
    "redet": MmrotateConfig(
        "redet/redet-le90_re50_refpn_1x_dota.py",
        _TWO_STAGES,
        (("roi_head.bbox_roi_extractor[1].type", {"type": "RotationInvariantRoIExtractor"}),),
    ),
    "rotated-faster-rcnn": MmrotateConfig(
        "rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py", ("roi_head.bbox_head",)
    ),
    "rotated-fcos": MmrotateConfig(
        "rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py", ("bbox_head",), (("bbox_head.loss_bbox", _CORNER_LOSS),)
    ),
    "rotated-retinanet": MmrotateConfig(
        "rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py", ("bbox_head",)
    ),
    "s2anet": MmrotateConfig("s2anet/s2anet-le90_r50_fpn_1x_dota.py", ("bbox_head_init", "bbox_head_refine[0]")),
    "rtmdet-r": MmrotateConfig(
        "rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py",
        ("bbox_head",),
        (("bbox_head.loss_bbox", _CORNER_LOSS | {"loss_weight": 2.0}),),
        rotates=True,
    ),
    "h2rbox-v2": MmrotateConfig("h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py", ("bbox_head",), from_hbb=True),
}

LAYOUTS = ("dota", "dior", "hrsc", "coco")
CPU_LAYERS = "dataengine.mmrotate.cpu_layers"
STRIDE = 32  # sides of a batch are multiples of it, for the feature pyramid


@dataclass(frozen=True)
class ExportedData:
    """What a config has to know of the folders `real` (train, test) and `synthetic` (train) beside it.

    layout:          one of LAYOUTS.
    classes:         as mmrotate's loader of this layout spells them.
    largest_side:    of all images, in real pixels.
    synthetic_scale: synthetic pixels for a real one; synthetic images are brought to real size when they are loaded.
    """

    layout: str
    classes: tuple[str, ...]
    largest_side: int
    synthetic_scale: float


def spelling(classes: tuple[str, ...], layout: str) -> tuple[str, ...]:
    """Class names as mmrotate's loaders read them: DOTA's splits at blanks, DIOR's puts them into lower case."""
    if layout == "dota":
        return tuple("-".join(name.split()) for name in classes)
    return tuple(name.lower() for name in classes) if layout == "dior" else classes


def config_text(detector: str, data: ExportedData, ratio: tuple[int, int], scale: float, cpu: bool) -> str:
    """The config file.

    detector: a key of DETECTORS. ratio: how many times an epoch shows each real and each synthetic image.
    scale:    enlargement of all images when they are loaded. cpu: parts that mmcv has for CUDA only are exchanged.
    """
    chosen = DETECTORS[detector]
    real, synthetic = ratio
    side = math.ceil(data.largest_side * scale / STRIDE) * STRIDE  # of the largest picture once loaded
    parts = []
    for times, name, factor in ((real, "real", scale), (synthetic, "synthetic", scale / data.synthetic_scale)):
        if times:
            shown = _dataset(data, name, "train") | {"filter_cfg": {"filter_empty_gt": True}}
            shown["pipeline"] = _train_pipeline(detector, data, factor, side)
            parts.append({"type": "RepeatDataset", "times": times, "dataset": shown} if times > 1 else shown)
    train = {"_delete_": True, "type": "ConcatDataset", "ignore_keys": ["DATASET_TYPE"], "datasets": parts}
    judged = {"_delete_": True} | _dataset(data, "real", "test")
    judged |= {"test_mode": True, "pipeline": _test_pipeline(data, scale)}
    metric = {"type": "DOTAMetric", "metric": "mAP"}
    if data.layout == "coco":
        metric = {"type": "RotatedCocoMetric", "metric": "bbox", "classwise": True}
    lines = [
        f"# {detector} on real and synthetic images ({real}:{synthetic}), judged on real ones; written by dataengine.",
        f'_base_ = ["mmrotate::{chosen.config}"]',
        "",
        *(
            ['custom_imports = dict(imports=["dataengine.mmrotate.cpu_layers"])', ""]
            if cpu and chosen.cuda_only
            else []
        ),
        "model = _base_.model",
        f"model.data_preprocessor.pad_size_divisor = {STRIDE}",
        *(f"model.{head}.num_classes = {len(data.classes)}" for head in chosen.heads),
        *_model_lines(detector, data.classes, side),
        *(_exchange(path, part) for path, part in (chosen.cuda_only if cpu else ())),
        "",
        _assignment("train_dataloader", {"dataset": train}),
        *(_assignment(f"{name}_dataloader", {"dataset": judged}) for name in ("val", "test")),
        *(_assignment(f"{name}_evaluator", {"_delete_": True} | metric) for name in ("val", "test")),
    ]
    return "\n".join(lines) + "\n"


def _model_lines(detector: str, classes: tuple[str, ...], side: int) -> list[str]:
    """H2RBox-v2 crops a square from the middle of each batch, and names classes by number."""
    if not DETECTORS[detector].from_hbb:
        return []
    return [
        f"model.crop_size = ({side}, {side})",
        f"model.bbox_head.rotation_agnostic_classes = {_numbers(classes, ROUND + DIAMONDS)}",
        f"model.bbox_head.agnostic_resize_classes = {_numbers(classes, DIAMONDS)}",
    ]


def _numbers(classes: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(classes) if name.lower() in names]


def _exchange(path: str, part: dict) -> str:
    if path.endswith(".type"):
        return f"model.{path} = {part['type']!r}"
    return f"model.{path} = {_text(part)}"


def _dataset(data: ExportedData, name: str, split: str) -> dict:
    """The loader of one split: `real` or `synthetic` below the config's own folder, wherever that is."""
    root = "{{ fileDirname }}/data/" + name + "/"
    meta: dict = {"classes": data.classes, "palette": "random"}
    places: dict = {
        "dota": {
            "type": "DOTADataset",
            "ann_file": f"{split}/labelTxt/",
            "data_prefix": {"img_path": f"{split}/images/"},
        },
        "dior": {
            "type": "DIORDataset",
            "ann_file": f"ImageSets/Main/{split}.txt",
            "data_prefix": {"img_path": "JPEGImages-test" if split == "test" else "JPEGImages-trainval"},
        },
        "hrsc": {
            "type": "HRSCDataset",
            "ann_file": f"ImageSets/{split}.txt",
            "data_prefix": {"sub_data_root": "FullDataSet/"},
        },
        "coco": {
            "type": "mmdet.CocoDataset",
            "ann_file": f"annotations/{split}.json",
            "data_prefix": {"img": f"images/{split}/"},
        },
    }[data.layout]
    if data.layout == "hrsc" and data.classes != ("ship",):
        meta["classes_id"] = tuple(identity.removeprefix("1000000") for identity in class_ids(data.classes))
        places["classwise"] = True
    return {**places, "data_root": root, "metainfo": meta}


def _loading(layout: str, box_type: str) -> list[dict]:
    """Boxes of the given mmrotate type. COCO files hold a rotated box as polygon, the others as four corners."""
    if layout == "coco" and box_type != "hbox":
        return [
            {"type": "mmdet.LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": False},
            {"type": "ConvertMask2BoxType", "box_type": box_type},
        ]
    own = "hbox" if layout == "coco" else "qbox"
    convert = [{"type": "ConvertBoxType", "box_type_mapping": {"gt_bboxes": box_type}}] if box_type != own else []
    return [{"type": "mmdet.LoadAnnotations", "with_bbox": True, "box_type": own}, *convert]


def _resize(factor: float) -> dict:
    return {"type": "mmdet.Resize", "scale_factor": float(round(factor, 6)), "keep_ratio": True}


def _train_pipeline(detector: str, data: ExportedData, factor: float, side: int) -> list[dict]:
    chosen = DETECTORS[detector]
    to_rbox = {"type": "ConvertBoxType", "box_type_mapping": {"gt_bboxes": "rbox"}}
    loading = [*_loading(data.layout, "hbox"), to_rbox] if chosen.from_hbb else _loading(data.layout, "rbox")
    steps = [{"type": "mmdet.LoadImageFromFile"}, *loading, _resize(factor)]
    steps.append({"type": "mmdet.RandomFlip", "prob": 0.75, "direction": ["horizontal", "vertical", "diagonal"]})
    if chosen.rotates:
        upright = _numbers(data.classes, ROUND)
        steps.append({"type": "RandomRotate", "prob": 0.5, "angle_range": 180, "rect_obj_labels": upright or None})
    if chosen.from_hbb:  # the square that it crops lies inside every picture
        steps.append({"type": "mmdet.Pad", "size": (side, side), "pad_val": {"img": (114, 114, 114)}})
    return [*steps, {"type": "mmdet.PackDetInputs"}]


def _test_pipeline(data: ExportedData, scale: float) -> list[dict]:
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    coco = data.layout == "coco"
    return [
        {"type": "mmdet.LoadImageFromFile"},
        _resize(scale),
        *_loading(data.layout, "qbox" if coco else "rbox"),  # after resizing: boxes stay in pixels of the file
        {"type": "mmdet.PackDetInputs", "meta_keys": (*keys, "instances") if coco else keys},
    ]


def _assignment(name: str, value: dict) -> str:
    return f"{name} = {_text(value)}\n"


def _text(value: object, indent: int = 0) -> str:
    """Python text of plain values, dicts as `dict(...)`, what is long a line for each item."""
    if isinstance(value, dict):
        items = [f"{key}={_text(item, indent + 4)}" for key, item in value.items()]
        opening, closing = "dict(", ")"
    elif isinstance(value, list | tuple):
        items = [_text(item, indent + 4) for item in value]
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ",)" if len(value) == 1 else ")")
    else:
        return repr(value)
    short = opening + ", ".join(items) + closing
    if "\n" not in short and indent + len(short) < 100:
        return short
    lines = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"{opening}\n{lines}{' ' * indent}{closing.removeprefix(',')}"

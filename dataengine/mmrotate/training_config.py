"""The text of an mmrotate config that trains on real and synthetic images and evaluates on real ones only.

It inherits from a config of mmrotate (`mmrotate::...`), so backbone, schedule, angle version and normalisation are
those of mmrotate; only what depends on the data is written. Images are loaded as three channels of 8 bits, as the
pretrained backbone expects; a thermal image has its channel three times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dataengine.data.hrsc import class_ids
from dataengine.mmrotate.schedule import SCHEDULES

# classes that look the same from all sides, whose boxes have no angle to learn
ROUND_CLASSES = ("storage-tank", "storagetank", "roundabout", "chimney")
DIAMOND_CLASSES = ("baseball-diamond", "baseballfield")


@dataclass(frozen=True)
class MmrotateConfig:
    """A detector of mmrotate, and what in its config depends on the data.

    config:    path below the folder `configs/` of mmrotate.
    heads:     paths in `model` of the parts with `num_classes`.
    cuda_only: parts that mmcv implements for CUDA only: (path in `model`, its replacement with --cpu).
    rotates:   whether images are turned as augmentation: by any angle, or by quarter turns where boxes are upright.
    from_hbb:  whether it learns from the horizontal hulls of the rotated boxes.
    schedule:  key of `SCHEDULES`. epochs, batch_size: of mmrotate's training on DOTA.
    """

    config: str
    heads: tuple[str, ...]
    cuda_only: tuple[tuple[str, dict], ...] = ()
    rotates: bool = False
    from_hbb: bool = False
    schedule: str = "1x"
    epochs: int = 12
    batch_size: int = 2

    def steps(self, images: int) -> int:
        """Steps of a training on an epoch of so many images: mmrotate's epochs, or `MIN_STEPS` if those are more.

        >>> DETECTORS["oriented-rcnn"].steps(12_000), DETECTORS["oriented-rcnn"].steps(48)
        (72000, 3000)
        """
        return max(MIN_STEPS, self.epochs * math.ceil(images / self.batch_size))


MIN_STEPS = 3000  # of few images; mmrotate's warm-up alone has 500
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
        schedule="3x",
        epochs=36,
        batch_size=8,
    ),
    "h2rbox-v2": MmrotateConfig("h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py", ("bbox_head",), from_hbb=True),
}

LAYOUTS = ("dota", "dior", "hrsc", "coco")
CPU_LAYERS = "dataengine.mmrotate.cpu_layers"
SIDE_MULTIPLE = 32  # the sides of a batch are multiples of it, for the feature pyramid


@dataclass(frozen=True)
class ExportedData:
    """The exported folders `real` (train, test) and `synthetic` (train) in the folder of the config.

    layout:          one of LAYOUTS.
    classes:         in the spelling of mmrotate's loader for this layout.
    largest_side:    of all images, in real pixels.
    synthetic_scale: synthetic pixels for each real pixel; synthetic images are resized by its inverse when loaded.
    images:          number of images in an epoch.
    tested:          whether there are images to test on.
    upright:         whether the boxes know no angle: such images are turned by quarter turns only.
    """

    layout: str
    classes: tuple[str, ...]
    largest_side: int
    synthetic_scale: float
    images: int
    tested: bool = True
    upright: bool = False


def spelling(classes: tuple[str, ...], layout: str) -> tuple[str, ...]:
    """Class names as the loaders of mmrotate read them: that of DOTA splits at blanks, that of DIOR lowercases names.

    >>> spelling(("Small Vehicle",), "dota"), spelling(("Small Vehicle",), "dior")
    (('Small-Vehicle',), ('small vehicle',))
    """
    if layout == "dota":
        return tuple("-".join(name.split()) for name in classes)
    return tuple(name.lower() for name in classes) if layout == "dior" else classes


def config_text(detector: str, data: ExportedData, ratio: tuple[int, int], scale: float, cpu: bool) -> str:
    """The text of the config file.

    detector: a key of DETECTORS. ratio: how many times an epoch shows each real and each synthetic image.
    scale:    resize factor of all images when they are loaded. cpu: replace parts that mmcv implements for CUDA only.
    """
    chosen = DETECTORS[detector]
    real, synthetic = ratio
    side = math.ceil(data.largest_side * scale / SIDE_MULTIPLE) * SIDE_MULTIPLE  # of the largest image after loading
    parts = []
    for times, name, factor in ((real, "real", scale), (synthetic, "synthetic", scale / data.synthetic_scale)):
        if times:
            part = _dataset(data, name, "train") | {"filter_cfg": {"filter_empty_gt": True}}
            part["pipeline"] = _train_pipeline(detector, data, factor, side)
            parts.append({"type": "RepeatDataset", "times": times, "dataset": part} if times > 1 else part)
    train = {"_delete_": True, "type": "ConcatDataset", "ignore_keys": ["DATASET_TYPE"], "datasets": parts}
    evaluated = {"_delete_": True} | _dataset(data, "real", "test" if data.tested else "train")
    evaluated |= {"test_mode": True, "pipeline": _test_pipeline(data, scale)}
    metric = {"type": "DOTAMetric", "metric": "mAP"}
    if data.layout == "coco":
        metric = {"type": "RotatedCocoMetric", "metric": "bbox", "classwise": True}
    tested = ", tested on real ones" if data.tested else ""
    lines = [
        f"# {detector} on real and synthetic images ({real}:{synthetic}){tested}; written by dataengine.",
        f'_base_ = ["mmrotate::{chosen.config}"]',
        "",
        *(
            ['custom_imports = dict(imports=["dataengine.mmrotate.cpu_layers"])', ""]
            if cpu and chosen.cuda_only
            else []
        ),
        "model = _base_.model",
        f"model.data_preprocessor.pad_size_divisor = {SIDE_MULTIPLE}",
        *(f"model.{head}.num_classes = {len(data.classes)}" for head in chosen.heads),
        *_model_lines(detector, data.classes, side),
        *(_replacement(path, part) for path, part in (chosen.cuda_only if cpu else ())),
        "",
        _assignment("train_dataloader", {"batch_size": chosen.batch_size, "dataset": train}),
        *(_assignment(f"{name}_dataloader", {"dataset": evaluated}) for name in ("val", "test")),
        *(_assignment(f"{name}_evaluator", {"_delete_": True} | metric) for name in ("val", "test")),
        *_schedule_lines(chosen, data.images),
    ]
    return "\n".join(lines) + "\n"


def _schedule_lines(chosen: MmrotateConfig, images: int) -> list[str]:
    """mmrotate's schedule, stretched to `MmrotateConfig.steps`: warm-up and drops are shares of the steps."""
    in_epoch = max(1, math.ceil(images / chosen.batch_size))
    epochs = math.ceil(chosen.steps(images) / in_epoch)
    every, shape = max(1, epochs // chosen.epochs), SCHEDULES[chosen.schedule]
    warmup = {"type": "LinearLR", "start_factor": shape.start, "by_epoch": False, "begin": 0}
    warmup["end"] = shape.warmup_steps(epochs * in_epoch)
    if shape.fall is None:
        drops = [round(share * epochs) for share in shape.drops]
        then = {"type": "MultiStepLR", "begin": 0, "end": epochs, "by_epoch": True, "milestones": drops}
        then["gamma"] = shape.drop
    else:
        begin = round(shape.fall * epochs)
        then = {"type": "CosineAnnealingLR", "eta_min_ratio": shape.end, "begin": begin, "end": epochs}
        then |= {"T_max": epochs - begin, "by_epoch": True, "convert_to_iter_based": True}
    return [
        _assignment("train_cfg", {"max_epochs": epochs, "val_interval": every}),
        _assignment("param_scheduler", [warmup, then]),
        _assignment("default_hooks", {"checkpoint": {"interval": every}}),
    ]


def _model_lines(detector: str, classes: tuple[str, ...], side: int) -> list[str]:
    """H2RBox-v2 crops a central square of each batch, and lists round classes by index."""
    if not DETECTORS[detector].from_hbb:
        return []
    return [
        f"model.crop_size = ({side}, {side})",
        f"model.bbox_head.rotation_agnostic_classes = {_indices(classes, ROUND_CLASSES + DIAMOND_CLASSES)}",
        f"model.bbox_head.agnostic_resize_classes = {_indices(classes, DIAMOND_CLASSES)}",
    ]


def _indices(classes: tuple[str, ...], names: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(classes) if name.lower() in names]


def _replacement(path: str, part: dict) -> str:
    if path.endswith(".type"):
        return f"model.{path} = {part['type']!r}"
    return f"model.{path} = {_text(part)}"


def _dataset(data: ExportedData, name: str, split: str) -> dict:
    """The loader of one split of `real` or `synthetic`, relative to the folder of the config."""
    root = "{{ fileDirname }}/data/" + name + "/"
    meta: dict = {"classes": data.classes, "palette": "random"}
    location: dict = {
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
        location["classwise"] = True
    return {**location, "data_root": root, "metainfo": meta}


def _loading(layout: str, box_type: str) -> list[dict]:
    """Steps that load boxes of a box type of mmrotate. COCO files hold rotated boxes as polygons, others as corners."""
    if layout == "coco" and box_type != "hbox":
        return [
            {"type": "mmdet.LoadAnnotations", "with_bbox": True, "with_mask": True, "poly2mask": False},
            {"type": "ConvertMask2BoxType", "box_type": box_type},
        ]
    stored = "hbox" if layout == "coco" else "qbox"
    convert = [{"type": "ConvertBoxType", "box_type_mapping": {"gt_bboxes": box_type}}] if box_type != stored else []
    return [{"type": "mmdet.LoadAnnotations", "with_bbox": True, "box_type": stored}, *convert]


def _resize(factor: float) -> dict:
    return {"type": "mmdet.Resize", "scale_factor": float(round(factor, 6)), "keep_ratio": True}


def _train_pipeline(detector: str, data: ExportedData, factor: float, side: int) -> list[dict]:
    chosen = DETECTORS[detector]
    to_rbox = {"type": "ConvertBoxType", "box_type_mapping": {"gt_bboxes": "rbox"}}
    loading = [*_loading(data.layout, "hbox"), to_rbox] if chosen.from_hbb else _loading(data.layout, "rbox")
    steps = [{"type": "mmdet.LoadImageFromFile"}, *loading, _resize(factor)]
    steps.append({"type": "mmdet.RandomFlip", "prob": 0.75, "direction": ["horizontal", "vertical", "diagonal"]})
    if chosen.rotates and data.upright:  # the hull of an object, turned by another angle, is larger than its hull there
        steps.append({"type": "RandomChoiceRotate", "prob": 0.5, "angles": [90, 180, 270]})
    elif chosen.rotates:
        round_ones = _indices(data.classes, ROUND_CLASSES)
        steps.append({"type": "RandomRotate", "prob": 0.5, "angle_range": 180, "rect_obj_labels": round_ones or None})
    if chosen.from_hbb:  # the cropped square lies inside every image
        steps.append({"type": "mmdet.Pad", "size": (side, side), "pad_val": {"img": (114, 114, 114)}})
    return [*steps, {"type": "mmdet.PackDetInputs"}]


def _test_pipeline(data: ExportedData, scale: float) -> list[dict]:
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    coco = data.layout == "coco"
    return [
        {"type": "mmdet.LoadImageFromFile"},
        _resize(scale),
        *_loading(data.layout, "qbox" if coco else "rbox"),  # after resizing, so that boxes stay in pixels of the file
        {"type": "mmdet.PackDetInputs", "meta_keys": (*keys, "instances") if coco else keys},
    ]


def _assignment(name: str, value: dict | list) -> str:
    return f"{name} = {_text(value)}\n"


def _text(value: object, indent: int = 0) -> str:
    """Python source of plain values: dicts as `dict(...)`, long values with one line for each item."""
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

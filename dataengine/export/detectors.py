"""The detectors that a config is written for: mmrotate's own configs, and what in them depends on the data."""

from __future__ import annotations

from dataclasses import dataclass

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

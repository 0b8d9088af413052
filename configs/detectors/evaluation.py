# ruff: noqa: C408
# The detector for evaluation, with another architecture and seed than the filter: Rotated FCOS on a slim ResNet-18.
classes = ("Person", "Car", "Bicycle", "OtherVehicle", "airplane")
image_size = 256
training = dict(batch_size=16, learning_rate=1e-3, weight_decay=0.05, ema_decay=0.998, box_loss_weight=1.0, seed=2)
model = dict(
    type="mmdet.FCOS",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor", mean=[110.0, 110.0, 110.0], std=[55.0, 55.0, 55.0], boxtype2tensor=False
    ),
    backbone=dict(
        type="mmdet.ResNet",
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(
        type="mmdet.FPN",
        in_channels=[32, 64, 128],
        out_channels=64,
        start_level=0,
        num_outs=3,
        relu_before_extra_convs=True,
    ),
    bbox_head=dict(
        type="RotatedFCOSHead",
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        strides=[4, 8, 16],
        regress_ranges=((-1, 20), (20, 48), (48, 1e8)),
        center_sampling=True,
        center_sample_radius=1.5,
        norm_on_bbox=True,
        centerness_on_reg=True,
        use_hbbox_loss=False,
        scale_angle=True,
        bbox_coder=dict(type="DistanceAnglePointCoder", angle_version="le90"),
        loss_cls=dict(type="mmdet.FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GDLoss", loss_type="gwd", loss_weight=1.0),  # replaced by CornerLoss
        loss_angle=None,
        loss_centerness=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=None,
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms_rotated", iou_threshold=0.2), max_per_img=300
    ),
)

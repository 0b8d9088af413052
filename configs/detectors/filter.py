# ruff: noqa: C408
# The packaged filter: RTMDet-R, smaller than tiny, without the coarsest stage and with a finer level (strides 4, 8,
# 16), since a person in HIT-UAV has 20 x 11 pixels and no object more than 220 pixels.
classes = ("Person", "Car", "Bicycle", "OtherVehicle", "airplane")
image_size = 256
training = dict(batch_size=16, learning_rate=2e-3, weight_decay=0.05, ema_decay=0.998, box_loss_weight=2.0, seed=1)
norm = dict(type="BN")
activation = dict(type="SiLU", inplace=True)
model = dict(
    type="mmdet.RTMDet",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor", mean=[110.0, 110.0, 110.0], std=[55.0, 55.0, 55.0], boxtype2tensor=False
    ),
    backbone=dict(
        type="mmdet.CSPNeXt",
        arch_ovewrite=[[64, 128, 3, True, False], [128, 256, 6, True, False], [256, 512, 6, False, True]],
        out_indices=(1, 2, 3),
        expand_ratio=0.5,
        deepen_factor=0.167,
        widen_factor=0.375,
        channel_attention=True,
        norm_cfg=norm,
        act_cfg=activation,
    ),
    neck=dict(
        type="mmdet.CSPNeXtPAFPN",
        in_channels=[48, 96, 192],
        out_channels=64,
        num_csp_blocks=1,
        expand_ratio=0.5,
        norm_cfg=norm,
        act_cfg=activation,
    ),
    bbox_head=dict(
        type="RotatedRTMDetSepBNHead",
        num_classes=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        angle_version="le90",
        anchor_generator=dict(type="mmdet.MlvlPointGenerator", offset=0, strides=[4, 8, 16]),
        bbox_coder=dict(type="DistanceAnglePointCoder", angle_version="le90"),
        loss_cls=dict(type="mmdet.QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type="GDLoss", loss_type="gwd", loss_weight=2.0),  # replaced by CornerLoss
        with_objectness=False,
        exp_on_reg=False,
        share_conv=True,
        pred_kernel_size=1,
        use_hbbox_loss=False,
        scale_angle=False,
        loss_angle=None,
        norm_cfg=norm,
        act_cfg=activation,
    ),
    train_cfg=dict(
        assigner=dict(type="mmdet.DynamicSoftLabelAssigner", iou_calculator=dict(type="RBboxOverlaps2D"), topk=13),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms_rotated", iou_threshold=0.2), max_per_img=300
    ),
)

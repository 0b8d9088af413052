"""Everything that concerns detectors of the library mmrotate, which an optional environment holds (docs/mmrotate.md).

training_config    the text of a config that trains one of mmrotate's detectors on real and synthetic images
sources, export    the data sets next to that config
training           training of a detector from that config: model, optimiser, checkpoints
draws, schedule    which images a step shows, and its learning rate
environment        the Python with mmrotate, which is made and kept where this one has none
install, entry     what is installed there, and how dataengine runs there
job                a training in a process of it
detector           a trained mmrotate detector as the filter's detector
safe_config        configs as plain values, without executing them
registered         which classes a config may name
onnx_export        a one-stage detector as an ONNX model, which needs no mmrotate
cpu_speed          faster training on a CPU
cpu_layers         layers in plain torch for what mmcv implements for CUDA only
imagenet_backbone  EfficientNet-Lite0 with ImageNet weights as a backbone

Imports here are absolute: `mmrotate` is the library, `dataengine.mmrotate` this package.
"""

from typing import Literal

DetectorName = Literal[
    "oriented-rcnn",
    "roi-transformer",
    "redet",
    "rotated-faster-rcnn",
    "rotated-fcos",
    "rotated-retinanet",
    "s2anet",
    "rtmdet-r",
    "h2rbox-v2",
]  # fmt: skip  keys of training_config.DETECTORS

"""dataengine: a small labelled aerial data set in, a large, verified, synthetic one out.

Public names are those in `__all__`; they are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module

__version__ = "0.2.0"

_HOME = {
    "Acquisition": "dataengine.data.layout",
    "Dataset": "dataengine.data.layout",
    "Layout": "dataengine.data.layout",
    "Sample": "dataengine.data.layout",
    "read": "dataengine.data.formats",
    "write": "dataengine.data.formats",
    "ReuseSampler": "dataengine.layouts.reuse",
    "PriorSampler": "dataengine.layouts.prior_sampler",
    "InScenePipeline": "dataengine.render.in_scene_pipeline",
    "LayoutPipeline": "dataengine.render.layout_pipeline",
    "OnnxDetector": "dataengine.judge.detector",
    "Calibration": "dataengine.judge.calibration",
    "calibrate": "dataengine.judge.calibrate",
    "Recipe": "dataengine.engine.recipe",
    "synth": "dataengine.engine.run",
    "show": "dataengine.view.notebook",
    "UserError": "dataengine.errors",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'dataengine' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__

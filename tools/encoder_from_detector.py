"""Extract an image encoder for reference conditions from the backbone of a packaged detector.

    python tools/encoder_from_detector.py --out dataengine/weights/encoder/model.onnx

Cuts the ONNX graph after the backbone's second stage: (1, 3, 256, 256) in [0, 255] -> a feature map (1, 96, 16, 16).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import onnx
from onnx.utils import Extractor

from dataengine import weights

LAST_TENSOR = "/backbone/stage2/stage2.1/final_conv/activate/Mul_output_0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, help="folder [the packaged detector]")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = onnx.load((arguments.detector or weights.packaged("detector")) / "model.onnx")
    model = onnx.shape_inference.infer_shapes(model)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(Extractor(model).extract_model(["images"], [LAST_TENSOR]), arguments.out)
    print(arguments.out, f"{arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

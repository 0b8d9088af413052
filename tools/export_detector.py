"""Export an mmrotate detector to the ONNX form that the filter reads: pixels in, decoded boxes and scores out.

    python tools/export_detector.py configs/detectors/filter.py work/filter/detector.safetensors --out work/export

Input `images` float32 (1, 3, S, S) in [0, 255]; outputs `boxes` float32 (1, P, 5) as cx, cy, w, h, theta, and `scores`
float32 (1, P, C) in [0, 1]. Non-maximum suppression is left to the reader. Needs the mmrotate extra.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from mmengine.config import Config
from mmrotate.registry import MODELS
from mmrotate.utils import register_all_modules
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file


class Decoded(torch.nn.Module):
    """A dense mmrotate detector with its normalisation and box decoding inside."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        head, normalise = self.model.bbox_head, self.model.data_preprocessor
        features = self.model.extract_feat((images - normalise.mean) / normalise.std)
        scores, distances, angles, *centerness = head(features)
        points = head.prior_generator.grid_priors([level.shape[-2:] for level in scores], device=images.device)
        boxes, probabilities = [], []
        for i in range(len(scores)):
            probability = scores[i].sigmoid()
            if centerness:
                probability = probability * centerness[0][i].sigmoid()
            encoded = torch.cat([distances[i], angles[i]], 1).flatten(2).transpose(1, 2)  # (B, P, 5)
            boxes.append(head.bbox_coder.decode(points[i][None, :, :2].expand(len(images), -1, -1), encoded))
            probabilities.append(probability.flatten(2).transpose(1, 2))
        return torch.cat(boxes, 1), torch.cat(probabilities, 1)


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large weights as fp16 and cast them back in the graph: half the file, the same fp32 arithmetic."""
    casts, kept = [], []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.size > 256 and np.abs(values).max() < 6e4:
            kept.append(numpy_helper.from_array(values.astype(np.float16), weight.name + "_fp16"))
            casts.append(helper.make_node("Cast", [weight.name + "_fp16"], [weight.name], to=TensorProto.FLOAT))
        else:
            kept.append(weight)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("weights", help="safetensors")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    register_all_modules()
    config = Config.fromfile(arguments.config)
    model = MODELS.build(config.model)
    model.load_state_dict(load_file(arguments.weights))
    decoded = Decoded(model).eval()  # the whole of it: the exporter gives it back in the mode it had
    size = config.image_size
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        raw = Path(folder) / "raw.onnx"
        torch.onnx.export(
            decoded,
            (torch.full((1, 3, size, size), 110.0),),
            str(raw),
            input_names=["images"],
            output_names=["boxes", "scores"],
            opset_version=17,
            dynamo=False,
        )
        onnx.save(halve_weights(onnx.load(raw)), arguments.out / "model.onnx")
    settings = {
        "classes": list(config.classes),
        "image_size": size,
        "score_threshold": 0.02,
        "nms_iou": config.model.test_cfg.nms.iou_threshold,
    }
    (arguments.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")

    import onnxruntime

    images = np.random.default_rng(0).uniform(0, 255, (1, 3, size, size)).astype(np.float32)
    session = onnxruntime.InferenceSession(arguments.out / "model.onnx", providers=["CPUExecutionProvider"])
    boxes, scores = session.run(None, {"images": images})
    with torch.no_grad():
        expected = decoded(torch.from_numpy(images))
    print(
        f"{arguments.out}: boxes within {np.abs(boxes - expected[0].numpy()).max():.3f} px of torch, "
        f"scores within {np.abs(scores - expected[1].numpy()).max():.5f}"
    )


if __name__ == "__main__":
    main()

"""Train an mmrotate detector on packed tiles, on the CPU or a GPU; checkpoints every minute and resumes.

    python tools/train_detector.py configs/detectors/filter.py --tiles work/tiles.npz --out work/filter --steps 3000

Needs the mmrotate extra, and nothing of dataengine. The averaged weights end up in OUT/detector.safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import RotatedBoxes
from mmrotate.utils import register_all_modules
from safetensors.torch import save_file


def transform_boxes(boxes: np.ndarray, turns: int, mirror: bool, size: int) -> np.ndarray:
    """Boxes (N, 5+) of a square tile after np.rot90(tile, turns) and then a mirror from left to right."""
    out = boxes.copy()
    for _ in range(turns):  # rot90 turns against the clock: (x, y) -> (y, size - x), theta -> theta - pi / 2
        out[:, 0], out[:, 1] = out[:, 1].copy(), size - out[:, 0]
        out[:, 4] -= math.pi / 2
    if mirror:
        out[:, 0] = size - out[:, 0]
        out[:, 4] = -out[:, 4]
    out[:, 4] = (out[:, 4] + math.pi / 2) % math.pi - math.pi / 2
    return out


def draw_batch(tiles: dict, rng: np.random.Generator, batch_size: int) -> tuple[torch.Tensor, list]:
    """Tiles at random, turned by quarters, mirrored and re-lit: images float32 (B, 3, S, S) and data samples."""
    size = tiles["images"].shape[1]
    images, samples = [], []
    for i in rng.integers(0, len(tiles["images"]), batch_size):
        turns, mirror = int(rng.integers(4)), bool(rng.integers(2))
        image = np.rot90(tiles["images"][i], turns)
        image = (image[:, ::-1] if mirror else image).astype(np.float32)
        image = (image - 110) * rng.uniform(0.75, 1.3) + 110 + rng.uniform(-25, 25)
        if rng.random() < 0.3:
            image = image + rng.normal(0, rng.uniform(2, 8), image.shape[:2])[..., None]
        boxes = transform_boxes(tiles["boxes"][tiles["first"][i] : tiles["first"][i + 1]], turns, mirror, size)
        images.append(np.clip(image, 0, 255))
        sample = DetDataSample(metainfo=dict.fromkeys(("img_shape", "batch_input_shape", "pad_shape"), (size, size)))
        sample.gt_instances = InstanceData(
            bboxes=RotatedBoxes(torch.from_numpy(boxes[:, :5])), labels=torch.from_numpy(boxes[:, 5]).long()
        )
        samples.append(sample)
    x = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2), np.float32))
    return x, samples


def loss_of(model: torch.nn.Module, x: torch.Tensor, samples: list, device: torch.device) -> torch.Tensor:
    """Network in bf16, losses in fp32."""
    p = model.data_preprocessor
    x = ((x.to(device) - p.mean) / p.std).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        outputs = model.bbox_head(model.extract_feat(x))
    outputs = tuple([level.float() for level in output] for output in outputs)
    targets = [sample.gt_instances.to(device) for sample in samples]
    losses = model.bbox_head.loss_by_feat(*outputs, targets, [sample.metainfo for sample in samples], None)
    return sum(sum(v) if isinstance(v, list) else v for name, v in losses.items() if "loss" in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--tiles", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    register_all_modules()
    config = Config.fromfile(arguments.config)
    settings = config.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with np.load(arguments.tiles) as packed:
        tiles = {name: packed[name] for name in packed.files}
    assert tuple(tiles["classes"]) == tuple(config.classes), (tiles["classes"], config.classes)
    torch.manual_seed(settings.seed)
    model = MODELS.build(config.model)
    model.init_weights()
    model.to(device, memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint = arguments.out / "checkpoint.pth"
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]

    def save() -> None:
        fresh = checkpoint.with_suffix(".new")
        parts = {"model": model, "average": average, "optimizer": optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, fresh)
        fresh.rename(checkpoint)
        save_file(
            {k: v.contiguous() for k, v in average.module.state_dict().items()}, arguments.out / "detector.safetensors"
        )
        (arguments.out / "state.json").write_text(json.dumps({"step": step, "steps": arguments.steps}))

    saved = started = time.monotonic()
    first, warmup = step, 200
    while step < arguments.steps:
        progress = max(0.0, (step - warmup) / max(1, arguments.steps - warmup))
        rate = (
            settings.learning_rate
            * min(1, (step + 1) / warmup)
            * (0.03 + 0.97 * (1 + math.cos(math.pi * progress)) / 2)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng((settings.seed, step))
        loss = loss_of(model, *draw_batch(tiles, rng, settings.batch_size), device)
        if not torch.isfinite(loss):
            raise SystemExit(f"the loss is {float(loss)} at step {step}: lower the learning rate in {arguments.config}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        average.update_parameters(model)
        step += 1
        if step % 50 == 0:
            speed = (step - first) * settings.batch_size / (time.monotonic() - started)
            print(f"step {step}/{arguments.steps} loss {float(loss):.4f} {speed:.1f} tiles/s", flush=True)
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    save()


if __name__ == "__main__":
    main()

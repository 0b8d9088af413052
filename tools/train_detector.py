"""Train an mmrotate detector on packed images, on the CPU or a GPU, with a checkpoint every minute and exact resume.

    python tools/train_detector.py configs/detectors/filter.py --images work/train.npz --out work/filter --steps 3000

Needs the mmrotate extra. The averaged weights are written to OUT/detector.safetensors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from detector_tiles import Tiles
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import RotatedBoxes
from mmrotate.utils import register_all_modules
from safetensors.torch import save_file

from dataengine.mmrotate.cpu_layers import CornerLoss


def sample_batch(tiles: Tiles, rng: np.random.Generator, batch_size: int) -> tuple[torch.Tensor, list]:
    """A random batch of tiles: images float32 (B, 3, S, S) in [0, 255] and their data samples."""
    images, samples = [], []
    for _ in range(batch_size):
        image, boxes = tiles.sample(rng)
        images.append(image.transpose(2, 0, 1))
        shapes = ("img_shape", "batch_input_shape", "pad_shape")
        sample = DetDataSample(metainfo=dict.fromkeys(shapes, (tiles.size, tiles.size)))
        sample.gt_instances = InstanceData(
            bboxes=RotatedBoxes(torch.from_numpy(boxes[:, :5])), labels=torch.from_numpy(boxes[:, 5]).long()
        )
        samples.append(sample)
    return torch.from_numpy(np.stack(images)), samples


def loss_of(model: torch.nn.Module, x: torch.Tensor, samples: list, device: torch.device) -> torch.Tensor:
    """The sum of the losses, with the network in bf16 and the losses in fp32."""
    p = model.data_preprocessor
    x = ((x.to(device) - p.mean) / p.std).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16):
        outputs = model.bbox_head(model.extract_feat(x))
    outputs = tuple([level.float() for level in output] for output in outputs)
    targets = [sample.gt_instances.to(device) for sample in samples]
    losses = model.bbox_head.loss_by_feat(*outputs, targets, [sample.metainfo for sample in samples], None)
    return sum(sum(v) if isinstance(v, list) else v for name, v in losses.items() if "loss" in name)


def warmed_up_average(decay: float):
    """Exponential moving average with a shorter memory at first, so that initial weights fade in short trainings."""

    def update(averages: list[torch.Tensor], current: list[torch.Tensor], n: torch.Tensor | int) -> None:
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + int(n)) / (10 + int(n))))
        else:
            torch._foreach_copy_(averages, current)

    return update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("--images", required=True, help="file written by pack_images.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    register_all_modules()
    config = Config.fromfile(arguments.config)
    settings = config.training
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cv2.setNumThreads(1)
    tiles = Tiles(arguments.images, config.image_size)
    assert tiles.classes == tuple(config.classes), (tiles.classes, config.classes)
    torch.manual_seed(settings.seed)
    model = MODELS.build(config.model)
    model.init_weights()
    model.bbox_head.loss_bbox = CornerLoss(settings.box_loss_weight)
    model.to(device, memory_format=torch.channels_last).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=warmed_up_average(settings.ema_decay), use_buffers=True
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
        temporary = checkpoint.with_suffix(".new")
        parts = {"model": model, "average": average, "optimizer": optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step}, temporary)
        temporary.rename(checkpoint)
        # copies, since safetensors does not store layers that share weights
        weights = {k: v.clone(memory_format=torch.contiguous_format) for k, v in average.module.state_dict().items()}
        save_file(weights, arguments.out / "detector.safetensors")
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
        loss = loss_of(model, *sample_batch(tiles, rng, settings.batch_size), device)
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
            print(f"step {step}/{arguments.steps} loss {float(loss.detach()):.4f} {speed:.1f} tiles/s", flush=True)
        if time.monotonic() - saved > 60:
            save()
            saved = time.monotonic()
    save()


if __name__ == "__main__":
    main()

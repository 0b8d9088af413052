"""Which way of running the packaged networks is the fastest on this CPU, and how near each comes to the machine's peak.

    pip install openvino nncf onnxscript && python tools/bench/runtimes.py --out runtimes.json

The three networks of the renderers as they are called in a run, in PyTorch (eager and compiled), ONNX Runtime and
OpenVINO; in fp32, bf16 and int8 (static, calibrated on the same inputs); one thread each, since a run has one process a
core. Mean difference from fp32 eager, over its mean, beside each. The peak is that of a large convolution in PyTorch in
bf16 and fp32, the fastest thing that this machine is seen to do. What cannot be run is said so, with its reason.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dataengine import weights
from dataengine.data.layout import Layout
from dataengine.render.in_scene import FIELDS
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_batch import LayoutBatch
from dataengine.render.layout_pipeline import LayoutPipeline

SECONDS = 3.0  # of measuring, after a warm-up
Run = Callable[[], np.ndarray]


def networks() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...]]]:
    """Each network with inputs of the size that a run gives it."""
    torch.manual_seed(0)
    in_scene = InScenePipeline.from_pretrained(weights.packaged("in-scene")).unet
    whole = LayoutPipeline.from_pretrained(weights.packaged("whole"))
    n, side = 16, in_scene.config.frame_size
    frames = (
        torch.randn(n, 3, side, side), torch.full((n,), 500.0), torch.rand(n, 3, side, side),
        torch.ones(n, 1, side, side), torch.ones(n, 1, side, side), torch.zeros(n, dtype=torch.int64),
        torch.zeros(n, len(FIELDS)),
    )  # fmt: skip
    decoder = [torch.randn(1, 3, 256, 256), torch.full((1,), 1000.0), torch.randn(1, 3, 32, 32), torch.zeros(1).long()]
    if whole.decoder.config.classes:
        decoder.append(torch.full((1, 3, 256, 256), -2, dtype=torch.int8))
    layouts = [packed_layout(i) for i in range(n)]
    batch = vars(whole.unet.layout_batch(layouts, [x.labels for x in layouts], [0] * n))
    known = {name: tensor for name, tensor in batch.items() if tensor is not None}
    size = whole.unet.config.sample_size
    thumbnails = (torch.randn(n, 3, size, size), torch.full((n,), 500.0), *known.values())
    return {
        "in-scene, 16 frames": (in_scene, frames),
        "decoder, 1 picture": (whole.decoder, tuple(decoder)),
        "thumbnails, 16 layouts of 8 boxes": (Thumbnails(whole.unet, list(known)), thumbnails),
    }


class Thumbnails(nn.Module):
    """The thumbnail model with tensors as its only arguments."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model(latents, timesteps, LayoutBatch(**dict(zip(self.names, tensors, strict=True))))


def packed_layout(seed: int, boxes: int = 8) -> Layout:
    rng = np.random.default_rng(seed)
    sizes = np.sort(rng.uniform(10, 40, (boxes, 2)))[:, ::-1]
    places = np.column_stack([rng.uniform(30, 226, (boxes, 2)), sizes, rng.uniform(-1.5, 1.5, boxes)])
    return Layout(places, np.zeros(boxes), ("Car",), (256, 256))


def eager(model: nn.Module, inputs: tuple, precision: str, compiled: bool = False) -> Run:
    model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model

    @torch.no_grad()
    def run() -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return forward(*inputs).float().numpy()

    return run


def exported(model: nn.Module, inputs: tuple, folder: Path) -> Path:
    file = folder / "model.onnx"
    if not file.exists():
        torch.onnx.export(model, inputs, str(file), dynamo=True, external_data=False, verbose=False)
    return file


def onnx_runtime(model: nn.Module, inputs: tuple, precision: str, folder: Path) -> Run:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    file = exported(model, inputs, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if precision == "bf16":
        raise NotImplementedError("ONNX Runtime's CPU kernels have no bf16 convolution")
    names = [i.name for i in onnxruntime.InferenceSession(str(file)).get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    if precision == "int8":

        class Once(CalibrationDataReader):
            def __init__(self):
                self.left = [feed]

            def get_next(self):
                return self.left.pop() if self.left else None

        prepared, quantised = folder / "prepared.onnx", folder / "int8.onnx"
        quant_pre_process(str(file), str(prepared))
        quantize_static(
            str(prepared),
            str(quantised),
            Once(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "MatMul"],
        )
        file = quantised
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)[0]


def open_vino(model: nn.Module, inputs: tuple, precision: str, folder: Path) -> Run:
    import openvino

    converted = openvino.convert_model(exported(model, inputs, folder))
    if precision == "int8":
        import nncf

        named = {i.get_any_name(): x.numpy() for i, x in zip(converted.inputs, inputs, strict=True)}
        converted = nncf.quantize(converted, nncf.Dataset([named]), subset_size=1)
    hint = {"int8": "f32", "fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    request = compiled.create_infer_request()
    arrays = [x.numpy() for x in inputs]
    return lambda: request.infer(arrays)[0].copy()


def seconds(run: Run) -> float:
    """Median time of a call."""
    run(), run()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def peak_gflops(dtype: torch.dtype) -> float:
    """Of a convolution that keeps one core busy."""
    conv = nn.Conv2d(256, 256, 3, padding=1).to(dtype).to(memory_format=torch.channels_last)
    x = torch.randn(16, 256, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        return 2 * 9 * 256**2 * 16 * 32**2 / seconds(lambda: conv(x)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", help="only those whose name has this in it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    peak = {"fp32": peak_gflops(torch.float32), "bf16": peak_gflops(torch.bfloat16)}
    rows = []
    for name, (model, inputs) in networks().items():
        if arguments.network and arguments.network not in name:
            continue
        model.eval().requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*inputs)
        work = counter.get_total_flops() / 1e9
        truth = eager(model, inputs, "fp32")()
        with tempfile.TemporaryDirectory() as folder:
            ways: dict[tuple[str, str], Callable[[], Run]] = {
                (way, precision): (lambda make=make, precision=precision: make(precision))
                for way, precisions, make in (
                    ("PyTorch", ("fp32", "bf16"), lambda p, m=model, i=inputs: eager(m, i, p)),
                    ("torch.compile", ("fp32", "bf16"), lambda p, m=model, i=inputs: eager(m, i, p, compiled=True)),
                    ("ONNX Runtime", ("fp32", "bf16", "int8"),
                     lambda p, m=model, i=inputs, f=folder: onnx_runtime(m, i, p, Path(f))),
                    ("OpenVINO", ("fp32", "bf16", "int8"),
                     lambda p, m=model, i=inputs, f=folder: open_vino(m, i, p, Path(f))),
                )
                for precision in precisions
            }  # fmt: skip
            for (way, precision), make in ways.items():
                row = {"network": name, "runtime": way, "precision": precision}
                try:
                    run = make()
                    error = float(np.abs(run() - truth).mean() / np.abs(truth).mean())
                    taken = seconds(run)
                except Exception as reason:  # a row of the table, whatever a runtime says
                    rows.append(row | {"failed": str(reason).strip().splitlines()[0][:200]})
                else:
                    rate = work / taken
                    best = peak["fp32" if precision == "fp32" else "bf16"]
                    figures = {"ms": round(1000 * taken, 1), "GFLOP/s": round(rate), "error": round(error, 4)}
                    rows.append(row | figures | {"share_of_peak": round(rate / best, 2)})
                print(rows[-1], flush=True)
    result = {"peak_gflops": {k: round(v) for k, v in peak.items()}, "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""`dataengine train`: train models on any labelled data set."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from dataengine.data.commands import Format

app = typer.Typer(
    no_args_is_help=True,
    help="Train models on your own data. If a training is stopped or killed, the same command continues it.",
)

RANGES_FILE = "pixel-ranges.json"  # values of images of more than 8 bits that became black and white
Data = Annotated[list[Path], typer.Argument(help="Labelled data sets in any supported format.")]
Out = Annotated[Path, typer.Option(help="Folder for checkpoints, TensorBoard logs, sample grids and the model.")]
Split = Annotated[str | None, typer.Option(help="Use only this split, such as train. [default: all]")]
Steps = Annotated[int, typer.Option(min=1, help="Number of training steps.")]
Batch = Annotated[int, typer.Option(min=1, help="Samples per batch.")]
Rate = Annotated[float, typer.Option(help="Learning rate.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Minutes = Annotated[
    float | None, typer.Option(min=0, help="Stop after this many minutes, with a checkpoint. [default: no limit]")
]
Compile = Annotated[
    bool, typer.Option(help="Use torch.compile: takes a minute at the start, then about 1.4 times as fast.")
]
Evaluate = Annotated[int, typer.Option(min=1, help="Number of steps between sample grids.")]


def _read(paths: list[Path], format: str | None, split: str | None):
    from dataclasses import replace

    from dataengine.data.formats import read

    datasets = [replace(read(path, format, split=split), name=path.resolve().name) for path in paths]
    for dataset in datasets:
        for note in dataset.notes:
            typer.echo(note, err=True)
        if dataset.problems:
            more = f" and {len(dataset.problems) - 1} more; see dataengine data check" if dataset.problems[1:] else ""
            typer.echo(f"skipped: {dataset.problems[0]}{more}", err=True)
    return datasets


def _settings(steps, batch_size, learning_rate, seed, minutes, compile, evaluate_every, **more):
    from pydantic import ValidationError

    from dataengine.errors import UserError, first_fault
    from dataengine.train.loop import TrainSettings

    try:
        return TrainSettings(
            steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, minutes=minutes,
            compile=compile, evaluate_every=evaluate_every, warmup_steps=min(200, steps // 10), **more,
        )  # fmt: skip
    except ValidationError as error:
        raise UserError(f"{first_fault(error)}.") from None


def _store_ranges(out: Path, datasets) -> None:
    import json

    from dataengine.data.pixel_range import range_of
    from dataengine.errors import UserError
    from dataengine.files import read_text, write_whole

    ranges = {dataset.name: str(found) for dataset in datasets if (found := range_of(dataset)) is not None}
    text, file = json.dumps(ranges) + "\n", out / RANGES_FILE
    if file.exists() and read_text(file) != text:
        raise UserError(
            f"{out}: this training was begun with the pixel ranges {read_text(file).strip()}, not {text.strip()}; "
            "state them in the pixel-range.json of each data set, or give another --out."
        )
    if ranges:
        write_whole(file, text)


@contextmanager
def _writing(out: Path, datasets=()) -> Iterator[None]:
    """Refuse a folder with other files than those of a training; report a full disk in one sentence. The pixel ranges
    of the data sets are stored in the folder, and a training that was begun with others is refused."""
    from safetensors import SafetensorError

    from dataengine.errors import UserError
    from dataengine.files import cannot_write, refuse_links

    if out.is_dir():
        expected = {
            "checkpoint",
            "checkpoint.new",
            "checkpoint.old",
            "samples",
            "tensorboard",
            "model",
            "pipeline",
            "control",
        }
        expected |= {"unet", "decoder", "guided"}  # of fewer-steps
        expected |= {RANGES_FILE, *(f"{name}.new" for name in expected)}
        foreign = sorted(entry.name for entry in out.iterdir() if entry.name not in expected)
        if foreign:
            raise UserError(f"{out} contains other files than those of a training ({foreign[0]}); give another --out.")
    try:
        refuse_links(out)
        out.mkdir(parents=True, exist_ok=True)
        _store_ranges(out, datasets)
        yield
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", 0) is None:  # not from the disk
            raise
        if isinstance(error, SafetensorError):  # states an error of the disk as text
            code = re.search(r"os error (\d+)", str(error))
            error = OSError(int(code[1]) if code else errno.EIO, str(error))
        raise cannot_write(error, out, "choose another folder. The last checkpoint stays.") from error


def _classes(datasets) -> list[str]:
    return list(dict.fromkeys(name for dataset in datasets for name in dataset.classes))


@app.command()
def decoder(
    data: Data,
    out: Out,
    format: Format = None,
    split: Split = None,
    steps: Steps = 10_000,
    batch_size: Batch = 64,
    learning_rate: Rate = 8e-4,
    crop: Annotated[int, typer.Option(min=32, help="Side of the training crops in pixels; a multiple of 16.")] = 96,
    seed: Seed = 0,
    minutes: Minutes = None,
    compile: Compile = False,
    evaluate_every: Evaluate = 1000,
) -> None:
    """Train the diffusion decoder from thumbnails to pixels, which a whole-image renderer needs.

    OUT/model is for dataengine train renderer --decoder.

    Example: dataengine train decoder data/hit-uav --out work/decoder
    """
    from dataengine.errors import UserError

    if crop % 16:
        raise UserError(f"--crop {crop}: must be a multiple of 16.")
    from dataengine.train.decoder import train_decoder

    settings = _settings(steps, batch_size, learning_rate, seed, minutes, compile, evaluate_every)
    datasets = _read(data, format, split)
    with _writing(out, datasets):
        train_decoder(datasets, _classes(datasets), out, settings, crop)
    print(f"model: {out / 'model'}; samples: {out / 'samples'}")


@app.command()
def full(
    data: Data,
    out: Out,
    base: Annotated[str, typer.Option(help="Stable Diffusion 1.5: folder or hub id.")],
    form: Annotated[
        str, typer.Option(help="Architecture: full (ours), aerogen (as published), or a YAML file (configs/models).")
    ] = "full",
    trainable: Annotated[
        Literal["paper", "all", "lora"],
        typer.Option(help="Trained weights: new layers and transformer blocks (paper), all, or LoRA."),
    ] = "paper",
    rank: Annotated[int, typer.Option(min=1, help="Rank of LoRA.")] = 16,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 512,
    scale: Annotated[
        float, typer.Option(min=0.01, help="Scale of the images at loading; 0.64 fits 800 pixels into 512.")
    ] = 1.0,
    format: Format = None,
    split: Split = None,
    steps: Steps = 100_000,
    batch_size: Batch = 8,
    learning_rate: Rate = 1e-5,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Use less memory and a third more time.")] = False,
    snr_gamma: Annotated[float, typer.Option(min=0, help="Gamma of min-SNR loss weighting; 0 turns it off.")] = 5.0,
    seed: Seed = 0,
    minutes: Minutes = None,
    compile: Compile = False,
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between checkpoints, of about 10 GB each.")] = 20.0,
) -> None:
    """Train a full-size renderer (AeroGen's model or ours) from Stable Diffusion's weights, on a GPU of 24 GB or more.

    On several GPUs: accelerate launch -m dataengine train full ...

    Example: dataengine train full data/dior --base stable-diffusion-v1-5/stable-diffusion-v1-5 --out work/full
    """
    from dataengine.train.latents import load_base, model_arguments, train_latents

    arguments = model_arguments(form)
    settings = _settings(
        steps, batch_size, learning_rate, seed, minutes, compile, 1000, checkpoint_minutes=checkpoint_minutes
    )
    datasets = _read(data, format, split)
    published = form == "aerogen"
    with _writing(out, datasets):
        train_latents(
            datasets, _classes(datasets), load_base(base), arguments, out, settings, size=size, scale=scale,
            trainable=trainable, rank=rank, gradient_checkpointing=gradient_checkpointing,
            snr_gamma=snr_gamma or None, null_layout=0.0 if published else 0.1,
            foreground_weight=1.0 if published else 2.0,
        )  # fmt: skip
    print(f"renderer: {out / 'pipeline'}; use it with: dataengine synth --renderer whole --model {out / 'pipeline'}")


@app.command()
def layouts(
    data: Annotated[Path, typer.Argument(help="Labelled data set in any supported format.")],
    out: Out,
    format: Format = None,
    split: Split = None,
    steps: Steps = 4000,
    batch_size: Batch = 64,
    learning_rate: Rate = 1e-3,
    size: Annotated[int, typer.Option(min=16, help="Side of the layouts in pixels.")] = 256,
    seed: Seed = 0,
    minutes: Minutes = None,
    compile: Compile = False,
) -> None:
    """Train a small diffusion model of layouts.

    OUT/model is for dataengine synth --layouts diffusion --layout-model.

    Example: dataengine train layouts data/hit-uav --out work/layouts
    """
    from dataengine.train.layouts import train_layouts

    settings = _settings(steps, batch_size, learning_rate, seed, minutes, compile, 1000)
    [dataset] = _read([data], format, split)
    with _writing(out):
        train_layouts(dataset, out, settings, size)
    print(f"model: {out / 'model'}; show samples with: dataengine layout sample {out / 'model'} --out sheet.png")


@app.command()
def renderer(
    data: Data,
    out: Out,
    kind: Annotated[
        Literal["in-scene", "whole"], typer.Option(help="Renderer that paints objects into scenes, or the whole image.")
    ] = "in-scene",
    decoder: Annotated[
        Path | None,
        typer.Option(help="whole: model folder of dataengine train decoder. [default: the packaged one]"),
    ] = None,
    format: Format = None,
    split: Split = None,
    steps: Steps = 20_000,
    batch_size: Batch = 64,
    learning_rate: Rate = 5e-4,
    copies: Annotated[int, typer.Option(min=0, help="Number of augmented copies of each image.")] = 2,
    start: Annotated[
        str | None,
        typer.Option(
            help="in-scene: pipeline folder to fine-tune, or 'packaged'; classes may differ. [default: from scratch]"
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=64, help="whole: side of the images in pixels.")] = 256,
    seed: Seed = 0,
    minutes: Minutes = None,
    compile: Compile = False,
    evaluate_every: Evaluate = 1000,
) -> None:
    """Train a layout-conditioned renderer. OUT/pipeline is for dataengine synth --model.

    Example: dataengine train renderer data/hit-uav --out work/renderer
    """
    from dataengine import weights
    from dataengine.errors import UserError

    if kind == "whole" and start is not None:
        raise UserError("--start works only with --kind in-scene; a whole-image renderer is trained from scratch.")
    if decoder is not None and not (decoder / "config.json").exists():
        raise UserError(f"--decoder {decoder}: it has no config.json; give OUT/model of dataengine train decoder.")
    trained = None
    if start is not None:
        folder = weights.packaged("in-scene") if start == "packaged" else Path(start)
        from dataengine.render.renderer import load_renderer

        trained = load_renderer(folder, "in-scene").unet
    datasets = _read(data, format, split)
    settings = _settings(steps, batch_size, learning_rate, seed, minutes, compile, evaluate_every)
    from diffusers import FlowMatchEulerDiscreteScheduler

    from dataengine.render.imagery import measured, write_imagery
    from dataengine.train.loop import save_once

    with _writing(out, datasets):
        if kind == "in-scene":
            from dataengine.render.in_scene_pipeline import InScenePipeline
            from dataengine.train.in_scene import train_in_scene

            model = train_in_scene(datasets, _classes(datasets), out, settings, copies, start=trained)
            pipeline = InScenePipeline(model, FlowMatchEulerDiscreteScheduler())
        else:
            from dataengine.render.layout_pipeline import LayoutPipeline
            from dataengine.render.thumbnail_decoder import ThumbnailDecoder
            from dataengine.train.thumbnails import grey_domains, train_thumbnails

            decoding = ThumbnailDecoder.from_pretrained(decoder or weights.packaged("whole") / "decoder")
            model = train_thumbnails(datasets, _classes(datasets), out, settings, size, max(1, copies))
            pipeline = LayoutPipeline(model, decoding, FlowMatchEulerDiscreteScheduler(), grey_domains(datasets))
        save_once(pipeline, out / "pipeline")
        write_imagery(out / "pipeline", [found for dataset in datasets if (found := measured(dataset)) is not None])
    print(f"renderer: {out / 'pipeline'}; samples: {out / 'samples'}")


@app.command("fewer-steps")
def fewer_steps(
    data: Data,
    out: Out,
    model: Annotated[Path, typer.Option(help="Pipeline folder of a renderer trained on this data.")],
    kind: Annotated[Literal["in-scene", "whole"], typer.Option(help="Kind of the renderer.")] = "in-scene",
    to: Annotated[int, typer.Option(min=1, max=50, help="Denoising steps of the result, without guidance.")] = 4,
    guidance: Annotated[
        float | None,
        typer.Option(help="in-scene: class guidance to distill into the result. [default: the model's own]"),
    ] = None,
    decoder_to: Annotated[
        int, typer.Option(min=1, max=50, help="whole: denoising steps of the resulting decoder.")
    ] = 2,
    format: Format = None,
    split: Split = None,
    steps: Steps = 2000,
    batch_size: Batch = 32,
    learning_rate: Rate = 1e-3,
    seed: Seed = 0,
    minutes: Minutes = None,
) -> None:
    """Distill a renderer to fewer steps by adversarial training. OUT/pipeline is for dataengine synth --model.

    Example: dataengine train fewer-steps data/hit-uav --model work/renderer/pipeline --out work/fast
    """
    from dataengine import weights
    from dataengine.errors import UserError
    from dataengine.render.imagery import read_imagery, write_imagery
    from dataengine.render.reference import load_encoder
    from dataengine.render.renderer import load_renderer
    from dataengine.train.distill import distill_in_scene, distill_whole
    from dataengine.train.loop import save_once

    pipeline = load_renderer(model, kind)
    if kind == "whole" and not hasattr(pipeline, "decoder"):
        raise UserError(f"{model}: a full-size renderer cannot be distilled.")
    wanted = pipeline.config.get("guidance", 1) if guidance is None else guidance
    if pipeline.config.get("few_steps") and (kind == "whole" or wanted == 1):
        raise UserError(
            f"{model}: needs few steps already ({pipeline.steps}); give the renderer it was distilled from or, for "
            "in-scene renderers, a --guidance to distill."
        )
    settings = _settings(steps, batch_size, learning_rate, seed, minutes, False, 500, ema_decay=0.998)
    datasets = _read(data, format, split)
    with _writing(out, datasets):
        if kind == "in-scene":
            pipeline = distill_in_scene(pipeline, datasets, out, settings, to, guidance)
        else:
            wide = pipeline.unet.config.reference_width
            encoder = load_encoder(weights.packaged("encoder") / "model.onnx") if wide else None
            pipeline = distill_whole(pipeline, datasets, out, settings, to, decoder_to, encoder)
        save_once(pipeline, out / "pipeline")
        write_imagery(out / "pipeline", read_imagery(model))
    print(f"renderer: {out / 'pipeline'}, {to} steps")

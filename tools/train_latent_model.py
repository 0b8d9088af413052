"""Train the packaged latent model on the sample imagery. The same command resumes a stopped run.

python tools/train_latent_model.py --out work/latent --autoencoder tools/weights/autoencoder --threads 1 --minutes 100
python tools/train_latent_model.py --out work/latent --save work/latent/kept        # averaged weights of the checkpoint
python tools/train_latent_model.py --out work/second --start work/latent/kept --autoencoder FOLDER

In --out: losses.jsonl (flow loss of training and held-out windows, by data set and noise level), samples/STEP.png, and
pipeline, the trained model. --start goes on with a new optimizer, and with an autoencoder that may have been trained
further: its latents are encoded again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from sample_splits import DEFAULT_DATA, sources

from dataengine.errors import UserError
from dataengine.render.autoencoder import Autoencoder
from dataengine.render.inpainting_pipeline import InpaintingPipeline
from dataengine.train.latent_model import train_latent_model
from dataengine.train.loop import TrainSettings

MAX_FILE_SIZE = "15MB"


def load_pipeline(folder: Path) -> InpaintingPipeline:
    """A pipeline that training or --save wrote."""
    if not (folder / "model_index.json").exists():
        raise UserError(f"{folder}: has no model_index.json; give the folder of a trained pipeline.")
    # low_cpu_mem_usage would refuse weights of a model that had no linear guess yet
    return InpaintingPipeline.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
    )


def save_latent_model(out: Path, folder: Path) -> None:
    """Write the pipeline in `out` with the averaged weights of its checkpoint, as fp16."""
    averaged = out / "checkpoint" / "ema.safetensors"
    if not averaged.exists():
        raise UserError(f"{out} has no checkpoint; train first.")
    pipeline = load_pipeline(out / "pipeline")
    rest = pipeline.unet.load_state_dict(load_file(averaged), strict=False)
    assert not rest.unexpected_keys
    assert set(rest.missing_keys) <= {name for name, _ in pipeline.unet.named_buffers()}
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(folder, max_shard_size=MAX_FILE_SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, default=Path(__file__).parent / "weights" / "autoencoder")
    parser.add_argument("--steps", type=int, default=6000, help="the learning rate falls until then")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--windows", type=int, default=12_000, help="augmented windows to encode before the first step")
    parser.add_argument("--minutes", type=float, help="stop after this long, with a checkpoint")
    parser.add_argument("--evaluate-every", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0, help="of the batches and of random weights")
    parser.add_argument("--start", type=Path, help="folder of a pipeline to start from, instead of random weights")
    parser.add_argument("--save", type=Path, help="write the averaged weights of the checkpoint in --out, and end")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        if arguments.save is not None:
            save_latent_model(arguments.out, arguments.save)
            return
        settings = TrainSettings(
            steps=arguments.steps,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            ema_decay=0.999,
            minutes=arguments.minutes,
            checkpoint_minutes=5,
            evaluate_every=arguments.evaluate_every,
            seed=arguments.seed,
        )
        train_latent_model(
            sources(arguments.data, "train"), sources(arguments.data, "val"),
            Autoencoder.from_pretrained(arguments.autoencoder), arguments.out, settings, windows=arguments.windows,
            grey_domains=["hit-uav"], start=None if arguments.start is None else load_pipeline(arguments.start),
        )  # fmt: skip
    except UserError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()

"""The in-painting latent model: its windows, its regions, its input, and its training."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toy_scenes import paint, random_layout, scenes

from dataengine.data.layout import Acquisition, Dataset, Layout, Sample
from dataengine.errors import UserError
from dataengine.render.autoencoder import Autoencoder
from dataengine.render.inpaint import Known
from dataengine.render.inpainting_pipeline import InpaintingPipeline
from dataengine.train import latent_model
from dataengine.train.flow_loss import flow_loss
from dataengine.train.latent_model import LatentExamples, latent_example, train_latent_model
from dataengine.train.latent_windows import LatentWindows, Source, cut_window
from dataengine.train.loop import TrainSettings
from dataengine.train.region_masks import around_objects, random_region

TINY = {"block_out_channels": (16, 32), "cross_attention_dim": 16, "attention_head_dim": 8, "patch": 1}
SIZE = 64


def tiny_autoencoder(seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return Autoencoder(latent_channels=4, widths=(8, 8, 8), blocks=(1, 1, 1))


def sources(folder, n: int = 4, seed: int = 0) -> list[Source]:
    labelled = replace(scenes(folder / "a", n, seed), name="labelled")
    bare = [replace(s, layout=s.layout.select([])) for s in scenes(folder / "b", n, seed + 1, SIZE)]
    return [Source(labelled, 0.5), Source(Dataset(labelled.classes, bare, "obb", "bare"), 0.5, labelled=False)]


def means(pixels: np.ndarray) -> np.ndarray:
    """Latents that can be checked by hand: mean levels of 8 x 8 pixels, in 4 channels."""
    blocks = pixels.reshape(len(pixels), SIZE // 8, 8, SIZE // 8, 8, 3).mean((2, 4, 5)) / 100
    return np.repeat(blocks[:, None], 4, 1)


def settings(**changes) -> TrainSettings:
    fixed = {"steps": 3, "batch_size": 4, "warmup_steps": 1, "precision": "no", "evaluate_every": 100}
    return TrainSettings(**(fixed | changes))


def trained(folder, data, **changes) -> dict[str, torch.Tensor]:
    pipeline = train_latent_model(
        sources(data), sources(data, 2, 5), tiny_autoencoder(), folder, settings(**changes), windows=64, size=SIZE,
        model_settings=TINY,
    )  # fmt: skip
    return {name: value.clone() for name, value in pipeline.unet.state_dict().items()}


class Killed(Exception):
    pass


def test_an_interrupted_training_ends_with_exactly_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_model, "HELD_OUT_WINDOWS", 2)
    whole = trained(tmp_path / "whole", tmp_path)
    batch, calls = LatentExamples.batch, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return batch(*arguments)

    monkeypatch.setattr(LatentExamples, "batch", killed)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", tmp_path, checkpoint_minutes=1e-9)
    monkeypatch.setattr(LatentExamples, "batch", batch)
    assert json.loads((tmp_path / "cut" / "checkpoint" / "state.json").read_text())["step"] == 1
    resumed = trained(tmp_path / "cut", tmp_path)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    other = trained(tmp_path / "other", tmp_path, seed=4)
    assert not all(torch.equal(whole[name], other[name]) for name in whole), "control: the seed matters"


def test_windows_that_a_killed_process_left_are_finished_and_equal_those_made_at_once(tmp_path):
    data, calls = sources(tmp_path), []

    def dies(pixels):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return means(pixels)

    with pytest.raises(Killed):
        LatentWindows(tmp_path / "cut", data, 130, SIZE, dies, "r")
    with (tmp_path / "cut" / "layouts.jsonl").open("a") as lines:
        lines.write('{"half of a li')
    encoded = []
    resumed = LatentWindows(tmp_path / "cut", data, 130, SIZE, lambda p: encoded.append(len(p)) or means(p), "r")
    whole = LatentWindows(tmp_path / "whole", data, 130, SIZE, means, "r")
    assert encoded == [64, 2], "the first 64 are kept"
    assert np.array_equal(resumed.latents, whole.latents)
    assert [a.boxes.tolist() for a in resumed.layouts] == [a.boxes.tolist() for a in whole.layouts]
    with pytest.raises(UserError, match="made otherwise"):
        LatentWindows(tmp_path / "cut", data, 130, SIZE, means, "another encoder")


def test_the_boxes_of_a_window_are_where_its_objects_are(tmp_path):
    """Objects are red or blue on grey, whatever the window's scale, turn and flip."""
    rng, inside, outside = np.random.default_rng(0), [], []
    for sample in scenes(tmp_path, 12, 3, size=160):
        pixels, layout = cut_window(sample, SIZE, rng)
        colour = np.ptp(pixels.astype(int), axis=2) > 80
        cells = around_objects(replace(layout, boxes=layout.boxes * np.float32([1, 1, 0.8, 0.8, 1])), SIZE, 0, 0)
        inside += [colour[cells]]
        outside += [colour[~around_objects(layout, SIZE, 0, 4)]]
    assert np.concatenate(inside).mean() > 0.9
    assert np.concatenate(outside).mean() < 0.05, "control"


def test_the_ground_sample_distance_of_a_window_follows_its_scale(tmp_path):
    layout = replace(random_layout(np.random.default_rng(0), 160, "hbb"), acquisition=Acquisition(gsd_m=0.5))
    Image.fromarray(paint(layout, np.random.default_rng(0))).save(tmp_path / "0.png")
    empty = layout.select([])
    for of_image in (layout, empty):
        sample, rng = Sample("0", tmp_path / "0.png", of_image), np.random.default_rng(1)
        gsd = [cut_window(sample, SIZE, rng)[1].acquisition.gsd_m for _ in range(20)]
        assert min(gsd) > 0.45, "windows are not enlarged"
        assert max(gsd) > 0.7
    full = Layout([], [], layout.classes, (SIZE, SIZE), acquisition=Acquisition(gsd_m=0.5))
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(tmp_path / "1.png")
    pixels, moved = cut_window(Sample("1", tmp_path / "1.png", full), SIZE, np.random.default_rng(2))
    assert pixels.shape == (SIZE, SIZE, 3)
    assert moved.acquisition.gsd_m == pytest.approx(0.5), "control: an image of that size is not scaled"


def test_regions_are_of_all_kinds_and_object_regions_hold_whole_objects():
    rng, grid = np.random.default_rng(0), 32
    layout = Layout([[60, 60, 30, 14, 0.3], [180, 190, 24, 20, 0]], [0, 1], ("car", "van"), (256, 256))
    regions = [random_region(layout, grid, rng) for _ in range(600)]
    whole = np.mean([region.all() for region in regions])
    assert 0.35 < whole < 0.45
    assert all(region.any() for region in regions)
    objects = [around_objects(layout.select([i]), grid, 0, 0) for i in range(2)]
    shown = [r for r in regions if not r.all() and r.mean() < 0.3]
    entire = np.mean([any((region >= cells).all() for cells in objects) for region in shown])
    assert entire > 0.5
    empty = [random_region(layout.select([]), grid, rng) for _ in range(600)]
    holes = [r for r in empty if not r.all() and r.mean() < 0.3]
    control = np.mean([any((region >= cells).all() for cells in objects) for region in holes])
    assert control < 0.4, "control: blocks cover the two places by chance only"


def examples_of(folder, **model_settings) -> LatentExamples:
    windows = LatentWindows(folder / "w", sources(folder), 64, SIZE, means, "r")
    torch.manual_seed(0)
    model = latent_model.LayoutUNet(
        ["car", "van"], ["labelled", "bare"], sample_size=SIZE // 8, latent_channels=4,
        **({"inpaints": True} | TINY | model_settings),
    )  # fmt: skip
    return LatentExamples(windows, [True, False], model, *windows.statistics())


def test_layouts_of_unlabelled_pictures_are_unknown_and_those_of_labelled_ones_are_dropped_sometimes(tmp_path):
    examples = examples_of(tmp_path)
    bare = examples.windows.sources == 1
    assert not examples.layouts(np.flatnonzero(bare)).known.any()
    assert examples.layouts(np.flatnonzero(~bare)).known.all()
    batch = examples.batch(np.random.default_rng(0), 400)
    known = batch["known"].numpy()
    assert 0.35 < known.mean() < 0.55, "half of them, less a tenth"
    assert 0.05 < (batch["domains"].numpy() == 2).mean() < 0.16
    standard = examples.latents(np.arange(64)).numpy()
    assert np.allclose(standard.mean((0, 2, 3)), 0, atol=0.05)
    assert np.allclose(standard.std((0, 2, 3)), 1, atol=0.05)


def test_cells_with_unknown_content_and_cells_outside_the_region_do_not_count(tmp_path):
    examples = examples_of(tmp_path)
    layout = Layout([[12, 12, 8, 8, 0]], [0], ("car", "van"), (SIZE, SIZE), ignored=[[44, 44, 8, 8, 0]])
    region = np.zeros((1, 8, 8), bool)
    region[:, :, :6] = True
    weight = examples.regions([layout], region)["weight"][0, 0].numpy()
    assert weight[5, 5] == 0
    assert weight[0, 7] == 0
    assert weight[1, 1] == pytest.approx(2 * weight[7, 0])
    assert weight[7, 0] > 0
    free = examples.regions([replace(layout, ignored=None)], region)["weight"][0, 0].numpy()
    assert free[5, 5] > 0, "control"


def test_the_model_sees_what_is_known_outside_the_mask_and_nothing_inside(tmp_path):
    examples = examples_of(tmp_path)
    model, layouts = examples.model.eval(), examples.layouts(np.arange(2))
    x, noisy = examples.latents(np.arange(2)), torch.randn(2, 4, 8, 8)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 4:] = 1

    @torch.no_grad()
    def out(model, clean, mask):
        return model(noisy, torch.full((2,), 500.0), layouts, known=Known(clean, mask))

    before = out(model, x, mask)
    assert torch.equal(before, out(model, x + 3 * mask, mask)), "what is to be generated is not seen"
    assert not torch.allclose(before, out(model, x + 3 * (1 - mask), mask), atol=1e-4)
    assert not torch.allclose(before, out(model, x, 1 - mask), atol=1e-4)
    with torch.no_grad():
        nothing = model(noisy, torch.full((2,), 500.0), layouts)
    assert torch.equal(nothing, out(model, x, torch.ones_like(mask))), "control: None is a mask everywhere"
    blind = examples_of(tmp_path, inpaints=False).model.eval()
    assert torch.equal(out(blind, x, mask), out(blind, x + 3, 1 - mask)), "mutation: without the inputs nothing is seen"


def test_a_preconditioned_network_that_says_nothing_predicts_the_best_linear_guess(tmp_path):
    """Reference: least squares from noisy to clean patches, of correlated data."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 4, generator=generator)
    clean = torch.einsum("dc,bchw->bdhw", mixing, torch.randn(200, 4, 8, 8, generator=generator))
    noise = torch.randn(clean.shape, generator=generator)
    examples = {}
    for form in ("preconditioned", "flow"):
        examples[form] = examples_of(tmp_path, prediction=form)
        for parameter in examples[form].model.unet.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
    model, flow = examples["preconditioned"].model, examples["flow"].model
    layouts = examples["flow"].layouts(np.zeros(200, np.int64))

    @torch.no_grad()
    def guess(model, sigma: float) -> torch.Tensor:
        noisy = (1 - sigma) * clean + sigma * noise
        return noisy - sigma * model(noisy, torch.full((200,), 1000 * sigma), layouts)

    for sigma in (0.2, 0.5, 0.7):
        noisy, target = (x.transpose(1, 3).reshape(-1, 4) for x in ((1 - sigma) * clean + sigma * noise, clean))
        best = (noisy @ torch.linalg.lstsq(noisy, target).solution - target).square().mean()
        model.latent_axes.copy_(torch.eye(4)), model.latent_power.fill_(1)
        unfitted = (guess(model, sigma) - clean).square().mean()
        model.fit_guess(clean)
        assert (guess(model, sigma) - clean).square().mean() < 1.01 * best
        assert unfitted > 1.05 * best, "mutation: without the covariance"
        assert guess(flow, sigma).abs().max() < 1e-4, "control: without a guess"


def fitted(examples: LatentExamples, regions, steps: int = 60) -> float:
    """Mean error of the predicted latents inside the right half from pure noise, after training on these regions."""
    optimizer = torch.optim.AdamW(examples.model.parameters(), lr=4e-3)
    index, generator = np.arange(8), torch.Generator().manual_seed(0)
    loss = flow_loss(latent_example, logit_mean=2.0)
    layouts = examples.layouts(index)
    batch = {
        "latents": examples.latents(index),
        **examples.regions([examples.windows.layouts[i] for i in index], regions),
    }
    # two opposite pictures with one layout: only what is known tells them apart
    batch["latents"] = torch.tensor([1.0, -1.0]).repeat(4)[:, None, None, None].expand(-1, 4, 8, 8).contiguous()
    batch["weight"] = batch["region"]
    batch |= vars(layouts.unknown()) | {"domains": torch.zeros(8, dtype=torch.int64)}
    for _ in range(steps):
        optimizer.zero_grad()
        loss(examples.model, batch, generator)["loss"].backward()
        optimizer.step()
    example = latent_example(batch, generator)
    known = Known(example.clean, torch.from_numpy(regions[:, None].astype(np.float32)))
    noise = torch.randn(example.clean.shape, generator=generator)
    with torch.no_grad():
        predicted = noise - examples.model(noise, torch.full((8,), 1000.0), example.conditions[0], None, known)
    return float((predicted - example.clean)[..., 4:].abs().mean())


def test_a_trained_model_continues_what_is_known(tmp_path):
    half = np.zeros((8, 8, 8), bool)
    half[:, :, 4:] = True
    assert fitted(examples_of(tmp_path), half) < 0.35
    assert fitted(examples_of(tmp_path, inpaints=False), half) > 0.7, "mutation: without the inputs it can only guess"


def test_a_training_writes_losses_pictures_and_a_renderer_that_keeps_what_is_outside_the_mask(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_model, "HELD_OUT_WINDOWS", 2)
    out = tmp_path / "out"
    trained(out, tmp_path, evaluate_every=2)
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 3]
    assert set(lines[0]["held-out"]) == {"labelled", "bare"}
    assert len(lines[0]["train"]["bare"]) == len(latent_model.BANDS)
    assert Image.open(out / "samples" / "0000003.png").size[0] == SIZE * latent_model.WHOLE_SHOWN
    pipeline = InpaintingPipeline.from_pretrained(out / "pipeline")
    layout = random_layout(np.random.default_rng(0), SIZE)
    image = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[16:40, 16:40] = 1
    call = partial(pipeline, [layout], [3], "labelled", 2)
    [painted], [whole] = call(images=[image], masks=[mask]), call()
    assert np.array_equal(painted[mask == 0], image[mask == 0])
    assert not np.array_equal(painted[mask == 1], image[mask == 1])
    assert (whole[mask == 0] != image[mask == 0]).mean() > 0.5, "control: without a mask all is drawn"
    twice = pipeline([layout, layout], [9, 3], "labelled", 2)
    assert np.abs(twice[1].astype(int) - whole).max() <= 1
    assert not np.array_equal(twice[0], twice[1])
    with pytest.raises(UserError, match="not trained on 'other'"):
        pipeline([layout], [3], "other")


def test_a_second_training_starts_from_the_first_and_keeps_its_statistics(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_model, "HELD_OUT_WINDOWS", 2)
    first = trained(tmp_path / "first", tmp_path)
    start = InpaintingPipeline.from_pretrained(tmp_path / "first" / "pipeline")
    second = train_latent_model(
        sources(tmp_path), sources(tmp_path, 2, 5), tiny_autoencoder(1), tmp_path / "second",
        settings(steps=1, learning_rate=1e-9), windows=64, size=SIZE, model_settings=TINY, start=start,
    )  # fmt: skip
    assert list(second.config.latent_mean) == list(start.config.latent_mean)
    weights = dict(second.unet.named_parameters())  # without the linear guess, which is of the new latents
    assert all(torch.allclose(first[name], weights[name], atol=1e-5) for name in weights)
    random = trained(tmp_path / "third", tmp_path, seed=4)
    assert not all(torch.allclose(random[name], first[name], atol=1e-5) for name in weights), "control"

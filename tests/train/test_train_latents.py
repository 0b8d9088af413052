from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler
from toy_scenes import random_layout

from dataengine.data.formats import read
from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.renderer import load_renderer

pytest.importorskip("transformers")
from toy_text import toy_stable_diffusion

from dataengine.train.latents import (
    from_base,
    load_base,
    model_arguments,
    set_trainable,
    snr_weight,
    train_latents,
)
from dataengine.train.loop import TrainSettings


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return toy_stable_diffusion(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture(scope="module")
def trained(source, toy_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("full")
    settings = TrainSettings(steps=3, batch_size=2, learning_rate=1e-3, warmup_steps=1)
    dataset = read(toy_dataset)
    pipeline = train_latents(
        [dataset], list(dataset.classes), load_base(str(source)), model_arguments("full"), out, settings, size=64,
        gradient_checkpointing=True,
    )  # fmt: skip
    return pipeline, out


def layout_64(n: int, classes) -> Layout:
    rng = np.random.default_rng(n)
    boxes = np.column_stack([rng.uniform(12, 52, (n, 2)), np.full(n, 16), np.full(n, 8), rng.uniform(-1.5, 1.5, n)])
    return Layout(boxes, rng.integers(0, 2, n), tuple(classes), (64, 64))


@pytest.mark.parametrize("form", ["aerogen", "full"])
@torch.no_grad()
def test_before_training_the_model_equals_its_base_where_new_parameters_have_no_effect(source, form):
    base = load_base(str(source))
    model = from_base(base, ["car", "van"], [], model_arguments(form), 32).eval()
    layout = layout_64(2, ("car", "van"))
    batch = model.layout_batch([layout], [layout.labels])
    latents, text, t = torch.randn(1, 4, 32, 32), torch.randn(1, 16, 32), torch.tensor([100])
    for name, parameter in model.named_parameters():
        if "to_v_box" in name:  # the contribution of the box tokens
            parameter.zero_()
    if model.config.fields:
        model.field_embedding.apply(lambda m: [p.zero_() for p in m.parameters(recurse=False)])
        model.domain_embedding.weight.zero_()
    ours, theirs = model(latents, t, batch, text), base.unet(latents, t, text).sample
    assert torch.allclose(ours, theirs, atol=1e-5)
    from_noise = model(latents, torch.tensor([900]), batch, text)
    assert not torch.allclose(from_noise, base.unet(latents, torch.tensor([900]), text).sample, atol=1e-5), (
        "control: from timestep 200 the regional attention scales the features"
    )


@pytest.mark.parametrize("which", ["paper", "all", "lora"])
def test_each_mode_trains_its_parameters_and_no_others(source, which):
    if which == "lora":
        pytest.importorskip("peft")
    model = from_base(load_base(str(source)), ["car", "van"], [], model_arguments("aerogen"), 16)
    set_trainable(model, which, rank=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith("box_encoder.classes") for name in trained)
    assert any("to_k_box" in name for name in trained)
    assert any(name.startswith("regional_attention") for name in trained)
    convolutions = any("resnets" in name for name in trained)
    blocks = any("attn1.to_q.weight" in name or "attn1.to_q.base_layer" in name for name in trained)
    assert (convolutions, blocks) == {"paper": (False, True), "all": (True, True), "lora": (False, False)}[which]
    assert any("lora_A" in name for name in trained) == (which == "lora")


def test_min_snr_weights_are_one_at_high_noise_and_fall_at_low_noise():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    weight = snr_weight(scheduler, torch.tensor([0, 100, 900]), 5.0)
    alpha = float(scheduler.alphas_cumprod[0])
    assert weight[2] == 1
    assert weight[0] == pytest.approx(5 * (1 - alpha) / alpha, rel=1e-4)
    assert weight[0] < weight[1] <= 1


def test_training_writes_a_renderer_that_the_engine_loads_and_uses(trained):
    pipeline, out = trained
    again = load_renderer(out / "pipeline", "whole")
    assert again.config.dropped_in_training == ["text", "layout"]
    layouts = [layout_64(n, pipeline.classes) for n in (1, 3, 40)]
    images = again(layouts, [1, 2, 3], num_inference_steps=3, guidance_scale=2.0, layout_guidance_scale=1.5)
    assert [image.shape for image in images] == [(64, 64, 3)] * 3
    alone = again(layouts[:1], [1], num_inference_steps=3, guidance_scale=2.0, layout_guidance_scale=1.5)[0]
    assert np.abs(alone.astype(int) - images[0]).max() <= 1, "no image depends on its batch"


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler])
def test_any_scheduler_works_and_the_seed_decides(trained, scheduler):
    pipeline = trained[0]
    before = pipeline.scheduler
    try:
        pipeline.scheduler = scheduler.from_config(before.config)
        layout = layout_64(2, pipeline.classes)
        one, same, other = (pipeline([layout], [s], num_inference_steps=4, eta=0.2)[0] for s in (1, 1, 2))
    finally:
        pipeline.scheduler = before
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_guidance_on_a_condition_that_was_never_dropped_is_refused(trained):
    pipeline = trained[0]
    layout = layout_64(1, pipeline.classes)
    dropped = pipeline.config.dropped_in_training
    pipeline.register_to_config(dropped_in_training=["text"])
    try:
        with pytest.raises(UserError, match="never saw a null layout"):
            pipeline([layout], [1], num_inference_steps=1, layout_guidance_scale=2.0)
    finally:
        pipeline.register_to_config(dropped_in_training=dropped)
    with pytest.raises(UserError, match="64x64"):
        pipeline([random_layout(np.random.default_rng(0))], [1])


def test_a_class_that_was_never_a_label_can_be_rendered_by_its_name(trained):
    pipeline = trained[0]
    with pytest.raises(UserError, match="does not know the class windmill"):
        pipeline([layout_64(2, ("windmill", "car"))], [1], num_inference_steps=1)
    known = pipeline.unet.box_encoder.classes.weight.detach().clone()
    pipeline.add_classes(["windmill"])
    assert pipeline.classes[-1] == "windmill"
    vectors = pipeline.unet.box_encoder.classes.weight
    assert torch.equal(vectors[: len(known)], known)
    from dataengine.render.text import embed_names

    assert torch.allclose(vectors[-1], embed_names(["windmill"], pipeline.tokenizer, pipeline.text_encoder)[0])
    one, other = (
        pipeline([layout_64(2, (name, "car")).select([0, 1])], [1], num_inference_steps=2)[0]
        for name in ("windmill", "van")
    )
    assert one.shape == other.shape


def test_lora_is_merged_into_the_saved_model(source, toy_dataset, tmp_path):
    pytest.importorskip("peft")
    dataset = read(toy_dataset)
    settings = TrainSettings(steps=2, batch_size=2, learning_rate=1e-2, warmup_steps=0, ema_decay=0.0)
    base = load_base(str(source))
    before = base.unet.state_dict()["mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"].clone()
    train_latents([dataset], list(dataset.classes), base, model_arguments("aerogen"), tmp_path, settings, size=32,
                  trainable="lora", rank=2, null_layout=0.0)  # fmt: skip
    again = load_renderer(tmp_path / "pipeline", "whole")
    state = again.unet.state_dict()
    assert not any("lora" in name for name in state)
    after = state["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"]
    assert not torch.allclose(before, after)
    assert torch.linalg.matrix_rank(after - before, rtol=1e-3) <= 2


def test_an_invalid_base_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no Stable Diffusion"):
        load_base(str(tmp_path))
    with pytest.raises(UserError, match="no such model"):
        model_arguments("unheard-of")


def test_synth_renders_another_class_in_the_boxes_of_one(trained, toy_preset, toy_dataset, tmp_path):
    import json

    from dataengine.engine.recipe import Recipe
    from dataengine.engine.run import synth

    recipe = Recipe(dataset=str(toy_preset), data=toy_dataset, renderer="whole", model=trained[1] / "pipeline", n=2,
                    size=64, steps=1, filter="off", draw_as={"car": "windmill"}, layout_scale=0.8)  # fmt: skip
    result = synth(recipe, tmp_path / "run")
    names = {name for record in result.records for name in record.labels.classes}
    assert names == {"windmill", "van"}
    assert json.loads((result.out / "recipe.json").read_text())["recipe"]["draw_as"] == {"car": "windmill"}
    with pytest.raises(UserError, match="has no class boat"):
        synth(recipe.model_copy(update={"draw_as": {"boat": "windmill"}}), tmp_path / "other")
    with pytest.raises(UserError, match="is a class already"):
        synth(recipe.model_copy(update={"draw_as": {"car": "van"}}), tmp_path / "other")

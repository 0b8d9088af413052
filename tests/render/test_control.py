"""The side network: nothing before training, diffusers' wiring, published forms together with boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from toy_ground import condition, new_model, random_map, rendered

pytest.importorskip("transformers")
from toy_text import toy_stable_diffusion

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.control import Control, check_fits, condition_side, load_control, new_control
from dataengine.render.latent_pipeline import LatentPipeline
from dataengine.train.latents import from_base, load_base, model_arguments

# the configurations of Stable Diffusion's denoisers and of the published ControlNets for them (lllyasviel's and
# map-sat's for 1.5, GeoSynth's for 2.1), where they differ from diffusers' defaults
PUBLISHED = {
    "1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "2.1": {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
}


def maps(n: int) -> list[np.ndarray]:
    return [random_map(np.random.default_rng(i)) for i in range(n)]


def randomised(network: torch.nn.Module, size: float = 0.3) -> torch.nn.Module:
    """With weights in place of the zeros that it starts with, and a map that reaches the other end of its convolutions.

    As PyTorch draws them they pass on a thousandth of what tells two maps apart.
    """
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if name.startswith("controlnet_") and not p.any():
                p.copy_(torch.randn(p.shape, generator=generator) * size)
            elif name.startswith("controlnet_cond_embedding.blocks") and name.endswith("weight"):
                p.mul_(3)
    return network


def test_before_training_a_control_changes_nothing_and_with_weights_it_does():
    """S1 (a) and (e)."""
    model = new_model().eval()
    control = new_control(model, 6)
    without = rendered(model, None, maps(3), [0, 1, 0])
    assert np.abs(rendered(model, control, maps(3), [0, 1, 0]) - without).max() <= 1e-6
    randomised(control)
    assert np.abs(rendered(model, control, maps(3), [0, 1, 0]) - without).max() > 0.01
    assert np.abs(rendered(model, control, maps(3), [0, 1, 0], scale=0.0) - without).max() == 0


def test_each_image_of_a_batch_follows_its_own_map():
    model = new_model().eval()
    control = randomised(new_control(model, 6))
    one, two = maps(2)
    both, other = rendered(model, control, [one, two], [0, 0]), rendered(model, control, [one, one], [0, 0])
    assert np.abs(both[0] - other[0]).max() < 1e-4
    assert np.abs(both[1] - other[1]).max() > 0.002


@torch.no_grad()
def test_a_new_control_is_a_copy_of_the_encoder():
    model = new_model().eval()
    control, unet = new_control(model, 6), model.unet
    for part in ("time_embedding", "mid_block"):
        own, source = getattr(control, part).state_dict(), getattr(unet, part).state_dict()
        assert own
        assert all(torch.equal(value, source[name]) for name, value in own.items())
    assert torch.equal(control.conv_in.weight, unet.conv_in.weight[:, : control.config.in_channels])
    assert condition_side(model) == 64
    assert condition(maps(1), model).shape == (1, 6, 64, 64)


@pytest.mark.parametrize("version", PUBLISHED)
@torch.no_grad()
def test_published_configurations_give_what_the_denoiser_adds(version):
    """Shapes at full size, on no memory."""
    given = {k: v for k, v in PUBLISHED[version].items() if k != "attention_head_dim"}
    with torch.device("meta"):
        heads = PUBLISHED[version]["attention_head_dim"]
        control = ControlNetModel(**given, attention_head_dim=heads)
        unet = UNet2DConditionModel(**given, attention_head_dim=heads)
        x, text = torch.empty(1, 4, 64, 64), torch.empty(1, 77, given["cross_attention_dim"])
        down, middle = control(x, 1.0, text, torch.empty(1, 3, 512, 512), return_dict=False)
        skips = [unet.conv_in(x)]
        emb = unet.time_embedding(unet.time_proj(torch.ones(1)))
        h = skips[0]
        for block in unet.down_blocks:
            h, states = block(h, emb, text) if hasattr(block, "attentions") else block(h, emb)
            skips += states
    assert [x.shape for x in down] == [x.shape for x in skips]
    assert len(down) == 12
    assert middle.shape == h.shape == (1, 1280, 8, 8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Small random Stable Diffusion 1 and 2."""
    one, two = (toy_stable_diffusion(tmp_path_factory.mktemp("sd") / "base") for _ in range(2))
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        attention_head_dim=(2, 4), use_linear_projection=True,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(two / "unet")  # fmt: skip
    return {"1.5": one, "2.1": two}


def small_control(unet: UNet2DConditionModel) -> ControlNetModel:
    torch.manual_seed(1)
    return randomised(ControlNetModel.from_unet(unet)).eval()


def boxes(n: int) -> Layout:
    rng = np.random.default_rng(n)
    values = np.column_stack([rng.uniform(12, 52, (n, 2)), np.full(n, 16), np.full(n, 8), rng.uniform(-1.5, 1.5, n)])
    return Layout(values, rng.integers(0, 2, n), ("car", "van"), (64, 64))


@pytest.mark.parametrize("version", PUBLISHED)
@torch.no_grad()
def test_the_wiring_is_that_of_diffusers(sources, version):
    """With boxes that add nothing, the result is that of diffusers' own denoiser and control."""
    base = load_base(str(sources[version]))
    model = from_base(base, ["car", "van"], [], model_arguments("full"), 32).eval()
    for name, parameter in model.named_parameters():
        if "to_v_box" in name:
            parameter.zero_()
    model.field_embedding.apply(lambda m: [p.zero_() for p in m.parameters(recurse=False)])
    model.domain_embedding.weight.zero_()
    control, picture = small_control(base.unet), torch.rand(1, 3, 256, 256)
    x, text, t = (
        torch.randn(1, 4, 32, 32),
        torch.randn(1, 16, 32),
        torch.tensor([100]),
    )  # below the steps of regional attention
    down, middle = control(x, t, text, picture, conditioning_scale=0.7, return_dict=False)
    wanted = base.unet(
        x, t, text, down_block_additional_residuals=down, mid_block_additional_residual=middle
    ).sample  # fmt: skip
    layout = boxes(2)
    batch = model.layout_batch([layout], [layout.labels])
    found = model(x, t, batch, text, control=Control(control, picture, 0.7))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(model(x, t, batch, text), wanted, atol=1e-2)  # control: without it


@pytest.mark.parametrize(("version", "form"), [("1.5", "aerogen"), ("2.1", "full")])
def test_a_published_control_and_boxes_work_in_one_pipeline(sources, tmp_path, version, form):
    base = load_base(str(sources[version]))
    small_control(base.unet).save_pretrained(tmp_path / "control")
    network, given = load_control(str(tmp_path / "control"))
    assert given is None
    model = from_base(base, ["car", "van"], [], model_arguments(form), 32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "to_v_box" in name:
                parameter.mul_(20)
    check_fits(network, model, "x")
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    pipeline = LatentPipeline(model, base.vae, base.text_encoder, base.tokenizer, scheduler, ["text"], steps=3)
    pictures = [torch.rand((2, 3, 256, 256), generator=torch.Generator().manual_seed(i)) for i in (0, 1)]

    def images(layout: Layout, picture: torch.Tensor | None, scale: float = 1.0):
        control = None if picture is None else Control(network, picture, scale)
        return np.stack(pipeline([layout, boxes(3)], [5, 6], control=control)).astype(int)

    one = images(boxes(2), pictures[0])
    assert np.array_equal(one, images(boxes(2), pictures[0]))
    assert np.abs(one - images(boxes(2), pictures[1])).max() > 3  # another map
    assert np.abs(one[0] - images(boxes(4), pictures[0])[0]).max() > 0  # other boxes
    assert np.array_equal(images(boxes(2), None), images(boxes(2), pictures[0], 0.0))
    alone = np.stack(pipeline([boxes(2)], [5], control=Control(network, pictures[0][:1]))).astype(int)
    assert np.abs(alone[0] - one[0]).max() <= 2  # no image depends on its company


def test_a_control_of_another_form_is_refused_in_a_sentence(sources, tmp_path):
    base = load_base(str(sources["1.5"]))
    model = from_base(base, ["car"], [], model_arguments("full"), 32)
    with pytest.raises(UserError, match=r"for another denoiser \(input channels: 48, the renderer has 4\)"):
        check_fits(new_control(new_model(), 6), model, "x")
    with pytest.raises(UserError, match="is no ControlNet of diffusers"):
        load_control(str(tmp_path))
    new_control(new_model(), 6).save_pretrained(tmp_path / "own")
    with pytest.raises(UserError, match=r"has no map.json, and takes no picture"):
        load_control(str(tmp_path / "own"))


def test_a_base_that_predicts_something_else_is_refused(sources):
    base = load_base(str(sources["2.1"]))
    other = type(base.scheduler).from_config(base.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(UserError, match="predicts v_prediction, not noise"):
        from_base(replace(base, scheduler=other), ["car"], [], model_arguments("full"), 32)

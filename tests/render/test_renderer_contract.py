"""What every renderer keeps to, on every kind of canvas that it is given, whatever it paints and however well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from toy_scenes import canvas, paint

from dataengine.data.layout import Layout
from dataengine.engine.parts import load_parts
from dataengine.errors import UserError
from dataengine.render import RENDERERS
from dataengine.render.canvas import BlankCanvases, Canvas, Painted, Provenance
from dataengine.render.frame import covered
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.layout_pipeline import LayoutPipeline
from dataengine.render.layout_unet import LayoutUNet
from dataengine.render.placement import empty_layout
from dataengine.render.precision import has_native_bf16
from dataengine.render.renderer import PaintSettings
from dataengine.render.thumbnail_decoder import ThumbnailDecoder

CLASSES, SIDE, LARGE = ("car", "van"), 64, 96
SETTINGS = PaintSettings(num_inference_steps=2, guidance_scale=1.0)
# grey levels: the size of a matrix product depends on the batch, and rounding, coarser in bf16, on that size
ROUNDING = 6 if has_native_bf16(torch.device("cpu")) else 2


def in_scene(tmp_path_factory, toy_renderer):
    return InScenePipeline.from_pretrained(toy_renderer)


def whole(tmp_path_factory, toy_renderer):
    torch.manual_seed(0)
    unet = LayoutUNet(list(CLASSES), ["toy"], sample_size=8, latent_channels=3, block_out_channels=(16, 32),
                      cross_attention_dim=16, attention_head_dim=8).eval()  # fmt: skip
    decoder = ThumbnailDecoder(domains=["toy"], block_out_channels=(16, 32)).eval()
    return LayoutPipeline(unet, decoder, FlowMatchEulerDiscreteScheduler())


def latent(tmp_path_factory, toy_renderer):
    pytest.importorskip("transformers")
    from toy_text import toy_stable_diffusion

    from dataengine.render.latent_pipeline import LatentPipeline
    from dataengine.train.latents import from_base, load_base, model_arguments

    base = load_base(str(toy_stable_diffusion(tmp_path_factory.mktemp("latent") / "base")))
    unet = from_base(base, list(CLASSES), [], model_arguments("full"), SIDE // 2).eval()
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    return LatentPipeline(unet, base.vae, base.text_encoder, base.tokenizer, scheduler, ["text", "layout"])


MAKERS = {"InScenePipeline": in_scene, "LayoutPipeline": whole, "LatentPipeline": latent}


@pytest.fixture(scope="module")
def renderer_of(tmp_path_factory, toy_renderer) -> Callable:
    """A small one of each class, with random weights, made once."""
    made = {}

    def get(name: str):
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory, toy_renderer)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return get


def cars_and_vans(boxes: list, size: int = SIDE) -> Layout:
    return Layout(boxes, np.arange(len(boxes)) % 2, CLASSES, (size, size))


NEW = [cars_and_vans([[16, 16, 14, 7, 0.4]]), cars_and_vans([[40, 44, 15, 8, -1.0], [14, 46, 12, 6, 0.0]])]
NEAR, FAR = [20, 19, 12, 6, 0.2], [50, 12, 12, 6, -0.3]  # one that the first layout touches, and one that it does not


def blank() -> list[Canvas]:
    return BlankCanvases().draw(NEW, [1, 2])


def windows(provenance: Provenance) -> list[Canvas]:
    existing = [cars_and_vans([NEAR, FAR]), cars_and_vans([FAR])]
    images = [paint(labels, np.random.default_rng(i)) for i, labels in enumerate(existing)]
    return [canvas(*each, provenance) for each in zip(images, NEW, existing, strict=True)]


def labelled_images() -> list[Canvas]:
    """Larger than the window that new objects go into, which begins at (20, 25); new ones have room."""
    existing = cars_and_vans([[80, 80, 14, 7, 0.3], [60, 36, 10, 5, 0], [8, 8, 10, 5, 1.0]], LARGE)
    image = paint(existing, np.random.default_rng(5))
    return [Canvas(image, existing, new, Provenance("window", "labelled", 20, 25), (20, 25)) for new in NEW]


CANVASES = {
    "blank": blank,
    "window": lambda: windows(Provenance("window", "scene", 3, 4)),
    "augmented": lambda: windows(Provenance("augmented", "scene")),
    "generated": lambda: [
        replace(one, existing=empty_layout(one.new)) for one in windows(Provenance("generated", seed=7))
    ],
    "part of an image": labelled_images,
}
CASES = [
    *(("InScenePipeline", kind) for kind in ("window", "augmented", "generated", "part of an image")),
    *((name, kind) for name in ("LayoutPipeline", "LatentPipeline") for kind in ("blank", "part of an image")),
]


def check(renderer, canvases: list[Canvas]) -> None:
    """The contract of `Renderer.paint`, in labels and in pixels."""
    seeds = [11, 12]
    results = renderer.paint(canvases, seeds, SETTINGS)
    assert [id(one.canvas) for one in results] == [id(given) for given in canvases], "in order"
    for one, given in zip(results, canvases, strict=True):
        check_labels(one, given)
        check_pixels(one, given)
    for i in (0, 1):
        [alone] = renderer.paint(canvases[i : i + 1], seeds[i : i + 1], SETTINGS)
        assert difference(alone, results[i]).max() <= ROUNDING, "no image depends on its batch"
        assert np.array_equal(alone.labels.boxes, results[i].labels.boxes)
        [other] = renderer.paint(canvases[i : i + 1], [99], SETTINGS)
        assert difference(other, results[i]).max() > 5 * ROUNDING, "control: it depends on its seed"


def difference(a: Painted, b: Painted) -> np.ndarray:
    return np.abs(a.image.astype(int) - b.image).max(2)


def check_labels(one: Painted, given: Canvas) -> None:
    """The new objects come first; of those that were there, what no new one touches stays, and nothing else comes."""
    n = len(given.new)
    assert one.labels.size == given.existing.size
    assert one.numbers.tolist() == list(range(n))
    assert one.labels.names()[:n] == given.new.names()
    np.testing.assert_allclose(one.labels.boxes[:n], given.new.boxes + np.float32([*given.corner, 0, 0, 0]), atol=1e-4)
    before = {tuple(box): name for box, name in zip(given.existing.boxes, given.existing.names(), strict=True)}
    after = {tuple(box): name for box, name in zip(one.labels.boxes[n:], one.labels.names()[n:], strict=True)}
    assert after.items() <= before.items()
    touched = {tuple(np.float32(NEAR))} & before.keys()
    assert before.keys() - after.keys() == touched


def check_pixels(one: Painted, given: Canvas) -> None:
    """The image has the canvas's size; what was labelled and stays, and all beyond the window, is as it was."""
    assert one.image.dtype == np.uint8
    assert one.image.shape == given.image.shape
    assert (one.before is None) == given.provenance.generated
    if given.blank:
        return
    stay = covered(one.labels.boxes[len(given.new) :], one.image.shape)
    (left, top), (width, height) = given.corner, given.new.size
    outside = np.ones(stay.shape, bool)
    outside[top : top + height, left : left + width] = False
    assert stay.any() or not len(given.existing)
    assert np.array_equal(one.image[stay | outside], given.image[stay | outside])
    new = covered(one.labels.boxes[: len(given.new)], one.image.shape) & ~stay
    assert (one.image[new] != given.image[new]).any(), "control: something was painted"
    if one.before is not None:
        kept = stay | outside
        assert np.array_equal(one.before[kept], given.image[kept])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_renderer_keeps_the_contract_on_every_canvas_that_it_is_given(renderer_of, name, kind):
    renderer = renderer_of(name)
    check(renderer, CANVASES[kind]())


def test_every_renderer_is_tested_here():
    assert {entry.name for entry in RENDERERS} == MAKERS.keys() == {name for name, _ in CASES}


@pytest.mark.parametrize("name", MAKERS)
def test_a_renderer_says_what_the_engine_asks_of_it(renderer_of, name):
    renderer = renderer_of(name)
    assert renderer.label_effect == "keeps"
    assert renderer.paints_on in ("scene", "blank")
    assert renderer.classes == CLASSES
    assert isinstance(renderer.steps, int)
    assert renderer.steps > 0
    assert renderer.few_steps is None or renderer.few_steps == renderer.steps
    assert renderer.guidance_scale >= 0
    assert 0 <= renderer.margin < 1
    assert renderer.reference_width == 0
    assert hasattr(renderer, "remove") == (renderer.paints_on == "scene")


@pytest.mark.parametrize("kind", ["window", "generated"])
def test_what_is_removed_is_gone_from_labels_and_numbers_and_the_rest_stays(renderer_of, kind):
    renderer = renderer_of("InScenePipeline")
    one = renderer.paint(CANVASES[kind](), [11, 12], SETTINGS)[1]
    gone = np.arange(len(one.labels)) == 0
    after = renderer.remove(one, gone, 12, SETTINGS)
    assert after.numbers.tolist() == [1]
    np.testing.assert_array_equal(after.labels.boxes, one.labels.boxes[1:])
    assert after.labels.names() == one.labels.names()[1:]
    assert after.canvas is one.canvas
    rest = covered(after.labels.boxes, one.image.shape)
    assert np.array_equal(after.image[rest], one.image[rest])
    assert difference(after, one)[~rest].max() > 0, "control: something was there"
    again = renderer.remove(one, gone, 12, SETTINGS)
    assert np.array_equal(after.image, again.image)


class Faulty:
    """A renderer whose results a mutation has changed."""

    def __init__(self, renderer, fault: str):
        self.renderer, self.fault = renderer, fault

    def paint(self, canvases, seeds, settings) -> list[Painted]:
        if self.fault == "noise of the place in the batch":
            seeds = range(len(seeds))
        results = self.renderer.paint(canvases, seeds, settings)
        change = getattr(self, self.fault.replace(" ", "_"), None)
        results = [change(one) for one in results] if change else results
        return results[::-1] if self.fault == "order" else results

    def existing_objects_first(self, one: Painted) -> Painted:
        return replace(one, labels=one.labels.select(np.arange(len(one.labels))[::-1]))

    def objects_lost(self, one: Painted) -> Painted:
        return replace(one, labels=one.labels.select(np.arange(len(one.canvas.new))))

    def boxes_moved(self, one: Painted) -> Painted:
        return replace(one, labels=replace(one.labels, boxes=one.labels.boxes + np.float32([1, 0, 0, 0, 0])))

    def window_only(self, one: Painted) -> Painted:
        return replace(one, image=one.image[:-1])

    def pixels_outside(self, one: Painted) -> Painted:
        return replace(one, image=one.image ^ 1)


@pytest.mark.parametrize(
    "fault",
    ["none", "order", "existing objects first", "objects lost", "boxes moved", "window only", "pixels outside",
     "noise of the place in the batch"],
)  # fmt: skip
def test_a_renderer_that_breaks_the_contract_is_noticed(renderer_of, fault):
    faulty = Faulty(renderer_of("InScenePipeline"), fault)
    if fault == "none":
        check(faulty, labelled_images())
        return
    with pytest.raises(AssertionError):
        check(faulty, labelled_images())


@pytest.mark.parametrize("effect", ["keeps", "moves", "voids"])
def test_the_engine_takes_only_renderers_that_keep_labels(toy_recipe, monkeypatch, effect):
    monkeypatch.setattr(InScenePipeline, "label_effect", effect)
    if effect == "keeps":
        load_parts(toy_recipe)
        return
    with pytest.raises(UserError, match="does not keep boxes where they are, so its images have no labels"):
        load_parts(toy_recipe)

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dataengine import geometry
from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError
from dataengine.layouts.denoiser import from_numbers, to_numbers
from dataengine.layouts.diffusion_sampler import DiffusionSampler, load_layout_model
from dataengine.layouts.fit_score import UniformSampler, fit_score
from dataengine.layouts.sampler import EnhancedSampler, FilteredSampler, NormalFilter
from dataengine.layouts.windows import random_windows
from dataengine.train.layouts import train_layouts
from dataengine.train.loop import TrainSettings


def drawn(sampler, n: int) -> list:
    return [sampler.sample(np.random.default_rng((1, i))) for i in range(n)]


@pytest.fixture(scope="module")
def model(lots, tmp_path_factory):
    samples = [Sample(str(i), None, layout) for i, layout in enumerate(lots)]
    settings = TrainSettings(steps=400, batch_size=32, learning_rate=2e-3, warmup_steps=20, ema_decay=0.98)
    out = tmp_path_factory.mktemp("layouts")
    train_layouts(Dataset(lots[0].classes, samples, "obb"), out, settings, size=256, width=64)
    return load_layout_model(out / "model")


def test_numbers_of_a_layout_round_trip(lots):
    layout = random_windows(lots, (256, 256), np.random.default_rng(0))[0]
    boxes, labels = from_numbers(to_numbers(layout, (3.0, 0.5)), (3.0, 0.5), 256)
    assert (labels == layout.labels).all()
    assert (geometry.iou_pairs(boxes, layout.boxes) > 0.98).all()


def test_trained_layouts_are_much_nearer_to_real_ones_than_uniform_ones_are(model, lots):
    real = random_windows(lots, (256, 256), np.random.default_rng(1))
    trained = fit_score(drawn(DiffusionSampler(model, (256, 256)), 60), real).score
    uniform = fit_score(drawn(UniformSampler(tuple(model.config.classes), (256, 256), "obb"), 60), real).score
    untrained_model = type(model).from_config(model.config)
    untrained = fit_score(drawn(DiffusionSampler(untrained_model, (256, 256)), 60), real).score
    assert trained < 0.5 * uniform
    assert trained < 0.5 * untrained, "mutation: without training"


def test_the_generator_decides_the_layout(model):
    sampler = DiffusionSampler(model, (256, 256))
    one, same, other = (sampler.sample(np.random.default_rng(i)) for i in (3, 3, 4))
    assert np.array_equal(one.boxes, same.boxes)
    assert len(one) != len(other) or not np.allclose(one.boxes, other.boxes)


def test_another_size_than_the_models_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="--size 256"):
        DiffusionSampler(model, (512, 512))
    with pytest.raises(UserError, match="cannot load a layout model"):
        load_layout_model(tmp_path)


def test_the_label_filter_rejects_a_box_of_an_unseen_size(lots):
    real = NormalFilter(lots, 3.0)
    layout = lots[0]
    assert real.accepts(layout).mean() > 0.9
    wide = layout.boxes.copy()
    wide[0, 2:4] *= 4
    giant = replace(layout, boxes=wide)
    assert not real.accepts(giant)[0]
    assert (real.accepts(giant)[1:] == real.accepts(layout)[1:]).all(), "control: the other boxes"
    assert NormalFilter(lots, 1000.0).accepts(giant).all(), "mutation: with the filter wide open"


def test_filtered_layouts_all_pass_and_a_filter_that_rejects_everything_is_an_error(model, lots):
    sampler = DiffusionSampler(model, (256, 256))
    windows = random_windows(lots, (256, 256), np.random.default_rng(1))
    strict = NormalFilter(windows, 2.5)
    assert not all(strict.accepts(layout).all() for layout in drawn(sampler, 30)), "control: unfiltered ones do not"
    assert all(strict.accepts(layout).all() for layout in drawn(FilteredSampler(sampler, strict), 10))
    with pytest.raises(UserError, match="--label-filter"):
        FilteredSampler(sampler, NormalFilter(windows, 1e-6)).sample(np.random.default_rng(0))


def test_enhanced_layouts_have_the_same_objects_at_other_places_and_scales(lots):
    class Same:
        classes, kind, size = lots[0].classes, "obb", (256, 256)
        layout = random_windows(lots, (256, 256), np.random.default_rng(0), min_objects=4)[0]

        def sample(self, rng):
            return self.layout

    scales = []
    for layout in drawn(EnhancedSampler(Same(), lots), 30):
        assert set(layout.names()) <= set(Same.layout.names())
        whole = layout.visible > 0.999
        if (whole & (layout.labels == 1)).any():
            scales.append(np.median(layout.boxes[whole & (layout.labels == 1), 3]))
    assert np.ptp(scales) / np.mean(scales) > 0.2
    still = [x.boxes[x.labels == 1, 3].max() for x in drawn(EnhancedSampler(Same(), [Same.layout]), 10)]
    assert np.ptp(still) < 0.01, "control: no scale that real pictures do not have"


def test_torch_stays_deterministic(model):
    state = torch.get_rng_state()
    DiffusionSampler(model, (256, 256)).sample(np.random.default_rng(0))
    assert torch.equal(state, torch.get_rng_state()), "sampling draws from its own generator only"

"""What an image was made from stands in the manifest, so that a split can keep it on one side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from toy_scenes import random_layout

from dataengine.data import formats
from dataengine.engine.run import synth
from dataengine.layouts.reuse import ReuseSampler


def test_the_manifest_names_the_layouts_and_the_scene_of_each_image_with_the_scenes_licence(toy_recipe, tmp_path):
    names = {sample.name for sample in formats.read(toy_recipe.data)}
    records = list(synth(toy_recipe, tmp_path / "run").records)
    for record in records:
        assert record.layout_from
        assert set(record.layout_from) <= names
        assert record.provenance.name in names
        assert record.provenance.label.partition("@")[0] == record.provenance.name
        assert (record.provenance.license, record.provenance.source) == ("CC0", "Toy"), "as the preset says"
    assert len({record.layout_from for record in records}) > 1


def test_layouts_of_a_fitted_prior_come_from_no_single_image(toy_recipe, tmp_path):
    records = synth(toy_recipe.model_copy(update={"layouts": "prior", "n": 2}), tmp_path / "run").records
    assert all(record.layout_from == () for record in records)


def test_a_merged_layout_names_both_that_it_was_made_from():
    rng = np.random.default_rng(0)
    layouts = [replace(random_layout(rng), origins=(f"image {i}",)) for i in range(6)]
    sampler = ReuseSampler(layouts, (96, 96), merge=1.0)
    found = [sampler.sample(rng).origins for _ in range(30)]
    assert max(map(len, found)) == 2
    alone = ReuseSampler(layouts, (96, 96), merge=0.0)
    assert {len(alone.sample(rng).origins) for _ in range(30)} == {1}

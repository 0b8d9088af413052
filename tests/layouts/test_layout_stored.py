"""Stored layouts."""

import os

import numpy as np
import pytest
from test_layout_reuse import draws

from dataengine.data.layout import Acquisition, Layout
from dataengine.errors import UserError
from dataengine.layouts.reuse import ReuseSampler
from dataengine.layouts.stored import load_layouts, save_layouts


def test_stored_layouts_round_trip(lots, tmp_path):
    odd = Layout(
        np.zeros((0, 5)), [], lots[0].classes, (640, 512), ignored=[[5, 6, 7, 3, -np.pi / 2]],
        acquisition=Acquisition(gsd_m=0.3, night=False),
    )  # fmt: skip
    layouts = [lots[0], odd, *lots[1:]]
    save_layouts(tmp_path / "layouts.npz", layouts)
    loaded = load_layouts(tmp_path / "layouts.npz")
    assert len(loaded) == len(layouts)
    for before, after in zip(layouts, loaded, strict=True):
        np.testing.assert_allclose(after.boxes, before.boxes, atol=1 / 32 + 1e-5)
        np.testing.assert_allclose(after.boxes[:, 4], before.boxes[:, 4], atol=5e-5)
        np.testing.assert_array_equal(after.labels, before.labels)
        np.testing.assert_allclose(after.visible, before.visible, atol=1 / 510)
        np.testing.assert_allclose(after.ignored, before.ignored, atol=1 / 32)
        assert (after.size, after.classes, after.kind) == (before.size, before.classes, before.kind)
        assert after.acquisition == before.acquisition
    upright = np.concatenate([lot.boxes[lot.labels == 0, 4] for lot in loaded])
    assert (upright == np.float32(-np.pi / 2)).all()  # exactly, or they would no longer count as upright


def test_an_angle_just_below_half_pi_is_stored_as_le90(tmp_path):
    layout = Layout([[9, 9, 4, 2, np.nextafter(np.float32(np.pi / 2), np.float32(0))]], [0], ("a",), (20, 20))
    save_layouts(tmp_path / "a.npz", [layout])
    assert load_layouts(tmp_path / "a.npz")[0].boxes[0, 4] == np.float32(-np.pi / 2)


def test_two_thousand_real_layouts_are_below_a_megabyte_and_can_be_sampled(hit_uav, tmp_path):
    save_layouts(tmp_path / "hit.npz", [sample.layout for sample in hit_uav["train"]])
    assert os.path.getsize(tmp_path / "hit.npz") < 1_000_000
    assert all(len(layout) for layout in draws(ReuseSampler(load_layouts(tmp_path / "hit.npz"), (256, 256)), 20))


def test_other_files_are_refused(lots, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_layouts(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="is not a file of stored layouts"):
        load_layouts(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="is not a file of stored layouts"):
        load_layouts(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="is not a file of stored layouts"):
        load_layouts(tmp_path / "pickled.npz")
    save_layouts(tmp_path / "cut.npz", lots)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:900])
    with pytest.raises(UserError, match="is not a file of stored layouts"):
        load_layouts(tmp_path / "cut.npz")
    with pytest.raises(UserError, match="there are no layouts"):
        save_layouts(tmp_path / "empty.npz", [])
    with pytest.raises(UserError, match="could not be written"):
        save_layouts(tmp_path / "no" / "folder.npz", lots)

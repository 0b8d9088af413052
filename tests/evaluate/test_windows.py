"""Which images, and which parts of them, are compared."""

import numpy as np
import pytest
from PIL import Image
from toy_scenes import paint, random_layout

from dataengine.data import formats
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.evaluate.windows import (
    add_noise,
    common_size,
    cut_windows,
    equal_draws,
    random_halves,
    random_subset,
    random_windows,
    read_generated,
    read_real,
    remove_detail,
)
from dataengine.judge.verdict import Verdict
from dataengine.render.canvas import Provenance


def write_run(folder, kept=(True, False, True)):
    """A run of painted scenes; the last object of each was there before."""
    rng, lines = np.random.default_rng(0), []
    (folder / "shards").mkdir(parents=True)
    for i, keep in enumerate(kept):
        layout = random_layout(rng)
        Image.fromarray(paint(layout, rng)).save(folder / "shards" / f"{i}.png")
        scene, verdict = Provenance("window", "scene", 0, 0), Verdict(keep, "", [], [], [])
        asked = layout.select(np.arange(2))
        lines.append(Record(i, i, f"shards/{i}.png", "0" * 64, scene, (), 0, asked, layout, verdict).to_json())
    RunFolder(folder).manifest.write_text("".join(line + "\n" for line in lines))
    return folder


def gradient(folder, size=(100, 60), boxes=((20, 20, 10, 6, 0.0),), n=1):
    """Images whose red is the column and whose green is the row, so that a window says where it comes from."""
    folder.mkdir(exist_ok=True)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    pixels = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    samples = []
    for i in range(n):
        Image.fromarray(pixels).save(folder / f"{i}.png")
        samples.append(Sample(str(i), folder / f"{i}.png", Layout(boxes, [0] * len(boxes), ("car",), size)))
    return Dataset(("car",), samples)


def test_of_a_run_the_accepted_images_count_and_of_their_objects_the_painted_ones(tmp_path):
    run = read_generated(write_run(tmp_path / "run"))
    assert [sample.name for sample in run] == ["00000000", "00000002"]
    assert all(sample.layout.difficult.tolist() == [False, False, True] for sample in run)
    assert len(read_generated(tmp_path / "run", all_attempts=True)) == 3


def test_a_run_is_read_line_by_line_at_each_iteration(tmp_path):
    run = read_generated(write_run(tmp_path / "run"))
    assert not isinstance(run.samples, list)
    assert [sample.name for sample in run] == [sample.name for sample in run]
    manifest = RunFolder(tmp_path / "run").manifest
    manifest.write_text(manifest.read_text() + "{}\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl:4: no record"):
        list(run)


def test_random_windows_are_a_random_subset_of_all_windows(tmp_path):
    arguments = (40, 40), "window", 3, "image", 5
    dataset = gradient(tmp_path / "g", n=6)
    expected = random_subset(cut_windows(dataset, *arguments), 4, seed=5)
    chosen = random_windows(dataset, 4, *arguments)
    assert [(x.name, x.corner) for x in chosen] == [(x.name, x.corner) for x in expected]
    assert all((a.pixels() == b.pixels()).all() for a, b in zip(chosen, expected, strict=True))


def test_a_run_that_cannot_be_scored_says_why(tmp_path, toy_dataset):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UserError, match="not finished"):
        read_generated(tmp_path)
    with pytest.raises(UserError, match="--all-attempts"):
        read_generated(write_run(tmp_path / "dropped", (False, False)))
    with pytest.raises(UserError, match="manifest"):
        read_generated(toy_dataset, all_attempts=True)
    with pytest.raises(UserError, match="does not exist"):
        read_real(tmp_path / "nowhere")


def test_a_plain_folder_of_images_and_another_systems_yolo_labels_are_read(tmp_path):
    gradient(tmp_path / "plain", n=3)
    assert len(cut_windows(read_generated(tmp_path / "plain"), (50, 50), of_each=1)) == 3
    other = tmp_path / "other"
    (other / "labels").mkdir(parents=True)
    gradient(other / "images", n=2)
    for i in range(2):
        (other / "labels" / f"{i}.txt").write_text("0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4\n")
    (other / "data.yaml").write_text("names: [car]\ntrain: images\n")
    layout = read_generated(other).samples[0].layout
    assert layout.classes == ("car",)
    assert layout.boxes[0, :4] == pytest.approx([20, 18, 20, 12], abs=1e-3)


def test_windows_show_the_pixels_and_objects_of_their_place(tmp_path):
    for window in cut_windows(gradient(tmp_path / "g"), (40, 40), of_each=8):
        pixels = window.pixels()
        assert pixels.shape == (40, 40, 3)
        assert tuple(pixels[0, 0, :2]) == window.corner
        assert window.layout.size == (40, 40)
        seen = window.layout.boxes[~window.layout.difficult]
        assert len(seen) == 1
        x, y = seen[0, :2] + window.corner
        assert abs(x - 20) <= 5
        assert abs(y - 20) <= 3


def test_windows_without_an_object_are_left_out_unless_nothing_is_labelled(tmp_path):
    far = cut_windows(gradient(tmp_path / "far", (250, 60), n=5), (30, 30), of_each=4)
    assert 0 < len(far) < 20
    assert len(cut_windows(gradient(tmp_path / "none", (250, 60), (), n=5), (30, 30), of_each=4)) == 20


def test_resizing_covers_the_size_and_scales_the_boxes(tmp_path):
    (window,) = cut_windows(gradient(tmp_path / "g", boxes=((50, 30, 20, 10, 0.3),)), (30, 30), "resize")
    assert window.pixels().shape == (30, 30, 3)
    assert window.layout.boxes[0] == pytest.approx([15, 15, 10, 5, 0.3], abs=1e-4)
    assert window.pixels()[15, 15, 0] == pytest.approx(51, abs=2)


def test_smaller_images_stay_as_they_are(tmp_path):
    dataset = gradient(tmp_path / "g")
    (window,) = cut_windows(dataset, (200, 200))
    assert window.layout is dataset.samples[0].layout
    assert common_size(dataset) == (100, 60)


def test_a_broken_file_is_named(tmp_path):
    (window,) = cut_windows(gradient(tmp_path / "g"), (200, 200))
    window.file.write_bytes(window.file.read_bytes()[:60])
    with pytest.raises(UserError, match=r"0\.png.*decoded"):
        window.pixels()


def test_halves_never_divide_a_group_and_hold_everything():
    groups = [i // 3 for i in range(60)]
    seen = set()
    for seed in range(5):
        a, b = random_halves(groups, np.random.default_rng(seed))
        assert sorted([*a, *b]) == list(range(60))
        assert not {groups[i] for i in a} & {groups[i] for i in b}
        assert abs(len(a) - len(b)) <= 3
        seen.add(frozenset(a.tolist()))
    assert len(seen) == 5


def test_flights_are_groups_where_they_are_asked_for(shared_data):
    dataset = formats.read(shared_data / "hit-uav", split="val")
    by = {group: {p.group for p in cut_windows(dataset, (640, 512), group=group)} for group in ("image", "flight")}
    assert len(by["flight"]) < 0.7 * len(by["image"]) <= len(dataset)


def test_draws_are_equal_in_size_and_repeatable():
    draws = equal_draws([i // 2 for i in range(50)], 30)
    assert {len(part) for draw in draws for part in draw} == {24}
    again = equal_draws([i // 2 for i in range(50)], 30)
    assert all((a == b).all() for one, two in zip(draws, again, strict=True) for a, b in zip(one, two, strict=True))


def test_chosen_images_keep_their_order():
    some = random_subset(list(range(100)), 10, seed=3)
    assert some == sorted(some)
    assert len(set(some)) == 10
    assert random_subset(list(range(5)), 10) == list(range(5))


def test_controls_change_the_image_as_they_say():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert remove_detail(image).std() < 0.3 * image.std()
    assert remove_detail(image).mean() == pytest.approx(image.mean(), abs=2)
    copy = add_noise(image, np.random.default_rng(0)).astype(int)
    assert 0 < np.abs(copy - image).mean() < 5

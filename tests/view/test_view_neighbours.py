from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from dataengine.data import coco
from dataengine.data.layout import Dataset, Layout, Sample
from dataengine.view import neighbours as neighbours_module
from dataengine.view.app import Site
from dataengine.view.detections import LazyDetector
from dataengine.view.gallery import Gallery
from dataengine.view.neighbours import Neighbours


@pytest.fixture
def real(tmp_path, open_index):
    """Ten real images of stripes, ever narrower."""
    samples = []
    for k in range(10):
        column = 127 + 100 * np.sin(np.arange(160) * (0.05 + 0.08 * k))
        pixels = np.repeat(np.repeat(column[None, :, None], 120, 0), 3, 2).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        samples.append(Sample(f"{k}", tmp_path / f"{k}.png", Layout([[50, 50, 20, 10, 0]], [0], ("car",), (160, 120))))
    coco.write(Dataset(("car",), samples), tmp_path / "real")
    return open_index(tmp_path / "real")


def test_the_nearest_real_image_to_a_copy_is_the_one_that_was_copied(real):
    search = Neighbours(real, (96, 96))
    search.wait()
    assert search.error == ""
    assert search.done == len(search.windows) > 0
    noise = np.random.default_rng(0).normal(0, 3, (96, 96, 3))
    for k in (0, 7, len(search.windows) - 1):
        copy = np.clip(search.windows[k].pixels() + noise, 0, 255).astype(np.uint8)
        found = search.nearest(copy, 3)
        assert search.image_of[found[0][1]] == search.image_of[k]
        assert [distance for distance, _ in found] == sorted(distance for distance, _ in found)
        assert len({search.image_of[window] for _, window in found}) == 3, "one of each real image"
        unlike = search.nearest(255 - np.rot90(copy).copy(), 1)
        assert unlike[0][0] > 2 * found[0][0], "control: what is no copy is far from all"


def test_embeddings_are_made_once(real, monkeypatch):
    first = Neighbours(real, (96, 96))
    first.wait()
    second = Neighbours(real, (96, 96))
    monkeypatch.setattr(Neighbours, "_embed", lambda *_: pytest.fail("embedded again"))
    second.wait()
    assert second.error == ""
    np.testing.assert_array_equal(first._embeddings, second._embeddings)


def test_a_failure_is_reported_at_once(real, monkeypatch):
    def broken(*_):
        raise neighbours_module.UserError("the encoder is not here.")

    monkeypatch.setattr(Neighbours, "_embed", broken)
    search = Neighbours(real, (96, 96))
    search.wait()
    assert search.error == "the encoder is not here."


def test_the_page_is_given_neighbours_with_their_windows(real, make_run, open_index, client):
    made = open_index(make_run(3))
    page = client(Site(made=Gallery(made), real=Gallery(real), neighbours=Neighbours(real, (96, 96))))
    for _ in range(3000):
        found = page.get("/api/made/pictures/1/neighbours").json()
        if found["total"] and found["done"] == found["total"]:
            break
        time.sleep(0.02)
    assert found["nearest"]
    first = found["nearest"][0]
    assert first["name"] == real.names[first["picture"]]
    assert page.get(f"/image/window/{first['window']}").headers["content-type"] == "image/png"


def test_detections_are_what_the_detector_sees_and_which_label_each_matches(toy_detector, toy_dataset, open_index):
    from dataengine.judge.detector import load_detector
    from dataengine.judge.verdict import match

    index = open_index(toy_dataset)
    gallery, lazy = Gallery(index), LazyDetector(toy_detector)
    some = 0
    for i, sample in enumerate(coco.read(toy_dataset)):
        found = lazy.detect(gallery.file(i), index.entry(i).labels)
        detector = load_detector(toy_detector, threads=1)
        [expected] = detector.detect([np.asarray(Image.open(sample.image).convert("RGB"))])
        assert [row["score"] for row in found["detections"]] == pytest.approx(expected.scores.tolist(), abs=1e-4)
        of = match(expected, sample.layout, detector.classes).detections
        assert {row["object"]: j for j, row in enumerate(found["detections"]) if row["object"] is not None} == {
            k: j for k, j in enumerate(of) if j >= 0
        }
        some += len(found["detections"])
        if i == 5:
            break
    assert some, "the toy detector should see something, or this test shows nothing"

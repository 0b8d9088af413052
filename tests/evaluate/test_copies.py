"""Parts copied from training images are found however they were cut, turned or lit; new images raise no alarm."""

import cv2
import numpy as np
import pytest
from toy_scenes import ground

from dataengine.evaluate import copies
from dataengine.evaluate.copies import CopyFinder, copied_parts, planted_copy, undetected

TRAINING = [ground(seed) for seed in range(12)]
HELD_OUT = [ground(100 + seed)[:128, :128] for seed in range(30)]
CHANGES = {
    "another window": lambda x: x[90:218, 150:278],
    "mirrored": lambda x: x[90:218, 150:278][:, ::-1],
    "turned by 90": lambda x: np.rot90(x[90:218, 150:278]),
    "turned by 37": lambda x: turned(x, 37),
    "half its size": lambda x: cv2.resize(x[:256, :256], (128, 128), interpolation=cv2.INTER_AREA),
    "darker": lambda x: (x[90:218, 150:278] * 0.4).astype(np.uint8),
    "half of it": lambda x: np.concatenate([x[60:252, 100:196], ground(999)[:192, :96]], 1),
}


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((160, 160), degrees, 1)
    return cv2.warpAffine(image, matrix, (320, 320))[96:224, 96:224]


@pytest.fixture(scope="module")
def finder() -> CopyFinder:
    return CopyFinder(TRAINING)


@pytest.fixture(scope="module")
def planted(finder):
    rng = np.random.default_rng(0)
    return finder.find_all(planted_copy(image, 128, rng) for image in TRAINING)


@pytest.mark.parametrize("name", CHANGES)
def test_a_copied_part_and_its_source_are_found(finder, planted, name):
    made = [np.ascontiguousarray(CHANGES[name](image)) for image in TRAINING]
    found = finder.find_all(made)
    assert (found.sources == np.arange(12)).mean() > 0.9
    result, copied = copied_parts(found, finder.find_all(HELD_OUT), planted)
    assert copied.mean() > 0.9
    assert result.value("real, held out", "copied") <= 0.1
    assert undetected(result) == ""


def test_new_images_are_no_copies(finder, planted):
    result, copied = copied_parts(
        finder.find_all(ground(200 + i)[:128, :128] for i in range(20)), finder.find_all(HELD_OUT), planted
    )
    assert not copied.any()
    assert result.failed_controls() == []


def test_a_search_that_finds_no_planted_copies_says_so(finder):
    """Mutation: planted copies of other images, of which nothing can be found."""
    blind = finder.find_all(ground(300 + i)[:128, :128] for i in range(12))
    result, _ = copied_parts(blind, finder.find_all(HELD_OUT), blind)
    assert "only 0% of planted copies" in undetected(result)
    assert result.failed_controls()


def test_matches_must_agree_on_one_transform(finder, planted, monkeypatch):
    """Mutation: without the mirror image a mirrored copy is missed, and without RANSAC's agreement tiles in another
    order would count."""
    tiles = [np.concatenate([np.concatenate([x[i : i + 32, j : j + 32] for j in (256, 64, 160, 0)], 1)
                             for i in (128, 288, 32, 224)]) for x in TRAINING]  # fmt: skip
    whole = [x[64:192, 64:192] for x in TRAINING]
    shuffled, copied = finder.find_all(tiles), finder.find_all(whole)
    assert np.median(shuffled.shares) < 0.3 * np.median(copied.shares)
    monkeypatch.setattr(CopyFinder, "find", lambda self, image: self._best(image))
    mirrored = finder.find_all(np.ascontiguousarray(x[64:192, 64:192][:, ::-1]) for x in TRAINING)
    assert np.median(mirrored.shares) < copies.MIN_SHARE


@pytest.mark.parametrize("image", [np.zeros((96, 96, 3), np.uint8), np.full((96, 96, 3), 255, np.uint8)])
def test_images_without_detail_match_nothing(finder, image):
    assert finder.find(image)[0] == 0
    assert CopyFinder([image]).find(TRAINING[0])[0] == 0
    assert CopyFinder([]).find(TRAINING[0]) == (0.0, -1)
    assert CopyFinder([image, TRAINING[0]]).find(TRAINING[0])[1] == 1, "numbers count images without detail, too"

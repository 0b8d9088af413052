"""What becomes of painted objects that the filter's detector does not find, and of a scene's own."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.engine import attempt, finish
from dataengine.engine.finish import Tally
from dataengine.engine.parts import load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.run import synth
from dataengine.judge.calibration import Calibration
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import match
from dataengine.render.canvas import Canvas, Painted, Provenance
from dataengine.render.frame import FrameSpec
from dataengine.render.in_scene_pipeline import InScenePipeline
from dataengine.render.placement import empty_layout
from dataengine.render.renderer import PaintSettings
from dataengine.seeds import image_seed

CAR, VAN, OWN = [40, 40, 24, 12, 0.3], [110, 60, 24, 12, -0.4], [60, 120, 24, 12, 0]
CLASSES, SIZE = ("car", "van"), (160, 160)
LEFT_ALONE = Layout([CAR, VAN, OWN], [0, 1, 0], CLASSES, SIZE)


class BrightEnough:
    """Sees an object where the picture is brighter than `level` in the middle of one of its boxes."""

    classes = CLASSES

    def __init__(self, boxes: list, labels: list, level: int = 150):
        self.boxes, self.labels, self.level = np.float32(boxes), np.array(labels), level

    def detect(self, images):
        found = []
        for image in images:
            x, y = self.boxes[:, 0].astype(int), self.boxes[:, 1].astype(int)
            seen = image[y, x, 0] > self.level
            found.append(Detections(self.boxes[seen], np.full(seen.sum(), 0.9, np.float32), self.labels[seen]))
        return found


def rule(**changes) -> Calibration:
    each = dict.fromkeys(CLASSES, 0.5)
    settings = {
        "detector": "x", "dataset": "toy", "images": 20, "objects": {"car": 9, "van": 9}, "pass_share": 0.95,
        "shuffled_pass_share": 0.0, "smudged_pass_share": 0.0, "thresholds": each, "missed_share": 0.5,
        "extra_scores": each, "extra_objects": 0, "extra_share": 0.0, "repair_scores": each, "repair_ious": each,
    }  # fmt: skip
    return Calibration(**(settings | changes))


def rendered(levels: dict[int, int]) -> Painted:
    """A picture of grey 100 with the first two objects painted and the third its own; object k at levels[k]."""
    bare = blotted(np.full((*SIZE[::-1], 3), 100, np.uint8), OWN, levels[2])
    image = blotted(blotted(bare, CAR, levels[0]), VAN, levels[1])
    return painted(image, LEFT_ALONE, 2, bare)


def painted(image: np.ndarray, labels: Layout, n: int, before: np.ndarray) -> Painted:
    """The first n labels are new objects, the rest those that the scene `before` holds."""
    numbers = np.arange(len(labels))
    scene = Canvas(before, labels.select(numbers >= n), labels.select(numbers < n), Provenance("window", "scene"))
    return Painted(image, labels, scene, before)


def blotted(image: np.ndarray, box: list[float], level: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    return np.where(np.hypot(x - box[0], y - box[1])[..., None] < 8, np.uint8(level), image)


def judged(one: Painted, mode: str, detector: BrightEnough, calibration: Calibration | None = None):
    """(the image that comes out, verdict)."""
    renderer = SimpleNamespace(unet=SimpleNamespace(spec=FrameSpec()))
    renderer.remove = partial(InScenePipeline.remove, renderer)
    parts = SimpleNamespace(
        detector=detector, calibration=calibration or rule(), semantic=None, renderer=renderer,
        paint_settings=lambda recipe: PaintSettings(),
    )  # fmt: skip
    return attempt.judged(parts, Recipe(dataset="hit-uav", filter=mode), one, seed=0)


def judged_all(parts, recipe: Recipe, pictures: list[Painted]):
    """[(the image that comes out, verdict)] of the first images of a run."""
    return [attempt.judged(parts, recipe, of, image_seed(recipe.seed, i)) for i, of in enumerate(pictures)]


SEES_ALL = BrightEnough(LEFT_ALONE.boxes, LEFT_ALONE.labels)


def test_an_object_that_is_not_found_is_taken_out_of_picture_and_labels():
    one = rendered({0: 200, 1: 120, 2: 200})
    made, verdict = judged(one, "erase", SEES_ALL)
    assert verdict.kept
    np.testing.assert_array_equal(made.labels.boxes, LEFT_ALONE.boxes[[0, 2]])
    assert not made.labels.difficult.any()
    assert (made.image[52:68, 102:118] == 100).all(), "the ground that was there before is back"
    assert (made.image[30:50, 25:55] == one.image[30:50, 25:55]).all(), "and the other object is as it was"
    [erased] = verdict.repairs
    assert (erased.action, erased.index, erased.after) == ("erased", 1, None)
    assert verdict.missed == []
    control, _ = judged(one, "difficult", SEES_ALL)
    assert len(control.labels) == 3
    assert control.labels.difficult.tolist() == [False, True, False]
    assert (control.image == one.image).all()


def test_a_picture_of_which_only_objects_are_left_that_are_not_judged_is_dropped():
    """The car is of a size without a threshold, which counts as found; the van is judged."""
    lenient = rule(thresholds={"car": 0.0, "van": 0.5})
    one = rendered({0: 120, 1: 120, 2: 200})
    made, verdict = judged(one, "erase", SEES_ALL, lenient)
    assert (verdict.kept, verdict.reason) == (False, "only objects left of sizes that are not judged")
    assert made.image is one.image
    _, found = judged(rendered({0: 120, 1: 200, 2: 200}), "erase", SEES_ALL, lenient)
    assert found.kept, "control: the van is there"
    _, both = judged(rendered({0: 200, 1: 120, 2: 200}), "erase", SEES_ALL)
    assert both.kept, "control: the car that is left is judged"


def test_a_picture_that_shows_all_its_objects_stays_as_it_is():
    one = rendered({0: 200, 1: 200, 2: 200})
    made, verdict = judged(one, "erase", SEES_ALL)
    assert verdict.kept
    assert verdict.repairs == []
    assert made.image is one.image
    assert len(made.labels) == 3


def test_of_a_picture_in_which_nothing_is_found_nothing_is_kept():
    one = rendered({0: 120, 1: 120, 2: 200})
    made, verdict = judged(one, "erase", SEES_ALL)
    assert (verdict.kept, verdict.reason) == (False, "2 of 2 objects not found")
    assert made.image is one.image, "dropped pictures show what was wrong with them"
    assert len(made.labels) == 3


def test_a_picture_that_shows_something_else_is_dropped_as_it_was():
    detector = BrightEnough([*LEFT_ALONE.boxes, [20, 140, 24, 12, 0]], [0, 1, 0, 0], level=90)
    detector.boxes[1, :2] = 200 - 50, 20  # the van is seen nowhere near its place
    one = rendered({0: 200, 1: 120, 2: 200})
    made, verdict = judged(one, "erase", detector)
    assert not verdict.kept
    assert "not asked for" in verdict.reason
    assert verdict.repairs == []
    assert made.image is one.image


def test_what_was_only_seen_for_anothers_sake_goes_too():
    class Pairs(BrightEnough):
        def detect(self, images):
            [found] = super().detect(images)
            van = images[0][60, 110, 0] > 110  # the car is seen only while the van's blot is there
            seen = (found.boxes[:, 0] != CAR[0]) | van
            return [Detections(found.boxes[seen], found.scores[seen], found.labels[seen])]

    layout = Layout([CAR, VAN, [60, 100, 24, 12, 0], OWN], [0, 1, 0, 0], CLASSES, SIZE)
    one = rendered({0: 200, 1: 120, 2: 200})
    image = one.image.copy()
    image[95:105, 55:65] = 200
    one = painted(image, layout, 3, one.before)
    made, verdict = judged(one, "erase", Pairs(layout.boxes, layout.labels))
    assert verdict.kept
    np.testing.assert_array_equal(made.labels.boxes, layout.boxes[[2, 3]])
    assert [repair.index for repair in verdict.repairs] == [1, 0]
    assert (made.image[:75] == 100).all()


@pytest.mark.parametrize("mode", ["drop", "difficult", "repair", "erase"])
def test_a_scenes_own_object_keeps_its_label_whether_it_is_found_or_not(mode):
    """Its label was true before anything was painted; a rule that asked for it would drop what is hard to see."""
    one = rendered({0: 200, 1: 200, 2: 110})
    strict = rule(missed_share=0.0)
    made, verdict = judged(one, mode, SEES_ALL, strict)
    assert verdict.kept
    assert len(made.labels) == 3
    assert not made.labels.difficult.any()
    _, control = judged(rendered({0: 110, 1: 110, 2: 200}), mode, SEES_ALL, strict)
    assert not control.kept


def test_only_a_renderer_that_paints_into_scenes_can_take_something_out():
    assert Recipe(dataset="hit-uav").filter == "erase"
    assert Recipe(dataset="hit-uav", renderer="whole").filter == "difficult"
    with pytest.raises(ValueError, match="erase works only with renderer: in-scene"):
        Recipe(dataset="hit-uav", renderer="whole", filter="erase")


class Plain:
    """Scenes of grey ground that nothing was drawn in."""

    def draw(self, layouts, seeds):
        ground = [np.full((*x.size[::-1], 3), 110, np.uint8) for x in layouts]
        plain = Provenance("window", "plain")
        return [Canvas(image, empty_layout(x), x, plain) for image, x in zip(ground, layouts, strict=True)]


@pytest.fixture(scope="module")
def packaged():
    """Twelve pictures of the packaged renderer; judged more sternly than usual, so that some objects are not found."""
    recipe = Recipe(dataset="hit-uav", n=12)
    parts = load_parts(recipe)
    stern = dict.fromkeys(parts.calibration.thresholds, 0.6)
    parts.calibration = parts.calibration.model_copy(update={"thresholds": stern, "extra_objects": 100})
    return recipe, parts


def test_painted_pixels_of_what_is_taken_out_are_all_gone_and_no_others(packaged):
    recipe, parts = packaged
    parts = replace(parts, canvases=Plain())
    pictures = attempt.paint(parts, recipe, range(12))
    made = judged_all(parts, recipe, pictures)
    erased = [(*one, of) for one, of in zip(made, pictures, strict=True) if one[1].kept and one[1].repairs]
    assert len(erased) >= 3, "else this shows nothing"
    for one, verdict, of in erased:
        before = np.abs(of.image.astype(int) - of.before).max(2) > 0
        after = np.abs(one.image.astype(int) - of.before).max(2) > 0
        still = near(one.labels.boxes, before.shape)
        gone = near(np.array([repair.before for repair in verdict.repairs]), before.shape)
        assert not (after & ~still).any(), "nothing painted is left but near objects that stay"
        assert (before & gone & ~still).any() or (gone & still).any(), "control: something was painted there"
        apart = still & ~gone
        assert (one.image[apart] == of.image[apart]).all()
        detections = parts.detector.detect([one.image])[0]
        scores = match(detections, one.labels, parts.detector.classes).scores
        assert parts.calibration.found(one.labels, scores).all(), "what is left is found in what is left"


def test_in_a_generated_scene_ground_is_painted_where_something_is_taken_out(packaged):
    """What was there before is a rough form of the object, which must not come back without its label."""
    recipe, parts = packaged
    pictures = attempt.paint(parts, recipe, range(12))
    assert all(of.before is None for of in pictures)
    made = judged_all(parts, recipe, pictures)
    changed = 0
    for i, ((one, verdict), of) in enumerate(zip(made, pictures, strict=True)):
        if not verdict.repairs:
            assert (one.image == of.image).all()
            continue
        gone = near(np.array([repair.before for repair in verdict.repairs]), one.image.shape[:2])
        different = (one.image != of.image).any(2)
        assert not (different & ~gone).any()
        changed += different.any()
        again, _ = attempt.judged(parts, recipe, of, image_seed(recipe.seed, i))
        assert (again.image == one.image).all()
    assert changed >= 3, "else this shows nothing"


def near(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bool (H, W): within reach of what a frame of the boxes may paint."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    reached = np.zeros(shape, bool)
    for cx, cy, w, *_ in boxes:
        reached |= np.hypot(x - cx, y - cy) < 0.71 * max(1.3 * w + 8, 28)
    return reached


def test_the_sheet_of_dropped_pictures_shows_what_was_not_found(toy_recipe, tmp_path, monkeypatch):
    """As doubtful objects, whose boxes are dashed."""
    drawn = []
    monkeypatch.setattr(finish, "draw", lambda image, layout, *_: drawn.append(layout) or image.convert("RGB"))
    recipe = toy_recipe.model_copy(update={"filter": "erase", "n": 6, "max_attempts": 200})
    result = synth(recipe, tmp_path / "run")
    records = [record for kept in (True, False) for record in result.records if record.accepted == kept]
    assert len(drawn) == len(records) <= 2 * finish.ON_SHEET, "all are on the two sheets, kept ones first"
    for layout, record in zip(drawn, records, strict=True):
        not_found = record.verdict.reason.endswith("objects not found")
        assert layout.difficult.tolist() == [not_found and k < record.n_painted for k in range(len(layout))]
    assert any(record.verdict.reason.endswith("objects not found") for record in records)


def test_a_run_counts_what_it_took_out(toy_recipe, tmp_path):
    recipe = toy_recipe.model_copy(update={"filter": "erase", "n": 3, "max_attempts": 200})
    result = synth(recipe, tmp_path / "run")
    records = list(result.records)
    tally = Tally(load_parts(recipe).calibration, CLASSES)
    for record in records:
        tally.add(record)
        labels, asked = record.labels, record.asked
        assert len(labels) >= record.n_painted
        out = [repair.index for repair in record.verdict.repairs]
        left = np.delete(np.arange(len(asked)), out)
        np.testing.assert_allclose(labels.boxes[: record.n_painted], asked.boxes[left], atol=2e-3)
    table = {row.name: row for row in tally.class_table()}
    assert sum(row.erased for row in table.values()) == sum(len(r.verdict.repairs) for r in records) > 0
    assert sum(row.asked for row in table.values()) == sum(len(r.asked) for r in records)
    report = json.loads((result.out / "report.json").read_text())
    assert [row["erased"] for row in report["classes"]] == [table[name].erased for name in CLASSES]
    assert image_seed(recipe.seed, 0) == records[0].seed

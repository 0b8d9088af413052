import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from toy_detector import unpainted

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.judge.calibrate import calibrate, extra_share, score_at_precision
from dataengine.judge.calibration import Calibration, crowded
from dataengine.judge.detector import Detections
from dataengine.judge.verdict import judge


@pytest.mark.parametrize("share", [0.95, 0.8])
def test_stated_share_of_real_images_passes_and_shuffled_ones_do_not(oracle, share):
    detector, images, layouts = oracle(200)
    calibration = calibrate(detector, images, layouts, "squares", pass_share=share)
    assert share <= calibration.pass_share
    assert calibration.shuffled_pass_share < 0.02
    assert calibration.images == 200


def test_share_holds_on_images_it_was_not_calibrated_on(oracle):
    calibration = calibrate(*oracle(300), "squares")
    detector, images, layouts = oracle(300, seed=1)
    seen = [detector.detect([image()])[0] for image in images]

    def kept_share(truths) -> float:
        pairs = zip(seen, truths, strict=True)
        return np.mean([judge(found, truth, detector.classes, calibration)[1].kept for found, truth in pairs])

    assert kept_share(layouts) > 0.9
    assert kept_share([*layouts[1:], layouts[0]]) < 0.02


def test_published_share_is_what_the_judge_lets_pass(oracle):
    detector, images, layouts = oracle(100, recall=0.85, false_alarms=1.0)
    calibration = calibrate(detector, images, layouts, "squares", 0.9)
    verdicts = [
        judge(detector.detect([image()])[0], layout, detector.classes, calibration, "drop")[1]
        for image, layout in zip(images, layouts, strict=True)
    ]
    assert np.mean([verdict.kept for verdict in verdicts]) == calibration.pass_share


def test_a_worse_detector_gets_a_more_lenient_rule(oracle):
    good = calibrate(*oracle(200, recall=1.0, false_alarms=0), "squares")
    bad = calibrate(*oracle(200, recall=0.92, false_alarms=2), "squares")
    assert good.missed_share < bad.missed_share
    assert good.shuffled_pass_share <= bad.shuffled_pass_share


def test_an_image_without_detections_is_dropped_however_lenient_the_rule(oracle):
    rule = calibrate(*oracle(200, recall=0.92, false_alarms=2), "squares")
    assert rule.missed_share > 0
    assert all(rule.failure(n, missed=n, extra=0) for n in range(1, 40))
    assert not rule.failure(10, missed=0, extra=0)


def test_extra_detections_are_allowed_in_proportion_to_the_objects():
    objects, extra = np.full(100, 10), np.tile([0, 1, 2, 1], 25)
    extra[:5] = 500  # pictures that are not to pass say nothing
    share = extra_share(objects, extra, 0.95)
    assert share == pytest.approx(0.1, abs=0.006)
    assert extra_share(objects, 0 * extra, 0.95) == 0


def test_the_rule_for_extra_detections_follows_the_number_of_objects(oracle):
    """false_alarms: in every image, so that the calibrated share is above 0."""
    rule = calibrate(*oracle(200, recall=1.0, false_alarms=2), "squares")
    clean = calibrate(*oracle(200, recall=1.0, false_alarms=0), "squares")
    assert rule.extra_share > 0
    assert clean.extra_share == 0
    allowed = rule.extra_objects + int(rule.extra_share * 100)
    assert not rule.failure(100, 0, allowed)
    assert rule.failure(100, 0, allowed + 1)
    assert rule.failure(2, 0, allowed)


@pytest.mark.parametrize("false_alarms", [0, 30])
def test_detector_that_finds_no_object_is_refused(oracle, false_alarms):
    with pytest.raises(UserError, match=r"too weak on this imagery \(found: \d of \d+ .*--steps.*--pass-share"):
        calibrate(*oracle(50, recall=0.0, false_alarms=false_alarms), "squares")


def test_the_detector_sees_each_image_sharp_and_with_painted_and_blurred_objects(oracle):
    detector, images, layouts = oracle(40)
    calibrate(detector, images, layouts, "squares")
    assert detector.asked == [k for k in range(40) for _ in range(3)]


def test_a_detector_that_finds_noise_chequers_and_blobs_in_place_of_objects_is_refused(oracle):
    """Control: one that does not is calibrated, and says how many it finds."""
    assert calibrate(*oracle(60), "squares").control_found_share < 0.1
    with pytest.raises(UserError, match=r"do not tell objects from what is none.*of noise.*--detector.*--filter off"):
        calibrate(*oracle(60, knows_controls=False), "squares")


def test_a_detector_that_cannot_tell_classes_is_refused_with_the_classes_named(oracle):
    """It gives each object both names. Control: the same detector with the names that it is sure of."""
    detector, images, layouts = oracle(60)
    own = detector.detect

    def both(images):
        [found] = own(images)
        other = np.where(found.labels < 2, 1 - found.labels, found.labels)
        arrays = (np.concatenate([a, b]) for a, b in zip((found.boxes, found.scores, found.labels),
                                                         (found.boxes, found.scores, other), strict=True))  # fmt: skip
        return [Detections(*arrays)]

    calibrate(detector, images, layouts, "squares")
    detector.detect = both
    with pytest.raises(UserError, match="other objects that are named ship"):
        calibrate(detector, images, layouts, "squares")


def test_thresholds_next_to_zero_are_a_warning_with_their_cause(oracle):
    rule = calibrate(*oracle(60), "squares")
    near_zero = {"thresholds": {"car": [(0.0, 0.0), (12.0, 0.02), (30.0, 0.4)], "ship": 0.3}}
    for found in (None, 0.3):  # as in calibrations of earlier versions, or measured
        weak = rule.model_copy(update=near_zero | {"control_found_share": found})
        assert weak.weak_classes() == {"car": 0.02}
        assert "car (from 0.02)" in weak.warning()
        assert "trained on other images" in weak.warning()
    many = rule.model_copy(update={"thresholds": {"car": 0.3}, "control_found_share": 0.4})
    assert "40 % of noise" in many.warning().replace("40%", "40 %")
    told_apart = rule.model_copy(update=near_zero | {"control_found_share": 0.0})
    assert told_apart.warning() == "", "control: what is no object has no score at all"
    judged = {"thresholds": {"car": [(0.0, 0.0), (12.0, 0.4)]}, "control_found_share": None}
    unjudged = rule.model_copy(update=judged)
    assert unjudged.warning() == "", "control: sizes that are not judged have no threshold"


def test_a_calibration_of_an_earlier_version_keeps_its_hash(oracle):
    """It does not say how many painted controls are found."""
    rule = calibrate(*oracle(60), "squares").model_copy(update={"control_found_share": None})
    assert "control" not in rule.to_json()
    assert Calibration.model_validate_json(rule.to_json()) == rule


def test_a_rare_class_uses_the_threshold_of_all_classes(oracle):
    detector, images, layouts = oracle(200)
    calibration = calibrate(detector, images, layouts, "squares")
    assert 0 < calibration.objects["rare"] < 20
    assert calibration.thresholds["car"] != calibration.thresholds["rare"]
    scores = np.concatenate([score_of(detector, layout, k) for k, layout in enumerate(layouts)])
    (_, rare), (_, car) = calibration.thresholds["rare"][-1], calibration.thresholds["car"][-1]
    below = np.mean(scores < rare)
    cars = np.concatenate([score_of(detector, layout, k, 0) for k, layout in enumerate(layouts)])
    assert below == pytest.approx(np.mean(cars < car), abs=0.02)


@dataclass
class Weak:
    """Detects all objects exactly, but only a part of the `hard` ones and with low scores."""

    layouts: list[Layout]
    share: float
    hard: Callable[[Layout], np.ndarray]
    classes: tuple[str, ...] = ("car",)
    identity: str = "weak"

    def detect(self, images):
        return [self._detect(int(image[0, 0, 0]), image) for image in images]

    def _detect(self, k: int, image: np.ndarray) -> Detections:
        rng, boxes, hard = np.random.default_rng(k), self.layouts[k].boxes, self.hard(self.layouts[k])
        seen = (~hard | (rng.random(len(boxes)) < self.share)) & unpainted(image, self.layouts[k])
        scores = np.where(hard, 0.2, 0.9) + rng.uniform(-0.05, 0.05, len(boxes))
        order = np.argsort(-scores[seen])
        return Detections(boxes[seen][order], scores[seen][order].astype(np.float32), np.zeros(seen.sum(), np.int64))


@pytest.mark.parametrize(("share", "judged"), [(0.95, True), (0.5, False)])
def test_small_objects_have_the_threshold_of_real_objects_of_their_size(share, judged):
    """Twice as many small squares as large ones, of which most or half are detected; half is too few to judge them."""
    rng = np.random.default_rng(0)

    def layout() -> Layout:
        cells, side = rng.permutation(16)[:6], np.array([12, 12, 12, 12, 40, 40])
        return Layout(np.column_stack([cells % 4 * 50 + 25, cells // 4 * 50 + 25, side, side, 0 * side]),
                      [0] * 6, ("car",), (200, 200))  # fmt: skip

    layouts = [layout() for _ in range(60)]
    images = [lambda k=k: np.full((200, 200, 3), k, np.uint8) for k in range(60)]
    rule = calibrate(Weak(layouts, share, hard=lambda layout: layout.boxes[:, 2] < 20), images, layouts, "squares", 0.7)
    boxes = [[50, 50, side, side, 0] for side in (12, 12, 40, 40)]
    asked = Layout(boxes, [0] * 4, ("CAR",), (200, 200))
    assert rule.found(asked, np.float32([0.25, 0.0, 0.95, 0.25])).tolist() == [True, not judged, True, False]
    tiny = Layout([[50, 50, 6, 6, 0]], [0], ("car",), (200, 200))
    assert rule.found(tiny, np.float32([0.0])), "no real one is so small: who knows what the detector says of it"
    same = Calibration.model_validate_json(rule.model_dump_json())
    assert same == rule
    every = rule.model_copy(update={"thresholds": {"car": rule.thresholds["car"][-1][1]}})
    assert not every.found(asked, np.float32([0.25, 0.0, 0.95, 0.25]))[:2].any(), "control: one threshold for all"


@pytest.mark.parametrize(("share", "judged"), [(0.95, True), (0.5, False)])
def test_touching_objects_have_the_threshold_of_real_touching_objects(share, judged):
    """Most or half of the adjacent pairs are detected; half is too few to judge them. Control: no crowded group."""
    rng = np.random.default_rng(0)

    def layout() -> Layout:
        x, y = np.divmod(rng.permutation(16)[[0, 0, 1, 2]], 4) * np.array([[50], [50]]) + 15
        side = np.full(4, 20)
        return Layout(
            np.column_stack([x + np.array([0, 18, 0, 0]), y, side, side, 0 * side]), [0] * 4, ("car",), (200, 200)
        )

    layouts = [layout() for _ in range(60)]
    images = [lambda k=k: np.full((200, 200, 3), k, np.uint8) for k in range(60)]
    rule = calibrate(Weak(layouts, share, hard=crowded), images, layouts, "pairs", 0.7)
    asked, scores = replace(layout(), classes=("CAR",)), np.float32([0.25, 0.0, 0.95, 0.25])
    assert rule.found(asked, scores).tolist() == [True, not judged, True, False]
    assert Calibration.model_validate_json(rule.model_dump_json()) == rule
    every = rule.model_copy(update={"crowded_thresholds": {}})
    assert every.found(asked, scores).tolist() == [False, False, True, False]


def test_few_touching_objects_get_no_threshold_of_their_own(oracle):
    detector, images, layouts = oracle(60)
    assert not np.concatenate([crowded(layout) for layout in layouts]).any()
    assert calibrate(detector, images, layouts, "squares").crowded_thresholds == {}


def score_of(detector, layout, k, label=None):
    """Recall scores by the true place: objects stand 25 pixels apart, so the nearest detection is the object's own."""
    found = detector.detect([np.full((1, 1, 3), [k // 256, k % 256, 0], np.uint8)])[0]
    scores = []
    for box, own in zip(layout.boxes, layout.labels, strict=True):
        near = (np.hypot(*(found.boxes[:, :2] - box[:2]).T) < 8) & (found.labels == own)
        if label is None or own == label:
            scores.append(found.scores[near].max() if near.any() else 0)
    return scores


def test_difficult_objects_are_not_counted(oracle):
    detector, images, layouts = oracle(60, recall=1.0, false_alarms=0)
    ghosts = [
        replace(
            layout,
            boxes=np.concatenate([layout.boxes, [[190, 190, 10, 6, 0]]]),
            labels=np.append(layout.labels, 0),
            difficult=np.append(layout.difficult, True),
            visible=np.append(layout.visible, 1),
        )
        for layout in layouts
    ]
    marked = calibrate(detector, images, ghosts, "squares", pass_share=1.0)
    assert marked.missed_share == 0
    unmarked = [replace(layout, difficult=np.zeros(len(layout), bool)) for layout in ghosts]
    assert calibrate(detector, images, unmarked, "squares", pass_share=0.9).missed_share > 0


def test_too_few_images_and_unknown_classes_are_refused(oracle):
    detector, images, layouts = oracle(30)
    with pytest.raises(UserError, match=r"12 images with objects \(car, ship, rare\) are too few"):
        calibrate(detector, images[:12], layouts[:12], "squares")
    detector.classes = ("ship", "rare")
    with pytest.raises(UserError, match="does not know car"):
        calibrate(detector, images, layouts, "squares")


def test_a_calibration_round_trips_and_belongs_to_its_detector(oracle, tmp_path):
    detector, images, layouts = oracle(60)
    calibration = calibrate(detector, images, layouts, "squares")
    path = tmp_path / "calibration.json"
    calibration.save(path)
    again = Calibration.load(path)
    assert again == calibration
    assert again.judged_objects == calibration.judged_objects != {}
    again.check(detector)
    detector.identity = "another"
    with pytest.raises(UserError, match="calibrate it again"):
        again.check(detector)


def test_damaged_calibration_names_the_field(oracle, tmp_path):
    path = tmp_path / "calibration.json"
    calibrate(*oracle(60), "squares").save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"missed_share": "many"}))
    with pytest.raises(UserError, match="missed_share"):
        Calibration.load(path)
    with pytest.raises(UserError, match="no such calibration"):
        Calibration.load(tmp_path / "absent.json")


def test_a_class_that_the_detector_hardly_finds_is_reported_with_the_others_to_keep(oracle):
    detector, images, layouts = oracle(80, recall=1.0, false_alarms=0)
    assert calibrate(detector, images, layouts, "squares").warning() == "", "control"

    @dataclass
    class Blind(type(detector)):
        def _detect(self, k, image):
            found = super()._detect(k, image)
            return Detections(*(values[found.labels != 2] for values in (found.boxes, found.scores, found.labels)))

    rule = calibrate(Blind(layouts, recall=1.0, false_alarms=0), images, layouts, "squares", pass_share=0.8)
    assert rule.unseen_classes() == ["rare"]
    assert f"the detector finds 0 of {rule.judged_objects['rare']} rare" in rule.warning()
    assert "--classes car,ship" in rule.warning()
    assert rule.found_objects["car"] > 0.5 * rule.judged_objects["car"]
    unjudged = rule.model_copy(update={"judged_objects": rule.judged_objects | {"rare": 0}})
    assert unjudged.unseen_classes() == [], "objects that are not judged are not missed"


def test_score_at_precision():
    right, wrong = np.linspace(0.6, 0.95, 40), np.linspace(0.05, 0.5, 40)
    assert 0.5 < score_at_precision(right, wrong, 0.9) < 0.62
    assert score_at_precision(np.zeros(0), wrong, 0.5) == 1.0
    assert score_at_precision(np.array([0.9]), np.zeros(0), 0.9) == 1.0, "one hit is no certainty"
    rng = np.random.default_rng(0)
    scores = rng.random(20000)
    hit = rng.random(20000) < scores  # a detector whose score is its precision
    assert score_at_precision(scores[hit], scores[~hit], 0.7) == pytest.approx(0.7, abs=0.05)


def test_empty_layouts_do_not_count_towards_the_twenty():
    class Blind:
        classes, identity = ("car",), "blind"

        def detect(self, images):
            return [Detections(np.zeros((0, 5), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))]

    empty = [Layout(np.zeros((0, 5)), [], ("car",), (9, 9))] * 50
    with pytest.raises(UserError, match="0 images with objects"):
        calibrate(Blind(), [lambda: np.zeros((9, 9, 3), np.uint8)] * 50, empty, "nothing")


def test_a_detector_that_accepts_blurred_objects_is_revealed(oracle, monkeypatch):
    """Control: a detector that reads only the number of the image finds blurred objects as well as sharp ones."""
    monkeypatch.setattr("dataengine.judge.observed.MAX_CONTROL_RATIO", 2.0)  # it finds painted controls as well
    detector, _, layouts = oracle(60, knows_controls=False)
    sharp = np.indices((200, 200)).sum(0) % 2 * 120 + 60  # a chequered ground, of which a blot leaves only grey

    def picture(k):
        image = np.repeat(sharp[..., None], 3, 2).astype(np.uint8)
        image[0, 0] = (k // 256, k % 256, 0)
        return image

    def detect_sharp(images):
        [image], [found] = images, type(detector).detect(detector, images)
        x, y = np.clip(found.boxes[:, :2].astype(int).T, 1, 198)
        contrast = np.abs(image[y, x, 0].astype(int) - image[y, x + 1, 0])
        seen = contrast > 60
        return [Detections(found.boxes[seen], found.scores[seen], found.labels[seen])]

    images = [lambda k=k: picture(k) for k in range(60)]
    content = calibrate(detector, images, layouts, "squares")
    assert content.smudged_pass_share > 0.9
    detector.detect = detect_sharp
    assert calibrate(detector, images, layouts, "squares").smudged_pass_share < 0.1

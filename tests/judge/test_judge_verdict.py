import numpy as np
import pytest

from dataengine.data.layout import Layout
from dataengine.judge.calibration import Calibration
from dataengine.judge.verdict import judge

CLASSES = ("car", "ship")
A, B, C = [40, 40, 20, 10, 0.3], [100, 100, 20, 10, -0.5], [160, 40, 30, 12, 0]


def rule(**changes) -> Calibration:
    figures = {
        "detector": "d", "dataset": "s", "images": 100, "objects": {"car": 100, "ship": 100}, "pass_share": 0.95,
        "shuffled_pass_share": 0.0, "smudged_pass_share": 0.0, "missed_share": 0.0,
        "thresholds": {"car": 0.3, "ship": 0.3},
        "extra_scores": {"car": 0.4, "ship": 0.4}, "extra_objects": 0, "extra_share": 0.0,
        "repair_scores": {"car": 0.7, "ship": 0.7}, "repair_ious": {"car": 0.6, "ship": 0.6},
    }  # fmt: skip
    return Calibration(**(figures | changes))


def layout(boxes, **more) -> Layout:
    return Layout(boxes, np.zeros(len(boxes)), CLASSES, (200, 200), **more)


def test_an_image_that_shows_its_labels_is_kept_unchanged(found):
    asked = layout([A, B])
    result, verdict = judge(found([A, B], [0.9, 0.8]), asked, CLASSES, rule())
    assert verdict.kept
    assert verdict.reason == ""
    assert verdict.scores == [0.9, 0.8]
    np.testing.assert_array_equal(result.boxes, asked.boxes)
    assert not result.difficult.any()


@pytest.mark.parametrize("mode", ["drop", "difficult", "repair"])
def test_an_image_with_too_many_missed_objects_is_dropped_with_the_reason(found, mode):
    asked = layout([A, B])
    result, verdict = judge(found([A, B], [0.9, 0.2]), asked, CLASSES, rule(), mode)
    assert not verdict.kept
    assert verdict.reason == "1 of 2 objects not found"
    assert verdict.missed == ["car"]
    assert result is asked


def test_shares_allow_exactly_their_number(found):
    asked = layout([A, B, C, [40, 160, 20, 10, 0], [100, 160, 20, 10, 0]])
    for n_found, kept in ((4, True), (3, False)):
        seen = found(asked.boxes[:n_found], [0.9] * n_found)
        assert judge(seen, asked, CLASSES, rule(missed_share=0.2))[1].kept == kept


def test_extra_detections_drop_an_image_from_their_score_on(found):
    asked = layout([A])
    for score, kept in ((0.39, True), (0.41, False)):
        _, verdict = judge(found([A, B], [0.9, score]), asked, CLASSES, rule())
        assert verdict.kept == kept
    assert verdict.reason == "1 objects found that were not asked for"
    assert verdict.extra == ["car"]
    assert judge(found([A, B], [0.9, 0.8]), asked, CLASSES, rule(extra_objects=1))[1].kept
    assert judge(found([A, B], [0.9, 0.8]), asked, CLASSES, rule(extra_share=1.0))[1].kept


def test_missed_object_of_a_kept_image_becomes_difficult_unless_the_mode_is_drop(found):
    asked, lax = layout([A, B]), rule(missed_share=0.5)
    for mode, expected in (("drop", [False, False]), ("difficult", [False, True]), ("repair", [False, True])):
        result, verdict = judge(found([A], [0.9]), asked, CLASSES, lax, mode)
        assert verdict.kept
        assert result.difficult.tolist() == expected


def test_difficult_objects_are_neither_missed_nor_counted(found):
    asked = layout([A, B], difficult=[False, True])
    _, verdict = judge(found([A], [0.9]), asked, CLASSES, rule())
    assert verdict.kept
    assert verdict.missed == []


def test_repair_adds_confident_detections_and_records_them(found):
    asked = layout([A])
    result, verdict = judge(found([A, B], [0.9, 0.8]), asked, CLASSES, rule(), "repair")
    assert verdict.kept
    np.testing.assert_allclose(result.boxes, np.float32([A, B]), atol=1e-5)
    (repair,) = verdict.repairs
    assert (repair.action, repair.index, repair.before) == ("added", 1, None)
    assert repair.after == pytest.approx(B)
    for mode in ("drop", "difficult"):  # the control
        assert not judge(found([A, B], [0.9, 0.8]), asked, CLASSES, rule(), mode)[1].kept


def test_repair_ignores_detections_that_are_not_confident(found):
    _, verdict = judge(found([A, B], [0.9, 0.6]), layout([A]), CLASSES, rule(), "repair")
    assert not verdict.kept
    assert verdict.repairs == []


def test_repair_moves_a_box_that_fits_worse_than_real_ones_do(found):
    off = [A[0] + 4, *A[1:]]
    result, verdict = judge(found([off, B], [0.9, 0.9]), layout([A, B]), CLASSES, rule(), "repair")
    assert [repair.index for repair in verdict.repairs] == [0]
    assert result.boxes[0] == pytest.approx(off)
    assert verdict.repairs[0].before == pytest.approx(A, abs=1e-3)
    result, verdict = judge(found([off], [0.9]), layout([A]), CLASSES, rule(repair_ious={"car": 0.1}), "repair")
    assert verdict.repairs == []
    assert result.boxes[0] == pytest.approx(A)


def test_repair_moves_a_box_to_a_displaced_object(found):
    strayed = [A[0] + 9, A[1] + 3, *A[2:]]
    asked = layout([A])
    assert not judge(found([strayed], [0.9]), asked, CLASSES, rule(extra_objects=1))[1].kept
    result, verdict = judge(found([strayed], [0.9]), asked, CLASSES, rule(), "repair")
    assert verdict.kept
    assert [repair.action for repair in verdict.repairs] == ["moved"]
    assert len(result) == 1
    assert result.boxes[0] == pytest.approx(strayed)


def test_repair_does_not_move_cut_objects(found):
    off = [A[0] + 4, *A[1:]]
    result, verdict = judge(found([off], [0.9]), layout([A], visible=[0.6]), CLASSES, rule(), "repair")
    assert verdict.kept
    assert verdict.repairs == []
    assert result.boxes[0] == pytest.approx(A)


def test_repaired_boxes_of_horizontal_layouts_stay_horizontal(found):
    seen = found([[44, 40, 20, 20, 0.7], B], [0.9, 0.9])
    result, verdict = judge(seen, layout([[40, 40, 20, 20, 0]], kind="hbb"), CLASSES, rule(), "repair")
    assert sorted(repair.action for repair in verdict.repairs) == ["added", "moved"]
    turns = np.abs(result.boxes[:, 4]) / (np.pi / 2)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-5)


def test_class_without_calibration_is_never_found(found):
    _, verdict = judge(found([A], [0.99]), layout([A]), CLASSES, rule(thresholds={"ship": 0.1}))
    assert not verdict.kept


def test_classes_of_the_calibration_match_in_any_case(found):
    asked = Layout([A], [0], ("CAR",), (200, 200))
    assert judge(found([A], [0.9]), asked, CLASSES, rule())[1].kept
    assert not judge(found([A], [0.2]), asked, CLASSES, rule())[1].kept

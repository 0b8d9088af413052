"""A line of a manifest is read to the very same values that it was written from, or refused with ValueError alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_scenes import random_layout

from dataengine.data.layout import Acquisition, Layout
from dataengine.engine.finish import Tally
from dataengine.engine.record import Record
from dataengine.engine.run_folder import image_name
from dataengine.judge.verdict import Repair, Verdict
from dataengine.render.canvas import ObjectOrigin, Provenance

# what version 0.1.0 wrote (commit 333264f): two objects painted, one erased again, one of the scene's own
OF_0_1_0 = (
    '{"index": 3, "seed": 2610347201133210841, "image": "shards/000000/00000003.png", "sha256": "5f70bf18a08660", '
    '"scene": "flight_7@40,12", "scene_license": "CC-BY-4.0", "scene_source": "HIT-UAV", "layout_from": ["flight_2"], '
    '"unreadable_scenes": ["flight_9"], "left_out": 1, "asked": {"size": [96, 96], "kind": "obb", "classes": ["car", '
    '"van"], "labels": [0, 1], "boxes": [[30.5, 41.25, 20.0, 9.5, 0.25], [70.125, 60.0, 21.0, 11.0, -1.5]], '
    '"difficult": [false, false], "visible": [1.0, 0.75], "ignored": [], "acquisition": {"altitude_m": 80.0, "night": '
    'true}}, "labels": {"size": [96, 96], "kind": "obb", "classes": ["car", "van"], "labels": [0, 0], "boxes": '
    '[[30.5, 41.25, 20.0, 9.5, 0.25], [12.0, 80.0, 18.0, 8.0, 0.0]], "difficult": [false, true], "visible": [1.0, '
    '1.0], "ignored": [[50.0, 10.0, 6.0, 6.0, 0.0]], "acquisition": {"altitude_m": 80.0, "night": true}}, "verdict": '
    '{"kept": true, "reason": "", "scores": [0.91, 0.12], "missed": [], "extra": [], "repairs": [{"action": "erased", '
    '"index": 1, "before": [70.125, 60.0, 21.0, 11.0, -1.5], "after": null, "score": 0.12}]}}'
)
OPTIONAL = ("seed", "layout_from", "left_out", "scene", "scene_license", "scene_source", "unreadable_scenes")
names = st.text(max_size=20) | st.sampled_from(["generated:5", "a@1,2", "a@augmented", "@", "1,2", "a\nb", "", "é@3"])
numbers = st.integers(0, 2**62)
provenances = st.one_of(
    st.builds(lambda **told: Provenance("blank", **told), unreadable=st.just(())),
    st.builds(lambda seed, **told: Provenance("generated", seed=seed, **told), seed=numbers, license=names),
    st.builds(
        lambda name, left, top, **told: Provenance("window", name, left, top, **told),
        names, numbers, numbers, license=names, source=names, unreadable=st.lists(names, max_size=3).map(tuple),
    ),
    st.builds(
        lambda name, **told: Provenance("augmented", name, **told),
        names, license=names, source=names, unreadable=st.lists(names, max_size=3).map(tuple),
    ),
)  # fmt: skip


def record(provenance: Provenance, seed: int = 0, layout_from: tuple[str, ...] | None = ("a",)) -> Record:
    rng = np.random.default_rng(seed)
    asked = random_layout(rng)
    asked = Layout(
        asked.boxes, asked.labels, asked.classes, asked.size, difficult=rng.random(3) < 0.5, visible=rng.random(3),
        ignored=rng.uniform(0, 90, (seed % 3, 5)), acquisition=Acquisition(gsd_m=0.3, night=bool(seed % 2)),
    )  # fmt: skip
    repairs = [Repair("erased", 1, asked.boxes[1].tolist(), None, 0.125)] if seed % 2 else []
    labels = asked.select([0, 2]) if repairs else asked
    verdict = Verdict(seed % 2 == 1, "", [0.5, 0.25, 0.125], ["van"], ["car"], repairs)
    return Record(
        seed, seed, image_name(0, seed), "0" * 64, provenance, layout_from, seed % 4, asked, labels, verdict
    )  # fmt: skip


@given(
    provenance=provenances, seed=st.integers(0, 1000), layout_from=st.none() | st.lists(names, max_size=3).map(tuple)
)
def test_a_line_is_read_to_what_it_was_written_from(provenance, seed, layout_from):
    written = record(provenance, seed, layout_from)
    line = written.to_json()
    read = Record.from_json(line)
    assert read.to_json() == line
    assert read.provenance == provenance
    assert (read.index, read.seed, read.image, read.sha256) == (seed, seed, written.image, written.sha256)
    assert (read.layout_from, read.left_out, read.verdict) == (layout_from, written.left_out, written.verdict)
    for ours, theirs in ((read.asked, written.asked), (read.labels, written.labels)):
        assert (ours.names(), ours.size, ours.kind) == (theirs.names(), theirs.size, theirs.kind)
        assert ours.acquisition == theirs.acquisition
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=6e-4)
        np.testing.assert_array_equal(ours.difficult, theirs.difficult)
        np.testing.assert_allclose(ours.visible, theirs.visible, atol=6e-5)
        np.testing.assert_allclose(ours.ignored, theirs.ignored, atol=6e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("generated:5@40,12", Provenance("window", "generated:5", 40, 12, license="CC0", source="mine")),
        ("generated:5@augmented", Provenance("augmented", "generated:5", license="CC0", source="mine")),
        ("generated:5", Provenance("generated", seed=5, license="CC0", source="mine")),
        ("generated:photo", Provenance("window", "generated:photo", license="CC0", source="mine")),
        ("a@augmented@3,4", Provenance("window", "a@augmented", 3, 4, license="CC0", source="mine")),
        ("a@1,2@3,4", Provenance("window", "a@1,2", 3, 4, license="CC0", source="mine")),
        ("", Provenance("blank", license="CC0", source="mine")),
    ],
)
def test_a_real_image_stays_real_whatever_it_is_called_and_keeps_its_licence(text, expected):
    values = json.loads(OF_0_1_0) | {"scene": text, "scene_license": "CC0", "scene_source": "mine"}
    values["unreadable_scenes"] = []
    read = Record.from_json(json.dumps(values))
    assert read.provenance == expected
    assert read.provenance.generated == (text in ("", "generated:5"))
    assert json.loads(read.to_json())["scene"] == text


def test_a_line_of_version_0_1_0_is_read_and_written_the_same():
    read = Record.from_json(OF_0_1_0)
    assert read.to_json() == OF_0_1_0
    assert Record.from_json(OF_0_1_0.encode()).to_json() == OF_0_1_0
    assert (read.name, read.accepted, read.erased, read.n_painted) == ("00000003", True, [1], 1)
    assert (read.layout_from, read.left_out, read.seed) == (("flight_2",), 1, 2610347201133210841)
    assert read.provenance == Provenance("window", "flight_7", 40, 12, None, "CC-BY-4.0", "HIT-UAV", ("flight_9",))
    assert read.asked.names() == ["car", "van"]
    assert read.labels.difficult.tolist() == [False, True]
    assert read.asked.acquisition == Acquisition(altitude_m=80, night=True)


def test_a_line_of_a_version_that_said_less_is_read():
    values = {name: value for name, value in json.loads(OF_0_1_0).items() if name not in OPTIONAL}
    read = Record.from_json(json.dumps(values))
    assert (read.layout_from, read.left_out, read.provenance) == (None, 0, Provenance())
    assert "layout_from" not in json.loads(read.to_json()), "unknown is not the same as made from nothing"
    assert Record.from_json(read.to_json()).to_json() == read.to_json()


def places(value, path: tuple = ()) -> Iterator[tuple]:
    """The path of every value in some JSON."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(path: tuple, change: Callable) -> str:
    """The line of 0.1.0 with one value removed or replaced."""
    values = json.loads(OF_0_1_0)
    inside = values
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1])
    return json.dumps(values)


WRONG = [None, True, -1, 7, 1e300, float("nan"), float("inf"), "", "x", "\ud800", [], [[]], [None], {}, {"a": 1}]
CHANGES = {"removed": lambda inside, key: inside.pop(key)} | {
    repr(wrong): lambda inside, key, wrong=wrong: inside.__setitem__(key, copy.deepcopy(wrong)) for wrong in WRONG
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_is_changed_is_refused_with_value_error_or_can_be_used(what):
    """Each value of the line in turn: what is read says what readers of a run ask of it."""
    refused = 0
    for path in places(json.loads(OF_0_1_0)):
        line = changed(path, CHANGES[what])
        try:
            read = Record.from_json(line)
        except ValueError:
            refused += 1
            continue
        assert isinstance(read.name, str), path
        assert read.n_painted + len(read.erased) == len(read.asked), path
        assert Record.from_json(read.to_json()).to_json() == read.to_json(), path
        Tally(None, ("car", "van")).add(read)
        assert np.isreal(np.array(read.verdict.scores, np.float32)).all(), path
        assert isinstance(read.seed, int), path
    assert refused > 10, "control: most changes are no record any more"


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[]", "null", "3", '"x"', "{}", '{"index": 1}', OF_0_1_0[:-1], OF_0_1_0[: len(OF_0_1_0) // 2],
        OF_0_1_0 + "}", "[" * 100_000, b"\xff\xfe", b"\x00" * 40,
        OF_0_1_0.replace('"labels": [0, 1]', '"labels": [0, 2]'),
        OF_0_1_0.replace('"labels": [0, 1]', '"labels": [-1, 0]'),
        OF_0_1_0.replace('"labels": [0, 1]', '"labels": [0]'), OF_0_1_0.replace('"kept": true', '"kept": 1'),
        OF_0_1_0.replace('"index": 3', '"index": 3.5'), OF_0_1_0.replace('"index": 3', '"index": -3'),
        OF_0_1_0.replace('"altitude_m"', '"attitude_m"'), OF_0_1_0.replace('"action"', '"act"'),
        OF_0_1_0.replace("flight_7@40,12", "x").replace('"scene": "x"', '"scene": 5'),
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused_with_value_error_in_one_line(line):
    assert line != OF_0_1_0
    with pytest.raises(ValueError, match=r"\S") as error:
        Record.from_json(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"kind": "zzz"}, {"size": [96]}, {"size": [0, 96]}, {"labels": [0.7, 0.0]}, {"boxes": [[float("nan")] * 5] * 2}],
    ids=str,
)
@pytest.mark.parametrize("key", ["asked", "labels"])
def test_objects_that_are_no_objects_of_an_image_are_refused(key, change):
    values = json.loads(OF_0_1_0)
    values[key] |= change
    with pytest.raises(ValueError, match=r"size|finite|not a list of int"):
        Record.from_json(json.dumps(values))


def start(turn: np.ndarray, image: str = "flight_2") -> ObjectOrigin:
    box = np.float32([10.5, 20.25, 8, 4, 0.5])
    return ObjectOrigin(image, box, turn, 1.25, box + np.float32([5, 0, 2, 1, 0]), box + np.float32([5, 0, 1, 1, 0]))


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2, 3.0, -1.2])
@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_the_real_objects_of_an_image_are_read_as_they_were_written(angle, mirror):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1.0])
    written = replace(record(Provenance("blank")), objects_from=(start(turn), None, start(turn, "flight_7")))
    read = Record.from_json(written.to_json())
    assert read.object_images == ("flight_2", "flight_7")
    assert read.objects_from[1] is None
    for one, other in zip(written.objects_from[::2], read.objects_from[::2], strict=True):
        assert other.turn == pytest.approx(one.turn, abs=1e-3)
        assert other.scale == one.scale
        for name in ("box", "asked_box", "whole_box"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), abs=1e-3)
    assert read.to_json() == written.to_json()


def test_runs_without_real_objects_do_not_mention_them_and_a_damaged_list_is_refused():
    plain = record(Provenance("blank"))
    assert "objects_from" not in plain.to_json()
    values = json.loads(replace(plain, objects_from=(start(np.eye(2)), None, None)).to_json())
    Record.from_json(json.dumps(values))
    for damage in ([None], [{"image": "a"}, None, None], [{**values["objects_from"][0], "image": 5}, None, None], "abc",
                   [{**values["objects_from"][0], "box": [1, 2, 3]}, None, None]):  # fmt: skip
        with pytest.raises(ValueError, match=r"\w"):
            Record.from_json(json.dumps({**values, "objects_from": damage}))

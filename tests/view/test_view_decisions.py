"""What a person decides about a run's images: kept, undone, and honoured by everything that reads the run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats
from dataengine.data.layout import layout_from_json
from dataengine.engine.decided import corrected, decide
from dataengine.engine.decisions import Change, append, counts, read_changes, read_decisions
from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.evaluate.windows import read_generated
from dataengine.geometry import to_aabb
from dataengine.view.app import Site
from dataengine.view.gallery import Gallery, query_of
from dataengine.view.security import TOKEN_HEADER
from dataengine.view.select import select

NOTHING = "0" * 16  # the beginning of the checksum that all images of `make_run` have


def change(do: str, *numbers: int, **others) -> Change:
    return Change(do=do, images=[(i, NOTHING) for i in numbers], **others)


def objects(*rows) -> list[dict]:
    """Rows (of, class, cx, cy, w, h, theta)."""
    return [{"of": of, "class": cls, "box": box} for of, cls, *box in rows]


@pytest.fixture
def run(make_run) -> RunFolder:
    return RunFolder(make_run(24))


def names(dataset) -> list[str]:
    return [sample.name for sample in dataset]


def test_rejected_images_leave_and_accepted_ones_join_every_reader(run):
    before = names(run.accepted_images())
    assert "00000000" in before, "image 0 is kept by the filter"
    assert "00000002" not in before, "image 2 is dropped by the filter"
    append(run, [change("reject", 0, 1), change("accept", 2)])
    after = sorted({*before, "00000002"} - {"00000000", "00000001"})
    assert names(run.accepted_images()) == after
    assert names(read_generated(run.path)) == after
    assert names(select(run.path).dataset) == after
    assert [record.name for record in run.records() if record.accepted] == before, "the manifest stays as it was"


def test_a_corrected_box_is_what_every_reader_gets(run):
    box = (33.5, 41.25, 22.0, 9.0, 0.7)
    append(run, [change("correct", 4, objects=objects((0, "van", *box), (None, "car", 70, 70, 12, 6, 0)))])
    for dataset in (run.accepted_images(), read_generated(run.path), select(run.path).dataset):
        layout = next(sample.layout for sample in dataset if sample.name == "00000004")
        assert layout.names() == ["van", "car"]
        assert layout.boxes[0] == pytest.approx(box)
    added = next(sample.layout for sample in read_generated(run.path) if sample.name == "00000004")
    assert added.difficult.tolist() == [False, True], "an added label is no painted object, so metrics skip it"


def test_other_images_and_labels_stay_to_the_last_bit(run):
    """Control: a correction that changes nothing, and an image that is not decided about."""
    before = {record.index: record for record in run.records()}
    rows = [(k, *_named(before[3], k)) for k in range(len(before[3].labels))]
    append(run, [change("correct", 3, objects=objects(*rows)), change("tag", 3, tag="good")])
    for record in run.decided():
        assert (record.labels.boxes == before[record.index].labels.boxes).all()
        assert record.verdict.scores == before[record.index].verdict.scores
    [decided] = [record for record in run.decided() if record.index == 3]
    assert decided.by_hand.changed == ()
    assert decided.n_painted == before[3].n_painted


def _named(record, k):
    return (record.labels.names()[k], *record.labels.boxes[k].tolist())


def test_removed_labels_take_their_scores_along(run):
    record = next(record for record in run.records() if len(record.labels) == 4)
    scored = json.loads(record.to_json())
    scored["verdict"]["scores"] = [0.1, 0.2, 0.3, 0.4]
    record = Record.from_json(json.dumps(scored))
    rows = [(k, *_named(record, k)) for k in (3, 1)]
    append(run, [change("correct", record.index, objects=objects(*rows))])
    after = decide(record, read_decisions(run)[record.index])
    assert after.verdict.scores == [0.2, 0.4]
    assert (after.n_painted, after.by_hand.removed, after.by_hand.was) == (2, 2, (1, 3))
    assert Record.from_json(after.to_json()).by_hand == after.by_hand


def test_undo_and_redo_go_through_all_changes(run):
    append(run, [change("reject", 0), change("tag", 0, 1, tag="good"), change("accept", 0)])
    states = [read_decisions(run)]
    for _ in range(3):
        append(run, [Change(do="undo")])
        states.append(read_decisions(run))
    assert states[3] == {}
    assert (states[1][0].accepted, states[2][0].accepted, states[2][0].tags) == (False, False, ())
    with pytest.raises(UserError, match="nothing to undo"):
        append(run, [Change(do="undo")])
    for k in (2, 1, 0):
        append(run, [Change(do="redo")])
        assert read_decisions(run) == states[k]
    assert len(read_changes(run.decisions)) == 9, "nothing is ever removed from the file"


def test_a_change_that_was_not_finished_counts_as_none_and_the_next_one_is_whole(run):
    append(run, [change("reject", 0)])
    with open(run.decisions, "a", encoding="utf-8") as file:
        file.write('{"do":"reject","images":[[1,"00')
    assert set(read_decisions(run)) == {0}
    append(run, [change("reject", 3)])
    assert set(read_decisions(run)) == {0, 3}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"do":"burn","images":[[0,"00"]]}', "do: must be"),
        ('{"do":"reject","images":[[-1,"00"]]}', "greater than or equal to 0"),
        ('{"do":"correct","images":[[0,"00"]],"objects":[{"class":"car","box":[1,2,NaN,4,5]}]}', "no decision"),
        ('{"do":"undo"}', "nothing to undo"),
        ("[]", "no decision"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(run, line, words):
    run.decisions.write_text(f"{line}\n")
    with pytest.raises(UserError, match=words):
        list(run.decided())
    with pytest.raises(UserError, match=words):
        run.accepted_images()


def test_a_decision_never_applies_to_another_file(run):
    append(run, [Change(do="reject", images=[(0, "f" * 16)])])
    with pytest.raises(UserError, match="another one than was decided on"):
        run.accepted_images()


def test_the_words_of_a_change_survive_the_file(run):
    made = change("correct", 1, objects=objects((None, "car", 1.5, 2.5, 3.5, 1.0, -0.5)), by="cvat")
    append(run, [made, change("tag", 1, tag="gut, günstig"[:3])])
    [first, second] = read_changes(run.decisions)
    assert first.model_copy(update={"at": ""}) == made
    assert second.tag == "gut"
    assert first.at.endswith("Z")


def test_corrections_are_upright_where_labels_are_horizontal(run):
    labels = next(run.records()).labels
    upright = json.loads(next(run.records()).to_json())["labels"] | {"kind": "hbb"}
    edits = change("correct", 0, objects=objects((0, "car", 30, 30, 20, 10, np.pi / 2))).objects
    flat = corrected(layout_from_json(upright), edits)[0].boxes
    assert to_aabb(flat)[0].tolist() == pytest.approx([25, 20, 35, 40], abs=1e-3)
    assert corrected(labels, edits)[0].boxes[0, 2:4].tolist() == pytest.approx([20, 10])


class Page:
    """A client that decides as the page does."""

    def __init__(self, client, open_index, root):
        self.gallery = Gallery(open_index(root))
        self.site = Site(made=self.gallery)
        self.client = client(self.site)
        self.headers = {"origin": "http://127.0.0.1:8765", TOKEN_HEADER: self.site.token}

    def post(self, path: str, **body):
        return self.client.post(path, json=body, headers=self.headers)

    def total(self, **filter: list[str]) -> int:
        return len(self.gallery.matches(query_of(filter)))


@pytest.fixture
def page_of(client, open_index):
    return lambda root: Page(client, open_index, root)


def test_filters_follow_decisions_and_corrected_labels(page_of, run):
    page = page_of(run.path)
    cars = page.total(**{"class": ["car"]})
    page.post("/api/made/decide", do="tag", tag="good", filter={"class": ["car"]})
    page.post("/api/made/decide", do="reject", ids=[0, 4])
    assert page.total(tag=["good"]) == cars
    assert page.total(decision=["rejected"]) == 2
    assert page.total(decision=["used"]) == 16 - 2
    answer = page.post("/api/made/decide", do="correct", ids=[4], objects=objects((0, "van", 40, 40, 60, 8, 0)))
    assert answer.status_code == 200
    assert page.total(**{"class": ["car"]}) == cars - 1
    assert page.total(size=["59..61"]) == 1
    assert page.client.get("/api/made/pictures/4").json()["labels"]["boxes"][0][2] == 60
    page.post("/api/made/decisions/undo")
    assert page.total(**{"class": ["car"]}) == cars


def test_what_another_program_decides_shows_without_a_restart(page_of, run):
    page = page_of(run.path)
    assert page.total(decision=["rejected"]) == 0
    append(run, [change("reject", 3)])
    assert page.total(decision=["rejected"]) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"do": "correct", "ids": [1], "objects": objects((0, "boat", 30, 30, 9, 9, 0))}, "there is no class boat"),
        ({"do": "correct", "ids": [1], "objects": objects((7, "car", 30, 30, 9, 9, 0))}, "no label 7"),
        ({"do": "correct", "ids": [1], "objects": objects((None, "car", 300, 300, 9, 9, 0))}, "only 0% of it"),
        ({"do": "correct", "ids": [1, 2], "objects": []}, "a correction is of"),
        ({"do": "reject", "ids": [99]}, "no such image"),
        ({"do": "reject", "ids": []}, "no image is selected"),
        ({"do": "tag", "ids": [1]}, "a tag is missing"),
        ({"do": "tag", "ids": [1], "tag": "a,b"}, "tag"),
        ({"do": "burn", "ids": [1]}, "do: must be"),
    ],
)
def test_invalid_decisions_are_refused_and_leave_no_trace(page_of, run, body, words):
    page = page_of(run.path)
    answer = page.post("/api/made/decide", **body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert read_changes(run.decisions) == []


def test_only_the_page_itself_can_decide(page_of, run):
    page = page_of(run.path)
    for headers in ({}, {"origin": "http://evil.example", TOKEN_HEADER: page.site.token}):
        assert (
            page.client.post("/api/made/decide", json={"do": "reject", "ids": [0]}, headers=headers).status_code == 403
        )
    assert not run.decisions.exists()


def test_a_data_set_is_never_decided_about(page_of, run, tmp_path):
    formats.write(run.accepted_images(), tmp_path / "set", "coco", split="train")
    page = page_of(tmp_path / "set")
    answer = page.post("/api/made/decide", do="reject", ids=[0])
    assert answer.status_code == 400
    assert "data set" in answer.json()["error"]


def test_select_writes_what_is_tagged_filtered_and_listed(run, tmp_path):
    append(run, [change("tag", 0, 1, 2, tag="good"), change("tag", 1, 2, 3, tag="day"), change("reject", 1)])
    assert names(select(run.path, ["good"]).dataset) == ["00000000"]
    assert "2 of 3 images are left out" in select(run.path, ["good"]).notes[0]
    assert names(select(run.path, ["good", "day"], unused=True).dataset) == ["00000001", "00000002"]
    assert names(select(run.path, filter="http://x/?count=4..&view=statistics&sort=-score").dataset)[-1] == "00000003"
    assert names(select(run.path, names=["00000003", "00000000"]).dataset) == ["00000000", "00000003"]
    result = CliRunner().invoke(
        app, ["data", "select", str(run.path), "--tag", "good", "--to", "dota", "--out", str(tmp_path / "good")]
    )
    assert result.exit_code == 0, result.output
    assert names(formats.read(tmp_path / "good")) == ["00000000"]
    for wrong in (["none"], ["good", "none"]):
        with pytest.raises(UserError, match="has this tag; there are: day, good"):
            select(run.path, wrong)
    with pytest.raises(UserError, match="has no image 77"):
        select(run.path, names=["77"])
    with pytest.raises(UserError, match="no image is selected"):
        select(run.path, filter="count=99..")


def test_counts_are_of_images(run):
    append(run, [change("reject", 0, 1), change("accept", 1), change("tag", 2, tag="a"), change("tag", 2, tag="b")])
    assert counts(read_decisions(run)) == {"accepted": 1, "rejected": 1, "tagged": 1, "corrected": 0}


def test_a_run_folder_is_no_data_set_and_says_where_its_data_sets_are(run):
    with pytest.raises(
        UserError, match=r"is a run folder; its data sets are .*/dota and .*/coco; dataengine data select"
    ):
        formats.read(run.path)

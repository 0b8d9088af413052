"""Records and reports that anybody may have written: the page answers with what can be shown, or says why it cannot."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from dataengine.errors import UserError
from dataengine.view.app import Site
from dataengine.view.gallery import Gallery

# JSON texts, not values: Python writes no number of 5,000 digits
HOSTILE = {
    "NaN": "NaN", "infinity": "-Infinity", "half a character": '"\\ud800"', "1e400": "1e400", "null": "null",
    "2^63": str(2**63), "400 digits": "9" * 400, "4300 digits": "9" * 4300, "5000 digits": "9" * 5000,
    "negative": "-1", "text": '"x"', "nothing": '""', "list": "[[[]]]", "object": '{"a": NaN}', "true": "true",
    "deep": "[" * 900 + "]" * 900, "text of lines": '"a\\nb\\u0000\\u001b[31m"', "100 kB": '"' + "y" * 100_000 + '"',
}  # fmt: skip
PLACES = [
    ("index",), ("seed",), ("image",), ("sha256",), ("scene",), ("scene_license",), ("unreadable_scenes", 0),
    ("layout_from",), ("left_out",), ("objects_from",), ("asked", "size", 0), ("asked", "boxes", 0, 2),
    ("labels", "size", 1), ("labels", "kind"), ("labels", "classes", 0), ("labels", "labels", 0),
    ("labels", "boxes", 0), ("labels", "boxes", 0, 4), ("labels", "difficult", 0), ("labels", "visible", 0),
    ("labels", "ignored"), ("labels", "acquisition", "altitude_m"), ("labels", "acquisition", "night"),
    ("labels", "acquisition"), ("verdict", "kept"), ("verdict", "reason"), ("verdict", "scores", 0),
    ("verdict", "missed"), ("verdict", "extra"), ("verdict", "repairs"), ("verdict",), ("labels",), ("asked",),
]  # fmt: skip
MARK = "HOSTILE VALUE"


def placed(record: dict, place: tuple, text: str) -> str:
    """The record's line with this text for a value."""
    record = copy.deepcopy(record)
    owner = record
    for key in place[:-1]:
        if key not in owner if isinstance(owner, dict) else False:
            owner[key] = [None]
        owner = owner[key]
    if isinstance(owner, list):
        owner[:] = owner or [None]
    owner[place[-1]] = MARK
    return json.dumps(record).replace(f'"{MARK}"', text)


def answers(client, site: Site, ids: range) -> dict[str, int]:
    """Status of every address of a page; a server that raises answers 500."""
    from starlette.testclient import TestClient

    page = client(site)
    page = TestClient(page.app, base_url=page.base_url, raise_server_exceptions=False)
    addresses = [
        "/",
        "/api/site",
        "/api/made/pictures",
        "/api/made/pictures?sort=-score&class=car",
        "/api/made/statistics",
    ]
    addresses += [f"/api/made/pictures/{i}" for i in ids] + [f"/image/made/{i}?side=32" for i in ids[-5:]]
    return {address: page.get(address).status_code for address in addresses}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_records_are_left_out_with_a_message_or_shown(kind, make_run, open_index, client):
    run = make_run(3)
    valid = (run / "manifest.jsonl").read_text().splitlines()
    lines = [placed(json.loads(valid[0]), place, HOSTILE[kind]) for place in PLACES]
    (run / "manifest.jsonl").write_text("\n".join([valid[0], *lines, valid[1]]) + "\n", "utf-8")
    gallery = Gallery(open_index(run))
    notes = gallery.summary()["notes"]
    assert len(gallery.index) > 1
    assert len(gallery.index) + len([note for note in notes if "no record of an image" in note]) >= min(20, len(lines))
    assert all(len(note) < 500 for note in notes), "a message is no copy of the file"
    found = answers(client, Site(made=gallery), range(len(gallery.index)))
    assert {address: status for address, status in found.items() if status >= 500} == {}
    assert found["/api/made/pictures"] == found["/api/site"] == found["/api/made/pictures/0"] == 200


def test_a_run_of_hostile_records_only_is_refused(make_run, open_index):
    run = make_run(1)
    (run / "manifest.jsonl").write_text('{"index": ' + "9" * 5000 + "}\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl:1: no record of an image"):
        open_index(run)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "place",
    [("report", "notes"), ("report", "wanted"), ("recipe", "recipe"), ("recipe", "parts"), ("recipe", "classes")],
)
def test_hostile_reports_and_recipes_are_shown_or_refused(kind, place, make_run, open_index, client):
    run = make_run(3)
    file = run / f"{place[0]}.json"
    file.write_text(placed(json.loads(file.read_text()), place[1:], HOSTILE[kind]), "utf-8")
    try:
        gallery = Gallery(open_index(run))
    except UserError:
        return
    assert max(answers(client, Site(made=gallery), range(3)).values()) < 500


@pytest.mark.parametrize("digits", [10, 400, 4300, 5000, 30_000])
def test_numbers_of_many_digits_in_an_address_are_an_error_of_the_asker(digits, make_run, open_index, client):
    page = client(Site(made=Gallery(open_index(make_run(3)))))
    number = "9" * digits
    addresses = [f"/api/made/pictures/{number}", f"/image/made/{number}", f"/image/window/{number}"]
    addresses += [f"/api/made/pictures/{number}/detections", f"/api/made/pictures?start={number}"]
    addresses += [f"/api/made/pictures?score=..{number}", f"/api/made/statistics?count={number}..{number}"]
    for address in addresses:
        status = page.get(address).status_code
        assert 400 <= status < 500 or (status == 200 and "=" in address), (address[:40], status)


def test_the_hostile_values_are_hostile(make_run, client, open_index, monkeypatch):
    """The control: with the answers of Starlette alone, some would be errors of the server."""
    from starlette.responses import JSONResponse

    from dataengine.view import app

    run = make_run(1)
    file = run / "recipe.json"
    file.write_text(placed(json.loads(file.read_text()), ("recipe", "dataset"), "NaN"))
    site = Site(made=Gallery(open_index(run)))
    assert answers(client, site, range(1))["/api/site"] == 200
    monkeypatch.setattr(app, "Json", JSONResponse)
    assert answers(client, site, range(1))["/api/site"] == 500


def test_a_cached_index_has_the_same_messages(make_run, open_index):
    run = make_run(2)
    with open(run / "manifest.jsonl", "a") as file:
        file.write("{}\n")
    first, second = open_index(run), open_index(run)
    assert first.skipped == second.skipped
    assert len(first.skipped) == 1
    assert Path(run).name in first.skipped[0]

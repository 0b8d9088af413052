"""What the server gives, and what it refuses."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from dataengine.view.app import STATIC, Site
from dataengine.view.gallery import Gallery
from dataengine.view.security import HEADERS, TOKEN_HEADER


@pytest.fixture
def root(make_run):
    return make_run(24)


@pytest.fixture
def site(root, open_index):
    return Site(made=Gallery(open_index(root)))


@pytest.fixture
def page(site, client):
    return client(site)


def rewrite(root, i, **changes):
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    records[i] |= changes
    (root / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_pages_of_images_together_are_all_of_them_in_order(page):
    items, start = [], 0
    while True:
        found = page.get("/api/made/pictures", params={"verdict": "kept", "start": start, "n": 7}).json()
        if not found["items"]:
            break
        items += found["items"]
        start += 7
    assert [item["id"] for item in items] == [i for i in range(24) if i % 3 != 2]
    assert found["total"] == len(items)


def test_an_image_comes_with_its_neighbours_among_those_chosen(page):
    found = page.get("/api/made/pictures/4", params={"verdict": "kept"}).json()
    assert (found["previous"], found["next"], found["position"]) == (3, 6, 3)
    dropped = page.get("/api/made/pictures/5", params={"verdict": "kept"}).json()
    assert (dropped["position"], dropped["next"]) == (None, None)


def test_seeds_reach_the_page_whole(page):
    """JavaScript's numbers end at 2^53; seeds go to 2^62."""
    assert page.get("/api/made/pictures/4").json()["seed"] == str((1 << 61) + 4)


def test_an_image_comes_with_what_the_filter_asks_of_each_label(page, root, toy_calibration):
    """Cars of 16 to 18 pixels that touch another are asked for less; vans were never calibrated. Control: no filter."""
    assert "thresholds" not in page.get("/api/made/pictures/1").json()
    rule = json.loads(toy_calibration.read_text()) | {"thresholds": {"car": [[0, 0.1], [11.5, 0.5]]}}
    (root / "calibration.json").write_text(json.dumps(rule | {"crowded_thresholds": {"car": 0.2}}))
    assert page.get("/api/made/pictures/0").json()["thresholds"] == [0.1]
    assert page.get("/api/made/pictures/1").json()["thresholds"] == [None, 0.5]
    labels = json.loads((root / "manifest.jsonl").read_text().splitlines()[1])["labels"]
    labels["boxes"][1][0] -= 9
    rewrite(root, 1, labels=labels)
    assert page.get("/api/made/pictures/1").json()["thresholds"] == [None, 0.2]


def test_images_are_the_files_own_bytes(page, root):
    answer = page.get("/image/made/7")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (root / "shards/000000/00000001.png").read_bytes()


def test_an_image_that_no_browser_shows_is_turned_into_one(root, open_index, client):
    Image.new("RGB", (64, 48), (10, 200, 30)).save(root / "scene.tif")
    rewrite(root, 0, image="scene.tif")
    answer = client(Site(made=Gallery(open_index(root)))).get("/image/made/0")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).getpixel((5, 5)) == (10, 200, 30)


def test_a_large_image_is_made_small_for_a_tile(root, open_index, client):
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "large.png")
    rewrite(root, 0, image="large.png")
    served = client(Site(made=Gallery(open_index(root))))
    assert Image.open(io.BytesIO(served.get("/image/made/0?side=320").content)).size == (320, 240)
    assert Image.open(io.BytesIO(served.get("/image/made/0").content)).size == (1200, 900)


@pytest.mark.parametrize(
    "image",
    [
        "../secret.png",
        "/etc/passwd",
        "shards/../../secret.png",
        "link.png",
        "recipe.json",
        "no.png",
        "a\0.png",
        "shards",
    ],
)
def test_nothing_outside_of_the_folder_is_served_whatever_the_manifest_says(root, open_index, client, image):
    Image.new("RGB", (8, 8)).save(root.parent / "secret.png")
    (root / "link.png").symlink_to(root.parent / "secret.png")
    rewrite(root, 3, image=image)
    answer = client(Site(made=Gallery(open_index(root)))).get("/image/made/3")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"


def test_a_link_inside_of_the_folder_is_served(root, open_index, client):
    """Control of the test above: it is not links that are refused."""
    (root / "link.png").symlink_to(root / "shards/000000/00000002.png")
    rewrite(root, 3, image="link.png")
    assert client(Site(made=Gallery(open_index(root)))).get("/image/made/3").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/../../etc/passwd",
     "/image/made/..%2f..%2fetc", "/image/secret/0", "/api/token/pictures"],
)  # fmt: skip
def test_paths_lead_nowhere_else(page, path):
    answer = page.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "Starlette" not in answer.text


def test_every_answer_carries_the_headers_that_forbid_foreign_scripts(page):
    for path in ("/", "/static/main.js", "/api/site", "/image/made/0", "/nowhere"):
        headers = page.get(path).headers
        for name, value in HEADERS.items():
            assert headers[name] == value, path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


def test_the_page_holds_no_inline_script_or_style_and_nothing_from_elsewhere():
    own = [file for file in STATIC.rglob("*") if file.is_file() and not file.name.startswith("openseadragon")]
    assert len([file for file in own if file.name == "index.html"]) == 2
    for file in own:
        text = file.read_text()
        if file.suffix == ".html":
            assert "<script>" not in text
            assert "style=" not in text
        assert "http://" not in text.replace("http://www.w3.org/", ""), file
        assert "https://" not in text, file
        assert "innerHTML" not in text, "texts of records would be read as markup"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "localhost.evil", "[::1]:8765"]
)
def test_a_page_that_points_its_own_name_here_is_refused(page, host):
    """DNS rebinding: the browser sends the other site's name as Host."""
    answer = page.get("/api/site", headers={"host": host})
    assert answer.status_code == 400
    assert "token" not in answer.json()


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1234", "localhost"])
def test_the_page_itself_is_served(page, host):
    assert page.get("/api/site", headers={"host": host}).status_code == 200


def test_what_changes_things_needs_origin_and_token(page, site):
    """No address takes a POST without drawing; the guard stands before all of them."""
    right = {"origin": "http://127.0.0.1:8765", TOKEN_HEADER: site.token}

    def status(**changes):
        headers = {k: v for k, v in {**right, **changes}.items() if v is not None}
        return page.post("/api/draw/render", json={}, headers=headers).status_code

    assert status() == 404, "through the guard, to nothing"
    assert status(origin="http://evil.example") == 403
    assert status(origin="http://localhost:8765") == 403, "the origin is not this host's"
    assert status(origin=None) == 403
    assert status(**{TOKEN_HEADER: "guessed"}) == 403
    assert status(**{TOKEN_HEADER: None}) == 403
    assert (
        page.post(
            "/api/site", headers={**right, "content-type": "application/json"}, content=b"x" * 3_000_000
        ).status_code
        == 413
    )


def test_nothing_but_drawing_can_be_posted_to(page, site):
    headers = {"origin": "http://127.0.0.1:8765", TOKEN_HEADER: site.token}
    for path in ("/api/site", "/api/made/pictures", "/image/made/0", "/"):
        assert page.post(path, json={}, headers=headers).status_code == 405, path


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/made/pictures/99", 404),
        ("/image/made/99", 404),
        ("/api/real/pictures", 404),
        ("/api/made/pictures/0/neighbours", 404),
        ("/image/window/0", 404),
        ("/api/made/pictures?n=-3", 400),
        ("/api/made/pictures?n=99999999999999999999", 400),
        ("/api/made/pictures?score=x", 400),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_one_sentence(page, path, status):
    answer = page.get(path)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]


def test_classes_of_the_same_name_have_the_same_colour_on_both_sides(site, toy_dataset, open_index, client, make_run):
    other = make_run(3, name="other")
    records = [json.loads(line) for line in (other / "manifest.jsonl").read_text().splitlines()]
    for record in records:
        for kind in ("asked", "labels"):
            record[kind]["classes"] = ["bus", "Car"]
    (other / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (other / "recipe.json").write_text('{"recipe": {}, "parts": {}}')
    site.real = Gallery(open_index(other))
    found = client(site).get("/api/site").json()
    made, real = ({c["name"].lower(): c["colour"] for c in found[side]["classes"]} for side in ("made", "real"))
    assert made["car"] == real["car"]
    assert real["bus"] not in made.values()

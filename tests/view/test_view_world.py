"""A world as a zoomable map."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from fake_world import BOXES, SIZE, make_fake_world
from PIL import Image
from starlette.testclient import TestClient

from dataengine.errors import UserError
from dataengine.view.serve import server_of
from dataengine.view.world_map import is_world, make_map

pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "w"
    out.mkdir()
    make_fake_world(out)
    return out


@pytest.fixture
def site(folder):
    return TestClient(make_map(folder), base_url="http://127.0.0.1:8765")


@pytest.fixture
def address(folder):
    """Where the map is really served."""
    server, listener, address = server_of(make_map(folder), 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield address
    server.should_exit = True
    thread.join()
    listener.close()


def pixels(response) -> np.ndarray:
    assert response.status_code == 200
    return np.asarray(Image.open(io.BytesIO(response.content))).astype(int)


def test_tiles_show_the_world_at_each_scale(site, folder):
    image = make_fake_world(folder).image.astype(int)
    assert np.abs(pixels(site.get("/tile/0/0/0")) - image[:512, :512]).mean() < 3
    assert np.abs(pixels(site.get("/tile/0/1/1")) - image[512:, 512:]).mean() < 3
    half = image.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3))
    assert np.abs(pixels(site.get("/tile/1/0/0")) - half).mean() < 3
    assert pixels(site.get("/tile/10/0/0")).shape == (1, 1, 3)
    assert site.get("/tile/0/2/0").status_code == 404
    assert site.get("/tile/99999999/0/0").status_code == 404


def test_labels_are_those_of_the_world(site):
    labels = site.get("/api/labels").json()
    assert [label["class"] for label in labels] == ["car", "van", "car"]
    centres = np.array([np.mean(label["corners"], 0) for label in labels])
    assert np.allclose(centres, BOXES[:, :2], atol=0.01)
    assert site.get("/api/world").json()["size"] == SIZE
    assert len({label["id"] for label in labels}) == 3


def test_an_unfinished_world_is_refused(folder, tmp_path):
    assert is_world(folder)
    assert not is_world(tmp_path)
    (tmp_path / "world.json").write_bytes((folder / "world.json").read_bytes())
    with pytest.raises(UserError, match="not finished"):
        make_map(tmp_path)


def test_the_map_zooms_to_an_object_and_names_it(address, page):
    page.goto(f"{address}/#at=300,300,200")
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(1500)
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(300)
    assert page.locator("#object").inner_text() == "van, id 0_0_1"
    with_labels = page.screenshot(path=os.environ.get("WORLD_SHOT"))
    page.keyboard.press("l")
    page.wait_for_timeout(300)
    assert page.screenshot() != with_labels

"""Runs made of records alone, so that tests of the page need no model; and a browser to open it in."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REASON = "{} of {} objects not found"


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path_factory, monkeypatch):
    """Indexes are cached outside of what is looked at; tests must not meet in one cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def layout(boxes, labels, classes=("car", "van"), size=(96, 96), **acquisition) -> dict:
    """A layout as a manifest has it."""
    n = len(boxes)
    return {
        "size": list(size), "kind": "obb", "classes": list(classes), "labels": labels, "boxes": boxes,
        "difficult": [False] * n, "visible": [1.0] * n, "ignored": [], "acquisition": acquisition,
    }  # fmt: skip


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """A run folder of n records: image i has i % 4 + 1 objects of classes that alternate; each third is dropped; the
    detector's scores rise with i; altitude is 60 + i, and odd ones are by night. Images are few, and shared."""

    def make(n: int = 24, name: str = "run", images: int = 6) -> Path:
        root = tmp_path / name
        (root / "shards" / "000000").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for k in range(images):
            pixels = rng.integers(60, 120, (96, 96, 3)).astype(np.uint8)
            pixels[:, :, 0] += k * 10  # so that no two are alike
            Image.fromarray(pixels).save(root / "shards" / "000000" / f"{k:08d}.png")
        with open(root / "manifest.jsonl", "w", encoding="utf-8") as manifest:
            for i in range(n):
                objects = i % 4 + 1
                boxes = [[20.0 + 18 * k, 48.0, 16.0 + i % 10, 8.0, 0.1 * k] for k in range(objects)]
                labels = [(i + k) % 2 for k in range(objects)]
                kept = i % 3 != 2
                asked = layout(boxes, labels, altitude_m=60.0 + i, night=bool(i % 2))
                verdict = {
                    "kept": kept, "reason": "" if kept else REASON.format(objects, objects),
                    "scores": [round(i / n, 4)] * objects, "missed": [], "extra": [], "repairs": [],
                }  # fmt: skip
                record = {
                    "index": i, "seed": (1 << 61) + i, "image": f"shards/000000/{i % images:08d}.png",
                    "sha256": "0" * 64,
                    "scene": f"flight-{i // 10}", "unreadable_scenes": [], "asked": asked, "labels": asked,
                    "verdict": verdict,
                }  # fmt: skip
                manifest.write(json.dumps(record) + "\n")
        (root / "recipe.json").write_text(
            json.dumps({"recipe": {"dataset": "toy"}, "parts": {}, "classes": ["car", "van"]})
        )
        (root / "report.json").write_text("{}")
        return root

    return make


@pytest.fixture
def open_index():
    """The index of a folder."""
    from dataengine.view.index import load_index
    from dataengine.view.source import open_source

    return lambda folder: load_index(open_source(folder))


@pytest.fixture
def client():
    """A client that speaks to a site's application as its own page does; other headers can be given."""
    from starlette.testclient import TestClient

    from dataengine.view.app import make_app

    return lambda site: TestClient(make_app(site), base_url="http://127.0.0.1:8765")


@pytest.fixture
def served():
    """The address of a site that is really served, on a free port."""
    from dataengine.view.app import make_app
    from dataengine.view.serve import server_of

    running = []

    def serve(site) -> str:
        server, listener, address = server_of(make_app(site), 0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        return address

    yield serve
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()


def chromium() -> str | None:
    """Where Debian's, or another system's, Chromium lies."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. Without one the tests are skipped, save in CI, which installs it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if chromium() is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse("no Chromium is installed here (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # CI runs as root, where Chromium has no sandbox; it sees nothing but this page
        opened = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"], timeout=180_000
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser, served):
    """A fresh page; an error in its scripts fails the test. It is closed before what it shows is served no more."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    opened, errors = context.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    context.close()
    assert not errors, "the page's scripts or its Content-Security-Policy complain"

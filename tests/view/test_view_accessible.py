"""Every view of the page against axe-core, in light and dark, wide and narrow."""

from __future__ import annotations

import pytest
from test_view_objects import colours
from test_view_page import until

from dataengine.view.app import Site
from dataengine.view.embeddings import Embeddings
from dataengine.view.gallery import Gallery

VIEWS = {
    "": ".tile a", "?view=picture&id=3": ".deciding", "?view=picture&id=3&edit=1": ".grip.turn",
    "?view=objects": ".tile.object a", "?view=objects&like=0": ".crops a", "?view=map": ".legend button",
    "?view=statistics": ".plot", "?view=compare": ".tile a", "?view=compare&pair=other": ".tile.pair",
    "?view=compare&pair=other&order=figures": "table",
}  # fmt: skip


def findings(page) -> list[str]:
    """What axe-core finds, a line for each kind and the first element that it concerns."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]} {one['nodes'][0]['failureSummary'][:200]}" for one in found]


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (420, "dark")])
def test_axe_core_finds_nothing(page, make_run, open_index, served, monkeypatch, width, scheme):
    monkeypatch.setattr(Embeddings, "encode", lambda self, images: colours(images))
    other = Gallery(open_index(make_run(8, "other")))
    address = served(Site(made=Gallery(open_index(make_run(24))), other=other))
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for view, ready in VIEWS.items():
        page.goto(f"{address}/{view}")
        page.locator(ready).first.wait_for(state="attached")
        if not view:
            page.keyboard.press("Control+a")
            page.locator(".tile .pick").first.click()
        assert findings(page) == [], view
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view


def test_axe_core_finds_a_picture_without_words(page, make_run, open_index, served):
    """Control."""
    page.goto(served(Site(made=Gallery(open_index(make_run(4))))))
    until(page, "document.querySelectorAll('.tile a').length === 4")
    page.evaluate("document.querySelectorAll('.tile img').forEach((img) => img.removeAttribute('alt'))")
    assert any(line.startswith("image-alt") for line in findings(page))

"""`dataengine.show`: the page in a notebook's cell."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

import dataengine
from dataengine.errors import UserError


def test_a_run_is_shown_in_a_frame_and_can_be_closed(make_run):
    shown = dataengine.show(make_run(6), height=500)
    assert f'src="{shown.address}"' in shown._repr_html_()
    assert 'height="500"' in shown._repr_html_()
    with urllib.request.urlopen(shown.address) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'self' http://localhost:*" in policy
    assert "script-src 'self'" in policy, "all else stays as strict"
    shown.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(shown.address, timeout=2)


def test_the_command_is_shown_in_no_frame(make_run, open_index, client):
    """Control."""
    from dataengine.view.app import Site
    from dataengine.view.gallery import Gallery

    answer = client(Site(made=Gallery(open_index(make_run(3))))).get("/")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        dataengine.show(tmp_path / "nowhere")

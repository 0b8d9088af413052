"""What a run prints at its end is true."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dataengine.engine.show import show_report

LONG = "storage-tank-of-the-northern-terminal"


def shown(tmp_path, width: int = 200, judged: bool = True, **row) -> str:
    """The printed end of a run with one class, without line breaks."""
    counts = {"name": LONG, "asked": 0, "found": 0, "erased": 0, "kept": 0, "difficult": 0, **row}
    report = {
        "wanted": 2, "accepted": 2, "tried": 5, "acceptance": 0.4, "classes": [counts], "below_balance": {},
        "never_kept": [] if counts["kept"] else [LONG], "left_out": 0, "unreadable_scenes": [],
        "dropped_for": {"objects found that were not asked for": 3},
        "real_images_that_would_pass": 0.95 if judged else None,
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=width)
    show_report(console, report, tmp_path)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({}, "none was in the layouts of 5 images"),
        ({"asked": 7}, "the detector found none of 7 painted ones"),
        ({"asked": 7, "found": 6}, "7 were painted, all in images that were dropped, or erased again"),
    ],
)
def test_why_a_class_is_missing_is_said_as_far_as_it_is_known(tmp_path, row, why):
    text = shown(tmp_path, **row)
    assert f"no {LONG} was accepted: {why}" in text
    assert "cannot render" not in text


def test_without_a_filter_nothing_is_said_of_a_detector(tmp_path):
    assert "found none" not in shown(tmp_path, judged=False, asked=7)


def test_reasons_are_whole_and_names_are_never_cut(tmp_path):
    assert "dropped: 3 (objects found that were not asked for)" in shown(tmp_path, asked=3, found=3, kept=3)
    narrow = "".join(line.split("│")[1].strip() for line in shown(tmp_path, 60, kept=1).splitlines() if "│" in line)
    assert narrow == LONG

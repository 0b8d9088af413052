"""A detector from outside runs in a child process: the same detections, and an end to what has none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dataengine import weights
from dataengine.errors import UserError
from dataengine.judge.child import ChildDetector, seconds_of
from dataengine.judge.detector import OnnxDetector, load_detector

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))


@pytest.fixture
def hostile(tmp_path):
    """`hostile(name)`: the folder of a detector of tools/fuzz_onnx.py."""

    def make(name: str) -> Path:
        from fuzz_onnx import SIDE, WAYS

        (tmp_path / "model.onnx").write_bytes(WAYS[name]())
        (tmp_path / "config.json").write_text(json.dumps({"classes": ["a"], "image_size": SIDE}))
        return tmp_path

    return make


def test_detections_are_those_of_the_calling_process(toy_detector):
    picture = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    picture[40:56, 40:56] = (255, 0, 0)
    inside, outside = OnnxDetector(toy_detector, 1), load_detector(toy_detector, 1)
    assert isinstance(outside, ChildDetector)
    assert (outside.classes, outside.identity) == (inside.classes, inside.identity)
    pictures = [picture, picture[:96, :96]]
    for here, there in zip(inside.detect(pictures), outside.detect(pictures), strict=True):
        assert len(here)
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
            assert getattr(there, name).dtype == getattr(here, name).dtype
    outside.process.kill()
    outside.process.wait()
    assert len(outside.detect([picture])[0]), "the next picture starts a new process"
    outside.close()


def test_packaged_detectors_run_in_the_calling_process():
    assert isinstance(load_detector(weights.packaged("detector"), 1), OnnxDetector)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("endless loop", "took more than 5 s of CPU time"),
        ("5e7 boxes", "cannot run it|more memory than it is given|more than 100,000"),
        ("1e6 boxes", "outputs 1,000,000 boxes, more than 100,000"),
        ("much memory", "cannot run it|more memory than it is given"),
    ],
)
def test_a_detector_without_end_or_measure_is_refused_in_one_sentence(name, said, hostile):
    detector = load_detector(hostile(name), 1)
    with pytest.raises(UserError, match=said) as told:
        detector.detect([np.zeros((24, 32, 3), np.uint8)])
    assert "\n" not in str(told.value)
    detector.close()


def test_a_detector_within_the_limits_is_not_refused(hostile):
    """The control: 3,000 boxes in one place are one detection."""
    assert [
        len(found) for found in load_detector(hostile("3,000 boxes"), 1).detect([np.zeros((24, 32, 3), np.uint8)])
    ] == [1]


WITHOUT = """
import sys
from pathlib import Path
from dataengine.judge import child
child._limit_time = child._limit_memory = lambda *limits: None
child._serve(Path(sys.argv[1]), 1)
"""


def test_without_the_limit_of_time_a_loop_goes_on(hostile):
    """The mutation: with the limit, the process has ended after five seconds of CPU time."""
    folder = hostile("endless loop")
    child = subprocess.Popen(
        [sys.executable, "-c", WITHOUT, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    child.stdin.write((24).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(24 * 32 * 3))
    child.stdin.flush()
    spent, until = 0.0, time.monotonic() + 300
    while spent < seconds_of((24, 32), 32) + 4 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / 100  # ticks of user and system time
    assert child.poll() is None, "it goes on"
    child.kill()
    child.wait()


def test_what_is_missing_is_said_without_a_process(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json in this folder"):
        load_detector(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"classes": ["a\x1b[31m"], "image_size": 32}))
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="characters that a terminal obeys"):
        load_detector(tmp_path)

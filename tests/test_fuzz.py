"""Every reader under some hundred broken files (100,000 each: docs/trust.md), and a broken reader is caught."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import fuzz
from fuzz_readers import READERS, Reader, Wrong

SLOWEST = ("renderer", "layout-model", "aerogen", "run-verify", "release")  # tens of milliseconds an input


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_or_refused_in_one_sentence(name):
    fed = fuzz.fuzz(name, range(20 if name in SLOWEST else 200), seed=0)
    assert not fed.found, fed.found[0]
    assert fed.outcomes["refused"], "nothing was broken enough"


def test_a_reader_without_its_care_is_caught(monkeypatch):
    """The mutation: COCO's reader with Python's own parser of JSON."""
    monkeypatch.setattr("dataengine.data.coco.load_json", lambda path: json.loads(path.read_bytes()))
    found = fuzz.fuzz("coco", range(600), seed=0).found
    assert any("RecursionError" in text for text in found)


def hang(folder: Path) -> None:
    if (folder / "a").read_bytes() != b"12345678":
        time.sleep(60)


def give_a_wrong_value(folder: Path) -> None:
    if (folder / "a").read_bytes() != b"12345678":
        raise Wrong("boxes are not finite")


@pytest.mark.parametrize(("read", "said"), [(hang, "Slow: longer than"), (give_a_wrong_value, "not finite")])
def test_a_reader_that_hangs_or_gives_what_it_must_not_is_caught(read, said, monkeypatch):
    def make(folder: Path) -> list[Path]:
        (folder / "a").write_bytes(b"12345678")
        return [folder / "a"]

    monkeypatch.setattr(fuzz, "SLOW", 0.05 if read is hang else 30)  # a busy machine may halt the other one, too
    monkeypatch.setitem(READERS, "made", Reader(make, read))
    found = fuzz.fuzz("made", range(30), seed=0).found
    assert len(found) == 10, "after ten, feeding ends"
    assert said in found[0]


def test_an_input_depends_on_its_number_and_the_seed_only():
    content = b'{"a": [1, 2, {"b": "c"}]}'

    def of(seed, index):
        return fuzz.mutated(content, ".json", fuzz.np.random.default_rng((seed, index)))

    assert [of(0, i) for i in range(20)] == [of(0, i) for i in range(20)]
    assert [of(0, i) for i in range(20)] != [of(1, i) for i in range(20)]

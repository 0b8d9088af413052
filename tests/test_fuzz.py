"""Every reader under some hundred broken files (100,000 each: docs/trust.md), and a broken reader is caught."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import fuzz
import fuzz_costs
from fuzz_readers import READERS, Reader, Wrong

SLOWEST = ("renderer", "layout-model", "aerogen", "run-verify", "release")  # tens of milliseconds an input


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "detector")) for n in READERS])
def test_a_broken_file_is_read_or_refused_in_one_sentence(name):
    fed = fuzz.fuzz(name, range(20 if name in SLOWEST else 200), seed=0)
    assert not fed.found, fed.found[0]
    assert fed.outcomes["refused"], "nothing was broken enough"


def test_a_reader_without_its_care_is_caught(monkeypatch):
    """The mutation: labelme's reader with Python's own parser of JSON."""
    monkeypatch.setattr("dataengine.data.labelme.load_json", lambda path: json.loads(path.read_bytes()))
    found = fuzz.fuzz("labelme", range(600), seed=0).found
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


SAMPLED = ("coco", "dota", "voc", "yolo", "labelme", "airbus", "png", "tiff", "preset", "layouts")


@pytest.mark.parametrize("name", SAMPLED)
def test_a_small_file_that_may_cost_much_stays_in_the_budget(name):
    """A sample; `python tools/fuzz.py all --costs` has 100 for each reader."""
    for index, cost in fuzz.costs(name, range(2), seed=5):
        assert not cost.fault, f"input {index}, {cost.way}: {cost.fault}\n{cost.said}"


def take_much_memory(folder: Path) -> None:
    assert len(bytearray(1200 * 2**20)) > 0


def take_long(folder: Path) -> None:
    end = time.process_time() + 1
    while time.process_time() < end:
        pass


def wait_for_a_writer(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "pipe").read_bytes()


def say_commands(folder: Path) -> None:
    raise ValueError("red \x1b[31m")


@pytest.mark.parametrize(
    ("read", "said"),
    [(take_much_memory, " MB"), (take_long, " s"), (wait_for_a_writer, "hang"), (say_commands, "crash"), (hang, "")],
)
def test_what_exceeds_the_budget_is_caught(read, said, monkeypatch):
    def make(folder: Path) -> list[Path]:
        (folder / "a").write_bytes(b"12345678")
        return [folder / "a"]

    monkeypatch.setattr(fuzz_costs, "MAX_SECONDS", 0.5 if read is take_long else 10)
    monkeypatch.setattr(fuzz_costs, "HANGING_S", 2 if read is wait_for_a_writer else 60)
    monkeypatch.setattr(fuzz, "put_hostile", lambda file, rng: "as it is")
    monkeypatch.setitem(READERS, "made", Reader(make, read, (ValueError,)))
    [(_, cost)] = fuzz.costs("made", range(1), seed=0)
    assert cost.fault.endswith(said)
    assert bool(cost.fault) == (read is not hang), "the control: a plain file"

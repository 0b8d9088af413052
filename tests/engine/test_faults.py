"""Whatever strikes a run: one clear sentence or none at all, and the same command goes on to the very same files."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from functools import partial

import numpy as np
import pytest
from fault_runs import Run, contents, kill_and_continue, wait_for, watch

from dataengine.engine.record import Record
from dataengine.engine.run_folder import RunFolder, Shard, ShardFolder
from dataengine.engine.verify import verify


@pytest.fixture(scope="module")
def unbroken(toy_recipe, tmp_path_factory):
    """(recipe, its files, how often its run touches its folder)."""
    recipe = toy_recipe.model_copy(update={"n": 4, "shard_size": 3})
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    end = Run(recipe, out, partial(watch, out)).end()
    assert (end.exit_code, end.said, end.crash) == (0, "", "")
    return recipe, contents(out), end.operations


def points(operations: int, n: int) -> list[int]:
    return np.random.default_rng(n).integers(1, operations + 1, n).tolist()


def test_a_run_that_is_killed_anywhere_is_continued_to_the_same_files(unbroken, tmp_path):
    recipe, files, operations = unbroken
    for i, at in enumerate([1, operations, *points(operations, 3)]):
        end = kill_and_continue(recipe, tmp_path / str(i), at)
        assert (end.exit_code, end.crash) == (0, ""), (at, end)
        assert contents(tmp_path / str(i)) == files, f"killed before operation {at}"
        assert verify(tmp_path / str(i)).faults == []


@pytest.mark.slow
def test_a_run_that_is_killed_at_forty_points_is_continued_to_the_same_files(unbroken, tmp_path):
    recipe, files, operations = unbroken
    for i, at in enumerate(points(operations, 40)):
        end = kill_and_continue(recipe, tmp_path / str(i), at)
        assert (end.exit_code, end.crash) == (0, ""), (at, end)
        assert contents(tmp_path / str(i)) == files, f"killed before operation {at}"
        shutil.rmtree(tmp_path / str(i))


def built_in_place() -> None:
    """The mutation: shards are built where they stay, and those of an earlier process are believed."""
    begin, begun, ended = ShardFolder.__init__, set(), set()

    def begin_in_place(self, run: RunFolder, number: int) -> None:
        begin(self, run, number)
        self.building.rmdir()
        self.building = self.final
        self.building.mkdir(exist_ok=True)
        begun.add(self.final)

    def believed(self, number: int) -> Shard | None:
        folder = self.shard(number)
        if folder not in ended and (folder in begun or not folder.exists()):
            return None
        lines = (folder / "records.jsonl").read_text().splitlines()
        return Shard(lines, [Record.from_json(line) for line in lines])

    ShardFolder.__init__ = begin_in_place
    ShardFolder.close = lambda self: ended.add(self.final)
    RunFolder.read_shard = believed


def test_without_its_renames_a_killed_run_does_not_come_out_the_same(unbroken, tmp_path):
    """So the tests above can fail."""
    recipe, files, operations = unbroken
    whole = Run(recipe, tmp_path / "whole", built_in_place).end()
    assert (whole.exit_code, contents(tmp_path / "whole")) == (0, files), "unless it is killed"
    same = []
    for i, at in enumerate(points(operations // 2, 4)):
        assert Run(recipe, tmp_path / str(i), partial(watch, tmp_path / str(i), at), built_in_place).end().killed
        end = Run(recipe, tmp_path / str(i), built_in_place).end()
        same.append(end.exit_code == 0 and contents(tmp_path / str(i)) == files)
    assert not all(same)


def test_a_full_disk_is_one_sentence_and_with_room_the_run_goes_on(unbroken, tmp_path):
    recipe, files, _ = unbroken
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(map(len, files.values()))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        end = Run(recipe, disk / "run").end()
        assert "No space left on device" in end.said
        assert "\n" not in end.said
        assert end.crash == ""
        shutil.copytree(disk / "run", tmp_path / "run")  # what was finished, on a larger disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert Run(recipe, tmp_path / "run").end().exit_code == 0
    assert contents(tmp_path / "run") == files


def bits_bind() -> None:
    """Permission bits bind root, too: the capabilities to pass over them are given up (Linux)."""

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    class Data(ctypes.Structure):
        _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))

    header, data = Header(0x20080522, 0), (Data * 2)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(ctypes.byref(header), data) == 0
    data[0].effective &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    assert libc.capset(ctypes.byref(header), data) == 0


def test_a_folder_that_may_not_be_written_is_one_sentence_and_the_run_goes_on_when_it_may(unbroken, tmp_path):
    recipe, files, operations = unbroken
    out = tmp_path / "run"
    assert Run(recipe, out, partial(watch, out, operations // 6)).end().killed
    shards = {name.split("/")[1] for name in files if name.startswith("shards/")}
    assert len(list((out / "shards").glob("0*"))) < len(shards), "else there is nothing left to write there"
    os.chmod(out / "shards", 0o555)
    end = Run(recipe, out, bits_bind).end()
    os.chmod(out / "shards", 0o755)
    assert "Permission denied" in end.said
    assert end.crash == ""
    assert Run(recipe, out, bits_bind).end().exit_code == 0
    assert contents(out) == files


@pytest.mark.parametrize("what", ["an image", "the records", "the manifest", "the sheet"])
def test_what_was_corrupted_when_the_run_was_over_is_made_again(unbroken, tmp_path, what):
    recipe, files, _ = unbroken
    out = tmp_path / "run"
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    pattern = {"an image": "shards/*/*.png", "the records": "shards/*/records.jsonl", "the manifest": "manifest.jsonl",
               "the sheet": "kept.png"}[what]  # fmt: skip
    file = sorted(out.glob(pattern))[0]
    content = bytearray(file.read_bytes())
    file.write_bytes(content[: len(content) // 2] if what != "an image" else bytes(content[:-40]) + bytes(40))
    assert verify(out).faults, "a checksum, or the shards, tell"
    assert Run(recipe, out).end().exit_code == 0
    assert contents(out) == files


def test_of_two_runs_in_one_folder_the_second_is_refused_and_the_first_ends_well(unbroken, tmp_path):
    recipe, files, _ = unbroken
    out = tmp_path / "run"
    first = Run(recipe, out, partial(slowly, 0.3))
    wait_for(out / "shards", first)
    second = Run(recipe, out).end()
    assert "another run is at work" in second.said
    assert first.end().exit_code == 0
    assert contents(out) == files


def slowly(seconds: float) -> None:
    """Each file of a shard takes its time."""
    original = ShardFolder.put

    def put(self, *arguments):
        time.sleep(seconds)
        return original(self, *arguments)

    ShardFolder.put = put


def clock_goes_back() -> None:
    """The wall clock starts in 1970, and each look at it is a day before the last one."""
    now = [10_000 * 86_400.0]

    def look() -> float:
        now[0] -= 86_400
        return now[0]

    time.time = look
    time.time_ns = lambda: int(look() * 1e9)


def test_the_clock_may_go_backwards(unbroken, tmp_path):
    recipe, files, _ = unbroken
    assert Run(recipe, tmp_path / "run", clock_goes_back).end().exit_code == 0
    assert contents(tmp_path / "run") == files

"""What went wrong is said in the right words: a full disk, lacking memory, a killed process, a damaged file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine.engine import local
from dataengine.engine.commands import app
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder, ShardFolder
from dataengine.engine.verify import verify
from dataengine.errors import UserError
from dataengine.files import cannot_write

ROOT = Path(__file__).parents[2]
ADVICE = "free some space"


@pytest.fixture(scope="module")
def recipe(toy_recipe):
    return toy_recipe.model_copy(update={"n": 3, "shard_size": 4})


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_space_is_advised_for_a_full_disk_only(code):
    advised = ADVICE in str(cannot_write(OSError(code, os.strerror(code), "a"), Path("b"), "choose another folder."))
    assert advised == (code in (errno.ENOSPC, errno.EDQUOT))


def test_the_advice_stands_in_one_place():
    files = [file for file in (ROOT / "dataengine").rglob("*.py") if ADVICE in file.read_text()]
    assert sorted(file.name for file in files) == ["download.py", "files.py"], "the former has measured the space"


# --- workers ---


@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), ConnectionResetError(104, "reset")])
def test_a_worker_that_is_killed_before_it_gets_a_shard_is_called_killed(error):
    class Gone:
        def send(self, shard: int) -> None:
            raise error

    with pytest.raises(UserError, match="a worker process was killed"):
        local._hand_out({Gone(): local._Process(1, None, left=2)}, lambda: 0)


MEMORY = [
    MemoryError(),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", MEMORY, ids=repr)
def test_a_worker_without_memory_is_one_sentence(error):
    sent = local._sendable(error)
    assert isinstance(sent, UserError)
    assert "ran out of memory" in str(sent)
    assert ADVICE not in str(sent)


def test_another_error_of_a_worker_keeps_its_traceback():
    assert "ValueError: odd" in str(local._sendable(ValueError("odd")))
    assert isinstance(local._sendable(RuntimeError("memory of an elephant")), RuntimeError)


@pytest.mark.parametrize("error", MEMORY[:3], ids=repr)
def test_a_run_without_memory_is_one_sentence_and_is_continued(error, recipe, tmp_path, monkeypatch):
    def put(self, name: str, content: bytes) -> None:
        raise error

    monkeypatch.setattr(ShardFolder, "put", put)
    with pytest.raises(UserError, match="the run ran out of memory") as caught:
        synth(recipe, tmp_path / "run")
    assert ADVICE not in str(caught.value)
    monkeypatch.undo()
    assert synth(recipe, tmp_path / "run").accepted == 3


# --- files in a run folder ---


def test_what_other_programs_leave_in_a_run_folder_does_no_harm(recipe, tmp_path):
    out = synth(recipe, tmp_path / "run").out
    before = (out / "manifest.jsonl").read_bytes()
    left = [
        out / folder / name
        for folder in ("", "shards", "shards/000000", "dota", "coco")
        for name in (".DS_Store", ".nfs01")
    ]
    for file in left:
        file.write_text("left")
    (out / "shards" / ".Trash-0").mkdir()
    (out / "shards" / ".000009.1").mkdir()  # a shard that was never finished
    synth(recipe, out)
    assert (out / "manifest.jsonl").read_bytes() == before
    assert (out / "shards" / ".DS_Store").exists()
    assert not (out / "shards" / ".000009.1").exists()


def damage_with(change, monkeypatch) -> None:
    """Change an accepted image of the run between its shard and the data sets."""
    from dataengine.engine import run as run_module

    finish = run_module.finish

    def damaged_before(recipe, parts, run: RunFolder, tally, datasets) -> None:
        change(run.image(next(r for r in run_module.RunFolder(run.path).examine_shard(0).records if r.accepted)))
        finish(recipe, parts, run, tally, datasets)

    monkeypatch.setattr(run_module, "finish", damaged_before)


@pytest.mark.parametrize("change", [Path.unlink, lambda file: file.write_bytes(b"no image"),
                                    lambda file: os.truncate(file, 200)], ids=["lost", "other", "cut"])  # fmt: skip
@pytest.mark.parametrize("datasets", [True, False])
def test_a_shard_that_is_damaged_during_the_run_is_named_and_made_again(
    change, datasets, recipe, tmp_path, monkeypatch
):
    damage_with(change, monkeypatch)
    with pytest.raises(UserError, match=r"shards/000000/.*was damaged while the run was at work") as caught:
        synth(recipe, tmp_path / "run", datasets=datasets)
    assert ADVICE not in str(caught.value)
    monkeypatch.undo()
    synth(recipe, tmp_path / "run", datasets=datasets)
    assert not verify(tmp_path / "run").faults


def test_records_that_are_a_folder_are_a_damaged_shard(recipe, tmp_path):
    out = synth(recipe, tmp_path / "run").out
    (out / "shards/000000/records.jsonl").unlink()
    (out / "shards/000000/records.jsonl").mkdir()
    synth(recipe, out)
    assert not verify(out).faults


def test_pictures_in_cmyk_are_no_full_disk(recipe, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for i in range(4):
        Image.effect_noise((128, 128), 40 + i).convert("CMYK").save(scenes / f"{i}.jpg")
    assert synth(recipe.model_copy(update={"scenes": scenes}), tmp_path / "run").accepted == 3


def test_a_detector_of_a_strangers_run_is_never_loaded(recipe, tmp_path, monkeypatch):
    """Its files would write, raise or block; they are compared as bytes, if at all."""
    sys.path.insert(0, str(ROOT / "tests" / "mmrotate"))
    from evil_configs import write_evil

    from dataengine.judge import detector

    def loaded(*arguments, **named):
        raise AssertionError("a detector was loaded")

    out = synth(recipe, tmp_path / "run").out
    evil, pipes = tmp_path / "evil", tmp_path / "pipes"
    evil.mkdir(), pipes.mkdir()
    write_evil(evil, "import os\nos.system('touch marker')")
    for name in ("other.py", "base.py", "evil.py", "mmdet.py"):
        (evil / name).unlink()
    (evil / "last_checkpoint").write_text("evil.pkl")
    os.mkfifo(pipes / "model.onnx"), os.mkfifo(pipes / "config.json")
    monkeypatch.chdir(evil)
    monkeypatch.setattr(detector, "load_detector", loaded)
    monkeypatch.setattr(detector, "OnnxDetector", loaded)
    file = out / "recipe.json"
    for folder, found in (
        (evil, "the detector has changed"),
        (pipes, "the detector of this run is not on this machine"),
    ):
        content = json.loads(file.read_text())
        content["recipe"]["detector"] = str(folder)
        file.write_text(json.dumps(content))
        findings = verify(out)
        assert any(found in text for text in [*findings.notes, *(fault.message for fault in findings.faults)])
    assert not (evil / "marker").exists()


def test_the_identity_of_a_detector_is_that_of_the_loaded_one(toy_detector):
    from dataengine.judge.detector import identity_of, load_detector

    assert identity_of(toy_detector) == load_detector(toy_detector).identity


# --- traces ---

EVENT = '{"name": "render", "ph": "X", "ts": 1, "dur": 2, "tdur": 1, "pid": 1}'


@pytest.mark.parametrize(
    "line",
    ["{", "5", "null", "[]", "{}", '{"ph": "X"}', '{"ph": "Y", "name": "a"}', EVENT.replace("1,", '"1",'),
     EVENT.replace('"dur": 2', '"dur": null'), EVENT.replace('"dur": 2', '"dur": NaN'),
     EVENT.replace("render", "\\ud800"),
     EVENT.replace('"dur": 2', '"dur": -1'), EVENT.replace('"dur": 2', f'"dur": {"9" * 5000}'), "[" * 100_000,
     EVENT.replace('"pid": 1', '"pid": []'), EVENT.replace('"pid": 1', '"pid": {}'),
     '{"name": "lost", "ph": "M", "pid": 1}', '{"name": "lost", "ph": "M", "pid": 1, "args": {"reason": 1}}',
     '{"name": "lost", "ph": "M", "pid": "1", "args": {"reason": "a"}}', EVENT.replace("render", "lost")],
)  # fmt: skip
def test_a_line_of_a_trace_that_is_no_event_is_left_out(line, tmp_path):
    (tmp_path / "trace.json").write_text(f"[\n{EVENT},\n{line},\n]\n")
    result = CliRunner().invoke(app, ["trace", str(tmp_path)])
    assert result.exit_code == 0, result.exception
    assert "render" in result.output
    (tmp_path / "trace.json").write_text(f"[\n{line},\n]\n")
    result = CliRunner().invoke(app, ["trace", str(tmp_path)])
    assert isinstance(result.exception, UserError), result.exception


@pytest.mark.parametrize("kind", ["folder", "bytes", "empty", "missing"])
def test_a_trace_that_cannot_be_read_is_one_sentence(kind, tmp_path):
    file = tmp_path / "trace.json"
    if kind == "folder":
        file.mkdir()
    elif kind != "missing":
        file.write_bytes(b"\xff\xfe\x00" if kind == "bytes" else b"")
    result = CliRunner().invoke(app, ["trace", str(tmp_path)])
    assert isinstance(result.exception, UserError)
    assert "trace.json" in str(result.exception)


# --- the process ---


def command(*arguments: str | Path, **named) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "dataengine", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **named)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
@pytest.mark.parametrize("arguments", [["--help"], ["data", "info", "DATA"], ["data", "check", "DATA", "--json"]])
def test_output_to_a_full_disk_is_one_sentence(arguments, toy_dataset):
    with open("/dev/full", "w") as full:
        done = command(*(str(toy_dataset) if word == "DATA" else word for word in arguments), stdout=full)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written (No space left on device).\n"


def test_a_reader_that_has_enough_ends_the_command_in_silence():
    read, write = os.pipe()
    os.close(read)
    done = command("--help", stdout=write)
    os.close(write)
    assert done.returncode != 0
    assert done.stderr == ""


SLEEPING = """
import sys, time
from dataengine import cli
@cli.data_app.command("wait")
def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)
sys.argv = ["dataengine", "data", "wait"]
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_a_command_that_is_told_to_stop_says_so(name):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a shell lets what it starts in the background ignore some of them, which its children inherit
    default = partial(signal.signal, getattr(signal, name), signal.SIG_DFL)
    process = subprocess.Popen([sys.executable, "-c", SLEEPING], cwd=ROOT, preexec_fn=default, **pipes)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "stopped; finished work is kept, and the same command continues it\n")


def test_workers_leave_what_a_terminal_sends_to_the_run():
    seen, before = {}, [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)]
    with local.interrupts_ignored():
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            seen[number] = signal.getsignal(number)
    assert set(seen.values()) == {signal.SIG_IGN}
    assert [signal.getsignal(number) for number in seen] == before


@pytest.mark.parametrize("arguments", [
    ["data", "check", "F"], ["data", "info", "F"], ["data", "draw", "F", "--out", "O.png"], ["run", "verify", "F"],
    ["layout", "score", "F", "F"], ["release", "verify", "F"],
    ["synth", "--dataset", "hit-uav", "--data", "F", "--n", "1"],
    ["synth", "--dataset", "F"], ["synth", "--dataset", "hit-uav", "--calibration", "F", "--n", "1"],
    ["synth", "--config", "F"], ["layout", "sample", "F", "--out", "O.png"],
], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_with_the_name_of_a_json_file_is_one_sentence(arguments, inside, tmp_path):
    from dataengine.cli import app as whole

    folder = tmp_path / "data" / "x.json"
    folder.mkdir(parents=True)
    named = folder.parent if inside else folder
    words = [str(named) if word == "F" else str(tmp_path / word) if word == "O.png" else word for word in arguments]
    out = ["--out", str(tmp_path / "out")] if words[0] == "synth" else []
    result = CliRunner().invoke(whole, [*words, *out])
    assert result.exit_code != 0
    usage = type(result.exception).__module__.startswith(("click", "typer"))
    assert isinstance(result.exception, UserError | SystemExit) or usage, repr(result.exception)
    assert ADVICE not in str(result.exception)

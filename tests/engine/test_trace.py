"""The trace of a run: how busy each stage was."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from dataengine.engine.commands import app
from dataengine.engine.run import synth
from dataengine.engine.run_folder import RunFolder
from dataengine.engine.trace import busy, lost_worker, read_trace, trace_file
from dataengine.errors import UserError


def event(name: str, worker: int, start: float, seconds: float, cpu: float = 0.0) -> dict:
    return {"name": name, "ph": "X", "ts": start * 1e6, "dur": seconds * 1e6, "tdur": cpu * 1e6, "pid": worker}


def test_a_stages_share_is_of_the_time_between_loading_and_the_last_event_of_the_workers_that_carry_it_out():
    events = [
        event("load", 1, 0, 50), event("render", 1, 50, 6, 3), event("judge", 1, 56, 4), event("render", 1, 56, 4),
        event("load", 2, 0, 55), event("render", 2, 55, 5), event("judge", 2, 60, 5), event("store", 0, 55, 1),
        event("store", 0, 60, 1), {"name": "process_name", "ph": "M", "pid": 0},
    ]  # fmt: skip
    rows = {row.stage: row for row in busy(events)}
    assert rows["render"].share == pytest.approx(15 / 20), "15 of twice ten seconds"
    assert rows["judge"].share == pytest.approx(9 / 20)
    assert rows["store"].share == pytest.approx(2 / 6), "the run itself is at work from 55 to 61"
    assert (rows["render"].seconds, rows["render"].cpu_seconds) == pytest.approx((15, 3))
    assert [row.stage for row in busy(events)] == ["render", "judge", "store"], "the busiest first"


def test_each_shard_has_an_event_for_each_stage_and_the_file_is_what_the_viewers_read(toy_recipe, tmp_path):
    result = synth(toy_recipe, tmp_path / "run")
    events = json.loads((tmp_path / "run" / "trace.json").read_text())
    assert {"name", "ph", "ts", "dur", "pid", "tid"} <= events[0].keys()
    shards = {stage: [e["args"]["shard"] for e in events if e["name"] == stage] for stage in ("render", "judge")}
    assert sorted(shards["render"]) == sorted(shards["judge"]) == sorted(set(shards["judge"]))
    last = max(record.index for record in result.records) // toy_recipe.shard_size
    assert set(range(last + 1)) <= set(shards["render"]), "one that was made but not needed may be missing"
    before = (tmp_path / "run" / "trace.json").read_bytes()
    synth(toy_recipe, tmp_path / "run")
    assert (tmp_path / "run" / "trace.json").read_bytes() == before, "a run with nothing to do has nothing to tell"


def test_the_trace_of_a_killed_run_is_read_up_to_the_line_that_was_cut_off(tmp_path):
    with trace_file(RunFolder(tmp_path)) as add:
        add([event("render", 1, 0, 2), event("judge", 1, 2, 1)])
        text = (tmp_path / "trace.json").read_text()
    (tmp_path / "trace.json").write_text(text[:-20])
    assert [e["name"] for e in read_trace(RunFolder(tmp_path))] == ["render"]
    (tmp_path / "trace.json").unlink()
    with pytest.raises(UserError, match=r"no trace\.json here"):
        read_trace(RunFolder(tmp_path))


@pytest.mark.parametrize("shard", [3, None])
def test_run_trace_names_the_workers_that_were_lost_and_why(shard, tmp_path):
    with trace_file(RunFolder(tmp_path)) as add:
        add([event("render", 1, 0, 2)])
    assert "lost" not in CliRunner().invoke(app, ["trace", str(tmp_path)]).output
    with trace_file(RunFolder(tmp_path)) as add:
        add([event("render", 1, 0, 2), lost_worker(7, shard, "killed by [red] \x1b[31m\ud800")])
    [lost] = [e for e in read_trace(RunFolder(tmp_path)) if e["name"] == "lost"]
    assert lost["args"]["shard"] == shard
    output = CliRunner().invoke(app, ["trace", str(tmp_path)]).output
    assert r"worker 7 was killed or lost: killed by [red] \x1b[31m\ud800" in output

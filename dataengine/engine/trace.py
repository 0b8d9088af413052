"""How busy each stage of a run was, in the trace event format of chrome://tracing and Perfetto.

`trace.json` in the run folder is a JSON array, an event a line: what was done (`name`), when and for how long (`ts`,
`dur`, in microseconds), how much of that a core was at work (`tdur`), by which worker (`pid`), for which shard. A run
that is killed leaves an array without its end, which these programs read, too.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.files import create, read_text

THREADS = {"load": 1, "render": 1, "judge": 2, "encode": 2, "write": 2, "store": 1}  # where each stage is carried out
NAMES = {"X": tuple(THREADS), "M": ("process_name", "lost")}  # of events, by their kind (`ph`)


@contextmanager
def watch(events: list[dict], stage: str, worker: int, shard: int | None = None) -> Iterator[None]:
    """Append the event of a stage, one of THREADS, once it has ended well."""
    ts, started, cpu = time.time_ns() // 1000, time.perf_counter_ns(), time.thread_time_ns()
    yield
    duration, cpu = (time.perf_counter_ns() - started) // 1000, (time.thread_time_ns() - cpu) // 1000
    event = {"name": stage, "ph": "X", "ts": ts, "dur": duration, "tdur": cpu, "pid": worker, "tid": THREADS[stage]}
    events.append(event if shard is None else {**event, "args": {"shard": shard}})


def process_name(worker: int, name: str) -> dict:
    """The event that gives a worker its name in the viewers."""
    return {"name": "process_name", "ph": "M", "pid": worker, "args": {"name": name}}


def lost_worker(worker: int, shard: int | None, reason: str) -> dict:
    """The event of a worker that was killed or cannot be reached, while it made a shard, or loaded (None)."""
    return {"name": "lost", "ph": "M", "pid": worker, "args": {"shard": shard, "reason": reason}}


@contextmanager
def trace_file(run: RunFolder) -> Iterator[Callable[[list[dict]], None]]:
    """A function that appends events to the trace of a run, on disk as soon as it is called.

    An earlier trace is replaced with the first event, so a run with nothing to do keeps it.
    """
    with ExitStack() as stack:
        file = None

        def add(events: list[dict]) -> None:
            nonlocal file
            if events and file is None:
                file = stack.enter_context(create(run.trace))
                file.write("[\n")
            if file is not None:
                file.writelines(json.dumps(event) + ",\n" for event in events)
                file.flush()

        yield add
        if file is not None:
            file.write(json.dumps(process_name(0, "the run itself")) + "\n]\n")


@dataclass(frozen=True)
class Busy:
    """A stage over all workers. seconds: on the clock, of all workers together; cpu_seconds: of them at work on a core;
    share: part of the time, in [0, 1], of the workers that it is carried out by, from the end of loading to their last
    event."""

    stage: str
    seconds: float
    cpu_seconds: float
    share: float


def read_trace(run: RunFolder) -> list[dict]:
    """The events of a run; lines that are no events are left out. Raises UserError where there are none."""
    if not run.trace.exists():
        raise UserError(
            f"{run.path}: no {run.trace.name} here; give the folder of a run that dataengine synth has begun."
        )
    events = []
    for line in read_text(run.trace).splitlines():
        try:
            event = json.loads(line.removesuffix(","))
        except (ValueError, RecursionError):  # the array's brackets, and the line that a killed run had just begun
            continue
        if _is_event(event):
            events.append(event)
    if not any(event["ph"] == "X" for event in events):
        raise UserError(f"{run.trace}: no event can be read in it; the next run in this folder writes it again.")
    return events


def _is_event(value: object) -> bool:
    """Whether it is an event as `watch`, `process_name` or `lost_worker` writes them."""
    if not isinstance(value, dict) or value.get("name") not in NAMES.get(str(value.get("ph")), ()):
        return False
    args = value.get("args")
    if value["name"] == "lost" and not (isinstance(args, dict) and isinstance(args.get("reason"), str)):
        return False
    numbers = [value.get(key) for key in ("ts", "dur", "tdur")] if value["ph"] == "X" else []
    return type(value.get("pid")) is int and all(type(n) in (int, float) and 0 <= n < 2**63 for n in numbers)


def busy(events: list[dict]) -> list[Busy]:
    """How busy each stage was, the busiest first. A stage is carried out by one thread of a worker, so its events never
    overlap in one."""
    events = [event for event in events if event["ph"] == "X" and event["name"] != "load"]
    first, last, stages = {}, {}, defaultdict(list)
    for event in events:
        worker, end = event["pid"], event["ts"] + event["dur"]
        first[worker] = min(first.get(worker, event["ts"]), event["ts"])
        last[worker] = max(last.get(worker, end), end)
        stages[event["name"]].append(event)
    rows = []
    for stage, its in stages.items():
        at_work = sum(last[worker] - first[worker] for worker in {event["pid"] for event in its})
        seconds, cpu = (sum(event[key] for event in its) for key in ("dur", "tdur"))
        rows.append(Busy(stage, seconds / 1e6, cpu / 1e6, seconds / max(1, at_work)))
    return sorted(rows, key=lambda row: -row.share)

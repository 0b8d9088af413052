"""Does memory grow with a run, is its slowest stage kept busy, and what would ten million images cost?

    python tools/bench/scale.py [--planned 100000] [--made 2000] [--project 10000000] [--json results.jsonl]

1. A run of `--planned` images is begun and stopped once `--made` are tried; one of a hundredth of that, after a tenth.
   Every few seconds the resident memory of the run itself and of its largest worker is noted.
2. As many layouts as are planned are drawn, and forgotten: a run makes no other plan.
3. The images that were made are linked again and again until the run of `--planned` is whole, and the same command
   finishes it: what the run itself has in memory over all of its records, and how fast it is without rendering.
4. That run becomes WebDataset and Parquet files.

Then the costs of `--project` images, from what was measured. Broken off, the same command continues; memory is then
that of processes that have begun anew, and the trace tells of the last of them. Needs psutil, and disk for three copies
of the planned images (12 GB for 100,000), which are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
from results import append

from dataengine.engine.recipe import Recipe
from dataengine.engine.run_folder import RunFolder, image_name, record_files
from dataengine.engine.trace import busy, read_trace

SHARD = Recipe.model_fields["shard_size"].default
TAR, PART = 256e6, 8 * 2**20  # bytes of a tar, and of the parts that it is uploaded in by the common clients
KINDS = ("run", "run_alone", "worker", "worker_alone")
MARKS = (0.1, 0.25, 0.5, 0.75, 1.0)  # parts of what is made, at which memory is told


def watched(command: list[str], log: Path, samples: Path, made: Callable[[], int], enough: float = math.inf) -> None:
    """Run dataengine; note its memory every two seconds; stop it when enough is made. Exits when it fails."""
    with open(log, "a") as told, open(samples, "a") as file:
        run = subprocess.Popen([sys.executable, "-m", "dataengine", *command], stdout=told, stderr=told)
        try:
            done = 0
            while run.poll() is None and done < enough:
                time.sleep(2)
                done, memory = made(), resident(run.pid)
                file.write(json.dumps({"pid": run.pid, "time": time.time(), "made": done, **memory}) + "\n")
                file.flush()
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)
            run.wait()
    if run.returncode not in (0, 130):
        sys.exit(f"dataengine {' '.join(command)} failed; {log} says why.")


def read(samples: Path) -> list[dict]:
    """What `watched` noted."""
    return [json.loads(line) for line in samples.read_text().splitlines()]


def resident(pid: int) -> dict[str, float]:
    """Megabytes that the run itself has, and the most that one of its workers has; and how many are theirs alone, which
    the system cannot take back as it can the pages of files; and CPU seconds of the run itself."""
    found = {}
    try:
        process = psutil.Process(pid)
        for who, its in (("run", [process]), ("worker", process.children(recursive=True))):
            memory = [one.memory_full_info() for one in its]
            found[who] = max((one.rss for one in memory), default=0) / 1e6
            found[f"{who}_alone"] = max((one.uss for one in memory), default=0) / 1e6
        return {**found, "cpu": sum(process.cpu_times()[:2])}
    except psutil.NoSuchProcess:
        return dict.fromkeys((*KINDS, "cpu"), 0.0)


def tried(out: Path) -> int:
    """Images that lie in whole shards."""
    shards = out / "shards"
    return sum(name[0] != "." for name in os.listdir(shards)) * SHARD if shards.exists() else 0


def run_until(out: Path, dataset: str, n: int, workers: int, enough: int) -> dict:
    """Begin or continue a run of n images until enough are tried; the most memory shortly before each mark."""
    command = ["synth", "--dataset", dataset, "--n", str(n), "--workers", str(workers), "--out", str(out)]
    out.parent.mkdir(parents=True, exist_ok=True)
    samples = out.with_suffix(".memory.jsonl")
    if tried(out) < enough:
        watched(command, out.with_suffix(".log"), samples, lambda: tried(out), enough)
    rows = read(samples)
    at = {}
    for mark in (round(part * enough) for part in MARKS):
        before = [row for row in rows if row["made"] <= mark]
        near = [row for row in before if row["made"] >= 0.9 * max(row["made"] for row in before)]
        at[mark] = {who: round(max(row[who] for row in near)) for who in KINDS if who in near[0]}
    processes = len({row["pid"] for row in rows})
    return {"planned": n, "tried": tried(out), "mb_after": at, "times_begun": processes}


def stages(out: Path) -> dict:
    """How busy each stage was, and what an image takes."""
    events = [event for event in read_trace(RunFolder(out)) if event["ph"] == "X"]
    shards = {event["args"]["shard"] for event in events if "args" in event}
    rows, images = busy(events), SHARD * len(shards)
    work = [event for event in events if event["name"] != "load"]
    seconds = (max(event["ts"] + event["dur"] for event in work) - min(event["ts"] for event in work)) / 1e6
    return {
        "busy": {row.stage: round(row.share, 4) for row in rows},
        "on_a_core": {row.stage: round(row.cpu_seconds / max(1e-9, row.seconds), 3) for row in rows},
        "images_a_second": round(images / seconds, 3),
        "cpu_seconds_an_image": round(sum(row.cpu_seconds for row in rows) / images, 3),
    }


def layouts(dataset: str, n: int) -> dict:
    """Draw n layouts, each forgotten; megabytes after a hundredth, a tenth and all of them."""
    from dataengine.engine.attempt import sample_layouts
    from dataengine.engine.parts import load_parts

    recipe = Recipe(dataset=dataset, n=n)
    parts, objects, at, started = load_parts(recipe), 0, {}, time.process_time()
    for i in range(n):
        objects += len(sample_layouts(parts, recipe, range(i, i + 1))[0])
        if i + 1 in (n // 100, n // 10, n):
            at[i + 1] = round(psutil.Process().memory_info().rss / 1e6)
    return {"mb_after": at, "ms_a_layout": round(1000 * (time.process_time() - started) / n, 3), "objects": objects}


def alone(function, *arguments):
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def multiply(run: Path, out: Path, n: int) -> int:
    """Make a run of n accepted images from one that was stopped, by links to its images; how many it has tried."""
    source, copy, shards, accepted = RunFolder(run), RunFolder(out), [], 0
    while source.shard(len(shards)).exists():
        shard = source.examine_shard(len(shards))
        assert not shard.faults, shard.faults
        shards.append(shard.records)
    number = 0
    while accepted < n:
        records = shards[number % len(shards)]
        folder, lines = copy.shard(number), []
        folder.mkdir(parents=True)
        for k, record in enumerate(records):
            image = image_name(number, number * len(records) + k)
            os.link(source.image(record), out / image)
            lines.append(replace(record, index=number * len(records) + k, image=image).to_json())
            accepted += record.accepted
        for name, content in record_files(lines).items():
            (folder / name).write_bytes(content)
        number += 1
    shutil.copy(source.recipe, copy.recipe)
    shutil.copy(source.calibration, copy.calibration)
    return tried(out)


def finishing(run: Path, out: Path, dataset: str, n: int) -> dict:
    """What the run itself needs for n images when others have rendered them: data sets, sheets and all."""
    count = multiply(run, out, n)
    samples, started = out.with_suffix(".memory.jsonl"), time.time()
    command = ["synth", "--dataset", dataset, "--n", str(n), "--workers", "1", "--out", str(out)]
    watched([*command, "--no-datasets"], out.with_suffix(".log"), samples, lambda: 0)
    reading = time.time() - started
    watched(command, out.with_suffix(".log"), samples, lambda: 1)
    rows = read(samples)
    return {
        "tried": count, "accepted": sum(record.accepted for record in RunFolder(out).records()),
        "mb_at_most": {
            "without data sets": round(max(row["run"] for row in rows if not row["made"])),
            "with data sets": round(max(row["run"] for row in rows if row["made"])),
        },
        "images_a_second": round(count / reading),
        "cpu_seconds_without_data_sets": round(max(row["cpu"] for row in rows if not row["made"]), 1),
    }  # fmt: skip


def exported(out: Path, form: str) -> dict:
    """Write an export; megabytes of memory, bytes an image, images a second."""
    samples, target, started = out.with_suffix(f".{form}.jsonl"), out.with_name(form), time.time()
    watched(
        ["export", "shards", str(out), "--format", form, "--out", str(target)], out.with_suffix(".log"), samples, int
    )
    seconds, told = time.time() - started, json.loads((target / "dataset.json").read_text())
    size = sum(one["bytes"] for one in told["files"])
    shutil.rmtree(target)
    return {
        "files": len(told["files"]), "bytes_an_image": round(size / told["images"]),
        "images_a_second": round(told["images"] / seconds),
        "mb_at_most": round(max(row["run"] for row in read(samples))),
    }  # fmt: skip


def sizes(run: Path) -> dict:
    """Bytes an image of kept and of dropped ones, of a record, and the share that is accepted."""
    images, records = {True: [], False: []}, []
    number = 0
    folder = RunFolder(run)
    while folder.shard(number).exists():
        shard = folder.examine_shard(number)
        for line, record in zip(shard.lines, shard.records, strict=True):
            images[record.accepted].append(folder.image(record).stat().st_size)
            records.append(len(line.encode()) + 1)
        number += 1
    mean = {kept: round(sum(found) / len(found)) if found else 0 for kept, found in images.items()}
    return {
        "kept_image": mean[True], "dropped_image": mean[False], "record": round(sum(records) / len(records)),
        "accepted_share": round(len(images[True]) / len(records), 4),
    }  # fmt: skip


def projected(result: dict, n: int) -> dict:
    """What n accepted images would take, if all goes on as it was measured."""
    size, attempts = result["bytes"], n / result["bytes"]["accepted_share"]
    images = n * size["kept_image"] + (attempts - n) * size["dropped_image"]
    tars = math.ceil(n * result["webdataset"]["bytes_an_image"] / TAR)
    return {
        "attempts": round(attempts),
        "core_hours": round(attempts * result["stages"]["cpu_seconds_an_image"] / 3600),
        "run_gb": round((images + 2 * attempts * size["record"]) / 1e9),  # records lie in shards and in the manifest
        "files_in_shards": round(attempts + 2 * attempts / SHARD),
        "gb_through_the_object_store": round((images + attempts * size["record"]) / 1e9),
        "hours_of_the_run_itself": round(attempts / result["finishing"]["images_a_second"] / 3600, 1),
        "tars": tars,
        "tar_gb": round(tars * TAR / 1e9),
        "parquet_gb": round(n * result["parquet"]["bytes_an_image"] / 1e9),
        "hours_to_write_tars": round(n / result["webdataset"]["images_a_second"] / 3600, 1),
        "requests_to_upload_tars": tars * (2 + math.ceil(TAR / PART)),  # begin, parts, end
        "requests_to_upload_loose": 2 * n,  # an image and a label file each
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="hit-uav")
    parser.add_argument("--planned", type=int, default=100_000, help="accepted images of the long run")
    parser.add_argument("--made", type=int, default=2000, help="images tried before it is stopped")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--project", type=int, default=10_000_000, help="images to reckon the costs of")
    parser.add_argument("--skip", nargs="*", default=(), choices=("layouts", "finish", "export"))
    parser.add_argument("--out", type=Path, default=Path("work/scale"), help="folder for the runs, kept")
    parser.add_argument("--json", type=Path, help="append the result to this file")
    arguments = parser.parse_args()
    import torch

    from dataengine.render.precision import has_native_bf16

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run is ended, too
    out, n, dataset = arguments.out, arguments.planned, arguments.dataset
    result = {
        "benchmark": "scale",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, bf16 {has_native_bf16(torch.device('cpu'))}",
        "load": [round(x, 1) for x in os.getloadavg()], "python": platform.python_version(), "dataset": dataset,
        "workers": arguments.workers,
    }  # fmt: skip

    def tell(name: str, value) -> None:
        result[name] = value
        print(name, json.dumps(value), flush=True)

    long = out / f"planned-{n}"
    tell("long run", run_until(long, dataset, n, arguments.workers, arguments.made))
    tell("stages", stages(long))
    tell("bytes", sizes(long))
    short = out / f"planned-{n // 100}"
    tell("short run", run_until(short, dataset, n // 100, arguments.workers, arguments.made // 10))
    if "layouts" not in arguments.skip:
        tell("layouts", alone(layouts, dataset, n))
    if "finish" not in arguments.skip:
        whole = out / "whole"
        for old in (whole, out / "webdataset", out / "parquet"):
            shutil.rmtree(old, ignore_errors=True)
        for old in out.glob("whole.*jsonl"):
            old.unlink()
        tell("finishing", finishing(long, whole, dataset, n))
        if "export" not in arguments.skip:
            for form in ("webdataset", "parquet"):
                tell(form, exported(whole, form))
            tell(f"{arguments.project} images", projected(result, arguments.project))
        shutil.rmtree(whole)
    result["load after"] = [round(x, 1) for x in os.getloadavg()]
    append(result, arguments.json)


if __name__ == "__main__":
    main()

"""Executor on this machine with a process for each worker (`worker.in_this_process` needs none).

An executor is a generator that makes shards until there is none left to make, and reports each as soon as it lies in
the run folder. It asks `next_shard` which one to make; None is "none as things stand", and it asks again when
another shard is done.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from dataengine.engine.trace import process_name, watch
from dataengine.engine.worker import AHEAD, Done, NextShard, Stores, WorkerJob
from dataengine.errors import UserError, is_out_of_memory, out_of_memory


def in_processes(job: WorkerJob, run: Stores, workers: int, next_shard: NextShard) -> Iterator[Done]:
    """Make shards in processes that each load the parts; whoever is done gets the next shard.

    A process that has done its `life` ends and a fresh one takes its place, so that memory does not grow with the run.
    Raises UserError when one of them is killed, and whatever one of them raises. They are ended with the generator:
    half a shard is nothing, so nothing is lost.
    """
    from dataengine.render.renderer import best_device

    context = get_context("spawn")
    shards = job.life(on_gpu=best_device() != "cpu")
    working: dict[Connection, _Process] = {}

    def begin(number: int) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(job, run, number, theirs), daemon=True)
        working[ours] = _Process(number, process, left=shards)
        with interrupts_ignored():
            process.start()
        theirs.close()

    try:
        for number in range(1, workers + 1):
            begin(number)
        while True:
            _hand_out(working, next_shard)
            if not any(one.held for one in working.values()):
                return
            for connection in wait(list(working)):
                try:
                    done = connection.recv()
                except (EOFError, ConnectionError):
                    raise _killed() from None
                if isinstance(done, BaseException):
                    raise done
                one = working[connection]
                one.held -= done.shard is not None
                if not one.left and not one.held:
                    one.process.kill()
                    one.process.join()
                    connection.close()
                    del working[connection]
                    begin(one.number)
                yield done
    finally:
        for one in working.values():
            one.process.kill()
        for one in working.values():
            one.process.join()


@dataclass
class _Process:
    """number: of the worker. left: shards that it may still be given. held: those that it is making."""

    number: int
    process: BaseProcess
    left: int
    held: int = 0


def _hand_out(working: dict[Connection, _Process], next_shard: NextShard) -> None:
    """Give every worker its first shard before any gets another one."""
    for depth in range(AHEAD):
        for connection, one in working.items():
            if one.held == depth and one.left:
                if (number := next_shard()) is None:
                    return
                try:
                    connection.send(number)
                except ConnectionError:
                    raise _killed() from None
                one.held, one.left = one.held + 1, one.left - 1


def _work(job: WorkerJob, run: Stores, number: int, connection: Connection) -> None:
    """A worker process: makes the shards that it is sent, until the run has ended in any way."""
    lock = threading.Lock()  # both threads send messages

    def send(message: Done | BaseException) -> None:
        with lock:
            connection.send(message)

    try:
        loading = Done(None, [process_name(number, f"worker {number}, process {os.getpid()}")])
        with watch(loading.events, "load", number):
            worker = job.worker(number, lambda n: send(Done(None, painted=n)))
        send(loading)
        while True:
            shard = connection.recv()
            future = worker.start(shard, run.store(shard))
            future.add_done_callback(lambda f: send(_sendable(f.exception()) if f.exception() else f.result()))
    except (EOFError, BrokenPipeError):
        os._exit(1)  # without waiting for results that are no longer needed
    except BaseException as error:
        send(_sendable(error))


def _killed() -> UserError:
    return UserError(
        "a worker process was killed, often for want of memory; the same command continues, perhaps with fewer "
        "--workers."
    )


def _sendable(error: BaseException) -> BaseException:
    """Errors that a user can fix go through as they are, others as text: not every exception can be pickled."""
    if is_out_of_memory(error):
        return out_of_memory("a worker")
    return error if isinstance(error, UserError | OSError) else RuntimeError("".join(traceback.format_exception(error)))


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore what a terminal sends to all, such as Ctrl-C: the run itself ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Detectors from outside run in a process of their own, with limits on time, memory and output.

A model can loop without end or ask for all memory, and the libraries that run it were not made for files of strangers.
What comes back is text and plain arrays, which are checked. Packaged detectors run inside of the calling process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dataengine.errors import UserError, one_line

# CPU seconds: those of the wall would stop what is slow only because the machine is busy
LOAD_SECONDS, LOAD_SECONDS_PER_BYTE = 8, 1e-7  # to load a model, without the import of its library
PICTURE_SECONDS, WINDOW_SECONDS = 5, 60  # of a picture, and of each window of 1024 x 1024 pixels
WINDOW = 1024
WAITING = 20  # times the CPU time that a parent waits, on a busy machine
IMPORT_SECONDS = 300  # that the import of a library may take there
BASE_BYTES, BYTES_PER_WEIGHT_BYTE, BYTES_PER_PIXEL = 2**29, 8, 2**10  # of memory, beyond that of the imports
MMROTATE_BYTES = 2**32  # in place of the base, as its imports come after the limit
MAX_DETECTIONS = 100_000  # of a picture
MAX_REPLY_BYTES = 2**20  # of text


class ChildDetector:
    """A detector (see `judge.detector.Detector`) that `folder` holds, in a child process.

    Raises UserError where the detector cannot be loaded, and for a picture on which it fails, ends, or exceeds its
    limits.
    """

    def __init__(self, folder: str | Path, threads: int = 0):
        self.folder, self.threads, self.process = Path(folder), threads, None
        self.lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process lives
        command, variables = _command(self.folder, self.threads)
        self.process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said
        )
        size = sum(file.stat().st_size for file in self.folder.glob("*") if file.is_file())
        hello = self._reply(LOAD_SECONDS + LOAD_SECONDS_PER_BYTE * size)[0]
        classes, self.side = hello.get("classes"), hello.get("side")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not self.side:
            raise UserError(f"{self.folder}: its detector does not say which classes it knows.")
        self.classes, self.identity = tuple(classes), str(hello.get("identity"))

    def detect(self, images: Sequence[np.ndarray]) -> list:
        """Detections of each image, uint8 (H, W, 3) RGB."""
        with self.lock:
            return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray):
        from dataengine.judge.detector import Detections

        if self.process.poll() is not None:
            self._start()
        pixels = np.ascontiguousarray(image, np.uint8)
        with contextlib.suppress(BrokenPipeError):  # the reply says why
            self.process.stdin.write(struct.pack("<II", *pixels.shape[:2]) + pixels.tobytes())
            self.process.stdin.flush()
        reply, content = self._reply(seconds_of(pixels.shape, self.side), arrays=True)
        n = reply["n"]
        boxes, scores = (
            np.frombuffer(content[: 20 * n], np.float32),
            np.frombuffer(content[20 * n : 24 * n], np.float32),
        )
        labels = np.frombuffer(content[24 * n :], np.int64)
        if not np.isfinite(boxes).all() or not np.isfinite(scores).all() or not (labels >= 0).all():
            self._fail("gives values that are not finite")
        if n and labels.max() >= len(self.classes):
            self._fail("gives labels outside of its classes")
        return Detections(boxes.reshape(-1, 5).copy(), scores.copy(), labels.copy())

    def _reply(self, seconds: float, arrays: bool = False) -> tuple[dict, bytes]:
        timer = threading.Timer(WAITING * seconds + IMPORT_SECONDS, self.process.kill)
        timer.start()
        try:
            (length,) = struct.unpack("<I", self._read(4, seconds))
            if length > MAX_REPLY_BYTES:
                self._fail(f"says more than {MAX_REPLY_BYTES:,} bytes")
            try:
                reply = json.loads(self._read(length, seconds))
            except ValueError:
                reply = None
            if not isinstance(reply, dict):
                self._fail("gives no answer that can be read")
            if "error" in reply:
                raise UserError(str(reply["error"]))
            n = reply.get("n", 0)
            if not isinstance(n, int) or not 0 <= n <= MAX_DETECTIONS:
                self._fail(f"finds more than {MAX_DETECTIONS:,} objects in a picture")
            return reply, self._read(32 * n, seconds) if arrays else b""
        finally:
            timer.cancel()

    def _read(self, length: int, seconds: float) -> bytes:
        content = self.process.stdout.read(length)
        if len(content) == length:
            return content
        status = self.process.wait()
        self.said.seek(0)
        last = self.said.read()[-2000:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        if status in (-signal.SIGKILL, -getattr(signal, "SIGPROF", 27)):
            raise UserError(
                f"{self.folder}: its detector took more than {seconds:.0f} s of CPU time, or was ended from outside; "
                "take a smaller one."
            )
        raise UserError(
            f"{self.folder}: the process of its detector ended with status {status} ({one_line(Exception(last))}); it "
            "may need more memory than it is given."
        )

    def _fail(self, reason: str) -> None:
        self.close()
        raise UserError(f"{self.folder}: its detector {reason}; give another one.")

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the program, modules may be gone
            self.close()


def _command(folder: Path, threads: int) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment variables of the child. A detector of mmrotate runs in the kept environment
    where there is one and this Python has no mmrotate."""
    arguments = "dataengine.judge.child", os.path.abspath(folder), str(threads)
    variables = os.environ | {"MALLOC_ARENA_MAX": "2"}
    if (folder / "last_checkpoint").exists():
        from dataengine.mmrotate import environment

        if not environment.is_here() and environment.is_ready():
            return environment.command(*arguments), variables
    return [sys.executable, "-m", *arguments], variables | {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))
    }


def seconds_of(shape: tuple[int, ...], side: int) -> float:
    """CPU seconds that a detector may take for a picture of this shape, (H, W, ...). side: of its windows.

    >>> seconds_of((512, 512), 1024), round(seconds_of((2048, 2048), 1024))
    (65.0, 545)
    """
    from dataengine.judge.detector import window_spans

    windows = len(window_spans(shape[0], side)) * len(window_spans(shape[1], side))
    return PICTURE_SECONDS + WINDOW_SECONDS * windows * (side / WINDOW) ** 2


def _serve(folder: Path, threads: int) -> None:
    """The child: load the detector, say what it knows, and answer pictures until the parent ends."""
    inlet, outlet = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        detector, side = _load(folder, threads)
    except UserError as error:
        _say(outlet, {"error": str(error)})
        return
    _say(outlet, {"classes": list(detector.classes), "identity": detector.identity, "side": side})
    while len(head := inlet.read(8)) == 8:
        height, width = struct.unpack("<II", head)
        image = np.frombuffer(inlet.read(height * width * 3), np.uint8).reshape(height, width, 3)
        _limit_time(seconds_of(image.shape, side))
        try:
            (found,) = detector.detect([image])
        except UserError as error:
            _say(outlet, {"error": str(error)})
            continue
        except MemoryError:
            _say(outlet, {"error": f"{folder}: its detector needs more memory than it is given; take a smaller one."})
            continue
        finally:
            _limit_time(0)
        n = len(found)
        _say(outlet, {"n": n}, found.boxes.astype(np.float32).tobytes() if n <= MAX_DETECTIONS else b"",
             found.scores.astype(np.float32).tobytes(), found.labels.astype(np.int64).tobytes())  # fmt: skip


def _load(folder: Path, threads: int):
    """(detector, side of its windows), loaded under the limits."""
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file())
    if (folder / "last_checkpoint").exists():
        import torch

        from dataengine.mmrotate.detector import MmrotateDetector, work_dir_parts

        if not torch.cuda.is_available():  # whose drivers reserve more than any machine has
            _limit_memory(size, WINDOW, MMROTATE_BYTES)
        return MmrotateDetector(*work_dir_parts(folder), threads=threads), WINDOW
    import onnxruntime  # noqa: F401  before the limits

    from dataengine.judge.detector import OnnxDetector, read_config

    side = read_config(folder).image_size
    _limit_memory(size, side)
    _limit_time(LOAD_SECONDS + LOAD_SECONDS_PER_BYTE * size)
    detector = OnnxDetector(folder, threads)
    _limit_time(0)
    return detector, side


def _limit_memory(model_bytes: int, side: int, base_bytes: int = BASE_BYTES) -> None:
    """Limit the memory of this process. Without effect on Windows."""
    with contextlib.suppress(ImportError):
        import resource

        statm = Path("/proc/self/statm")  # its sixth number has the pages of data and stack
        used = int(statm.read_text().split()[5]) * resource.getpagesize() if statm.exists() else 2**30
        limit = used + base_bytes + BYTES_PER_WEIGHT_BYTE * model_bytes + BYTES_PER_PIXEL * side**2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _limit_time(seconds: float) -> None:
    """End this process after some seconds of CPU time; 0 for no limit. The system does it, as Python waits for the
    library. On Windows only the parent's clock ends it."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process


def _say(outlet: BinaryIO, reply: dict, *arrays: bytes) -> None:
    text = json.dumps(reply).encode()
    outlet.write(struct.pack("<I", len(text)) + text + b"".join(arrays))
    outlet.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))

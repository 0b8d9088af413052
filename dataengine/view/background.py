"""Work of the page in a thread of its own."""

from __future__ import annotations

import threading

from dataengine.errors import UserError


class BackgroundWork:
    """Work that starts with the first request and runs in one thread. A subclass does it in `_work`, which returns once
    `_stopped` is set. error: why it ended early, for the page, or ""."""

    def __init__(self):
        self.error = ""
        self._starting, self._thread, self._stopped = threading.Lock(), None, threading.Event()

    def start(self) -> None:
        """Start, unless it has started."""
        with self._starting:
            if self._thread is None:
                self._prepare()
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until all is done, or it failed."""
        self.start()
        self._thread.join()

    def stop(self) -> None:
        """Stop, and wait for the thread, which would block the program's exit."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _prepare(self) -> None:
        """What is known before the first request is answered."""

    def _work(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._work()
        except UserError as error:
            self.error = str(error)
        except Exception as error:  # shown on the page, which would wait forever otherwise
            self.error = f"{type(error).__name__}: {error}"
            raise

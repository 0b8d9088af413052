"""The real images that are nearest to a generated one, as `evaluate memorisation` measures it."""

from __future__ import annotations

import io
import threading
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.data.layout_json import layout_from_json
from dataengine.errors import UserError
from dataengine.evaluate.manifold import distances
from dataengine.view.images import NotServedError, inside
from dataengine.view.index import Index
from dataengine.view.source import store

if TYPE_CHECKING:
    from dataengine.evaluate.windows import Window

FEATURES = "encoder-grid"  # of evaluate/memorisation.py: the packaged encoder's, of 4 x 4 parts
OF_EACH = 2  # windows of every real image, as in the evaluation
BATCH = 16


class Neighbours:
    """Embeddings of windows of the real images, made in a thread when first asked for, and kept in the cache.

    Those that are made so far can be searched at any time. windows: of the generated images' size, at native
    resolution; an image that cannot be decoded has none.
    """

    def __init__(self, real: Index, size: tuple[int, int]):
        """size: (width, height) of the windows in pixels."""
        self.real, self.size = real, size
        self.windows: list[Window] = []
        self.of_picture: list[int] = []  # the real image that each window is of
        self.done, self.error = 0, ""
        self._embeddings = np.zeros((0, 0), np.float32)
        self._features = None
        self._start, self._encoding, self._thread = threading.Lock(), threading.Lock(), None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to embed, unless that was begun before."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Until every window is embedded, or that failed."""
        self.start()
        self._thread.join()

    def stop(self) -> None:
        """Give up embedding; a thread that were still at work would break the program's end."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def nearest(self, image: np.ndarray, n: int = 8) -> list[tuple[float, int]]:
        """(distance, window) of the windows embedded so far, nearest first, one of each real image.

        image: uint8 (H, W, 3)."""
        done = self.done
        if not done:
            return []
        query = self._embed([image]).astype(np.float64)
        far = distances(query, self._embeddings[:done].astype(np.float64))[0]
        best: dict[int, tuple[float, int]] = {}
        for k in np.argsort(far, kind="stable"):
            best.setdefault(self.of_picture[k], (float(far[k]), int(k)))
            if len(best) == n:
                break
        return list(best.values())

    def _embed(self, images: list[np.ndarray]) -> np.ndarray:
        with self._encoding:
            if self._features is None:
                from dataengine.evaluate.features import load_features

                self._features = load_features(FEATURES)
            return self._features.encode(images)

    def _work(self) -> None:
        try:
            self._cut()
            name = f"embeddings-{FEATURES}-{self.size[0]}x{self.size[1]}"
            cached = self.real.source.cache / f"{name}-{self.real.source.fingerprint}.npy"
            if cached.exists():
                embeddings = np.load(cached, allow_pickle=False)
                if len(embeddings) == len(self.windows):
                    self._embeddings, self.done = embeddings, len(embeddings)
                    return
            rows = iter(self.windows)
            while batch := list(islice(rows, BATCH)):
                if self._stopped.is_set():
                    return
                found = self._embed([window.pixels() for window in batch])
                if not self.done:
                    self._embeddings = np.zeros((len(self.windows), found.shape[1]), np.float32)
                self._embeddings[self.done : self.done + len(batch)] = found
                self.done += len(batch)
            buffer = io.BytesIO()
            np.save(buffer, self._embeddings)
            store(self.real.source.cache, name, self.real.source.fingerprint, ".npy", buffer.getvalue())
        except UserError as error:
            self.error = str(error)
        except Exception as error:  # shown on the page, which would else wait for ever
            self.error = f"{type(error).__name__}: {error}"
            raise

    def _cut(self) -> None:
        """Windows of the real images."""
        from dataengine.evaluate.windows import cut_windows

        samples, numbers = [], {}
        # in random order, so that those embedded first speak for all
        for i in np.random.default_rng(0).permutation(len(self.real)).tolist():
            record = self.real.record(i)
            try:
                file = inside(self.real.source.root, record["image"])
            except NotServedError:
                continue
            numbers[str(i)] = i
            samples.append(Sample(str(i), file, layout_from_json(record["labels"])))
        if not samples:
            raise UserError("no real image can be read.")
        self.windows = cut_windows(Dataset(self.real.classes, samples), self.size, of_each=OF_EACH)
        self.of_picture = [numbers[window.name] for window in self.windows]

"""Real images nearest to a generated one, by the distance of `evaluate memorisation`."""

from __future__ import annotations

import io
import threading
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data.layout import Dataset, Sample
from dataengine.errors import UserError
from dataengine.evaluate.manifold import distances
from dataengine.view.background import BackgroundWork
from dataengine.view.images import NotServedError, inside
from dataengine.view.index import Index
from dataengine.view.source import store

if TYPE_CHECKING:
    from dataengine.evaluate.windows import Window

FEATURES = "encoder-grid"  # as in evaluate/memorisation.py
WINDOWS_PER_IMAGE = 2  # as in the evaluation
BATCH_SIZE = 16


class Neighbours(BackgroundWork):
    """Embeddings of windows of the real images, computed in a thread after the first request and stored in the cache.

    The embeddings computed so far can be searched at any time. windows: of the generated images' size, at native
    resolution; images that cannot be decoded are skipped. done: number of embedded windows.
    """

    def __init__(self, real: Index, size: tuple[int, int]):
        """size: (width, height) of the windows in pixels."""
        super().__init__()
        self.real, self.size = real, size
        self.windows: list[Window] = []
        self.image_of: list[int] = []  # index of the real image of each window
        self.done = 0
        self._embeddings = np.zeros((0, 0), np.float32)
        self._features = None
        self._encoding = threading.Lock()

    def nearest(self, image: np.ndarray, n: int = 8) -> list[tuple[float, int]]:
        """(distance, window index) of the nearest windows embedded so far, at most one of each real image.

        image: uint8 (H, W, 3)."""
        done = self.done
        if not done:
            return []
        query = self._embed([image]).astype(np.float64)
        far = distances(query, self._embeddings[:done].astype(np.float64))[0]
        best: dict[int, tuple[float, int]] = {}
        for k in np.argsort(far, kind="stable"):
            best.setdefault(self.image_of[k], (float(far[k]), int(k)))
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
        self._cut()
        name = f"embeddings-{FEATURES}-{self.size[0]}x{self.size[1]}"
        cached = self.real.source.cache / f"{name}-{self.real.source.fingerprint}.npy"
        if cached.exists():
            embeddings = np.load(cached, allow_pickle=False)
            if len(embeddings) == len(self.windows):
                self._embeddings, self.done = embeddings, len(embeddings)
                return
        rows = iter(self.windows)
        while batch := list(islice(rows, BATCH_SIZE)):
            if self._stopped.is_set():
                return
            embeddings = self._embed([window.pixels() for window in batch])
            if not self.done:
                self._embeddings = np.zeros((len(self.windows), embeddings.shape[1]), np.float32)
            self._embeddings[self.done : self.done + len(batch)] = embeddings
            self.done += len(batch)
        buffer = io.BytesIO()
        np.save(buffer, self._embeddings)
        store(self.real.source.cache, name, self.real.source.fingerprint, ".npy", buffer.getvalue())

    def _cut(self) -> None:
        """Cut the windows of the real images."""
        from dataengine.evaluate.windows import cut_windows

        samples, numbers = [], {}
        # in random order, so that the first embeddings are representative
        for i in np.random.default_rng(0).permutation(len(self.real)).tolist():
            entry = self.real.entry(i)
            try:
                file = inside(self.real.source.root, entry.image)
            except NotServedError:
                continue
            numbers[str(i)] = i
            samples.append(Sample(str(i), file, entry.labels, pixel_range=entry.pixel_range))
        if not samples:
            raise UserError("no real image can be read; check the images of --real.")
        self.windows = cut_windows(Dataset(self.real.classes, samples), self.size, of_each=WINDOWS_PER_IMAGE)
        self.image_of = [numbers[window.name] for window in self.windows]

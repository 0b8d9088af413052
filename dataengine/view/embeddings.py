"""Embeddings of objects and of images, made and real ones, in the background: for maps, similar objects, and the
distance of each made object to the nearest real one."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dataengine.evaluate.manifold import distances, nearest
from dataengine.view.background import BackgroundWork
from dataengine.view.gallery import Gallery
from dataengine.view.images import NotServedError
from dataengine.view.objects import pixels_of, starts
from dataengine.view.source import store

FEATURES = "encoder"  # packaged, trained on aerial images
MAX_OF_EACH = 2000  # objects or images of each side, chosen at random
BATCH_SIZE = 16
MAX_SIDE_PX = 512  # of an image that is embedded; larger ones are shrunk
Kind = Literal["objects", "pictures"]


@dataclass(frozen=True)
class Item:
    """One object or image. m: the object's index in the columns, or -1. i: its image. k: the object in its image."""

    side: str
    m: int
    i: int
    k: int


class Embeddings(BackgroundWork):
    """items: in random order, sides in turn; done: how many are embedded so far. Starts with the first request.

    The labels are those of the time of the start: objects that are corrected later keep their place in the map.
    """

    def __init__(self, sides: dict[str, Gallery], kind: Kind, encode=None):
        """sides: galleries by their names. encode: images -> (B, E), None for the packaged encoder."""
        super().__init__()
        self.sides, self.kind = sides, kind
        self.items: list[Item] = []
        self.vectors = np.zeros((0, 0), np.float32)
        self.done = 0
        self._encode, self._encoding = encode, threading.Lock()
        self._map, self._near = (-1, None, 0.0), (-1, {})

    def _prepare(self) -> None:
        self.items = self._chosen()

    def _chosen(self) -> list[Item]:
        rng, chosen = np.random.default_rng(0), []
        for side, gallery in self.sides.items():
            columns = gallery.index.columns
            n = len(columns.image) if self.kind == "objects" else len(gallery.index)
            some = rng.permutation(n)[:MAX_OF_EACH] if n < 10**6 else rng.choice(n, MAX_OF_EACH, replace=False)
            if self.kind == "pictures":
                chosen.append([Item(side, -1, int(i), -1) for i in some])
            else:
                first = starts(gallery)
                images = columns.image[some]
                rows = zip(some.tolist(), images.tolist(), (some - first[images]).tolist(), strict=True)
                chosen.append([Item(side, m, i, k) for m, i, k in rows])
        longest = max(map(len, chosen), default=0)
        return [part[j] for j in range(longest) for part in chosen if j < len(part)]

    def pixels(self, item: Item) -> np.ndarray | None:
        """What is embedded of an item, uint8 (S, S, 3): an object turned upright, or an image; None if it is broken."""
        from dataengine.evaluate.classification_score import crop  # imports torch

        gallery = self.sides[item.side]
        try:
            image = pixels_of(gallery, item.i)
        except (NotServedError, IndexError):
            return None
        if self.kind == "objects":
            labels = gallery.index.entry(item.i).labels
            return crop(image, labels.boxes[item.k], labels.kind) if item.k < len(labels) else None
        step = -(-max(image.shape[:2]) // MAX_SIDE_PX)
        return np.ascontiguousarray(image[::step, ::step])

    def encode(self, images: list[np.ndarray]) -> np.ndarray:
        """Embeddings float32 (B, E) of images."""
        with self._encoding:
            if self._encode is None:
                from dataengine.evaluate.features import load_features

                self._encode = load_features(FEATURES).encode
            return np.asarray(self._encode(images), np.float32)

    def _work(self) -> None:
        cache, fingerprint = self._cache()
        file = cache / f"embeddings-{self.kind}-{fingerprint}.npy"
        if file.exists():
            vectors = np.load(file, allow_pickle=False)
            if len(vectors) == len(self.items):
                self.vectors, self.done = vectors, len(vectors)
                return
        while self.done < len(self.items) and not self._stopped.is_set():
            batch = self.items[self.done : self.done + BATCH_SIZE]
            images = [self.pixels(item) for item in batch]
            known = [k for k, image in enumerate(images) if image is not None]
            found = self.encode([images[k] for k in known]) if known else np.zeros((0, 1), np.float32)
            if not self.done:
                self.vectors = np.full((len(self.items), found.shape[1]), np.nan, np.float32)
            self.vectors[self.done + np.array(known, int)] = found
            self.done += len(batch)
        if self.done == len(self.items):
            buffer = io.BytesIO()
            np.save(buffer, self.vectors)
            store(cache, f"embeddings-{self.kind}", fingerprint, ".npy", buffer.getvalue())

    def _cache(self):
        """The cache folder of the first side, and what the embeddings depend on."""
        sources = [gallery.index.source for gallery in self.sides.values()]
        versions = [str(len(gallery.choices.changes)) for gallery in self.sides.values() if gallery.choices]
        return sources[0].cache, "-".join([*(source.fingerprint for source in sources), *versions, str(MAX_OF_EACH)])

    def known(self) -> np.ndarray:
        """Indices of the items that are embedded."""
        return np.flatnonzero(~np.isnan(self.vectors[: self.done]).any(1)) if self.done else np.zeros(0, np.int64)

    def map(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Indices (K,) of the embedded items, their place (K, 2) in the plane of the two main directions in which
        embeddings differ, and the share of all variance that it shows."""
        known = self.known()
        if len(known) < 3:
            return known[:0], np.zeros((0, 2)), 0.0
        if self._map[0] != len(known):
            vectors = self.vectors[known].astype(np.float64)
            vectors -= vectors.mean(0)
            values, directions = np.linalg.eigh(vectors.T @ vectors)
            share = float(values[-2:].sum() / max(values.sum(), 1e-12))
            self._map = (len(known), vectors @ directions[:, [-1, -2]], share)
        return known, self._map[1], self._map[2]

    def near(self, side: str, real: str) -> np.ndarray:
        """float32 (M,): distance of each object of a side to the nearest real one; NaN where one is not embedded."""
        if self._near[0] != self.done:
            self._near = (self.done, {})
        if (side, real) not in self._near[1]:
            known = self.known()
            ours = [j for j in known if self.items[j].side == side]
            theirs = [j for j in known if self.items[j].side == real]
            values = np.full(len(self.sides[side].index.columns.image), np.nan, np.float32)
            if ours and theirs and side != real:
                values[[self.items[j].m for j in ours]] = nearest(self.vectors[ours], self.vectors[theirs])[0]
            self._near[1][side, real] = values
        return self._near[1][side, real]

    def similar(self, item: Item, n: int = 24) -> list[tuple[float, Item]]:
        """(distance, item) of the embedded items nearest to one, at most n of each side; not the item itself."""
        image = self.pixels(item)
        known = self.known()
        if image is None or not len(known):
            return []
        far = distances(self.encode([image]).astype(np.float64), self.vectors[known].astype(np.float64))[0]
        left, found = dict.fromkeys(self.sides, n), []
        for k in np.argsort(far, kind="stable"):
            other = self.items[known[k]]
            if (other.side, other.i, other.k) != (item.side, item.i, item.k) and left[other.side] > 0:
                left[other.side] -= 1
                found.append((float(far[k]), other))
        return found

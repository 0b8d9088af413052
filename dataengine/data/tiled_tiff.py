"""Parts of a tiled TIFF, such as a Cloud-Optimized GeoTIFF, without the rest of it in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dataengine.data import images

if TYPE_CHECKING:
    from tifffile import TiffPage

_RGB, _CONTIGUOUS, _ORIENTATION_TAG = 2, 1, 274
_COMPRESSIONS = (1, 8, 32946)  # none, and Deflate under its two numbers: Python itself decodes them
_MAX_KEPT = 32  # tiles of the file, decoded


class TiledTiff:
    """An open TIFF of RGB pixels with 8 bits, in tiles. size: (width, height)."""

    def __init__(self, page: TiffPage):
        self.page, self.size = page, (page.imagewidth, page.imagelength)
        self._tiles: OrderedDict[int, np.ndarray] = OrderedDict()

    def part(self, window: tuple[int, int, int, int]) -> np.ndarray:
        """The pixels of a window (x, y, width, height) within the image, uint8 (height, width, 3). Raises ValueError
        where the file is damaged."""
        x, y, width, height = window
        w, h = self.page.tilewidth, self.page.tilelength
        out = np.empty((height, width, 3), np.uint8)
        for top in range(y // h * h, y + height, h):
            for left in range(x // w * w, x + width, w):
                tile = self._tile(top // h * -(-self.size[0] // w) + left // w)
                x1, y1, x2, y2 = max(left, x), max(top, y), min(left + w, x + width), min(top + h, y + height)
                out[y1 - y : y2 - y, x1 - x : x2 - x] = tile[y1 - top : y2 - top, x1 - left : x2 - left]
        return out

    def _tile(self, number: int) -> np.ndarray:
        if number not in self._tiles:
            file = self.page.parent.filehandle
            try:
                file.seek(self.page.dataoffsets[number])
                decoded = self.page.decode(file.read(self.page.databytecounts[number]), number)[0]
                self._tiles[number] = decoded.reshape(-1, decoded.shape[-2], 3)
            except images.DECODING_ERRORS as error:
                raise ValueError(f"image cannot be decoded ({error or 'truncated'})") from None
            if len(self._tiles) > _MAX_KEPT:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(number)
        return self._tiles[number]


@contextmanager
def open_tiled(path: Path) -> Iterator[TiledTiff | None]:
    """The file, if parts of it can be read by themselves; None for every other image."""
    import tifffile

    if path.suffix.lower() not in (".tif", ".tiff"):
        yield None
        return
    try:
        file = tifffile.TiffFile(path)
    except images.DECODING_ERRORS:
        yield None
        return
    with file:
        page = file.pages[0]
        turned = _ORIENTATION_TAG in page.tags and page.tags[_ORIENTATION_TAG].value != 1
        plain = page.dtype == np.uint8 and page.samplesperpixel == 3 and page.photometric == _RGB and not turned
        plain = plain and page.is_tiled and page.planarconfig == _CONTIGUOUS and page.compression in _COMPRESSIONS
        yield TiledTiff(page) if plain else None

"""Ground sample distance from the tags of a GeoTIFF: the pixel scale of a projection in metres or feet.

Tags and keys as in the OGC GeoTIFF standard 1.1. Degrees and Web Mercator, whose metres grow towards the poles, give
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PIXEL_SCALE_TAG, KEYS_TAG = 33550, 34735
_MODEL_TYPE_KEY, _PROJECTION_KEY, _UNITS_KEY = 1024, 3072, 3076
_PROJECTED = 1
_WEB_MERCATOR = (3857, 3785, 900913)
_METRES = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}  # of a metre, foot, US survey foot
_MAX_DIFFERENCE = 0.02  # of the two sides of a pixel
_MAX_GSD_M = 1000.0  # of `Acquisition`


def gsd_of(tags: Mapping[int, Sequence]) -> float | None:
    """Metres per pixel; None if the tags do not say.

    tags: values of TIFF tags by number.

    >>> keys = [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633]  # two keys: projected, UTM 33N
    >>> gsd_of({33550: (0.25, 0.25, 0.0), 34735: keys})
    0.25
    >>> gsd_of({33550: (2e-6, 2e-6, 0.0), 34735: [1, 1, 0, 1, 1024, 0, 1, 2]})  # degrees
    """
    scale, keys = tags.get(PIXEL_SCALE_TAG), tags.get(KEYS_TAG)
    if scale is None or keys is None or len(scale) < 2:
        return None
    # after a header of four numbers, four numbers for each key: key, 0 for a value in place, count, value
    entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    metres = _METRES.get(entries.get(_UNITS_KEY, 9001))
    x, y = abs(float(scale[0])), abs(float(scale[1]))
    if entries.get(_MODEL_TYPE_KEY) != _PROJECTED or metres is None:
        return None
    if entries.get(_PROJECTION_KEY) in _WEB_MERCATOR or not abs(x - y) <= _MAX_DIFFERENCE * x:
        return None
    gsd = round((x + y) / 2 * metres, 6)
    return gsd if 0 < gsd <= _MAX_GSD_M else None

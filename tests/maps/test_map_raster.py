"""Grids and rasters: places, scales, classes, edges and directions (tests P2 of the seeds)."""

from __future__ import annotations

import numpy as np
import pytest
from toy_map import LAT, LON, write_geojson

pytest.importorskip("pyproj")
import pyproj

from dataengine.errors import UserError
from dataengine.maps.grid import Grid, check_gsd, grid_around, local_crs, web_tile, web_tile_gsd
from dataengine.maps.ground import load_ground
from dataengine.maps.raster import OUTSIDE, map_raster, n_channels, picture
from dataengine.maps.read import read_map

GRIDS = {
    "web tile": web_tile(17, 74621, 37949),
    "local": grid_around(0, 0, 0.5, (512, 512), local_crs(24.9, 60.2)),
    "UTM, turned": Grid("EPSG:32635", (0.4, 0.3, 385_000.0, 0.3, -0.4, 6_672_000.0), (640, 480)),
    "degrees": Grid("EPSG:4326", (1e-5, 0, 10.0, 0, -1e-5, 50.0), (300, 200)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_survive_the_way_to_degrees_and_back(name):
    grid, rng = GRIDS[name], np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (200, 2)) * grid.size
    assert np.abs(grid.pixels(grid.lonlat(pixels)) - pixels).max() < 0.01  # half a pixel is asked for


@pytest.mark.parametrize("latitude", [0, 37.8, 56, -70])
def test_metres_per_pixel_of_web_tiles_follow_zoom_and_latitude(latitude):
    row = int((1 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2 * 2**17)
    tile = web_tile(17, 60000, row)
    assert tile.gsd_m == pytest.approx(web_tile_gsd(17, tile.centre[1]), rel=1e-3)
    west, east = tile.lonlat([[0, 128], [256, 128]])
    along = pyproj.Geod(ellps="WGS84").inv(*west, *east)[2] / 256  # an independent measure of columns alone
    assert tile.gsd_m == pytest.approx(along, rel=5e-3)


def test_the_tile_of_geosynths_example_is_where_it_should_be():
    lon, lat = web_tile(18, 42048, 101323).centre
    assert (round(lon, 1), round(lat, 1)) == (-122.3, 37.8)
    with pytest.raises(UserError, match="no such tile"):
        web_tile(3, 8, 0)


def test_a_scale_that_the_model_was_not_trained_on_is_refused():
    for gsd_m in (0.4, 0.5, 0.625):
        check_gsd(gsd_m, (0.5, 0.5), "x")
    check_gsd(9.0, None, "x")
    for gsd_m in (0.39, 0.64):
        with pytest.raises(UserError, match=r"trained on 0.5 to 0.5 m, so give 0.4 to 0.625 m"):
            check_gsd(gsd_m, (0.5, 0.5), "x")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return read_map(write_geojson(tmp_path_factory.mktemp("map") / "toy.geojson"))


def test_classes_lie_where_the_map_has_them(toy):
    ground = load_ground()
    raster = map_raster(toy, toy.grid(0, 0, 2.0, (1000, 1000)), ground)

    def at(x, y):  # metres from the middle, north up
        return raster.names[raster.classes[int(500 - y / 2), int(500 + x / 2)]]

    wanted = {(0, 900): "runway", (45, 620): "apron", (0, 470): "building", (0, -800): "water", (200, 0): "parking",
              (-700, 350): "forest", (0, 100): "road", (500, 100): "road", (500, 0): "water", (700, -150): "pitch",
              (0, 1): "unmapped"}  # fmt: skip
    assert {place: at(*place) for place in wanted} == wanted
    road = raster.share("water") * 4_000_000  # square metres
    assert road == pytest.approx(2000 * 400 + 800 * 40 - 40 * 13 - 12 * 200 - 3 * 80, rel=0.02)


def test_bridges_lie_on_top(toy):
    """A road bridge over a railway, of which the table paints rails below roads, and the reverse."""
    from shapely import LineString

    from dataengine.maps.features import Map, MapFeature

    ground, shown = load_ground(), {}
    for bridge in ("highway", "railway"):
        ways = (("highway", "primary", [(-50, 0), (50, 0)]), ("railway", "rail", [(0, -50), (0, 50)]))
        features = tuple(
            MapFeature(key, LineString(points), {key: value} | ({"bridge": "yes"} if key == bridge else {}))
            for key, value, points in ways
        )
        crossing = Map(features, toy.crs, (-60, -60, 60, 60))
        raster = map_raster(crossing, crossing.grid(0, 0, 1.0, (21, 21)), ground)
        shown[bridge] = raster.names[raster.classes[10, 10]]
    assert shown == {"highway": "road", "railway": "rail"}


def test_channels_are_one_class_a_pixel_edges_and_the_direction_of_lines(toy):
    raster = map_raster(toy, toy.grid(-650, -170, 0.5, (400, 400)), load_ground())
    channels = raster.channels()
    assert channels.shape == (n_channels(raster.names), 400, 400)
    assert (channels[:-3].sum(0) == 1).all()
    road = raster.classes == raster.names.index("road")
    assert road.sum() > 1000
    angle = np.arctan2(460, 500)  # of the street "slope", which goes up to the right: y is down in the image
    assert np.allclose(channels[-2][road], np.cos(-2 * angle), atol=0.02)
    assert np.allclose(channels[-1][road], np.sin(-2 * angle), atol=0.02)
    assert not channels[-2:, ~road].any()
    edges = raster.edges
    assert edges[road].mean() < 0.2
    assert 0 < edges.sum() < 4000


def test_the_direction_does_not_depend_on_the_way_a_line_is_drawn(toy, tmp_path):
    from toy_map import FEATURES

    turned = [(n, k, p[::-1] if n == "slope" else p, t) for n, k, p, t in FEATURES]
    other = read_map(write_geojson(tmp_path / "turned.geojson", turned))
    rasters = [map_raster(m, m.grid(-650, -170, 0.5, (200, 200)), load_ground()) for m in (toy, other)]
    assert np.allclose(rasters[0].direction, rasters[1].direction, atol=1e-3)


def test_beyond_the_map_nothing_is_known(toy):
    raster = map_raster(toy, toy.grid(1000, 0, 1.0, (200, 200)), load_ground())
    assert (raster.classes[:, 101:] == OUTSIDE).all()
    assert (raster.classes[:, :99] != OUTSIDE).all()
    assert not raster.channels()[:, :, 101:].any()
    assert (picture(raster, load_ground())[:, 101:] == 255).all()


def test_the_raster_of_a_georeferenced_image_is_that_of_its_place(toy):
    """A UTM grid over the same place shows the same classes, within a pixel along edges."""
    ground = load_ground()
    own = map_raster(toy, toy.grid_at(LON, LAT, 1.0, (300, 300)), ground)
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32632", always_xy=True)
    x, y = to_utm.transform(LON, LAT)
    other = map_raster(toy, Grid("EPSG:32632", (1.0, 0, x - 150, 0, -1.0, y + 150), (300, 300)), ground)
    assert (own.classes == other.classes).mean() > 0.97
    assert (own.classes == np.roll(other.classes, 25, 0)).mean() < 0.97  # control

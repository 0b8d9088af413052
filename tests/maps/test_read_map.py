"""Reading maps: the same features from every format, cut by a box, with the sea from its coast."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from toy_map import FEATURES, LAT, LON, METRES, box, write_geojson

pytest.importorskip("pyogrio")
from dataengine.errors import UserError
from dataengine.maps.coast import sea
from dataengine.maps.ground import Ground, load_ground
from dataengine.maps.raster import map_raster
from dataengine.maps.read import read_map


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_geojson(tmp_path_factory.mktemp("map") / "toy.geojson")


def names(the_map):
    return sorted(feature.id for feature in the_map.features)


def test_all_formats_and_coordinate_systems_give_the_same_map(toy, tmp_path):
    geopandas = pytest.importorskip("geopandas")
    wanted = read_map(toy)
    assert names(wanted) == sorted(name for name, *_ in FEATURES)
    table = geopandas.read_file(toy)
    table.to_crs("EPSG:32632").to_file(tmp_path / "utm.gpkg", driver="GPKG")
    table.to_crs("EPSG:3857").to_parquet(tmp_path / "mercator.parquet")
    for name in ("utm.gpkg", "mercator.parquet"):
        found = read_map(tmp_path / name)
        assert names(found) == names(wanted)
        for one, other in zip(*(sorted(m.features, key=lambda f: f.id) for m in (found, wanted)), strict=True):
            assert dict(one.tags) == dict(other.tags)
            assert shapely.hausdorff_distance(one.geometry, other.geometry) < 0.05  # metres


def test_osm_files_are_read_with_ways_areas_and_tags(tmp_path):
    pytest.importorskip("osmium")
    corners = METRES.lonlat([(0, 0), (100, 0), (100, 50), (0, 50), (0, -20), (100, -20)])
    nodes = "".join(f'<node id="{i}" version="1" lat="{y:.9f}" lon="{x:.9f}"/>' for i, (x, y) in enumerate(corners, 1))
    ways = {
        10: ((1, 2, 3, 4, 1), {"building": "yes"}),
        11: ((5, 6), {"highway": "residential", "width": "8"}),
        12: ((1, 2, 3, 4, 1), {"highway": "residential", "junction": "roundabout"}),
    }
    body = "".join(
        f'<way id="{i}" version="1">{"".join(f"<nd ref={chr(34)}{n}{chr(34)}/>" for n in refs)}'
        f"{''.join(f'<tag k={chr(34)}{k}{chr(34)} v={chr(34)}{v}{chr(34)}/>' for k, v in tags.items())}</way>"
        for i, (refs, tags) in ways.items()
    )
    (tmp_path / "a.osm").write_text(f'<osm version="0.6">{nodes}{body}</osm>')
    found = {f.id: f for f in read_map(tmp_path / "a.osm").features}
    assert {name: f.is_area for name, f in found.items()} == {"way/10": True, "way/11": False, "way/12": False}
    assert found["way/10"].geometry.area == pytest.approx(5000, rel=1e-3)
    assert found["way/11"].geometry.length == pytest.approx(100, rel=1e-3)
    assert load_ground().width_m(found["way/11"], "road") == 8


def test_a_pbf_file_has_the_same_ground_as_the_geojson(toy, tmp_path):
    pytest.importorskip("osmium")
    from toy_map import write_pbf

    rasters = []
    for file in (toy, write_pbf(tmp_path / "toy.osm.pbf")):
        the_map = read_map(file)
        assert len(the_map.features) == len(FEATURES)
        rasters.append(map_raster(the_map, the_map.grid_at(LON, LAT, 2.0, (900, 900)), load_ground()))
    assert (rasters[0].classes == rasters[1].classes).mean() > 0.999


def test_a_box_cuts_the_map_and_one_beside_it_is_refused(toy):
    west, south, east, north = LON - 0.002, LAT - 0.002, LON + 0.002, LAT + 0.002
    found = read_map(toy, (west, south, east, north))
    assert "main" in names(found)
    assert "runway" not in names(found)
    width, height = found.extent[2] - found.extent[0], found.extent[3] - found.extent[1]
    assert (width, height) == pytest.approx((286.7, 445.0), rel=0.01)
    with pytest.raises(UserError, match="no feature with tags in the box"):
        read_map(toy, (50, 10, 51, 11))
    with pytest.raises(UserError, match="west, south, east and north"):
        read_map(toy, (east, south, west, north))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.geojson", "no json", "cannot be read as a map"),
        ("a.pbf", "no map", "cannot be read as OpenStreetMap data"),
        ("a.parquet", "no table", "cannot be read as a map"),
        ("a.geojson", '{"type": "FeatureCollection", "features": []}', "no feature with tags"),
    ],
)
def test_files_that_are_no_maps_are_reported_in_a_sentence(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        read_map(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        read_map(tmp_path / "gone.pbf")


def test_water_lies_to_the_right_of_a_coast_and_islands_are_land():
    extent = (0, 0, 100, 100)
    north = shapely.LineString([(100, 40), (0, 40)])  # going west, the right is north
    island = shapely.LineString([(40, 60), (60, 60), (60, 80), (40, 80), (40, 60)])  # land on its left, inside
    parts = shapely.union_all(sea([north, island], extent))
    assert parts.area == pytest.approx(60 * 100 - 20 * 20)
    assert not parts.contains(shapely.Point(50, 70))
    assert parts.contains(shapely.Point(50, 90))
    flipped = shapely.union_all(sea([north.reverse()], extent))  # control: the other direction
    assert flipped.area == pytest.approx(40 * 100)
    assert sea([], extent) == []
    cut = shapely.LineString([(95, 40), (5, 40)])  # a file cut between two points of the coast
    assert shapely.union_all(sea([cut], extent)).area == pytest.approx(6000, rel=0.05)


def test_overture_columns_are_read_as_tags(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    line = shapely.LineString(METRES.lonlat([(0, 0), (100, 0)]))
    lake = shapely.Polygon(METRES.lonlat(box(0, 50, 60, 40)))
    for kind, geometry, row in (
        ("segment", line, {"subtype": "road", "class": "secondary"}),
        ("water", lake, {"subtype": "lake", "class": "lake"}),
        ("building", lake, {"subtype": "residential", "class": "house"}),
        ("infrastructure", lake, {"subtype": "airport", "class": "apron", "source_tags": {"surface": "concrete"}}),
    ):
        folder = tmp_path / f"theme=x/type={kind}"
        folder.mkdir(parents=True)
        table = geopandas.GeoDataFrame([{"id": kind, **row}], geometry=[geometry], crs="EPSG:4326")
        table.to_parquet(folder / "part.parquet")
    found = {f.id: dict(f.tags) for f in read_map(tmp_path).features}
    assert found == {"segment": {"highway": "secondary"}, "water": {"natural": "water"},
                     "building": {"building": "house"}, "infrastructure": {"aeroway": "apron", "surface": "concrete"}
                     }  # fmt: skip


def test_tunnels_and_bridges_of_overture_are_parts_of_a_road(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    line = shapely.LineString(METRES.lonlat([(0, 0), (100, 0)]))
    flags = [{"values": ["is_tunnel"], "between": [0.0, 0.3]}, {"values": ["is_bridge"], "between": [0.8, 1.0]}]
    row = {"id": "a", "subtype": "road", "class": "secondary", "road_flags": flags,
           "width_rules": [{"value": 9.0, "between": None}]}  # fmt: skip
    other = row | {"id": "b", "road_flags": None, "width_rules": None}
    folder = tmp_path / "type=segment"
    folder.mkdir()
    geopandas.GeoDataFrame([row, other], geometry=[line, line], crs="EPSG:4326").to_parquet(folder / "part.parquet")
    found = [(f.id, round(f.geometry.length), dict(f.tags)) for f in read_map(tmp_path).features]
    plain = {"highway": "secondary"}
    wide = plain | {"width": "9.0"}
    assert found == [("a", 30, wide | {"tunnel": "yes"}), ("a", 50, wide), ("a", 20, wide | {"bridge": "yes"}),
                     ("b", 100, plain)]  # fmt: skip


def test_hidden_features_are_not_in_the_raster(toy):
    the_map, ground = read_map(toy), load_ground()
    grid = the_map.grid(-600, -300, 0.5, (64, 64))  # over the tunnel alone
    assert set(np.unique(map_raster(the_map, grid, ground).classes)) == {0}
    shown = Ground.model_validate({**ground.model_dump(), "hidden": {}})  # control
    assert ground.names.index("road") in np.unique(map_raster(the_map, grid, shown).classes)


def test_a_table_of_classes_with_a_mistake_is_refused_with_its_field(tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps({"classes": {"road": {"color": [1, 2, 3]}}}))
    with pytest.raises(UserError, match=r"mine.yaml: .*color: no such field; perhaps colour"):
        load_ground(str(tmp_path / "mine.yaml"))


def test_the_shared_extracts_have_streets_and_the_sea(shared_data):
    pytest.importorskip("osmium")
    the_map = read_map(shared_data / "osm" / "Helsinki.osm.pbf")
    raster = map_raster(the_map, the_map.grid_at(24.9475, 60.1765, 1.0, (400, 400)), load_ground())
    assert raster.share("water") > 0.15
    assert raster.share("building") > 0.05
    assert raster.share("road") > 0.03

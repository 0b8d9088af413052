"""Layouts from maps: what is on the map becomes boxes, and what stands on it stands where it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from toy_map import FEATURES, circle, write_geojson

pytest.importorskip("pyogrio")
from dataengine import geometry
from dataengine.data.layout import Acquisition, Layout, layout_from_json, layout_to_json, model_key
from dataengine.data.presets import load_preset
from dataengine.engine.recipe import LATER_FIELDS, load_recipe
from dataengine.errors import UserError
from dataengine.layouts import map_sampler as sampling
from dataengine.layouts.map_berths import ships
from dataengine.layouts.map_ground import TileGround, box_around, polygons, share_inside, tile_ground
from dataengine.layouts.map_sampler import MapSampler, map_sampler
from dataengine.layouts.map_table import map_objects, on_maps
from dataengine.layouts.map_things import things
from dataengine.maps.ground import load_ground
from dataengine.maps.read import read_map

CLASSES = ("car", "truck", "airplane", "ship", "train", "tennis-court", "storage-tank", "overpass", "bridge")
GSD_M, SIZE = 0.5, 400


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_geojson(tmp_path_factory.mktemp("map") / "toy.geojson")


def real_layouts(gsd_m: float | None = GSD_M, classes=CLASSES, each: int = 6) -> list[Layout]:
    rng, layouts = np.random.default_rng(0), []
    for _ in range(20):
        n = each * len(classes)
        boxes = np.column_stack([rng.uniform(20, SIZE - 20, (n, 2)), np.full(n, 12), np.full(n, 6), np.zeros(n)])
        acquisition = Acquisition(gsd_m=gsd_m, camera_angle_deg=90)
        layouts.append(Layout(boxes, np.arange(n) % len(classes), classes, (SIZE, SIZE), acquisition=acquisition))
    return layouts


@pytest.fixture(scope="module")
def sampler(toy) -> MapSampler:
    return map_sampler(toy, real_layouts(), (SIZE, SIZE))


@pytest.fixture(scope="module")
def layouts(sampler):
    return [sampler.sample(np.random.default_rng((0, i))) for i in range(30)]


def on(sampler: MapSampler, layout: Layout, classes, *surfaces: str) -> list[bool]:
    """Whether the middle and half of the box of each object of these classes lie on these surfaces of the map."""
    a = layout.acquisition
    middle = sampler.map.grid_at(a.longitude_deg, a.latitude_deg, 1.0, (1, 1)).positions([[0.5, 0.5]])[0]
    tile = tile_ground(sampler.map, *middle, (SIZE * a.gsd_m, SIZE * a.gsd_m), sampler.ground)
    boxes = layout.boxes[np.isin(layout.names(), classes)].astype(float) * (*[a.gsd_m] * 4, 1)
    area, shapes = tile.area(*surfaces), polygons(boxes)
    half = shapely.area(shapely.intersection(shapes, area)) > 0.5 * shapely.area(shapes)
    return (half & shapely.intersects_xy(area, boxes[:, 0], boxes[:, 1])).tolist()


@pytest.mark.parametrize(
    ("classes", "surfaces"),
    [(("car", "truck"), ("road", "parking")), (("ship",), ("water",)), (("airplane",), ("apron", "taxiway", "runway")),
     (("train",), ("rail",))],
)  # fmt: skip
def test_things_stand_where_they_can_and_without_the_map_they_do_not(sampler, layouts, classes, surfaces):
    found = [hit for layout in layouts for hit in on(sampler, layout, classes, *surfaces)]
    assert len(found) >= 5
    assert np.mean(found) >= 0.98
    rng = np.random.default_rng(1)
    control = []
    for layout in layouts:  # the same objects, anywhere in the same tiles
        moved = layout.boxes.copy()
        moved[:, :2] = rng.uniform(0, SIZE, (len(layout), 2))
        shuffled = Layout(moved, layout.labels, layout.classes, layout.size, acquisition=layout.acquisition)
        control += on(sampler, shuffled, classes, *surfaces)
    assert np.mean(control) < 0.6


def test_without_the_check_of_the_surface_ships_would_lie_on_land(sampler, monkeypatch):
    """The mutation of the check: the test above would fail."""
    river = tile(sampler.map, 500, 0, 200.0)
    for least, dry in ((0.95, False), (-1.0, True)):
        monkeypatch.setattr("dataengine.layouts.map_berths.MIN_IN_WATER", least)
        found = ships(river, map_objects().standing["ship"], np.random.default_rng(0))
        shares = share_inside(np.array([each.box for each in found]), river.area("water"))
        assert len(found) > 5
        assert (shares < 0.94).any() == dry


def test_vehicles_point_along_their_road(sampler, layouts):
    lines = {f.id: f.geometry for f in sampler.map.features if f.is_line}
    turned = []
    for layout in layouts:
        for name, box, road in zip(layout.names(), layout.boxes, layout.features, strict=True):
            if name in ("car", "truck") and road in lines and road != "ring":
                (x0, y0), (x1, y1) = np.asarray(lines[road].coords)[[0, -1]]
                turn = np.degrees(box[4] - np.arctan2(y0 - y1, x1 - x0))  # y down
                turned.append(abs((turn + 90) % 180 - 90))
    assert len(turned) > 50
    assert np.mean(np.array(turned) < 10) >= 0.95
    assert np.mean(np.abs((np.array(turned) + 40 + 90) % 180 - 90) < 10) < 0.1  # control: another road's direction


def test_a_layout_keeps_the_ids_of_its_features_and_sizes_in_metres(layouts, sampler):
    known, table = {f.id for f in sampler.map.features}, map_objects().standing
    for layout in layouts:
        assert len(layout.features) == len(layout)
        assert set(layout.features) <= known
        assert layout.acquisition.gsd_m == GSD_M
        assert layout.acquisition.longitude_deg == pytest.approx(10, abs=0.03)
        again = layout_from_json(layout_to_json(layout))
        assert again.features == layout.features
        assert layout.select([0]).features == layout.features[:1]
        for name, box, visible in zip(layout.names(), layout.boxes, layout.visible, strict=True):
            if name in ("car", "truck", "train") and visible > 0.99:
                low, high = table[name].length
                assert low * 0.99 <= box[2] * GSD_M <= high * 1.01
    assert "features" not in layout_to_json(real_layouts()[0])  # other layouts are stored as before


def test_layouts_depend_on_the_generator_alone(sampler, layouts):
    again = sampler.sample(np.random.default_rng((0, 7)))
    assert np.array_equal(again.boxes, layouts[7].boxes)
    assert again.features == layouts[7].features
    assert not np.array_equal(layouts[6].boxes, layouts[7].boxes)


def tile(toy_map, x: float, y: float, side: float) -> TileGround:
    return tile_ground(toy_map, x, y, (side, side), load_ground())


def mapped(the_map, name: str, x: float, y: float, side: float = 400.0):
    found = things(tile(the_map, x, y, side), map_objects().mapped[model_key(name)])
    return sorted((each.feature, *np.round(each.box, 3).tolist()) for each in found)


def test_things_on_the_map_become_boxes_at_their_place_and_angle(toy):
    the_map = read_map(toy)
    [(one, _x, _y, *_), (two, *_)] = courts = mapped(the_map, "tennis-court", 700, -150)
    assert one == two == "tennis"
    assert all(court[3:5] == pytest.approx((36, 18), abs=0.1) for court in courts)
    turns = [abs(np.degrees(court[5])) % 90 for court in courts]
    assert turns == pytest.approx([30, 30], abs=1) or turns == pytest.approx([60, 60], abs=1)
    middle = np.mean([court[1:3] for court in courts], axis=0)
    assert middle == pytest.approx([200, 200], abs=0.5)
    assert [(n, w, h) for n, _, _, w, h, _ in mapped(the_map, "storagetank", -670, -500)] == [
        ("tank1", pytest.approx(40, abs=0.5), pytest.approx(40, abs=0.5)), ("tank2", pytest.approx(40, abs=0.5),
         pytest.approx(40, abs=0.5))]  # fmt: skip
    [(name, *box)] = mapped(the_map, "bridge", 500, 100)
    assert name == "bridge"
    assert box[2:4] == pytest.approx([100, 13], abs=0.1)
    [(name, *box)] = mapped(the_map, "overpass", -200, -200)
    assert name == "motorway"
    assert box[2] == pytest.approx(620, abs=1)
    [(name, *box)] = mapped(the_map, "roundabout", 700, 0)
    assert name == "ring"
    assert box[2:4] == pytest.approx([46, 46], abs=1)
    assert [row[0] for row in mapped(the_map, "harbor", -200, -700)] == ["pier1", "pier2"]
    [(name, *box)] = mapped(the_map, "airport", 0, 650, 2000.0)
    assert name == "airport"
    assert box[2:4] == pytest.approx([1900, 640], abs=1)


def test_a_bridge_over_water_is_no_overpass_and_the_reverse(toy):
    the_map = read_map(toy)
    assert not mapped(the_map, "overpass", 500, 100)
    assert not mapped(the_map, "bridge", -200, -200)


def test_vehicles_under_a_bridge_are_not_in_the_layout(toy, monkeypatch):
    """They cannot be seen; without the check there would be some."""
    the_map = read_map(toy)
    rule = map_objects().standing["car"]

    def under(rng) -> int:
        ground = tile(the_map, -200, -200, 120.0)
        found = sampling._candidates(ground, rule, rng)
        boxes = polygons(np.array([each.box for each in found if each.feature == "under"]))
        deck = shapely.union_all(ground.decks[0])
        return int((shapely.area(shapely.intersection(boxes, deck)) > 1).sum())

    rngs = [np.random.default_rng(i) for i in range(12)]
    assert sum(map(under, rngs)) == 0
    monkeypatch.setattr("dataengine.layouts.map_ground.MAX_HIDDEN", 1.0)
    assert sum(map(under, [np.random.default_rng(i) for i in range(12)])) > 3


def test_airplanes_stand_with_their_noses_to_the_terminal(sampler):
    headings = []
    for i in range(40):
        layout = sampler.sample(np.random.default_rng((3, i)))
        stands = [f.startswith("stand") for f in layout.features]
        headings += [box[4] for box, own in zip(layout.boxes, stands, strict=True) if own and box[2] > box[3] * 1.02]
    # longer than wide: along the lines to the terminal, which go south; wider than long: the long side lies across
    assert len(headings) > 5
    assert all(min(abs(abs(h) - np.pi / 2), abs(h)) < 0.05 for h in headings)


def test_all_classes_of_dior_and_dota_come_from_maps():
    for name, n in (("dior", 20), ("dota-v2.0", 18)):
        classes = load_preset(name).classes
        assert len(classes) == n
        assert on_maps(classes) == classes


def test_what_does_not_fit_is_refused_in_a_sentence(toy, tmp_path):
    with pytest.raises(UserError, match=r"needs metres per pixel.*--map-gsd"):
        map_sampler(toy, real_layouts(gsd_m=None), (SIZE, SIZE))
    assert map_sampler(toy, real_layouts(gsd_m=None), (SIZE, SIZE), 0.5).gsd_m == 0.5
    with pytest.raises(UserError, match="less than an image of 4000 x 4000 m"):
        map_sampler(toy, real_layouts(), (SIZE, SIZE), 10.0)
    with pytest.raises(UserError, match="maps have no unicorn"):
        map_sampler(toy, real_layouts(classes=("unicorn",)), (SIZE, SIZE))
    wood = [feature for feature in FEATURES if feature[0] in ("border", "wood")]
    with pytest.raises(UserError, match="has no place for car"):
        map_sampler(write_geojson(tmp_path / "wood.geojson", wood), real_layouts(classes=("car",)), (SIZE, SIZE))
    oblique = [
        Layout(x.boxes, x.labels, x.classes, x.size, acquisition=Acquisition(gsd_m=0.5, camera_angle_deg=30))
        for x in real_layouts()
    ]
    with pytest.raises(UserError, match="all of this data set are oblique"):
        map_sampler(toy, oblique, (SIZE, SIZE))


def test_counts_follow_the_prior_and_the_ground_that_is_seen(toy):
    """Ground of four times the area has about four times the objects."""
    sizes = {}
    for gsd_m in (0.3, 0.6):
        chosen = map_sampler(toy, real_layouts(0.3, ("ship",), each=3), (SIZE, SIZE), gsd_m)
        sizes[gsd_m] = np.mean([len(chosen.sample(np.random.default_rng(i))) for i in range(25)])
    assert 1.5 < sizes[0.3] < 3.2
    assert 2.2 < sizes[0.6] / sizes[0.3] < 5


def test_boxes_are_axis_aligned_for_such_data_sets(toy):
    upright = [layout.in_kind("hbb") for layout in real_layouts()]
    layout = map_sampler(toy, upright, (SIZE, SIZE)).sample(np.random.default_rng(1))
    assert layout.kind == "hbb"
    assert np.allclose(np.sin(2 * layout.boxes[:, 4]), 0, atol=1e-6)
    assert (geometry.to_corners(layout.boxes) >= -1).all()


def test_a_round_thing_has_an_upright_box():
    assert box_around(shapely.Polygon(circle(5, 6, 10))) == pytest.approx([5, 6, 20, 20, 0], abs=0.2)


def test_objects_that_are_added_to_a_layout_come_from_no_map(layouts):
    layout = next(layout for layout in layouts if len(layout) > 1)
    added = Layout([[9, 9, 4, 2, 0]], [0], CLASSES, layout.size)
    assert layout.joined(added).features == (*layout.features, "")
    assert added.joined(layout).features == ("", *layout.features)
    assert replace(layout, boxes=[], labels=[], difficult=None, visible=None).features == ()
    longer = replace(
        layout, boxes=np.concatenate([layout.boxes, added.boxes]), labels=np.append(layout.labels, 0), difficult=None,
        visible=None,
    )  # fmt: skip
    assert longer.features == (*layout.features, "")
    stored = layout_to_json(layout) | {"features": ["way/1"] * (len(layout) + 1)}
    with pytest.raises(ValueError, match="features are not one text for each object"):
        layout_from_json(stored)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layouts": "map"}, "--layouts map and --map"),
        ({"map_gsd": 0.3}, "map_gsd: works only with layouts: map"),
        ({"control": "off"}, "control: works only with layouts: map"),
        ({"layouts": "map", "map": "m.pbf", "balance": 0.1}, "leave out balance"),
        ({"control_scale": 0.5}, "control_scale: works only with layouts: map and a control"),
        ({"layouts": "map", "map": "m.pbf", "control": "off", "control_scale": 0.5}, "control_scale: works only with"),
        ({"layouts": "map", "map": "m.pbf", "layout_scale": 0.5}, "leave out layout_scale"),
    ],
)
def test_options_that_do_not_go_together_are_refused(fields, words):
    with pytest.raises(UserError, match=words):
        load_recipe(None, {"dataset": "hit-uav", **fields})


def test_recipes_without_a_map_keep_their_identity():
    stored = {"dataset": "hit-uav", "n": 5}
    recipe = load_recipe(None, stored)
    assert all(name in LATER_FIELDS for name in ("map", "map_box", "map_gsd", "control", "control_scale"))
    other = load_recipe(None, stored | {"layouts": "map", "map": "m.pbf"})
    assert recipe.identity({}) == load_recipe(None, stored).identity({}) != other.identity({})
    assert not other.likely_places
    assert not load_recipe(None, stored | {"layouts": "map", "map": "m.pbf", "strength": 0.3}).likely_places

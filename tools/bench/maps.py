"""Where the objects of layouts from maps stand, against the map's own shapes; without a map beside it.

    python tools/bench/maps.py                                   # real extracts in ../shared/data/osm, and the toy map
    python tools/bench/maps.py --drawings work/map-layouts       # 50 layouts of each over their rasters, as sheets
    python tools/bench/maps.py --pictures held-out map seeds --drawings work/map-pictures     # see map_pictures.py

Judged on the polygons and lines of the map, not on the raster: an object is on a surface if its middle is, and if at
least half of its box is. "without the map" are layouts of the same prior (`--layouts prior`) at the same places.
Heading: of vehicles on roads, against the nearest segment of the road that the layout names.
The toy map (tests/toy_map.py) stands for what the extracts lack: an airport and a harbour.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import shapely
from results import append, machine

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from toy_map import write_geojson

from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Acquisition, Layout, model_key
from dataengine.layouts.map_ground import polygons, tile_ground
from dataengine.layouts.map_sampler import MapSampler, map_sampler
from dataengine.layouts.map_table import map_objects
from dataengine.maps.ground import ROAD

OSM = Path(__file__).resolve().parents[3] / "shared" / "data" / "osm"
SIZE, LAYOUTS, PER_CLASS, MAX_ANGLE_DEG = 512, 50, 10, 10.0
ROWS = {  # name: metres per pixel, classes
    "Helsinki.osm.pbf": (0.25, ("car", "truck", "ship", "train", "harbor", "bridge", "trainstation")),
    "test.osm.pbf": (0.25, ("car", "truck", "overpass")),
    "toy map": (0.5, ("car", "truck", "airplane", "ship", "helicopter", "storagetank", "tenniscourt", "harbor",
                      "bridge", "overpass")),
}  # fmt: skip
SURFACES = {
    "vehicles on road or parking": (("car", "truck"), ("road", "parking")),
    "ships on water": (("ship",), ("water",)),
    "airplanes on apron, taxiway or runway": (("airplane",), ("apron", "taxiway", "runway")),
    "trains on rails": (("train",), ("rail",)),
}


def dense_prior(classes: tuple[str, ...], gsd_m: float) -> list[Layout]:
    """Layouts with `PER_CLASS` objects of each class in sizes of the table, to have many objects to judge."""
    rng, layouts, table = np.random.default_rng(0), [], map_objects()
    for _ in range(40):
        boxes, labels = [], []
        for label, name in enumerate(classes):
            rule = table.standing.get(model_key(name)) or table.mapped[model_key(name)]
            for _ in range(PER_CLASS):
                length = min(np.exp(rng.uniform(*np.log(rule.length))) / gsd_m, SIZE / 3)
                boxes.append([*rng.uniform(0, SIZE, 2), length, length / 2.2, rng.uniform(-np.pi / 2, np.pi / 2)])
                labels.append(label)
        layouts.append(Layout(boxes, labels, classes, (SIZE, SIZE), acquisition=Acquisition(gsd_m=gsd_m)))
    return layouts


def judged(sampler: MapSampler, pairs: list[tuple[Layout, Layout]]) -> dict[str, list[float]]:
    """{question: [n with a map, share by middle, share by half of the box, n without, the same two]}, and headings."""
    found: dict[str, list[list[tuple[bool, bool]]]] = {question: [[], []] for question in SURFACES}
    turned = []
    for with_map, without in pairs:
        a = with_map.acquisition
        middle = sampler.map.grid_at(a.longitude_deg, a.latitude_deg, 1.0, (1, 1)).positions([[0.5, 0.5]])[0]
        tile = tile_ground(sampler.map, *middle, (SIZE * a.gsd_m, SIZE * a.gsd_m), sampler.ground)
        for side, layout in enumerate((with_map, without)):
            boxes = layout.boxes.astype(float) * (a.gsd_m, a.gsd_m, a.gsd_m, a.gsd_m, 1)
            names = np.array(layout.names())
            for question, (classes, surfaces) in SURFACES.items():
                of_class = np.isin(names, classes)
                area = tile.area(*surfaces)
                shapes = polygons(boxes[of_class])
                half = shapely.area(shapely.intersection(shapes, area)) >= 0.5 * shapely.area(shapes)
                inside = shapely.intersects_xy(area, boxes[of_class, 0], boxes[of_class, 1])
                found[question][side] += list(zip(inside.tolist(), half.tolist(), strict=True))
        roads = {f.id: line for line, f, _ in tile.lines(ROAD)}
        lines = {f.id: f.geometry for f in tile.features if f.id in roads}
        for k, name in enumerate(with_map.names()):
            if name in ("car", "truck") and with_map.features[k] in lines and with_map.visible[k] > 0.99:
                box = with_map.boxes[k].astype(float)
                turned.append(_angle(lines[with_map.features[k]], box[:2] * a.gsd_m, box[4]))
    rows = {question: [x for part in sides for x in _shares(part)] for question, sides in found.items() if sides[0]}
    if turned:
        rows[f"headings within {MAX_ANGLE_DEG:g} degrees of the road's"] = [
            len(turned), float((np.array(turned) <= MAX_ANGLE_DEG).mean()), float(np.quantile(turned, 0.95))
        ]  # fmt: skip
    return rows


def _shares(part: list[tuple[bool, bool]]) -> list[float]:
    return [len(part), *(np.mean(part, axis=0).tolist() if part else (np.nan, np.nan))]


def _angle(line: shapely.Geometry, point: np.ndarray, theta: float) -> float:
    """Degrees between a box and the nearest segment of a line."""
    ends = np.concatenate([np.stack([c[:-1], c[1:]], 1) for c in map(_coordinates, shapely.get_parts(line))])
    segments = shapely.linestrings(ends)
    a, b = ends[np.argmin(shapely.distance(segments, shapely.Point(point)))]
    turn = theta - np.arctan2(*(b - a)[::-1])
    return float(abs(np.degrees(turn - np.pi * np.round(turn / np.pi))))


def _coordinates(line: shapely.Geometry) -> np.ndarray:
    return np.asarray(line.coords)[:, :2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drawings", type=Path)
    parser.add_argument(
        "--pictures",
        nargs="+",
        choices=["held-out", "map", "labels", "seeds", "styles", "world"],
        help="judge pictures in place of layouts",
    )
    parser.add_argument("--n", type=int, default=48, help="pictures of each row")
    parser.add_argument("--data", type=Path, default=OSM.parent)
    parser.add_argument("--json", type=Path, help="file to append the figures to")
    parser.add_argument("--layouts", type=int, default=LAYOUTS)
    parser.add_argument("--osm", type=Path, default=OSM, help="folder of the extracts")
    arguments = parser.parse_args()
    if arguments.pictures:
        from map_pictures import measure

        results = measure(arguments.osm, arguments.data, arguments.drawings, arguments.pictures, arguments.n)
        print(json.dumps(results, indent=2))
        append(machine() | results, arguments.json)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: arguments.osm / name for name in ROWS} | {"toy map": write_geojson(Path(folder) / "toy.geojson")}
        for name, (gsd_m, classes) in ROWS.items():
            if not files[name].exists():
                print(f"{name}: not here")
                continue
            sampler = map_sampler(files[name], dense_prior(classes, gsd_m), (SIZE, SIZE), gsd_m)
            seeds = [np.random.default_rng((0, i)) for i in range(arguments.layouts)]
            pairs = [(sampler.sample(rng), sampler.prior.sample(rng)) for rng in seeds]
            results[name] = judged(sampler, pairs)
            print(f"{name}: {sum(len(one) for one, _ in pairs)} objects in {len(pairs)} layouts")
            for question, row in results[name].items():
                print(f"  {question}: {' '.join(f'{value:.3f}' if value <= 1 else f'{value:.0f}' for value in row)}")
            if arguments.drawings is not None:
                arguments.drawings.mkdir(parents=True, exist_ok=True)
                layouts = [layout for layout, _ in pairs]
                sheet = contact_sheet(
                    [draw(sampler.picture(layout), layout) for layout in layouts], [""] * len(layouts)
                )
                sheet.save(arguments.drawings / f"{name.split('.')[0].replace(' ', '-')}.png")
    append(machine() | results, arguments.json)


if __name__ == "__main__":
    main()

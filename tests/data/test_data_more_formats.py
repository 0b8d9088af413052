"""FAIR1M, UCAS-AOD, VisDrone, SODA-A, xView, Airbus CSV, labelme, CVAT and Datumaro: small files, checked by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.data import (
    airbus,
    csv_boxes,
    cvat,
    datumaro_json,
    fair1m,
    formats,
    labelme,
    soda_a,
    ucas_aod,
    visdrone,
    xview,
)
from dataengine.data.records import NothingUsable
from dataengine.errors import UserError

REAL = Path(__file__).parents[2].parent / "shared" / "data"
READERS = {
    module.NAME: module
    for module in (airbus, csv_boxes, cvat, datumaro_json, fair1m, labelme, soda_a, ucas_aod, visdrone, xview)
}
# a box of 40 by 10 pixels about (60, 50), turned by 30 degrees clockwise on screen
TURNED = (60, 50, 40, 10, math.radians(30))


def picture(file: Path, size=(200, 100)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 90, 90)).save(file)
    return file


def text(file: Path, content) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def corners(box=TURNED) -> list[list[float]]:
    """Corners by the definition of the angle, written out here."""
    cx, cy, w, h, theta = box
    along, across = (math.cos(theta), math.sin(theta)), (-math.sin(theta), math.cos(theta))
    return [
        [cx + a * w / 2 * along[0] + b * h / 2 * across[0], cy + a * w / 2 * along[1] + b * h / 2 * across[1]]
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]


def objects_of(dataset) -> dict[str, list[tuple]]:
    """{image: [(class, box rounded to a hundredth)]}."""
    return {
        sample.name: [
            (name, *np.round(box, 2).tolist())
            for name, box in zip(sample.layout.names(), sample.layout.boxes.astype(float), strict=True)
        ]
        for sample in dataset
    }


def regions(dataset) -> list[list[float]]:
    return [np.round(box, 2).tolist() for sample in dataset for box in sample.layout.ignored.astype(float)]


def reported(dataset) -> int:
    """Objects that the problems count."""
    return sum(problem.objects for problem in dataset.problems)


def messages(dataset) -> str:
    return "\n".join(map(str, dataset.problems))


def fair1m_xml(name: str, objects: list[tuple], extra: str = "") -> str:
    items = "".join(
        f"<object><coordinate>{unit}</coordinate><type>rectangle</type><description>None</description>"
        f"<possibleresult><name>{label}</name></possibleresult>"
        f"<points>{''.join(f'<point>{x:f},{y:f}</point>' for x, y in points)}</points></object>\n"
        for label, points, unit in objects
    )
    return (
        f"<annotation><source><filename>{name}</filename><origin>GF2/GF3</origin></source>"
        f"<size><width>200</width><height>100</height><depth>3</depth></size>{extra}<objects>{items}</objects></annotation>"
    )


def test_fair1m_reads_the_corners_and_reports_what_it_cannot_read(tmp_path):
    closed = [*corners(), corners()[0]]
    picture(tmp_path / "train/part1/images/0.tif")
    objects = [("Boeing737", closed, "pixel"), ("other-ship", closed, "pixel"), ("Van", closed, "degree")]
    text(tmp_path / "train/part1/labelXml/0.xml", fair1m_xml("0.tif", objects))
    picture(tmp_path / "validation/images/0.tif")
    text(tmp_path / "validation/labelXml/0.xml", fair1m_xml("0.tif", [("Bridge", closed, "pixel")]))
    dataset = fair1m.read(tmp_path)
    assert objects_of(dataset) == {
        "part1/0": [("Boeing737", 60, 50, 40, 10, 0.52), ("other-ship", 60, 50, 40, 10, 0.52)],
        "0": [("Bridge", 60, 50, 40, 10, 0.52)],
    }
    assert (dataset.kind, dataset.classes) == ("obb", fair1m.CLASSES)
    assert reported(dataset) == 1
    assert "'degree', not in pixels" in messages(dataset)
    assert fair1m.splits(tmp_path) == ("train", "validation")
    assert len(fair1m.read(tmp_path, split="train")) == 1
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        fair1m.read(tmp_path, split="test")


def test_a_broken_fair1m_file_leaves_its_image_out(tmp_path):
    for i in (0, 1):
        picture(tmp_path / f"images/{i}.tif")
        text(tmp_path / f"labelXml/{i}.xml", fair1m_xml(f"{i}.tif", [("Van", corners(), "pixel")]))
    text(tmp_path / "labelXml/1.xml", "<annotation><objects>")
    dataset = fair1m.read(tmp_path)
    assert [sample.name for sample in dataset] == ["0"]
    assert "1.xml" in messages(dataset)


def ucas_line(label: str = "") -> str:
    row = [value for corner in corners() for value in corner] + [30.0, 40, 35, 40, 30]
    return "\t".join(([label] if label else []) + [f"{value:e}" for value in row]) + "\t\n"


def test_ucas_aod_takes_the_class_from_the_folder_and_neg_as_empty(tmp_path):
    for folder in ("CAR", "PLANE"):
        picture(tmp_path / folder / "P0001.png")
        text(tmp_path / folder / "P0001.txt", ucas_line() + ("1 2 3\n" if folder == "CAR" else ""))
    picture(tmp_path / "Neg/N0001.png")
    picture(tmp_path / "CAR/P0002.png")  # without labels: not empty ground
    dataset = ucas_aod.read(tmp_path)
    assert objects_of(dataset) == {
        "CAR/P0001": [("car", 60, 50, 40, 10, 0.52)],
        "PLANE/P0001": [("airplane", 60, 50, 40, 10, 0.52)],
        "Neg/N0001": [],
    }
    assert reported(dataset) == 1
    assert "P0001.txt:2: the line has 3 columns" in messages(dataset)
    assert "P0002.png" in messages(dataset)


def test_one_class_folder_of_ucas_aod_is_read(tmp_path):
    picture(tmp_path / "PLANE/P0001.png")
    text(tmp_path / "PLANE/P0001.txt", ucas_line())
    text(tmp_path / "PLANE/readme.txt", "Planes from above.\n")
    dataset = ucas_aod.read(tmp_path / "PLANE")
    assert objects_of(dataset) == {"P0001": [("airplane", 60, 50, 40, 10, 0.52)]}
    assert dataset.problems == []


def test_ucas_aod_as_the_benchmark_arranges_it(tmp_path):
    for i in (1, 2):
        picture(tmp_path / f"AllImages/P000{i}.png")
        text(tmp_path / f"labelTxt/P000{i}.txt", ucas_line("airplane"))
    text(tmp_path / "ImageSets/train.txt", "P0001\n")
    assert ucas_aod.splits(tmp_path) == ("train",)
    assert objects_of(ucas_aod.read(tmp_path, split="train")) == {"P0001": [("airplane", 60, 50, 40, 10, 0.52)]}
    assert len(ucas_aod.read(tmp_path)) == 2


def test_visdrone_keeps_ignored_regions_and_scores_of_0_out_of_the_objects(tmp_path):
    root = tmp_path / "VisDrone2019-DET-train"
    picture(root / "images/a.jpg")
    lines = [
        "10,20,30,40,1,4,0,1",
        "0,0,50,60,0,0,0,0,",
        "5,6,7,8,0,11,1,2",
        "1,2,0,4,1,1,0,0",
        "1,2,3,4,1,12,0,0",
        "1,1,2",
    ]
    text(root / "annotations/a.txt", "\n".join(lines) + "\n")
    dataset = visdrone.read(tmp_path)
    assert objects_of(dataset) == {"a": [("car", 25, 40, 40, 30, -1.57)]}
    assert regions(dataset) == [[25, 30, 60, 50, -1.57], [8.5, 10, 8, 7, -1.57]]
    assert dataset.kind == "hbb"
    assert [problem.line for problem in dataset.problems] == [4, 5, 6]
    assert reported(dataset) == 3
    assert dataset.classes == visdrone.CLASSES[:10]
    assert visdrone.splits(tmp_path) == ("train",)


def test_visdrone_video_lines_are_reported_and_their_image_left_out(tmp_path):
    video = "1,0,593,43,174,190,0,0,0,0\n"
    for name, line in (("a", video), ("b", "10,20,30,40,1,4,0,1\n")):
        picture(tmp_path / f"images/{name}.jpg")
        text(tmp_path / f"annotations/{name}.txt", line)
    assert not visdrone.recognizes(tmp_path / "annotations/a.txt", video)
    dataset = visdrone.read(tmp_path)
    assert [sample.name for sample in dataset] == ["b"], "none of the lines of a can be read"
    assert "lines of the video tasks" in messages(dataset)
    assert reported(dataset) == 1


def test_soda_a_reads_polygons_and_keeps_ignore_as_a_region(tmp_path):
    picture(tmp_path / "Images/00001.jpg")
    flat = [value for corner in corners() for value in corner]
    five = [0, 0, 20, 0, 20, 10, 10, 10, 0, 10]
    entries = [(flat, 0), (five, 4), (flat, 9), (flat, 77), ([1, 2, 3], 0), ([1, 1, 1, 1, 1, 1, 1, 1], 0)]
    content = {
        "images": {"file_name": "00001.jpg", "height": 100, "width": 200, "id": 1},
        "annotations": [
            {"poly": poly, "area": 1, "category_id": c, "image_id": 1, "id": i} for i, (poly, c) in enumerate(entries)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate((*soda_a.CLASSES, "ignore"))],
    }
    for i in range(2):  # the list of categories may be missing
        text(tmp_path / "Annotations/train/00001.json", content)
        dataset = soda_a.read(tmp_path)
        assert objects_of(dataset) == {"00001": [("airplane", 60, 50, 40, 10, 0.52), ("ship", 10, 5, 20, 10, 0)]}, i
        assert regions(dataset) == [[60, 50, 40, 10, 0.52]]
        assert reported(dataset) == 3
        content.pop("categories", None)
    assert dataset.classes == soda_a.CLASSES


def xview_feature(image: str, bounds: object, kind: object) -> dict:
    properties = {"bounds_imcoords": bounds, "type_id": kind, "image_id": image, "feature_id": 1}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": []}}


def test_xview_reads_names_and_reports_unknown_types_and_missing_images(tmp_path):
    picture(tmp_path / "train_images/5.tif")
    picture(tmp_path / "train_images/6.tif")
    features = [
        xview_feature("5.tif", "10,20,50,30", 18),
        xview_feature("5.tif", "0,0,10,20", 75),
        xview_feature("5.tif", "0,0,10,20", 82),
        xview_feature("5.tif", "0,0,10,20", 75),
        xview_feature("1395.tif", "0,0,10,20", 73),
        xview_feature("1395.tif", "0,0,10,20", 73),
        xview_feature("5.tif", [], 73),
    ]
    text(tmp_path / "xView_train.geojson", {"type": "FeatureCollection", "features": features})
    dataset = xview.read(tmp_path)
    assert objects_of(dataset) == {"5": [("Small Car", 30, 25, 40, 10, 0)]}
    assert reported(dataset) == len(features) - 1
    assert "type 75 has no class in xView's list; its 2 objects are skipped" in messages(dataset)
    assert "1395.tif" in messages(dataset)
    assert "6.tif has no labels" in messages(dataset)
    assert len(dataset.classes) == 60


def test_the_geojson_of_xview_finds_the_images_in_the_folder_beside_its_own(tmp_path):
    picture(tmp_path / "train_images/5.tif")
    file = text(tmp_path / "train_labels/xView_train.geojson", {"features": [xview_feature("5.tif", "1,2,9,8", 18)]})
    assert len(formats.read(file)) == len(formats.read(tmp_path)) == 1


def test_xview_leaves_an_image_out_whose_objects_have_no_class(tmp_path):
    picture(tmp_path / "train_images/5.tif")
    picture(tmp_path / "train_images/6.tif")
    features = [xview_feature("5.tif", "0,0,10,20", 75), xview_feature("6.tif", "0,0,10,20", 18)]
    text(tmp_path / "xView_train.geojson", {"features": features})
    dataset = xview.read(tmp_path)
    assert [sample.name for sample in dataset] == ["6"]
    assert reported(dataset) == 1


def test_airbus_csv_reads_bounds_with_or_without_a_suffix(tmp_path):
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/b.jpg")
    picture(tmp_path / "extras/c.jpg")  # Airbus's images without labels
    rows = [
        'a,oil-storage-tank,"(10, 20, 50, 30)"',
        'a,oil-storage-tank,"(5, 5, 1, 9)"',
        "a,tank,nothing",
        'missing,tank,"(1, 2, 3, 4)"',
    ]
    text(tmp_path / "annotations.csv", "\n".join(["image_id,class,bounds", *rows]) + "\n")
    dataset = airbus.read(tmp_path)
    assert objects_of(dataset) == {"a": [("oil-storage-tank", 30, 25, 40, 10, 0)]}
    assert dataset.kind == "hbb"
    assert reported(dataset) == 3
    assert [problem.line for problem in dataset.problems][:2] == [3, 4]
    assert "b.jpg has no labels" in messages(dataset)
    assert "c.jpg" not in messages(dataset)


def test_airbus_csv_reports_lines_after_a_quotation_mark_that_is_not_closed(tmp_path):
    picture(tmp_path / "images/a.jpg")
    rows = ['a,tank,"(10, 20, 50, 30)"', 'a,tank,"(1, 2, 3, 4)', 'a,tank,"(5, 5, 9, 9)"', 'a,tank,"(0, 0, 9, 9)"']
    for closed in (True, False):
        lines = [row if row.endswith('"') or not closed else row + '"' for row in rows]
        text(tmp_path / "annotations.csv", "\n".join(["image_id,class,bounds", "", *lines]) + "\n")
        dataset = airbus.read(tmp_path)
        assert sum(len(sample.layout) for sample in dataset) + reported(dataset) == 4
        assert reported(dataset) == (0 if closed else 2)
    assert "lines 4 to 5 are skipped" in messages(dataset)


@pytest.mark.parametrize("turned", [False, True])
def test_airbus_csv_reads_polygons(turned, tmp_path):
    picture(tmp_path / "images/a.jpg")
    points = corners() if turned else [(10, 20), (50, 20), (50, 30), (10, 30)]
    shape = str([tuple(point) for point in [*points, points[0]]])
    text(tmp_path / "annotations.csv", f'id,image_id,geometry,class\n1,a.jpg,"{shape}",Truncated_airplane\n')
    dataset = airbus.read(tmp_path)
    box = (60, 50, 40, 10, 0.52) if turned else (30, 25, 40, 10, 0)
    assert objects_of(dataset) == {"a": [("Truncated_airplane", *box)]}
    assert dataset.kind == ("obb" if turned else "hbb")


@pytest.mark.skipif(not (REAL / "oil-tanks").is_dir(), reason="the real images are not here")
def test_every_tank_of_the_real_csv_is_read():
    dataset = airbus.read(REAL / "oil-tanks")
    lines = (REAL / "oil-tanks" / "annotations.csv").read_text().splitlines()
    assert sum(len(sample.layout) for sample in dataset) + reported(dataset) == len(lines) - 1 == 2986
    assert len(dataset) == 10
    assert airbus.recognizes(REAL / "oil-tanks" / "annotations.csv", lines[0])


def shape(kind: str, points, label="car", **fields) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, "group_id": None, **fields}


def labelme_file(shapes: list, name="a.png", **fields) -> dict:
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
            "imageHeight": 100, "imageWidth": 200, **fields}  # fmt: skip


def test_labelme_reads_each_kind_of_shape(tmp_path):
    picture(tmp_path / "images/a.png")
    shapes = [
        shape("rectangle", [[50, 30], [10, 20]]),  # opposite corners in any order
        shape("rectangle", [[10, 20], [50, 20], [50, 30], [10, 30]]),
        shape("polygon", corners()),
        shape("rotation", corners(), direction=0.52),
        shape("oriented_rectangle", corners()),
        shape("circle", [[100, 50], [110, 50]]),
        shape("polygon", corners(), flags={"difficult": True}),
        shape("polygon", corners(), difficult=True),  # X-AnyLabeling
        shape("rectangle", [[0, 0], [9, 9]], flags={"ignore": True}),
        shape("point", [[3, 3]]),
        shape("line", [[3, 3], [8, 8]]),
        shape("rectangle", [[3, 3], [8, 3]]),
        shape("polygon", [[3, 3], [8, 8]]),
        {"label": 7, "points": []},
    ]
    text(tmp_path / "labels/a.json", labelme_file(shapes, name="..\\images\\a.png"))
    dataset = labelme.read(tmp_path)
    flat, tilted = ("car", 30, 25, 40, 10, 0), ("car", 60, 50, 40, 10, 0.52)
    assert objects_of(dataset) == {"a": [flat, flat, *[tilted] * 3, ("car", 100, 50, 20, 20, 0), tilted, tilted]}
    [sample] = dataset
    assert sample.layout.difficult.tolist() == [False] * 6 + [True] * 2
    assert regions(dataset) == [[4.5, 4.5, 9, 9, 0]]
    assert reported(dataset) == 5
    assert dataset.kind == "obb"


def test_labelme_parts_of_one_group_are_one_object_and_said_to_be(tmp_path):
    picture(tmp_path / "a.png")
    parts = [shape("rectangle", [[0, 0], [10, 10]], group_id=1), shape("rectangle", [[20, 0], [30, 10]], group_id=1)]
    others = [
        shape("rectangle", [[0, 50], [10, 60]], group_id=1, label="bus"),
        shape("rectangle", [[50, 50], [60, 60]]),
    ]
    text(tmp_path / "a.json", labelme_file(parts + others))
    dataset = labelme.read(tmp_path)
    assert objects_of(dataset)["a"] == [
        ("car", 15, 5, 30, 10, 0),
        ("bus", 5, 55, 10, 10, 0),
        ("car", 55, 55, 10, 10, 0),
    ]
    assert reported(dataset) == 1, "four shapes are three objects and one part"
    assert dataset.kind == "hbb"


def test_stray_json_beside_labelme_files_is_passed_over_and_a_broken_file_reported(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
        text(tmp_path / f"{name}.json", labelme_file([shape("rectangle", [[0, 0], [10, 10]])], name=f"{name}.png"))
    text(tmp_path / "package.json", {"name": "x"})
    text(tmp_path / "tools/settings.json", {"name": "x"})
    assert labelme.read(tmp_path).problems == []
    assert labelme.splits(tmp_path) == ()
    text(tmp_path / "b.json", '{"shapes": [{"points": [[1, 2], ')
    dataset = labelme.read(tmp_path)
    assert reported(dataset) == 1
    assert [sample.name for sample in dataset] == ["a"], "an image with unreadable labels is not empty ground"
    assert "b.json" in messages(dataset)


CVAT_META = "<meta><task><labels><label><name>car</name></label><label><name>bus</name></label></labels></task></meta>"


def cvat_xml(shapes: str, subset: str = "") -> str:
    extra = f' subset="{subset}"' if subset else ""
    return (
        f'<annotations><version>1.1</version>{CVAT_META}<image id="0" name="a.png" width="200" height="100"{extra}>'
        f"{shapes}</image></annotations>"
    )


def test_cvat_turns_boxes_clockwise_and_reports_shapes_without_a_box(tmp_path):
    picture(tmp_path / "images/a.png")
    box = 'xtl="40" ytl="45" xbr="80" ybr="55"'
    points = ";".join(f"{x},{y}" for x, y in corners())
    shapes = [
        f'<box label="car" occluded="1" {box} rotation="30" z_order="0"/>',
        '<box label="bus" occluded="0" xtl="10" ytl="20" xbr="50" ybr="30"/>',
        f'<polygon label="car" points="{points}"/>',
        '<ellipse label="bus" cx="60" cy="50" rx="20" ry="5" rotation="30"/>',
        '<box label="car" xtl="0" ytl="0" xbr="9" ybr="9"><attribute name="ignored">true</attribute></box>',
        '<box label="car" xtl="0" ytl="0" xbr="9" ybr="9"><attribute name="difficult">true</attribute></box>',
        '<box label="car" xtl="0" ytl="0" xbr="9" ybr="9"><attribute name="difficult">false</attribute></box>',
        '<box label="car" outside="1" xtl="0" ytl="0" xbr="9" ybr="9"/>',
        f'<polyline label="car" points="{points}"/>',
        '<points label="car" points="1,2"/>',
        '<mask label="car" rle="1,2" left="0" top="0" width="3" height="1"/>',
        '<box label="car" xtl="9" ytl="0" xbr="3" ybr="9"/>',
        '<box label="car" xtl="x" ytl="0" xbr="3" ybr="9"/>',
        '<tag label="city"/>',
    ]
    text(tmp_path / "annotations.xml", cvat_xml("".join(shapes)))
    dataset = cvat.read(tmp_path)
    tilted, small = (60, 50, 40, 10, 0.52), (4.5, 4.5, 9, 9, 0)
    assert objects_of(dataset)["a"] == [
        ("car", *tilted), ("bus", 30, 25, 40, 10, 0), ("car", *tilted), ("bus", *tilted), *[("car", *small)] * 2,
    ]  # fmt: skip
    assert dataset.samples[0].layout.difficult.tolist() == [False] * 4 + [True, False]
    assert regions(dataset) == [list(small)]
    assert reported(dataset) == 6
    assert (dataset.kind, dataset.classes) == ("obb", ("car", "bus"))


def test_cvat_tracks_are_reported_with_their_number(tmp_path):
    picture(tmp_path / "images/a.png")
    boxes = [f'<box frame="{i}" outside="{i}" xtl="0" ytl="0" xbr="9" ybr="9"/>' for i in range(2)]
    track = f'<track id="0" label="car">{"".join(boxes)}</track>'
    text(tmp_path / "annotations.xml", cvat_xml("").replace("</annotations>", track + "</annotations>"))
    dataset = cvat.read(tmp_path)
    assert reported(dataset) == 1
    assert "CVAT for images" in messages(dataset)


def test_cvat_splits_are_subsets(tmp_path):
    picture(tmp_path / "images/a.png")
    text(tmp_path / "annotations.xml", cvat_xml('<box label="car" xtl="0" ytl="0" xbr="9" ybr="9"/>', subset="val"))
    assert cvat.splits(tmp_path) == ("val",)
    assert cvat.read(tmp_path, split="val").kind == "hbb"
    with pytest.raises(UserError, match="no split 'train'; it has val"):
        cvat.read(tmp_path, split="train")


def datumaro_content(annotations: list[dict], **image) -> dict:
    return {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": [{"name": "car", "parent": ""}, {"name": "bus", "parent": ""}]}},
        "items": [{"id": "a", "annotations": annotations, "image": {"path": "a.png", "size": [100, 200], **image}}],
    }


def test_datumaro_turns_boxes_by_cvats_attribute_and_reports_the_rest(tmp_path):
    picture(tmp_path / "images/train/a.png")
    bbox = {"type": "bbox", "label_id": 0, "bbox": [40, 45, 40, 10]}
    flat = [value for corner in corners() for value in corner]
    annotations = [
        {**bbox, "attributes": {"rotation": 30.0, "occluded": True}},
        {**bbox, "attributes": {"rotation": 0.0}},
        {"type": "polygon", "label_id": 1, "points": flat},
        {"type": "ellipse", "label_id": 1, "points": [40, 45, 80, 55]},
        {**bbox, "attributes": {"is_crowd": True}},
        {**bbox, "attributes": {"difficult": True}},
        {**bbox, "label_id": 2},
        {**bbox, "label_id": None},
        {"type": "polyline", "label_id": 1, "points": flat},
        {"type": "mask", "label_id": 1, "rle": {}},
        {**bbox, "bbox": [1, 2, 3]},
        {"type": "label", "label_id": 1},
        {"type": "caption", "caption": "a street"},
    ]
    text(tmp_path / "annotations/train.json", datumaro_content(annotations))
    dataset = datumaro_json.read(tmp_path)
    tilted, upright = (60, 50, 40, 10, 0.52), (60, 50, 40, 10, 0)
    assert objects_of(dataset)["a"] == [
        ("car", *tilted), ("car", *upright), ("bus", *tilted), ("bus", *upright), ("car", *upright),
    ]  # fmt: skip
    assert regions(dataset) == [list(upright)]
    assert dataset.samples[0].layout.difficult.tolist() == [False] * 4 + [True]
    assert reported(dataset) == 5
    assert (dataset.kind, dataset.classes) == ("obb", ("car", "bus"))
    assert datumaro_json.splits(tmp_path) == ("train",)


@pytest.mark.parametrize("format", sorted(READERS))
def test_a_format_that_is_only_read_says_so_before_anything_is_written(format, make_dataset, tmp_path):
    dataset = make_dataset(tmp_path / "in", [[TURNED]])
    if format in formats.WRITTEN:
        assert formats.write(dataset, tmp_path / "out", format) == []
        return
    with pytest.raises(UserError, match=f"{format} can be read, but not written; choose one of dota, "):
        formats.write(dataset, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


SQUARE = [0, 0, 9, 0, 9, 9, 0, 9]
DATUMARO_SQUARE = {"type": "polygon", "label_id": 0, "points": SQUARE}
SAMPLES = {
    "fair1m": ("labelXml/a.xml", fair1m_xml("a.png", [("Van", corners(), "pixel")])),
    "ucas-aod": ("CAR/a.txt", ucas_line()),
    "visdrone": ("annotations/a.txt", "10,20,30,40,1,4,0,1\n"),
    "soda-a": ("Annotations/a.json", json.dumps({"annotations": [{"poly": SQUARE, "category_id": 1}]})),
    "xview": ("xView_train.geojson", json.dumps({"features": [xview_feature("a.png", "1,2,3,4", 18)]})),
    "airbus": ("annotations.csv", 'image_id,class,bounds\na,tank,"(1, 2, 3, 4)"\n'),
    "csv": ("labels.csv", "image,xmin,ymin,xmax,ymax,class\na.png,1,2,3,4,tank\n"),
    "labelme": ("a.json", json.dumps(labelme_file([shape("rectangle", [[0, 0], [9, 9]])]))),
    "cvat": ("annotations.xml", cvat_xml('<box label="car" xtl="0" ytl="0" xbr="9" ybr="9"/>')),
    "datumaro": ("annotations/train.json", json.dumps(datumaro_content([DATUMARO_SQUARE]))),
}  # fmt: skip
OTHERS = {
    "coco.json": '{"images": [], "annotations": [{"bbox": [1, 2, 3, 4], "category_id": 1}], "categories": []}',
    "package.json": '{"name": "x", "items": [1, 2], "files": ["a.csv"]}',
    "notes.csv": "image_id,width,height\na,1,2\n",
    "ships.csv": "ImageId,EncodedPixels\na.jpg,1 2 3\n",
    "dota.txt": "1 2 3 4 5 6 7 8 plane 0\n",
    "yolo.txt": "0 0.5 0.5 0.1 0.1\n",
    "yolo_obb.txt": "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n",
    "readme.txt": "Images of cars, planes, and others\n",
    "list.txt": "a\nb\n",
    "empty.txt": "",
    "voc.xml": "<annotation><object><name>car</name><bndbox><xmin>1</xmin></bndbox></object></annotation>",
    "map.geojson": '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}}]}',
}


@pytest.mark.parametrize("format", sorted(READERS))
def test_only_files_of_a_format_are_recognised_as_such(format):
    files = {name: (Path(file), content) for name, (file, content) in SAMPLES.items()}
    files |= {name: (Path(name), content) for name, content in OTHERS.items()}
    assert [name for name, file in files.items() if READERS[format].recognizes(*file)] == [format]


@pytest.mark.parametrize("format", sorted(SAMPLES))
def test_no_two_formats_claim_the_same_file(format, tmp_path):
    name, content = SAMPLES[format]
    variants = [content, *EMPTY.get(format, ())]
    for content in variants:
        file = text(tmp_path / name, content)
        claimed = [known for known, module in formats.FORMATS.items() if module.recognizes(file, content)]
        assert claimed == [format], content


EMPTY = {  # files of images without objects, and fuller ones
    "fair1m": [fair1m_xml("a.png", [])],
    "soda-a": [
        json.dumps({"images": {"file_name": "a.png"}, "annotations": [], "categories": [{"id": 0, "name": "x"}]}),
        json.dumps(
            {
                "images": {"file_name": "a.png"},
                "annotations": [{"poly": SQUARE, "category_id": 0, "image_id": 1}],
                "categories": [{"id": 0, "name": "x"}],
            }
        ),
    ],
    "labelme": [json.dumps(labelme_file([]))],
    "cvat": [cvat_xml("")],
    "datumaro": [json.dumps(datumaro_content([]))],
}


@pytest.mark.parametrize("format", sorted(READERS))
def test_a_minimal_set_is_read_without_a_problem(format, tmp_path):
    name, content = SAMPLES[format]
    picture(tmp_path / ("CAR/a.png" if format == "ucas-aod" else "images/a.png"))
    text(tmp_path / name, content)
    dataset = READERS[format].read(tmp_path)
    assert sum(len(sample.layout) for sample in dataset) == 1
    assert dataset.problems == []
    assert dataset.format == format


@pytest.mark.parametrize("format", sorted(READERS))
def test_an_image_that_is_missing_counts_its_objects(format, tmp_path):
    name, content = SAMPLES[format]
    text(tmp_path / name, content)
    picture(tmp_path / "images/unrelated.png")
    with pytest.raises(UserError, match=r"no usable labelled image"):
        READERS[format].read(tmp_path)


@pytest.mark.parametrize("format", ["cvat", "datumaro", "fair1m", "labelme", "soda-a", "xview", "airbus", "csv"])
@pytest.mark.parametrize("stated", ["../secret.png", "{root}/secret.png", "..\\\\..\\\\secret.png"])
def test_no_name_leads_out_of_the_folder(format, stated, tmp_path):
    picture(tmp_path / "secret.png")
    name, content = SAMPLES[format]
    root = tmp_path / "set"
    picture(root / "images/other.png")
    stated = stated.format(root=tmp_path)
    content = content.replace("a.png", stated).replace("\na,", f"\n{stated},")
    text(root / name, content)
    with pytest.raises(UserError, match=r"no usable labelled image"):
        READERS[format].read(root)


@pytest.mark.parametrize("format", sorted(READERS))
def test_an_image_none_of_whose_objects_can_be_read_is_left_out(format, tmp_path):
    """It would pass for empty ground."""
    name, content = SAMPLES[format]
    picture(tmp_path / ("CAR/a.png" if format == "ucas-aod" else "images/a.png"))
    for old, new in BROKEN[format]:
        assert old in content
        content = content.replace(old, new)
    text(tmp_path / name, content)
    with pytest.raises(UserError, match="no usable labelled image"):
        READERS[format].read(tmp_path)


BROKEN = {
    "fair1m": [("<possibleresult>", "<unknown>"), ("</possibleresult>", "</unknown>")],
    "ucas-aod": [("e+01", "e+01x")],
    "visdrone": [("10,20", "ten,20")],
    "soda-a": [("0, 0, 9, 0", '"x", 0, 9, 0')],
    "xview": [("1,2,3,4", "1,2,3")],
    "airbus": [("(1, 2, 3, 4)", "(1, 2)")],
    "csv": [("1,2,3,4", "1,2,x,4")],
    "labelme": [("rectangle", "mask")],
    "cvat": [("<box", "<polyline"), ("</box", "</polyline")][:1],
    "datumaro": [('"polygon"', '"polyline"')],
}


def image_is_missing(image: Path, label: Path) -> None:
    image.unlink()


def image_is_cut_off(image: Path, label: Path) -> None:
    image.write_bytes(image.read_bytes()[:40])


def image_has_a_twin(image: Path, label: Path) -> None:
    picture(image.parent / "twin" / image.name)


def image_is_elsewhere(image: Path, label: Path) -> None:
    (image.parent.parent / "jpegs" / "flight 7").mkdir(parents=True)
    image.rename(image.parent.parent / "jpegs" / "flight 7" / image.name)


def label_has_bytes_that_are_no_text(image: Path, label: Path) -> None:
    label.write_bytes(label.read_bytes().rstrip() + b" \xb4\xac")


def label_is_cut_off(image: Path, label: Path) -> None:
    label.write_bytes(label.read_bytes()[:-3])


CHANGES = [
    image_is_missing, image_is_cut_off, image_has_a_twin, image_is_elsewhere, label_has_bytes_that_are_no_text,
    label_is_cut_off,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("format", sorted(READERS))
def test_the_object_is_read_or_reported_whatever_happens_to_its_files(format, change, tmp_path):
    name, content = SAMPLES[format]
    image = picture(tmp_path / ("CAR/a.png" if format == "ucas-aod" else "images/a.png"))
    change(image, text(tmp_path / name, content))
    try:
        dataset, refusal = READERS[format].read(tmp_path), None
    except UserError as error:
        dataset, refusal = None, error
    if dataset is not None:
        found = sum(len(sample.layout) + len(sample.layout.ignored) for sample in dataset)
        assert found + reported(dataset) == 1, dataset.problems
    elif isinstance(refusal, NothingUsable):
        assert sum(problem.objects for problem in refusal.problems) == 1, refusal
    else:
        assert str(tmp_path) in str(refusal)

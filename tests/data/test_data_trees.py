"""The folder trees of docs/data.md: made as they stand there, each is recognised and read without a problem."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

import pytest
from test_data_more_formats import (
    corners,
    cvat_xml,
    datumaro_content,
    fair1m_xml,
    labelme_file,
    picture,
    shape,
    text,
    ucas_line,
    xview_feature,
)

from dataengine.data import formats

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
IMAGES = (".jpg", ".png", ".tif", ".bmp")
QUAD = [10, 10, 40, 10, 40, 30, 10, 30]
BNDBOX = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")
NAMES = [f"{axis}_{corner}" for corner in CORNERS for axis in "xy"]
ROBNDBOX = "".join(f"<{name}>{value}</{name}>" for name, value in zip(NAMES, QUAD, strict=True))
RECTANGLE = shape("rectangle", [[10, 10], [40, 30]])
SPLIT = re.compile(r"(?:^|[/-])(trainval|train|val|validation|test)(?=[/.])")
HRSC = (
    "<HRSC_Image><Img_SizeWidth>200</Img_SizeWidth><Img_SizeHeight>100</Img_SizeHeight><HRSC_Objects><HRSC_Object>"
    "<Class_ID>100000001</Class_ID><mbox_cx>25</mbox_cx><mbox_cy>20</mbox_cy><mbox_w>30</mbox_w><mbox_h>20</mbox_h>"
    "<mbox_ang>0.1</mbox_ang></HRSC_Object></HRSC_Objects></HRSC_Image>"
)


def annotation(inside: str) -> str:
    return f"<annotation><object>{inside}</object></annotation>"


def coco(names: list[str]) -> str:
    images = [{"id": i, "file_name": name, "width": 200, "height": 100} for i, name in enumerate(names)]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 30, 20]} for i in range(len(names))]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ship"}]})


def hit_uav(names: list[str]) -> str:
    images = [
        {"id": i, "filename": n, "width": 200, "height": 100, "perspective": "90"} for i, n in enumerate(names)
    ]  # fmt: skip
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [25, 20, 30, 20, 0.1]} for i in range(len(names))]
    return json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "Car"}]})


def of_datumaro(names: list[str]) -> str:
    content = datumaro_content([{"type": "polygon", "label_id": 0, "points": QUAD}])
    content["items"][0]["id"] = PurePosixPath(names[0]).stem
    content["items"][0]["image"] = {"path": names[0], "size": [100, 200]}
    return json.dumps(content)


CONTENT = {  # of a label file, by the names of its images
    "dota": lambda names: " ".join(map(str, QUAD)) + " ship 0\n",
    "coco": coco,
    "dior": lambda names: annotation(f"<name>ship</name><robndbox>{ROBNDBOX}</robndbox>"),
    "voc": lambda names: annotation(f"<name>ship</name>{BNDBOX}"),
    "hrsc": lambda names: HRSC,
    "rolabelimg": lambda names: annotation(
        "<type>robndbox</type><name>ship</name><robndbox><cx>25</cx><cy>20</cy><w>30</w><h>20</h><angle>0.1</angle></robndbox>"
    ),
    "hit-uav": hit_uav,
    "yolo": lambda names: "0 0.5 0.5 0.25 0.25\n",
    "fair1m": lambda names: fair1m_xml(names[0], [("Van", corners(), "pixel")]),
    "ucas-aod": lambda names: ucas_line(),
    "visdrone": lambda names: "10,20,30,40,1,4,0,1\n",
    "soda-a": lambda names: json.dumps(
        {
            "images": {"file_name": names[0], "width": 200, "height": 100},
            "annotations": [{"poly": QUAD, "category_id": 0}],
            "categories": [{"id": 0, "name": "airplane"}],
        }
    ),
    "xview": lambda names: json.dumps({"features": [xview_feature(names[0], "10,10,40,30", 18)]}),
    "airbus": lambda names: f'image_id,class,bounds\n{names[0]},tank,"(10, 10, 40, 30)"\n',
    "labelme": lambda names: json.dumps(
        labelme_file([shape("rectangle", [[10, 10], [40, 30]])]) | {"imagePath": names[0]}
    ),
    "cvat": lambda names: cvat_xml('<box label="car" xtl="10" ytl="10" xbr="40" ybr="30"/>').replace("a.png", names[0]),
    "datumaro": of_datumaro,
    "csv": lambda names: f"filename,width,height,class,xmin,ymin,xmax,ymax\n{names[0]},200,100,car,10,10,40,30\n",
}


def trees() -> dict[str, list[str]]:
    """{format: paths of its tree}."""
    [block] = re.findall(r"```text\n(dota .*?)```", PAGE.read_text(), re.DOTALL)
    found = {}
    for part in block.strip().split("\n\n"):
        head, *paths = part.splitlines()
        found[head.split()[0]] = [path.strip() for path in paths]
    return found


def test_every_format_has_a_tree():
    assert list(trees()) == list(formats.FORMATS)
    assert set(CONTENT) == set(formats.FORMATS)


@pytest.mark.parametrize("format", formats.FORMATS)
def test_a_tree_is_recognised_and_read_without_a_problem(format, tmp_path):
    paths = trees()[format]
    images = [path for path in paths if path.endswith(IMAGES)]
    for path in images:
        picture(tmp_path / path)
    for path in set(paths) - set(images):
        text(tmp_path / path, label(format, PurePosixPath(path), images))
    assert formats.recognize(tmp_path) == format
    dataset = formats.read(tmp_path)
    assert dataset.problems == []
    assert {sample.image.relative_to(tmp_path).as_posix() for sample in dataset} == set(images)
    objects = sum(len(sample.layout) for sample in dataset)
    assert objects == len([path for path in images if "/Neg/" not in f"/{path}"])
    named = {
        word for path in paths for word in re.findall(r"(?:^|[/-])(trainval|train|val|validation|test)(?=[/.])", path)
    }
    stated = set(formats.splits(tmp_path))
    assert stated <= named
    assert stated == named or format in ("xview", "dior"), "xview has none; dior's folders are not its splits"


def label(format: str, path: PurePosixPath, images: list[str]) -> str:
    """The content of a file of a tree that is no image."""
    if path.suffix == ".yaml":
        return "names: [ship]\ntrain: images/train\nval: images/val\n"
    if path.parent.name in ("Main", "ImageSets"):  # a list of a split: the images in order, one for each list
        number = 0 if path.stem.startswith("train") else 1
        return f"{PurePosixPath(images[number]).stem}\n"
    same = [name for name in images if PurePosixPath(name).stem == path.stem]
    parts = [name for name in images if path.stem in name.split("/")]
    return CONTENT[format]([PurePosixPath(name).name for name in same or parts or images])

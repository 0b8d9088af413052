"""Every kind of picture that people have, on every way out: a rectangle painted where the box is, is found there.

The stored files are made here or by OpenCV and tifffile, and what is written is decoded by them, not by dataengine.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import app
from dataengine.data import formats, images
from dataengine.data.check import check
from dataengine.data.draw import sample_sheet
from dataengine.data.layout import Acquisition, Dataset, Sample
from dataengine.data.merge import merge
from dataengine.data.pixel_range import PixelRange, in_8_bits, parse, range_of
from dataengine.data.tile import tile
from dataengine.errors import UserError
from dataengine.evaluate.windows import cut_windows

WIDTH, HEIGHT = 160, 96  # of the upright picture
BOX = 24, 16, 56, 40  # left, top, right, bottom of the rectangle
RED, GROUND = (220, 50, 40), (60, 70, 80)
LOW, HIGH = 6000, 9000
HOT, COLD = 8400, 6600  # values of 16 bits
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True


def grey_of(value: float, low: float = LOW, high: float = HIGH) -> int:
    return round((value - low) / (high - low) * 255)


def two_values(mask: np.ndarray, inside, outside, dtype) -> np.ndarray:
    return np.where(mask[..., None], np.array(inside), np.array(outside)).astype(dtype).squeeze()


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The picture that a viewer turns upright by this orientation, by the table of the EXIF standard: where its row 0
    and column 0 are shown."""
    place = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    return np.ascontiguousarray(place[orientation](upright))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[274] = orientation
    return tags


@dataclass(frozen=True)
class Kind:
    """A kind of picture. write: makes the file from a mask. object, ground: their colours in RGB of 8 bits."""

    suffix: str
    write: object
    object: tuple[int, int, int]
    ground: tuple[int, int, int]

    @property
    def tolerance(self) -> int:
        """Of a channel, to be told from the ground."""
        return int(min(40, np.abs(np.array(self.object) - self.ground).max() / 2))


def pillow(mode: str, **options):
    def write(path: Path, mask: np.ndarray) -> None:
        Image.fromarray(two_values(mask, RED, GROUND, np.uint8)).convert(mode).save(path, **options)

    return write


def _grey(colour) -> tuple[int, int, int]:
    return (int(Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))),) * 3


def _with_alpha(path: Path, mask: np.ndarray) -> None:
    rgba = np.dstack([two_values(mask, RED, GROUND, np.uint8), np.where(mask, 255, 0).astype(np.uint8)])
    Image.fromarray(rgba).save(path)


def _grey_with_alpha(path: Path, mask: np.ndarray) -> None:
    pixels = np.dstack([two_values(mask, 200, 60, np.uint8), np.where(mask, 0, 255).astype(np.uint8)])
    Image.fromarray(pixels, "LA").save(path)


def _palette(transparency):
    def write(path: Path, mask: np.ndarray) -> None:
        image = Image.fromarray(mask.astype(np.uint8), "P")
        image.putpalette([*GROUND, *RED])
        image.save(path, **({} if transparency is None else {"transparency": transparency}))

    return write


def _one_bit(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(path)


def opencv(inside, outside, dtype=np.uint16, options=()):
    def write(path: Path, mask: np.ndarray) -> None:
        array = two_values(mask, inside, outside, dtype)
        assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1], list(options))

    return write


def tiff(inside, outside, dtype, **options):
    def write(path: Path, mask: np.ndarray) -> None:
        tifffile.imwrite(path, two_values(mask, inside, outside, dtype), **options)

    return write


def planar(inside, outside, dtype):
    def write(path: Path, mask: np.ndarray) -> None:
        array = np.moveaxis(two_values(mask, inside, outside, dtype), -1, 0)
        tifffile.imwrite(path, array, photometric="rgb", planarconfig="separate")

    return write


def turned(orientation: int):
    def write(path: Path, mask: np.ndarray) -> None:
        pixels = stored(two_values(mask, RED, GROUND, np.uint8), orientation)
        quality = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
        Image.fromarray(pixels).save(path, exif=exif(orientation), **quality)

    return write


def turned_deep_png(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(stored(two_values(mask, HOT, COLD, np.uint16), 8)).save(path, exif=exif(8))


def turned_tiff(inside, outside, dtype, orientation: int, **options):
    def write(path: Path, mask: np.ndarray) -> None:
        array = stored(two_values(mask, inside, outside, dtype), orientation)
        tifffile.imwrite(path, array, extratags=[(274, "H", 1, orientation, True)], **options)

    return write


DEEP = (grey_of(HOT),) * 3, (grey_of(COLD),) * 3
WARM_RGB, COOL_RGB = (8700, 6900, 6300), (6600, 7200, 7500)
DEEP_RGB = tuple(map(grey_of, WARM_RGB)), tuple(map(grey_of, COOL_RGB))
MANY, FEW = (8700, 6900, 6300, 6100, 8000, 8999), (6600, 7200, 7500, 8800, 6200, 6001)
LZW = (cv2.IMWRITE_TIFF_COMPRESSION, 5)
KINDS = {
    "rgb": Kind(".png", pillow("RGB"), RED, GROUND),
    "jpeg": Kind(".jpg", pillow("RGB", quality=95, subsampling=0), RED, GROUND),
    "grey": Kind(".png", pillow("L"), _grey(RED), _grey(GROUND)),
    "one bit": Kind(".png", _one_bit, (255,) * 3, (0,) * 3),
    "palette": Kind(".png", _palette(None), RED, GROUND),
    "palette, one colour transparent": Kind(".png", _palette(0), RED, GROUND),
    "palette, alpha for each colour": Kind(".png", _palette(bytes([0, 128])), RED, GROUND),
    "alpha": Kind(".png", _with_alpha, RED, GROUND),
    "grey, alpha": Kind(".png", _grey_with_alpha, (200,) * 3, (60,) * 3),
    "cmyk jpeg": Kind(".jpg", pillow("CMYK", quality=95, subsampling=0), RED, GROUND),
    "cmyk tiff": Kind(".tif", pillow("CMYK"), RED, GROUND),
    "webp": Kind(".webp", pillow("RGB", lossless=True), RED, GROUND),
    "bmp": Kind(".bmp", pillow("RGB"), RED, GROUND),
    "16 bits": Kind(".png", opencv(HOT, COLD), *DEEP),
    "16 bits, tiff": Kind(".tif", opencv(HOT, COLD), *DEEP),
    "16 bits, big-endian": Kind(".tif", tiff(HOT, COLD, np.uint16, byteorder=">"), *DEEP),
    "16 bits, signed": Kind(".tif", tiff(HOT, COLD, np.int16), *DEEP),
    "32 bits": Kind(".tif", tiff(HOT, COLD, np.uint32), *DEEP),
    "float": Kind(".tif", tiff(HOT + 0.25, COLD + 0.25, np.float32), *DEEP),
    "double": Kind(".tiff", tiff(HOT + 0.25, COLD + 0.25, np.float64), *DEEP),
    "rgb of 16 bits": Kind(".png", opencv(WARM_RGB, COOL_RGB), *DEEP_RGB),
    "rgb of 16 bits, tiff": Kind(".tif", tiff(WARM_RGB, COOL_RGB, np.uint16, photometric="rgb"), *DEEP_RGB),
    "rgb of 16 bits, planar": Kind(".tif", planar(WARM_RGB, COOL_RGB, np.uint16), *DEEP_RGB),
    "rgb, planar": Kind(".tif", planar(RED, GROUND, np.uint8), RED, GROUND),
    "rgb of 16 bits, lzw": Kind(".tif", opencv(WARM_RGB, COOL_RGB, options=LZW), *DEEP_RGB),
    "rgb of floats": Kind(".tif", tiff(WARM_RGB, COOL_RGB, np.float32, photometric="rgb"), *DEEP_RGB),
    "four bands": Kind(".tif", tiff((*RED, 9), (*GROUND, 250), np.uint8, photometric="rgb"), RED, GROUND),
    "six bands": Kind(
        ".tif", tiff((*RED, 1, 2, 3), (*GROUND, 250, 0, 9), np.uint8, photometric="minisblack", planarconfig="contig"),
        RED, GROUND,
    ),
    "six bands of 16 bits": Kind(
        ".tif", tiff(MANY, FEW, np.uint16, photometric="minisblack", planarconfig="contig", compression="zlib"),
        *DEEP_RGB,
    ),
    "two bands": Kind(
        ".tif", tiff((200, 9), (60, 250), np.uint8, photometric="minisblack", planarconfig="contig"),
        (200,) * 3, (60,) * 3,
    ),
    **{f"exif {n}": Kind(".jpg", turned(n), RED, GROUND) for n in range(2, 9)},
    "exif 6, png": Kind(".png", turned(6), RED, GROUND),
    "exif 5, webp": Kind(".webp", turned(5), RED, GROUND),
    "exif 8, 16 bits": Kind(".png", turned_deep_png, *DEEP),
    "tiff turned": Kind(".tif", turned_tiff(RED, GROUND, np.uint8, 6, photometric="rgb"), RED, GROUND),
    "grey tiff turned": Kind(".tif", turned_tiff(200, 60, np.uint8, 6), (200,) * 3, (60,) * 3),
    "16 bits, tiff turned": Kind(".tif", turned_tiff(HOT, COLD, np.uint16, 8), *DEEP),
    "rgb of 16 bits, tiff turned": Kind(
        ".tif", turned_tiff(WARM_RGB, COOL_RGB, np.uint16, 7, photometric="rgb"), *DEEP_RGB
    ),
}  # fmt: skip
every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """For each kind, a YOLO folder of one image with one box; the pixel range is stated."""
    root = tmp_path_factory.mktemp("sets")
    x1, y1, x2, y2 = BOX
    row = [0, (x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
    for number, kind in enumerate(KINDS.values()):
        folder = root / str(number)
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        kind.write(folder / "images" / f"a{kind.suffix}", MASK)
        (folder / "labels" / "a.txt").write_text(" ".join(map(str, row)))
        (folder / "classes.txt").write_text("car\n")
        (folder / "pixel-range.json").write_text(json.dumps({"low": LOW, "high": HIGH}))
    return {name: root / str(number) for number, name in enumerate(KINDS)}


def read(sets, name: str) -> Dataset:
    dataset = formats.read(sets[name])
    assert dataset.problems == []
    return dataset


def bounds(pixels: np.ndarray, colour, tolerance: int = 40) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels of a colour."""
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(axis=2) <= tolerance)
    assert len(rows), f"no pixel is {colour}"
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def box_of(layout) -> np.ndarray:
    """Left, top, right and bottom of the only box of a layout."""
    [[cx, cy, w, h, theta]] = layout.boxes.astype(float)
    across = abs(np.cos(theta)) > 0.5
    w, h = (w, h) if across else (h, w)
    return np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])


def agrees(pixels: np.ndarray, layout, kind: Kind, tolerance: float = 1.01) -> None:
    """The rectangle is where the box is, and both colours are right."""
    assert pixels.shape[1::-1] == tuple(layout.size)
    found = bounds(pixels, kind.object, kind.tolerance)
    assert np.abs(np.array(found) - box_of(layout)).max() <= tolerance
    left, top, right, bottom = found
    assert np.abs(pixels[top + 2 : bottom - 2, left + 2 : right - 2].mean((0, 1)) - kind.object).max() <= 4
    outside = np.ones(pixels.shape[:2], bool)
    outside[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
    assert np.abs(pixels[outside].mean(0) - kind.ground).max() <= 4


def decoded(file: Path) -> np.ndarray:
    """RGB uint8 by OpenCV and tifffile, without turning; deeper values scaled by the stated range."""
    array = None
    if file.suffix not in (".tif", ".tiff"):
        content = np.frombuffer(file.read_bytes(), np.uint8)
        array = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        array = array if array.ndim == 2 else array[..., 2::-1]
    else:
        with Image.open(file) if _is_cmyk(file) else io.BytesIO() as image:
            array = np.asarray(image.convert("RGB")) if _is_cmyk(file) else None
        if array is None:
            try:
                array = tifffile.imread(file)
            except ValueError:  # LZW
                array = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
                array = array if array.ndim == 2 else array[..., ::-1]
            if array.ndim == 3 and array.shape[0] == 3:
                array = np.moveaxis(array, 0, -1)
            array = array if array.ndim == 2 else array[..., :3] if array.shape[2] > 2 else array[..., 0]
    if array.dtype != np.uint8:
        array = np.clip((array.astype(float) - LOW) / (HIGH - LOW) * 255, 0, 255).round().astype(np.uint8)
    return array if array.ndim == 3 else np.dstack([array] * 3)


def _is_cmyk(file: Path) -> bool:
    with tifffile.TiffFile(file) as tiff_file:
        return tiff_file.pages[0].photometric == 5


@pytest.mark.parametrize("name", [name for name in KINDS if "exif" in name])
def test_the_turned_files_of_these_tests_are_upright_for_opencv(name, sets):
    pixels = cv2.imread(str(next((sets[name] / "images").iterdir())), cv2.IMREAD_COLOR)[..., ::-1]
    if "16 bits" not in name:
        assert np.abs(np.array(bounds(pixels, KINDS[name].object)) - BOX).max() <= 1
    assert pixels.shape[:2] == (HEIGHT, WIDTH)


@every_kind
class TestWaysOut:
    def test_reading(self, name, sets):
        [sample] = read(sets, name)
        assert sample.layout.size == (WIDTH, HEIGHT) == images.measure(sample.image)
        assert np.abs(box_of(sample.layout) - BOX).max() < 0.01
        agrees(images.read_picture(sample), sample.layout, KINDS[name])
        assert check(read(sets, name)) == []

    def test_contact_sheet(self, name, sets):
        dataset = read(sets, name)
        sheet, unreadable = sample_sheet(dataset, 1, np.random.default_rng(0), side=WIDTH)
        shown = np.asarray(sheet)[4 : 4 + HEIGHT, 4 : 4 + WIDTH]
        x1, y1, x2, y2 = BOX
        assert unreadable == 0
        assert np.abs(shown[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean((0, 1)) - KINDS[name].object).max() <= 4
        assert np.abs(shown[y2 + 3 :, :].mean((0, 1)) - KINDS[name].ground).max() <= 4

    def test_tiles(self, name, sets, tmp_path):
        tiles = tile(read(sets, name), tmp_path / "tiles", size=64, overlap=16)
        assert tiles.problems == []
        whole = [sample for sample in tiles if len(sample.layout) and (sample.layout.visible == 1).all()]
        assert whole
        for sample in whole:
            agrees(decoded(sample.image), sample.layout, KINDS[name])
            agrees(images.read_picture(sample), sample.layout, KINDS[name])

    @pytest.mark.parametrize("format", formats.WRITTEN)
    def test_convert(self, name, format, sets, tmp_path):
        assert formats.write(read(sets, name), tmp_path, format) == []
        again = formats.read(tmp_path, format)
        [sample] = again
        with (
            Image.open(sample.image) if sample.image.suffix not in (".tif", ".tiff") else Image.new("L", (1, 1)) as file
        ):
            assert file.getexif().get(274, 1) == 1
        agrees(decoded(sample.image), sample.layout, KINDS[name])
        agrees(images.read_picture(sample), sample.layout, KINDS[name])
        deep = range_of(read(sets, name))
        assert (tmp_path / "pixel-range.json").exists() == (deep is not None)

    def test_windows_of_evaluation(self, name, sets):
        for window in cut_windows(read(sets, name), (64, 64), of_each=4):
            if (window.layout.visible == 1).all():
                agrees(window.pixels(), window.layout, KINDS[name])

    def test_windows_of_training(self, name, sets):
        from dataengine.train.latents import window_sampler

        sample_window, rng = window_sampler([read(sets, name)], 96, 1.0), np.random.default_rng(0)
        seen = 0
        for _ in range(12):
            pixels, layout, _ = sample_window(rng)
            if len(layout) == 1 and layout.visible[0] == 1 and np.isclose(np.sin(2 * layout.boxes[0, 4]), 0, atol=1e-3):
                inside = np.abs(
                    np.array(bounds(pixels, KINDS[name].object, KINDS[name].tolerance)) - box_of(layout)
                ).max()
                seen += inside <= 2.5
        assert seen

    def test_scenes_and_real_objects(self, name, sets):
        from dataengine.render.dataset_canvases import DatasetCanvases

        dataset = read(sets, name)
        empty = replace(dataset.samples[0].layout.select([]), size=(64, 64))
        [canvas] = DatasetCanvases(dataset, (64, 64), False).draw([empty], [3])
        if len(canvas.existing) and canvas.existing.visible[0] == 1:
            agrees(canvas.image, canvas.existing, KINDS[name])
        augmented = DatasetCanvases(dataset, (64, 64), True).draw([empty] * 8, list(range(8)))
        seen = [canvas for canvas in augmented if len(canvas.existing) and canvas.existing.visible[0] == 1]
        assert seen
        for canvas in seen:
            cx, cy = canvas.existing.boxes[0, :2].round().astype(int)
            difference = np.abs(np.array(KINDS[name].object) - KINDS[name].ground)
            corner = canvas.image[1, 1] if abs(cx - 1) > 20 else canvas.image[-2, -2]
            assert np.abs(canvas.image[cy, cx].astype(int) - corner).max() > 0.3 * difference.max()

    def test_viewer(self, name, sets):
        from dataengine.view.images import image_bytes

        [sample] = read(sets, name)
        content, _ = image_bytes(sample.image, None, sample.pixel_range)
        shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))  # as browsers do, without turning
        agrees(shown, sample.layout, KINDS[name])

    def test_shards_hold_upright_bytes(self, name, sets, tmp_path):
        [sample] = read(sets, name)
        file = tmp_path / sample.image.name
        file.write_bytes(images.upright_bytes(sample.image))
        agrees(decoded(file), sample.layout, KINDS[name])


def test_a_silent_cut_at_255_would_be_noticed(sets, monkeypatch):
    monkeypatch.setattr(PixelRange, "to_8_bits", lambda self, values: values.clip(0, 255).astype(np.uint8))
    [sample] = read(sets, "16 bits")
    with pytest.raises(AssertionError):
        agrees(images.read_picture(sample), sample.layout, KINDS["16 bits"])


def test_pictures_that_are_not_turned_would_be_noticed(sets, monkeypatch):
    monkeypatch.setattr(images, "_orientation", lambda image: 1)
    [sample] = read(sets, "exif 3")
    with pytest.raises(AssertionError):
        agrees(images.read_picture(sample), sample.layout, KINDS["exif 3"])


class TestDepthIsKept:
    def written(self, sets, name, format, tmp_path):
        assert formats.write(read(sets, name), tmp_path, format) == []
        [sample] = formats.read(tmp_path, format)
        return sample.image

    @pytest.mark.parametrize(("name", "format"), [("16 bits", "coco"), ("16 bits", "dota"), ("16 bits, tiff", "dota")])
    def test_values_of_16_bits_are_the_same_in_a_png(self, name, format, sets, tmp_path):
        array = cv2.imread(str(self.written(sets, name, format, tmp_path)), cv2.IMREAD_UNCHANGED)
        assert array.dtype == np.uint16
        assert np.array_equal(array, np.where(MASK, HOT, COLD))

    def test_colours_of_16_bits_too(self, sets, tmp_path):
        array = cv2.imread(str(self.written(sets, "rgb of 16 bits, tiff", "dota", tmp_path)), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(array[..., ::-1], two_values(MASK, WARM_RGB, COOL_RGB, np.uint16))

    def test_tiles_too(self, sets, tmp_path):
        tiles = tile(read(sets, "16 bits"), tmp_path / "tiles", size=4096)
        assert np.array_equal(cv2.imread(str(tiles.samples[0].image), cv2.IMREAD_UNCHANGED), np.where(MASK, HOT, COLD))

    def test_a_turned_tiff_keeps_its_values(self, sets, tmp_path):
        array = tifffile.imread(self.written(sets, "16 bits, tiff turned", "coco", tmp_path))
        assert np.array_equal(array, np.where(MASK, HOT, COLD))

    def test_a_file_that_needs_no_change_is_copied_byte_by_byte(self, sets, tmp_path):
        copy = self.written(sets, "float", "coco", tmp_path)
        assert copy.read_bytes() == next((sets["float"] / "images").iterdir()).read_bytes()

    @pytest.mark.parametrize(
        ("name", "format", "lost"),
        [
            *[("16 bits", "dior", True), ("16 bits", "hrsc", True), ("float", "dota", True), ("32 bits", "dota", True)],
            *[("16 bits", "dota", False), ("16 bits, tiff", "dota", False), ("float", "coco", False)],
            *[("rgb", "dior", False)],
        ],
    )
    def test_a_loss_of_depth_is_said(self, name, format, lost, sets):
        said = [loss for loss in formats.losses(read(sets, name), format) if "pixel values" in loss]
        assert said == (["all pixel values (6000 to 9000 become 0 to 255)"] if lost else [])

    def test_programs_that_know_no_range_get_8_bits(self, sets, tmp_path):
        [sample] = in_8_bits(read(sets, "16 bits"), tmp_path)
        assert cv2.imread(str(sample.image), cv2.IMREAD_UNCHANGED).dtype == np.uint8
        agrees(decoded(sample.image), sample.layout, KINDS["16 bits"])
        [plain] = in_8_bits(read(sets, "rgb"), tmp_path)
        assert plain.image == read(sets, "rgb").samples[0].image


def thermal_set(root: Path, levels: dict[str, int], noise: int = 20) -> None:
    """A YOLO set of 16 bits with splits: a ground temperature for each image, and an object 500 above."""
    rng = np.random.default_rng(0)
    for name, ground in levels.items():
        array = ground + rng.integers(0, noise + 1, MASK.shape) + MASK * 500
        file = root / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.astype(np.uint16)).save(file)
        label = root / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 0.25 0.29 0.2 0.25")
    (root / "classes.txt").write_text("car")


class TestPixelRange:
    LEVELS = {"train/a": 7000, "train/b": 7400, "val/c": 8000}  # noqa: RUF012

    def test_it_is_the_same_for_all_images_and_splits_so_temperatures_stay_comparable(self, tmp_path):
        thermal_set(tmp_path, self.LEVELS)
        whole = formats.read(tmp_path)
        ranges = {
            sample.pixel_range for split in ("train", "val", None) for sample in formats.read(tmp_path, split=split)
        }
        assert ranges == {range_of(whole)}
        greys = {sample.name: images.read_picture(sample)[60, 100, 0] for sample in whole}
        assert greys["a"] < greys["b"] < greys["c"]
        objects = [images.read_picture(sample)[28, 40, 0] for sample in whole]
        assert max(objects) <= 255
        # 7500 to 7520 on the object of "a", 8000 to 8020 on the ground of "c": in order as the temperatures are
        assert objects[0] < greys["c"]

    def test_it_holds_all_values_but_dead_pixels(self, tmp_path):
        thermal_set(tmp_path, self.LEVELS)
        file = tmp_path / "images" / "train" / "a.png"
        array = np.array(Image.open(file))
        array[0, 0], array[5, 5] = 0, 65535
        Image.fromarray(array).save(file)
        found = range_of(formats.read(tmp_path))
        values = np.concatenate([np.array(Image.open(f)).ravel() for f in sorted(tmp_path.rglob("*.png"))])
        share = np.mean((values < found.low) | (values > found.high))
        assert 6000 < found.low <= 7001
        assert 8519 <= found.high < 9000
        assert share < 0.001

    def test_it_is_said_once_with_how_to_change_it(self, tmp_path):
        thermal_set(tmp_path, self.LEVELS)
        [note] = formats.read(tmp_path).notes
        assert "become 0 to 255 in all images" in note
        assert "--pixel-range" in note

    def test_images_of_8_bits_have_none(self, sets):
        dataset = read(sets, "rgb")
        assert range_of(dataset) is None
        assert dataset.notes == []

    def test_one_that_is_asked_for_is_used(self, tmp_path):
        thermal_set(tmp_path, self.LEVELS)
        dataset = formats.read(tmp_path, pixel_range=PixelRange(0, 65535))
        assert {sample.pixel_range for sample in dataset} == {PixelRange(0, 65535)}
        expected = round(int(np.array(Image.open(dataset.samples[0].image))[60, 100]) / 65535 * 255)
        assert images.read_picture(dataset.samples[0])[60, 100, 0] == expected
        assert dataset.notes == ["pixel values from 0 to 65535 become 0 to 255 in all images (as asked)"]

    def test_asking_without_effect_is_said(self, sets):
        assert "no effect" in formats.read(sets["rgb"], pixel_range=PixelRange(0, 100)).notes[0]

    def test_what_is_written_holds_it_and_gives_the_same_pixels(self, tmp_path):
        thermal_set(tmp_path / "in", self.LEVELS)
        dataset = formats.read(tmp_path / "in")
        part = replace(dataset, samples=dataset.samples[:1])  # would be measured otherwise
        formats.write(part, tmp_path / "out", "coco")
        [again] = formats.read(tmp_path / "out")
        assert again.pixel_range == range_of(dataset)
        assert np.array_equal(images.read_picture(again), images.read_picture(dataset.samples[0]))

    def test_two_ranges_in_one_folder_are_refused(self, tmp_path):
        thermal_set(tmp_path / "in", self.LEVELS)
        formats.write(formats.read(tmp_path / "in", split="train"), tmp_path / "out", "coco", split="train")
        other = formats.read(tmp_path / "in", split="val", pixel_range=PixelRange(0, 9999))
        with pytest.raises(UserError, match=r"not 0:9999; choose another folder, or give --pixel-range"):
            formats.write(other, tmp_path / "out", "coco", split="val")

    def test_data_sets_of_two_ranges_are_merged_with_one_for_both(self, tmp_path):
        thermal_set(tmp_path / "a", self.LEVELS)
        thermal_set(tmp_path / "b", {"d": 12000})
        with pytest.raises(UserError, match=r"different pixel ranges .*; give one for all"):
            merge([formats.read(tmp_path / "a"), formats.read(tmp_path / "b")])
        one = PixelRange(7000, 12600)
        merged = merge([formats.read(tmp_path / name, pixel_range=one) for name in ("a", "b")])
        assert {sample.pixel_range for sample in merged} == {one}

    def test_the_command_line_scales_by_the_asked_range_and_says_it_once(self, tmp_path):
        thermal_set(tmp_path / "in", self.LEVELS)
        arguments = ["data", "convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "dior"]
        result = CliRunner().invoke(app, [*arguments, "--pixel-range", "6000:9000"])
        assert result.exit_code == 0
        assert result.output.count("note: pixel values from 6000 to 9000 become 0 to 255") == 1
        assert "dior cannot store all pixel values (6000 to 9000 become 0 to 255)" in result.output
        assert (tmp_path / "out" / "pixel-range.json").read_text() == '{"low": 6000.0, "high": 9000.0}\n'
        for name, ground in self.LEVELS.items():
            [file] = (tmp_path / "out").rglob(f"{name.split('/')[1]}.jpg")
            assert abs(np.asarray(Image.open(file))[60, 100] - grey_of(ground + 10)) <= 3

    def test_a_folder_of_pictures_without_labels_has_one_too(self, tmp_path):
        thermal_set(tmp_path / "in", self.LEVELS)
        dataset = formats.labelled_or_plain(tmp_path / "in" / "images")
        assert range_of(dataset) == range_of(formats.read(tmp_path / "in"))
        assert dataset.notes

    def test_float_images_with_nan_are_scaled(self, tmp_path):
        (tmp_path / "images").mkdir()
        array = np.where(MASK, 40.0, 10.0).astype(np.float32)
        array[0, :8] = np.nan
        array[1, 0] = np.inf
        tifffile.imwrite(tmp_path / "images" / "a.tif", array)
        (tmp_path / "classes.txt").write_text("car")
        (tmp_path / "a.txt").write_text("")
        [sample] = formats.labelled_or_plain(tmp_path / "images")
        pixels = images.read_picture(sample)
        assert (pixels[MASK] == 255).all()
        assert (pixels[60, 100] == 0).all()
        assert (pixels[0, 0] == 0).all()

    def test_a_range_is_needed(self, tmp_path):
        Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match="more than 8 bits"):
            images.rgb(tmp_path / "a.png")
        assert images.rgb(tmp_path / "a.png", PixelRange(0, 600))[0, 0].tolist() == [128] * 3

    @pytest.mark.parametrize("text", ["", "5", "9:5", "a:b", "1:2:3", "nan:4", "1:1"])
    def test_nonsense_is_refused(self, text):
        with pytest.raises(UserError, match=r"such as 7000:9000"):
            parse(text)

    def test_a_damaged_file_is_refused(self, tmp_path):
        thermal_set(tmp_path, self.LEVELS)
        (tmp_path / "pixel-range.json").write_text('{"low": 3}')
        with pytest.raises(UserError, match=r"pixel-range\.json.*high"):
            formats.read(tmp_path)


class TestOrientation:
    """A picture stored lying and shown standing (exif 6), with the box in one or the other."""

    UPRIGHT = 40, 100, 60, 140  # left, top, right, bottom in 96x160
    STORED = 100, 96 - 60, 140, 96 - 40  # the same in 160x96

    def picture(self, file: Path, orientation: int = 6) -> None:
        mask = np.zeros((160, 96), bool)
        x1, y1, x2, y2 = self.UPRIGHT
        mask[y1:y2, x1:x2] = True
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stored(two_values(mask, RED, GROUND, np.uint8), orientation)).save(
            file, exif=exif(orientation), quality=95, subsampling=0
        )

    def coco(self, root: Path, size, box) -> Dataset:
        self.picture(root / "a.jpg")
        x1, y1, x2, y2 = box
        image = {"id": 1, "file_name": "a.jpg"} | ({} if size is None else {"width": size[0], "height": size[1]})
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "car"}]}
        (root / "a.json").write_text(json.dumps(content))
        return formats.read(root, "coco")

    def right(self, dataset: Dataset) -> None:
        assert dataset.problems == []
        [sample] = dataset
        assert sample.layout.size == (96, 160)
        assert np.abs(box_of(sample.layout) - self.UPRIGHT).max() < 0.01
        found = bounds(images.read_picture(sample), RED)
        assert np.abs(np.array(found) - self.UPRIGHT).max() <= 1

    def test_the_stated_size_says_that_boxes_are_upright(self, tmp_path):
        dataset = self.coco(tmp_path, (96, 160), self.UPRIGHT)
        self.right(dataset)
        assert dataset.notes == [
            "1 image has an EXIF orientation: boxes of 1 are in the upright picture, as the stated size says"
        ]

    def test_the_stated_size_says_that_boxes_are_in_the_stored_picture(self, tmp_path):
        dataset = self.coco(tmp_path, (160, 96), self.STORED)
        self.right(dataset)
        assert "are in the stored picture, as the stated size says, and are turned with it" in dataset.notes[0]

    def test_boxes_of_the_stored_picture_would_be_wrong_unturned(self, tmp_path, monkeypatch):
        from dataengine.data import records

        monkeypatch.setattr(records, "_turned", lambda record, header: replace(record, size=None))
        with pytest.raises(AssertionError):
            self.right(self.coco(tmp_path, (160, 96), self.STORED))

    def test_without_a_size_the_formats_tool_decides(self, tmp_path):
        self.picture(tmp_path / "images" / "a.jpg")
        (tmp_path / "labelTxt").mkdir()
        x1, y1, x2, y2 = self.UPRIGHT
        (tmp_path / "labelTxt" / "a.txt").write_text(f"{x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2} car 0\n")
        dataset = formats.read(tmp_path)
        self.right(dataset)
        assert "as tools for dota have it" in dataset.notes[0]

    def robndbox(self, root: Path, size: str) -> Dataset:
        self.picture(root / "a.jpg")
        x1, y1, x2, y2 = self.STORED
        box = f"<cx>{(x1 + x2) / 2}</cx><cy>{(y1 + y2) / 2}</cy><w>{x2 - x1}</w><h>{y2 - y1}</h><angle>0</angle>"
        (root / "a.xml").write_text(
            f"<annotation><filename>a.jpg</filename>{size}<object><type>robndbox</type><name>car</name>"
            f"<robndbox>{box}</robndbox></object></annotation>"
        )
        return formats.read(root, "rolabelimg")

    def test_rolabelimg_has_the_stored_picture(self, tmp_path):
        dataset = self.robndbox(tmp_path, "")
        [sample] = dataset
        found = bounds(images.read_picture(sample), RED)
        assert np.abs(np.array(found) - box_of(sample.layout)).max() <= 2
        assert "in the stored picture, as tools for rolabelimg have it" in dataset.notes[0]

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_boxes_are_turned_as_pixels_are(self, orientation):
        from dataengine.data.orientation import turn_boxes, turn_points

        mark = np.zeros((30, 50), bool)
        mark[4:10, 20:45] = True
        upright = images._turned(mark, orientation)
        header = images.Header(upright.shape[1::-1], orientation, False)
        [box] = turn_boxes([[32.5, 7, 25, 6, 0]], header)
        rows, columns = np.nonzero(upright)
        centre = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        assert box[:2] == pytest.approx(centre)
        assert box[2:4] == pytest.approx((25, 6))
        assert abs(np.sin(box[4])) == pytest.approx(float(orientation > 4), abs=1e-6)
        [point] = turn_points([[20, 4]], header)
        assert point[0] in (columns.min(), columns.max() + 1)
        assert point[1] in (rows.min(), rows.max() + 1)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_slanted_boxes_too(self, orientation):
        from dataengine import geometry
        from dataengine.data.orientation import turn_boxes, turn_points

        header = images.Header((50, 30) if orientation < 5 else (30, 50), orientation, False)
        boxes = np.array([[20, 12, 14, 5, 0.4], [30, 9, 8, 3, -1.2]], np.float32)
        corners = turn_points(geometry.to_corners(boxes), header)
        turned_corners = geometry.to_corners(turn_boxes(boxes, header))
        for expected, got in zip(corners, turned_corners, strict=True):
            nearest = np.linalg.norm(expected[:, None] - got[None], axis=2).min(axis=1)
            assert nearest.max() < 1e-4

    def test_exif_data_after_the_pixels_of_a_png_count(self, tmp_path):
        import zlib

        buffer = io.BytesIO()
        Image.new("RGB", (40, 20)).save(buffer, "PNG")
        body, data = buffer.getvalue(), exif(6).tobytes().removeprefix(b"Exif\0\0")
        chunk = len(data).to_bytes(4, "big") + b"eXIf" + data + zlib.crc32(b"eXIf" + data).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(body[:-12] + chunk + body[-12:])
        assert images.measure(tmp_path / "a.png") == (20, 40)
        assert images.rgb(tmp_path / "a.png").shape == (40, 20, 3)

    def test_nonsense_in_the_tag_is_upright(self, tmp_path):
        Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif(99))
        assert images.measure(tmp_path / "a.jpg") == (40, 20)


class TestUnreadable:
    def mixed(self, root: Path, name: str, content: bytes) -> Dataset:
        (root / "images").mkdir(parents=True)
        (root / "labelTxt").mkdir()
        pillow("RGB")(root / "images" / "good.png", MASK)
        (root / "images" / name).write_bytes(content)
        for stem in ("good", Path(name).stem):
            (root / "labelTxt" / f"{stem}.txt").write_text("24 16 56 16 56 40 24 40 car 0\n")
        return formats.read(root)

    def broken_inside(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)).save(buffer, "PNG")
        content = bytearray(buffer.getvalue())
        content[2000:2400] = bytes(400)
        return bytes(content)

    def complex_tiff(self) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ones((8, 8), np.complex64))
        return buffer.getvalue()

    def test_a_picture_broken_inside_is_one_problem_of_tiling_and_writing(self, tmp_path):
        dataset = self.mixed(tmp_path / "in", "bad.png", self.broken_inside())
        assert len(dataset) == 2
        tiles = tile(dataset, tmp_path / "tiles", size=64, overlap=0)
        assert [problem.path.name for problem in tiles.problems] == ["bad.png"]
        assert len(tiles) == 6
        left_out = formats.write(dataset, tmp_path / "out", "dior")
        assert [problem.path.name for problem in left_out] == ["bad.png"]

    def test_values_that_are_no_numbers_are_one_problem(self, tmp_path):
        dataset = self.mixed(tmp_path / "in", "bad.tif", self.complex_tiff())
        assert [sample.name for sample in dataset] == ["good"]
        [problem] = dataset.problems
        assert "complex64" in problem.message

    @pytest.mark.parametrize("size", [4, 20, 60, 200])
    def test_a_truncated_tiff_is_one_problem(self, size, tmp_path):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ones((64, 64, 6), np.uint16), photometric="minisblack", planarconfig="contig")
        dataset = self.mixed(tmp_path / "in", "bad.tif", buffer.getvalue()[:size])
        tiles = tile(dataset, tmp_path / "tiles", size=64, overlap=0)
        assert len(tiles) == 6
        assert [problem.path.name for problem in tiles.problems] == ["bad.tif"]

    def test_a_huge_header_is_refused(self, tmp_path):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.ones((2, 2, 6), np.uint16), photometric="minisblack", planarconfig="contig")
        content = bytearray(buffer.getvalue())
        with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
            for name in ("ImageWidth", "ImageLength"):
                tag = file.pages[0].tags[name]
                content[tag.valueoffset : tag.valueoffset + 2] = (65000).to_bytes(2, "little")
        (tmp_path / "a.tif").write_bytes(bytes(content))
        with pytest.raises(ValueError, match=r"pixels"):
            images.measure(tmp_path / "a.tif")

    def test_a_full_disk_is_the_only_reason_to_free_space(self, tmp_path, monkeypatch, make_dataset):
        dataset = make_dataset(tmp_path / "in", [[(60, 70, 40, 12, 0)]])
        for number, advised in ((28, True), (13, False), (5, False)):

            def fails(*_, number=number):
                raise OSError(number, "the reason", "the file")

            monkeypatch.setattr(images, "place", fails)
            with pytest.raises(UserError) as caught:
                formats.write(dataset, tmp_path / f"out-{number}", "coco")
            assert ("free some space" in str(caught.value)) == advised

    def test_training_says_which_picture_cannot_be_read(self, tmp_path):
        dataset = self.mixed(tmp_path / "in", "bad.png", self.broken_inside())
        bad = next(sample for sample in dataset if sample.name == "bad")
        with pytest.raises(UserError, match=r"bad\.png: image cannot be decoded .*; fix it or remove it"):
            images.read_or_fail(bad)


def test_a_sample_without_a_range_is_read_as_before(tmp_path):
    pillow("RGB")(tmp_path / "a.png", MASK)
    layout = formats.labelled_or_plain(tmp_path).samples[0].layout
    agrees_with = images.read_picture(Sample("a", tmp_path / "a.png", layout))
    assert np.array_equal(agrees_with, np.asarray(Image.open(tmp_path / "a.png")))


class TestGeoTiff:
    UTM = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)

    def read(self, root: Path, keys, scale=(0.25, 0.25, 0.0), bands=3) -> Dataset:
        (root / "images").mkdir(parents=True)
        (root / "labels").mkdir()
        tags = [(33550, "d", 3, scale, True), (34735, "H", len(keys), keys, True)]
        options = {"photometric": "rgb"} if bands == 3 else {"photometric": "minisblack", "planarconfig": "contig"}
        tifffile.imwrite(root / "images" / "a.tif", np.zeros((64, 64, bands), np.uint8), extratags=tags, **options)
        (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.25")
        (root / "classes.txt").write_text("car")
        return formats.read(root)

    @pytest.mark.parametrize("bands", [3, 6])
    def test_its_gsd_fills_an_unknown_one_and_is_said(self, bands, tmp_path):
        dataset = self.read(tmp_path, self.UTM, bands=bands)
        assert dataset.samples[0].layout.acquisition.gsd_m == 0.25
        assert dataset.notes == ["the GSD of 1 image comes from its GeoTIFF tags"]

    @pytest.mark.parametrize(
        ("keys", "scale", "gsd"),
        [
            ((1, 1, 0, 1, 1024, 0, 1, 2), (1e-6, 1e-6, 0), None),  # degrees
            ((1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 3857), (0.3, 0.3, 0), None),  # Web Mercator
            ((1, 1, 0, 2, 1024, 0, 1, 1, 3076, 0, 1, 9002), (1.0, 1.0, 0), 0.3048),  # feet
            (UTM, (0.25, 0.5, 0), None),  # pixels that are no squares
            (UTM, (0.0, 0.0, 0), None),
        ],
    )
    def test_only_square_pixels_of_a_projection_in_known_units_count(self, keys, scale, gsd, tmp_path):
        assert self.read(tmp_path, keys, scale).samples[0].layout.acquisition.gsd_m == gsd

    def test_a_stated_one_takes_precedence(self, tmp_path):
        dataset = self.read(tmp_path / "in", self.UTM)
        stated = replace(dataset.samples[0].layout, acquisition=Acquisition(gsd_m=0.5))
        formats.write(replace(dataset, samples=[replace(dataset.samples[0], layout=stated)]), tmp_path / "out", "coco")
        again = formats.read(tmp_path / "out")
        assert again.samples[0].layout.acquisition.gsd_m == 0.5
        assert again.notes == []


def test_images_of_8_bits_among_deeper_ones_are_said(tmp_path):
    thermal_set(tmp_path, {"a": 7000})
    pillow("L")(tmp_path / "images" / "b.png", MASK)
    assert formats.read(tmp_path).notes[1] == "1 image of 8 bits is not scaled"

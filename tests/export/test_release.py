"""A release as its users meet it: read by the libraries that they read data sets with."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine import geometry
from dataengine.data import formats
from dataengine.errors import UserError
from dataengine.export.release import make as making
from dataengine.export.release import marks
from dataengine.export.release.archives import parse_size
from dataengine.export.release.make import make
from dataengine.export.release.sides import sources_of
from dataengine.export.release.verify import verify

TEXTS = (".md", ".json", ".jsonl", ".txt", ".yaml", "")


def kept(run: Path) -> dict[str, dict]:
    records = map(json.loads, (run / "manifest.jsonl").read_text().splitlines())
    return {f"{record['index']:08d}": record for record in records if record["verdict"]["kept"]}


def metadata(folder: Path) -> list[dict]:
    files = sorted(folder.glob("images/*/metadata.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def content(folder: Path) -> dict:
    return json.loads((folder / "release.json").read_text())


def everything(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("format", ["dota", "coco", "yolo"])
def test_every_format_holds_the_runs_images_and_boxes_and_shares_one_set_of_image_files(released, painted_run, format):
    judged = {sample.name: sample.layout for sample in formats.read(painted_run / "coco", "coco")}
    found = {}
    for split, n in content(released)["splits"].items():
        dataset = formats.read(released, format, split=split)
        assert not dataset.problems
        assert len(dataset) == n > 0
        assert all(sample.image.parent == released / "images" / split for sample in dataset)
        found |= {Path(sample.name).name: sample.layout for sample in dataset}
    assert found.keys() <= judged.keys()
    for name, layout in found.items():
        assert layout.names() == judged[name].names()
        if format != "yolo":  # which knows no corners outside an image
            assert np.allclose(geometry.to_corners(layout.boxes), geometry.to_corners(judged[name].boxes), atol=0.05)


def test_pycocotools_reads_the_coco_files(released):
    from pycocotools.coco import COCO

    for split, n in content(released)["splits"].items():
        coco = COCO(str(released / "annotations" / f"{split}.json"))
        assert len(coco.getImgIds()) == n
        objects = sum(content(released)["objects"][split].values())
        assert len(coco.getAnnIds(iscrowd=False)) == objects
        for image in coco.loadImgs(coco.getImgIds()):
            assert (released / "images" / split / image["file_name"]).exists()
            assert image["source"].startswith("Toy "), "source of the real image"
            assert coco.dataset["licenses"][image["license"] - 1]["name"] == "CC-BY-4.0"


def test_datasets_loads_the_folder_with_both_splits(released, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(released), cache_dir=str(tmp_path))
    assert set(loaded) == {"train", "validation"}
    lines = {line["sha256"]: line for line in metadata(released)}
    rows = [row for split in loaded.values() for row in split]
    assert {row["sha256"] for row in rows} == set(lines)
    for row in rows:
        line = lines[row["sha256"]]
        assert row["image"].size == (line["width"], line["height"])
        assert np.allclose(row["objects"]["bbox"], line["objects"]["bbox"])
        assert row["objects"]["category_name"] == line["objects"]["category_name"]
        assert row["layout_from"] == line["layout_from"]


def test_mlcroissant_validates_the_metadata_and_reads_images_with_their_boxes(released):
    import mlcroissant

    dataset = mlcroissant.Dataset(str(released / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    lines = {line["file_name"]: line for line in metadata(released)}
    records = list(dataset.records("images"))
    assert len(records) == len(lines)
    for record in records:
        line = lines[record["images/file_name"].decode()]
        assert record["images/image"].size == (line["width"], line["height"])
        file = released / "images" / line["split"] / line["file_name"]
        assert np.array_equal(np.asarray(record["images/image"]), np.asarray(Image.open(file).convert("RGB")))
        assert record["images/seed"] == line["seed"]
        for name in ("bbox", "obb", "category", "difficult"):
            stated = np.array(line["objects"][name], float)
            assert np.allclose(np.array(record[f"images/{name}"], float), stated)


def test_the_card_is_in_the_hubs_form_and_says_what_went_in(released):
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(released / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.task_categories == ["object-detection"]
    assert card.data.size_categories == "n<1K"
    assert "synthetic" in card.data.tags
    splits = {entry["split"]: entry["path"] for entry in card.data.configs[0]["data_files"]}
    assert splits == {"train": "images/train/**", "validation": "images/val/**"}
    objects = content(released)["objects"]
    assert f"| car | {objects['train']['car']} | {objects['val']['car']} |" in card.text
    assert content(released)["parts"]["model"] in card.text
    assert "painted into real images" in card.text
    assert "| scenes | Toy | CC0 | made by the tests |" in card.text
    assert "**Not checked**: the training images were not given" in card.text
    with Image.open(released / "samples.jpg") as sheet:
        assert min(sheet.size) > 96


def test_no_path_of_this_machine_is_in_a_release(released, painted_run, toy_dataset):
    """Control: the run's recipe has such a path."""
    assert str(toy_dataset.parent) in (painted_run / "recipe.json").read_text()
    files = [file for file in released.rglob("*") if file.is_file() and file.suffix in TEXTS]
    assert len(files) > 20
    for file in [*files, *released.rglob("*.png")]:
        assert str(toy_dataset.parents[1]).encode() not in file.read_bytes(), file


def test_images_say_that_they_are_synthetic_and_their_pixels_are_the_runs_own(released, painted_run):
    records = kept(painted_run)
    for file in released.glob("images/*/*.png"):
        record = records[file.stem]
        original = (painted_run / record["image"]).read_bytes()
        assert marks.unmarked(file.read_bytes()) == original
        with Image.open(file) as image, Image.open(io.BytesIO(original)) as before:
            assert np.array_equal(np.asarray(image), np.asarray(before))
            description = image.getxmp()["xmpmeta"]["RDF"]["Description"]
            details = json.loads(image.text["dataengine"])
        assert description["DigitalSourceType"].endswith("/digitalsourcetype/compositeWithTrainedAlgorithmicMedia")
        assert description["rights"]["Alt"]["li"]["text"].startswith("CC-BY-4.0; scene: Toy ")
        assert description["WebStatement"] == "https://creativecommons.org/licenses/by/4.0/"
        assert details["synthetic"] is True
        for key in ("seed", "scene", "scene_license", "layout_from", "verdict", "sha256"):
            assert details[key] == record[key], key
        assert details["parts"] == json.loads((painted_run / "recipe.json").read_text())["parts"]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_the_mark(released):
    file = next(released.glob("images/train/*.png"))
    said = subprocess.run(
        ["exiftool", "-XMP-iptcExt:DigitalSourceType", file], capture_output=True, text=True, check=True
    )
    assert "compositeWithTrainedAlgorithmicMedia" in said.stdout


def test_a_mark_is_written_once_and_into_png_files_only():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    packet = marks.xmp_packet(marks.GENERATED, 'A & "B" <c>', "", "dataengine")
    once = marks.marked(buffer.getvalue(), packet, {"scene": "Straße & <x>"})
    assert marks.read_mark(once) == marks.Mark(marks.GENERATED, {"scene": "Straße & <x>"})
    assert marks.read_mark(buffer.getvalue()) == marks.Mark("", {})
    with Image.open(io.BytesIO(once)) as image:
        image.verify()
    with pytest.raises(ValueError, match="carries a mark already"):
        marks.marked(once, packet, {})
    for broken in (b"JFIF", once[:60]):
        with pytest.raises(ValueError, match=r"no PNG|breaks off"):
            marks.read_mark(broken)


def test_the_same_run_gives_the_same_bytes_also_after_an_interruption(
    released, painted_run, settings, tmp_path, monkeypatch
):
    out = tmp_path / "again"

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "write_sums", killed)
        with pytest.raises(KeyboardInterrupt):
            make(painted_run, out, settings)
    assert not out.exists()
    (tmp_path / ".again.partial" / "images").mkdir(parents=True)  # what a SIGKILL leaves
    (tmp_path / ".again.partial" / "images" / "junk.png").write_bytes(b"x")
    make(painted_run, out, settings)
    assert everything(out) == everything(released)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_the_same_command_again_changes_nothing_and_another_is_refused(released, painted_run, settings):
    before = everything(released)
    assert not make(painted_run, released, settings).fresh
    with pytest.raises(UserError, match=r"holds another release \(license differ\)"):
        make(painted_run, released, replace(settings, license="mit"))
    assert everything(released) == before


def test_a_folder_of_something_else_is_never_touched(painted_run, settings, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="exists and is no release"):
        make(painted_run, tmp_path, settings)
    assert everything(tmp_path).keys() == {"holiday.jpg"}


def test_sha256sum_checks_the_files(released):
    done = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=released, capture_output=True, text=True, check=True
    )
    listed = {line.rpartition(": ")[0] for line in done.stdout.splitlines()}
    outside = {name for name in everything(released) if name == "SHA256SUMS" or name.startswith("archives/")}
    assert listed == everything(released).keys() - outside


def test_archives_keep_to_their_size_and_make_the_folder_again(released, tmp_path):
    archives = sorted((released / "archives").glob("*.tar"))
    assert len(archives) > 1, "the toy release should not fit into one"
    for archive in archives:
        assert archive.stat().st_size <= 100_000
        with tarfile.open(archive) as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}
            tar.extractall(tmp_path, filter="data")
    inside = {name: value for name, value in everything(released).items() if not name.startswith("archives")}
    assert everything(tmp_path / "toy-cars") == inside


def test_a_split_keeps_layouts_and_scenes_apart_and_says_how_many_images_that_cost(released, painted_run):
    sides: dict[str, set[str]] = {}
    for line in metadata(released):
        for source in (*line["layout_from"], line["scene"].partition("@")[0]):
            sides.setdefault(source, set()).add(line["split"])
    assert all(len(split) == 1 for split in sides.values())
    release = content(released)
    assert release["left_out"]["leaks"] == len(kept(painted_run)) - len(metadata(released))
    assert sum(release["splits"].values()) == len(metadata(released))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "my cars"}, r"--name my cars: give letters, digits"),
        ({"license": "wtfpl"}, r"--license wtfpl: not in the table"),
        ({"source_license": ""}, r"the renderer \(.*\) has no known licence: state it with --source-license"),
        ({"source_license": "academic use"}, r"may not be used commercially .* with --allow-license-mix"),
        ({"val": 0.7}, r"--val 0\.7: give a share from 0 to 0\.5"),
        ({"formats": "dota,voc"}, r"--formats dota,voc: choose from dota, coco, yolo-obb"),
        ({"archive_size": "large"}, r"--archive-size large: give a size"),
        ({"group": "("}, r"--group \(: not a regular expression"),
        ({"training": Path("x")}, r"--training and --held-out belong together"),
        ({"date": "25.11.2026"}, r"--date 25\.11\.2026: give year, month and day"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing_behind(painted_run, settings, tmp_path, changed, message):
    with pytest.raises(UserError, match=message):
        make(painted_run, tmp_path / "out", replace(settings, **changed))
    assert not list(tmp_path.iterdir())


def test_a_release_against_licences_says_so_in_its_card(painted_run, settings, tmp_path):
    changed = replace(
        settings, source_license="academic use", allow_license_mix=True, formats="coco", archive_size=None
    )
    done = make(painted_run, tmp_path / "out", changed)
    assert any("may not be used commercially" in note for note in done.notes)
    card = (done.folder / "README.md").read_text()
    assert "**Released despite licence conflicts**" in card
    assert "may not be used commercially (academic-use)" in card
    assert not (done.folder / "labelTxt").exists()


def test_without_validation_all_images_are_trained_on(painted_run, settings, tmp_path):
    done = make(painted_run, tmp_path / "out", replace(settings, val=0, formats="dota", archive_size=None))
    assert done.splits == {"train": len(kept(painted_run))}
    assert done.left_out == 0


def test_a_run_of_repainted_real_objects_of_an_earlier_version_is_not_split(painted_run, settings, tmp_path):
    """Its manifest does not name the real objects."""
    run = tmp_path / "run"
    shutil.copytree(painted_run, run)
    stored = json.loads((run / "recipe.json").read_text())
    stored["recipe"]["strength"] = 0.5
    (run / "recipe.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"repainted real ones \(strength 0\.5\).* give --val 0"):
        make(run, tmp_path / "out", settings)
    done = make(run, tmp_path / "out", replace(settings, val=0))
    assert "| repainted real objects | Toy | CC0 |" in (done.folder / "README.md").read_text()


def test_a_run_of_repainted_real_objects_is_split_and_no_real_image_is_on_both_sides(
    repainted_run, settings, tmp_path, monkeypatch
):
    """Counted from the manifest, not from the release. Mutation: a split that does not look at the objects leaks."""
    settings = replace(settings, val=0.3, archive_size=None)
    done = make(repainted_run, tmp_path / "out", settings)
    assert min(done.splits.values()) > 0
    assert not shared_images(repainted_run, done.folder)
    assert verify(done.folder).faults == []
    assert "real object" in (done.folder / "README.md").read_text()

    def without_objects(layout_from, scene, seed, group=None, objects_from=()):
        return sources_of(layout_from, scene, seed, group)

    monkeypatch.setattr("dataengine.export.release.make.sources_of", without_objects)
    leaking = make(repainted_run, tmp_path / "leaking", settings)
    assert shared_images(repainted_run, leaking.folder)
    faults = verify(leaking.folder).faults
    assert any("train and val both have images made from" in fault for fault in faults)


def shared_images(run: Path, release: Path) -> set[str]:
    """Real images that images on both sides of a release were made from, by the run's manifest."""
    lines = map(json.loads, (run / "manifest.jsonl").read_text().splitlines())
    made_from = {
        f"{line['index']:08d}": {*line["layout_from"], line["scene"].split("@")[0]}
        | {one["image"] for one in line["objects_from"] if one}
        for line in lines
    }
    train, val = (
        set().union(*(made_from[file.stem[-8:]] for file in (release / "images" / side).glob("*.png")))
        for side in ("train", "val")
    )
    return train & val


@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_an_image_that_differs_from_its_record_is_not_released(painted_run, settings, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(painted_run, run)
    make(run, tmp_path / "whole", settings)
    image = run / kept(run)[Path(metadata(tmp_path / "whole")[0]["file_name"]).stem]["image"]
    if damage == "lost":
        image.unlink()
    else:
        Image.new("RGB", (96, 96)).save(image)
    with pytest.raises(UserError, match=rf"{image.name}: the image is damaged .* makes it again"):
        make(run, tmp_path / "out", settings)
    assert sorted(os.listdir(tmp_path)) == ["run", "whole"]


def test_no_run_or_an_unfinished_one_or_one_of_an_earlier_version_is_refused(painted_run, settings, tmp_path):
    with pytest.raises(UserError, match=r"no run of dataengine synth"):
        make(tmp_path, tmp_path / "out", settings)
    run = tmp_path / "run"
    shutil.copytree(painted_run, run)
    text = (run / "manifest.jsonl").read_text()
    old = [{k: v for k, v in json.loads(line).items() if k != "layout_from"} for line in text.splitlines()]
    (run / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in old))
    with pytest.raises(UserError, match=r"an earlier version, which did not store layout_from"):
        make(run, tmp_path / "out", settings)
    (run / "manifest.jsonl").write_text(text[:-50])
    with pytest.raises(UserError, match=r"manifest\.jsonl:\d+: no record of an image"):
        make(run, tmp_path / "out", settings)
    (run / "manifest.jsonl").unlink()
    with pytest.raises(UserError, match=r"the run is not finished"):
        make(run, tmp_path / "out", settings)


def test_sizes_are_powers_of_ten():
    assert [parse_size(text) for text in ("1GB", "1.5 MB", "200000", "2g")] == [10**9, 1_500_000, 200_000, 2 * 10**9]
    for text in ("1kB", "-1GB", "1 GiB", ""):
        with pytest.raises(UserError, match="--archive-size"):
            parse_size(text)

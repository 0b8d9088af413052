"""`dataengine data get`: fetched from a local server with the hosts' paths, verified, unpacked and read."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_host import COMMIT, DataHost
from PIL import Image
from typer.testing import CliRunner

from dataengine import download, hosts
from dataengine.cli import app
from dataengine.data import formats, published
from dataengine.errors import UserError

HIT_UAV = "suojiashun/HIT-UAV-Infrared-Thermal-Dataset"
CHUNK = 1 << 12


def picture(seed: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64), np.uint8)).save(content, "PNG")
    return content.getvalue()


def hit_uav(root: Path) -> None:
    """The folders of the repository: annotations of rotated boxes, and other folders that are not fetched."""
    for number, split in enumerate(("train", "val", "test")):
        name = f"0_60_30_0_0{number}.png"
        content = {
            "info": {"description": "PegasusDrone"}, "scenarios": [],
            "images": [{"id": 1, "filename": name, "width": 64, "height": 48, "altitude": "60", "perspective": "30"}],
            "categories": [{"id": 1, "name": "Car"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 20, 16, 8, 0.3]}],
        }  # fmt: skip
        write(root / "rotate_json" / "annotations" / f"{split}.json", json.dumps(content).encode())
        write(root / "rotate_json" / split / name, picture(number))
    write(root / "rotate_json" / "annotations" / "log.json", b"{}")
    write(root / "rotate_json" / ".DS_Store", b"x")
    write(root / "normal_json" / "train" / "other.png", picture(9))
    write(root / "README.md", b"# HIT-UAV")


def planes(file: Path) -> None:
    """An archive in YOLO's form without a list of classes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("images/a.png", picture(3))
        packed.writestr("labels/a.txt", "0 0.5 0.5 0.25 0.25\n")


def write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


@pytest.fixture
def host(tmp_path, monkeypatch):
    import huggingface_hub.constants

    hit_uav(tmp_path / "host" / HIT_UAV)
    planes(tmp_path / "host" / "7331974" / "HRPlanesv2.zip")
    host = DataHost(tmp_path / "host")
    for name in ("GITHUB_API", "GITHUB_RAW", "ZENODO"):
        monkeypatch.setattr(hosts, name, host.url)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.chdir(tmp_path)
    yield host
    host.close()


def get(*words: str):
    return CliRunner().invoke(app, ["data", "get", *words])


def refusal(*words: str) -> str:
    result = get(*words)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_a_repository_is_fetched_file_by_file_with_the_licence_first_and_presets_find_it(host):
    result = get("hit-uav", "--yes")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[1] == "licence: CC BY 4.0 (Scientific Data 10, 227, 2023)"
    assert f"at {COMMIT}, stated licence: none" in result.output
    assert "3 images, 3 objects (hit-uav format)" in result.output
    dataset = formats.read("data/hit-uav")
    assert (dataset.classes, dataset.problems, len(dataset)) == (("Car",), [], 3)
    assert formats.splits("data/hit-uav") == ("test", "train", "val")
    assert {name.partition("/")[0] for name in host.sent} == {"suojiashun"}
    assert not [name for name in host.sent if "normal_json" in name or "log.json" in name or "DS_Store" in name]
    assert not Path("data/hit-uav.download").exists()
    stated = json.loads(Path("data/hit-uav/provenance.json").read_text())
    assert (stated["version"], stated["licence"]) == (COMMIT, "CC BY 4.0 (Scientific Data 10, 227, 2023)")
    for entry in stated["files"]:
        content = (Path("data/hit-uav") / entry["name"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert content == host.content(f"{HIT_UAV}/rotate_json/{entry['name']}")
    before = dict(host.sent)
    again = get("hit-uav", "--yes")
    assert again.exit_code == 0
    assert "already" in again.output
    assert dict(host.sent) == before
    from dataengine.data.presets import load_preset, read_dataset

    assert len(read_dataset(load_preset("hit-uav"))) == 3


def test_an_archive_is_verified_by_its_md5_unpacked_and_gets_its_class_list(host):
    result = get("hrplanes", "--yes", "--out", "planes")
    assert result.exit_code == 0, result.output
    assert "record 7331974, stated licence: cc-by-4.0" in result.output
    assert f"md5:{hashlib.md5(host.content('7331974/HRPlanesv2.zip')).hexdigest()}" in result.output
    assert formats.read("planes").classes == ("airplane",)
    assert "1 images, 1 objects (yolo format)" in result.output


def test_an_interrupted_download_is_continued_and_what_is_there_is_not_sent_again(host):
    big = host.folder / "7331974" / "HRPlanesv2.zip"
    with zipfile.ZipFile(big, "a") as packed:
        packed.writestr("noise.bin", np.random.default_rng(0).bytes(20 * CHUNK))
    size, name = big.stat().st_size, "7331974/HRPlanesv2.zip"
    host.breaks_at = {name: size // 2}
    message = refusal("hrplanes", "--yes")
    assert "the download of HRPlanesv2.zip stopped at" in message
    assert "the same command continues it" in message
    assert not Path("data/hrplanes").exists()
    host.breaks_at = {}
    assert get("hrplanes", "--yes").exit_code == 0
    assert size <= host.sent[name] <= size + CHUNK
    one = f"{HIT_UAV}/rotate_json/val/0_60_30_0_01.png"
    host.breaks_at = {one: 100}
    refusal("hit-uav", "--yes")
    host.breaks_at = {}
    assert get("hit-uav", "--yes").exit_code == 0
    assert host.sent[f"{HIT_UAV}/rotate_json/test/0_60_30_0_02.png"] == len(picture(2)), "fetched once"


@pytest.mark.parametrize(
    ("name", "file"),
    [("hit-uav", f"{HIT_UAV}/rotate_json/train/0_60_30_0_00.png"), ("hrplanes", "7331974/HRPlanesv2.zip")],
)
def test_a_damaged_file_is_refused_and_nothing_is_placed(host, name, file):
    host.damaged = file
    assert "its checksum is wrong" in refusal(name, "--yes")
    assert not Path("data", name).exists()
    host.damaged = ""
    assert get(name, "--yes").exit_code == 0


def test_without_consent_network_or_room_nothing_is_fetched(host, monkeypatch):
    assert "there is no terminal to ask; add --yes" in refusal("hit-uav")
    assert not host.sent
    from collections import namedtuple

    usage = namedtuple("Usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda folder: usage(0, 0, 10))
        assert "are free on this disk" in refusal("hit-uav", "--yes")
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    assert "not an empty folder" in refusal("hit-uav", "--yes", "--out", "full")
    assert refusal("dota") == (
        "'dota' is not a data set that can be fetched; choose one of: hit-uav, hrplanes, neon-trees."
    )
    host.truncated = True
    assert "does not answer as a host" in refusal("hit-uav", "--yes")
    host.close()
    message = refusal("hit-uav", "--yes")
    assert "no answer from" in message
    assert f"download it from https://github.com/{HIT_UAV}" in message


def test_without_a_name_the_data_sets_are_listed_with_licence_and_page():
    result = get()
    assert result.exit_code == 0
    for data in published.PUBLISHED:
        for said in (data.name, data.licence, data.source.page):
            assert said in result.output


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "C:/out.txt", "..\\out.txt"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("fine.txt", "x")
        packed.writestr(name, "x")
    with pytest.raises(UserError, match="lead out of the folder"):
        published.unpack(tmp_path / "a.zip", tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def test_links_bombs_and_files_that_are_no_archive_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zeros", bytes(10_000_000))
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    for name, said in (("link", "lead out"), ("bomb", "far more than it holds"), ("page", "no zip archive")):
        with pytest.raises(UserError, match=said):
            published.unpack(tmp_path / f"{name}.zip", tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("path", ["rotate_json/../../x.png", "rotate_json//etc/x", "rotate_json/a\\..\\x.png"])
def test_a_host_that_names_files_outside_of_the_folder_is_refused(host, monkeypatch, path):
    entry = {"path": path, "type": "blob", "size": 1, "sha": "0" * 40}
    monkeypatch.setattr(host, "tree", lambda repository: [entry])
    assert "does not answer as a host" in refusal("hit-uav", "--yes")

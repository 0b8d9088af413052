"""`dataengine model get diffusionsat-512` from a local server with Zenodo's paths, and `model import diffusionsat`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from data_host import DataHost
from typer.testing import CliRunner

from dataengine import hosts
from dataengine.cli import app
from dataengine.data.layout import Acquisition
from dataengine.errors import UserError
from dataengine.render.published import default_folder, find_published

pytest.importorskip("transformers")
from toy_text import toy_satellite_model

from dataengine.render.diffusionsat import load_diffusionsat

MODEL = find_published("diffusionsat-512")
RECORD, ARCHIVE = MODEL.sources[0].repository, MODEL.checkpoint
CHUNK = 1 << 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return toy_satellite_model(tmp_path_factory.mktemp("diffusionsat"))


def pickled(folder: Path, out: Path) -> Path:
    """A copy with weights as `torch.save` stores them, as in 2023."""
    from safetensors.torch import load_file

    shutil.copytree(folder, out)
    for file in sorted(out.rglob("*.safetensors")):
        name = "pytorch_model.bin" if file.parent.name == "text_encoder" else f"{file.stem}.bin"
        torch.save(load_file(file), file.with_name(name))
        file.unlink()
    return out


@pytest.fixture
def host(folder, tmp_path, monkeypatch):
    """Zenodo with the archive: parts below a folder, and the U-Net in a checkpoint."""
    import huggingface_hub.constants

    content = pickled(folder, tmp_path / "published")
    (content / "checkpoint-150000").mkdir()
    (content / "unet").rename(content / "checkpoint-150000" / "unet")
    (content / "checkpoint-150000" / "optimizer.bin").write_bytes(b"large")
    archive = tmp_path / "host" / RECORD / ARCHIVE
    archive.parent.mkdir(parents=True)
    with ZipFile(archive, "w") as packed:
        for file in sorted(content.rglob("*")):
            packed.write(file, Path(ARCHIVE).stem / file.relative_to(content))
    host = DataHost(tmp_path / "host")
    monkeypatch.setattr(hosts, "ZENODO", host.url)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield host
    host.close()


def command(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["model", *map(str, words)])
    return done.exit_code, str(done.exception) if isinstance(done.exception, UserError) else done.output


def picture(folder: Path) -> np.ndarray:
    return load_diffusionsat(folder)(["x"], [Acquisition(gsd_m=0.5)], [1], steps=2)[0]


def test_it_is_fetched_continued_verified_and_used(host, folder):
    """The connection breaks once; control: another acquisition is another picture."""
    out, name = default_folder(MODEL), f"{RECORD}/{ARCHIVE}"
    size = len(host.content(name))
    host.breaks_at[name] = size // 2
    code, text = command("get", MODEL.name, "--yes")
    assert code != 0
    assert "the same command continues it" in text
    assert not out.exists()
    host.breaks_at.clear()
    code, text = command("get", MODEL.name, "--yes")
    assert code == 0, text
    assert host.ranges[name][-1].startswith("bytes=")
    assert "rerender FOLDER" in text
    assert json.loads((out / "provenance.json").read_text())["verified"]
    assert (picture(out) == picture(folder)).all()
    assert not list(out.rglob("*.bin"))
    assert {entry.name for entry in out.parent.iterdir()} == {out.name}, "nothing is left of the download"
    assert "is in" in command("get", MODEL.name)[1]
    assert "not fetched" in command("list")[1], "of the others"


def test_an_archive_with_a_changed_byte_is_refused(host):
    host.damaged = f"{RECORD}/{ARCHIVE}"
    code, text = command("get", MODEL.name, "--yes")
    assert code != 0
    assert "checksum is wrong" in text
    assert not default_folder(MODEL).exists()


def test_without_network_it_says_what_to_fetch_and_where_to_put_it(host, tmp_path):
    archive = (tmp_path / "host" / RECORD / ARCHIVE).read_bytes()
    host.close()
    code, text = command("get", MODEL.name, "--yes")
    assert code != 0
    assert f"/{RECORD}/files/{ARCHIVE}" in text
    assert f"dataengine model get {MODEL.name} --from FOLDER" in text
    (tmp_path / "by-hand").mkdir()
    (tmp_path / "by-hand" / ARCHIVE).write_bytes(archive)
    code, text = command("get", MODEL.name, "--from", tmp_path / "by-hand")
    assert code == 0, text


def test_a_pickled_folder_is_converted_without_running_its_code(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    old = pickled(folder, tmp_path / "old")
    state = torch.load(old / "vae" / "diffusion_pytorch_model.bin", weights_only=True)
    torch.save(state | {"evil": Evil()}, old / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="convert it with dataengine model import diffusionsat"):
        load_diffusionsat(old)
    code, text = command("import", "diffusionsat", old, "--out", tmp_path / "new")
    assert code == 0, text
    assert (picture(tmp_path / "new") == picture(folder)).all()
    assert not (tmp_path / "executed").exists()


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("readme.txt", "nothing")
    (tmp_path / "empty").mkdir()
    for name, says in (("a.zip", "cannot be unpacked"), ("b.zip", "no folder"), ("empty", "no U-Net"), ("c", "exist")):
        code, text = command("import", "diffusionsat", tmp_path / name, "--out", tmp_path / "out")
        assert code != 0
        assert says in text
        assert "\n" not in text
        assert not (tmp_path / "out").exists()

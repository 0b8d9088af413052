"""`dataengine model get`: fetched from a local server with the hosts' paths, verified, imported, and used by synth."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import aerogen_shapes
import numpy as np
import pytest
from model_host import COMMITS, TOKENIZER, ModelHost
from typer.testing import CliRunner

from dataengine import download, hosts
from dataengine.cli import app
from dataengine.errors import UserError
from dataengine.render import published
from dataengine.render.published import PUBLISHED, default_folder, is_imported

pytest.importorskip("transformers")
CHECKPOINT, VECTORS = "aerogen_diorr_last.ckpt", "category_embeddings.npy"
FILES = [CHECKPOINT, VECTORS, *TOKENIZER]
CHUNK = 1 << 16
MODEL = PUBLISHED[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """All files of the published model, tiny."""
    from toy_text import toy_tokenizer

    folder = tmp_path_factory.mktemp("published")
    toy_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    (folder / "special_tokens_map.json").write_text('{"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}')
    aerogen_shapes.write_tiny(folder, CHECKPOINT, VECTORS)
    return folder


@pytest.fixture
def host(request, files, tmp_path, monkeypatch):
    """The server, with the hub and GitHub pointed to it, and an empty cache."""
    import huggingface_hub.constants

    shutil.copytree(files, tmp_path / "host")
    if "imports" in request.fixturenames:  # a smaller one than any that can be imported
        (tmp_path / "host" / CHECKPOINT).write_bytes(np.random.default_rng(0).bytes(20 * CHUNK + 7))
    host = ModelHost(tmp_path / "host")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", host.url)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(hosts, "GITHUB_API", host.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield host
    host.close()


@pytest.fixture
def imports(monkeypatch):
    """The folders that were imported, where what an import makes does not matter."""
    seen = []

    def note(model, folder, out, half, repositories):
        seen.append({name: (folder / name).read_bytes() for name in model.file_names})
        out.mkdir(parents=True)
        return ""

    monkeypatch.setattr(published, "import_files", note)
    return seen


def get(*options: str, name: str = "aerogen-dior-r"):
    return CliRunner().invoke(app, ["model", "get", name, *options])


def refusal(*options: str, name: str = "aerogen-dior-r") -> str:
    result = get(*options, name=name)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def folder_of_downloads(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "dataengine" / "models" / "aerogen-dior-r.download"


def size_of(host: ModelHost, name: str) -> int:
    return len(host.content(name))


def test_the_model_is_fetched_verified_imported_and_known_by_where_it_comes_from(host, tmp_path):
    from dataengine.engine.recipe import folder_hash
    from dataengine.render.renderer import load_renderer

    host.licence = "openrail"
    folder = tmp_path / "cache" / "dataengine" / "models" / "aerogen-dior-r"
    assert default_folder(MODEL) == folder
    assert not is_imported(folder)
    result = get("--yes")
    assert result.exit_code == 0, result.output
    plan = result.output.partition("verified")[0]
    digest = hashlib.sha256(host.content(CHECKPOINT)).hexdigest()
    for said in (digest, "stated licence: openrail", "stated licence: none", "unclear", *COMMITS.values(), *FILES):
        assert said in plan
    assert is_imported(folder)
    assert len(load_renderer(folder, "whole").classes) == 20
    assert {name: host.sent[name] for name in FILES} == {name: size_of(host, name) for name in FILES}, "each once"
    assert not folder_of_downloads(tmp_path).exists()
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["licence"] == MODEL.licence
    assert provenance["verified"] is True
    assert [r["commit"] for r in provenance["repositories"]] == ["a" * 40, "b" * 40, "c" * 40]
    assert [r["stated_licence"] for r in provenance["repositories"]] == ["openrail", None, "openrail"]
    stated = {Path(file["name"]).name: file["sha256"] for r in provenance["repositories"] for file in r["files"]}
    assert stated == {name: hashlib.sha256(host.content(name)).hexdigest() for name in FILES}
    before = folder_hash(folder)
    (folder / "provenance.json").write_text("{}")
    assert folder_hash(folder) == before, "the same model fetched on another day is the same model"
    again = get("--yes")
    assert again.exit_code == 0
    assert "already" in again.output
    assert host.sent[CHECKPOINT] == size_of(host, CHECKPOINT)


def test_half_and_kept_downloads(host, tmp_path):
    assert get("--yes", "--half", "--keep-download", "--out", str(tmp_path / "half")).exit_code == 0
    assert get("--yes", "--out", str(tmp_path / "full")).exit_code == 0
    sizes = [sum(file.stat().st_size for file in (tmp_path / name).rglob("*.safetensors")) for name in ("half", "full")]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.05)
    kept = {file.name for file in (tmp_path / "half.download").iterdir()} - {".lock"}
    assert kept == set(FILES)
    assert not (tmp_path / "full.download").exists()
    assert not is_imported(default_folder(MODEL)), "a model in another folder is used with --model"


def test_an_interrupted_download_is_continued(host, imports, tmp_path):
    size = size_of(host, CHECKPOINT)
    host.breaks_at = {CHECKPOINT: size // 2}
    message = refusal("--yes")
    assert f"the download of {CHECKPOINT} stopped at" in message
    assert "the same command continues it" in message
    assert not imports
    (partial,) = folder_of_downloads(tmp_path).glob(f"{CHECKPOINT}.*.part")
    present = partial.stat().st_size
    assert size // 2 - CHUNK <= present <= size // 2
    host.breaks_at = {}
    assert get("--yes").exit_code == 0
    assert host.ranges[CHECKPOINT][-1] == f"bytes={present}-"
    assert host.sent[CHECKPOINT] == size // 2 + size - present, "no byte that was there is sent again"
    assert imports == [{name: host.content(name) for name in FILES}]


def test_a_server_without_ranges_sends_all_again(host, imports):
    host.breaks_at = {CHECKPOINT: size_of(host, CHECKPOINT) // 2}
    refusal("--yes")
    host.breaks_at, host.knows_ranges = {}, False
    assert get("--yes").exit_code == 0
    assert imports == [{name: host.content(name) for name in FILES}]


def test_a_file_that_changed_meanwhile_is_not_joined_with_its_old_half(host, imports):
    size = size_of(host, CHECKPOINT)
    host.breaks_at = {CHECKPOINT: size // 2}
    refusal("--yes")
    host.breaks_at = {}
    (host.folder / CHECKPOINT).write_bytes(bytes(size))
    assert get("--yes").exit_code == 0
    assert imports[0][CHECKPOINT] == bytes(size)


@pytest.mark.parametrize("name", [CHECKPOINT, VECTORS, "vocab.json"])
def test_a_damaged_file_is_refused_removed_and_never_imported(host, imports, tmp_path, name):
    host.damaged = name
    assert "its checksum is wrong" in refusal("--yes")
    assert not imports
    assert not default_folder(MODEL).exists()
    assert not [file for file in folder_of_downloads(tmp_path).iterdir() if file.name.startswith(name)]
    host.damaged = ""
    assert get("--yes").exit_code == 0
    assert imports == [{name: host.content(name) for name in FILES}]


def test_a_downloaded_file_that_was_damaged_on_the_disk_is_fetched_again(host, imports, tmp_path):
    out = tmp_path / "model"
    assert get("--yes", "--keep-download", "--out", str(out)).exit_code == 0
    shutil.rmtree(out)
    damaged = tmp_path / "model.download" / CHECKPOINT
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert get("--yes", "--out", str(out)).exit_code == 0
    assert imports[0] == imports[1]
    assert host.sent[CHECKPOINT] == 2 * size_of(host, CHECKPOINT)
    assert host.sent[VECTORS] == size_of(host, VECTORS), "control: what is whole is kept"


def test_without_network_it_says_what_to_fetch_and_imports_that(host, files, tmp_path, monkeypatch):
    host.close()
    message = refusal("--yes")
    assert f"no answer from {host.url}/Sonetto702/AeroGen" in message
    for url in (
        f"{host.url}/Sonetto702/AeroGen/resolve/main/{CHECKPOINT}",
        f"https://github.com/Sonettoo/AeroGen/raw/HEAD/datasets/{VECTORS}",
        f"{host.url}/openai/clip-vit-large-patch14/resolve/main/vocab.json",
    ):
        assert url in message
    assert "dataengine model get aerogen-dior-r --from FOLDER" in message
    own = tmp_path / "own"
    shutil.copytree(files, own)
    (own / VECTORS).unlink()
    assert f"{VECTORS} missing there; download http" in refusal("--from", str(own))
    shutil.copy(files / VECTORS, own)
    result = get("--from", str(own))
    assert result.exit_code == 0, result.output
    assert "not compared" in result.output
    provenance = json.loads((default_folder(MODEL) / "provenance.json").read_text())
    assert provenance["verified"] is False
    assert {r["commit"] for r in provenance["repositories"]} == {None}
    assert sorted(file.name for file in own.iterdir()) == sorted(FILES), "the user's files stay"
    assert is_imported(default_folder(MODEL))


@pytest.mark.parametrize("path", ["/api/models/Sonetto702/AeroGen", "/repos/Sonettoo/AeroGen"])
@pytest.mark.parametrize("answer", [None, [], {}, {"id": "x", "sha": "y"}])
def test_an_answer_that_is_none_of_a_host_is_one_sentence(host, monkeypatch, path, answer):
    honest = host.answer

    def answered(request):
        if request.path.partition("?")[0] != path:
            honest(request)
        elif answer is None:
            request.send_error(503)
        else:
            host.send_json(request, answer)

    monkeypatch.setattr(host, "answer", answered)
    assert "no answer from" in refusal("--yes")


def test_a_host_without_the_file_is_one_sentence(host, monkeypatch):
    monkeypatch.setattr(host, "model_info", lambda repository, names: {"id": "x", "sha": "a" * 40, "siblings": []})
    assert f"has no file {CHECKPOINT} (any more)" in refusal("--yes")


def test_without_a_terminal_or_consent_nothing_is_fetched(host, imports, monkeypatch):
    assert "there is no terminal to ask; add --yes" in refusal()
    monkeypatch.setattr("dataengine.download.sys", namedtuple("Sys", "stdin")(Terminal()))
    for answer, n in (("n\n", 0), ("", 0), ("y\n", 1)):
        result = CliRunner().invoke(app, ["model", "get", "aerogen-dior-r"], input=answer)
        assert result.exit_code == (0 if n else 1)
        assert ("nothing was fetched" in result.output) == (n == 0)
        assert len(imports) == n
        assert bool(sum(host.sent.values())) == bool(n)


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("room", [0.99, 1.01], ids=["too little", "control: enough"])
def test_too_little_disk_space_is_noticed_before_anything_is_fetched(host, imports, monkeypatch, room):
    total = sum(size_of(host, name) for name in FILES)
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, int(room * 2 * total)))
    if room > 1:
        assert get("--yes").exit_code == 0
    else:
        assert "are free on this disk" in refusal("--yes")
        assert not host.sent


def test_space_is_needed_for_what_is_missing_and_for_the_import():
    sizes = (9_500_000_000, 60_000)
    remote = [hosts.RemoteFile(f"{i}", "", size, "sha256:0") for i, size in enumerate(sizes)]
    repository = hosts.RemoteRepository("", "", "", tuple(remote))
    needed = [published.bytes_needed(MODEL, [repository], Path("nowhere"), half) for half in (False, True)]
    assert needed == [sum(sizes) + MODEL.model_bytes, sum(sizes) + MODEL.model_bytes // 2]
    small = replace(repository, files=(replace(remote[0], size=1000),))
    assert published.bytes_needed(MODEL, [small], Path("nowhere"), False) == 2000


def test_wrong_names_and_folders_are_refused(host, tmp_path):
    message = refusal(name="aerogen-hrsc")
    listed = "aerogen-dior-r, diffusionsat-512, diffusionsat-256"
    assert message == f"'aerogen-hrsc' is not a model that can be fetched; choose one of: {listed}."
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert "exists already" in refusal("--yes", "--out", str(tmp_path / "full"))
    with download.locked(folder_of_downloads(tmp_path)):
        assert "another process is downloading" in refusal("--yes")
    assert not host.sent


def test_the_list_says_what_can_be_fetched_and_what_is_there(host, imports):
    result = CliRunner().invoke(app, ["model", "list"])
    for said in (
        "aerogen-dior-r",
        "9.5 GB",
        "512 pixels",
        "m per pixel",
        "unclear",
        "Sonetto702/AeroGen",
        "not fetched",
    ):
        assert said in result.output
    folder = default_folder(MODEL)
    folder.mkdir(parents=True)
    (folder / "provenance.json").write_text("{}")
    assert f"in {folder}" in CliRunner().invoke(app, ["model", "list"]).output


def test_a_killed_process_is_continued_by_the_same_command(host, tmp_path):
    """The command as people run it, with the real environment variable."""
    program = (
        "import sys; from dataengine.cli import main; from dataengine import hosts;"
        f"hosts.GITHUB_API = {host.url!r}; import huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = {CHUNK};"
        "sys.argv = ['dataengine', 'model', 'get', 'aerogen-dior-r', '--yes']; main()"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "HF_ENDPOINT": host.url, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    size = size_of(host, CHECKPOINT)
    host.breaks_at = {CHECKPOINT: size // 3}
    first = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert first.returncode == 2
    assert "the same command continues it" in first.stderr
    assert "Traceback" not in first.stderr
    host.breaks_at = {}
    second = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert size <= host.sent[CHECKPOINT] <= size + CHUNK
    assert (default_folder(MODEL) / "model_index.json").exists()

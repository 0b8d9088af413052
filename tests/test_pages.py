"""Every command of README.md and docs/ runs as it is written, in a folder with the files it names, on smaller inputs.

A new command in a page usually needs no change here. A slow one is made small by a row of `SMALL`; one that cannot run
has its reason in `NOT_RUN`. The pages are also compared with the code: options, files, manifest keys, contracts.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import test_structure
import typer
from page_folder import make_folder
from PIL import Image
from typer.testing import CliRunner

from dataengine.cli import RENAMED_OPTIONS, app
from dataengine.data.layout import Acquisition
from dataengine.engine.decisions import Change
from dataengine.engine.recipe import Recipe
from dataengine.engine.record import _start_to_json
from dataengine.judge.verdict import Repair
from dataengine.render.canvas import ObjectOrigin

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import docs_hook  # noqa: E402

DOCS = ROOT / "docs"
PAGES = {"README.md": ROOT / "README.md"}
PAGES |= {page.relative_to(DOCS).as_posix(): page for page in sorted(DOCS.rglob("*.md"))}
MMROTATE = ("lift.md", "mmrotate.md")  # need its environment
ELSEWHERE = ("scale.md", "trust.md")  # tests of their own also read what is written
QUICK = ("README.md", "index.md", "layouts.md", "view.md")  # of the pages with commands; the others are slow tests
RUN_PATHS = re.compile(r"`((?:runs|work|releases)/[a-z\d_./-]+)`")

# replaces text of a page
INSTEAD = {
    "openai/clip-vit-large-patch14": "path/to/tokenizer",  # hub ids need the network
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "path/to/sd15",
    "--balance 0.1 ": "",  # takes seconds to plan; layouts.md has it, too
    "--images 500 --images 5000": "--images 2 --images 4",
    "oriented-rcnn": "rtmdet-r",  # the smallest
    "rotated-fcos": "rtmdet-r",
}
FEW = "--n 2 --workers 1 --config small.yaml"
SHORT = "--cfg-options train_cfg.max_epochs=12 train_cfg.val_interval=12 model.backbone.init_cfg=None " + " ".join(
    f"{part}_dataloader.num_workers=0 {part}_dataloader.persistent_workers=False" for part in ("train", "val", "test")
)
# appended to a command with this prefix, by the first row that matches; the last of repeated options counts
SMALL = {
    "dataengine synth --dataset hit-uav --data path/to/hit-uav --detector": (  # as many as an evaluation needs
        "--n 10 --workers 1 --config small.yaml --size 96 --filter off"
    ),
    "dataengine synth --dataset hit-uav --data path/to/hit-uav --renderer whole --layouts map": (
        "--n 2 --workers 1 --config small.yaml --filter off"
    ),
    "dataengine synth --dataset hit-uav --n 20 ": "--workers 1 --config small.yaml --n 3",  # the packaged models alone
    "dataengine synth --dataset hit-uav --n": "--workers 1 --config small.yaml --n 6",
    "dataengine synth --dataset dior --n": "--n 2 --workers 1 --config small.yaml",
    "dataengine synth --config": "--n 2 --workers 1 --size 64 --layout-scale 1 --steps 2 --filter off",
    "dataengine synth --dataset dior-r --data path/to/DIOR-R --renderer whole --filter": f"{FEW} --steps 1",  # 512 px
    "dataengine synth --dataset dior-r": f"{FEW} --size 64 --layout-scale 1 --steps 2",
    "dataengine synth --data path/to/dataset --renderer whole": f"{FEW} --size 96",
    "dataengine synth --dataset": f"{FEW} --size 96 --filter off",  # no packaged model finds painted squares
    "dataengine synth --data": f"{FEW} --size 96 --filter off",  # and a renderer trained for two steps paints nothing
    "dataengine world": "--size 256",
    "dataengine model get": "--from published",
    "dataengine data sample": "--n 8",
    "dataengine model import": "--size 64",
    "dataengine train layouts": "--steps 2 --batch-size 2 --size 64",
    "dataengine train control": "--steps 2 --batch-size 1",
    "dataengine train full": "--steps 2 --batch-size 2 --size 64 --scale 1",
    "dataengine train renderer path/to/dataset --kind whole": "--steps 2 --batch-size 2 --size 96",
    "dataengine train detector": "--preset tiny --steps 2 --batch-size 2",
    "dataengine train": "--steps 2 --batch-size 2",
    "dataengine layout draw --dataset hit-uav --data": "--size 96",
    "dataengine layout score": "--n 20",
    "dataengine layout sample work/layouts/model": "--size 64",
    "dataengine evaluate lift": "--steps 3 --batch-size 2 --seeds 1 --pasted 4 --cpu --options small-rtmdet-r.yaml",
    "dataengine evaluate": "--images 24",
    "dataengine export mmrotate": "--cpu",
    "python $tools": SHORT,
}
NOT_RUN = {
    "dataengine improve": "trains detectors with mmrotate for hours; tests/improve runs it with a fast one",
    "pip install": "changes the environment",
    "pytest": "is what runs this",
    "hf download": "needs the network",
    "dataengine model get diffusionsat": "needs the network; see tests/render/test_published_diffusionsat.py",
    "dataengine model import diffusionsat": "the same",
    "dataengine rerender": "painted squares are no thermal images; tests/engine/test_pictures.py runs it",
    "dataengine sequence": "the same",
    "dataengine superres": "the same",
    "dataengine data get": "needs the network; see tests/data/test_data_get.py",
    "hf upload": "needs the network",
    "dataengine evaluate lift runs/of-few": "needs mmrotate; lift.md has the same command, run in its environment",
    "accelerate launch --multi_gpu": "needs several GPUs",
    "dataengine release runs/first --name thermal-cars --license cc-by-4.0 --out releases/checked": (
        "painted squares are too similar for a search for copies; see test_release_copies.py"
    ),
    "dataengine data select runs/first --tag": "a person tags in the page; see tests/view/test_view_decisions.py",
    "python3 -m venv": "the environment in which these tests run, made by .ci/run",
    ". mmrotate-venv": "the same",
    "tools/install_mmrotate.sh": "the same",
    "dataengine train detector path/to/dataset --split train": "needs mmrotate; mmrotate.md has such commands",
    "dataengine train detector parts/train": "the same",
    "dataengine filter calibrate path/to/held-out --detector work/": "a detector trained for few steps finds nothing",
    "dataengine synth --data path/to/dataset --model work/renderer/pipeline --detector work/": "the same",
}


def commands(page: str) -> list[str]:
    """The commands in a page's blocks, without comments, each on one line."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGES[page].read_text(), re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.sub(r"(^|\s)#.*", "", line).split("&&")]
    return [" ".join(part.split()) for part in parts if part.strip()]


def first_match(command: str, table: dict[str, str]) -> str | None:
    return next((value for start, value in table.items() if command.startswith(start)), None)


def to_run(page: str) -> list[str]:
    """A page's commands as the tests run them."""
    found = []
    for command in commands(page):
        if first_match(command, NOT_RUN) is None:
            small = f"{command} {first_match(command, SMALL) or ''}".strip()
            for there, here in INSTEAD.items():
                small = small.replace(there, here)
            found.append(small)
    return found


def written(command: str) -> list[Path]:
    """The paths that a command writes."""
    words = shlex.split(command)
    if "--dry-run" in words or words[1:3] == ["layout", "draw"]:  # writes only what its user keeps
        return []
    if words[1:3] in (["data", "convert"], ["data", "tile"]):
        return [Path(words[4])]
    return [Path(path) for option, path in pairwise(words) if option in ("--out", "--work-dir")]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    make_folder(root)
    return root


@pytest.fixture
def run_page(prepared, tmp_path, monkeypatch):
    """`run_page(name)` runs all commands of a page in a copy of the prepared folder, and returns that folder."""
    work = tmp_path / "work"
    shutil.copytree(prepared, work, symlinks=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("dataengine.view.serve.serve", visit)

    def run(page: str) -> Path:
        shell = ""
        for path in [path for command in to_run(page) for path in written(command)]:
            remove(path)  # another page needs it, and this one makes it
        for command in to_run(page):
            if command.startswith("dataengine "):  # here, to import once
                done = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
                status, said = done.exit_code, done.output
            elif re.match(r"\w+=", command):
                shell += f"{command}\n"
                continue
            else:
                done = subprocess.run(["bash", "-euc", shell + command], capture_output=True, text=True, check=False)
                status, said = done.returncode, done.stdout + done.stderr
            assert status == 0, f"{command}\n{said[-3000:]}"
            for path in written(command):
                assert path.exists(), f"{command} wrote no {path}"
        for path in RUN_PATHS.findall(PAGES[page].read_text()):
            assert Path(path).exists() or path.endswith("/dropped.png"), f"{page} names {path}"  # if any was
        return work

    return run


def visit(application, port, started) -> None:
    """Replaces a server that runs until Ctrl-C."""
    from starlette.testclient import TestClient

    client = TestClient(application, base_url=f"http://127.0.0.1:{port}")
    assert client.get("/").status_code == 200
    while (site := client.get("/api/site").json())["studio"] and site["studio"]["state"] == "loading":
        time.sleep(0.05)  # in a thread, which must not outlive this folder
    assert not site["studio"] or site["studio"]["state"] == "ready", site["studio"]
    started(f"http://127.0.0.1:{port}")
    remove(Path("drawn"))  # its lock would be held until this process ends


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


OTHERS = [page for page in PAGES if page not in (*MMROTATE, *ELSEWHERE, "release.md")]
OTHERS = [page for page in OTHERS if commands(page) or RUN_PATHS.search(PAGES[page].read_text())]


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] * (p not in QUICK)) for p in OTHERS])
def test_the_commands_of_a_page_run_and_write_their_files(page, run_page):
    folder = run_page(page)
    if page == "README.md":  # a complete run
        files = PAGES["reference/run-folder.md"].read_text().partition("## Files")[2].partition("## Manifest")[0]
        names = [name for cell in first_cells(files) for name in re.findall(r"`([\w.]+)/?`", cell)]
        assert len(names) >= 9
        for name in names:
            there = (folder / "runs" / "first" / name).exists()
            assert there or name == "dropped.png", f"reference/run-folder.md names {name}"


def first_cells(text: str) -> list[str]:
    """The first cell of each row of the tables in a text that begins with code."""
    return re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)


def test_the_page_of_the_run_folder_names_every_key(prepared):
    text = PAGES["reference/run-folder.md"].read_text()
    _, record, layout, start, verdict, recipe, decided = re.split(
        r"^## Manifest|^A \*\*layout|^An \*\*object in|^A \*\*verdict|^## recipe|^## decisions", text, flags=re.M
    )
    assert {cell.strip("`") for cell in first_cells(decided)} == set(Change.model_fields)
    record, layout, start, verdict, recipe = (
        {key for cell in first_cells(part) for key in re.findall(r"`(\w+)`", cell)}
        for part in (record, layout, start, verdict, recipe)
    )
    run = prepared / "runs" / "first"
    line = json.loads((run / "manifest.jsonl").read_text().splitlines()[0])
    stored = json.loads((run / "recipe.json").read_text())
    assert record - {"objects_from"} == set(line), "the first run has no objects that start from real ones"
    assert (layout - {"features"}, verdict, recipe) == (set(line["labels"]), set(line["verdict"]), set(stored))
    origin = ObjectOrigin("a", np.zeros(5), np.eye(2), 1.0, np.zeros(5), np.zeros(5))
    assert start == set(_start_to_json(origin))
    assert set(line["asked"]) == set(line["labels"])
    rows = [row for row in text.splitlines() if row.startswith(("| `acquisition`", "| `repairs`"))]
    known = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert set(Acquisition.model_fields) < known[0]
    assert {field.name for field in fields(Repair)} < known[1]


def test_the_program_of_the_python_page_makes_a_data_set(tmp_path, monkeypatch, capsys):
    [program] = re.findall(r"```python\n(.*?)```", PAGES["python.md"].read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line and not line.startswith("#")]) <= 30
    assert program.count("n=20") == 1
    monkeypatch.chdir(tmp_path)
    exec(program.replace("n=20", "n=2"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 2 images accepted" in lines
    assert sum(line.endswith("accepted") and line.startswith("0000") for line in lines) == 2
    assert len(list((tmp_path / "runs" / "python" / "coco").rglob("*.png"))) == 2
    with Image.open("painted.png") as image:
        grey = np.abs(np.asarray(image, np.int16) - 128).max(-1)
    assert image.size == (256, 256)
    assert grey[118:138, 118:138].max() > 20, "the car is painted"
    assert grey[:60].max() == 0, "nothing else is"


def test_the_page_of_releases_makes_one_of_the_packaged_models_alone(run_page):
    folder = run_page("release.md") / "releases" / "thermal-cars"
    content = json.loads((folder / "release.json").read_text())
    assert content["splits"]["val"] >= 1
    assert sum(content["splits"].values()) + content["left_out"]["leaks"] == 6
    assert {source["license"] for source in content["sources"]} == {"cc-by-4.0", "CC BY 4.0"}
    card = " ".join((folder / "README.md").read_text().split())
    assert "all pixels are generated" in card
    assert "**Not checked**: the training images of the packaged models are not available" in card
    with Image.open(min(folder.glob("images/*/*.png"))) as image:
        description = image.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert description["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    for file in folder.iterdir():
        assert file.name in PAGES["release.md"].read_text(), f"the page does not name {file.name}"


@pytest.mark.mmrotate
@pytest.mark.parametrize("page", MMROTATE)
def test_the_commands_of_a_page_run_with_mmrotate(page, run_page):
    folder = run_page(page)
    if page == "mmrotate.md":
        from dataengine.judge.child import ChildDetector
        from dataengine.judge.detector import load_detector

        assert load_detector(folder / "work" / "rtmdet-r").classes == ("Person", "Car")
        assert isinstance(load_detector(folder / "work" / "detector"), ChildDetector)


@pytest.mark.parametrize("table", [SMALL, NOT_RUN, INSTEAD], ids=["SMALL", "NOT_RUN", "INSTEAD"])
def test_every_row_matches_a_command(table):
    every = [command for page in PAGES for command in commands(page)]
    assert [row for row in table if not any(row in command for command in every)] == []


def all_options(command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """(words, options) of every command below this one."""
    yield path, {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for name, child in getattr(command, "commands", {}).items():
        yield from all_options(child, (*path, name))


def test_files_commands_and_options_that_a_page_names_exist():
    known = dict(all_options(typer.main.get_command(app)))
    tools = "".join(file.read_text() for file in (ROOT / "tools").rglob("*.py"))
    options = {option for each in known.values() for option in each} | set(re.findall(r'"(--[\w-]+)"', tools))
    options |= {"--help", "--cfg-options"}  # the latter is mmrotate's
    wrong = []
    for page, file in PAGES.items():
        if page == "renamed.md":  # names old options, too; tested below
            continue
        for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)):
            words = code.split()
            if re.fullmatch(r"(tools|tests|configs|dataengine)/[\w./-]+", named := words[-1 if len(words) == 1 else 0]):
                wrong += [] if (ROOT / named).exists() else [(page, named)]
            if words[0] == "dataengine" and words[1:] and not words[1].startswith("-"):
                ours = words[1:3] if tuple(words[1:3]) in known else words[1:2]
                wrong += [] if tuple(ours) in known else [(page, code)]
            if words[0] == "dataengine" or words[0].startswith("--"):
                wrong += [(page, word) for word in words if re.fullmatch(r"--[\w-]+", word) and word not in options]
    assert sorted(set(wrong)) == []


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_of_a_page_exist_and_images_have_captions(page):
    file, text = PAGES[page], re.sub(r"```.*?```", "", PAGES[page].read_text(), flags=re.DOTALL)
    generated = {DOCS / "reference" / f"{name}.md" for name in ("cli", "recipe", "python-api")}  # tools/docs_hook.py
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("https://"):
            path = (file.parent / target).resolve()
            assert path.exists() or path in generated, f"{page} links to {target}"
    for alternative, caption in re.findall(r"^!\[(.*?)\]\(.*\)\n\n(.*)", text, re.MULTILINE):
        assert len(alternative.split()) > 5, f"{page}: {alternative!r} does not describe the image"
        assert caption.startswith("*"), f"{page}: no caption below {alternative!r}"


def test_every_contract_that_the_code_cites_is_on_the_page():
    numbered = re.findall(r"^## (\d+)\. ", PAGES["contracts.md"].read_text(), re.MULTILINE)
    assert numbered == [str(number) for number in range(1, 14)]
    files = [file for room in ("dataengine", "tools", "tests") for file in (ROOT / room).rglob("*.py")]
    cited = set(re.findall(r"contracts? (\d+)", "".join(file.read_text() for file in files)))
    assert cited
    assert cited <= set(numbered)


def test_the_glossary_is_in_order_and_has_at_least_twenty_terms():
    terms = re.findall(r"^\*\*(.+)\*\*$", PAGES["glossary.md"].read_text(), re.MULTILINE)
    assert len(terms) >= 20
    assert terms == sorted(terms, key=str.lower)


def test_findings_stay_on_one_page():
    assert len(PAGES["lift.md"].read_text().splitlines()) <= 150
    assert len((ROOT / "dataengine" / "ARCHITECTURE.md").read_text().partition("| file")[0].splitlines()) <= 14


def test_files_that_the_architecture_page_names_exist():
    for names in first_cells((ROOT / "dataengine" / "ARCHITECTURE.md").read_text()):
        paths = [Path(name) for name in re.findall(r"`([^`]+)`", names)]
        for path in paths:  # "render/a.py, b.py": the first names the package of all
            inside = path if path.parent.name or path == paths[0] else paths[0].parent / path
            assert (ROOT / "dataengine" / inside).exists(), inside


def test_options_that_the_page_of_new_names_lists_are_those_of_the_command_line():
    table = PAGES["renamed.md"].read_text().partition("## Options")[2].partition("## Modules")[0]
    rows = {}
    for command, old, new in re.findall(r"^\| `dataengine (.*?)` \| (`--.*) \| (`--.*) \|$", table, re.MULTILINE):
        rows[tuple(command.split())] = dict(
            zip(*(re.findall(r"`(--[\w-]+)", text) for text in (old, new)), strict=True)
        )
    assert rows == RENAMED_OPTIONS


def test_modules_that_the_page_of_new_names_lists_exist():
    table = PAGES["renamed.md"].read_text().partition("## Modules")[2].partition("## Classes")[0]
    rows = re.findall(r"^\| (`.*) \| (`.*) \|$", table, re.MULTILINE)
    assert len(rows) > 20
    for old, new in rows:
        paths = {
            side: [ROOT / "dataengine" / f"{name.replace('.', '/')}.py" for name in re.findall(r"`([a-z_.]+)`", text)]
            for side, text in (("old", old), ("new", new))
        }
        assert not any(path.exists() for path in paths["old"]), old
        assert all(
            path.exists() for path in paths["new"] if path.parts[-2] != "dataengine" or path.stem != "geometry"
        ), new


def test_the_architecture_page_states_the_order_of_imports():
    text = (ROOT / "dataengine" / "ARCHITECTURE.md").read_text()
    levels = [set(level.split(", ")) for level in re.search(r"one way: (.*)\.", text)[1].split(" < ")]
    assert levels == [level for level in test_structure.ORDER if level & set.union(*levels)]
    folders = {folder.parent.name for folder in (ROOT / "dataengine").glob("*/__init__.py")}
    assert set.union(*levels) == folders - {"weights"}


def test_the_generated_reference_has_every_command_option_and_field():
    pages = docs_hook.generated_pages()
    for words, command in docs_hook.all_commands(typer.main.get_command(app)):
        heading = " ".join(["dataengine", *words])
        part = re.search(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", pages["reference/cli.md"], re.M | re.DOTALL)[1]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden and words:
                assert all(f"`{name}`" in part for name in parameter.opts), f"{heading} {parameter.opts}"
    assert all(f"| `{name}` |" in pages["reference/recipe.md"] for name in Recipe.model_fields)

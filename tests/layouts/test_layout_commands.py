"""`dataengine layout` on a small data set on disk."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from dataengine import geometry
from dataengine.errors import UserError
from dataengine.layouts.commands import app


@pytest.fixture(scope="module")
def dota_folder(lots, tmp_path_factory):
    root = tmp_path_factory.mktemp("dota") / "lots"
    (root / "images").mkdir(parents=True)
    (root / "labelTxt").mkdir()
    for i, lot in enumerate(lots[:40]):
        Image.new("L", lot.size).save(root / "images" / f"{i}.png")
        rows = zip(geometry.to_corners(lot.boxes).reshape(-1, 8), lot.names(), strict=True)
        text = "".join(f"{' '.join(f'{v:.3f}' for v in corners)} {name} 0\n" for corners, name in rows)
        (root / "labelTxt" / f"{i}.txt").write_text(text)
    return root


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_prior_is_fitted_sampled_and_scored(dota_folder, tmp_path):
    fitted = run("fit", dota_folder, "--out", tmp_path / "prior.json")
    assert fitted.exit_code == 0, fitted.output
    assert "objects in" in fitted.output
    sampled = run("sample", tmp_path / "prior.json", "--n", 6, "--out", tmp_path / "sheet.png", "--balance", "car=0.5")
    assert "6 layouts" in sampled.output
    assert Image.open(tmp_path / "sheet.png").width > 256
    scored = run("score", tmp_path / "prior.json", "--real", dota_folder, "--n", 40, "--json")
    scores = json.loads(scored.output)
    assert scores["uniform"]["score"] > 2 * scores["sampled"]["score"] > 0
    assert "what is compared" in run("score", tmp_path / "prior.json", "--real", dota_folder, "--n", 40).output


def test_stored_layouts_are_sampled_without_the_data_set(dota_folder, tmp_path):
    assert run("store", dota_folder, "--out", tmp_path / "layouts.npz").exit_code == 0
    for source in (tmp_path / "layouts.npz", dota_folder):
        assert run("sample", source, "--n", 4, "--out", tmp_path / "sheet.png").exit_code == 0


def test_the_same_seed_gives_the_same_sheet(dota_folder, tmp_path):
    run("store", dota_folder, "--out", tmp_path / "layouts.npz")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("sample", tmp_path / "layouts.npz", "--n", 4, "--seed", seed, "--out", tmp_path / f"{name}.png")
    sheets = [(tmp_path / f"{name}.png").read_bytes() for name in "abc"]
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_wrong_balance_or_source_is_one_sentence(dota_folder, tmp_path):
    for arguments, message in (
        (("sample", dota_folder, "--balance", "lots"), "neither a share nor"),
        (("sample", tmp_path / "none.json"), "does not exist"),
        (("sample", tmp_path / "none"), "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            run(*arguments, "--out", tmp_path / "sheet.png")
    with pytest.raises(UserError, match="cannot be written"):
        run("sample", dota_folder, "--n", 1, "--out", tmp_path / "no" / "sheet.png")

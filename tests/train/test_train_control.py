"""Training of a control: from pairs to a run, and, on a toy, the tests S1 and S2 of the seeds."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import torch
from toy_ground import COLOURS, SIDE, mean_iou, random_map, rectangle, rendered, segmented, trained
from toy_map import write_geojson
from toy_world import toy_ground
from typer.testing import CliRunner

pytest.importorskip("rasterio")
pytest.importorskip("pyogrio")
from dataengine.cli import app
from dataengine.engine.run_folder import RunFolder
from dataengine.errors import UserError
from dataengine.maps.ground import load_ground
from dataengine.maps.pairs import make_pairs
from dataengine.maps.raster import map_raster, picture
from dataengine.maps.read import read_map
from dataengine.render.control import load_control
from dataengine.train.control import mirrored, train_control
from dataengine.train.loop import TrainSettings


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Eight tiles of 128 pixels: the map of the toy, as pictures of itself."""
    import rasterio

    folder = tmp_path_factory.mktemp("pairs")
    the_map, ground = read_map(write_geojson(folder / "toy.geojson")), load_ground()
    pixels = picture(map_raster(the_map, the_map.grid(-500, 400, 1.0, (512, 256)), ground), ground)
    profile = {"driver": "GTiff", "width": 512, "height": 256, "count": 3, "dtype": "uint8", "crs": the_map.crs,
               "transform": rasterio.transform.from_origin(-756, 528, 1.0, 1.0)}  # fmt: skip
    with rasterio.open(folder / "image.tif", "w", **profile) as image:
        image.write(pixels.transpose(2, 0, 1))
    return make_pairs(folder / "image.tif", the_map, ground, folder / "pairs", 128, val_share=0.0)


SETTINGS = TrainSettings(steps=2, batch_size=2, learning_rate=1e-3, warmup_steps=1)


def test_the_renderer_stays_as_it_is_and_the_control_is_stored(pairs, tmp_path):
    pipeline = toy_ground(quick=False)
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    network = train_control(pipeline, pairs, load_ground(), tmp_path, SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    assert any(p.any() for name, p in network.named_parameters() if name.startswith("controlnet_down"))
    again, given = load_control(str(tmp_path / "control"))
    assert given.classes == pairs.classes
    assert given.gsd_m == pytest.approx((1, 1), rel=1e-3)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())
    with pytest.raises(UserError, match="trained on 3 to 4 m"):
        train_control(pipeline, pairs, load_ground(), tmp_path, SETTINGS, trained_gsd=(3.0, 4.0))


@pytest.mark.slow
def test_a_full_size_renderer_is_trained_the_same_way(pairs, tmp_path):
    pytest.importorskip("transformers")
    from diffusers import DDIMScheduler
    from toy_text import toy_stable_diffusion

    from dataengine.render.latent_pipeline import LatentPipeline
    from dataengine.train.latents import from_base, load_base, model_arguments

    base = load_base(str(toy_stable_diffusion(tmp_path / "sd")))
    model = from_base(base, ["car"], [], model_arguments("full"), 64)
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    pipeline = LatentPipeline(model, base.vae, base.text_encoder, base.tokenizer, scheduler)
    network = train_control(pipeline, pairs, load_ground(), tmp_path / "out", SETTINGS)
    assert any(p.any() for name, p in network.named_parameters() if name.startswith("controlnet_down"))
    assert (tmp_path / "out" / "control" / "map.json").exists()


def test_a_control_goes_from_its_training_to_a_run(pairs, tmp_path, toy_dataset):
    toy_ground(quick=False).save_pretrained(tmp_path / "whole")
    shutil.copytree(toy_dataset, tmp_path / "toy")  # the look that the renderer knows

    def run(*words) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output + str(done.exception)
        return done.output

    run("train", "control", pairs.folder, "--model", tmp_path / "whole", "--out", tmp_path / "trained", "--steps", 2,
        "--batch-size", 2, "--learning-rate", 0.01)  # fmt: skip
    file = write_geojson(tmp_path / "toy.geojson")
    words = ["synth", "--data", tmp_path / "toy", "--renderer", "whole", "--model", tmp_path / "whole", "--size", 128,
             "--layouts", "map", "--map", file, "--map-gsd", 1, "--filter", "off", "--n", 2, "--workers", 1, "--steps",
             2]  # fmt: skip
    plain = run(*words, "--out", tmp_path / "plain")
    assert "the ground does not follow the map" in " ".join(plain.split())
    run(*words, "--out", tmp_path / "led", "--control", tmp_path / "trained" / "control")
    records = {name: list(RunFolder(tmp_path / name).records()) for name in ("plain", "led")}
    for one, other in zip(records["plain"], records["led"], strict=True):
        assert one.labels.features == other.labels.features
        assert one.labels.features
        assert np.array_equal(one.labels.boxes, other.labels.boxes)
        assert one.sha256 != other.sha256
    run("run", "verify", tmp_path / "led")
    failed = CliRunner().invoke(app, [str(w) for w in [*words, "--map-gsd", 2, "--out", tmp_path / "x", "--control",
                                                       tmp_path / "trained" / "control"]])  # fmt: skip
    assert isinstance(failed.exception, UserError)
    assert "trained on 1 to 1 m" in str(failed.exception)


def test_mirroring_turns_the_direction_channels_with_the_image():
    angle, n = 0.5, 64
    channels = np.zeros((3, n, n), np.float32)
    channels[1], channels[2] = np.cos(2 * angle), np.sin(2 * angle)
    image = np.zeros((n, n, 3), np.uint8)
    end = np.array([np.cos(angle), np.sin(angle)]) * 20
    cv2.line(image, tuple((32 - end).astype(int).tolist()), tuple((32 + end).astype(int).tolist()), (255, 255, 255), 2)
    for across, down in ((False, False), (True, False), (False, True), (True, True)):
        picture_, led = mirrored(image, channels, across, down)
        y, x = np.nonzero(picture_[..., 0])
        (vx, vy) = np.linalg.eigh(np.cov(x, y))[1][:, 1]  # direction of the drawn line
        assert np.cos(2 * np.arctan2(vy, vx) - np.arctan2(led[2], led[1])).min() > 0.98


# S1 and S2: a denoiser of fields, lakes and roads in two seasons, and the control that learns where they are


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("toy"), 300, 700)


MAPS = [random_map(np.random.default_rng((5, i))) for i in range(16)]
SEASONS = [i % 2 for i in range(16)]


@pytest.mark.slow
def test_pictures_show_their_own_map_and_not_another(toy):
    """S1 (b), with the mutation: at scale 0, and with the control's output zeroed, they do not."""
    model, control = toy
    found = segmented(rendered(model, control, MAPS, SEASONS), SEASONS)
    assert mean_iou(found, MAPS) >= 0.7
    assert mean_iou(found, MAPS[3:] + MAPS[:3]) <= 0.3
    free = segmented(rendered(model, control, MAPS, SEASONS, scale=0.0), SEASONS)
    assert mean_iou(free, MAPS) <= 0.3


def lake(cx: float, turn: float = 0.0) -> np.ndarray:
    classes = np.zeros((SIDE, SIDE), np.uint8)
    rectangle(classes, 1, cx, 16, 16, 8, turn)
    return classes


@pytest.mark.slow
def test_a_moved_lake_changes_the_picture_only_there(toy):
    """S1 (c): 8 pixels to the right."""
    model, control = toy
    one, two = (segmented(rendered(model, control, [lake(x)] * 6, [0] * 6), [0] * 6) for x in (12, 20))
    near = cv2.dilate(((lake(12) | lake(20)) > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    changed = one != two
    assert changed.sum() > 100
    assert changed[:, near].sum() / changed.sum() >= 0.9


@pytest.mark.slow
def test_a_turned_lake_turns_in_the_picture(toy):
    """S1 (d): by 30 degrees."""
    model, control = toy

    def angle(turn: float) -> float:
        shown = (segmented(rendered(model, control, [lake(16, turn)] * 8, [0, 1] * 4), [0, 1] * 4) == 1).mean(0)
        y, x = np.mgrid[:SIDE, :SIDE]
        x, y = x - np.average(x, weights=shown), y - np.average(y, weights=shown)
        return np.degrees(0.5 * np.arctan2(2 * (shown * x * y).sum(), (shown * (x * x - y * y)).sum()))

    assert angle(np.radians(30)) - angle(0.0) == pytest.approx(30, abs=5)


def season_distances(pictures: np.ndarray) -> np.ndarray:
    """Mean squared distance (B, seasons) of each pixel to the nearest colour of a season."""
    return ((pictures[:, None, None] - COLOURS[None, ..., None, None]) ** 2).sum(3).min(2).mean((2, 3))


@pytest.mark.slow
def test_the_season_changes_the_colours_and_not_the_map(toy):
    """S2, with the control: without the season, the two cannot be told apart."""
    model, control = toy
    other = [1 - season for season in SEASONS]
    scores = []
    for given in (SEASONS, other):
        pictures = rendered(model, control, MAPS, given)
        assert (season_distances(pictures).argmin(1) == given).mean() >= 0.9
        scores.append(mean_iou(segmented(pictures, given), MAPS))
    assert abs(scores[0] - scores[1]) <= 0.05
    unknown = season_distances(rendered(model, control, MAPS, [2] * 16)).argmin(1)  # the learned null
    assert abs((unknown == SEASONS).mean() - 0.5) < 0.35


@pytest.mark.slow
def test_guidance_on_the_season_makes_it_clearer(toy):
    """S2: the margin between the two seasons grows from the null to the season. Beyond 1 it has nothing to gain here:
    at 1 all pictures are of their season already."""
    model, control = toy
    margins = []
    for guidance in (0.0, 0.3, 1.0):
        distances = season_distances(rendered(model, control, MAPS, SEASONS, guidance=guidance))
        own = np.array(SEASONS)
        margins.append(float((distances[range(16), 1 - own] - distances[range(16), own]).mean()))
    assert margins[0] < margins[1] < margins[2]

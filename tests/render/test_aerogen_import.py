from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import aerogen_shapes
import numpy as np
import pytest
import torch
from aerogen_formulas import Original
from toy_scenes import random_layout

from dataengine.data.layout import Layout
from dataengine.errors import UserError
from dataengine.render.aerogen_import import import_aerogen, read_state_dict
from dataengine.render.layout_batch import grid_corners, grid_masks

pytest.importorskip("transformers")
CLASSES, GRID, CONTEXT = ("car", "van"), 16, 64
BLOCK = "model.diffusion_model.middle_block.1.transformer_blocks.0"
KEYS = Path(__file__).resolve().parents[3] / "shared" / "anchors" / "aerogen_checkpoint_keys.json"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return aerogen_shapes.random_state(aerogen_shapes.tiny_shapes(context=CONTEXT))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("categories") / "category_embeddings.npy"
    np.save(file, np.random.default_rng(0).normal(size=(2, CONTEXT)).astype(np.float32))
    return file


@pytest.fixture(scope="module")
def pipeline(state, vectors, tokenizer, tmp_path_factory):
    file = tmp_path_factory.mktemp("checkpoint") / "aerogen.ckpt"
    buffers = {"betas": torch.zeros(1000), "sqrt_recipm1_alphas_cumprod": torch.zeros(1000)}
    torch.save({"state_dict": state | buffers, "epoch": 3, "optimizer_states": [{}]}, file)
    return import_aerogen(file, vectors, tokenizer, GRID, classes=CLASSES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from toy_text import toy_tokenizer

    return toy_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def size_128(layout: Layout) -> Layout:
    return Layout(layout.boxes, layout.labels, CLASSES, (128, 128))


def test_the_names_and_shapes_of_the_tests_are_those_of_the_published_checkpoint():
    if not KEYS.exists():
        pytest.skip("the list of the published tensors is not here")
    published = {name: tuple(shape) for name, shape in json.loads(KEYS.read_text())["tensors"].items()}
    assert aerogen_shapes.published_shapes() == published


@torch.no_grad()
@pytest.mark.parametrize("timestep", [700, 100], ids=["regional attention on", "below its threshold"])
def test_the_imported_denoiser_computes_what_the_papers_formulas_say(pipeline, state, vectors, timestep):
    layout = size_128(random_layout(np.random.default_rng(0), 128))
    latents, text = torch.randn(1, 4, GRID, GRID), torch.randn(1, 5, CONTEXT)
    batch = pipeline.unet.layout_batch([layout], [layout.labels])
    ours = pipeline.unet(latents, torch.tensor([timestep]), batch, text)[0]
    slots = 15
    corners, categories = torch.zeros(slots, 8), torch.zeros(slots, CONTEXT)
    masks, valid = torch.zeros(slots, GRID, GRID), torch.zeros(slots)
    corners[:3] = torch.from_numpy(grid_corners(layout, GRID).reshape(-1, 8))
    categories[:3] = torch.from_numpy(np.load(vectors)[layout.labels])
    masks[:3], valid[:3] = torch.from_numpy(grid_masks(layout, GRID)), 1
    theirs = Original(state).noise(latents[0], timestep, text[0], corners, categories, masks, valid)
    assert masks.sum() > 5, "the layout of this test must have area on the grid"
    assert torch.allclose(ours, theirs, atol=2e-4 * float(theirs.abs().max()))
    moved = corners.clone()
    moved[0] += 1
    other = Original(state).noise(latents[0], timestep, text[0], moved, categories, masks, valid)
    assert (other - theirs).abs().max() > 1e-3 * theirs.abs().max(), "control: a box by one cell makes a difference"
    if timestep > 200:
        without = Original(state).noise(latents[0], timestep, text[0], corners, categories, 0 * masks, valid)
        assert (without - theirs).abs().max() > 1e-3 * theirs.abs().max(), "control: the regional attention too"


@torch.no_grad()
def test_the_imported_autoencoder_and_text_encoder_compute_the_same_numbers(pipeline, state):
    latents, tokens = torch.randn(1, 4, 4, 4), torch.tensor([3, 7, 1, 9, 59])
    original = Original(state)
    assert torch.allclose(pipeline.vae.decode(latents).sample[0], original.decode(latents[0]), atol=1e-4)
    ours = pipeline.text_encoder(tokens[None]).last_hidden_state[0]
    assert torch.allclose(ours, original.encode_text(tokens, heads=1), atol=1e-4)


def test_a_saved_and_loaded_import_draws_the_same_picture(pipeline, tmp_path):
    from dataengine.render.renderer import load_renderer

    layout = size_128(random_layout(np.random.default_rng(1), 128))
    pipeline.save_pretrained(tmp_path / "model")
    again = load_renderer(tmp_path / "model", "whole")
    one, two = (p([layout], [5], num_inference_steps=2)[0] for p in (pipeline, again))
    assert one.shape == (128, 128, 3)
    assert np.abs(one.astype(int) - two).max() <= 1  # the order of sums may differ
    other = pipeline([layout], [6], num_inference_steps=2)[0]
    assert np.abs(one.astype(int) - other).max() > 10


def test_averaged_weights_are_used_on_request(state, vectors, tokenizer, tmp_path):
    name = "model.diffusion_model.out.2.bias"
    averaged = {f"model_ema.{k.removeprefix('model.').replace('.', '')}": v + 1 for k, v in state.items()
                if k.startswith("model.")}  # fmt: skip
    torch.save({"state_dict": state | averaged}, tmp_path / "ema.ckpt")
    torch.save({"state_dict": state}, tmp_path / "plain.ckpt")
    raw, ema = (
        import_aerogen(tmp_path / "ema.ckpt", vectors, tokenizer, GRID, ema=use, classes=CLASSES)
        for use in (False, True)
    )
    assert torch.equal(raw.unet.unet.conv_out.bias, state[name])
    before, after = raw.unet.state_dict(), ema.unet.state_dict()
    for name, value in before.items():
        averaged_part = "box_encoder" not in name and name != "text_null"  # which have no average
        assert torch.equal(after[name], value + 1 if averaged_part else value), name
    assert "regional_attention.to_v.weight" in before
    with pytest.raises(UserError, match="no averaged weights"):
        import_aerogen(tmp_path / "plain.ckpt", vectors, tokenizer, GRID, ema=True, classes=CLASSES)
    del averaged["model_ema.diffusion_modelmaskcrossattentionproj_outbias"]
    torch.save({"state_dict": state | averaged}, tmp_path / "half.ckpt")
    with pytest.raises(UserError, match=r"no averaged weights .*maskcrossattention\.proj_out\.bias"):
        import_aerogen(tmp_path / "half.ckpt", vectors, tokenizer, GRID, ema=True, classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"model.diffusion_model.extra.weight": torch.ones(2)}), "no place .*extra.weight"),
        (lambda s: s.update({"some_other.weight": torch.ones(2)}), "no place .*some_other"),
        (lambda s: s.update({f"{BLOCK}.attn2.to_z.weight": torch.ones(2)}), "no place .*to_z"),
        (lambda s: s.pop("model.diffusion_model.input_blocks.4.0.out_layers.0.bias"), "missing"),
        (lambda s: s.pop("first_stage_model.decoder.conv_out.bias"), "missing"),
        (lambda s: s.pop("condition_tokenizer.null_text_feature"), "missing"),
        (lambda s: s.pop("model.diffusion_model.input_blocks.0.0.weight"), "lacks"),
        (lambda s: s.update({"model.diffusion_model.out.2.bias": torch.ones(7)}), "has shape"),
    ],
)  # fmt: skip
def test_tensors_left_over_missing_or_of_another_shape_are_refused_by_name(
    state, vectors, tokenizer, tmp_path, change, message
):
    changed = dict(state)
    change(changed)
    torch.save({"state_dict": changed}, tmp_path / "changed.ckpt")
    with pytest.raises(UserError, match=message):
        import_aerogen(tmp_path / "changed.ckpt", vectors, tokenizer, GRID, classes=CLASSES)


class Attack:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    tensor = torch.arange(3.0)
    torch.save({"state_dict": {"x": tensor}, "callbacks": Attack(tmp_path / "executed")}, tmp_path / "bad.ckpt")
    assert torch.equal(read_state_dict(tmp_path / "bad.ckpt")["x"], tensor)
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "bad.ckpt", weights_only=False)
    assert (tmp_path / "executed").exists(), "control: an unrestricted load executes it"


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    for content in (b"", b"not a checkpoint", pickle.dumps([1, 2])):
        (tmp_path / "bad.ckpt").write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.ckpt"):
            read_state_dict(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(("size", "reason"), [(2**40, "bytearray8"), (3, "memory that no tensor needs")])
def test_a_checkpoint_that_requests_memory_is_refused_before_allocation(size, reason, tmp_path):
    """A pickle that announces a bytearray of this size; three bytes follow, so only a size of 3 is complete."""
    torch.save({"state_dict": {"x": torch.arange(3.0)}}, tmp_path / "good.ckpt")
    with zipfile.ZipFile(tmp_path / "good.ckpt") as good, zipfile.ZipFile(tmp_path / "bad.ckpt", "w") as bad:
        for name in good.namelist():
            hostile = b"\x80\x05\x96" + size.to_bytes(8, "little") + b"abc."
            bad.writestr(name, hostile if name.endswith("data.pkl") else good.read(name))
    with pytest.raises(UserError, match=rf"bad\.ckpt: is not a checkpoint .*{reason}"):
        read_state_dict(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(("word", "other"), [(b"FloatStorage", b"FloapStorage"), (b"storage", b"suorage")])
def test_a_checkpoint_whose_pickle_is_damaged_is_refused(word, other, tmp_path):
    torch.save({"state_dict": {"x": torch.arange(3.0)}}, tmp_path / "bad.ckpt")
    content = (tmp_path / "bad.ckpt").read_bytes()
    assert word in content
    (tmp_path / "bad.ckpt").write_bytes(content.replace(word, other))
    with pytest.raises(UserError, match=r"bad\.ckpt: is not a checkpoint"):
        read_state_dict(tmp_path / "bad.ckpt")


def test_the_horizontal_model_is_refused_with_the_reason(state, vectors, tokenizer, tmp_path):
    horizontal = dict(state)
    horizontal["condition_tokenizer.null_position_feature"] = torch.zeros(64)
    horizontal["condition_tokenizer.linears.0.weight"] = torch.zeros(24, CONTEXT + 64)
    torch.save({"state_dict": horizontal}, tmp_path / "horizontal.ckpt")
    with pytest.raises(UserError, match=r"4 numbers \(64 features\), as in AeroGen's horizontal model"):
        import_aerogen(tmp_path / "horizontal.ckpt", vectors, tokenizer, GRID, classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: np.where(np.arange(2)[:, None] == 1, np.nan, v), "row 1 holds no vector"),
        (lambda v: np.where(np.arange(2)[:, None] == 0, 0, v), "row 0 holds no vector"),
        (lambda v: v.astype(np.complex64), "no .npy file of real numbers"),
        (lambda v: {"vectors": v}, "no .npy file of real numbers"),
        (lambda v: b"", "cannot be read as a .npy file"),
    ],
)
def test_class_vectors_that_are_none_are_refused(state, vectors, tokenizer, tmp_path, change, message):
    torch.save({"state_dict": state}, tmp_path / "aerogen.ckpt")
    changed, file = change(np.load(vectors)), tmp_path / "changed.npy"
    with open(file, "wb") as opened:
        if isinstance(changed, dict):
            np.savez(opened, **changed)
        elif isinstance(changed, bytes):
            opened.write(changed)
        else:
            np.save(opened, changed)
    with pytest.raises(UserError, match=message):
        import_aerogen(tmp_path / "aerogen.ckpt", file, tokenizer, GRID, classes=CLASSES)


def foreign_tokenizer(folder: Path, kind: str):
    """What transformers makes of a folder that holds no CLIP tokenizer, or that of another model."""
    from toy_text import toy_tokenizer
    from transformers import CLIPTokenizer

    folder.mkdir()
    if kind == "empty":
        (folder / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder)
    tokenizer = toy_tokenizer(folder)
    if kind == "other model":
        tokenizer.add_tokens(["qu", "st"])
    else:
        tokenizer.pad_token = "?"
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "knows 2 tokens, the encoder 60"),
        ("other model", "knows 62 tokens"),
        ("other pad", "fills prompts up"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused_at_import_and_on_loading(
    pipeline, state, vectors, tmp_path, kind, message
):
    """Each of its prompts would read like the empty one, and nothing would say so."""
    from dataengine.render.renderer import load_renderer

    torch.save({"state_dict": state}, tmp_path / "aerogen.ckpt")
    foreign = foreign_tokenizer(tmp_path / "tokenizer", kind)
    with pytest.raises(UserError, match=message):
        import_aerogen(tmp_path / "aerogen.ckpt", vectors, foreign, GRID, classes=CLASSES)
    pipeline.save_pretrained(tmp_path / "model")
    load_renderer(tmp_path / "model", "whole")  # control
    shutil.rmtree(tmp_path / "model" / "tokenizer")
    foreign.save_pretrained(tmp_path / "model" / "tokenizer")
    with pytest.raises(UserError, match=message):
        load_renderer(tmp_path / "model", "whole")


def test_the_command_writes_a_folder_that_synth_accepts(state, tokenizer, tmp_path, capsys):
    from dataengine.render.commands import aerogen
    from dataengine.render.renderer import load_renderer

    torch.save({"state_dict": state}, tmp_path / "aerogen.ckpt")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    rows = np.random.default_rng(0).normal(size=(20, CONTEXT)).astype(np.float32)
    rows[8] = rows[7] + 0.1  # the two kinds of expressway stations are nearest to each other
    np.save(tmp_path / "category_embeddings.npy", rows)
    np.save(tmp_path / "other.npy", rows[[*range(6), 7, 8, 6, *range(9, 20)]])  # the order of mmrotate
    np.save(tmp_path / "two.npy", rows[:2])

    def run(out: str, vectors: str = "category_embeddings.npy", tokenizer: str = "tokenizer", classes=None) -> None:
        words = str(tmp_path / tokenizer)
        aerogen(tmp_path / "aerogen.ckpt", tmp_path / out, tmp_path / vectors, words, classes, 128, False, True)

    run("model")
    printed = capsys.readouterr().out
    assert f"--model {tmp_path / 'model'}" in printed
    assert "warning" not in printed
    model = load_renderer(tmp_path / "model", "whole")
    assert torch.allclose(
        model.unet.box_encoder.classes.weight[model.classes.index("dam")].float(), torch.tensor(rows[6]), atol=2e-3
    )
    run("wrong order", "other.npy")
    assert "are not each other's nearest" in capsys.readouterr().out
    run("two", "two.npy", classes="car, van")
    assert load_renderer(tmp_path / "two", "whole").classes == CLASSES
    with pytest.raises(UserError, match="exists already"):
        run("model")
    with pytest.raises(UserError, match="--classes: car is there twice"):
        run("other", "two.npy", classes="car,Car")
    with pytest.raises(UserError, match=r"has shape \(2, 64\), not \(20, 64\)"):
        run("other", "two.npy")
    with pytest.raises(UserError, match=r"--tokenizer .* (cannot be loaded|is not the tokenizer)"):
        run("other", tokenizer="nowhere")
    assert not (tmp_path / "other").exists()

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel

from dataengine.errors import UserError
from dataengine.train.loop import TrainSettings, learning_rate_at, train


def tiny_model() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip


def batch(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    x = torch.zeros(4, 1, 8, 8)
    x[:, :, 2:6, 2:6] = 1
    return {"x": x, "noise": torch.from_numpy(rng.normal(size=(4, 1, 8, 8)).astype(np.float32))}


def denoising_loss(model, batch, generator) -> dict[str, torch.Tensor]:
    extra = torch.randn(batch["x"].shape, generator=generator) * 0.01
    out = model(batch["noise"] + extra, torch.zeros(4)).sample
    return {"loss": (out - batch["x"]).pow(2).mean()}


def settings(**changes) -> TrainSettings:
    return TrainSettings(**({"steps": 6, "batch_size": 4, "warmup_steps": 2, "precision": "no", "seed": 3} | changes))


def run(out, stop_after=None, **changes) -> dict[str, torch.Tensor]:
    """Weights after training; `stop_after` interrupts it at that step, as a kill would."""
    model, seen = tiny_model(), []

    def counted(rng):
        if stop_after is not None and len(seen) == stop_after:
            raise KeyboardInterrupt
        seen.append(1)
        return batch(rng)

    try:
        train(model, counted, denoising_loss, out, settings(**changes), "tiny")
    except KeyboardInterrupt:
        return {}
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_batches_from_worker_processes_give_exactly_the_same_weights(tmp_path):
    main_process = run(tmp_path / "a", workers=0)
    with_workers = run(tmp_path / "b", workers=2)
    assert all(torch.equal(main_process[name], with_workers[name]) for name in main_process)

    def signed(rng) -> dict[str, torch.Tensor]:
        (tmp_path / str(os.getpid())).touch()
        return batch(rng)

    train(tiny_model(), signed, denoising_loss, tmp_path / "c", settings(workers=2), "tiny")
    makers = {path.name for path in tmp_path.iterdir() if path.name.isdigit()}
    assert len(makers) == 2
    assert str(os.getpid()) not in makers


def test_an_interrupted_training_ends_with_exactly_the_weights_of_an_uninterrupted_one(tmp_path):
    uninterrupted = run(tmp_path / "a")
    run(tmp_path / "b", stop_after=4, checkpoint_minutes=1e-9)  # a checkpoint at every step
    assert (tmp_path / "b" / "checkpoint" / "state.json").exists()
    continued = run(tmp_path / "b")
    assert all(torch.equal(uninterrupted[name], continued[name]) for name in uninterrupted)
    other = run(tmp_path / "c", seed=4)
    assert not all(torch.equal(uninterrupted[name], other[name]) for name in uninterrupted), "control: the seed matters"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match=r"with other settings: learning_rate was .*, is 0.00001; use another --out"):
        run(tmp_path, learning_rate=1e-5)


def test_a_finished_training_is_lengthened_by_more_steps_and_not_shortened_by_fewer(tmp_path):
    finished = run(tmp_path)
    again = run(tmp_path)
    assert all(torch.equal(finished[name], again[name]) for name in finished), "control: the same steps add nothing"
    longer = run(tmp_path, steps=9, warmup_steps=3)
    assert not all(torch.equal(finished[name], longer[name]) for name in finished)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 9
    with pytest.raises(UserError, match="9 steps already, more than 6"):
        run(tmp_path)


def test_a_checkpoint_whose_recipe_names_its_steps_continues(tmp_path):
    """As version 0.2.0 wrote it."""
    run(tmp_path)
    file = tmp_path / "checkpoint" / "state.json"
    state = json.loads(file.read_text())
    assert '"steps"' not in state["recipe"]
    state["recipe"] = state["recipe"].replace('{"', '{"steps":6,"warmup_steps":2,"', 1)
    file.write_text(json.dumps(state))
    run(tmp_path, steps=8)
    assert json.loads(file.read_text())["step"] == 8


def test_a_training_that_ends_early_says_at_which_step_and_can_be_tried(tmp_path, capsys):
    model = tiny_model()
    untrained = {name: value.clone() for name, value in model.state_dict().items()}
    assert not train(model, batch, denoising_loss, tmp_path, settings(minutes=1e-9), "tiny")
    assert "at step 1 of 6; the same command continues" in capsys.readouterr().out
    assert any(not torch.equal(untrained[name], value) for name, value in model.state_dict().items())
    assert train(tiny_model(), batch, denoising_loss, tmp_path, settings(), "tiny")
    assert "stopped" not in capsys.readouterr().out, "control"


def test_a_kill_between_the_two_renames_of_a_checkpoint_loses_nothing(tmp_path):
    finished = run(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert all(torch.equal(value, finished[name]) for name, value in run(tmp_path).items())


def test_checkpoints_hold_safetensors_and_json_only(tmp_path):
    run(tmp_path)
    assert {file.suffix for file in (tmp_path / "checkpoint").iterdir()} == {".safetensors", ".json"}


def test_the_loss_falls_and_does_not_without_a_learning_rate(tmp_path):
    def final_loss(rate: float) -> float:
        model = tiny_model()
        train(model, batch, denoising_loss, tmp_path / str(rate), settings(steps=60, learning_rate=rate), "tiny")
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            return float(denoising_loss(model, batch(np.random.default_rng(9)), generator)["loss"])

    assert final_loss(1e-2) < 0.3 * final_loss(1e-12)


def test_a_loss_that_is_nan_stops_the_training_with_an_error(tmp_path):
    def broken(model, batch, generator):
        return {"loss": denoising_loss(model, batch, generator)["loss"] * float("nan")}

    with pytest.raises(UserError, match="lower the learning rate"):
        train(tiny_model(), batch, broken, tmp_path, settings(steps=40), "tiny")


def test_the_learning_rate_warms_up_and_decays_to_its_final_share():
    plan = settings(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_share=0.1)
    rates = [learning_rate_at(step, plan) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert np.argmax(rates) in (9, 10)

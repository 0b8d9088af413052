from __future__ import annotations

import copy

import pytest
from toy_stripes import drawn, striped, trained

from dataengine.render.thumbnail_decoder import ThumbnailDecoder
from dataengine.train.decoder import crop_example
from dataengine.train.distil import distil_model
from dataengine.train.loop import TrainSettings


@pytest.fixture(scope="module")
def teacher() -> ThumbnailDecoder:
    return trained()


def test_a_student_draws_in_two_steps_what_its_teacher_draws_in_many(teacher, tmp_path):
    student = copy.deepcopy(teacher)
    settings = TrainSettings(steps=200, batch_size=16, learning_rate=1e-3, warmup_steps=10, ema_decay=0.98)
    done = distil_model(student, lambda rng: striped(rng, 16), crop_example, tmp_path, settings, steps=2)
    assert done
    wanted = drawn(teacher, 12)
    own, undistilled = ((drawn(model, 2) - wanted).abs().mean() for model in (student, teacher))
    assert own < 0.6 * undistilled, "mutation: the teacher itself in two steps"
    assert own < 0.6 * (drawn(student, 2) - wanted.roll(1, 0)).abs().mean(), "control: another picture's noise"

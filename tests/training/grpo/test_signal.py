"""When no answer is better than another of its group, the user is told."""

import logging

import pytest
import torch
from transformers import TrainerControl, TrainerState

from training.grpo.signal import ALIKE, WatchSignal, share_alike


def test_groups_without_an_advantage_are_alike():
    assert share_alike(torch.tensor([0.0, 0.0, 0.5, -0.5]), 2).tolist() == [0.5]
    assert share_alike(torch.tensor([3e-5, -3e-5]), 2).tolist() == [1.0]


def told(shares, caplog):
    """How often a run with these shares, logged every second step, tells, and how many steps it speaks of."""
    watch, state, control = WatchSignal(), TrainerState(), TrainerControl()
    with caplog.at_level(logging.WARNING):
        watch.on_train_begin(None, state, control)
        for share in shares:
            state.global_step += 2
            watch.on_log(None, state, control, logs={ALIKE: share})
        watch.on_log(None, state, control, logs={"train_loss": 0.0})
        watch.on_train_end(None, state, control)
    return [record.args[0] for record in caplog.records]


@pytest.mark.parametrize(
    ("shares", "steps"),
    [
        ([1.0] * 8, [10]),
        ([0.9] * 8, []),
        ([1.0, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.9], []),
        ([0.0, 1.0, 1.0, 1.0, 1.0, 1.0], [10]),
        ([1.0], [2]),
    ],
)
def test_a_stretch_without_a_difference_is_told_once(caplog, shares, steps):
    assert told(shares, caplog) == steps

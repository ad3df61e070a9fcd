"""Two processes that share a batch, or the weights as well, end where one ends that has it all."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training import grpo_worker
from tests.training.distributed import (
    SHARDED,
    TRAINED,
    Weights,
    farthest,
    farthest_from_start,
    sharding,
    share,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Weights of a run of one process."""
    out = tmp_path_factory.mktemp("one")
    grpo_worker.train(out)
    weights = load_file(out / TRAINED)
    assert farthest_from_start(weights) > 1e-5
    return weights


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two processes, which share the batch first and then the weights as well."""
    out = tmp_path_factory.mktemp("two") / "out"
    share(grpo_worker.__name__, out)
    return out


def test_two_processes_train_like_one(one, two):
    assert farthest(one, load_file(two / TRAINED)) < 1e-4 * farthest_from_start(one)


@sharding
def test_sharded_weights_train_alike_and_are_saved_whole(one, two):
    sharded = load_file(two / SHARDED / "model" / "model.safetensors")
    assert farthest(one, sharded) < 1e-4 * farthest_from_start(one)

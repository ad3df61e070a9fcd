"""Two processes that share a batch, or the weights as well, end where one ends that has it all."""

import pytest
from safetensors.torch import load_file

from tests.training.distributed import (
    TWO_PROCESSES,
    farthest,
    farthest_from_start,
    run,
    sharding,
    trained,
)

WORKER = "tests.training.grpo_worker"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory):
    """Weights of a run of one process."""
    weights = trained(WORKER, tmp_path_factory.mktemp("one") / "out")
    assert farthest_from_start(weights) > 1e-5
    return weights


def test_two_processes_train_like_one(tmp_path, one):
    two = trained(WORKER, tmp_path / "two", *TWO_PROCESSES)
    assert farthest(one, two) < 1e-4 * farthest_from_start(one)


@sharding
def test_sharded_weights_train_alike_and_are_saved_whole(tmp_path, one):
    run(WORKER, tmp_path / "two", *TWO_PROCESSES, arguments=["--fsdp"])
    two = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert farthest(one, two) < 1e-4 * farthest_from_start(one)

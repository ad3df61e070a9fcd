"""Two processes that share a batch end where one ends that has it all."""

import pytest

from tests.training.distributed import TWO_PROCESSES, farthest, farthest_from_start, run

WORKER = "tests.training.grpo_worker"


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one = run(WORKER, tmp_path / "one")
    two = run(WORKER, tmp_path / "two", *TWO_PROCESSES)
    moved = farthest_from_start(one)
    assert moved > 1e-5
    assert farthest(one, two) < 1e-4 * moved

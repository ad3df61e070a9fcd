"""Two processes that share a batch end where one ends that has it all."""

from pathlib import Path

import pytest
from safetensors import safe_open

from tests.training.distributed import TRAINED, TWO_PROCESSES, farthest, farthest_from_start, run

WORKER = "tests.training.sft_worker"


def loss(out: Path) -> float:
    with safe_open(out / TRAINED, "pt") as file:
        return float(file.metadata()["loss"])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one = run(WORKER, tmp_path / "one")
    two = run(WORKER, tmp_path / "two", *TWO_PROCESSES)
    moved = farthest_from_start(one)
    assert moved > 1e-4
    assert farthest(one, two) < 1e-4 * moved
    assert loss(tmp_path / "two") == pytest.approx(loss(tmp_path / "one"), rel=1e-5)

"""Two processes that share a batch end where one ends that has it all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.grpo_rig import policy

ROOT = Path(__file__).parents[2]
WORKER = "tests.training.grpo_worker"


def run(out: Path, *launcher: str) -> dict[str, torch.Tensor]:
    out.mkdir()
    done = subprocess.run(
        [sys.executable, *launcher, "-m", WORKER, str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / "trained.safetensors")


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one = run(tmp_path / "one")
    two = run(
        tmp_path / "two",
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    )
    start = policy()[0].state_dict()
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-5
    assert apart < 1e-4 * moved

"""Two processes that share a batch end where one ends that has it all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.training.grpo_rig import policy

ROOT = Path(__file__).parents[2]
WORKER = "tests.training.sft_worker"


def run(out: Path, *launcher: str) -> tuple[dict[str, torch.Tensor], float]:
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
    with safe_open(out / "trained.safetensors", "pt") as file:
        loss = float(file.metadata()["loss"])
    return load_file(out / "trained.safetensors"), loss


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one, loss = run(tmp_path / "one")
    two, shared_loss = run(
        tmp_path / "two",
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    )
    start = policy()[0].state_dict()
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-4
    assert apart < 1e-4 * moved
    assert shared_loss == pytest.approx(loss, rel=1e-5)

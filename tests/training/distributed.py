"""Runs of a worker module alone and shared by two processes, and how far apart they end."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.training.grpo_rig import policy

ROOT = Path(__file__).parents[2]
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TRAINED = "trained.safetensors"

Weights = dict[str, torch.Tensor]


def run(worker: str, out: Path, *launcher: str) -> Weights:
    """What `worker`, a module that writes `TRAINED`, has trained."""
    out.mkdir()
    done = subprocess.run(
        [sys.executable, *launcher, "-m", worker, str(out)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out / TRAINED)


def farthest(weights: Weights, others: Weights) -> float:
    """The greatest difference of any weight."""
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def farthest_from_start(weights: Weights) -> float:
    return farthest(weights, policy()[0].state_dict())

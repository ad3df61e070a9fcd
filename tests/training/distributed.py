"""Runs of a worker module that two processes share, and how far apart runs end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from tests.training.grpo_rig import policy

ROOT = Path(__file__).parents[2]
TWO_PROCESSES = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TRAINED = "trained.safetensors"
SHARDED = "sharded"
CAN_SHARD = hasattr(FSDPModule, "set_reduce_scatter_unused_params")
sharding = pytest.mark.skipif(not CAN_SHARD, reason="needs torch 2.13")

Weights = dict[str, torch.Tensor]


def cpus_as_gpus() -> dict[str, bool]:
    """Accelerate shards models on GPUs alone; have it take the CPUs of two processes for such.

    Returns:
        The `accelerator_config` of runs to which that applies.
    """
    AcceleratorState._reset_state()  # of a run before
    PartialState(cpu=True, backend="gloo")
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return {"use_configured_state": True}


def share(worker: str, out: Path) -> None:
    """Have two processes run `worker`, a module, with a shared batch and then, where torch can, with shared weights."""
    out.mkdir()
    arguments = ["--fsdp"] if CAN_SHARD else []
    done = subprocess.run(
        [sys.executable, *TWO_PROCESSES, "-m", worker, str(out), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def farthest(weights: Weights, others: Weights) -> float:
    """The greatest difference of any weight."""
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def farthest_from_start(weights: Weights) -> float:
    return farthest(weights, policy()[0].state_dict())

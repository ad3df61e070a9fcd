"""Measuring what a call takes, and the least that it could take on this machine."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def timed(function: Callable[[], Any], device: torch.device, seconds: float = 1.0) -> list[float]:
    """Milliseconds of repeated runs after a warm-up: three at least, for about `seconds`."""

    def once() -> float:
        begun_s = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun_s) * 1e3

    # The first runs on a GPU capture graphs.
    for _ in range(3 if device.type == "cuda" else 1):
        once()
    runs: list[float] = []
    while len(runs) < 3 or (sum(runs) < seconds * 1e3 and len(runs) < 200):
        runs.append(once())
    return runs


def summary(runs: list[float]) -> dict[str, Any]:
    """Median, 95th percentile and least of milliseconds."""
    ordered = sorted(runs)
    return {
        "p50_ms": statistics.median(ordered),
        "p95_ms": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
        "min_ms": ordered[0],
        "runs": len(ordered),
    }


def ceilings(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> dict[str, float]:
    """FLOP/s of a matrix product and bytes/s of a copy on this machine, now."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    source = torch.randn(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    product_ms = min(timed(lambda: a @ b, device, seconds))
    copy_ms = min(timed(lambda: target.copy_(source), device, seconds))
    return {
        "flops_per_s": 2 * size**3 / product_ms * 1e3,
        "bytes_per_s": 2 * source.nbytes / copy_ms * 1e3,
    }


def memory_bytes(device: torch.device) -> int | None:
    """In use now: of the GPU by everybody, else of main memory by this process; None where the system does not say."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return None
    return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

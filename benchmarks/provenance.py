"""Results with their provenance: no commit, machine and versions, no file."""

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "av",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt-cu13",
    "trl",
    "pyzmq",
)


def provenance() -> dict[str, Any]:
    """Commit, date, command, machine and versions of this run."""
    import torch

    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    gpu = None
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        gpu = gpu or torch.cuda.get_device_name()
    return {
        "commit": _git("rev-parse", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": platform.platform(terse=True),
            "gpu": gpu,
        },
        "versions": {"python": platform.python_version(), **found},
    }


def write_result(name: str, measured: dict[str, Any], out: Path | None = None) -> Path:
    """Write `results/NAME.json` (or `out`) and print it as one line, the last of a benchmark's output.

    Raises:
        RuntimeError: Not in a git checkout: a figure without a commit cannot be reproduced.
    """
    result = {"benchmark": name, "provenance": provenance(), **measured}
    if not result["provenance"]["commit"]:
        raise RuntimeError(
            f"{name}: not in a git checkout, so the result has no commit; run from a clone."
        )
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return path


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

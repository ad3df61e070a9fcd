"""TensorRT's own Python API on a machine without a GPU, for building plans and never for running them.

NVIDIA's Python bindings of TensorRT 11 are laid over the builder and the ONNX parser of TensorRT-RTX, which are real,
need no GPU to build, and come in a wheel from the ordinary package index. Their C entry points carry other names, so
that libraries of a few lines (`tensorrt_shim`) forward them. What builds here shows that the API is called rightly and
that a graph parses and compiles; it is no proof for a given GPU, and no plan made here is to be used.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

BINDINGS = "tensorrt-cu13-bindings==11.4.0.106"
LIBRARIES = "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"
PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
VERSION = "1.7.1"
SHIM = Path(__file__).parent / "tensorrt_shim"
COMPILE = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror"]
# Not a `TensorRT` but the module of that name that the bindings' own package would be.
MODULE = (
    "from tensorrt_bindings import *  # noqa: F403\nfrom tensorrt_bindings import __version__\n"
)


def install() -> Path:
    """Download (320 MB) and compile once a machine; whoever comes second waits for the first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emostream-tests"
    cache.mkdir(parents=True, exist_ok=True)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"tensorrt-{BINDINGS.partition('==')[2]}-rtx-{VERSION}-{python}"
    with (cache / "tensorrt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            part = folder.with_name(f".{folder.name}.partial")
            shutil.rmtree(part, ignore_errors=True)
            site = part / "site"
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile"]
            subprocess.run([*pip, "--target", str(site), BINDINGS, LIBRARIES], check=True)
            (site / "tensorrt.py").write_text(MODULE)
            part.rename(folder)
        _compile(folder)
    return folder


def environment(folder: Path, state: Path) -> dict[str, str]:
    """Of a process in which `import tensorrt` finds it.

    Args:
        folder: From `install`.
        state: Where the process keeps its caches.
    """
    libraries = (folder / "lib", folder / "site" / PACKAGE)
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(Path(__file__).parents[2])]),
        "XDG_CACHE_HOME": str(state / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def compile_driver(folder: Path) -> Path:
    """The pretended CUDA driver, as `libcuda.so.1` in a folder."""
    subprocess.run([*COMPILE, "-o", str(folder / "libcuda.so.1"), str(SHIM / "cuda.c")], check=True)
    return folder


def _compile(folder: Path) -> None:
    out = folder / "lib"
    out.mkdir(exist_ok=True)
    for source in SHIM.glob("nv*.c"):
        name = f"lib{source.stem}.so.11"
        part = out / f".{name}"
        arguments = ["-o", str(part), f"-Wl,-soname,{name}", str(source), "-ldl"]
        subprocess.run([*COMPILE, *arguments], check=True)
        part.rename(out / name)
    for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
        link = out / f"{name}.1"
        if not link.is_symlink():
            link.symlink_to(folder / "site" / PACKAGE / f"{name}.{VERSION}")

"""The driver is asked before TensorRT is imported; a pretended driver answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.tensorrt_without_gpu import compile_driver

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretended driver is for Linux")
ROOT = Path(__file__).parents[3]
PROBE = """
import sys
from export.errors import ExportError
from export.tensorrt.probe import probe
try:
    host = probe(int(sys.argv[1]))
    print(host.gpu.name, host.gpu.compute_capability, host.gpu.cuda, host.version)
except ExportError as error:
    print(error)
    sys.exit(2)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def run_probe(driver, tmp_path):
    def run(*, index=0, tensorrt='__version__ = "11.4.0.106"', libraries=driver, told=None):
        site = tmp_path / "site"
        site.mkdir()
        (site / "tensorrt.py").write_text(tensorrt)
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(index)],
            env={"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": f"{site}:{ROOT}"} | (told or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.stderr
        return done.stdout.strip()

    return run


def test_a_gpu_and_its_tensorrt_are_found(run_probe):
    assert run_probe() == "NVIDIA Imaginary 9000 9.0 13.0 11.4.0.106"


@pytest.mark.parametrize(
    ("told", "index", "words"),
    [
        ({"FAKE_CUDA_INIT": "100"}, 0, "error 100, no GPU is visible"),
        ({"FAKE_CUDA_INIT": "803"}, 0, "error 803, the driver's library and the kernel module"),
        ({"FAKE_CUDA_VERSION": "12040"}, 0, "supports CUDA 12.4, TensorRT 11 wants 13.0 or later"),
        ({"FAKE_CUDA_COUNT": "0"}, 0, "wanted GPU 0, found no GPU."),
        ({"FAKE_CUDA_COUNT": "2"}, 2, "wanted GPU 2, found 2 GPUs."),
    ],
)
def test_what_the_driver_lacks_is_said(run_probe, told, index, words):
    assert words in run_probe(index=index, told=told)


@pytest.mark.parametrize(
    ("tensorrt", "words"),
    [
        ("import tensorrt_libs_not_there", "is not installed. Install it: pip install 'emostream["),
        (
            "raise ImportError('libnvinfer.so.11: gone')",
            "cannot be loaded: libnvinfer.so.11: gone.",
        ),
        ("__version__ = '10.13.0'", "wanted version 11, found 10.13.0"),
    ],
)
def test_what_tensorrt_lacks_is_said(run_probe, tensorrt, words):
    assert words in run_probe(tensorrt=tensorrt)


def test_without_a_driver_tensorrt_is_not_touched(run_probe, tmp_path):
    (tmp_path / "libcuda.so.1").write_bytes(b"")
    said = run_probe(libraries=tmp_path, tensorrt="raise SystemExit('touched')")
    assert said.startswith("tensorrt: wanted an NVIDIA driver, found none (libcuda.so.1 cannot be")
    assert "Use the ONNX Runtime backend" in said

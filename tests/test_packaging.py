"""What users install: the wheel's content, imports that hold, commands that start fast enough to be pleasant."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest
import zmq

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"emostream", "training", "export", "stream"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(out), str(ROOT)], check=True)
    [path] = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_four_packages_and_their_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert "stream/schema/label.json" in names
    assert "stream/assets/demo.mp4" in names
    assert "emostream/py.typed" in names
    for file in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"licenses/{file}") for name in names)


@pytest.mark.parametrize(("name", "most"), [("small", 24e6), ("tiny", 16e6)])
def test_the_wheel_holds_each_model_that_ships_whole_and_small(wheel, name, most):
    folder = f"emostream/assets/{name}/"
    packed = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    found = {name: size for name, size in packed.items() if name.startswith(folder)}
    assert found == {
        path.relative_to(ROOT).as_posix(): path.stat().st_size
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }
    assert sum(found.values()) <= most


def test_a_subscriber_needs_the_wheel_pyzmq_and_msgspec_only(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    installed = Path(zmq.__file__).parent
    bundled = installed.parent / "pyzmq.libs"
    for folder in (installed, bundled, Path(msgspec.__file__).parent):
        if folder.is_dir():
            (tmp_path / "site" / folder.name).symlink_to(folder)
    code = """
import sys, threading, zmq
import emostream
from stream.pubsub.messages import Status
from stream.pubsub.publisher import Publisher
with Publisher("tcp://127.0.0.1:*") as publisher:
    publisher.publish(Status(source="cam0", timestamp_s=1.0, unix_time_s=None, state="live", detail="",
        fps_in=2.0, hops_per_s=2.0, skipped=0, restarts=0, uptime_s=1.0))
    with emostream.EmotionClient(publisher.endpoint, timeout_ms=30000) as client:
        event = next(client)
assert event.state == "live", event
foreign = {name.split(".")[0] for name in sys.modules} & {"torch", "numpy", "transformers", "av"}
assert not foreign, foreign
from emostream.labels import canonical_label
assert canonical_label("Happiness") == "happy"
print("received from", emostream.__file__)
"""
    result = subprocess.run(
        # -S leaves out this environment's own packages.
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert str(tmp_path) in result.stdout


def test_import_contracts_hold():
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", ["stream.commands.cli", "training.cli", "export.cli"])
def test_commands_say_what_they_do_without_loading_torch(module):
    code = f"""
import sys, {module} as cli
try:
    cli.main(["--help"])
except SystemExit as error:
    assert error.code == 0
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout

"""Each check against what it looks for: real sockets, real files, real package metadata."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from export.manifest import Manifest, sha256
from stream.commands import doctor
from stream.commands.doctor import (
    as_text,
    check_engines,
    check_microphones,
    check_port,
    checks,
    report,
)
from stream.commands.doctor_environment import (
    Check,
    check_onnxruntime,
    check_opencv,
    check_packages,
    check_shadowing,
    check_zeromq,
)
from tests.stream.rigs import SoundServer
from tests.system_packages import PORTAUDIO


def install(site: Path, name: str, version: str, *needs: str) -> None:
    """What pip leaves of a distribution: its metadata."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_everything_is_checked_and_this_host_can_run() -> None:
    found = {check.name: check for check in checks()}
    expected = (
        "python shadowing packages opencv portaudio cameras microphones gpu onnxruntime zeromq"
    )
    assert list(found) == [*expected.split(), "model", "engines", "port"]
    for name in ("python", "shadowing", "packages", "opencv", "gpu", "zeromq"):
        assert found[name].outcome == "ok", found[name]
    assert found["portaudio"].outcome == ("fail" if PORTAUDIO.missing else "ok")
    for check in found.values():
        assert check.detail
        assert bool(check.remedy) == (check.outcome != "ok")


def test_exit_code_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    good = Check(name="python", outcome="ok", detail="3.12")
    meh = Check(name="cameras", outcome="warn", detail="none", remedy="connect one")
    bad = Check(name="port", outcome="fail", detail="in use", remedy="stop it")
    monkeypatch.setattr(doctor, "checks", lambda engines: [good, meh])
    assert report(as_json=True) == 0
    assert json.loads(capsys.readouterr().out)[1] == {
        "name": "cameras",
        "outcome": "warn",
        "detail": "none",
        "remedy": "connect one",
    }
    monkeypatch.setattr(doctor, "checks", lambda engines: [good, bad])
    assert report() == 1
    assert capsys.readouterr().out == as_text([good, bad]) + "\n"
    assert as_text([good, meh, bad]).splitlines() == [
        "ok    python   3.12",
        "warn  cameras  none",
        "               → connect one",
        "FAIL  port     in use",
        "               → stop it",
    ]


def test_a_check_that_crashes_is_a_failure_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> Check:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "check_python", broken)
    monkeypatch.setattr(doctor, "check_engines", broken)
    found = checks()
    assert len(found) == 13
    crashed = [check for check in found if "RuntimeError: broken" in check.detail]
    assert [(check.name, check.outcome) for check in crashed] == [
        ("python", "fail"),
        ("engines", "fail"),
    ]


def test_two_onnxruntimes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime", "1.30.0")
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = check_onnxruntime()
    assert check.outcome == "fail"
    assert "onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1" in check.detail
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in check.remedy


def test_two_opencvs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "opencv-python-headless", "5.0.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = check_opencv()
    assert check.outcome == "fail"
    assert "opencv-python and opencv-python-headless" in check.detail
    assert "pip uninstall" in check.remedy


def test_packages_of_the_wrong_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ("numpy>=99,<100", "no-such-package-of-ours>=2", "pyzmq>=1", "jax ; extra == 'train'")
    install(tmp_path, "emostream", "0.1.0", *needs)
    monkeypatch.syspath_prepend(str(tmp_path))
    check = check_packages()
    assert check.outcome == "fail"
    assert "no-such-package-of-ours missing (wanted >=2)" in check.detail
    assert "pyzmq" not in check.detail
    assert "jax" not in check.detail
    assert "'numpy<100,>=99'" in check.remedy


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = check_port(f"tcp://127.0.0.1:{port}")
        assert check.outcome == "warn"
        assert "--bind" in check.remedy
    assert check_port(f"tcp://127.0.0.1:{port}").outcome == "ok"


@pytest.mark.parametrize(
    ("manifest", "detail"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "version None"),
    ],
)
def test_engines_that_cannot_be_used(tmp_path: Path, manifest: str | None, detail: str) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    check = check_engines(tmp_path)
    assert check.outcome == "fail"
    assert detail in check.detail
    assert f"--out {tmp_path}" in check.remedy


def test_engines_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_engines().detail.startswith("none")
    (tmp_path / "engines").mkdir()
    assert check_engines().outcome == "fail"
    graph = tmp_path / "engines" / "vision.onnx"
    graph.write_bytes(b"graph")
    entry = {"file": graph.name, "sha256": sha256([graph]), "precision": "int8"}
    Manifest(
        checkpoint="mine",
        checkpoint_sha256="0",
        target="onnx",
        precision="int8",
        opset=20,
        command="",
        graphs={"vision": entry},
    ).write(tmp_path / "engines")
    assert check_engines().detail == "engines: mine, int8 for onnxruntime"
    graph.write_bytes(b"another")
    check = check_engines()
    assert check.outcome == "fail"
    assert "is not the vision graph" in check.detail
    assert check.remedy == "emostream-export build mine --out engines"


def test_shadowed_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").touch()
    script = "from stream.commands.doctor_environment import check_shadowing as c; print(c())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "outcome='fail'" in done.stdout
    assert str(tmp_path / "export" / "__init__.py") in done.stdout
    assert "PYTHONPATH" in done.stdout
    assert check_shadowing().outcome == "ok"


def test_portaudio_missing() -> None:
    script = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "from stream.commands.doctor import *; print(check_portaudio()); print(check_microphones())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    portaudio, microphones = done.stdout.splitlines()
    assert "outcome='fail'" in portaudio
    assert "libportaudio2" in portaudio
    assert "outcome='warn'" in microphones


def test_microphones_are_listed(sound_server: SoundServer, tmp_path: Path) -> None:
    number = sound_server.null_sink("speaker")
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from stream.commands.doctor import *; print(check_microphones())",
            ],
            env=os.environ | sound_server.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        sound_server.unload(number)
    assert "outcome='ok'" in done.stdout
    assert "(default)" in done.stdout
    assert check_microphones().name == "microphones"


def test_encryption() -> None:
    assert check_zeromq().outcome == "ok"
    assert "CURVE" in check_zeromq().detail

"""Someone else's packages of the same names, in the places where Python would find them first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emostream.errors import ConfigError
from emostream.shadowing import (
    PACKAGES,
    describe,
    refuse_shadowed_packages,
    shadowed_packages,
)

ROOT = Path(__file__).parents[2]
REFUSE = "import emostream.shadowing as s; s.refuse_shadowed_packages()"


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    """A folder of a user's own project."""
    (tmp_path / "stream.py").write_text("raise SystemExit('a module of the user ran')\n")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("raise SystemExit('a user package ran')\n")
    return tmp_path


def python(*arguments: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_our_packages_are_where_they_belong() -> None:
    assert shadowed_packages() == {}
    refuse_shadowed_packages()


def test_a_capture_process_runs_in_a_folder_with_a_stream_and_an_export(robot: Path) -> None:
    done = python("-P", "-m", "stream.capture.camera", "--help", cwd=robot)
    assert done.returncode == 0, done.stderr
    assert "captures one camera" in done.stdout
    assert python("-P", "-c", REFUSE, cwd=robot).returncode == 0


def test_a_package_in_the_way_is_named(robot: Path) -> None:
    (robot / "stream.py").unlink()
    done = python("-c", REFUSE, cwd=robot)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "ConfigError" in last
    assert str(robot / "export" / "__init__.py") in last
    assert "`stream`" not in last
    assert "a user package ran" not in done.stderr  # looked up, never imported


def test_a_package_in_the_way_by_pythonpath_is_named(robot: Path, tmp_path: Path) -> None:
    (robot / "stream.py").unlink()
    (robot / "training").mkdir()
    (robot / "training" / "__init__.py").touch()
    done = python("-P", "-c", REFUSE, cwd=ROOT, path=str(robot))
    assert done.returncode == 1
    assert str(robot / "export" / "__init__.py") in done.stderr
    assert str(robot / "training" / "__init__.py") in done.stderr
    assert "PYTHONPATH" in done.stderr


def test_a_folder_without_init_does_not_shadow(tmp_path: Path) -> None:
    """Python prefers a real package further down its path, and so do we."""
    (tmp_path / "export").mkdir()
    assert python("-c", REFUSE, cwd=tmp_path).returncode == 0


def test_packages_from_another_install_are_reported(tmp_path: Path) -> None:
    shadowed = shadowed_packages(tmp_path)
    assert set(shadowed) == set(PACKAGES)
    assert str(ROOT / "export" / "__init__.py") in describe(shadowed)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emostream.shadowing.PACKAGES", ("emostream", "no_such_package_of_ours"))
    with pytest.raises(ConfigError, match="`no_such_package_of_ours` is nowhere to be found"):
        refuse_shadowed_packages()


def test_the_check_loads_nothing_heavy() -> None:
    script = f"{REFUSE}; import sys; print(*sorted(sys.modules))"
    loaded = python("-P", "-c", script, cwd=ROOT).stdout.split()
    assert {"numpy", "torch", "zmq", "cv2", "export", "training"} & set(loaded) == set()

"""`emostream demo` as a new user meets it: installed, in whatever folder, without any device."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from emostream.checkpoint.shipped import DEFAULT_MODEL, licence_notice


def test_the_demo_runs_beside_files_of_our_packages_names(tmp_path):
    (tmp_path / "stream.py").write_text("raise RuntimeError('not emostream')")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("raise RuntimeError('not emostream')")
    command = Path(sys.executable).with_name("emostream")
    done = subprocess.run(
        [str(command), "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout, "plain lines where there is no terminal"
    # The clip lasts 18 s: windows 8 to 36 are labelled, those that a busy machine had no time for aside.
    labels = re.findall(r"\b(happy|surprise|neutral|angry|disgust|sad|fear)\b", done.stdout)
    assert len(labels) > 5, done.stdout
    assert "stopped" in done.stdout
    assert f"loading {DEFAULT_MODEL}" in done.stdout
    assert done.stderr.splitlines()[0] == licence_notice(DEFAULT_MODEL)
    assert done.stderr.count(licence_notice(DEFAULT_MODEL)) == 1
    assert "Traceback" not in done.stderr


def test_a_pipeline_that_is_killed_ends_the_demo():
    command = Path(sys.executable).with_name("emostream")
    with subprocess.Popen(
        [str(command), "demo", "--model", "tiny"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert any("loading tiny" in line for line in demo.stdout)  # the pipeline publishes
            [pipeline] = psutil.Process(demo.pid).children()
            pipeline.kill()
            assert demo.wait(60) == 2
            said = demo.stderr.read()
            assert said.startswith(licence_notice("tiny"))
            assert "the pipeline was ended by SIGKILL" in said
        finally:
            demo.kill()

"""`emostream.listen`: the pipeline in a process of its own, which never outlives its owner."""

import os
import signal
import subprocess
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import psutil
import pytest

import emostream
from emostream.errors import ConfigError
from emostream.media import SAMPLE_RATE_HZ, iter_frames, read_audio
from tests.media_factory import Audio, Video, noise, write_media
from training.synth.media import write_mp4

SECONDS = 9.0


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    return write_media(path, Video(duration_s=60), Audio(duration_s=60, sound=noise()))


def own_directories(pid: int) -> list[Path]:
    """Of private endpoints."""
    return list(Path(tempfile.gettempdir()).glob(f"emostream-{pid}-*"))


@pytest.mark.slow
def test_a_clip_gives_labels_and_reasons_to_its_end(tmp_path):
    """The first 9 s of the bundled clip; test_demo.py runs all of it."""
    clip = tmp_path / "demo.mp4"
    with as_file(files("stream").joinpath("assets", "demo.mp4")) as whole:
        frames = np.stack([frame.rgb for frame in iter_frames(whole) if frame.time_s < SECONDS])
        write_mp4(clip, frames, read_audio(whole, 0, SECONDS).pcm, 12.5, SAMPLE_RATE_HZ)
    with emostream.listen(clip) as listening:
        events = list(listening)
        assert next(listening, None) is None
    assert {event.source for event in events} == {"demo"}
    states = [event.state for event in events if isinstance(event, emostream.Status)]
    assert "live" in states
    assert states[-1] == "stopped"
    labels = [event for event in events if isinstance(event, emostream.Label)]
    assert len(labels) > 5
    assert labels[-1].unix_time_s is not None
    assert any(isinstance(e, emostream.Reasoning) and e.done and e.think for e in events)


def test_a_loop_that_is_left_leaves_nothing_behind(long_clip):
    before = set(psutil.Process().children())
    for event in emostream.listen(f"me={long_clip}", reason_every_s=0):
        assert event.source == "me"
        started = set(psutil.Process().children()) - before
        break
    assert started
    assert not any(process.is_running() for process in started)
    assert not own_directories(os.getpid())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_pipeline_ends_with_its_owner_however_that_ends(long_clip, number):
    code = f"""
import emostream
for event in emostream.listen({str(long_clip)!r}):
    print(event.state, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "starting\n"
        started = psutil.Process(owner.pid).children(recursive=True)
        assert started
        owner.send_signal(number)
        said = owner.communicate(timeout=60)[1]
        assert owner.returncode == -number
    assert psutil.wait_procs(started, timeout=60)[1] == []
    if number == signal.SIGINT:
        assert said.strip().endswith("KeyboardInterrupt")
        assert not own_directories(owner.pid)


def test_mistakes_raise_the_pipelines_own_line(long_clip, tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        emostream.listen(tmp_path / "absent.mp4")
    with pytest.raises(emostream.EmostreamError, match=r"^--labels happy: one label is always"):
        emostream.listen(long_clip, labels=("happy",))
    missing = tmp_path / "no-model"
    with (
        emostream.listen(long_clip, model=missing) as events,
        pytest.raises(emostream.EmostreamError, match="no-model"),
    ):
        list(events)


def test_a_pipeline_that_is_killed_is_an_error(long_clip):
    before = set(psutil.Process().children())
    with emostream.listen(long_clip) as events:
        next(events)
        [pipeline] = set(psutil.Process().children()) - before
        pipeline.kill()
        with pytest.raises(emostream.EmostreamError, match="ended by SIGKILL"):
            list(events)


def test_a_password_in_a_url_is_on_no_command_line():
    before = set(psutil.Process().children())
    with emostream.listen("rtsp://me:hunter2@127.0.0.1:9/door") as events:
        next(events)
        started = set(psutil.Process().children(recursive=True)) - before
        lines = [" ".join(process.cmdline()) for process in started]
    assert lines
    assert not any("hunter2" in line for line in lines)

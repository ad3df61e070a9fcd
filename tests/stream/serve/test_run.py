"""`emostream run` as its users start it: real processes, sockets and files."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import zmq

from emostream.checkpoint.shipped import licence_notice
from stream.commands.cli import main
from stream.pubsub.messages import Label, Status, decode_payload
from stream.sockets.security import keygen
from tests.media_factory import Audio, Video, noise, write_media
from tests.stream.live_rig import NOBODY, live, run_command


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six seconds of picture and sound."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    return write_media(path, Video(duration_s=6.3), Audio(duration_s=6.3, sound=noise()))


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "long.mp4"
    return write_media(path, Video(duration_s=30), Audio(duration_s=30, sound=noise()))


def test_a_file_at_full_speed_says_what_infer_says_and_ends_with_zero(clip, tmp_path, capsys):
    out = tmp_path / "reference.jsonl"
    assert main(["infer", *NOBODY, str(clip), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[0]) == ("", licence_notice("tiny"))
    reference = [decode_payload(line) for line in out.read_bytes().splitlines()]
    with live("--source", str(clip), "--pace", "max", "--reason-every-s", "2") as running:
        running.until(lambda e: isinstance(e, Status))
        running.until_stopped()
        assert running.wait() == 0
        labels = running.labels()
    assert running.said.count(licence_notice("tiny")) == 1
    assert [label.window for label in labels] == [label.window for label in reference]
    for label, wanted in zip(labels, reference, strict=True):
        assert label.scores == pytest.approx(wanted.scores, abs=1e-4)
        assert label.smoothed.scores == pytest.approx(wanted.smoothed.scores, abs=1e-4)
        assert (label.modalities, label.frames_used) == (wanted.modalities, wanted.frames_used)
        assert label.unix_time_s is None
        assert label.dropped.windows == 0
    finished = [r for r in running.reasonings() if r.done]
    assert finished, "reasoning is flushed at the end of the file"
    by_window = {label.window.id: label for label in labels}
    for reasoning in finished:
        agrees = reasoning.answer == by_window[reasoning.window.id].label
        assert reasoning.agrees_with_label == agrees
        assert reasoning.tokens > 0


def test_a_short_clip_has_one_label_which_is_that_of_infer(tmp_path, capsys):
    clip = write_media(
        tmp_path / "word.mp4", Video(duration_s=1.3), Audio(duration_s=1.3, sound=noise())
    )
    out = tmp_path / "reference.jsonl"
    assert main(["infer", *NOBODY, str(clip), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "shorter than the window of 4 s: one label over all of it" in said
    [wanted] = [decode_payload(line) for line in out.read_bytes().splitlines()]
    with live("--source", str(clip), "--pace", "max") as running:
        running.until_stopped()
        assert running.wait() == 0
        [label] = running.labels()
    assert label.window == wanted.window
    assert label.scores == pytest.approx(wanted.scores, abs=1e-4)
    assert label.modalities == wanted.modalities
    assert label.av_skew_ms == pytest.approx(wanted.av_skew_ms, abs=1)


def test_a_file_in_real_time_is_stamped_and_loses_nothing(clip):
    with live("--source", f"me={clip}", "--reason-every-s", "0") as running:
        begun_s = time.time()
        running.until(lambda e: isinstance(e, Status) and e.state == "live")
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.rcvtimeo = 60_000
            socket.connect(running.endpoint)
            socket.subscribe("emotion.me.")
            topic, payload = socket.recv_multipart()
            assert topic == b"emotion.me.label"
            # The wire is plain JSON.
            assert json.loads(payload)["label"] in json.loads(payload)["scores"]
        running.until_stopped()
        assert running.wait() == 0
    labels = running.labels("me")
    assert [label.seq for label in labels] == list(range(len(labels)))
    ids = [label.window.id for label in labels]
    # Windows that the model had no time for are gaps in the ids, and counted.
    assert labels[-1].dropped.windows == 13 - 8 + 1 - len(ids)
    assert ids == sorted(set(ids))
    assert set(ids) <= set(range(8, 14))
    for label in labels:
        assert label.timestamp_s == label.window.end_s == label.window.id * 0.5
        assert label.unix_time_s >= begun_s
        assert label.latency_ms.total > 0
    epochs_s = {round(label.unix_time_s - label.timestamp_s, 1) for label in labels}
    assert len(epochs_s) == 1, "source time and Unix time advance together"
    assert not running.reasonings()
    assert running.statuses()[0].state == "starting"
    assert running.statuses()[-1].state == "stopped"


def test_two_clips_give_different_scores_and_two_sources_share_the_model(clip, tmp_path):
    other = write_media(
        tmp_path / "other.mp4",
        Video(duration_s=6, fps=12, size=(96, 128)),
        Audio(duration_s=6, rate_hz=44_100, layout="stereo", sound=noise(seed=9)),
    )
    arguments = ["--source", f"a={clip}", "--source", f"b={other}", "--pace", "max"]
    with live(*arguments, "--reason-every-s", "0") as running:
        running.until(lambda e: isinstance(e, Label) and e.source == "b")
        running.until_stopped()
        assert running.wait() == 0
    first = {source: running.labels(source)[0] for source in ("a", "b")}
    assert first["a"].scores != first["b"].scores
    assert {len(running.labels(source)) >= 5 for source in ("a", "b")} == {True}


def test_a_looped_file_goes_on_without_a_break_in_time_and_its_port_is_in_use(tmp_path):
    short = write_media(
        tmp_path / "short.mp4", Video(duration_s=2), Audio(duration_s=2, sound=noise())
    )
    with live("--source", str(short), "--loop", "--reason-every-s", "0") as running:
        refused = run_command("run", "--source", str(short), "--bind", running.endpoint)
        assert refused.returncode == 2
        assert "in use" in refused.stderr
        running.until(lambda e: isinstance(e, Status) and e.state == "live")
        last = running.until(lambda e: isinstance(e, Label) and e.window.id >= 12)
        assert last.modalities.video == "ok"
        running.send(signal.SIGINT)
        running.until_stopped()
        assert running.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["starting", "live"])
def test_signals_end_with_zero_and_leave_nothing_behind(long_clip, number, when):
    with live("--source", str(long_clip)) as running:
        running.until(lambda e: isinstance(e, Status) and e.state == when)
        process = psutil.Process(running.process.pid)
        children = process.children(recursive=True)
        sockets = {
            Path(c.laddr.removeprefix("@"))
            for c in process.net_connections("unix")
            if str(c.laddr).startswith("/")
        }
        running.send(number)
        running.until_stopped()
        assert running.wait() == 0
    assert children or when == "starting"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    assert not [path for path in sockets if path.exists()]


def test_capture_elsewhere_connects_with_the_right_key_only(long_clip, tmp_path):
    for name in ("keys", "foreign"):
        keygen(tmp_path / name)
    keys = tmp_path / "keys"
    foreign = tmp_path / "foreign"
    (foreign / "server.key").write_bytes((keys / "server.key").read_bytes())
    with live("--ingest", "tcp://127.0.0.1:*", "--curve", str(keys), curve=keys) as running:
        command = [sys.executable, "-P", "-m", "stream.commands.cli", "capture"]
        command += ["--connect", running.ingest()]
        stranger, remote = (
            subprocess.Popen([*command, "--source", f"{name}={long_clip}", "--curve", str(folder)])
            for name, folder in (("stranger", foreign), ("far", keys))
        )
        try:
            # Whoever began later is heard for a whole window by then.
            label = running.until(lambda e: isinstance(e, Label))
            assert label.source == "far"
            assert label.modalities.audio == "ok"
            running.until(lambda e: isinstance(e, Label) and e.window.id > label.window.id)
            assert {event.source for event in running.events} == {"far"}
            assert stranger.poll() is None, "it goes on trying"
        finally:
            for process in (stranger, remote):
                process.terminate()
            stranger.wait(30)
            assert remote.wait(30) == 0
        running.send()
        running.until_stopped()
        assert running.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "nowhere.mp4"], "there is no such file"),
        (["--model", "no/such/folder"], "neither a folder nor a hub id"),
        (["--labels", "happy,happy"], "remove one"),
        (["--labels", "happy"], "two or more"),
        (["--labels", ""], "not usable as a label"),
        (["--window-s", "0"], "above 0"),
        (["--bind", "tcp://0.0.0.0:5999"], "keygen"),
        (["--bind", "nonsense"], "nonsense"),
        (["--device", "gpu7"], "gpu7"),
        (["--video", "none", "--audio", "none"], "nothing is left"),
        (["--name", "a.b"], "source name"),
        (["--curve", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_exit_two(clip, arguments, said):
    source = [] if {"--source", "--video", "--name"} & set(arguments) else ["--source", str(clip)]
    bind = [] if "--bind" in arguments else ["--bind", "tcp://127.0.0.1:*"]
    done = run_command("run", *source, *bind, *arguments)
    assert done.returncode == 2
    complaint = [line for line in done.stderr.splitlines() if line.startswith("emostream: ")]
    assert len(complaint) == 1, done.stderr
    assert said in complaint[0]
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_media_ends_with_two(tmp_path):
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(random.Random(0).randbytes(20_000))
    done = run_command("run", "--source", str(junk), "--bind", "tcp://127.0.0.1:*")
    assert done.returncode == 2
    assert "junk" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flags", [(), ("--loop",), ("--pace", "max")])
def test_a_file_of_which_nothing_decodes_ends_with_two(tmp_path, flags):
    hollow = write_media(tmp_path / "hollow.mp4", Video(duration_s=3), None)
    data = bytearray(hollow.read_bytes())
    begin, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[begin:end] = random.Random(0).randbytes(end - begin)
    hollow.write_bytes(data)
    done = run_command("run", "--source", str(hollow), "--bind", "tcp://127.0.0.1:*", *flags)
    assert done.returncode == 2
    assert f"{hollow}: nothing in it can be decoded" in done.stderr
    assert "Traceback" not in done.stderr


def test_infer_refuses_what_it_cannot_read_and_leaves_no_file(tmp_path):
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no media")
    out = tmp_path / "out.jsonl"
    done = run_command("infer", str(junk), "--out", str(out))
    assert done.returncode == 2
    assert "junk.mp4" in done.stderr
    assert list(tmp_path.iterdir()) == [junk]

import csv
import json
import math
import os
import signal
import subprocess
import sys
import threading
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from emostream.errors import ConfigError
from stream.pubsub import recording
from stream.pubsub.client import EmotionClient
from stream.pubsub.messages import Event, Label, Status, encode
from stream.pubsub.publisher import Publisher
from stream.pubsub.recording import Recorder, RecordingError
from tests.stream.events import LABELS, events, label, reasoning, scores, stamped, status

WAIT_MS = 30_000
SESSION: list[Event] = [
    stamped(status(state="starting"), 4, published_s=100.0),
    stamped(label(window_id=8), 7, published_s=100.25),
    stamped(reasoning(think="Er lächelt –\n“smile” \u2028 ."), 2, published_s=100.5),
    stamped(label(window_id=10, top="sad"), 9, published_s=101.25),
]


def receive_stopped(endpoint: str) -> None:
    """Receive until a status `stopped`: the publisher may still be sending what came before it."""
    with EmotionClient(endpoint) as client:
        while True:
            event = client.recv(WAIT_MS)
            if isinstance(event, Status) and event.state == "stopped":
                return


@pytest.fixture
def path(tmp_path: Path) -> Path:
    assert recording.record(SESSION, tmp_path / "a.jsonl") == len(SESSION)
    return tmp_path / "a.jsonl"


def test_a_recording_is_one_strict_json_object_a_line(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["seq"] for line in lines] == [4, 7, 2, 9]
    assert list(recording.read(path)) == SESSION


@given(st.lists(events, max_size=5))
def test_read_inverts_record(tmp_path_factory: pytest.TempPathFactory, batch: list[Event]) -> None:
    path = tmp_path_factory.mktemp("r") / "a.jsonl"
    recording.record(batch, path)
    recording.record(batch, path)
    assert list(recording.read(path)) == batch + batch


def test_a_crash_at_any_byte_costs_at_most_the_line_being_written(path: Path) -> None:
    """Cut everywhere, then read, then continue: whole lines stay, and none is joined to a torn one."""
    whole = path.read_bytes()
    for cut_bytes in range(0, len(whole), 7):
        path.write_bytes(whole[:cut_bytes])
        kept = whole[:cut_bytes].count(b"\n") + (whole[cut_bytes : cut_bytes + 1] == b"\n")
        assert list(recording.read(path)) == SESSION[:kept]
        with Recorder(path) as recorder:
            recorder.write(SESSION[0])
        assert list(recording.read(path)) == [*SESSION[:kept], SESSION[0]]


def test_every_line_is_with_the_system_before_write_returns(tmp_path: Path) -> None:
    """A process killed with SIGKILL in the middle has lost nothing that it wrote."""
    path = tmp_path / "a.jsonl"
    code = f"""
import os, signal
from stream.pubsub.recording import Recorder
from tests.stream.pubsub.test_recording import SESSION
recorder = Recorder({str(path)!r})
for event in SESSION[:3]:
    recorder.write(event)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert run.returncode == -signal.SIGKILL
    assert list(recording.read(path)) == SESSION[:3]


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("room_bytes", [0, 300, 2000])
def test_disk_full_is_reported_and_leaves_whole_lines(tmp_path: Path, room_bytes: int) -> None:
    """The kernel refuses bytes beyond a limit, as a full disk does: a part first, then an error."""
    path = tmp_path / "a.jsonl"
    code = f"""
import resource, sys
from stream.pubsub.recording import RecordingError, record
from tests.stream.events import label, stamped
resource.setrlimit(resource.RLIMIT_FSIZE, ({room_bytes}, {room_bytes}))
try:
    record((stamped(label(window_id=8 + k), k) for k in range(1000)), {str(path)!r})
except RecordingError as error:
    sys.exit(f"error: {{error}}")
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True
    )
    kept = list(recording.read(path))
    lines = [len(encode(stamped(label(window_id=8 + k), k))[1]) + 1 for k in range(10)]
    fit = sum(total <= room_bytes for total in accumulate(lines))
    assert [event.seq for event in kept] == list(range(fit))
    assert path.read_bytes().endswith(b"\n") == (len(kept) > 0)
    assert run.returncode == 1
    assert f"the {len(kept)} messages before are whole" in run.stderr
    assert run.stderr.count("\n") == 1
    # With room again, the same file goes on.
    recording.record([stamped(label())], path)
    assert len(list(recording.read(path))) == len(kept) + 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_no_space_left_is_said_so() -> None:
    with Recorder("/dev/full") as recorder, pytest.raises(RecordingError, match="No space left"):
        recorder.write(SESSION[0])


def test_files_that_are_no_recording_are_left_alone(tmp_path: Path) -> None:
    for content in (b"notes", b"notes\nmore notes", b'{"a":1}\n', b'{"version":2}\n', b"\n"):
        path = tmp_path / "notes.txt"
        path.write_bytes(content)
        with pytest.raises(RecordingError, match=r"notes\.txt"):
            Recorder(path)
        assert path.read_bytes() == content


def test_unusable_paths_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        Recorder(tmp_path / "no" / "a.jsonl")
    with pytest.raises(RecordingError, match="directory"):
        Recorder(tmp_path)
    with pytest.raises(RecordingError, match="No such file"):
        list(recording.read(tmp_path / "absent.jsonl"))
    with pytest.raises(RecordingError, match="No such file"):
        recording.write_table(tmp_path / "absent.jsonl", tmp_path / "a.csv")


def test_a_bad_line_is_named_by_its_number(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"seq":2', b'"seq":"two"'))
    with pytest.raises(RecordingError, match=r"a\.jsonl:3 .*seq"):
        list(recording.read(path))


def test_recording_a_live_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Publisher("tcp://127.0.0.1:*") as publisher, EmotionClient(publisher.endpoint) as client:
        publisher.publish(status())
        client.recv(WAIT_MS)
        sent: list[Event] = [publisher.publish(label(window_id=8 + k)) for k in range(5)]
        assert recording.record((client.recv(WAIT_MS) for _ in sent), path) == 5
    assert list(recording.read(path)) == sent


def received(endpoint_of: Publisher, count: int, replay: threading.Thread) -> list[Event]:
    with EmotionClient(endpoint_of.endpoint) as client:
        endpoint_of.publish(status("probe"))
        client.recv(WAIT_MS)  # the subscription has arrived: from here on nothing is missed
        replay.start()
        got = [client.recv(WAIT_MS) for _ in range(count)]
        replay.join()
        assert client.stats.lost == 0
    return got


def test_replay_is_a_new_transmission_of_the_same_moments(path: Path) -> None:
    session = recording.replay_session()
    with Publisher("tcp://127.0.0.1:*", session=session) as publisher:
        thread = threading.Thread(
            target=recording.replay, args=(path, publisher), kwargs={"speed": math.inf}
        )
        got = received(publisher, 5, thread)
    end = got.pop()
    for event, original in zip(got, SESSION, strict=True):
        assert event.session == session
        assert event.session.startswith("replay-")
        assert event.published_s > original.published_s
        assert event == structs.replace(
            original, session=session, seq=event.seq, published_s=event.published_s
        )
    # The recorder joined late and lost a label: that is not this transmission's loss.
    assert [event.seq for event in got] == [0, 0, 0, 1]
    assert isinstance(end, Status)
    assert (end.source, end.state, end.seq) == ("cam0", "stopped", 1)


def test_a_recorded_end_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recording.record([*SESSION, stamped(status(state="stopped"), 5, published_s=102.0)], path)
    with Publisher("tcp://127.0.0.1:*") as publisher:
        assert recording.replay(path, publisher, speed=math.inf) == 5
        assert publisher.publish(status()).seq == 2


def test_replay_keeps_the_recorded_pace() -> None:
    waits = [pause_s for pause_s, _ in recording.with_pauses(SESSION, 10)]
    assert waits == [0.0, 0.25, 0.25, 0.75]
    clock_set_back = stamped(status(), 5, published_s=50.0)
    next_day = stamped(status(), 6, published_s=90_000.0)
    waits = [s for s, _ in recording.with_pauses([*SESSION, clock_set_back, next_day], 10)]
    assert waits[-2:] == [0.0, 10.0]


class Waits(threading.Event):
    """Notes how long it is asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.asked_s.append(timeout)
        return self.is_set()


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_replay_waits_for_the_time_of_each_message(path: Path, speed: float) -> None:
    waits = Waits()
    with Publisher("tcp://127.0.0.1:*") as publisher:
        recording.replay(path, publisher, speed=speed, stop=waits)
    # Due times grow by the pauses, whatever time the sending took.
    due_s = [0.0, 0.25, 0.5, 1.25]
    for asked_s, due in zip(waits.asked_s, due_s, strict=True):
        assert asked_s <= due / speed
    assert waits.asked_s[0] == 0.0
    assert waits.asked_s[3] > waits.asked_s[1]


def test_replay_stops_when_asked(path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with Publisher("tcp://127.0.0.1:*") as publisher:
        assert recording.replay(path, publisher, stop=stop) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_replay_with_the_status_stopped(tmp_path: Path, number: int) -> None:
    path = tmp_path / "a.jsonl"
    late = stamped(status(), 1, published_s=1e9)  # after a pause that nobody waits for
    recording.record([stamped(status(), published_s=1.0), late], path)
    command = [sys.executable, "-P", "-m", "stream.commands.cli", "replay", str(path)]
    command += ["--bind", "tcp://127.0.0.1:*"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            endpoint = process.stderr.readline().split()[-1]
            with EmotionClient(endpoint) as client:
                first = client.recv(WAIT_MS)
                process.send_signal(number)
                last = client.recv(WAIT_MS)
            assert process.wait(WAIT_MS / 1000) == 0
        finally:
            process.kill()
    assert [e.state for e in (first, last) if isinstance(e, Status)] == ["live", "stopped"]


def test_an_interrupt_while_the_first_message_is_sent_ends_with_the_status_stopped(
    tmp_path: Path,
) -> None:
    class Interrupted(Publisher):
        """A subscriber has the first message and sends the signal before `publish` returns."""

        def publish(self, event: Any, **settings: Any) -> Any:
            done = super().publish(event, **settings)
            if isinstance(event, Status) and event.state == "live":
                raise KeyboardInterrupt
            return done

    path = tmp_path / "a.jsonl"
    recording.record([stamped(status())], path)
    with Interrupted("tcp://127.0.0.1:*") as publisher:
        with pytest.raises(KeyboardInterrupt):
            recording.replay(path, publisher)
        receive_stopped(publisher.endpoint)


def test_a_bad_line_ends_a_replay_with_the_status_stopped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recording.record([stamped(status())], path)
    with path.open("ab") as file:
        file.write(b"damage\n")
    with Publisher("tcp://127.0.0.1:*") as publisher:
        with pytest.raises(RecordingError, match=":2 is no message"):
            recording.replay(path, publisher)
        receive_stopped(publisher.endpoint)


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_replay_refuses_impossible_speeds(path: Path, speed: float) -> None:
    with (
        Publisher("tcp://127.0.0.1:*") as publisher,
        pytest.raises(ConfigError, match="speed must be above 0"),
    ):
        recording.replay(path, publisher, speed=speed)


def test_csv_has_a_row_a_label_and_a_column_a_field(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    bored = {"bored": 0.75, "sad": 0.25}
    other = label(window_id=12, top="sad", unix_time_s=None, av_skew_ms=None)
    other = structs.replace(
        other,
        label="bored",
        scores=bored,
        smoothed=structs.replace(other.smoothed, scores=bored),
    )
    recording.record([stamped(other, 0, "s2")], path)
    assert recording.write_table(path, out) == 3
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    first, second, third = rows
    assert [row["window_id"] for row in rows] == ["8", "10", "12"]
    assert [row["label"] for row in rows] == ["happy", "sad", "bored"]
    assert float(first["window_start_s"]) == 0.0
    assert float(first["latency_ms_total"]) == 62.75
    assert float(first["dropped_audio_ms"]) == 20.0
    assert first["modalities_video"] == "ok"
    assert float(second["smoothed_scores_sad"]) == 0.6
    assert [float(first[f"scores_{name}"]) for name in LABELS] == list(scores().values())
    assert (first["scores_bored"], third["scores_bored"], third["scores_fear"]) == ("", "0.75", "")
    assert (third["unix_time_s"], third["av_skew_ms"]) == ("", "")
    names = {spec.name for spec in structs.fields(Label)}
    assert all(any(column.startswith(name) for column in first) for name in names)
    assert not list(tmp_path.glob("*.partial"))


def test_csv_errors(path: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.csv").write_text("kept")
    recording.record([stamped(status())], tmp_path / "b.jsonl")
    with pytest.raises(RecordingError, match="no label messages"):
        recording.write_table(tmp_path / "b.jsonl", tmp_path / "kept.csv")
    with pytest.raises(RecordingError, match="cannot write"):
        recording.write_table(path, tmp_path / "no" / "a.csv")
    assert (tmp_path / "kept.csv").read_text() == "kept"

"""The bridges as commands, between a real publisher and a real receiver of each protocol, on this host alone."""

import itertools
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pylsl
import pytest
from pythonosc.osc_bundle import OscBundle

from stream.bridges.bridge import captured_unix_s
from stream.bridges.osc import OscBridge
from stream.commands.cli import main
from stream.pubsub.client import EmotionClient
from stream.pubsub.messages import Label
from stream.pubsub.publisher import Publisher
from stream.pubsub.recording import record, replay, replay_session
from tests.stream.events import LABELS, LATENCY, label, reasoning, scores, stamped, status

WAIT_S = 60.0
THIS_HOST = "[multicast]\nResolveScope = machine\n[log]\nlevel = -2\n"


@pytest.fixture(scope="module", autouse=True)
def _discovery_stays_on_this_host() -> None:
    pylsl.set_config_content(THIS_HOST)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher("tcp://127.0.0.1:*") as publisher:
        yield publisher


@contextmanager
def bridging(protocol: str, publisher: Publisher, *more: str) -> Iterator[None]:
    command = [sys.executable, "-P", "-m", "stream.commands.cli", "bridge", protocol]
    command += ["--connect", publisher.endpoint, *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def inlet(source: str, kind: str) -> pylsl.StreamInlet:
    found = pylsl.resolve_byprop("source_id", f"emostream-{source}-{kind}", 1, WAIT_S)
    assert len(found) == 1, f"no stream of {source} {kind}"
    inlet = pylsl.StreamInlet(found[0])
    inlet.open_stream(WAIT_S)
    return inlet


def until_delivered(
    inlet: pylsl.StreamInlet, publish: Callable[[], object]
) -> tuple[list[object], float]:
    """Publish until a sample arrives: an inlet that is open may still miss the first one."""
    for _ in range(int(WAIT_S)):
        publish()
        values, at_s = inlet.pull_sample(1.0)
        if values is not None:
            return values, at_s
    raise AssertionError("no sample")


def test_lsl_samples_carry_capture_time_however_late_they_arrive(publisher: Publisher) -> None:
    ids = itertools.count(8)
    publisher.publish(label("lsl0", next(ids)))
    with bridging("lsl", publisher):
        samples, markers = inlet("lsl0", "scores"), inlet("lsl0", "markers")
        until_delivered(samples, lambda: publisher.publish(label("lsl0", next(ids))))
        while samples.pull_sample(0.5)[0] is not None:
            pass
        for delay_s, top in ((0.05, "sad"), (0.2, "sad"), (0.5, "fear")):
            captured_s = pylsl.local_clock() - delay_s
            unix_time_s = time.time() - delay_s
            publisher.publish(label("lsl0", next(ids), top=top, unix_time_s=unix_time_s))
            values, at_s = samples.pull_sample(WAIT_S)
            assert at_s == pytest.approx(captured_s, abs=0.005)
            assert values == [*scores(top).values(), *scores(top, 0.6).values()]
        event = reasoning(
            "lsl0", think="Die Brauen – tief.", answer="fear", unix_time_s=unix_time_s
        )
        publisher.publish(reasoning("lsl0", done=False, answer=None, agrees_with_label=None))
        publisher.publish(event)
        seen = []
        while not seen or not seen[-1][0].startswith("reasoning"):
            marker, at_s = markers.pull_sample(WAIT_S)
            seen.append((marker[0], at_s))
    changes = [text for text, _ in seen if text.startswith("label/")]
    # Before the inlet is open, a marker may be missed.
    assert changes[-2:] == ["label/sad", "label/fear"]
    assert seen[-1][0] == "reasoning/fear: Die Brauen – tief."
    assert [at_s for _, at_s in seen[-2:]] == pytest.approx([captured_s] * 2, abs=0.005)


def test_lsl_metadata_say_what_the_numbers_are(publisher: Publisher) -> None:
    publisher.publish(label("lsl1"))
    with bridging("lsl", publisher):
        info = inlet("lsl1", "scores").info(WAIT_S)
        markers = inlet("lsl1", "markers").info(WAIT_S)
    assert info.name() == "lsl1 scores"
    assert (info.type(), markers.type()) == ("Emotion", "Markers")
    assert info.get_channel_labels() == [*LABELS, *(f"smoothed {name}" for name in LABELS)]
    assert set(info.get_channel_units()) == {"normalized"}
    acquisition = info.desc().child("acquisition")
    assert acquisition.child_value("model") == "tiny"
    assert acquisition.child_value("window_s") == "4"


def test_lsl_streams_begin_anew_with_another_label_list(publisher: Publisher) -> None:
    publisher.publish(label("lsl2"))
    with bridging("lsl", publisher):
        old = inlet("lsl2", "scores")
        two = {"calm": 0.25, "tense": 0.75}
        smoothed = type(label().smoothed)(label="tense", scores=two)
        publisher.publish(label("lsl2", 9, label="tense", scores=two, smoothed=smoothed))
        end_s = time.monotonic() + WAIT_S
        while (info := inlet("lsl2", "scores").info(WAIT_S)).channel_count() != 4:
            assert time.monotonic() < end_s
        assert info.get_channel_labels() == ["calm", "tense", "smoothed calm", "smoothed tense"]
        old.close_stream()


@pytest.fixture
def osc() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(WAIT_S)
        yield udp


def receive(udp: socket.socket) -> dict[str, list[object]]:
    bundle = OscBundle(udp.recv(65535))
    return {message.address: list(message) for message in bundle}


def to(udp: socket.socket) -> list[str]:
    return ["--to", f"127.0.0.1:{udp.getsockname()[1]}"]


def test_osc_addresses(publisher: Publisher, osc: socket.socket) -> None:
    publisher.publish(label(top="sad", unix_time_s=time.time() - 0.3))
    with bridging("osc", publisher, *to(osc)):
        first = receive(osc)
        publisher.publish(reasoning(done=False, answer=None, agrees_with_label=None))
        publisher.publish(reasoning(think="Die Brauen – tief.", unix_time_s=time.time() - 0.3))
        second = receive(osc)
        publisher.publish(status(state="degraded", detail="audio missing"))
        third = receive(osc)
    name, p, age_s = first.pop("/emostream/cam0/label")
    assert name == "sad"
    assert p == pytest.approx(0.6)
    assert 0.3 <= age_s < WAIT_S
    assert first == {
        f"/emostream/cam0/{kind}/{name}": [pytest.approx(value)]
        for kind, values in (("score", scores("sad")), ("smoothed", scores("sad", 0.6)))
        for name, value in values.items()
    }
    answer, think, age_s = second["/emostream/cam0/reasoning"]
    assert (answer, think) == ("happy", "Die Brauen – tief.")
    assert 0.3 <= age_s < WAIT_S
    assert third == {"/emostream/cam0/status": ["degraded", "audio missing"]}


def test_a_label_that_osc_would_read_as_a_pattern(publisher: Publisher, osc: socket.socket) -> None:
    odd = {"fear/awe *": 0.75, "calm": 0.25}
    smoothed = type(label().smoothed)(label="fear/awe *", scores=odd)
    publisher.publish(label(label="fear/awe *", scores=odd, smoothed=smoothed))
    with bridging("osc", publisher, *to(osc)):
        assert receive(osc)["/emostream/cam0/score/fear_awe__"] == [0.75]


def recorded(out: Path, source: str = "cam0", every_s: float = 1.0) -> Path:
    """A recording of three labels that were captured long ago."""
    captured_s = 1.7e9
    events = [
        stamped(
            label(source, 8 + k, top=top, unix_time_s=captured_s + every_s * k),
            seq=k,
            published_s=captured_s + every_s * k + LATENCY.total / 1000,
        )
        for k, top in enumerate(["happy", "sad", "fear"])
    ]
    record(events, out)
    return out


def test_lsl_gets_a_replay_as_long_before_its_publication_as_it_was_then(tmp_path: Path) -> None:
    file = recorded(tmp_path / "a.jsonl", "lsl3", every_s=0.3)
    ids = itertools.count(100)
    with (
        Publisher("tcp://127.0.0.1:*", session=replay_session()) as publisher,
        EmotionClient(publisher.endpoint, source="lsl3") as client,
    ):
        publisher.publish(label("lsl3", next(ids)))
        client.recv(int(WAIT_S * 1000))
        with bridging("lsl", publisher):
            samples = inlet("lsl3", "scores")
            until_delivered(samples, lambda: publisher.publish(label("lsl3", next(ids))))
            while samples.pull_sample(0.5)[0] is not None:
                pass
            replay(file, publisher)
            seen = [samples.pull_sample(WAIT_S) for _ in range(3)]
            clock_s = pylsl.local_clock() - time.time()
        sent: list[Label] = []
        while len(sent) < 3:
            event = client.recv(int(WAIT_S * 1000))
            if isinstance(event, Label) and event.window.id < 100:
                sent.append(event)
    for (values, at_s), event in zip(seen, sent, strict=True):
        assert values[: len(LABELS)] == list(event.scores.values())
        assert at_s - clock_s == pytest.approx(event.published_s - LATENCY.total / 1000, abs=0.005)
    assert seen[2][1] - seen[0][1] >= 0.6 - 0.005


def test_a_replay_feeds_a_bridge_as_the_live_stream_did(tmp_path: Path, osc: socket.socket) -> None:
    recorded(tmp_path / "a.jsonl")
    with Publisher("tcp://127.0.0.1:*", session=replay_session()) as publisher:
        publisher.publish(status())
        with bridging("osc", publisher, *to(osc)):
            assert "/emostream/cam0/status" in receive(osc)
            replay(tmp_path / "a.jsonl", publisher, speed=50)
            seen = [receive(osc)["/emostream/cam0/label"] for _ in range(3)]
            assert receive(osc)["/emostream/cam0/status"][0] == "stopped"
    assert [name for name, _, _ in seen] == ["happy", "sad", "fear"]
    for _, _, age_s in seen:  # as old as a label was then, not as the recording
        assert LATENCY.total / 1000 <= age_s < WAIT_S


def test_a_signal_ends_a_bridge_even_in_a_destructor(
    publisher: Publisher, osc: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There Python drops exceptions; liblsl's outlets are closed in one, which takes a while."""

    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(OscBridge, "send", lambda self, event: Closing())
    publisher.publish(label())
    assert main(["bridge", "osc", "--connect", publisher.endpoint, *to(osc)]) == 0


def test_the_instant_of_an_event() -> None:
    live = stamped(label(unix_time_s=1.6e9), published_s=1.7e9)
    assert captured_unix_s(live) == 1.6e9
    assert captured_unix_s(stamped(label(unix_time_s=None), published_s=1.7e9)) == 1.7e9
    replayed = stamped(label(unix_time_s=1.6e9), session=replay_session(), published_s=1.7e9)
    assert captured_unix_s(replayed) == pytest.approx(1.7e9 - LATENCY.total / 1000, abs=1e-6)


@pytest.mark.parametrize("target", ["192.0.2.1:9000", "nowhere"])
def test_osc_stays_on_this_host_unless_told(target: str) -> None:
    command = [sys.executable, "-P", "-m", "stream.commands.cli", "bridge", "osc", "--to", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("emostream: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("protocol", "module", "package"),
    [("lsl", "pylsl", "pylsl"), ("osc", "pythonosc", "python-osc")],
)
def test_a_missing_package_is_named(
    protocol: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from stream.commands.cli import main

    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["bridge", protocol]) == 2
    said = capsys.readouterr().err
    assert f"needs {package}: pip install 'emostream[bridges]'" in said
    assert said.count("\n") == 1

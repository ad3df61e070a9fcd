import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import ConfigError
from stream.pubsub.client import AsyncEmotionClient, EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Event, Label, MessageError, Reasoning, Status, encode
from stream.pubsub.publisher import Publisher
from stream.pubsub.tracking import ClientStats, Tracker
from tests.stream.events import label, reasoning, stamped, status

LOOPBACK = "tcp://127.0.0.1:*"
WAIT_MS = 30_000


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(LOOPBACK) as publisher:
        yield publisher


class RawPublisher:
    """A socket that sends any frames, stamped events among them, to one subscriber."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.endpoint = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def wait_for_subscriptions(self, count: int) -> None:
        for _ in range(count):
            assert self.socket.poll(WAIT_MS)
            self.socket.recv()

    def send(self, event: Event) -> None:
        self.socket.send_multipart(encode(event))

    def __enter__(self) -> "RawPublisher":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)


@pytest.fixture
def raw() -> Iterator[RawPublisher]:
    with RawPublisher() as raw:
        yield raw


def take(client: EmotionClient, count: int) -> list[Event]:
    return [client.recv(WAIT_MS) for _ in range(count)]


def test_imports_nothing_but_pyzmq_and_msgspec() -> None:
    code = """
import sys
import stream.pubsub.client
client = stream.pubsub.client.EmotionClient("tcp://127.0.0.1:9", topics=["label"])
client.close()
heavy = {"torch", "numpy", "transformers", "rich", "av", "cv2"} & set(sys.modules)
assert not heavy, heavy
third_party = {
    name.partition(".")[0]
    for name, module in sys.modules.items()
    if "site-packages" in (getattr(module, "__file__", None) or "")
}
# msgspec imports typing_extensions where it is there, and does without.
print(sorted(third_party - {"zmq", "msgspec", "typing_extensions", "_distutils_hack"}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_iterates_typed_events(publisher: Publisher) -> None:
    sent = [publisher.publish(event) for event in (status(), label(), reasoning())]
    with EmotionClient(publisher.endpoint, timeout_ms=WAIT_MS) as client:
        events = iter(client)
        got = [next(events) for _ in sent]
    assert {type(event) for event in got} == {Status, Label, Reasoning}
    assert sorted(got, key=lambda event: event.topic) == sorted(sent, key=lambda event: event.topic)
    assert client.stats.received == 3
    assert client.stats.connections == 1
    assert client.stats.connected


def test_source_selects_exactly_one(publisher: Publisher) -> None:
    """Prefixes alone would let cam1 match cam10."""
    publisher.publish(status("cam10"))
    publisher.publish(label("cam10"))
    expected = [publisher.publish(status("cam1")), publisher.publish(label("cam1"))]
    with EmotionClient(publisher.endpoint, "cam1") as client:
        got = take(client, 2)
        publisher.publish(status("cam10"))
        publisher.publish(label("cam10"))
        expected.append(publisher.publish(label("cam1")))
        got += take(client, 1)
    assert sorted(got, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("source", [None, "cam0"])
def test_topics_select_kinds(publisher: Publisher, source: str | None) -> None:
    for event in (status(), label(), reasoning()):
        publisher.publish(event)
    with EmotionClient(publisher.endpoint, source, topics=["reasoning"]) as client:
        assert isinstance(client.recv(WAIT_MS), Reasoning)
        publisher.publish(status())
        publisher.publish(label())
        sent = publisher.publish(reasoning())
        assert client.recv(WAIT_MS) == sent
        with pytest.raises(ConfigError, match="Label"):
            client.recv_latest(Label)


@pytest.mark.parametrize("topics", [[], ["labels"], ["label", "mood"]])
def test_unknown_topics_are_refused(topics: list[Any]) -> None:
    with pytest.raises(ConfigError, match="label, reasoning, status"):
        EmotionClient(topics=topics)


def test_bad_arguments_are_explained() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        EmotionClient("nowhere")
    with pytest.raises(MessageError, match="cam 0"):
        EmotionClient(source="cam 0")


def test_timeout_says_whether_there_is_a_connection(publisher: Publisher) -> None:
    publisher.publish(status())
    with EmotionClient(publisher.endpoint, timeout_ms=1) as client:
        client.recv(WAIT_MS)
        with pytest.raises(ReceiveTimeout, match=r"within 1 ms$"):
            next(client)
    with (
        EmotionClient("tcp://127.0.0.1:9") as client,
        pytest.raises(TimeoutError, match="not connected"),
    ):
        client.recv(timeout_ms=1)


def test_recv_latest_skips_to_the_newest_of_a_kind(raw: RawPublisher) -> None:
    with EmotionClient(raw.endpoint, "cam0") as client:
        raw.wait_for_subscriptions(2)
        for seq in range(50):
            raw.send(stamped(label(window_id=8 + seq), seq))
            raw.send(stamped(status(), seq))
        raw.send(stamped(reasoning()))
        # All have arrived once the last one, on the same connection, has.
        latest = client.recv_latest(Reasoning, timeout_ms=WAIT_MS)
        assert latest.think
        for seq in range(50, 60):
            raw.send(stamped(label(window_id=8 + seq), seq))
        newest = client.recv_latest(timeout_ms=WAIT_MS)
        while newest.seq < 59:
            newer = client.recv_latest(timeout_ms=WAIT_MS)
            assert newer.seq > newest.seq
            newest = newer
        with pytest.raises(ReceiveTimeout):
            client.recv_latest(timeout_ms=1)
        assert client.stats.lost == 0
        assert client.stats.received == 111


def test_recv_latest_names_the_timeout_that_was_asked_for(publisher: Publisher) -> None:
    publisher.publish(status())
    with EmotionClient(publisher.endpoint) as client:
        with pytest.raises(ReceiveTimeout, match=r"within 300 ms$"):
            client.recv_latest(timeout_ms=300)
        assert client.stats.received == 1  # the status, of another kind


def test_replays_are_discarded_and_gaps_counted(
    raw: RawPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    with EmotionClient(raw.endpoint) as client:
        raw.wait_for_subscriptions(2)
        # 7: joined late, no loss. 7 again: a replay. 10: two are missing. Another session: anew.
        for session, seq in [
            ("a", 7),
            ("a", 7),
            ("a", 8),
            ("a", 10),
            ("a", 8),
            ("b", 0),
            ("a", 10),
        ]:
            raw.send(stamped(label(), seq, session))
        raw.send(stamped(status(), 3))
        got = take(client, 5)
    assert [(event.session, event.seq) for event in got[:4]] == [
        ("a", 7),
        ("a", 8),
        ("a", 10),
        ("b", 0),
    ]
    assert (client.stats.duplicates, client.stats.lost) == (3, 1)
    assert "emotion.cam0.label: 1 messages were lost in transport" in caplog.text


def test_replay_for_a_second_subscriber_is_a_duplicate_for_the_first(publisher: Publisher) -> None:
    publisher.publish(status())
    first_label = publisher.publish(label())
    with EmotionClient(publisher.endpoint) as first:
        take(first, 2)
        with EmotionClient(publisher.endpoint) as second:
            assert first_label in take(second, 2)
        sent = publisher.publish(label())
        assert first.recv(WAIT_MS) == sent
        assert first.stats.duplicates >= 2
        assert first.stats.lost == 0


def test_unreadable_messages_are_counted_and_passed_over(
    raw: RawPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    good = stamped(label())
    topic, payload = encode(good)
    with EmotionClient(raw.endpoint, "cam0") as client:
        raw.wait_for_subscriptions(2)
        for frames in (
            [topic],
            [topic, b""],
            [topic, b"\x00\xff garbage"],
            [topic, b"\xc1"],
            [topic, b"[" * 100_000],
            [topic, payload, payload],
            [b"emotion.cam0.", payload],
            [topic, payload.replace(b'"seq":0', b'"seq":-1')],
        ):
            raw.socket.send_multipart(frames)
        for version in (b"2", b'"x"', b"null"):
            newer = payload.replace(b'"version":1', b'"version":' + version)
            raw.socket.send_multipart([topic, newer])
        raw.send(good)
        assert client.recv(WAIT_MS) == good
    assert (client.stats.malformed, client.stats.foreign_version) == (8, 3)
    assert "reads version 1" in caplog.text
    assert caplog.text.count("malformed message") == 1, "a flood must not flood the log"


def test_oversized_messages_cost_the_connection_not_the_client(raw: RawPublisher) -> None:
    good = stamped(label())
    with EmotionClient(raw.endpoint, "cam0", max_message_bytes=10_000) as client:
        raw.wait_for_subscriptions(2)
        raw.socket.send_multipart([b"emotion.cam0.label", b"x" * 10_001])
        while client.stats.connections < 2:
            with pytest.raises(ReceiveTimeout):
                client.recv(timeout_ms=100)
        raw.wait_for_subscriptions(4)  # two went with the connection, two came with the next
        raw.send(good)
        assert client.recv(WAIT_MS) == good
        assert client.stats.connections == 2
        assert client.stats.malformed == 0


def test_reconnects_after_the_publisher_restarts(caplog: pytest.LogCaptureFixture) -> None:
    with Publisher(LOOPBACK, session="one") as publisher:
        endpoint = publisher.endpoint
        publisher.publish(label())
        publisher.publish(label(window_id=9))
        with EmotionClient(endpoint, "cam0") as client:
            while client.recv(WAIT_MS).seq != 1:
                pass
            publisher.close()
            while client.stats.connected:
                with pytest.raises(ReceiveTimeout):
                    client.recv(timeout_ms=100)
            with Publisher(endpoint, session="two") as successor:
                sent = successor.publish(label())
                assert client.recv(WAIT_MS) == sent
                assert client.stats.connected
                assert client.stats.connections == 2
                assert client.stats.lost == 0, "a new session begins anew"
    assert "lost the connection" in caplog.text
    assert "reconnected" in caplog.text


def test_silence_is_reported_while_waiting(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """Labels still flow, but the heartbeat has stopped; then it comes back."""
    caplog.set_level(logging.WARNING)
    with EmotionClient(publisher.endpoint, "cam0", topics=["label"], stale_after_s=0.05) as client:
        while "cam0: no status for" not in caplog.text:
            publisher.publish(label())
            client.recv(WAIT_MS)
        assert client.stale_sources()["cam0"] > 0.05
        publisher.publish(status())
        while "resumed" not in caplog.text:
            publisher.publish(label())
            client.recv(WAIT_MS)
        publisher.publish(status(state="stopped"))
        publisher.publish(label())
        last = publisher.publish(label())
        while client.recv(WAIT_MS) != last:
            pass
        assert client.stale_sources() == {}, "a source that has stopped owes no status"


def test_staleness_follows_the_local_monotonic_clock() -> None:
    tracker = Tracker(ClientStats(), stale_after_s=3)
    tracker.expect("cam0", 100.0)
    assert tracker.stale(102.9) == {}
    assert tracker.next_check_s(101.0) == pytest.approx(2.0, abs=0.01)
    # A publisher whose wall clock is years off is heard as any other.
    tracker.note_status(stamped(status(), published_s=1.0), 103.0)
    assert tracker.stale(105.9) == {}
    assert tracker.stale(107.0) == {"cam0": 4.0}
    assert tracker.next_check_s(107.0) > 0
    tracker.note_status(stamped(status("cam1")), 107.0)
    assert set(tracker.stale(107.1)) == {"cam0"}
    tracker.note_status(stamped(status(state="stopped")), 108.0)
    assert tracker.stale(109.0) == {}


@given(st.lists(st.integers(0, 30), max_size=40))
def test_tracker_delivers_each_seq_once_in_order(seqs: list[int]) -> None:
    """Against the definition: deliver what exceeds everything before it; lost is what it jumps."""
    stats = ClientStats()
    tracker = Tracker(stats, stale_after_s=3)
    delivered = [seq for seq in seqs if tracker.is_new(stamped(label(), seq))]
    expected = [seq for k, seq in enumerate(seqs) if all(seq > other for other in seqs[:k])]
    assert delivered == expected
    assert stats.duplicates == len(seqs) - len(delivered)
    if delivered:
        assert stats.lost == delivered[-1] - delivered[0] + 1 - len(delivered)


def test_tracker_forgets_the_topics_of_long_ago() -> None:
    tracker = Tracker(ClientStats(), stale_after_s=3)
    for k in range(5000):
        assert tracker.is_new(stamped(label(), 0, session=f"run-{k}"))
        assert not tracker.is_new(stamped(label(), 0, session=f"run-{k}"))
    assert len(tracker._last_seq) <= 1024


def test_asyncio_twin(publisher: Publisher) -> None:
    async def main() -> None:
        async with AsyncEmotionClient(publisher.endpoint, "cam0", timeout_ms=WAIT_MS) as client:
            sent = [publisher.publish(label()), publisher.publish(status())]
            got = []
            async for event in client:
                got.append(event)
                if len(got) == 2:
                    break
            assert sorted(got, key=str) == sorted(sent, key=str)
            waiting = asyncio.create_task(client.recv_latest())
            await asyncio.sleep(0)  # the loop is free while the client waits
            assert not waiting.done()
            newest = publisher.publish(label(window_id=9))
            assert await waiting == newest
            with pytest.raises(ReceiveTimeout):
                await client.recv(timeout_ms=1)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.recv(), 0.01)  # cancelling loses nothing
            last = publisher.publish(reasoning())
            assert await client.recv_latest(Reasoning) == last

    asyncio.run(main())


def test_a_client_waiting_in_a_thread_gets_what_comes_later(publisher: Publisher) -> None:
    got: list[Event] = []

    def receive() -> None:
        with EmotionClient(publisher.endpoint) as client:
            ready.set()
            got.append(client.recv(WAIT_MS))

    ready = threading.Event()
    thread = threading.Thread(target=receive)
    thread.start()
    assert ready.wait(30)
    sent = publisher.publish(label())
    thread.join(30)
    assert got == [sent]


def test_close_twice(publisher: Publisher) -> None:
    client = EmotionClient(publisher.endpoint)
    client.close()
    client.close()

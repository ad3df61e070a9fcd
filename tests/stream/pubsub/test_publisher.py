import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from emostream.errors import ConfigError
from stream.pubsub.client import EmotionClient
from stream.pubsub.messages import Encoding, Event, decode
from stream.pubsub.publisher import Publisher, PublishError
from stream.sockets import endpoints
from stream.sockets.endpoints import BindError
from tests.stream.events import label, reasoning, status

LOOPBACK = "tcp://127.0.0.1:*"
WAIT_MS = 30_000


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with zmq.Context() as context:
        yield context


def subscriber(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *prefixes: str
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.SUB)
    socket.rcvtimeo = WAIT_MS
    socket.linger = 0
    for prefix in prefixes:
        socket.subscribe(prefix)
    socket.connect(endpoint)
    return socket


class Reader:
    """Reads a SUB socket and drops replays, as the contract asks of every receiver."""

    def __init__(self, sub: zmq.Socket[bytes]) -> None:
        self._sub = sub
        self._seen: set[tuple[str, str, int]] = set()

    def __call__(self) -> Event:
        while True:
            event = decode(self._sub.recv_multipart())
            key = (event.session, event.topic, event.seq)
            if key not in self._seen:
                self._seen.add(key)
                return event


def test_stamps_session_seq_and_time(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with Publisher(LOOPBACK, session="run-1") as publisher:
        first = publisher.publish(status())
        with subscriber(context, publisher.endpoint, "") as sub:
            read = Reader(sub)
            assert read() == first  # now the subscription has arrived
            sent: list[Event] = [publisher.publish(label(window_id=k)) for k in (8, 9)]
            sent += [publisher.publish(label("cam1")), publisher.publish(status())]
            assert [read() for _ in sent] == sent
    assert [event.seq for event in (first, *sent)] == [0, 0, 1, 0, 1]
    assert {event.session for event in sent} == {"run-1"}
    assert all(event.published_s > 1.7e9 for event in sent)


def test_late_subscriber_gets_the_last_value_of_every_topic_it_asks_for(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    with Publisher(LOOPBACK) as publisher:
        for window_id in (8, 9, 10):
            publisher.publish(label(window_id=window_id))
            publisher.publish(reasoning(window_id=window_id))
            publisher.publish(status(uptime_s=window_id))
        publisher.publish(label("cam1"))
        with subscriber(context, publisher.endpoint, "emotion.cam0.", "status.cam0") as sub:
            read = Reader(sub)
            got: dict[str, int] = {}
            # Older values come first where the subscription overtook them, and never after.
            while len(got) < 3 or min(got.values()) < 2:
                event = read()
                assert event.seq > got.get(event.topic, -1)
                got[event.topic] = event.seq
            assert set(got) == {"emotion.cam0.label", "emotion.cam0.reasoning", "status.cam0"}
        # A second one with the same subscription is served too (XPUB_VERBOSE).
        with subscriber(context, publisher.endpoint, "emotion.cam1.") as sub:
            assert decode(sub.recv_multipart()).source == "cam1"
        with subscriber(context, publisher.endpoint, "emotion.cam1.") as sub:
            assert decode(sub.recv_multipart()).source == "cam1"


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_payload_encoding(context: zmq.Context[zmq.Socket[bytes]], encoding: Encoding) -> None:
    with Publisher(LOOPBACK, encoding=encoding) as publisher:
        sent = publisher.publish(label())
        with subscriber(context, publisher.endpoint, "") as sub:
            frames = sub.recv_multipart()
    assert decode(frames) == sent
    assert (frames[1][:1] == b"{") == (encoding == "json")
    if encoding == "json":
        assert json.loads(frames[1])["label"] == "happy"


def test_what_was_published_before_close_arrives(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with Publisher(LOOPBACK) as publisher:
        publisher.publish(status(state="live"))
        sub = subscriber(context, publisher.endpoint, "")
        with sub:
            read = Reader(sub)
            read()
            sent = publisher.publish(status(state="stopped"))
            publisher.close()
            publisher.close()
            assert read() == sent
    with pytest.raises(PublishError, match="closed"):
        publisher.publish(status())


def test_a_subscriber_that_never_reads_stalls_nothing_and_sees_its_loss_in_seq(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    """The stuck one's buffers fill, its messages are dropped; the other one gets every message."""
    count, think = 400, "x" * 100_000
    with Publisher(LOOPBACK, high_water_mark=10) as publisher:
        publisher.publish(status())
        stuck = context.socket(zmq.SUB)
        stuck.setsockopt(zmq.RCVHWM, 1)
        stuck.setsockopt(zmq.RCVBUF, 4096)
        stuck.rcvtimeo = WAIT_MS
        stuck.subscribe("")
        stuck.connect(publisher.endpoint)
        with stuck, subscriber(context, publisher.endpoint, "") as reader:
            read, read_stuck = Reader(reader), Reader(stuck)
            read()
            read_stuck()
            # In step with the reader, so that only the stuck one can lag.
            for k in range(count):
                sent = publisher.publish(reasoning(think=think, window_id=8 + k))
                assert read() == sent
            # Its queue drains as it reads at last, and what is published then finds room again.
            seqs: list[int] = []
            while not seqs or seqs[-1] == len(seqs) - 1:
                publisher.publish(reasoning(think=think))
                seqs.append(read_stuck().seq)
    assert len(seqs) < count
    assert seqs[:-1] == list(range(len(seqs) - 1))
    assert seqs[-1] > len(seqs) - 1


def test_a_full_subscriber_does_not_hold_up_close(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    with Publisher(LOOPBACK, linger_ms=200) as publisher:
        publisher.publish(status())
        with subscriber(context, publisher.endpoint, "") as sub:
            sub.setsockopt(zmq.RCVHWM, 1)
            sub.recv_multipart()
            for _ in range(300):
                publisher.publish(reasoning(think="x" * 100_000))
            closer = threading.Thread(target=publisher.close)
            closer.start()
            closer.join(30)
            assert not closer.is_alive()


def test_threads_publish_in_order(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with Publisher(LOOPBACK) as publisher, subscriber(context, publisher.endpoint, "") as sub:
        publisher.publish(status())
        read = Reader(sub)
        read()

        def work(source: str) -> None:
            for k in range(100):
                publisher.publish(label(source, window_id=8 + k))
                publisher.publish(status())

        threads = [threading.Thread(target=work, args=(f"cam{n}",)) for n in range(3)]
        for thread in threads:
            thread.start()
        seqs: dict[str, list[int]] = {}
        for _ in range(600):
            event = read()
            seqs.setdefault(event.topic, []).append(event.seq)
        for thread in threads:
            thread.join()
    assert seqs.pop("status.cam0") == list(range(1, 301))
    assert list(seqs.values()) == [list(range(100))] * 3


def test_garbage_and_oversized_input_reach_nobody(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    """Raw bytes, a subscription of 10 kB and messages that a subscriber has no business to send."""
    with Publisher(LOOPBACK) as publisher, EmotionClient(publisher.endpoint) as client:
        publisher.publish(status())
        client.recv(WAIT_MS)
        port = int(publisher.endpoint.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 1000)
        with context.socket(zmq.SUB) as greedy:
            greedy.linger = 0
            with greedy.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
                greedy.subscribe("x" * 10_000)
                greedy.connect(publisher.endpoint)
                assert monitor.poll(WAIT_MS), "an oversized subscription must end its connection"
                greedy.disable_monitor()
        with context.socket(zmq.XSUB) as talker:
            talker.linger = 1000
            talker.connect(publisher.endpoint)
            talker.send(b"\x07hello")
            talker.send(b"\x01")
            talker.rcvtimeo = WAIT_MS
            assert decode(talker.recv_multipart()).seq == 0
        sent = publisher.publish(label())
        assert client.recv(WAIT_MS) == sent
        assert client.stats.connections == 1


def test_two_publishers_on_one_port(tmp_path: Path) -> None:
    with Publisher(LOOPBACK) as publisher:
        with pytest.raises(BindError, match=r"in use.*--bind") as caught:
            Publisher(publisher.endpoint)
        assert "\n" not in str(caught.value)
        publisher.publish(status())
    with Publisher(publisher.endpoint) as successor:  # the port is free again at once
        assert successor.endpoint == publisher.endpoint


@pytest.mark.skipif(not zmq.has("ipc"), reason="this platform has no ipc")
def test_ipc_is_neither_stolen_nor_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Publisher(f"ipc://{path}") as publisher, EmotionClient(publisher.endpoint) as client:
        with pytest.raises(BindError, match="another process"):
            Publisher(f"ipc://{path}")
        sent = publisher.publish(label())
        assert client.recv(WAIT_MS) == sent
    assert not path.exists()
    # A process that was killed leaves its file, which must not be in the way.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Publisher(f"ipc://{path}") as publisher, EmotionClient(publisher.endpoint) as client:
        sent = publisher.publish(label())
        assert client.recv(WAIT_MS) == sent


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.5", "[::]", "eth0", "example.org"])
def test_other_interfaces_need_keys_or_insecure(host: str) -> None:
    with pytest.raises(ConfigError, match=r"keygen.*--insecure"):
        Publisher(f"tcp://{host}:5999")
    endpoints.check_exposure(f"tcp://{host}:5999", secured=True)
    endpoints.check_exposure(f"tcp://{host}:5999", secured=False, insecure=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "[::1]"])
def test_loopback_needs_nothing(host: str) -> None:
    endpoints.check_exposure(f"tcp://{host}:5999", secured=False)


def test_insecure_binds_every_interface(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    with Publisher("tcp://0.0.0.0:*", insecure=True) as publisher:
        port = publisher.endpoint.rsplit(":", 1)[1]
        sent = publisher.publish(label())
        with subscriber(context, f"tcp://127.0.0.1:{port}", "") as sub:
            assert decode(sub.recv_multipart()) == sent


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:5556", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "udp://127.0.0.1:1", ""],
)
def test_malformed_endpoints_are_explained(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="tcp://HOST:PORT"):
        Publisher(endpoint)


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:*/", "ipc:///no/such/folder/s"])
def test_endpoints_that_cannot_be_bound(endpoint: str) -> None:
    with pytest.raises((ConfigError, BindError)):
        Publisher(endpoint)


def test_unknown_encodings_are_refused_before_anything_is_bound() -> None:
    with pytest.raises(ConfigError, match="json, msgpack"):
        Publisher(LOOPBACK, encoding="bson")  # type: ignore[arg-type]

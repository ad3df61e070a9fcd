"""The publishing socket: stamps, encodes, sends, and answers late subscribers from a cache."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, get_args

import zmq
from msgspec import structs

from emostream.errors import ConfigError, EmostreamError
from stream.pubsub.messages import DEFAULT_ENDPOINT, Encoding, EventT, encode
from stream.pubsub.preview import PREVIEW_PREFIX, encode_preview
from stream.sockets import endpoints, security

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A subscriber sends nothing but subscriptions, whose prefixes are as short as topics. libzmq's
# prefix tree recurses once a byte: a prefix of a megabyte would overflow its thread's stack.
_MAX_SUBSCRIPTION_BYTES = 4096
_STOP = b""
_log = logging.getLogger(__name__)


class PublishError(EmostreamError):
    """The publisher is closed or its socket has failed."""


class Outlet(Protocol):
    """Where the pipeline's events go: a `Publisher`, or what stands in for one."""

    def publish(self, event: EventT) -> EventT:
        """As `Publisher.publish`."""

    def preview_wanted(self, source: str) -> bool:
        """As `Publisher.preview_wanted`."""

    def publish_preview(self, source: str, timestamp_s: float, rgb: NDArray[np.uint8]) -> None:
        """As `Publisher.publish_preview`."""


class Publisher:
    """Publishes events on an XPUB socket that a thread of its own serves.

    Drop policy: ZeroMQ keeps up to `high_water_mark` messages for each subscriber and drops what
    comes after for that subscriber alone, so that one that reads slowly or never stalls nothing; a
    gap in `seq` reveals the loss to it.

    The last message of every topic is kept and sent again when somebody subscribes to a prefix of
    it (XPUB_VERBOSE reports every subscription). Such a replay may reach other subscribers too,
    which discard a (session, topic, seq) that they have seen.

    Use as a context manager: leaving it sends what was published, waits at most `linger_ms` for
    slow subscribers, and frees the endpoint.

    Args:
        bind: `tcp://HOST:PORT` (PORT may be `*`) or `ipc://PATH`.
        session: identifies this run; random by default.
        curve: keys and allow-list; required beyond loopback unless `insecure`.
        insecure: listen beyond loopback without keys.
        encoding: payload encoding of all messages.
        high_water_mark: messages kept for a slow subscriber.
        linger_ms: how long closing may wait for subscribers to take what was sent.

    Raises:
        ConfigError: `bind` is malformed, or beyond loopback without keys, or `encoding` unknown.
        BindError: the address is in use or cannot be used.
    """

    def __init__(
        self,
        bind: str = DEFAULT_ENDPOINT,
        *,
        session: str | None = None,
        curve: security.ServerKeys | None = None,
        insecure: bool = False,
        encoding: Encoding = "json",
        high_water_mark: int = 1000,
        linger_ms: int = 500,
    ) -> None:
        if encoding not in get_args(Encoding):
            raise ConfigError(f"encoding must be one of json, msgpack; got {encoding!r}")
        endpoints.check_exposure(bind, secured=curve is not None, insecure=insecure)
        self.session = session or uuid.uuid4().hex
        self._encoding: Encoding = encoding
        self._next_seq: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._previews: frozenset[bytes] = frozenset()
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            if curve is not None:
                stack.enter_context(security.authenticator(context, curve))
            self._outlet = stack.enter_context(context.socket(zmq.XPUB))
            self._outlet.sndhwm = high_water_mark
            self._outlet.linger = linger_ms
            self._outlet.maxmsgsize = _MAX_SUBSCRIPTION_BYTES
            self._outlet.xpub_verbose = True
            # Not ZMTP heartbeats, which some subscribers' libraries do not answer.
            self._outlet.tcp_keepalive = 1
            self._outlet.tcp_keepalive_idle = 30
            if curve is not None:
                security.configure_server(self._outlet, curve)
            self.endpoint = endpoints.bind(self._outlet, bind)
            stack.callback(endpoints.remove_ipc_file, self.endpoint)
            inbox = stack.enter_context(context.socket(zmq.PULL))
            inbox.bind("inproc://publish")
            self._inlet = stack.enter_context(context.socket(zmq.PUSH))
            self._inlet.linger = 0
            self._inlet.connect("inproc://publish")
            self._thread = threading.Thread(
                target=self._serve, args=(inbox,), name="publisher", daemon=True
            )
            self._thread.start()
            self._resources = stack.pop_all()

    def publish(self, event: EventT) -> EventT:
        """Stamp an event with session, seq and time of publication, and send it.

        Safe from any thread; never waits for subscribers.

        Returns:
            The event as sent.

        Raises:
            PublishError: the publisher is closed or its socket has failed.
        """
        with self._lock:
            self._check_open()
            seq = self._next_seq.get(event.topic, 0)
            stamped = structs.replace(event, session=self.session, seq=seq, published_s=time.time())
            frames = encode(stamped, self._encoding)
            self._next_seq[event.topic] = seq + 1  # first: an interrupt must not have it sent twice
            self._inlet.send_multipart(frames)
        return stamped

    def preview_wanted(self, source: str) -> bool:
        """Whether somebody subscribes to pictures of `source`; see `stream.pubsub.preview`."""
        topic = f"{PREVIEW_PREFIX}{source}".encode()
        return any(topic.startswith(prefix) for prefix in self._previews)

    def publish_preview(self, source: str, timestamp_s: float, rgb: NDArray[np.uint8]) -> None:
        """Send a picture, (H, W, 3) uint8 RGB, captured at `timestamp_s` of the source clock.

        Raises:
            PublishError: the publisher is closed or its socket has failed.
        """
        message = encode_preview(source, timestamp_s, rgb)
        with self._lock:
            self._check_open()
            self._inlet.send_multipart(message)

    def close(self) -> None:
        """Send what was published, close, and free the endpoint; may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._thread.is_alive():
                self._inlet.send(_STOP)
        self._thread.join()
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed or not self._thread.is_alive():
            raise PublishError(f"the publisher on {self.endpoint} is closed")

    def _serve(self, inbox: zmq.Socket[bytes]) -> None:
        """Own the XPUB socket until `close`: forward what is published, answer subscriptions."""
        last: dict[bytes, list[bytes]] = {}
        poller = zmq.Poller()
        poller.register(inbox, zmq.POLLIN)
        poller.register(self._outlet, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._outlet in ready:
                request = self._outlet.recv_multipart()
                # 1 subscribes and 0 unsubscribes; anything else is no business of a subscriber.
                self._note_preview(request[0])
                if request[0][:1] == b"\x01":
                    for topic, frames in last.items():
                        if topic.startswith(request[0][1:]):
                            self._outlet.send_multipart(frames)
                elif request[0][:1] != b"\x00":
                    _log.debug("ignored a message of %d bytes", sum(map(len, request)))
            if inbox in ready:
                frames = inbox.recv_multipart()
                if frames == [_STOP]:
                    return
                if not frames[0].startswith(PREVIEW_PREFIX.encode()):  # pictures are never kept
                    last[frames[0]] = frames
                self._outlet.send_multipart(frames)

    def _note_preview(self, request: bytes) -> None:
        """Remember who asks for pictures; libzmq reports the last of equal unsubscriptions alone."""
        prefix = request[1:]
        if not prefix.startswith(PREVIEW_PREFIX.encode()):
            return
        if request[:1] == b"\x01":
            self._previews |= {prefix}
        elif request[:1] == b"\x00":
            self._previews -= {prefix}

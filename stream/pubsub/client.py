"""Receiving what `emostream` publishes; needs pyzmq and msgspec only.

    with EmotionClient("tcp://127.0.0.1:5556", source="cam0") as client:
        for event in client:
            if isinstance(event, Label):
                print(event.smoothed.label, event.scores)

Connection changes, losses, silence and unreadable messages are counted in `client.stats` and logged
as warnings to the logger `stream.pubsub.client`; none of them ends the loop.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from typing import Any, Self, overload

import zmq

from emostream.errors import ConfigError, EmostreamError
from stream.pubsub.messages import (
    DEFAULT_ENDPOINT,
    KINDS,
    Event,
    EventT,
    Kind,
    Label,
    MessageError,
    Status,
    VersionError,
    check_source,
    decode,
    parse_topic,
    topic_of,
)
from stream.pubsub.tracking import ClientStats, Tracker, warn_sparsely

_ATTEMPTS = zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED
_REFUSALS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_WATCHED = _ATTEMPTS | _REFUSALS | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
_ABANDONED_AFTER_S = 0.5
_log = logging.getLogger(__name__)


class ReceiveTimeout(EmostreamError, TimeoutError):
    """Nothing was received within `timeout_ms`."""


class _Receiver:
    """What the blocking and the asyncio client share: socket, checks and counters."""

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        source: str | None = None,
        *,
        topics: Iterable[Kind] = KINDS,
        curve: str | os.PathLike[str] | None = None,
        timeout_ms: float | None = None,
        stale_after_s: float = 3.0,
        max_message_bytes: int = 1 << 20,
    ) -> None:
        self.endpoint = endpoint
        self.source = None if source is None else check_source(source)
        self.topics = frozenset(topics)
        if not self.topics or not self.topics <= set(KINDS):
            raise ConfigError(
                f"topics must be some of {', '.join(KINDS)}; got {sorted(self.topics)}"
            )
        self.timeout_ms = timeout_ms
        self.stats = ClientStats()
        self._tracker = Tracker(self.stats, stale_after_s)
        if source is not None:
            self._tracker.expect(source, time.monotonic())
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            self._socket = stack.enter_context(context.socket(zmq.SUB))
            self._socket.linger = 0
            self._socket.maxmsgsize = max_message_bytes
            self._socket.reconnect_ivl = 100
            self._socket.reconnect_ivl_max = 2000
            # Detects a publisher whose host vanished without closing the connection.
            self._socket.heartbeat_ivl = 2000
            self._socket.heartbeat_timeout = 6000
            if curve is not None:
                from stream.sockets import security

                security.configure_client(self._socket, security.load_client_keys(curve))
            self._abandoned_at_s = math.inf
            self._monitor = stack.enter_context(self._socket.get_monitor_socket(_WATCHED))
            stack.callback(self._socket.disable_monitor)
            for prefix in self._prefixes():
                self._socket.subscribe(prefix)
            self._socket.ipv6 = "[" in endpoint
            try:
                self._socket.connect(endpoint)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"cannot connect to {endpoint!r}: {error.strerror}; wanted tcp://HOST:PORT or ipc://PATH"
                ) from error
            self._resources = stack.pop_all()

    def stale_sources(self) -> dict[str, float]:
        """Sources without a status for longer than `stale_after_s`, and seconds since the last.

        A source that was asked for by name counts from the start; one that stopped never does.
        """
        return self._tracker.stale(time.monotonic())

    def close(self) -> None:
        """Close the connection; may be called again."""
        self._resources.close()

    def _prefixes(self) -> list[str]:
        # Status is always received, as the sign of life. Its topic has no trailing dot, so that
        # status.cam1 brings status.cam10 too: `_accept` sorts that out.
        if self.source is None:
            return ["status.", "emotion."] if self.topics - {"status"} else ["status."]
        if {"label", "reasoning"} <= self.topics:
            return [f"status.{self.source}", f"emotion.{self.source}."]
        return [topic_of(kind, self.source) for kind in KINDS if kind in self.topics | {"status"}]

    def _steps(
        self, take: Callable[[], EventT | None], timeout_ms: float | None
    ) -> Generator[int, None, EventT]:
        """Yield for how many milliseconds to wait for input, until `take` finds an event to return."""
        timeout_ms = self.timeout_ms if timeout_ms is None else timeout_ms
        deadline_s = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        while True:
            event = take()
            if event is not None:
                return event
            wait_s = min(
                self._tracker.next_check_s(time.monotonic()), self._reconnect_if_abandoned()
            )
            if deadline_s is not None:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise ReceiveTimeout(
                        f"nothing from {self.endpoint} within {timeout_ms:g} ms"
                        + ("" if self.stats.connected else ": not connected")
                    )
                wait_s = min(wait_s, left_s)
            yield math.ceil(1000 * wait_s)

    def _latest_steps(
        self, kind: type[EventT], timeout_ms: float | None
    ) -> Generator[int, None, EventT]:
        """As `_steps`, for the newest event of one kind."""
        if kind.__name__.lower() not in self.topics:
            raise ConfigError(f"recv_latest: {kind.__name__} is not among the topics subscribed to")
        return self._steps(lambda: self._newest_pending(kind), timeout_ms)

    def _newest_pending(self, kind: type[EventT]) -> EventT | None:
        newest: EventT | None = None
        while (event := self._next_pending()) is not None:
            if isinstance(event, kind):
                newest = event
        return newest

    def _next_pending(self) -> Event | None:
        """The next event among at most 100 messages that have arrived, without waiting."""
        for _ in range(100):
            self._read_monitor()
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            event = self._accept(frames)
            if event is not None:
                return event
        return None

    def _accept(self, frames: list[bytes]) -> Event | None:
        """The event of a message, or None when it is unreadable, a replay, or not asked for."""
        try:
            event = decode(frames)
        except VersionError as error:
            self.stats.foreign_version += 1
            warn_sparsely(self.stats.foreign_version, "ignored a message: %s", error)
            return None
        except MessageError as error:
            self.stats.malformed += 1
            warn_sparsely(self.stats.malformed, "ignored a malformed message: %s", error)
            return None
        if self.source not in (None, event.source) or not self._tracker.is_new(event):
            return None
        if isinstance(event, Status):
            self._tracker.note_status(event, time.monotonic())
        if parse_topic(event.topic)[0] not in self.topics:
            return None
        self.stats.received += 1
        return event

    def _read_monitor(self) -> None:
        while self._monitor.poll(0):
            event, _ = struct.unpack("=HI", self._monitor.recv_multipart()[0])
            if event & _ATTEMPTS:
                self._abandoned_at_s = math.inf
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.stats.connected = True
                self.stats.connections += 1
                if self.stats.connections > 1:
                    _log.warning("reconnected to %s", self.endpoint)
            else:
                self._abandoned_at_s = time.monotonic() + _ABANDONED_AFTER_S
                if event & _REFUSALS:
                    self.stats.refusals += 1
                    warn_sparsely(
                        self.stats.refusals,
                        "the handshake with %s failed: check the keys (curve=DIR) at both ends",
                        self.endpoint,
                    )
                elif self.stats.connected:
                    _log.warning("lost the connection to %s; reconnecting", self.endpoint)
                self.stats.connected = False

    def _reconnect_if_abandoned(self) -> float:
        """Connect anew where libzmq will not; seconds until that may be due.

        libzmq retries at once after a broken connection, but gives an endpoint up for good after a
        message that breaks its rules (one over `max_message_bytes`) or a refused handshake.
        """
        left_s = self._abandoned_at_s - time.monotonic()
        if left_s > 0:
            return min(left_s, 3600.0)
        with suppress(zmq.ZMQError):  # libzmq may have forgotten the endpoint by itself
            self._socket.disconnect(self.endpoint)
        self._socket.connect(self.endpoint)
        self._abandoned_at_s = math.inf
        return _ABANDONED_AFTER_S


class EmotionClient(_Receiver):
    """A blocking, endless iterator of typed events; a context manager. Not thread-safe.

    Args:
        endpoint: where the publisher listens.
        source: the one source wanted, or None for all.
        topics: the kinds of events to return, among label, reasoning and status.
        curve: directory with `server.key`, `client.key` and `client.key_secret`, made by
            `emostream keygen`; None for a publisher without keys.
        timeout_ms: default limit of every wait; None waits for ever.
        stale_after_s: a source without a status for so long is stale. They come every second.
        max_message_bytes: a longer message is not received and ends its connection.

    Raises:
        ConfigError: `endpoint` or `topics` cannot be used.
        MessageError: `source` is no valid name.
        KeyFileError: a key file is missing or malformed.
    """

    def recv(self, timeout_ms: float | None = None) -> Event:
        """The next event in the order of arrival.

        Raises:
            ReceiveTimeout: none came within `timeout_ms` (default: the client's).
        """
        return self._drive(self._steps(self._next_pending, timeout_ms))

    @overload
    def recv_latest(self, *, timeout_ms: float | None = None) -> Label: ...
    @overload
    def recv_latest(self, kind: type[EventT], *, timeout_ms: float | None = None) -> EventT: ...
    def recv_latest(self, kind: Any = Label, *, timeout_ms: float | None = None) -> Any:
        """The newest event of one kind; whatever else has arrived by then is discarded.

        For a control loop that is slower than the stream. Waits when none of the kind has arrived
        since the last call.

        Raises:
            ReceiveTimeout: none came within `timeout_ms` (default: the client's).
            ConfigError: `kind` is not among the client's topics.
        """
        return self._drive(self._latest_steps(kind, timeout_ms))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return self.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, steps: Generator[int, None, EventT]) -> EventT:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        try:
            while True:
                poller.poll(next(steps))
        except StopIteration as stop:
            event: EventT = stop.value
            return event


class AsyncEmotionClient(_Receiver):
    """Twin of `EmotionClient` for asyncio: `async with`, `async for`, `await client.recv()`."""

    async def recv(self, timeout_ms: float | None = None) -> Event:
        """As `EmotionClient.recv`."""
        return await self._drive(self._steps(self._next_pending, timeout_ms))

    @overload
    async def recv_latest(self, *, timeout_ms: float | None = None) -> Label: ...
    @overload
    async def recv_latest(
        self, kind: type[EventT], *, timeout_ms: float | None = None
    ) -> EventT: ...
    async def recv_latest(self, kind: Any = Label, *, timeout_ms: float | None = None) -> Any:
        """As `EmotionClient.recv_latest`."""
        return await self._drive(self._latest_steps(kind, timeout_ms))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await self.recv()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _drive(self, steps: Generator[int, None, EventT]) -> EventT:
        from zmq.asyncio import Poller

        poller = Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        try:
            while True:
                await poller.poll(next(steps))
        except StopIteration as stop:
            event: EventT = stop.value
            return event

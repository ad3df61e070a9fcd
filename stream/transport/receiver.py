"""The inference side of the ingest protocol: one ROUTER that every capture process talks to.

In the thread that owns the windowers::

    with Receiver(step_s=0.5) as server:
        address = server.bind_local()            # for the capture processes that we start
        ...
        while running:
            for event in server.poll(timeout_ms=20):
                match event.message:
                    case FrameHeader() as frame:
                        windowers[event.source].add_frame(frame.time_s, event.data, frame.watermark_s)
"""

import contextlib
import logging
import math
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import zmq
import zmq.utils.monitor

from stream.sockets import endpoints
from stream.sockets.local_endpoint import LocalEndpoint
from stream.transport.events import Event
from stream.transport.peers import PeerTable, Socket
from stream.transport.protocol import (
    MAX_MESSAGE_BYTES,
    Downstream,
    End,
    Hello,
    IngestAddress,
    Ping,
    Pong,
    ProtocolError,
    Reject,
    Stop,
    Unknown,
    Upstream,
    decode_upstream,
    encode,
)
from stream.transport.sender import drain

FAREWELL_S = 0.2  # for peers to read that they are to stop

_log = logging.getLogger(__name__)


class Receiver:
    """Receives frames, sound and device states from capture processes.

    Call `poll` and `close` from one thread; `start`, `grant`, `wake` and `stats` from any. Nothing that a peer
    sends can raise: what is not of the protocol is dropped, counted in `stats`, and logged the first time.

    Args:
        step_s: grid step, told to every peer.
        num_frames: grid points of a window, told to every peer; 0 if files shall be sampled on the grid alone.
        max_message_bytes: larger messages close their connection (libzmq's MAXMSGSIZE).
        context: ZeroMQ context of the endpoints bound by `bind`, by default the process's.
    """

    def __init__(
        self,
        *,
        step_s: float,
        num_frames: int = 0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        context: zmq.Context[Socket] | None = None,
    ) -> None:
        self._max_message_bytes = max_message_bytes
        self._context = context or zmq.Context.instance()
        self._local: LocalEndpoint | None = None
        self._private_context: zmq.Context[Socket] | None = None
        self._routers: dict[Socket, str] = {}  # and the token that each asks for
        self._monitors: dict[Socket, Socket] = {}  # and the router that each reports on
        self._peers = PeerTable(step_s, num_frames, self._send, self._count)
        self._commands: deque[Callable[[], None]] = deque()
        self._stats: Counter[str] = Counter()
        self._lock = threading.Lock()  # of the wake-up socket and the statistics
        self._closed = False
        wake_endpoint = f"inproc://receiver-{id(self)}"
        self._woken = self._context.socket(zmq.PAIR)
        self._woken.bind(wake_endpoint)
        self._wake_up = self._context.socket(zmq.PAIR)
        self._wake_up.connect(wake_endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._woken, zmq.POLLIN)

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind_local(self) -> IngestAddress:
        """Bind a private endpoint for capture processes on this host; returns how to reach it.

        Peers prove themselves by a random token. Where the platform has no ipc, the connection over loopback tcp is
        also encrypted with keys made for this run, so that no other program can pose as the server.
        """
        local = self._local = LocalEndpoint()
        token = secrets.token_hex(32)
        if local.endpoint.startswith("ipc://"):
            return IngestAddress(self.bind(local.endpoint, token=token), token)
        public, secret = zmq.curve_keypair()

        def secure(socket: Socket) -> None:
            socket.curve_server = True
            socket.curve_secretkey = secret

        # A context of its own: an authenticator of the process's context would ask for keys on its allow-list.
        self._private_context = zmq.Context()
        endpoint = self._bind(self._private_context, local.endpoint, token, secure)
        return IngestAddress(endpoint, token, public.decode())

    def bind(
        self, endpoint: str, *, token: str = "", secure: Callable[[Socket], None] | None = None
    ) -> str:
        """Bind one more endpoint; returns it with the port that was chosen.

        Args:
            endpoint: `ipc://…` or `tcp://interface:port`, port `*` for any.
            token: what a `Hello` must carry; empty where `secure` (CURVE and an allow-list) authenticates.
            secure: sets security options of the socket before it is bound.

        Raises:
            BindError: the address is taken, does not exist on this host, or may not be used.
            ConfigError: the endpoint is malformed.
        """
        return self._bind(self._context, endpoint, token, secure)

    def close(self) -> None:
        """Tell every peer to stop, close the sockets, remove the ipc file and its directory."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for monitor in self._monitors:
            self._read_monitor(monitor)
        told = sum(self._send(router, identity, Stop()) for router, identity in self._peers)
        self._wait_until_left(told)
        for router in self._routers:
            router.disable_monitor()
            router.close()
        for socket in (*self._monitors, self._woken, self._wake_up):
            socket.close(linger=0)
        if self._private_context is not None:
            self._private_context.term()
        if self._local is not None:
            self._local.remove()

    # From any thread

    def start(self) -> None:
        """The model is warm: pacing begins; who comes later is told at once."""
        self._post(self._peers.start)

    def grant(self, source: str, messages: int) -> None:
        """Let the lossless peers of `source` send so many more frames or PCM chunks: as many as were consumed.

        `INITIAL_CREDIT` is granted to each when it has been told to start.
        """
        self._post(lambda: self._peers.grant(source, messages))

    def wake(self) -> None:
        """Make a `poll` that waits return now."""
        with self._lock, contextlib.suppress(zmq.Again):
            if not self._closed:
                self._wake_up.send(b"", zmq.NOBLOCK)

    def stats(self) -> dict[str, int]:
        """What was refused or lost, how often, by reason; reasons that did not occur are absent.

        `malformed`, `version`; `rejected` (a hello with a wrong token, or too many peers), `unauthenticated` (no
        accepted hello before it); `future` (stamped ahead of the clock); `lost_in_transport` (gaps in `seq`);
        `handshake_failed` (not ZeroMQ, or wrong keys), `disconnected` (connections that ended, for whatever reason:
        an oversized message is one).
        """
        with self._lock:
            return dict(self._stats)

    # From the polling thread

    def poll(self, timeout_ms: int, max_messages: int = 256) -> list[Event]:
        """Wait for messages; returns what happened, in order of arrival, or [] after the timeout or `wake`."""
        ready: dict[Any, int] = dict(self._poller.poll(timeout_ms))
        if self._woken in ready:
            drain(self._woken)
        while self._commands:
            self._commands.popleft()()
        for monitor in self._monitors:
            if monitor in ready:
                self._read_monitor(monitor)
        events: list[Event] = []
        drained = True
        for router in self._routers:
            if router in ready:
                drained &= self._receive(router, events, max_messages)
        events.extend(self._peers.find_silent(listened=drained))
        return events

    def _bind(
        self,
        context: zmq.Context[Socket],
        endpoint: str,
        token: str,
        secure: Callable[[Socket], None] | None,
    ) -> str:
        router = context.socket(zmq.ROUTER)
        try:
            router.linger = 200
            router.rcvhwm = 64  # each peer's; the rest waits in its own bounded queue
            router.maxmsgsize = self._max_message_bytes
            router.router_mandatory = True  # says so when a peer has gone
            if secure is not None:
                secure(router)
            reached = endpoints.bind(router, endpoint)
        except BaseException:
            router.close(linger=0)
            raise
        failures = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        failures |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        monitor = router.get_monitor_socket(failures | zmq.EVENT_DISCONNECTED)
        self._monitors[monitor] = router
        self._routers[router] = token
        for socket in (router, monitor):
            self._poller.register(socket, zmq.POLLIN)
        return reached

    def _read_monitor(self, monitor: Socket) -> int:
        """Count what has become of connections; returns how many have ended."""
        ended = 0
        with contextlib.suppress(zmq.Again):
            while True:
                event = zmq.utils.monitor.recv_monitor_message(monitor, zmq.NOBLOCK)["event"]
                if event == zmq.EVENT_DISCONNECTED:
                    ended += 1
                    self._count("disconnected")
                else:
                    self._count("handshake_failed")
        return ended

    def _wait_until_left(self, peers: int) -> None:
        """Wait until so many have hung up, not for long: what they have yet to read is lost if we do it first."""
        poller = zmq.Poller()
        for monitor in self._monitors:
            poller.register(monitor, zmq.POLLIN)
        deadline_s = time.perf_counter() + FAREWELL_S
        while peers > 0 and (left_s := deadline_s - time.perf_counter()) > 0:
            for monitor, _ in poller.poll(math.ceil(1000 * left_s)):
                peers -= self._read_monitor(monitor)

    def _receive(self, router: Socket, events: list[Event], max_messages: int) -> bool:
        """Take what waits in a socket; false if there was more than `max_messages`."""
        for _ in range(max_messages):
            try:
                parts = router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return True
            identity = parts[0].bytes
            try:
                if len(parts) != 3:
                    raise ProtocolError("malformed", f"ingest: a message of {len(parts)} parts")
                message = decode_upstream(parts[1].buffer)
                event = self._handle(router, identity, message, parts[2].buffer)
            except ProtocolError as error:
                self._count(error.kind, str(error))
                if error.kind == "version":
                    self._send(router, identity, Reject(str(error)))
                continue
            if event is not None:
                events.append(event)
        return False

    def _handle(
        self, router: Socket, identity: bytes, message: Upstream, payload: memoryview
    ) -> Event | None:
        if isinstance(message, Hello):
            return self._peers.greet(router, identity, message, self._routers[router])
        found = self._peers.find(router, identity)
        if found is None:
            self._count("unauthenticated", f"ingest: {type(message).__name__} before any hello")
            self._send(router, identity, Unknown())
            return None
        peer, ledger = found
        peer.heard_s = time.perf_counter()
        if isinstance(message, Ping):
            self._send(router, identity, Pong(message.sent_s, peer.heard_s, time.perf_counter()))
            return None
        missed = peer.lost_in_transport
        event = ledger.event(peer, message, payload)
        if peer.lost_in_transport > missed:
            problem = f"ingest: {peer.hello.source} lost messages on the way"
            self._count("lost_in_transport", problem, peer.lost_in_transport - missed)
        if isinstance(message, End):
            self._send(router, identity, Stop())
        return event

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self.wake()

    def _send(self, router: Socket, identity: bytes, message: Downstream) -> bool:
        """Send without waiting; false if the peer has gone, or does not read and so will fall silent too."""
        try:
            router.send_multipart([identity, encode(message), b""], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            return False
        return True

    def _count(self, reason: str, problem: str = "", amount: int = 1) -> None:
        with self._lock:
            first = problem and reason not in self._stats
            self._stats[reason] += amount
        if first:
            _log.warning("%s (further cases are only counted)", problem)

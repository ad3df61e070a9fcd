"""The inference side of the ingest protocol: one ROUTER that every capture process talks to.

In the process that owns the windowers::

    with IngestServer(step_s=0.5) as server:
        address = server.bind_local()            # for the capture processes that we start
        ...
        while running:
            for event in server.poll(timeout_ms=20):
                match event:
                    case Frame(): windowers[event.source].add_frame(...)
"""

import contextlib
import hmac
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from stream.capture_link import CaptureLink
from stream.ingest_events import (
    Connected,
    Ended,
    EpochSet,
    Frame,
    IngestEvent,
    Marked,
    Pcm,
    PeerLost,
    StateChanged,
)
from stream.ingest_protocol import (
    MAX_MESSAGE_BYTES,
    Credit,
    Downstream,
    End,
    Epoch,
    FrameHeader,
    Hello,
    IngestAddress,
    Mark,
    PcmHeader,
    Ping,
    Pong,
    ProtocolError,
    Reject,
    Start,
    State,
    Stop,
    Stream,
    Upstream,
    Welcome,
    decode_upstream,
    encode,
    frame_pixels,
    pcm_samples,
)
from stream.local_endpoint import LocalEndpoint

__all__ = [
    "CaptureLink",
    "Connected",
    "Ended",
    "EpochSet",
    "Frame",
    "IngestAddress",
    "IngestEvent",
    "IngestServer",
    "Marked",
    "Pcm",
    "PeerLost",
    "StateChanged",
]

SILENCE_S = 5.0  # a peer that does not even ping is gone
MAX_LEAD_S = 1.0  # a capture time further ahead of the clock is a broken clock, not a capture
INITIAL_CREDIT = 32
MAX_PEERS = 64


@dataclass(slots=True)
class _Peer:
    hello: Hello
    heard_s: float
    next_seq: dict[Stream, int] = field(default_factory=dict)
    ended: bool = False


@dataclass(slots=True)
class _Losses:
    """Drops that ended with earlier capture processes of a stream, and the current one's."""

    past_frames: int = 0
    past_audio_ms: float = 0.0
    past_restarts: int = 0
    frames: int = 0
    audio_ms: float = 0.0
    restarts: int = 0

    def retire(self) -> None:
        self.past_frames += self.frames
        self.past_audio_ms += self.audio_ms
        self.past_restarts += self.restarts
        self.frames, self.audio_ms, self.restarts = 0, 0.0, 0


class IngestServer:
    """Receives frames, sound and device states from capture processes.

    Use `poll` and `__exit__` from one thread; `start`, `grant`, `stop_source` and `stats` from any. Nothing that a peer
    sends can raise: what is not of the protocol is counted in `stats` and dropped.

    Args:
        step_s: grid step, told to every peer.
        max_message_bytes: larger messages close their connection (libzmq's MAXMSGSIZE).
    """

    def __init__(
        self,
        *,
        step_s: float,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._step_s = step_s
        self._max_message_bytes = max_message_bytes
        self._context = context or zmq.Context.instance()
        self._routers: dict[zmq.Socket[bytes], str] = {}  # and the token that each asks for
        self._poller = zmq.Poller()
        self._peers: dict[tuple[zmq.Socket[bytes], bytes], _Peer] = {}
        self._owners: dict[tuple[str, Stream], tuple[zmq.Socket[bytes], bytes]] = {}
        self._losses: dict[tuple[str, Stream], _Losses] = {}
        self._epochs: dict[str, float] = {}
        self._local: LocalEndpoint | None = None
        self._started: set[str] | None = set()  # None: every source
        self._commands: deque[Callable[[], None]] = deque()
        self._stats: Counter[str] = Counter()
        self._stats_lock = threading.Lock()
        wake_endpoint = f"inproc://ingest-server-{id(self)}"
        self._woken = self._context.socket(zmq.PAIR)
        self._woken.bind(wake_endpoint)
        self._wake_up = self._context.socket(zmq.PAIR)
        self._wake_up.connect(wake_endpoint)
        self._wake_lock = threading.Lock()
        self._poller.register(self._woken, zmq.POLLIN)
        self._closed = False
        self._drained = True
        self._polled_s = time.perf_counter()

    # Lifetime

    def __enter__(self) -> "IngestServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind_local(self) -> IngestAddress:
        """Bind a private endpoint for capture processes on this host; returns how to reach it.

        Peers prove themselves by a random token. Over loopback tcp (no ipc on this platform) the connection is
        encrypted with keys made for this run, if libzmq can, so that no other program can pose as the server.
        """
        local = LocalEndpoint()
        self._local = local
        token = secrets.token_hex(32)
        server_key = ""
        secure = None
        if not local.endpoint.startswith("ipc://") and zmq.has("curve"):
            public, secret = zmq.curve_keypair()
            server_key = public.decode()

            def secure(socket: zmq.Socket[bytes]) -> None:
                socket.curve_server = True
                socket.curve_secretkey = secret

        endpoint = self.bind(local.endpoint, token=token, secure=secure)
        return IngestAddress(endpoint, token, server_key)

    def bind(
        self,
        endpoint: str,
        *,
        token: str = "",
        secure: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> str:
        """Bind one more endpoint; returns it with the port that was chosen.

        Args:
            endpoint: `ipc://…` or `tcp://interface:port`, port `*` for any.
            token: what a `Hello` must carry; empty where `secure` (CURVE and an allow-list) authenticates.
            secure: sets security options of the socket before it is bound.

        Raises:
            zmq.ZMQError: the endpoint is in use or not ours.
        """
        router = self._context.socket(zmq.ROUTER)
        try:
            router.linger = 200
            router.rcvhwm = 64  # each peer's; the rest waits in its own bounded queue
            router.sndhwm = 1000
            router.maxmsgsize = self._max_message_bytes
            if secure is not None:
                secure(router)
            router.bind(endpoint)
        except BaseException:
            router.close(linger=0)
            raise
        self._routers[router] = token
        self._poller.register(router, zmq.POLLIN)
        return bytes(router.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def close(self) -> None:
        """Tell every peer to stop, close the sockets, remove the ipc file and its directory."""
        if self._closed:
            return
        self._closed = True
        for router, identity in self._peers:
            self._send(router, identity, Stop())
        for socket in (*self._routers, self._woken, self._wake_up):
            socket.close()
        if self._local is not None:
            self._local.remove()

    # From any thread

    def start(self, source: str | None = None) -> None:
        """The model is warm: begin the pacing of `source`, or of every source; later peers are told at once."""

        def command() -> None:
            if source is None:
                self._started = None
            elif self._started is not None:
                self._started.add(source)
            for (router, identity), peer in self._peers.items():
                if source in (None, peer.hello.source):
                    self._send(router, identity, Start())
                    self._grant_first(router, identity, peer)

        self._post(command)

    def grant(self, source: str, messages: int) -> None:
        """Let the lossless peers of `source` send so many more frames or PCM chunks: as many as were consumed."""
        self._post(lambda: self._tell(source, Credit(messages)))

    def stop_source(self, source: str) -> None:
        """Tell the capture processes of `source` to exit."""
        self._post(lambda: self._tell(source, Stop()))

    def wake(self) -> None:
        """Make a `poll` that waits return now."""
        with self._wake_lock:
            if not self._closed:
                with contextlib.suppress(zmq.Again):
                    self._wake_up.send(b"", zmq.NOBLOCK)

    def stats(self) -> dict[str, int]:
        """How many messages were refused, by reason.

        `malformed`, `version`, `rejected` (hello with a wrong token), `unauthenticated` (no accepted hello),
        `future` (stamped ahead of the clock), `lost_in_transport` (gaps in `seq`).
        """
        with self._stats_lock:
            return dict(self._stats)

    # From the polling thread

    def poll(self, timeout_ms: int, max_events: int = 256) -> list[IngestEvent]:
        """Wait for messages; returns what happened, in order of arrival, or [] after the timeout or `wake`."""
        ready = dict(self._poller.poll(timeout_ms))
        self._drained = True
        if self._woken in ready:
            with contextlib.suppress(zmq.Again):
                while True:
                    self._woken.recv(zmq.NOBLOCK)
        while self._commands:
            self._commands.popleft()()
        events: list[IngestEvent] = []
        for router in self._routers:
            if router in ready:
                self._receive(router, events, max_events)
        self._find_silent(events)
        return events

    def _receive(
        self, router: zmq.Socket[bytes], events: list[IngestEvent], max_events: int
    ) -> None:
        for _ in range(max_events):
            try:
                parts = router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                if len(parts) != 3:
                    raise ProtocolError("malformed", f"ingest: message of {len(parts)} parts")
                message = decode_upstream(parts[1].buffer)
                event = self._handle(router, parts[0].bytes, message, parts[2].buffer)
            except ProtocolError as error:
                self._count(error.kind)
                if error.kind == "version":
                    self._send(router, parts[0].bytes, Reject(str(error)))
                continue
            if event is not None:
                events.append(event)
        self._drained = False

    def _handle(
        self, router: zmq.Socket[bytes], identity: bytes, message: Upstream, payload: memoryview
    ) -> IngestEvent | None:
        now_s = time.perf_counter()
        if isinstance(message, Hello):
            return self._welcome(router, identity, message, now_s)
        peer = self._peers.get((router, identity))
        if peer is None:
            self._count("unauthenticated")
            return None
        peer.heard_s = now_s
        hello = peer.hello
        if isinstance(message, Ping):
            self._send(router, identity, Pong(message.sent_s, now_s, time.perf_counter()))
            return None
        return self._event(peer, hello.source, message, payload, now_s)

    def _event(
        self, peer: _Peer, source: str, message: Upstream, payload: memoryview, now_s: float
    ) -> IngestEvent | None:
        match message:
            case FrameHeader():
                rgb = frame_pixels(message, payload)
                self._check_time(peer, message.time_s, now_s)
                self._check_seq(peer, "video", message.seq)
                return Frame(
                    source=source,
                    time_s=message.time_s,
                    seq=message.seq,
                    rgb=rgb,
                    mark_s=message.mark_s,
                    received_s=now_s,
                )
            case PcmHeader():
                pcm = pcm_samples(payload)
                self._check_time(peer, message.start_s, now_s)
                self._check_seq(peer, "audio", message.seq)
                return Pcm(
                    source=source,
                    start_s=message.start_s,
                    seq=message.seq,
                    pcm=pcm,
                    received_s=now_s,
                )
            case Mark():
                self._check_time(peer, message.time_s, now_s)
                return Marked(source=source, stream=message.stream, time_s=message.time_s)
            case State():
                return self._state(peer, message)
            case Epoch():
                self._epochs[source] = message.epoch_s
                return EpochSet(source=source, epoch_s=message.epoch_s)
            case End():
                peer.ended = True
                return Ended(source=source, streams=peer.hello.streams)
        raise AssertionError(f"unhandled {type(message).__name__}")

    def _state(self, peer: _Peer, message: State) -> StateChanged:
        source = peer.hello.source
        losses = self._losses.setdefault((source, message.stream), _Losses())
        losses.frames = message.dropped_frames
        losses.audio_ms = message.dropped_audio_ms
        losses.restarts = message.restarts
        return StateChanged(
            source=source,
            stream=message.stream,
            state=message.state,
            detail=message.detail,
            dropped_frames=losses.past_frames + losses.frames,
            dropped_audio_ms=losses.past_audio_ms + losses.audio_ms,
            restarts=losses.past_restarts + losses.restarts,
            clock_uncertainty_s=message.clock_uncertainty_s,
        )

    def _welcome(
        self, router: zmq.Socket[bytes], identity: bytes, hello: Hello, now_s: float
    ) -> Connected | None:
        token = self._routers[router]
        known = (router, identity) in self._peers
        if token and not hmac.compare_digest(hello.token.encode(), token.encode()):
            self._count("rejected")
            self._send(router, identity, Reject("wrong token"))
            return None
        if not known and len(self._peers) >= MAX_PEERS:
            self._count("rejected")
            self._send(router, identity, Reject(f"{MAX_PEERS} capture processes already"))
            return None
        peer = _Peer(hello, now_s)
        self._peers[router, identity] = peer
        if not known:
            self._replace(router, identity, hello)
        started = self._started is None or hello.source in self._started
        epoch_s = self._epochs.get(hello.source)
        self._send(router, identity, Welcome(self._step_s, started, epoch_s))
        if started:
            self._grant_first(router, identity, peer)
        if known:
            return None  # it asked again because our answer was slow
        return Connected(
            source=hello.source,
            streams=hello.streams,
            pid=hello.pid,
            clock=hello.clock,
            lossless=hello.lossless,
        )

    def _replace(self, router: zmq.Socket[bytes], identity: bytes, hello: Hello) -> None:
        """The newest process owns its streams: a killed one's connection may outlive it by seconds."""
        for stream in hello.streams:
            key = (hello.source, stream)
            owner = self._owners.get(key)
            self._owners[key] = (router, identity)
            old = self._peers.pop(owner, None) if owner else None
            if owner and old and old.hello.pid != hello.pid:
                self._send(*owner, Reject(f"replaced by process {hello.pid}"))
            if key in self._losses and not (old and old.hello.pid == hello.pid):
                self._losses[key].retire()

    def _grant_first(self, router: zmq.Socket[bytes], identity: bytes, peer: _Peer) -> None:
        if peer.hello.lossless:
            self._send(router, identity, Credit(INITIAL_CREDIT))

    def _check_time(self, peer: _Peer, time_s: float, now_s: float) -> None:
        """Refuse data from the future: it would complete windows that have not happened."""
        origin_s = 0.0 if peer.hello.clock == "host" else self._epochs.get(peer.hello.source)
        if peer.hello.lossless or origin_s is None:
            return
        if time_s + origin_s > now_s + MAX_LEAD_S:
            raise ProtocolError("future", f"ingest: {peer.hello.source} is ahead of the clock")

    def _check_seq(self, peer: _Peer, stream: Stream, seq: int) -> None:
        lost = seq - peer.next_seq.get(stream, seq)
        peer.next_seq[stream] = seq + 1
        if lost > 0:
            self._count("lost_in_transport", lost)

    def _find_silent(self, events: list[IngestEvent]) -> None:
        now_s = time.perf_counter()
        if not self._drained or now_s - self._polled_s > SILENCE_S / 2:
            for peer in self._peers.values():  # it was us who did not listen
                peer.heard_s = now_s
        self._polled_s = now_s
        silent = [key for key, peer in self._peers.items() if now_s - peer.heard_s > SILENCE_S]
        for key in silent:
            peer = self._peers.pop(key)
            if not peer.ended:
                detail = f"capture process {peer.hello.pid} has been silent for {SILENCE_S:g} s"
                events.append(
                    PeerLost(source=peer.hello.source, streams=peer.hello.streams, detail=detail)
                )

    def _tell(self, source: str, message: Downstream) -> None:
        for (router, identity), peer in self._peers.items():
            if peer.hello.source == source and (peer.hello.lossless or isinstance(message, Stop)):
                self._send(router, identity, message)

    def _post(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self.wake()

    def _send(self, router: zmq.Socket[bytes], identity: bytes, message: Downstream) -> None:
        with contextlib.suppress(zmq.Again):  # a peer that does not read will fall silent too
            router.send_multipart([identity, encode(message), b""], zmq.NOBLOCK)

    def _count(self, reason: str, amount: int = 1) -> None:
        with self._stats_lock:
            self._stats[reason] += amount

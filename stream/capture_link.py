"""The capture side of the ingest protocol: what a camera, microphone or file process sends through.

A device loop, in full::

    with CaptureLink(address, source="cam0", streams=("video",)) as link:
        link.wait_ready(timeout_s=30)
        link.send_state("video", "live")
        while not link.stopped:
            time_s, raw = grab()                 # stamped at the source, time.perf_counter
            if link.wanted(time_s):              # optional: saves decoding frames that cannot be used
                link.send_frame(time_s=time_s, rgb=decode(raw))
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from emostream.errors import InputError, LinkError
from stream.clock import ClockOffset, OffsetEstimator
from stream.grid_picker import GridPicker, Pick
from stream.ingest_protocol import (
    MAX_PCM_SAMPLES,
    PCM_RATE_HZ,
    CaptureState,
    Clock,
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
    decode_downstream,
    encode,
)

HELLO_EVERY_S = 0.5
PING_EVERY_S = 1.0
FIRST_PINGS = 8  # back to back, before the first data
SILENCE_S = 5.0  # without an answer for so long, introduce ourselves again
STATE_EVERY_S = 1.0  # counters travel with the state, at most so often
PCM_SNAP_SAMPLES = 32  # 2 ms: a clock offset that is refined must not tear the sound


@dataclass(slots=True)
class _Item:
    header: Upstream
    payload: bytes | memoryview
    audio_ms: float = 0.0


class CaptureLink:
    """Sends frames, sound and device state of one source to the inference process.

    Methods may be called from any thread; a thread of the link's own owns the socket, so no caller ever waits for the
    network.

    Drop policy, live (`lossless=False`): at most `max_frames` grid frames and `max_audio_s` of sound wait to be sent;
    then the oldest of that kind is dropped and counted. With `lossless=True` nothing is dropped: `send_frame` and
    `send_pcm` wait for credit from the inference process, or return at once when the link is stopped.

    Times given to it are on this process's `time.perf_counter` (`clock="host"`) and are converted to the inference
    host's by an offset measured over round trips, which is exactly 0 on the same host; media times pass unchanged.
    """

    def __init__(
        self,
        address: IngestAddress,
        *,
        source: str,
        streams: tuple[Stream, ...],
        clock: Clock = "host",
        lossless: bool = False,
        max_frames: int = 8,
        max_audio_s: float = 4.0,
        secure: Callable[[zmq.Socket[bytes]], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """`secure` sets the CURVE options of the socket before it connects; without it the address's key is used."""
        self._hello = Hello(source, streams, os.getpid(), clock, lossless, address.token)
        self._address = address
        self._secure = secure
        self._context = context or zmq.Context.instance()
        self._max_frames = max_frames
        self._max_audio_ms = max_audio_s * 1000
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._states: dict[Stream, State] = {}
        self._picker: GridPicker | None = None  # known once welcomed
        self._clock_offset = ClockOffset(offset_s=0.0, uncertainty_s=0.0, round_trip_s=0.0)
        self._offset_known = clock == "media"
        self._welcome: Welcome | None = None
        self._connected = False
        self._started = False
        self._stop_reason: str | None = None
        self._rejected = False
        self._credit = 0
        self._next_sample: int | None = None
        self._queued_audio_ms = 0.0
        self._queued_frames = 0
        self._dropped_frames = 0
        self._dropped_audio_ms = 0.0
        self._closing = False
        self._wake_up: zmq.Socket[bytes] | None = None
        self._thread: threading.Thread | None = None

    # Lifetime

    def __enter__(self) -> "CaptureLink":
        wake_endpoint = f"inproc://capture-link-{id(self)}"
        woken = self._context.socket(zmq.PAIR)
        woken.bind(wake_endpoint)
        self._wake_up = self._context.socket(zmq.PAIR)
        self._wake_up.linger = 0
        self._wake_up.connect(wake_endpoint)
        self._thread = threading.Thread(
            target=self._run, args=(woken,), name=f"capture-link-{self._hello.source}", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, flush_s: float = 1.0) -> None:
        """Send what is queued, for at most `flush_s`, and end the thread."""
        if self._thread is None or self._wake_up is None:
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._queue or self.stopped, flush_s)
            self._closing = True
            self._wake()
        self._thread.join()
        self._thread = None
        self._wake_up.close()
        self._wake_up = None

    def wait_ready(self, timeout_s: float) -> Welcome:
        """Wait until the inference process has answered and, for devices, the clock offset is known.

        Raises:
            LinkError: it refused us, or did not answer in time.
        """
        with self._changed:
            ready = self._changed.wait_for(lambda: self._ready or self.stopped, timeout_s)
            if self._rejected:
                raise LinkError(
                    f"capture {self._hello.source}: {self._address.endpoint} refused us: "
                    f"{self._stop_reason}"
                )
            if self._welcome is None or not ready:
                raise LinkError(
                    f"capture {self._hello.source}: no answer from {self._address.endpoint} within "
                    f"{timeout_s:g} s; is `emostream run` up, and is the key the right one?"
                )
            return self._welcome

    def wait_started(self, timeout_s: float | None = None) -> bool:
        """Wait until the model is warm (a file's pacing begins) or the link is stopped; true if started."""
        with self._changed:
            self._changed.wait_for(lambda: self._started or self.stopped, timeout_s)
            return self._started and not self.stopped

    def wait_stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until `stopped`; for pauses between retries that must not delay an exit."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, timeout_s)

    @property
    def stopped(self) -> bool:
        """Whether the inference process told us to stop, refused us, or `stop` was called."""
        return self._stop_reason is not None

    def stop(self, reason: str = "stopped") -> None:
        """Make `stopped` true from this side (signal handlers, parent death)."""
        with self._changed:
            self._stop_reason = self._stop_reason or reason
            self._changed.notify_all()
            self._wake()

    # Clock and grid

    @property
    def step_s(self) -> float:
        """Grid step in seconds; valid after `wait_ready`."""
        assert self._welcome is not None, "wait_ready() first"
        return self._welcome.step_s

    @property
    def clock_offset_s(self) -> float:
        """The inference host's `perf_counter` minus ours; 0 on the same host and for media time."""
        return self._clock_offset.offset_s

    def wanted(self, time_s: float) -> bool:
        """Whether the frame captured at `time_s` may be the newest of its grid cell, so worth decoding.

        Predicted from the frame interval, and true for the first frame of a cell. Call it for every frame in capture
        order, or not at all; false before `wait_ready` has returned.
        """
        with self._changed:
            if self._picker is None:
                return False
            wanted, picks = self._picker.wanted(time_s + self.clock_offset_s)
            self._enqueue_picks(picks)
            return wanted

    # Data

    def send_frame(self, *, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """Offer a frame; only the newest of each grid cell travels onward, once its cell is over.

        Args:
            time_s: capture time, seconds on our `perf_counter` or media time.
            rgb: uint8 (H, W, 3) RGB; kept, so not to be written to afterwards.

        Frames before `wait_ready` has returned are ignored: there is no grid yet.

        Raises:
            InputError: wrong dtype or shape.
        """
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
            raise InputError(
                f"send_frame: wanted uint8 (H, W, 3) RGB, found {rgb.dtype} {rgb.shape}"
            )
        with self._changed:
            if self._picker is None:
                return
            self._enqueue_picks(self._picker.offer(time_s + self.clock_offset_s, rgb))

    def send_pcm(self, *, start_s: float, pcm: NDArray[np.float32]) -> None:
        """Send a chunk of sound.

        Args:
            start_s: time of the first sample, sample-counted by the caller, seconds on our clock; rounded to the
                1/16000 s raster. Within 2 ms of the previous chunk's end it counts as its continuation.
            pcm: float32 (S,) mono 16 kHz in [-1, 1]. Chunks over 10 s are cut.

        Raises:
            InputError: wrong dtype or shape.
        """
        if pcm.dtype != np.float32 or pcm.ndim != 1:
            raise InputError(f"send_pcm: wanted float32 (S,), found {pcm.dtype} {pcm.shape}")
        with self._changed:
            if self._welcome is None or pcm.size == 0:
                return
            first = round((start_s + self.clock_offset_s) * PCM_RATE_HZ)
            if self._next_sample is not None and abs(first - self._next_sample) <= PCM_SNAP_SAMPLES:
                first = self._next_sample
            self._next_sample = first + pcm.size
            for at in range(0, pcm.size, MAX_PCM_SAMPLES):
                part = np.ascontiguousarray(pcm[at : at + MAX_PCM_SAMPLES], "<f4")
                header = PcmHeader((first + at) / PCM_RATE_HZ, 0)
                self._enqueue(_Item(header, part.data.cast("B"), 1000 * part.size / PCM_RATE_HZ))

    def send_state(
        self, stream: Stream, state: CaptureState, detail: str = "", *, restarts: int = 0
    ) -> None:
        """Report what the device is doing; drop counters are added here and kept up to date afterwards.

        `lost` flushes the frame that is still held for its cell.
        """
        with self._changed:
            if stream == "video" and state == "lost" and self._picker:
                self._enqueue_picks(self._picker.close())
            message = State(stream, state, detail[:1000], restarts=restarts)
            self._states[stream] = message
            self._enqueue(_Item(message, b""))

    def send_epoch(self, epoch_s: float) -> None:
        """Say that media time 0 is played at `epoch_s` on our `perf_counter` (file pacing, real time)."""
        with self._changed:
            self._enqueue(_Item(Epoch(epoch_s), b""))

    def send_end(self) -> None:
        """Say that the file is over: flushes the held frame and completes every stream."""
        with self._changed:
            if self._picker:
                self._enqueue_picks(self._picker.close())
            self._enqueue(_Item(End(), b""))

    @property
    def dropped_frames(self) -> int:
        """Grid frames dropped because the queue was full."""
        return self._dropped_frames

    @property
    def dropped_audio_ms(self) -> float:
        """Milliseconds of sound dropped because the queue was full."""
        return self._dropped_audio_ms

    # Queue; every method below here is called with the lock held

    @property
    def _ready(self) -> bool:
        return self._connected and self._picker is not None and self._offset_known

    def _wake(self) -> None:
        if self._wake_up is not None:
            with contextlib.suppress(zmq.Again):  # full: it has been woken already
                self._wake_up.send(b"", zmq.NOBLOCK)

    def _enqueue_picks(self, picks: list[Pick]) -> None:
        for pick in picks:
            if pick.rgb is None:
                assert pick.mark_s is not None
                self._enqueue(_Item(Mark("video", pick.mark_s), b""))
                continue
            height, width, _ = pick.rgb.shape
            pixels = np.ascontiguousarray(pick.rgb).data.cast("B")
            self._enqueue(_Item(FrameHeader(pick.time_s, 0, height, width, pick.mark_s), pixels))

    def _enqueue(self, item: _Item) -> None:
        if self._hello.lossless:
            self._changed.wait_for(lambda: not self._full or self.stopped)
        if self.stopped:
            return
        self._queue.append(item)
        self._queued_frames += isinstance(item.header, FrameHeader)
        self._queued_audio_ms += item.audio_ms
        if not self._hello.lossless:
            while self._queued_frames > self._max_frames:
                self._drop_oldest(FrameHeader)
                self._dropped_frames += 1
            while self._queued_audio_ms > self._max_audio_ms and len(self._queue) > 1:
                self._dropped_audio_ms += self._drop_oldest(PcmHeader).audio_ms
        self._wake()

    @property
    def _full(self) -> bool:
        audio_full = self._queued_audio_ms >= self._max_audio_ms
        return self._queued_frames >= self._max_frames or audio_full

    def _drop_oldest(self, kind: type[FrameHeader] | type[PcmHeader]) -> _Item:
        at = next(i for i, item in enumerate(self._queue) if isinstance(item.header, kind))
        item = self._queue[at]
        del self._queue[at]
        self._forget(item)
        return item

    def _forget(self, item: _Item) -> None:
        self._queued_frames -= isinstance(item.header, FrameHeader)
        self._queued_audio_ms -= item.audio_ms

    # The link's thread

    def _run(self, woken: zmq.Socket[bytes]) -> None:
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.linger = 500
            socket.sndhwm = 4  # what libzmq holds can no longer be dropped oldest first
            socket.rcvhwm = 1000
            socket.maxmsgsize = 64 * 1024
            socket.immediate = True  # never queue for a peer that is not there
            socket.reconnect_ivl = 100
            socket.reconnect_ivl_max = 2000
            self._apply_security(socket)
            socket.connect(self._address.endpoint)
            _LinkLoop(self, socket, woken).run()
        finally:
            socket.close()
            woken.close(linger=0)

    def _apply_security(self, socket: zmq.Socket[bytes]) -> None:
        if self._secure is not None:
            self._secure(socket)
        elif self._address.server_key:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = self._address.server_key.encode()


class _LinkLoop:
    """What the link's thread does: the handshake, the clock, and moving the queue to the socket."""

    def __init__(
        self, link: CaptureLink, socket: zmq.Socket[bytes], woken: zmq.Socket[bytes]
    ) -> None:
        self._link = link
        self._socket = socket
        self._woken = woken
        self._hello_due_s = 0.0
        self._ping_due_s = 0.0
        self._state_due_s = 0.0
        self._heard_s = 0.0
        self._seq: dict[type, int] = {FrameHeader: 0, PcmHeader: 0}
        self._reported: tuple[int, float] = (0, 0.0)
        self._live = link._hello.clock == "host"
        self._offset = OffsetEstimator()
        self._pongs = 0

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        while True:
            link = self._link
            with link._changed:
                if link._closing:
                    return
                blocked = self._send_due(time.perf_counter())
                timeout_s = self._next_due_s() - time.perf_counter()
            poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if blocked else 0))
            ready: dict[Any, int] = dict(poller.poll(max(0, int(timeout_s * 1000) + 1)))
            if self._woken in ready:
                _drain(self._woken)
            if ready.get(self._socket, 0) & zmq.POLLIN:
                self._receive()

    def _next_due_s(self) -> float:
        dues = [self._ping_due_s if self._link._connected else self._hello_due_s]
        picker = self._link._picker
        if picker is not None and picker.flush_due_s is not None and self._live:
            dues.append(picker.flush_due_s - self._link.clock_offset_s)
        return min(dues)

    def _send_due(self, now_s: float) -> bool:
        """Send what is due; true if the socket would not take it, so wait until it is writable."""
        link = self._link
        if link._connected and now_s - self._heard_s > SILENCE_S:
            link._connected = False
        if not link._connected:
            if now_s >= self._hello_due_s and not link.stopped:
                self._hello_due_s = now_s + HELLO_EVERY_S
                self._send(link._hello, b"")
            return False
        if now_s >= self._ping_due_s:
            self._ping_due_s = now_s + PING_EVERY_S
            self._send(Ping(time.perf_counter()), b"")
        if link._picker is not None and self._live:
            link._enqueue_picks(link._picker.flush(now_s + link.clock_offset_s))
        return not (self._send_queue() and self._send_counters(now_s))

    def _send_queue(self) -> bool:
        link = self._link
        while link._queue:
            item = link._queue[0]
            is_data = isinstance(item.header, FrameHeader | PcmHeader)
            if is_data and link._hello.lossless and link._credit == 0:
                return True  # a message from the server, not writability, ends this wait
            if not self._send(self._stamp(item.header), item.payload):
                return False
            link._queue.popleft()
            link._forget(item)
            if is_data:
                self._seq[type(item.header)] += 1
                link._credit -= link._hello.lossless
            link._changed.notify_all()
        return True

    def _send_counters(self, now_s: float) -> bool:
        """Repeat the state when a drop counter has moved since it was last sent."""
        link = self._link
        counters = (link._dropped_frames, link._dropped_audio_ms)
        if counters == self._reported or now_s < self._state_due_s or not link._states:
            return True
        self._state_due_s = now_s + STATE_EVERY_S
        if not all(self._send(self._stamp(state), b"") for state in link._states.values()):
            return False
        self._reported = counters
        return True

    def _stamp(self, header: Upstream) -> Upstream:
        link = self._link
        if isinstance(header, FrameHeader):
            return FrameHeader(
                header.time_s, self._seq[FrameHeader], header.height, header.width, header.mark_s
            )
        if isinstance(header, PcmHeader):
            return PcmHeader(header.start_s, self._seq[PcmHeader])
        if isinstance(header, State):
            return State(
                header.stream,
                header.state,
                header.detail,
                link._dropped_frames if header.stream == "video" else 0,
                link._dropped_audio_ms if header.stream == "audio" else 0.0,
                header.restarts,
                link._clock_offset.uncertainty_s,
            )
        return header

    def _send(self, header: Upstream, payload: bytes | memoryview) -> bool:
        try:
            self._socket.send_multipart([encode(header), payload], zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _receive(self) -> None:
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode_downstream(parts[0])
            except ProtocolError as error:
                if error.kind != "version":
                    continue
                message = Reject(str(error))
            with self._link._changed:
                self._handle(message)
                self._link._changed.notify_all()

    def _handle(self, message: Downstream) -> None:
        link = self._link
        now_s = self._heard_s = time.perf_counter()
        match message:
            case Welcome():
                link._connected = True
                link._welcome = message
                link._started |= message.started
                link._credit = 0  # whatever was granted to a connection before this one
                if link._picker is None or link._picker.step_s != message.step_s:
                    link._picker = GridPicker(message.step_s)
                self._ping_due_s = now_s
            case Pong():
                self._pongs += 1
                if self._live:
                    self._update_offset(message, now_s)
                if self._pongs < FIRST_PINGS:
                    self._ping_due_s = now_s
            case Start():
                link._started = True
            case Credit():
                link._credit += message.messages
            case Reject():
                link._rejected = True
                link._stop_reason = message.reason
            case Stop():
                link._stop_reason = link._stop_reason or "stopped by the inference process"

    def _update_offset(self, pong: Pong, now_s: float) -> None:
        best = self._offset.update(pong.sent_s, pong.received_s, pong.replied_s, now_s)
        if best is None:
            return
        if abs(best.offset_s) <= best.uncertainty_s:
            # Both ends read the same clock: hosts that booted within a round trip do not occur.
            best = ClockOffset(offset_s=0.0, uncertainty_s=0.0, round_trip_s=best.round_trip_s)
        self._link._clock_offset = best
        self._link._offset_known |= self._pongs >= FIRST_PINGS


def _drain(socket: zmq.Socket[bytes]) -> None:
    with contextlib.suppress(zmq.Again):
        while True:
            socket.recv(zmq.NOBLOCK)

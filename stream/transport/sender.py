"""The capture side of the ingest protocol: what a camera, microphone or file process sends through.

A device loop, in full::

    with CaptureLink(address, source="cam0", modalities=("video",)) as link:
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
from collections.abc import Callable

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from emostream.errors import ConfigError, InputError, LinkError
from emostream.sampling import grid_index, grid_time
from stream.transport.conversation import Conversation
from stream.transport.grid_picker import GridPicker, Pick
from stream.transport.protocol import (
    LATENESS_S,
    MAX_PCM_SAMPLES,
    PCM_RATE_HZ,
    CaptureState,
    Clock,
    End,
    Epoch,
    FrameHeader,
    Hello,
    IngestAddress,
    Modality,
    PcmHeader,
    ProtocolError,
    Reject,
    State,
    Upstream,
    Watermark,
    Welcome,
    decode_downstream,
    decode_upstream,
    encode,
)
from stream.transport.send_queue import Item, SendQueue

COUNTERS_EVERY_S = 1.0  # drop counters travel with the state, at most so often
PCM_SNAP_SAMPLES = 32  # 2 ms: a clock offset that is refined must not tear the sound


class CaptureLink:
    """Sends frames, sound and device state of one source to the inference process.

    Methods may be called from any thread; a thread of the link's own owns the socket, so no caller ever waits for the
    network.

    Drop policy, live (`lossless=False`): at most `max_frames` grid frames and `max_audio_s` of sound wait to be sent;
    then the oldest of that kind is dropped and counted. With `lossless=True` nothing is dropped: `send_frame` and
    `send_pcm` wait for credit from the inference process, or return at once when the link is stopped.

    Times given to it are on this process's `time.perf_counter` (`clock="host"`) and are converted to the inference
    host's by an offset measured over round trips, which is exactly 0 on the same host; media times pass unchanged.

    Args:
        address: where the inference process listens, and the secrets to enter with.
        source: source name that the data belongs to.
        modalities: what this process captures: `("video",)`, `("audio",)` or both.
        clock: what its times are on.
        lossless: wait rather than drop.
        lateness_s: how long after its capture data may reach the link; a window waits so long for it.
        max_frames: frames that may wait.
        max_audio_s: seconds of sound that may wait.

    Raises:
        ConfigError: the source name or the modalities are not allowed; on entering, the endpoint is none.
    """

    def __init__(
        self,
        address: IngestAddress,
        *,
        source: str,
        modalities: tuple[Modality, ...],
        clock: Clock = "host",
        lossless: bool = False,
        lateness_s: float = LATENESS_S,
        max_frames: int = 8,
        max_audio_s: float = 4.0,
    ) -> None:
        hello = Hello(source, modalities, os.getpid(), clock, lossless, address.token, lateness_s)
        try:
            decode_upstream(encode(hello))
        except ProtocolError as error:
            raise ConfigError(
                f"capture: wanted a source name of [A-Za-z0-9_-]{{1,32}} and streams of video and audio, "
                f"found {source!r} and {modalities!r}: {error}"
            ) from None
        self._address = address
        self._lossless = lossless
        self._thread: threading.Thread | None = None
        self._context: zmq.Context[zmq.Socket[bytes]]
        # Shared by the callers and the thread: every access holds `_changed`.
        self._changed = threading.Condition()
        self._wake_up: zmq.Socket[bytes] | None = None
        self._talk = Conversation(hello)
        self._queue = SendQueue(max_frames, 1000 * max_audio_s)
        self._picker: GridPicker | None = (
            None  # once the grid is known, that is from `wait_ready` on
        )
        self._states: dict[Modality, State] = {}
        self._next_sample: int | None = None
        self._closing = False
        # The thread's own.
        self._seq: dict[type, int] = {FrameHeader: 0, PcmHeader: 0}
        self._counted = (0, 0.0)  # drops, as they were sent last
        self._counters_due_s = 0.0

    # Lifetime

    def __enter__(self) -> "CaptureLink":
        # Its own, so that `close` can wait until it has sent what it was given: a process may end right after.
        context = self._context = zmq.Context()
        socket = self._connect(context)
        wake_endpoint = f"inproc://capture-link-{id(self)}"
        woken, self._wake_up = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        woken.linger = self._wake_up.linger = 0
        woken.bind(wake_endpoint)
        self._wake_up.connect(wake_endpoint)
        name = f"capture-link-{self._talk.hello.source}"
        self._thread = threading.Thread(
            target=self._run, args=(socket, woken), name=name, daemon=True
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
        with self._changed:  # a device's own thread may still be sending
            self._wake_up.close()
            self._wake_up = None
        self._context.term()

    def wait_ready(self, timeout_s: float) -> Welcome:
        """Wait until the inference process has answered and, for devices, the clock offset is known.

        Raises:
            LinkError: it refused us, did not answer in time, or `stop` was called.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._picker is not None or self.stopped, timeout_s)
            if self._talk.refused:
                problem = f"{self._address.endpoint} refused us: {self._talk.stop_reason}"
            elif self.stopped:
                problem = f"stopped before {self._address.endpoint} answered"
            elif self._talk.welcome is None or self._picker is None:
                problem = (
                    f"no answer from {self._address.endpoint} within {timeout_s:g} s; "
                    "is `emostream run` up, and are the keys the right ones?"
                )
            else:
                return self._talk.welcome
        raise LinkError(f"capture {self._talk.hello.source}: {problem}")

    def wait_started(self, timeout_s: float | None = None) -> bool:
        """Wait until the model is warm (a file's pacing begins) or the link is stopped; true if started."""
        with self._changed:
            self._changed.wait_for(lambda: self._talk.started or self.stopped, timeout_s)
            return self._talk.started and not self.stopped

    def wait_stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until `stopped`; for pauses between retries that must not delay an exit."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, timeout_s)

    @property
    def stopped(self) -> bool:
        """Whether the inference process told us to stop, refused us, or `stop` was called."""
        return self._talk.stop_reason is not None

    @property
    def refused(self) -> bool:
        """Whether the inference process refused us: wrong token or version, or another process took our place."""
        return self._talk.refused

    def stop(self, reason: str = "stopped") -> None:
        """Make `stopped` true from this side (signal handlers, parent death)."""
        with self._changed:
            self._talk.stop_reason = self._talk.stop_reason or reason
            self._changed.notify_all()

    # Clock and grid

    @property
    def step_s(self) -> float:
        """Grid step in seconds; valid after `wait_ready`."""
        assert self._talk.welcome is not None, "wait_ready() first"
        return self._talk.welcome.step_s

    @property
    def num_frames(self) -> int:
        """Grid points of a window, 0 if we were not told; valid after `wait_ready`."""
        return self._talk.welcome.num_frames if self._talk.welcome else 0

    @property
    def epoch_s(self) -> float | None:
        """When a predecessor of this process began to play the file (our `perf_counter` at media time 0), if any."""
        return self._talk.welcome.epoch_s if self._talk.welcome else None

    @property
    def resume_s(self) -> float:
        """Up to where a predecessor of this process has delivered the file, media time; 0 if there was none."""
        return self._talk.welcome.resume_s if self._talk.welcome else 0.0

    @property
    def clock_offset_s(self) -> float:
        """The inference host's `perf_counter` minus ours; 0 on the same host and for media time."""
        return self._talk.offset.offset_s

    def wanted(self, time_s: float) -> bool:
        """Whether the frame captured at `time_s` may be the newest of its grid cell, so worth decoding.

        Predicted from the frame interval, and true for the first frame of a cell. Call it for every frame in capture
        order, or not at all; false before `wait_ready` has returned.
        """
        with self._changed:
            if self._picker is None:
                return False
            wanted, picks = self._picker.wanted(time_s + self.clock_offset_s)
            self._put_picks(picks)
            return wanted

    # Data

    def send_frame(self, *, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """Offer a frame; only the newest of each grid cell travels onward, once its cell is over.

        Frames before `wait_ready` has returned are ignored: there is no grid yet.

        Args:
            time_s: capture time, seconds on our `perf_counter` or media time.
            rgb: uint8 (H, W, 3) RGB; kept, so not to be written to afterwards.

        Raises:
            InputError: wrong dtype or shape.
        """
        _check_frame(rgb)
        with self._changed:
            if self._picker is not None:
                pixels = np.ascontiguousarray(rgb)
                self._put_picks(self._picker.offer(time_s + self.clock_offset_s, pixels))
                self._wake()  # the thread has a new time at which to flush what is held

    def send_grid_frame(self, *, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """Send a frame that the caller knows to be the newest of its grid cell: it travels at once.

        Args and errors are those of `send_frame`.
        """
        _check_frame(rgb)
        with self._changed:
            if self._picker is not None:
                time_s += self.clock_offset_s
                watermark_s = grid_time(grid_index(time_s, self.step_s), self.step_s)
                self._put_picks([Pick(time_s, np.ascontiguousarray(rgb), watermark_s)])

    def send_pcm(self, *, start_s: float, pcm: NDArray[np.float32], gap_samples: int = 0) -> None:
        """Send a chunk of sound; ignored before `wait_ready` has returned.

        Args:
            start_s: time of the first sample, sample-counted by the caller, seconds on our clock; rounded to the
                1/16000 s raster. Within 2 ms of the previous chunk's end it counts as its continuation.
            pcm: float32 (S,) mono 16 kHz in [-1, 1]. Chunks over 10 s are cut.
            gap_samples: how many of the S samples stand for sound that the medium lacks.

        Raises:
            InputError: wrong dtype or shape.
        """
        if pcm.dtype != np.float32 or pcm.ndim != 1:
            raise InputError(f"send_pcm: wanted float32 (S,), found {pcm.dtype} {pcm.shape}")
        with self._changed:
            if self._picker is None or pcm.size == 0:
                return
            first = round((start_s + self.clock_offset_s) * PCM_RATE_HZ)
            expected = self._next_sample
            if expected is not None and abs(first - expected) <= PCM_SNAP_SAMPLES:
                first = expected
            self._next_sample = first + pcm.size
            for at in range(0, pcm.size, MAX_PCM_SAMPLES):
                part = np.ascontiguousarray(pcm[at : at + MAX_PCM_SAMPLES], "<f4")
                lacking = min(gap_samples, part.size)
                gap_samples -= lacking
                header = PcmHeader((first + at) / PCM_RATE_HZ, 0, lacking)
                self._put(header, part.data.cast("B"), 1000 * part.size / PCM_RATE_HZ)

    def send_watermark(self, modality: Modality, time_s: float) -> None:
        """Say that nothing of `modality` captured at or before `time_s` (our clock) will follow."""
        with self._changed:
            self._put(Watermark(modality, time_s + self.clock_offset_s))

    def send_state(
        self, modality: Modality, state: CaptureState, detail: str = "", *, restarts: int = 0
    ) -> None:
        """Report what the device is doing; `lost` also sends the frame that is still held for its cell.

        Drop counters are added here and sent again when they change.

        Args:
            modality: which of our modalities.
            state: what its device is doing now.
            detail: for a person, at most 1000 characters: what happened and what is done about it.
            restarts: how often the device was reopened so far.
        """
        with self._changed:
            if modality == "video" and state == "lost":
                self._release()
            message = State(modality, state, detail[:1000], restarts=max(0, restarts))
            self._states[modality] = message
            self._put(message)

    def send_epoch(self, epoch_s: float) -> None:
        """Say that media time 0 is played at `epoch_s` on our `perf_counter` (file pacing, real time)."""
        with self._changed:
            self._put(Epoch(epoch_s))

    def send_end(self) -> None:
        """Say that the file is over: sends the held frame and completes every modality.

        `stopped` becomes true when the inference process has received it and all before it.
        """
        with self._changed:
            self._release()
            self._put(End())

    @property
    def dropped_frames(self) -> int:
        """Grid frames dropped because the queue was full."""
        return self._queue.dropped_frames

    @property
    def dropped_audio_ms(self) -> float:
        """Milliseconds of sound dropped because the queue was full."""
        return self._queue.dropped_audio_ms

    # Into the queue, with the lock held

    def _put(
        self, header: Upstream, payload: bytes | memoryview = b"", audio_ms: float = 0.0
    ) -> None:
        """Queue a message: dropping the oldest if live; if lossless, data wait for room or the end of the link."""
        item = Item(header, payload, audio_ms)
        if self._lossless and item.is_data:
            self._changed.wait_for(lambda: not self._queue.full or self.stopped)
        if not self.stopped:
            put = self._queue.put if self._lossless else self._queue.put_dropping
            put(item)
        self._wake()

    def _put_picks(self, picks: list[Pick]) -> None:
        for pick in picks:
            if pick.rgb is not None:
                height, width, _ = pick.rgb.shape
                header = FrameHeader(pick.time_s, 0, height, width, pick.watermark_s)
                self._put(header, pick.rgb.data.cast("B"))
            elif pick.watermark_s is not None:
                self._put(Watermark("video", pick.watermark_s))

    def _release(self) -> None:
        if self._picker is not None:
            self._put_picks(self._picker.close())

    def _wake(self) -> None:
        if self._wake_up is not None:
            with contextlib.suppress(zmq.Again):  # full: it has been woken already
                self._wake_up.send(b"", zmq.NOBLOCK)

    # The thread, which owns the socket

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        address = self._address
        socket = context.socket(zmq.DEALER)
        try:
            socket.linger = 500
            socket.sndhwm = 4  # what libzmq holds can no longer be dropped oldest first
            socket.maxmsgsize = 64 * 1024
            socket.immediate = True  # never queue for a peer that is not there
            socket.reconnect_ivl = 100
            socket.reconnect_ivl_max = 2000
            if address.server_key:
                own = address.client_key.encode(), address.client_secret.encode()
                socket.curve_publickey, socket.curve_secretkey = (
                    own if all(own) else zmq.curve_keypair()
                )
                socket.curve_serverkey = address.server_key.encode()
            socket.ipv6 = "[" in address.endpoint
            socket.connect(address.endpoint)
        except BaseException as error:
            socket.close(linger=0)
            context.term()
            if isinstance(error, zmq.ZMQError):
                raise ConfigError(
                    f"capture {self._talk.hello.source}: cannot connect to {address.endpoint!r}: "
                    f"{error.strerror}; wanted tcp://HOST:PORT, as `emostream run --ingest` prints"
                ) from error
            raise
        return socket

    def _run(self, socket: zmq.Socket[bytes], woken: zmq.Socket[bytes]) -> None:
        """Handshake, clock, and moving the queue to the socket, until the link is closed."""
        poller = zmq.Poller()
        poller.register(woken, zmq.POLLIN)

        def send(header: Upstream, payload: bytes | memoryview = b"") -> bool:
            try:
                socket.send_multipart([encode(header), payload], zmq.NOBLOCK)
            except zmq.Again:
                return False
            return True

        with socket, woken:
            while True:
                with self._changed:
                    if self._closing:
                        return
                    writable = self._send_due(send, time.perf_counter())
                    timeout_s = self._next_due_s() - time.perf_counter()
                poller.register(socket, zmq.POLLIN | (0 if writable else zmq.POLLOUT))
                poller.poll(max(0, int(timeout_s * 1000) + 1))
                drain(woken)
                self._receive(socket)

    def _flush_due_s(self) -> float | None:
        """When a held frame is due, on our clock; a media clock is not read against ours, so its frames wait."""
        if (
            self._picker is None
            or self._talk.hello.clock != "host"
            or self._picker.flush_due_s is None
        ):
            return None
        return self._picker.flush_due_s - self.clock_offset_s

    def _next_due_s(self) -> float:
        flush_due_s = self._flush_due_s()
        return self._talk.due_s if flush_due_s is None else min(self._talk.due_s, flush_due_s)

    def _send_due(self, send: Callable[..., bool], now_s: float) -> bool:
        """Send what is due; false if the socket is full, so that the loop must wait until it is writable."""
        flush_due_s = self._flush_due_s()
        if flush_due_s is not None and now_s >= flush_due_s:
            self._release()
        notice = self._talk.say(now_s)
        if notice is not None:
            send(notice)
        if not self._talk.connected:
            return True
        return self._send_queued(send) and self._send_counters(send, now_s)

    def _send_queued(self, send: Callable[..., bool]) -> bool:
        while self._queue:
            item = self._queue.head
            if item.is_data and self._lossless and self._talk.credit == 0:
                return True  # it is a message from the server that ends this wait
            if not send(self._stamp(item.header), item.payload):
                return False
            self._queue.pop()
            if item.is_data:
                self._seq[type(item.header)] += 1
                self._talk.credit -= self._lossless
            self._changed.notify_all()
        return True

    def _send_counters(self, send: Callable[..., bool], now_s: float) -> bool:
        """Repeat the states when a drop counter has moved since they were last sent."""
        counters = (self.dropped_frames, self.dropped_audio_ms)
        if counters == self._counted or now_s < self._counters_due_s:
            return True
        self._counters_due_s = now_s + COUNTERS_EVERY_S
        if not all(send(self._stamp(state)) for state in self._states.values()):
            return False
        self._counted = counters
        return True

    def _stamp(self, header: Upstream) -> Upstream:
        """Fill in what is only known when the message leaves."""
        if isinstance(header, FrameHeader | PcmHeader):
            return msgspec.structs.replace(header, seq=self._seq[type(header)])
        if isinstance(header, State):
            video = header.modality == "video"
            return msgspec.structs.replace(
                header,
                dropped_frames=self.dropped_frames if video else 0,
                dropped_audio_ms=0.0 if video else self.dropped_audio_ms,
                clock_uncertainty_s=self._talk.offset.uncertainty_s,
            )
        return header

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                parts = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode_downstream(parts[0])
            except ProtocolError as error:
                if error.kind != "version":
                    continue
                message = Reject(str(error))
            with self._changed:
                self._talk.hear(message, time.perf_counter())
                step_s = self._talk.grid_step_s
                if step_s is not None and (self._picker is None or self._picker.step_s != step_s):
                    self._picker = GridPicker(step_s)
                self._changed.notify_all()


def drain(socket: zmq.Socket[bytes]) -> None:
    """Receive and forget everything that waits."""
    with contextlib.suppress(zmq.Again):
        while True:
            socket.recv(zmq.NOBLOCK)


def _check_frame(rgb: NDArray[np.uint8]) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"send_frame: wanted uint8 (H, W, 3) RGB, found {rgb.dtype} {rgb.shape}")

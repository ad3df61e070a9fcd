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
from collections.abc import Callable

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from emostream.errors import ConfigError, InputError, LinkError
from emostream.sampling import grid_index, grid_time
from stream.transport.grid_picker import Pick
from stream.transport.protocol import (
    LATENESS_S,
    MAX_PCM_SAMPLES,
    PCM_RATE_HZ,
    CaptureState,
    Clock,
    End,
    Epoch,
    Hello,
    IngestAddress,
    Mark,
    PcmHeader,
    State,
    Stream,
    Welcome,
)
from stream.transport.send_queue import Item, SendQueue
from stream.transport.sender_loop import LinkLoop, LinkState

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
        streams: what this process captures: `("video",)`, `("audio",)` or both.
        clock: what its times are on.
        lossless: wait rather than drop.
        lateness_s: how long after its capture data may reach the link; a window waits so long for it.
        max_frames: frames that may wait.
        max_audio_s: seconds of sound that may wait.
        secure: sets the CURVE options of the socket before it connects; without it the address's key is used.
        context: ZeroMQ context, by default the process's.

    Raises:
        ConfigError: the source name or the streams are not allowed; on entering, the endpoint is none.
    """

    def __init__(
        self,
        address: IngestAddress,
        *,
        source: str,
        streams: tuple[Stream, ...],
        clock: Clock = "host",
        lossless: bool = False,
        lateness_s: float = LATENESS_S,
        max_frames: int = 8,
        max_audio_s: float = 4.0,
        secure: Callable[[zmq.Socket[bytes]], None] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        hello = Hello(source, streams, os.getpid(), clock, lossless, address.token, lateness_s)
        try:
            msgspec.convert(msgspec.structs.asdict(hello) | {"type": "hello"}, Hello)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"capture: wanted a source name of [A-Za-z0-9_-]{{1,32}} and streams of video and audio, "
                f"found {source!r} and {streams!r}: {error}"
            ) from None
        self._address = address
        self._secure = secure
        self._context = context or zmq.Context.instance()
        self._state = LinkState(hello, SendQueue(max_frames, 1000 * max_audio_s))
        self._changed = self._state.changed
        self._next_sample: int | None = None
        self._wake_up: zmq.Socket[bytes] | None = None
        self._thread: threading.Thread | None = None

    # Lifetime

    def __enter__(self) -> "CaptureLink":
        socket = self._connect()
        wake_endpoint = f"inproc://capture-link-{id(self)}"
        woken = self._context.socket(zmq.PAIR)
        woken.bind(wake_endpoint)
        self._wake_up = self._context.socket(zmq.PAIR)
        self._wake_up.linger = 0
        self._wake_up.connect(wake_endpoint)
        name = f"capture-link-{self._state.hello.source}"
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
            self._changed.wait_for(lambda: not self._state.queue or self.stopped, flush_s)
            self._state.closing = True
            self._wake()
        self._thread.join()
        self._thread = None
        with self._changed:  # a device's own thread may still be sending
            self._wake_up.close()
            self._wake_up = None

    def wait_ready(self, timeout_s: float) -> Welcome:
        """Wait until the inference process has answered and, for devices, the clock offset is known.

        Raises:
            LinkError: it refused us, did not answer in time, or `stop` was called.
        """
        state = self._state
        with self._changed:
            self._changed.wait_for(lambda: state.picker is not None or self.stopped, timeout_s)
            if state.refused:
                problem = f"{self._address.endpoint} refused us: {state.stop_reason}"
            elif self.stopped:
                problem = f"stopped before {self._address.endpoint} answered"
            elif state.welcome is None or state.picker is None:
                problem = (
                    f"no answer from {self._address.endpoint} within {timeout_s:g} s; "
                    "is `emostream run` up, and are the keys the right ones?"
                )
            else:
                return state.welcome
        raise LinkError(f"capture {state.hello.source}: {problem}")

    def wait_started(self, timeout_s: float | None = None) -> bool:
        """Wait until the model is warm (a file's pacing begins) or the link is stopped; true if started."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.started or self.stopped, timeout_s)
            return self._state.started and not self.stopped

    def wait_stopped(self, timeout_s: float | None = None) -> bool:
        """Wait until `stopped`; for pauses between retries that must not delay an exit."""
        with self._changed:
            return self._changed.wait_for(lambda: self.stopped, timeout_s)

    @property
    def stopped(self) -> bool:
        """Whether the inference process told us to stop, refused us, or `stop` was called."""
        return self._state.stop_reason is not None

    @property
    def refused(self) -> bool:
        """Whether the inference process refused us: wrong token or version, or another process took our place."""
        return self._state.refused

    def stop(self, reason: str = "stopped") -> None:
        """Make `stopped` true from this side (signal handlers, parent death)."""
        with self._changed:
            self._state.stop_reason = self._state.stop_reason or reason
            self._changed.notify_all()

    # Clock and grid

    @property
    def step_s(self) -> float:
        """Grid step in seconds; valid after `wait_ready`."""
        assert self._state.welcome is not None, "wait_ready() first"
        return self._state.welcome.step_s

    @property
    def epoch_s(self) -> float | None:
        """When a predecessor of this process began to play the file (our `perf_counter` at media time 0), if any."""
        return self._state.welcome.epoch_s if self._state.welcome else None

    @property
    def resume_s(self) -> float:
        """Up to where a predecessor of this process has delivered the file, media time; 0 if there was none."""
        return self._state.welcome.resume_s if self._state.welcome else 0.0

    @property
    def clock_offset_s(self) -> float:
        """The inference host's `perf_counter` minus ours; 0 on the same host and for media time."""
        return self._state.offset.offset_s

    def wanted(self, time_s: float) -> bool:
        """Whether the frame captured at `time_s` may be the newest of its grid cell, so worth decoding.

        Predicted from the frame interval, and true for the first frame of a cell. Call it for every frame in capture
        order, or not at all; false before `wait_ready` has returned.
        """
        with self._changed:
            if self._state.picker is None:
                return False
            wanted, picks = self._state.picker.wanted(time_s + self.clock_offset_s)
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
            if self._state.picker is not None:
                pixels = np.ascontiguousarray(rgb)
                picks = self._state.picker.offer(time_s + self.clock_offset_s, pixels)
                self._put_picks(picks)
                self._wake()  # the thread has a new time at which to flush what is held

    def send_grid_frame(self, *, time_s: float, rgb: NDArray[np.uint8]) -> None:
        """Send a frame that the caller knows to be the newest of its grid cell: it travels at once.

        Args and errors are those of `send_frame`.
        """
        _check_frame(rgb)
        with self._changed:
            if self._state.picker is not None:
                time_s += self.clock_offset_s
                mark_s = grid_time(grid_index(time_s, self.step_s), self.step_s)
                self._put_picks([Pick(time_s, np.ascontiguousarray(rgb), mark_s)])

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
            if self._state.picker is None or pcm.size == 0:
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
                self._put(Item(header, part.data.cast("B"), 1000 * part.size / PCM_RATE_HZ))

    def send_mark(self, stream: Stream, time_s: float) -> None:
        """Say that nothing of `stream` captured at or before `time_s` (our clock) will follow."""
        with self._changed:
            self._put(Item(Mark(stream, time_s + self.clock_offset_s)))

    def send_state(
        self, stream: Stream, state: CaptureState, detail: str = "", *, restarts: int = 0
    ) -> None:
        """Report what the device is doing; `lost` also sends the frame that is still held for its cell.

        Drop counters are added here and sent again when they change.

        Args:
            stream: which of our streams.
            state: what its device is doing now.
            detail: for a person, at most 1000 characters: what happened and what is done about it.
            restarts: how often the device was reopened so far.
        """
        with self._changed:
            if stream == "video" and state == "lost":
                self._release()
            message = State(stream, state, detail[:1000], restarts=max(0, restarts))
            self._state.states[stream] = message
            self._put(Item(message))

    def send_epoch(self, epoch_s: float) -> None:
        """Say that media time 0 is played at `epoch_s` on our `perf_counter` (file pacing, real time)."""
        with self._changed:
            self._put(Item(Epoch(epoch_s)))

    def send_end(self) -> None:
        """Say that the file is over: sends the held frame and completes every stream.

        `stopped` becomes true when the inference process has received it and all before it.
        """
        with self._changed:
            self._release()
            self._put(Item(End()))

    @property
    def dropped_frames(self) -> int:
        """Grid frames dropped because the queue was full."""
        return self._state.queue.dropped_frames

    @property
    def dropped_audio_ms(self) -> float:
        """Milliseconds of sound dropped because the queue was full."""
        return self._state.queue.dropped_audio_ms

    # With the lock held

    def _release(self) -> None:
        if self._state.picker is not None:
            self._put_picks(self._state.picker.close())

    def _put_picks(self, picks: list[Pick]) -> None:
        if picks:
            self._state.put_picks(picks)
            self._wake()

    def _put(self, item: Item) -> None:
        self._state.put(item)
        self._wake()

    def _wake(self) -> None:
        if self._wake_up is not None:
            with contextlib.suppress(zmq.Again):  # full: it has been woken already
                self._wake_up.send(b"", zmq.NOBLOCK)

    # The socket, which belongs to the link's thread once that runs

    def _connect(self) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.linger = 500
            socket.sndhwm = 4  # what libzmq holds can no longer be dropped oldest first
            socket.maxmsgsize = 64 * 1024
            socket.immediate = True  # never queue for a peer that is not there
            socket.reconnect_ivl = 100
            socket.reconnect_ivl_max = 2000
            if self._secure is not None:
                self._secure(socket)
            elif self._address.server_key:
                own = self._address.client_key.encode(), self._address.client_secret.encode()
                socket.curve_publickey, socket.curve_secretkey = (
                    own if all(own) else zmq.curve_keypair()
                )
                socket.curve_serverkey = self._address.server_key.encode()
            socket.ipv6 = "[" in self._address.endpoint
            socket.connect(self._address.endpoint)
        except BaseException as error:
            socket.close(linger=0)
            if isinstance(error, zmq.ZMQError):
                raise ConfigError(
                    f"capture {self._state.hello.source}: cannot connect to {self._address.endpoint!r}: "
                    f"{error.strerror}; wanted tcp://HOST:PORT, as `emostream run --ingest` prints"
                ) from error
            raise
        return socket

    def _run(self, socket: zmq.Socket[bytes], woken: zmq.Socket[bytes]) -> None:
        try:
            LinkLoop(self._state, socket, woken).run()
        finally:
            socket.close()
            woken.close(linger=0)


def _check_frame(rgb: NDArray[np.uint8]) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise InputError(f"send_frame: wanted uint8 (H, W, 3) RGB, found {rgb.dtype} {rgb.shape}")

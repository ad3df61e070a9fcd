"""The thread behind `CaptureLink`: the handshake, the clock, and moving the queue to the socket."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import zmq

from stream.transport.clocks import ClockOffset, OffsetEstimator
from stream.transport.grid_picker import GridPicker, Pick
from stream.transport.protocol import (
    Credit,
    Downstream,
    FrameHeader,
    Hello,
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
    Unknown,
    Upstream,
    Welcome,
    decode_downstream,
    encode,
)
from stream.transport.send_queue import Item, SendQueue

HELLO_EVERY_S = 0.5
PING_EVERY_S = 1.0
FIRST_PINGS = 8  # back to back, before the first data
SILENCE_S = 5.0  # without an answer for so long, introduce ourselves again
STATE_EVERY_S = 1.0  # drop counters travel with the state, at most so often

SAME_CLOCK = ClockOffset(offset_s=0.0, uncertainty_s=0.0, round_trip_s=0.0)


@dataclass(slots=True)
class LinkState:
    """What the producers and the link's thread share; every access holds `changed`."""

    hello: Hello
    queue: SendQueue
    changed: threading.Condition = field(default_factory=threading.Condition)
    welcome: Welcome | None = None
    picker: GridPicker | None = None  # once welcomed and the clock offset is known
    offset: ClockOffset = SAME_CLOCK
    states: dict[Stream, State] = field(default_factory=dict)
    connected: bool = False
    started: bool = False
    credit: int = 0
    stop_reason: str | None = None
    refused: bool = False
    closing: bool = False

    def put(self, item: Item) -> None:
        """Queue an item: dropping the oldest if live, waiting for room if lossless."""
        if self.hello.lossless and item.is_data:
            self.changed.wait_for(lambda: not self.queue.full or self.stop_reason is not None)
        if self.stop_reason is not None:
            return
        if self.hello.lossless:
            self.queue.put(item)
        else:
            self.queue.put_dropping(item)

    def put_picks(self, picks: list[Pick]) -> None:
        """Queue what the picker has released."""
        for pick in picks:
            if pick.rgb is not None:
                height, width, _ = pick.rgb.shape
                header = FrameHeader(pick.time_s, 0, height, width, pick.mark_s)
                self.put(Item(header, pick.rgb.data.cast("B")))
            elif pick.mark_s is not None:
                self.put(Item(Mark("video", pick.mark_s)))


class LinkLoop:
    """Owns the DEALER socket; `run` returns when `LinkState.closing` is set and `woken` has been sent to."""

    def __init__(
        self, state: LinkState, socket: zmq.Socket[bytes], woken: zmq.Socket[bytes]
    ) -> None:
        self._state = state
        self._socket = socket
        self._woken = woken
        self._hello_due_s = 0.0
        self._ping_due_s = 0.0
        self._state_due_s = 0.0
        self._heard_s = 0.0
        self._seq: dict[type, int] = {FrameHeader: 0, PcmHeader: 0}
        self._reported = (0, 0.0)
        self._offset = OffsetEstimator()
        self._pongs = 0

    def run(self) -> None:
        """Serve the link until it is closed."""
        poller = zmq.Poller()
        poller.register(self._woken, zmq.POLLIN)
        while True:
            with self._state.changed:
                if self._state.closing:
                    return
                writable = self._send_due(time.perf_counter())
                timeout_s = self._next_due_s() - time.perf_counter()
            poller.register(self._socket, zmq.POLLIN | (0 if writable else zmq.POLLOUT))
            ready: dict[Any, int] = dict(poller.poll(max(0, int(timeout_s * 1000) + 1)))
            if self._woken in ready:
                drain(self._woken)
            if ready.get(self._socket, 0) & zmq.POLLIN:
                self._receive()

    def _flush_due_s(self) -> float | None:
        """When a held frame is due, on our clock; a media clock is not read against ours, so its frames wait."""
        state = self._state
        if state.picker is None or state.hello.clock != "host" or state.picker.flush_due_s is None:
            return None
        return state.picker.flush_due_s - state.offset.offset_s

    def _next_due_s(self) -> float:
        due_s = self._ping_due_s if self._state.connected else self._hello_due_s
        flush_due_s = self._flush_due_s()
        return due_s if flush_due_s is None else min(due_s, flush_due_s)

    def _send_due(self, now_s: float) -> bool:
        """Send what is due; false if the socket is full, so that the loop must wait until it is writable."""
        state = self._state
        flush_due_s = self._flush_due_s()
        if state.picker is not None and flush_due_s is not None and now_s >= flush_due_s:
            state.put_picks(state.picker.close())
        if state.connected and now_s - self._heard_s > SILENCE_S:
            state.connected = False
        if not state.connected:
            if now_s >= self._hello_due_s:
                self._hello_due_s = now_s + HELLO_EVERY_S
                if state.stop_reason is None:
                    self._send(state.hello, b"")
            return True
        if now_s >= self._ping_due_s:
            self._ping_due_s = now_s + PING_EVERY_S
            self._send(Ping(time.perf_counter()), b"")
        return self._send_queue() and self._send_counters(now_s)

    def _send_queue(self) -> bool:
        state = self._state
        while state.queue:
            item = state.queue.head
            if item.is_data and state.hello.lossless and state.credit == 0:
                return True  # it is a message from the server that ends this wait
            if not self._send(self._stamp(item.header), item.payload):
                return False
            state.queue.pop()
            if item.is_data:
                self._seq[type(item.header)] += 1
                state.credit -= state.hello.lossless
            state.changed.notify_all()
        return True

    def _send_counters(self, now_s: float) -> bool:
        """Repeat the states when a drop counter has moved since they were last sent."""
        state = self._state
        counters = (state.queue.dropped_frames, state.queue.dropped_audio_ms)
        if counters == self._reported or now_s < self._state_due_s:
            return True
        self._state_due_s = now_s + STATE_EVERY_S
        if not all(self._send(self._stamp(sent), b"") for sent in state.states.values()):
            return False
        self._reported = counters
        return True

    def _stamp(self, header: Upstream) -> Upstream:
        """Fill in what is only known when the message leaves."""
        state = self._state
        if isinstance(header, FrameHeader | PcmHeader):
            return msgspec.structs.replace(header, seq=self._seq[type(header)])
        if isinstance(header, State):
            video = header.stream == "video"
            return msgspec.structs.replace(
                header,
                dropped_frames=state.queue.dropped_frames if video else 0,
                dropped_audio_ms=0.0 if video else state.queue.dropped_audio_ms,
                clock_uncertainty_s=state.offset.uncertainty_s,
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
            with self._state.changed:
                self._handle(message)
                self._state.changed.notify_all()

    def _handle(self, message: Downstream) -> None:
        state = self._state
        now_s = self._heard_s = time.perf_counter()
        match message:
            case Welcome():
                state.connected = True
                state.welcome = message
                state.started |= message.started
                state.credit = 0  # what an earlier connection was granted went with it
                self._pongs = 0
                self._ping_due_s = now_s
                if state.hello.clock == "media":
                    self._set_grid()
            case Pong():
                self._pongs += 1
                if state.hello.clock == "host":
                    self._update_offset(message, now_s)
                    if self._pongs < FIRST_PINGS:
                        self._ping_due_s = now_s
                    else:
                        self._set_grid()
            case Start():
                state.started = True
            case Credit():
                state.credit += message.messages
            case Unknown():
                state.connected = False
                self._hello_due_s = now_s
            case Reject():
                state.refused = True
                state.stop_reason = message.reason
            case Stop():
                state.stop_reason = state.stop_reason or "stopped by the inference process"

    def _set_grid(self) -> None:
        state = self._state
        assert state.welcome is not None
        if state.picker is None or state.picker.step_s != state.welcome.step_s:
            state.picker = GridPicker(state.welcome.step_s)

    def _update_offset(self, pong: Pong, now_s: float) -> None:
        best = self._offset.update(pong.sent_s, pong.received_s, pong.replied_s, now_s)
        if best is not None:
            # Zero within the bounds is one clock: two hosts do not boot within half a round trip of each other.
            self._state.offset = SAME_CLOCK if abs(best.offset_s) <= best.uncertainty_s else best


def drain(socket: zmq.Socket[bytes]) -> None:
    """Receive and forget everything that waits."""
    with contextlib.suppress(zmq.Again):
        while True:
            socket.recv(zmq.NOBLOCK)

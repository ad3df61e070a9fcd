"""A capture process's talk with the inference process, without a socket: what to say when, and what answers mean."""

from stream.transport.clocks import ClockOffset, OffsetEstimator
from stream.transport.protocol import (
    Credit,
    Downstream,
    Hello,
    Ping,
    Pong,
    Reject,
    Start,
    Stop,
    Unknown,
    Welcome,
)

HELLO_EVERY_S = 0.5
PING_EVERY_S = 1.0
FIRST_PINGS = 8  # back to back, before the first data
SILENCE_S = 5.0  # without an answer for so long, introduce ourselves again

SAME_CLOCK = ClockOffset(offset_s=0.0, uncertainty_s=0.0, round_trip_s=0.0)


class Conversation:
    """Introduces us until we are welcome, then measures the clock offset and keeps the connection alive.

    Times are on our own `perf_counter`.

    Args:
        hello: how we introduce ourselves.

    Attributes:
        hello: as given.
        welcome: the latest answer to it.
        connected: whether we are welcome now, and so may send data.
        started: the model is warm.
        credit: how many more messages of data a lossless sender may send.
        offset: the inference host's clock relative to ours.
        stop_reason: why we are to stop; None while we are not.
        refused: whether that is because we were refused.
    """

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.welcome: Welcome | None = None
        self.connected = False
        self.started = False
        self.credit = 0
        self.offset = SAME_CLOCK
        self.stop_reason: str | None = None
        self.refused = False
        self._due_s = 0.0  # of the next hello or ping
        self._heard_s = 0.0
        self._offsets = OffsetEstimator()
        self._pongs = 0

    @property
    def due_s(self) -> float:
        """When we have something to say, at the latest."""
        return self._due_s

    @property
    def grid_step_s(self) -> float | None:
        """The grid step, once the clock is known on which its points lie; None before."""
        known = self.hello.clock == "media" or self._pongs >= FIRST_PINGS
        return self.welcome.step_s if self.welcome is not None and known else None

    def say(self, now_s: float) -> Hello | Ping | None:
        """What is to be sent now, apart from data."""
        if self.connected and now_s - self._heard_s > SILENCE_S:
            self.connected, self._due_s = False, min(self._due_s, now_s)
        if now_s < self._due_s:
            return None
        self._due_s = now_s + (PING_EVERY_S if self.connected else HELLO_EVERY_S)
        if self.connected:
            return Ping(now_s)
        return self.hello if self.stop_reason is None else None

    def hear(self, message: Downstream, now_s: float) -> None:
        """Take in what the inference process has said."""
        self._heard_s = now_s
        match message:
            case Welcome():
                self.connected, self.welcome = True, message
                self.started |= message.started
                self.credit = 0  # what an earlier connection was granted went with it
                self._pongs, self._due_s = 0, now_s
            case Pong():
                self._pongs += 1
                if self.hello.clock == "host":
                    self._update_offset(message, now_s)
                    if self._pongs < FIRST_PINGS:
                        self._due_s = now_s
            case Start():
                self.started = True
            case Credit():
                self.credit += message.messages
            case Unknown():
                self.connected, self._due_s = False, now_s
            case Reject():
                self.refused, self.stop_reason = True, message.reason
            case Stop():
                self.stop_reason = self.stop_reason or "stopped by the inference process"

    def _update_offset(self, pong: Pong, now_s: float) -> None:
        best = self._offsets.update(pong.sent_s, pong.received_s, pong.replied_s, now_s)
        if best is not None:
            # Zero within the bounds is one clock: two hosts do not boot within half a round trip of each other.
            self.offset = SAME_CLOCK if abs(best.offset_s) <= best.uncertainty_s else best

"""What the inference process knows of each capture process and source, and what a message of theirs means."""

import time
from dataclasses import dataclass, field

from stream.transport.events import (
    Ended,
    EpochSet,
    Frame,
    IngestEvent,
    Marked,
    Pcm,
    StateChanged,
)
from stream.transport.protocol import (
    PCM_RATE_HZ,
    End,
    Epoch,
    FrameHeader,
    Hello,
    Mark,
    PcmHeader,
    ProtocolError,
    State,
    Stream,
    Upstream,
    frame_pixels,
    pcm_samples,
)

MAX_LEAD_S = 1.0  # a capture time further ahead of the clock is a broken clock, not a capture


@dataclass(slots=True)
class Peer:
    """One connection of a capture process that was accepted.

    Attributes:
        hello: what it said of itself.
        heard_s: our `perf_counter` at its last message.
        next_seq: the number that its next message of a stream should have.
        lost_in_transport: messages of it that never came, by gaps in `seq`.
        ended: its file is over.
    """

    hello: Hello
    heard_s: float
    next_seq: dict[Stream, int] = field(default_factory=dict)
    lost_in_transport: int = 0
    ended: bool = False

    def count(self, stream: Stream, seq: int) -> None:
        """Note the arrival of message `seq` of a stream."""
        self.lost_in_transport += max(0, seq - self.next_seq.get(stream, seq))
        self.next_seq[stream] = seq + 1


@dataclass(slots=True)
class _Losses:
    """Drops and restarts of one stream: those of the present process, and all of those before it."""

    past: tuple[int, float, int] = (0, 0.0, 0)  # frames, audio_ms, restarts
    present: tuple[int, float, int] = (0, 0.0, 0)

    @property
    def total(self) -> tuple[int, float, int]:
        return (
            self.past[0] + self.present[0],
            self.past[1] + self.present[1],
            self.past[2] + self.present[2],
        )

    def retire(self) -> None:
        frames, audio_ms, restarts = self.total
        self.past, self.present = (frames, audio_ms, restarts), (0, 0.0, 0)


class Ledger:
    """One source across the capture processes that serve it, one after the other.

    Args:
        source: its name.
        step_s: grid step, by which the mark of a file's frame may be ahead of the clock.
    """

    def __init__(self, source: str, step_s: float) -> None:
        self.source = source
        self._step_s = step_s
        self.epoch_s: float | None = None
        self._losses: dict[Stream, _Losses] = {"video": _Losses(), "audio": _Losses()}
        self._reached_s: dict[Stream, float] = {}

    def succeed(self, stream: Stream) -> None:
        """Another process took over the stream: its counters begin at 0 again, ours go on."""
        self._losses[stream].retire()

    def resume_s(self, hello: Hello) -> float:
        """Up to where every stream of a file has been received, media time; 0 for devices."""
        if hello.clock != "media":
            return 0.0
        return max(0.0, min(self._reached_s.get(stream, 0.0) for stream in hello.streams))

    def event(self, peer: Peer, message: Upstream, payload: memoryview) -> IngestEvent:
        """What a data or notice message of `peer` says.

        Raises:
            ProtocolError: the payload does not fit its header, the stream was not announced, or the time is ahead of
                the clock.
        """
        now_s = time.perf_counter()
        source = self.source
        match message:
            case FrameHeader():
                self._check(peer, "video", message.time_s, now_s)
                if message.mark_s is not None:
                    # What follows a file's frame is known when it is sent, before its cell is over.
                    self._check(peer, "video", message.mark_s - self._step_s, now_s)
                rgb = frame_pixels(message, payload)
                peer.count("video", message.seq)
                self._reach("video", message.time_s)
                return Frame(
                    source=source,
                    time_s=message.time_s,
                    seq=message.seq,
                    rgb=rgb,
                    mark_s=message.mark_s,
                    received_s=now_s,
                )
            case PcmHeader():
                self._check(peer, "audio", message.start_s, now_s)
                pcm = pcm_samples(payload)
                peer.count("audio", message.seq)
                self._reach("audio", message.start_s + pcm.size / PCM_RATE_HZ)
                return Pcm(
                    source=source,
                    start_s=message.start_s,
                    seq=message.seq,
                    pcm=pcm,
                    gap_samples=min(message.gap_samples, pcm.size),
                    received_s=now_s,
                )
            case Mark():
                self._check(peer, message.stream, message.time_s, now_s)
                return Marked(source=source, stream=message.stream, time_s=message.time_s)
            case State():
                self._check(peer, message.stream, None, now_s)
                return self._state(message)
            case Epoch():
                self.epoch_s = message.epoch_s
                return EpochSet(source=source, epoch_s=message.epoch_s)
            case End():
                peer.ended = True
                return Ended(source=source, streams=peer.hello.streams)
            case _:
                raise AssertionError(f"{type(message).__name__} is no event")

    def _state(self, message: State) -> StateChanged:
        losses = self._losses[message.stream]
        losses.present = (message.dropped_frames, message.dropped_audio_ms, message.restarts)
        frames, audio_ms, restarts = losses.total
        return StateChanged(
            source=self.source,
            stream=message.stream,
            state=message.state,
            detail=message.detail,
            dropped_frames=frames,
            dropped_audio_ms=audio_ms,
            restarts=restarts,
            clock_uncertainty_s=message.clock_uncertainty_s,
        )

    def _reach(self, stream: Stream, time_s: float) -> None:
        self._reached_s[stream] = max(time_s, self._reached_s.get(stream, time_s))

    def _check(self, peer: Peer, stream: Stream, time_s: float | None, now_s: float) -> None:
        """Refuse what was not announced, and data from the future: it would complete windows yet to come."""
        if stream not in peer.hello.streams:
            raise ProtocolError("malformed", f"ingest: {self.source} announced no {stream}")
        origin_s = 0.0 if peer.hello.clock == "host" else self.epoch_s
        if time_s is None or origin_s is None or peer.hello.lossless:
            return
        if time_s + origin_s > now_s + MAX_LEAD_S:
            ahead_s = time_s + origin_s - now_s
            raise ProtocolError(
                "future", f"ingest: {self.source} is {ahead_s:.1f} s ahead of the clock"
            )

"""What the inference process knows of each capture process and source, and what a message of theirs means."""

import time
from dataclasses import dataclass, field

from msgspec.structs import replace

from stream.transport.events import NO_DATA, Event
from stream.transport.protocol import (
    PCM_RATE_HZ,
    End,
    Epoch,
    FrameHeader,
    Hello,
    Modality,
    PcmHeader,
    Ping,
    ProtocolError,
    State,
    Upstream,
    Watermark,
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
        next_seq: the number that its next message of a modality should have.
        lost_in_transport: messages of it that never came, by gaps in `seq`.
        ended: its file is over.
    """

    hello: Hello
    heard_s: float
    next_seq: dict[Modality, int] = field(default_factory=dict)
    lost_in_transport: int = 0
    ended: bool = False

    def count(self, modality: Modality, seq: int) -> None:
        """Note the arrival of message `seq` of a modality."""
        self.lost_in_transport += max(0, seq - self.next_seq.get(modality, seq))
        self.next_seq[modality] = seq + 1


class Ledger:
    """One source across the capture processes that serve it, one after the other.

    Args:
        source: its name.
        step_s: grid step, by which the watermark of a file's frame may be ahead of the clock.
    """

    def __init__(self, source: str, step_s: float) -> None:
        self.source = source
        self._step_s = step_s
        self.epoch_s: float | None = None
        # The last state of each modality, its counters over all processes; and those of the present process's
        # predecessors alone.
        self._states: dict[Modality, State] = {}
        self._before: dict[Modality, State] = {}
        self._reached_s: dict[Modality, float] = {}

    def succeed(self, modality: Modality) -> None:
        """Another process took over the modality: its counters begin at 0 again, ours go on."""
        if modality in self._states:
            self._before[modality] = self._states[modality]

    def resume_s(self, hello: Hello) -> float:
        """Up to where every modality of a file has been received, media time; 0 for devices."""
        if hello.clock != "media":
            return 0.0
        return max(0.0, min(self._reached_s.get(modality, 0.0) for modality in hello.modalities))

    def event(self, peer: Peer, message: Upstream, payload: memoryview) -> Event:
        """What a data or notice message of `peer` says.

        Raises:
            ProtocolError: the payload does not fit its header, the modality was not announced, or the time is ahead of
                the clock.
        """
        assert not isinstance(message, Hello | Ping)
        now_s, data = time.perf_counter(), NO_DATA
        match message:
            case FrameHeader():
                self._check(peer, "video", message.time_s, now_s)
                if message.watermark_s is not None:
                    # What follows a file's frame is known when it is sent, before its cell is over.
                    self._check(peer, "video", message.watermark_s - self._step_s, now_s)
                data = frame_pixels(message, payload)
                peer.count("video", message.seq)
                self._reach("video", message.time_s)
            case PcmHeader():
                self._check(peer, "audio", message.start_s, now_s)
                data = pcm_samples(payload)
                message = replace(message, gap_samples=min(message.gap_samples, data.size))
                peer.count("audio", message.seq)
                self._reach("audio", message.start_s + data.size / PCM_RATE_HZ)
            case Watermark():
                self._check(peer, message.modality, message.time_s, now_s)
            case State():
                self._check(peer, message.modality, None, now_s)
                message = self._states[message.modality] = self._total(message)
            case Epoch():
                self.epoch_s = message.epoch_s
            case End():
                peer.ended = True
        return Event(hello=peer.hello, message=message, data=data, received_s=now_s)

    def _total(self, state: State) -> State:
        """A state with the counters of earlier processes added."""
        before = self._before.get(state.modality)
        if before is None:
            return state
        return replace(
            state,
            dropped_frames=before.dropped_frames + state.dropped_frames,
            dropped_audio_ms=before.dropped_audio_ms + state.dropped_audio_ms,
            restarts=before.restarts + state.restarts,
        )

    def _reach(self, modality: Modality, time_s: float) -> None:
        self._reached_s[modality] = max(time_s, self._reached_s.get(modality, time_s))

    def _check(self, peer: Peer, modality: Modality, time_s: float | None, now_s: float) -> None:
        """Refuse what was not announced, and data from the future: it would complete windows yet to come."""
        if modality not in peer.hello.modalities:
            raise ProtocolError("malformed", f"ingest: {self.source} announced no {modality}")
        origin_s = 0.0 if peer.hello.clock == "host" else self.epoch_s
        if time_s is None or origin_s is None or peer.hello.lossless:
            return
        if time_s + origin_s > now_s + MAX_LEAD_S:
            ahead_s = time_s + origin_s - now_s
            raise ProtocolError(
                "future", f"ingest: {self.source} is {ahead_s:.1f} s ahead of the clock"
            )

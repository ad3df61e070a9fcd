"""What `IngestServer.poll` reports, one dataclass for each kind of event."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.transport.protocol import CaptureState, Clock, Stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Connected:
    """A capture process was accepted for these streams of a source; a predecessor is replaced."""

    source: str
    streams: tuple[Stream, ...]
    pid: int
    clock: Clock
    lossless: bool
    lateness_s: float  # how long after its capture data may come


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A grid frame. `time_s`: source clock. `received_s`: our `perf_counter` at receipt."""

    source: str
    time_s: float
    seq: int
    rgb: NDArray[np.uint8]  # (H, W, 3) RGB, read-only
    mark_s: float | None  # no frame at or before this time will follow
    received_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Pcm:
    """A chunk of sound. `start_s`: source clock, first sample. `received_s`: our `perf_counter`."""

    source: str
    start_s: float
    seq: int
    pcm: NDArray[np.float32]  # (S,) mono 16 kHz in [-1, 1], read-only
    gap_samples: int  # of the S samples, these stand for sound that the medium lacks
    received_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Marked:
    """Nothing of `stream` captured at or before `time_s` (source clock) will follow."""

    source: str
    stream: Stream
    time_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StateChanged:
    """What a device is doing.

    Drops and restarts, of the device, are cumulative over every process that has served the stream. A new process is no
    restart of the device; `Connected` tells of it.
    """

    source: str
    stream: Stream
    state: CaptureState
    detail: str
    dropped_frames: int
    dropped_audio_ms: float
    restarts: int
    clock_uncertainty_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochSet:
    """Source time t of a paced file is played at `epoch_s + t` on our `perf_counter`."""

    source: str
    epoch_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The file is over: every stream of `streams` is complete."""

    source: str
    streams: tuple[Stream, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerLost:
    """A capture process fell silent without an `Ended`: its streams are lost until it is back."""

    source: str
    streams: tuple[Stream, ...]
    detail: str


IngestEvent = Connected | Frame | Pcm | Marked | StateChanged | EpochSet | Ended | PeerLost

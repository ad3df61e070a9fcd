"""What `Receiver.poll` reports: a message of the protocol, and who has sent it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream.transport.protocol import End, Epoch, FrameHeader, Hello, PcmHeader, State, Watermark

NO_DATA: NDArray[Any] = np.empty(0, np.uint8)


@dataclass(frozen=True, slots=True)
class PeerLost:
    """A capture process fell silent without an `End`: its modalities are lost until it is back."""

    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing that an accepted capture process has said, or that has become of it.

    Attributes:
        hello: how the process introduced itself: its source, modalities and clock.
        message: what it says. A `Hello` says that it was accepted, and replaces a predecessor. The counters of a
            `State` are cumulative over every process that has served the modality; a new process is no restart of the
            device.
        data: read-only pixels of a `FrameHeader`, uint8 (H, W, 3) RGB, or samples of a `PcmHeader`, float32 (S,) mono
            16 kHz in [-1, 1]; else empty.
        received_s: our `perf_counter` at receipt.
    """

    hello: Hello
    message: Hello | FrameHeader | PcmHeader | Watermark | State | Epoch | End | PeerLost
    data: NDArray[Any] = field(default_factory=lambda: NO_DATA)
    received_s: float

    @property
    def source(self) -> str:
        """Name of the source that it is about."""
        return self.hello.source

"""The internal protocol between capture processes (DEALER) and the inference process (ROUTER).

Every message is two ZeroMQ parts, `[header, payload]`. The header is one byte, `PROTOCOL_VERSION`, and a msgpack map
tagged by `type`; it stands before the map so that a version mismatch is told apart from garbage. The payload is raw
pixels or samples for `frame` and `pcm`, and empty for everything else.

All `*_s` times are on the *source clock* unless the name says otherwise: the inference host's `time.perf_counter` for
devices and live network streams (`clock="host"`), media time from 0 for files (`clock="media"`).
"""

import math
import os
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from emostream.errors import ConfigError, LinkError
from emostream.sampling import SAMPLE_RATE_HZ as PCM_RATE_HZ

PROTOCOL_VERSION = 1
MAX_PCM_SAMPLES = 10 * PCM_RATE_HZ
MAX_MESSAGE_BYTES = 32 * 2**20  # one 4K RGB frame is 24.9 MB
TOKEN_VARIABLE = "EMOSTREAM_INGEST_TOKEN"
SERVER_KEY_VARIABLE = "EMOSTREAM_INGEST_SERVER_KEY"
_ADDRESS_VARIABLES = (
    TOKEN_VARIABLE,
    SERVER_KEY_VARIABLE,
    "EMOSTREAM_INGEST_CLIENT_KEY",
    "EMOSTREAM_INGEST_CLIENT_SECRET",
)

Modality = Literal["video", "audio"]
Clock = Literal["host", "media"]
CaptureState = Literal["opening", "live", "lost", "retrying"]

LATENESS_S = 0.15  # of cameras and microphones, their drivers' buffers and one late frame included

SourceName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")]
Count = Annotated[int, Meta(ge=0)]


# On the wire a modality is called `stream` and a watermark `mark`, since version 1.
_WIRE_NAMES = {"modality": "stream", "modalities": "streams", "watermark_s": "mark_s"}


class Hello(Struct, frozen=True, tag="hello", rename=_WIRE_NAMES):
    """First message of a capture process, repeated until it is answered by `Welcome` or `Reject`."""

    source: SourceName
    modalities: Annotated[tuple[Modality, ...], Meta(min_length=1, max_length=2)]
    pid: Count
    clock: Clock
    lossless: bool  # sends data only against `Credit`, and drops none
    token: str = ""
    # How long after its capture data may come.
    lateness_s: Annotated[float, Meta(ge=0, le=60)] = LATENESS_S


class FrameHeader(Struct, frozen=True, tag="frame", rename=_WIRE_NAMES):
    """One frame; payload uint8 (height, width, 3) RGB, C order.

    `watermark_s`: no frame captured at or before this time will follow, so every grid cell that ends there is complete.
    """

    time_s: float
    seq: Count
    height: Annotated[int, Meta(ge=1, le=16384)]
    width: Annotated[int, Meta(ge=1, le=16384)]
    watermark_s: float | None = None


class PcmHeader(Struct, frozen=True, tag="pcm"):
    """One chunk of sound; payload float32 (S,) little-endian mono 16 kHz in [-1, 1].

    `start_s` is the time of the first sample, a whole number of 1/16000 s. `gap_samples` of the S samples stand for
    sound that the medium lacks.
    """

    start_s: float
    seq: Count
    gap_samples: Count = 0


class Watermark(Struct, frozen=True, tag="mark", rename=_WIRE_NAMES):
    """Nothing of `modality` captured at or before `time_s` will follow (see `FrameHeader.watermark_s`)."""

    modality: Modality
    time_s: float


class State(Struct, frozen=True, tag="state", rename=_WIRE_NAMES):
    """What one modality's device is doing. Counters are cumulative since the capture process started."""

    modality: Modality
    state: CaptureState
    detail: Annotated[str, Meta(max_length=1000)] = ""
    dropped_frames: Count = 0
    dropped_audio_ms: Annotated[float, Meta(ge=0)] = 0.0
    restarts: Count = 0  # times the device was reopened
    clock_uncertainty_s: Annotated[float, Meta(ge=0)] = 0.0  # 0 on the inference host itself


class Epoch(Struct, frozen=True, tag="epoch"):
    """Media time 0 is (was, will be) played at `epoch_s` on the inference host's `perf_counter`."""

    epoch_s: float


class End(Struct, frozen=True, tag="end"):
    """The file is over, every modality of this peer complete. Answered by `Stop`, once all before it was received."""


class Ping(Struct, frozen=True, tag="ping"):
    """Heartbeat and clock probe. `sent_s`: the sender's own `perf_counter`."""

    sent_s: float


class Welcome(Struct, frozen=True, tag="welcome"):
    """Answer to `Hello`. A file shorter than `num_frames` steps is sampled as one clip; 0 samples it on the grid."""

    step_s: Annotated[float, Meta(gt=0)]
    started: bool
    epoch_s: float | None = None  # of a file whose pacing a predecessor began
    resume_s: float = 0.0  # up to where (media time) every modality of that file has been received
    num_frames: Count = 0


class Reject(Struct, frozen=True, tag="reject"):
    """The peer may not (or no longer) send; `reason` is for its user."""

    reason: str


class Unknown(Struct, frozen=True, tag="unknown"):
    """We have no hello of yours: the inference process was started anew, or took you for dead. Say it again."""


class Start(Struct, frozen=True, tag="start"):
    """The model is warm: file pacing begins."""


class Credit(Struct, frozen=True, tag="credit"):
    """A lossless peer may send `messages` more frames or PCM chunks."""

    messages: Annotated[int, Meta(ge=1)]


class Stop(Struct, frozen=True, tag="stop"):
    """Close the device and exit with 0."""


class Pong(Struct, frozen=True, tag="pong"):
    """Answer to `Ping`: its `sent_s`, and the inference host's `perf_counter` at receipt and reply."""

    sent_s: float
    received_s: float
    replied_s: float


Upstream = Hello | FrameHeader | PcmHeader | Watermark | State | Epoch | End | Ping
Downstream = Welcome | Reject | Unknown | Start | Credit | Stop | Pong

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_upstream = msgspec.msgpack.Decoder(Upstream)
_downstream = msgspec.msgpack.Decoder(Downstream)


class ProtocolError(LinkError):
    """A message that is not of this protocol. `kind` names the counter it belongs to."""

    def __init__(self, kind: Literal["version", "malformed", "future"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


def encode(header: Upstream | Downstream) -> bytes:
    """Header part of one message."""
    return bytes((PROTOCOL_VERSION,)) + _encoder.encode(header)


def decode_upstream(header: bytes | memoryview) -> Upstream:
    """Inverse of `encode` for what a capture process sends.

    Raises:
        ProtocolError: another version, or not a valid message.
    """
    message = _decode(_upstream, header)
    times = (
        getattr(message, name, None) for name in ("time_s", "start_s", "watermark_s", "epoch_s")
    )
    if not all(time_s is None or math.isfinite(time_s) for time_s in times):
        raise ProtocolError("malformed", f"ingest: {type(message).__name__} has a time that is NaN")
    return message


def decode_downstream(header: bytes | memoryview) -> Downstream:
    """Inverse of `encode` for what the inference process sends.

    Raises:
        ProtocolError: another version, or not a valid message.
    """
    return _decode(_downstream, header)


def _decode(decoder: msgspec.msgpack.Decoder[M], header: bytes | memoryview) -> M:
    if len(header) < 1 or header[0] != PROTOCOL_VERSION:
        found = header[0] if len(header) else "an empty header"
        raise ProtocolError(
            "version",
            f"ingest: wanted protocol version {PROTOCOL_VERSION}, found {found}; "
            "run the same emostream version on both hosts",
        )
    try:
        return decoder.decode(header[1:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("malformed", f"ingest: not a valid message: {error}") from None


def frame_pixels(header: FrameHeader, payload: memoryview) -> NDArray[np.uint8]:
    """Payload of a frame as a read-only uint8 (H, W, 3) RGB view.

    Raises:
        ProtocolError: the payload has another length than the header says.
    """
    wanted = header.height * header.width * 3
    if len(payload) != wanted:
        raise ProtocolError(
            "malformed", f"ingest: frame of {len(payload)} bytes, its header says {wanted}"
        )
    flat = np.frombuffer(payload, np.uint8)
    flat.flags.writeable = False  # several windows share it
    return flat.reshape(header.height, header.width, 3)


def pcm_samples(payload: memoryview) -> NDArray[np.float32]:
    """Payload of a PCM chunk as a read-only float32 (S,) view.

    Raises:
        ProtocolError: empty, over 10 s, not whole samples, or not finite.
    """
    if len(payload) % 4 or not 0 < len(payload) <= 4 * MAX_PCM_SAMPLES:
        raise ProtocolError("malformed", f"ingest: PCM chunk of {len(payload)} bytes")
    pcm = np.frombuffer(payload, "<f4")
    if not np.isfinite(pcm).all():
        raise ProtocolError("malformed", "ingest: PCM chunk with NaN or infinite samples")
    pcm.flags.writeable = False
    return pcm


@dataclass(frozen=True, slots=True)
class IngestAddress:
    """Where and how a capture process reaches the inference process.

    The endpoint goes on the command line; the secrets go through the environment, which other users cannot read.
    """

    endpoint: str  # ipc:///…/i or tcp://127.0.0.1:port
    token: str = field(default="", repr=False)
    server_key: str = ""  # CURVE public key (Z85) of the server; empty without CURVE
    client_key: str = ""  # our own, where the server has an allow-list; else one is made
    client_secret: str = field(default="", repr=False)

    def environment(self) -> dict[str, str]:
        """Variables to add to a capture process's environment."""
        return dict(zip(_ADDRESS_VARIABLES, self._secrets(), strict=True))

    def _secrets(self) -> tuple[str, ...]:
        return self.token, self.server_key, self.client_key, self.client_secret

    @classmethod
    def from_environment(cls, endpoint: str) -> "IngestAddress":
        """Inverse of `environment`; takes the variables away so that no grandchild inherits them.

        Raises:
            ConfigError: the endpoint is neither `ipc://` nor `tcp://`.
        """
        if not endpoint.startswith(("ipc://", "tcp://")):
            raise ConfigError(
                f"capture: wanted an ipc:// or tcp:// endpoint, found {endpoint!r}; "
                "give the endpoint that the inference process printed"
            )
        return cls(endpoint, *(os.environ.pop(name, "") for name in _ADDRESS_VARIABLES))

"""The wire contract, version 1: what `emostream` publishes, as frozen dataclasses, and its coding.

A ZeroMQ message has two parts, `[topic, payload]`. The payload is one UTF-8 JSON object without NaN
or Infinity, or the same map in msgpack. Its first byte tells them apart: a msgpack map begins with
0x80-0x8f, 0xde or 0xdf, and JSON never does. `decode(encode(event)) == event`. Unknown fields are
ignored, an unknown `version` raises `VersionError`, and any other departure from
`stream/schema/*.json` raises `MessageError`.

Only the standard library is imported, so that a subscriber needs pyzmq and nothing else; msgpack
payloads import msgspec when the first one is met.

Clocks: the source clock (`timestamp_s`, `window`) is `time.perf_counter` of the inference host for
devices and media time from 0 for files; `unix_time_s` and `published_s` are Unix time.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from stream.pubsub.conform import MessageError as MessageError
from stream.pubsub.conform import Range, build, check

VERSION: Final = 1
DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5556"
SOURCE_PATTERN: Final = r"[A-Za-z0-9_-]{1,32}"
SESSION_PATTERN: Final = r"[A-Za-z0-9_-]{1,64}"

Kind = Literal["label", "reasoning", "status"]
Encoding = Literal["json", "msgpack"]
Presence = Literal["ok", "degraded", "missing"]
State = Literal["starting", "live", "degraded", "lost", "stopped"]

KINDS: Final[tuple[Kind, ...]] = typing.get_args(Kind)


class VersionError(MessageError):
    """The message speaks another version of the wire contract."""


# JSON numbers are doubles in most languages: integers beyond 2**53 - 1 would arrive changed.
Count = Annotated[int, Range(0, 2**53 - 1)]
NonNegative = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1)]
# Scores may have been rounded for the wire; anything further from 1 is not a distribution.
_SUM_TOLERANCE: Final = 1e-2


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The stretch (start_s, end_s] of the source clock that a message speaks of.

    `id` is the grid index of `end_s` (end_s / step_s); a gap in it is a window that the pipeline
    skipped.
    """

    id: Count
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        check(self)
        if not self.start_s < self.end_s:
            raise MessageError(
                f"Window: start_s must be before end_s; got {self.start_s}, {self.end_s}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Smoothed:
    """Rolling scores (exponential, time constant in seconds) and the label held by hysteresis."""

    label: str
    scores: dict[str, Probability]

    def __post_init__(self) -> None:
        check(self)
        _check_scores("Smoothed", self.label, self.scores)


@dataclass(frozen=True, kw_only=True, slots=True)
class Modalities:
    """Whether each modality took part: `degraded` has repeats or gaps, `missing` adds no tokens."""

    video: Presence
    audio: Presence

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """What was lost before the model saw it, cumulative over the session."""

    frames: Count
    audio_ms: NonNegative
    windows: Count

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds by stage; `total` is the send less the capture of the window's newest sample.

    `capture`, `queue` and `total` may fall slightly below 0 when capture runs on another host, by
    the uncertainty of the clock offset between the two.
    """

    capture: float
    queue: float
    encode: NonNegative
    prefill: NonNegative
    decode: NonNegative
    total: float

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Envelope:
    """The fields of every message. `session`, `seq` and `published_s` are stamped by the publisher.

    Attributes:
        version: version of the wire contract.
        topic: ZeroMQ topic, derived from the kind of message and `source`.
        session: identifies one run of one publisher; `seq` restarts with it. Empty until stamped.
        seq: per topic, from 0; a gap is transport loss.
        source: name of the camera, microphone pair or file.
        timestamp_s: source clock; `window.end_s` for labels and reasonings.
        unix_time_s: the same instant in Unix time; None when a file is read faster than real time.
        published_s: Unix time at send; 0 until stamped.
    """

    version: int = field(default=VERSION, init=False)
    topic: str = field(init=False)
    session: str = ""
    seq: Count = 0
    source: str
    timestamp_s: float
    unix_time_s: float | None
    published_s: NonNegative = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(_Envelope):
    """One emotion label, every hop.

    Attributes:
        window: the stretch of the source clock that was judged.
        label: the most probable label of this window alone.
        scores: probability by label, summing to 1; a fixed set of labels within a session.
        smoothed: the rolling label and scores over the same labels.
        modalities: whether video and audio took part.
        frames_used: distinct frames that the model saw in this window.
        audio_gap_ms: milliseconds of the window's audio that were missing and filled with zeros.
        av_skew_ms: capture time of the newest audio sample less that of the newest frame; None
            unless both took part.
        dropped: losses before the model, cumulative over the session.
        latency_ms: milliseconds by stage.
        model: name of the model that judged.
    """

    window: Window
    label: str
    scores: dict[str, Probability]
    smoothed: Smoothed
    modalities: Modalities
    frames_used: Count
    audio_gap_ms: NonNegative
    av_skew_ms: float | None
    dropped: Dropped
    latency_ms: Latency
    model: str

    def __post_init__(self) -> None:
        _check_event(self)
        _check_window_end(self.window, self.timestamp_s)
        _check_scores("Label", self.label, self.scores)
        if self.smoothed.scores.keys() != self.scores.keys():
            raise MessageError("Label: scores and smoothed.scores must have the same labels")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning(_Envelope):
    """The reasons behind one window, sent again as it grows until `done`.

    Attributes:
        window: the stretch of the source clock that is explained.
        think: the explanation so far, whole each time, so that a lost message costs nothing.
        answer: the label that the explanation ends with; None until `done`, and after it when none
            could be read.
        agrees_with_label: whether `answer` is the label published for the same window; None until
            `done`.
        done: the explanation is complete.
        tokens: tokens written so far.
        latency_ms: milliseconds by stage.
    """

    window: Window
    think: str
    answer: str | None
    agrees_with_label: bool | None
    done: bool
    tokens: Count
    latency_ms: Latency

    def __post_init__(self) -> None:
        _check_event(self)
        _check_window_end(self.window, self.timestamp_s)
        if not self.done and (self.answer is not None or self.agrees_with_label is not None):
            raise MessageError("Reasoning: answer and agrees_with_label must be null until done")


@dataclass(frozen=True, kw_only=True, slots=True)
class Status(_Envelope):
    """The heartbeat of a source, every second and at every change of state.

    Attributes:
        state: `starting`, `live`, `degraded` (a modality is impaired), `lost` (no data) or
            `stopped` (the last message of a session).
        detail: one line for a person: what is wrong, what is being done about it; may be empty.
        fps_in: video frames a second that arrive from capture, 0 without video.
        hops_per_s: labels a second.
        skipped: windows skipped so far because inference was slower than the hop.
        restarts: how often capture was restarted in this session.
        uptime_s: seconds since the session began.
    """

    state: State
    detail: str
    fps_in: NonNegative
    hops_per_s: NonNegative
    skipped: Count
    restarts: Count
    uptime_s: NonNegative

    def __post_init__(self) -> None:
        _check_event(self)


Event = Label | Reasoning | Status
EventT = TypeVar("EventT", bound=Label | Reasoning | Status)
_CLASSES: Final[dict[Kind, type[Event]]] = {
    "label": Label,
    "reasoning": Reasoning,
    "status": Status,
}


def check_source(source: str) -> str:
    """Return `source` unchanged, or raise `MessageError` when no topic may carry it."""
    if not isinstance(source, str) or not re.fullmatch(SOURCE_PATTERN, source):
        raise MessageError(f"source name must match {SOURCE_PATTERN}; got {source!r}")
    return source


def topic_of(kind: Kind, source: str) -> str:
    """Topic: `emotion.<source>.label`, `emotion.<source>.reasoning` or `status.<source>`."""
    check_source(source)
    return f"status.{source}" if kind == "status" else f"emotion.{source}.{kind}"


def parse_topic(topic: str) -> tuple[Kind, str]:
    """Kind and source of a topic, the inverse of `topic_of`.

    Raises:
        MessageError: `topic` is none of the three forms.
    """
    parts = topic.split(".")
    if len(parts) == 2 and parts[0] == "status":
        return "status", check_source(parts[1])
    if len(parts) == 3 and parts[0] == "emotion" and parts[2] in ("label", "reasoning"):
        return typing.cast(Kind, parts[2]), check_source(parts[1])
    raise MessageError(
        "topic must be emotion.<source>.label, emotion.<source>.reasoning or status.<source>; "
        f"got {topic!r:.100}"
    )


def to_dict(event: Event) -> dict[str, Any]:
    """The wire fields of a stamped event as plain dicts, strings and numbers.

    Raises:
        MessageError: the event has not been stamped with a session and a time of publication.
    """
    if not event.session or not event.published_s:
        raise MessageError(
            f"{type(event).__name__}: session and published_s must be stamped before encoding; "
            "pass the event to Publisher.publish, or dataclasses.replace them"
        )
    return dataclasses.asdict(event)


def encode(event: Event, encoding: Encoding = "json") -> list[bytes]:
    """Multipart `[topic, payload]` of a stamped event; `decode` is the inverse.

    Raises:
        MessageError: the event is unstamped, `encoding` is unknown, or msgpack lacks msgspec.
    """
    fields = to_dict(event)
    if encoding == "json":
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        payload = text.encode()
    elif encoding == "msgpack":
        payload = _msgpack().encode(fields)
    else:
        raise MessageError(f"encoding must be json or msgpack; got {encoding!r}")
    return [event.topic.encode(), payload]


def decode(frames: Sequence[bytes]) -> Event:
    """Event of a multipart message `[topic, payload]` in either encoding.

    Raises:
        VersionError: the payload has another `version`.
        MessageError: anything else departs from the wire contract.
    """
    if len(frames) != 2:
        raise MessageError(f"message must have 2 parts, topic and payload; got {len(frames)}")
    event = decode_payload(frames[1])
    if frames[0] != event.topic.encode():
        raise MessageError(f"topic frame must be {event.topic!r}; got {bytes(frames[0][:100])!r}")
    return event


def decode_payload(payload: bytes) -> Event:
    """Event of a payload alone, as stored in recordings; raises as `decode` does."""
    raw = _parse(payload)
    if not isinstance(raw, dict):
        raise MessageError(f"payload must be an object; got {type(raw).__name__}")
    if "version" not in raw:
        raise MessageError("payload has no version: it is not a message of emostream")
    version = raw["version"]
    if type(version) is not int or version != VERSION:
        raise VersionError(
            f"message has wire version {version!r:.40}; this emostream reads version {VERSION}: "
            "use the same release at both ends"
        )
    topic = raw.get("topic")
    if not isinstance(topic, str):
        raise MessageError(f"topic must be a string; got {topic!r:.100}")
    kind, source = parse_topic(topic)
    event = build(_CLASSES[kind], raw)
    if event.source != source:
        raise MessageError(f"source must be {source!r}, as in the topic; got {event.source!r}")
    if not event.session or not event.published_s:
        raise MessageError("session must not be empty and published_s must be above 0")
    return event


def _parse(payload: bytes) -> Any:
    try:
        if payload[:1] >= b"\x80":
            return _msgpack().decode(payload)
        return json.loads(payload.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, MessageError):
            raise
        raise MessageError(f"payload is neither JSON nor msgpack: {error}") from error


def _refuse_constant(name: str) -> float:
    raise MessageError(f"payload must be strict JSON; it has {name}")


def _msgpack() -> types.ModuleType:
    try:
        import msgspec.msgpack
    except ModuleNotFoundError as error:
        raise MessageError(
            "msgpack payloads need msgspec: pip install msgspec, or publish with --encoding json"
        ) from error
    return msgspec.msgpack


def _check_event(event: Event) -> None:
    kind = typing.cast(Kind, type(event).__name__.lower())
    object.__setattr__(event, "topic", topic_of(kind, event.source))
    check(event)
    if event.session and not re.fullmatch(SESSION_PATTERN, event.session):
        raise MessageError(f"session must match {SESSION_PATTERN}; got {event.session!r:.100}")


def _check_window_end(window: Window, timestamp_s: float) -> None:
    if timestamp_s != window.end_s:
        raise MessageError(f"timestamp_s must be window.end_s = {window.end_s}; got {timestamp_s}")


def _check_scores(where: str, label: str, scores: dict[str, float]) -> None:
    if label not in scores:
        raise MessageError(f"{where}: label must be among its scores; got {label!r:.100}")
    if abs(math.fsum(scores.values()) - 1) > _SUM_TOLERANCE:
        raise MessageError(f"{where}: scores must sum to 1; got {math.fsum(scores.values())}")

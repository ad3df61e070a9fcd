"""The wire contract, version 1: what `emostream` publishes, and its coding.

A ZeroMQ message has two parts, `[topic, payload]`. The payload is one UTF-8 JSON object without NaN
or Infinity, or the same map in msgpack. Its first byte tells them apart: a msgpack map begins with
0x80-0x8f, 0xde or 0xdf, and JSON never does. `decode(encode(event)) == event`. Unknown fields are
ignored, an unknown `version` raises `VersionError`, and any other departure raises `MessageError`.

`stream/schema/*.json` and the message reference are generated from the classes here and their
docstrings (`make docs`). A field that is added later has a default, so that messages without it can
still be read.

Clocks: the source clock (`timestamp_s`, `window`) is `time.perf_counter` of the inference host for
devices and media time from 0 for files; `unix_time_s` and `published_s` are Unix time.
"""

import functools
import math
import re
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct
from msgspec.structs import force_setattr

from emostream.errors import EmostreamError

VERSION: Final = 1
DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5556"
SOURCE_PATTERN: Final = r"[A-Za-z0-9_-]{1,32}"
SESSION_PATTERN: Final = r"[A-Za-z0-9_-]{1,64}"

Kind = Literal["label", "reasoning", "status"]
Encoding = Literal["json", "msgpack"]
Presence = Literal["ok", "degraded", "missing"]
State = Literal["starting", "live", "degraded", "lost", "stopped"]

KINDS: Final[tuple[Kind, ...]] = typing.get_args(Kind)

# JSON numbers are doubles in most languages: integers beyond 2**53 - 1 would arrive changed.
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
NonNegative = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Scores = Annotated[dict[str, Probability], Meta(min_length=1)]
# Scores may have been rounded for the wire; anything further from 1 is not a distribution.
_SUM_TOLERANCE: Final = 1e-2


class MessageError(EmostreamError, ValueError):
    """A message, or a value meant for one, departs from the wire contract."""


class VersionError(MessageError):
    """The message speaks another version of the wire contract."""


class _Checked(Struct, frozen=True, kw_only=True):
    """Holds its fields to their annotations when it is made, as msgspec does when it decodes them.

    Integers become floats where due; no number is NaN or infinite.
    """

    def __post_init__(self) -> None:
        for field in _fields_of(type(self)):
            value = getattr(self, field.name)
            if field.name in ("session", "published_s") and not value:
                continue  # not stamped yet
            where = f"{type(self).__name__}.{field.name}"
            numbers = value if isinstance(value, tuple) else (value,)
            if isinstance(value, dict):
                numbers = tuple(value.values())
            if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
                raise MessageError(f"{where} must be finite; got {value!r:.100}")
            if isinstance(value, float):
                value = float(value)  # numpy's are floats to Python, but not to msgspec
            try:
                force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError as error:
                raise MessageError(f"{where}: {error}") from error


class Window(_Checked, frozen=True, kw_only=True):
    """The stretch (start_s, end_s] of the source clock that a message speaks of.

    Attributes:
        id: Grid index of end_s (end_s / step); a gap is a window that the pipeline skipped.
        start_s: Start, seconds on the source clock; before end_s.
        end_s: End, seconds on the source clock.
    """

    id: Count
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start_s < self.end_s:
            raise MessageError(
                f"Window: start_s must be before end_s; got {self.start_s}, {self.end_s}"
            )


class Smoothed(_Checked, frozen=True, kw_only=True):
    """The rolling view: exponentially smoothed scores, and a label held by hysteresis.

    Attributes:
        label: The label that holds; a key of smoothed.scores.
        scores: Smoothed probability by label, over the same labels as scores, summing to 1 (within 0.01).
    """

    label: str
    scores: Scores

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_scores("Smoothed", self.label, self.scores)


class Modalities(_Checked, frozen=True, kw_only=True):
    """Whether each modality took part: degraded repeats frames or fills gaps, missing gives the model nothing.

    Attributes:
        video: State of the video in this window.
        audio: State of the audio in this window.
    """

    video: Presence
    audio: Presence


class Face(_Checked, frozen=True, kw_only=True):
    """A face in the picture.

    Attributes:
        box: Left, top, width and height, in parts of the picture's width and height; it may reach over the edge.
        confidence: The detector's, when the face was last seen.
        track: Number that holds while somebody stays, anonymous; who comes back after a while gets a new one.
    """

    box: tuple[float, float, NonNegative, NonNegative]
    confidence: Probability
    track: Count


class Absent(_Checked, frozen=True, kw_only=True):
    """Why a modality was left out though it was captured; null where it was not left out.

    Attributes:
        video: nobody visible, or face too small.
        audio: nobody speaking, or voice unattributed.
    """

    video: str | None = None
    audio: str | None = None


class Dropped(_Checked, frozen=True, kw_only=True):
    """What was lost before the model saw it, cumulative over the session.

    Attributes:
        frames: Video frames.
        audio_ms: Audio, milliseconds.
        windows: Windows.
    """

    frames: Count
    audio_ms: NonNegative
    windows: Count


class Latency(_Checked, frozen=True, kw_only=True):
    """Milliseconds by stage.

    capture, queue and total may be slightly negative when capture runs on another host, by the
    uncertainty of the clock offset.

    Attributes:
        capture: From the capture of the window's newest sample to its arrival at the pipeline, milliseconds.
        queue: Waiting for the window to close and for the model, milliseconds.
        encode: Vision and audio encoders, milliseconds.
        prefill: Language model over the prompt, milliseconds.
        decode: Scoring of the labels or writing of the reasoning, milliseconds.
        total: Send less capture of the window's newest sample, milliseconds.
    """

    capture: float
    queue: float
    encode: NonNegative
    prefill: NonNegative
    decode: NonNegative
    total: float


class _Envelope(_Checked, frozen=True, kw_only=True):
    """The fields of every message. `session`, `seq` and `published_s` are stamped by the publisher.

    Attributes:
        version: Version of this contract; a message of any other version must be refused.
        topic: ZeroMQ topic, equal to the first part of the multipart message; follows from the
            kind of message and its source.
        session: Identifies one run of one publisher; seq restarts with it. A (session, topic, seq)
            seen before is a replay for late subscribers and must be discarded.
        seq: Number of the message within its topic and session, from 0; a gap is transport loss.
        source: Name of the camera and microphone pair or file.
        timestamp_s: Source clock, seconds: window.end_s of emotions, the time of a status. The
            clock is monotonic on the inference host for devices, media time from 0 for files.
        unix_time_s: The instant of timestamp_s in Unix time, seconds; null when a file is read
            faster than real time.
        published_s: Unix time at send, seconds.
    """

    version: Literal[1] = VERSION
    topic: str = ""
    session: Annotated[str, Meta(pattern=f"^{SESSION_PATTERN}$")] = ""
    seq: Count = 0
    source: Annotated[str, Meta(pattern=f"^{SOURCE_PATTERN}$")]
    timestamp_s: float
    unix_time_s: float | None
    published_s: Annotated[float, Meta(gt=0)] = 0.0

    def __post_init__(self) -> None:
        kind = typing.cast(Kind, type(self).__name__.lower())
        # Whatever was given: an event whose source is replaced gets that source's topic.
        force_setattr(self, "topic", topic_of(kind, self.source))
        super().__post_init__()
        if self.session and not re.fullmatch(SESSION_PATTERN, self.session):
            raise MessageError(f"session must match {SESSION_PATTERN}; got {self.session!r:.100}")


class Label(_Envelope, frozen=True, kw_only=True):
    """One emotion label over a rolling window, published every hop on `emotion.<source>.label`.

    Attributes:
        window: The stretch (start_s, end_s] of the source clock that the message speaks of.
        label: The most probable label of this window alone; a key of scores.
        scores: Probability by label, summing to 1 (within 0.01); the same labels throughout a session.
        smoothed: The rolling view: exponentially smoothed scores, and a label held by hysteresis.
        modalities: Whether each modality took part: degraded repeats frames or fills gaps, missing
            gives the model nothing.
        frames_used: Distinct video frames that the model saw in this window.
        audio_gap_ms: Audio of the window that was missing and filled with zeros, milliseconds.
        av_skew_ms: Capture time of the newest audio sample less that of the newest frame,
            milliseconds; null unless both modalities took part.
        dropped: What was lost before the model saw it, cumulative over the session.
        latency_ms: Milliseconds by stage. capture, queue and total may be slightly negative when
            capture runs on another host, by the uncertainty of the clock offset.
        model: Name of the model that judged.
        people: How many people are visible at the window's end; null where nobody looked.
        face: Whose emotion it is; null if not visible.
        speech_ratio: Share of the window in which somebody speaks; null where nobody listened.
        absent: Why a modality was left out though it was captured; null where nobody looked.
        left_out: How many people are visible and get no label; null where nobody looked.
        voice: attributed: the only person in view speaks. unattributed: several were in view in this window and
            somebody speaks, so that each is judged by the picture alone. null: nobody speaks, nobody is in view, or
            nobody looked.
        baseline_s: How much of this person's speech was heard before this window began, seconds: what the voice is
            judged against, up to 300; null for models that judge every voice as a stranger's, and with --baseline off.
    """

    topic: Annotated[str, Meta(pattern=rf"^emotion\.{SOURCE_PATTERN}\.label$")] = ""
    window: Window
    label: str
    scores: Scores
    smoothed: Smoothed
    modalities: Modalities
    frames_used: Count
    audio_gap_ms: NonNegative
    av_skew_ms: float | None
    dropped: Dropped
    latency_ms: Latency
    model: str
    people: Count | None = None
    face: Face | None = None
    speech_ratio: Probability | None = None
    absent: Absent | None = None
    left_out: Count | None = None
    voice: str | None = None
    baseline_s: NonNegative | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window_end(self.window, self.timestamp_s)
        _check_scores("Label", self.label, self.scores)
        if self.smoothed.scores.keys() != self.scores.keys():
            raise MessageError("Label: scores and smoothed.scores must have the same labels")


class Reasoning(_Envelope, frozen=True, kw_only=True):
    """The reasons behind one window, on `emotion.<source>.reasoning`; sent again as it grows until done.

    Attributes:
        window: The stretch (start_s, end_s] of the source clock that the message speaks of.
        think: The explanation so far, whole in every message, so that a lost one costs nothing; empty if nothing stands
            out.
        answer: The label that the explanation ends with; null until done, and after it when none
            could be read.
        agrees_with_label: Whether answer is the label published for the same window; null until done.
        done: The explanation is complete; no further message for this window follows.
        tokens: Tokens written so far.
        latency_ms: Milliseconds by stage. capture, queue and total may be slightly negative when
            capture runs on another host, by the uncertainty of the clock offset.
    """

    topic: Annotated[str, Meta(pattern=rf"^emotion\.{SOURCE_PATTERN}\.reasoning$")] = ""
    window: Window
    think: str
    answer: str | None
    agrees_with_label: bool | None
    done: bool
    tokens: Count
    latency_ms: Latency

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window_end(self.window, self.timestamp_s)
        if not self.done and (self.answer is not None or self.agrees_with_label is not None):
            raise MessageError("Reasoning: answer and agrees_with_label must be null until done")


class Status(_Envelope, frozen=True, kw_only=True):
    """The heartbeat of a source, on `status.<source>`: every second and at every change of state.

    Attributes:
        state: starting: loading and warming up. live: all is well. degraded: a modality is
            impaired. lost: no data, so no labels. stopped: the last message of the session; of a
            person beyond the first (`cam0-p2`), that they have left, until somebody else comes.
        detail: One line for a person: what is wrong and what is being done about it; may be empty.
        fps_in: Video frames that arrive from capture, per second; 0 without video.
        hops_per_s: Labels published, per second.
        skipped: Windows skipped in this session because inference was slower than the hop.
        restarts: How often capture was restarted in this session.
        uptime_s: Seconds since the session began.
        people: How many people are visible at the newest window's end; null where nobody looked.
        face: The one who is judged; null if not visible.
        speech_ratio: Share of the newest window in which somebody speaks; null where nobody listened.
        absent: Why a modality is left out though it is captured; null where nobody looked.
        left_out: How many people are visible and get no label; null where nobody looked.
        voice: attributed: the only person in view speaks. unattributed: several were in view in the newest window and
            somebody speaks. null: nobody speaks, nobody is in view, or nobody looked.
    """

    topic: Annotated[str, Meta(pattern=rf"^status\.{SOURCE_PATTERN}$")] = ""
    state: State
    detail: str
    fps_in: NonNegative
    hops_per_s: NonNegative
    skipped: Count
    restarts: Count
    uptime_s: NonNegative
    people: Count | None = None
    face: Face | None = None
    speech_ratio: Probability | None = None
    absent: Absent | None = None
    left_out: Count | None = None
    voice: str | None = None


Event = Label | Reasoning | Status
EventT = TypeVar("EventT", bound=Label | Reasoning | Status)
CLASSES: Final[dict[Kind, type[Event]]] = {
    "label": Label,
    "reasoning": Reasoning,
    "status": Status,
}


class Stamp(Struct):
    """What every payload has, though an event has it only once it is published."""

    version: Any = UNSET
    topic: Any = UNSET
    session: Any = UNSET
    seq: Any = UNSET
    published_s: Any = UNSET


def check_source(source: str) -> str:
    """Return `source` unchanged, or raise `MessageError` when no topic may carry it."""
    if not isinstance(source, str) or not re.fullmatch(SOURCE_PATTERN, source):
        raise MessageError(f"source name must match {SOURCE_PATTERN}; got {source!r:.100}")
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


def encode(event: Event, encoding: Encoding = "json") -> list[bytes]:
    """Multipart `[topic, payload]` of a stamped event; `decode` is the inverse.

    Raises:
        MessageError: the event is unstamped, `encoding` is unknown, or a text is not valid Unicode.
    """
    if not event.session or not event.published_s:
        raise MessageError(
            f"{type(event).__name__}: session and published_s must be stamped before encoding; "
            "pass the event to Publisher.publish, or msgspec.structs.replace them"
        )
    if encoding not in typing.get_args(Encoding):
        raise MessageError(f"encoding must be json or msgpack; got {encoding!r}")
    codec = msgspec.json if encoding == "json" else msgspec.msgpack
    try:
        return [event.topic.encode(), codec.encode(event)]
    except UnicodeEncodeError as error:
        raise MessageError(
            f"{type(event).__name__} has a lone surrogate, no valid Unicode: {error}"
        ) from error


def in_words(reasoning: Reasoning) -> str:
    """The answer and, where there is one, its explanation, as one text."""
    answer = reasoning.answer or "no answer"
    return f"{answer}: {reasoning.think}" if reasoning.think else answer


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
    stamp = _parse(payload, Stamp)
    if stamp.version is UNSET:
        raise MessageError("payload has no version: it is not a message of emostream")
    if type(stamp.version) is not int or stamp.version != VERSION:
        raise VersionError(
            f"message has wire version {stamp.version!r:.40}; this emostream reads version {VERSION}: "
            "use the same release at both ends"
        )
    for name in Stamp.__struct_fields__:
        if getattr(stamp, name) is UNSET:
            raise MessageError(f"message lacks required field `{name}`")
    kind, source = parse_topic(f"{stamp.topic}")
    event: Event = _parse(payload, CLASSES[kind])
    if event.source != source:
        raise MessageError(f"source must be {source!r}, as in the topic; got {event.source!r}")
    return event


_Parsed = TypeVar("_Parsed")


def _parse(payload: bytes, kind: type[_Parsed]) -> _Parsed:
    codec = msgspec.msgpack if payload[:1] >= b"\x80" else msgspec.json
    try:
        parsed: _Parsed = codec.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(
            f"message departs from the contract (strict JSON or msgpack; finite numbers, no lone surrogates): {error}"
        ) from error
    return parsed


@functools.cache
def _fields_of(kind: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _check_window_end(window: Window, timestamp_s: float) -> None:
    if timestamp_s != window.end_s:
        raise MessageError(f"timestamp_s must be window.end_s = {window.end_s}; got {timestamp_s}")


def _check_scores(where: str, label: str, scores: dict[str, float]) -> None:
    if label not in scores:
        raise MessageError(f"{where}: label must be among its scores; got {label!r:.100}")
    if abs(math.fsum(scores.values()) - 1) > _SUM_TOLERANCE:
        raise MessageError(f"{where}: scores must sum to 1; got {math.fsum(scores.values())}")

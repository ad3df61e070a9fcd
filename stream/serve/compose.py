"""The messages that are published of one window: what was cut, and what the model said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stream.pubsub import messages
from stream.pubsub.messages import Label, Latency, Reasoning, Smoothed
from stream.windows.presence_fields import presence_fields
from stream.windows.source_state import SourceState
from stream.windows.window import Window

if TYPE_CHECKING:
    from emostream.inference.reasoning import ReasoningStep
    from emostream.inference.recognizer import Recognition


@dataclass(slots=True)
class Explained:
    """The window that an answer under way is about; times are `perf_counter`'s.

    Attributes:
        label: What was published of it.
        captured_s: When its newest sample was captured.
        begun_s: When its answer was begun.
        sent_s: When the answer, as far as it was, was sent last; 0 before.
    """

    label: Label
    captured_s: float
    begun_s: float
    sent_s: float = 0.0


def capture_time_s(state: SourceState, window: Window, ready_s: float) -> float:
    """`perf_counter` time of a window's newest sample; of files read at full speed, when it had come."""
    newest_s = window.newest_capture_s
    assert newest_s is not None, "a window that took part has a newest sample"
    host_s = state.host_time_s(newest_s)
    return ready_s if host_s is None or state.lossless else host_s


def label_message(
    state: SourceState,
    window: Window,
    recognition: Recognition,
    smoothed: Smoothed,
    *,
    model: str,
    ready_s: float,
    begun_s: float,
    now_s: float,
    looked_s: float = 0.0,
) -> Label:
    """The label of a window.

    Args:
        state: Its source.
        window: What the model was given.
        recognition: What the model said.
        smoothed: The rolling label with this window.
        model: Name in the message.
        ready_s: `perf_counter` time at which the window could have been taken.
        begun_s: Likewise, at which its work began.
        now_s: Likewise, at which the message is sent.
        looked_s: Seconds for which people were looked for.
    """
    captured_s, timing = capture_time_s(state, window, ready_s), recognition.timing
    return Label(
        source=state.name,
        timestamp_s=window.end_s,
        unix_time_s=None if state.lossless else state.unix_time_s(window.end_s),
        window=messages.Window(id=window.id, start_s=window.start_s, end_s=window.end_s),
        label=recognition.label,
        scores=recognition.scores,
        smoothed=smoothed,
        modalities=window.modalities,
        frames_used=window.frames_used,
        audio_gap_ms=window.audio_gap_ms,
        av_skew_ms=window.av_skew_ms,
        dropped=window.dropped,
        latency_ms=Latency(
            capture=1e3 * (ready_s - captured_s),
            queue=1e3 * (begun_s - ready_s),
            encode=1e3 * (looked_s + timing.encode_s),
            prefill=1e3 * timing.prefill_s,
            decode=1e3 * timing.decode_s,
            total=1e3 * (now_s - captured_s),
        ),
        model=model,
        baseline_s=recognition.baseline_s,
        **presence_fields(state.attendance),
    )


def reasoning_message(explained: Explained, step: ReasoningStep, now_s: float) -> Reasoning:
    """The answer about a window as far as it is written, sent at `now_s` (`perf_counter`)."""
    label, answer = explained.label, step.answer.label if step.done else None
    return Reasoning(
        source=label.source,
        timestamp_s=label.timestamp_s,
        unix_time_s=label.unix_time_s,
        window=label.window,
        think=step.answer.think,
        answer=answer,
        agrees_with_label=answer == label.label if step.done else None,
        done=step.done,
        tokens=step.tokens,
        latency_ms=replace(
            label.latency_ms,
            decode=1e3 * (now_s - explained.begun_s),
            total=1e3 * (now_s - explained.captured_s),
        ),
    )

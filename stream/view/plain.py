"""The view as plain lines, for pipes and files: a line for each label, answer and change of status."""

from __future__ import annotations

import time
from typing import TextIO

from stream.pubsub.messages import Event, Label, Reasoning
from stream.view import words
from stream.view.look import Look
from stream.view.state import SourceView, quantile


class PlainLines:
    """Writes events as lines of text without escape codes, each flushed at once.

        14:02:11.532  cam0  label      happy 72%, this window happy 81%, 63 ms, audio degraded
        14:02:12.104  cam0  reasoning  happy, agrees with the label: The corners of the mouth …
        14:02:12.500  cam0  status     degraded: audio degraded

    Args:
        file: where to.
        look: what the file's encoding can hold.
    """

    def __init__(self, file: TextIO, look: Look) -> None:
        self._file = file
        self._look = look
        self._conditions: dict[str, tuple[str, str]] = {}

    def event(self, event: Event) -> None:
        """Write the line of an event, if it has one."""
        clean = self._look.clean
        match event:
            case Label():
                smoothed = event.smoothed
                parts = [
                    f"{clean(smoothed.label)} {smoothed.scores[smoothed.label]:.0%}",
                    f"this window {clean(event.label)} {event.scores[event.label]:.0%}",
                    f"{event.latency_ms.total:.0f} ms",
                ]
                for name in ("video", "audio"):
                    if (presence := getattr(event.modalities, name)) != "ok":
                        parts.append(f"{name} {presence}")
                if event.absent is not None and (
                    event.people != 1 or event.absent.video or event.absent.audio
                ):
                    parts.append(clean(words.presence(event)))
                self._write(event, "label", ", ".join(parts))
            case Reasoning():
                if event.done:
                    answer = "no answer" if event.answer is None else clean(event.answer)
                    agrees = "agrees" if event.agrees_with_label else "does not agree"
                    text = f"{answer}, {agrees} with the label: {clean(words.told(event))}"
                    self._write(event, "reasoning", text)
            case _:
                condition = (event.state, event.detail)
                if self._conditions.get(event.source) != condition:
                    self._conditions[event.source] = condition
                    detail = f": {clean(event.detail)}" if event.detail else ""
                    self._write(event, "status", event.state + detail)

    def notice(self, text: str) -> None:
        """Write a line about the connection."""
        self.line(f"{_time_of_day(time.time())}  {self._look.clean(text)}")

    def line(self, text: str) -> None:
        """Write a line as it is."""
        self._file.write(f"{text}\n")
        self._file.flush()

    def _write(self, event: Event, kind: str, text: str) -> None:
        self.line(f"{_time_of_day(event.published_s)}  {event.source}  {kind:9}  {text}")


def summary(view: SourceView, look: Look) -> str:
    """What was seen of a source, in one sentence after the other."""
    if view.label is None:
        return f"{view.name}: {view.state}, no label received."
    total = view.counts.total()
    shares = (
        f"{look.clean(name)} {count / total:.0%}" for name, count in view.counts.most_common()
    )
    median, p95 = quantile(view.totals_ms, 0.5), quantile(view.totals_ms, 0.95)
    text = f"{view.name}: {total} labels, {', '.join(shares)}. "
    if view.answers:
        text += f"{view.agreements} of {view.answers} reasoned answers agree with their label. "
    text += f"Latency {median:.0f} ms (median), {p95:.0f} ms (95th percentile). "
    dropped = view.label.dropped
    losses = [f"{dropped.frames} frames"] if dropped.frames else []
    losses += [f"{dropped.audio_ms:.0f} ms of audio"] if dropped.audio_ms else []
    losses += [f"{dropped.windows} windows"] if dropped.windows else []
    losses += [f"{view.lost} messages in transport"] if view.lost else []
    return text + f"Lost: {', '.join(losses) or 'nothing'}."


def _time_of_day(unix_s: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(unix_s))}.{int(unix_s % 1 * 1000):03d}"

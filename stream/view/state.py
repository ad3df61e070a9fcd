"""What the terminal view knows: events reduced to the state of each source. No clock, socket or terminal."""

from __future__ import annotations

import math
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from stream.pubsub.messages import Event, Label, Reasoning, State, Status

HISTORY_S = 60.0
"""Seconds of the source clock that the history strip and the latency percentiles cover."""

_MAX_HOPS = 2000  # of `--pace max` too, whose media time may stand still
_MAX_EARLIER = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """What is remembered of one label message.

    Attributes:
        window_id: grid index of the window's end.
        end_s: the window's end, source clock.
        label: of this window alone.
        smoothed: the rolling label.
        scores: of the rolling label.
        total_ms: capture of the newest sample to send.
    """

    window_id: int
    end_s: float
    label: str
    smoothed: str
    scores: Mapping[str, float]
    total_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The connection to the publisher, as the client reports it.

    Attributes:
        endpoint: where the publisher listens.
        source: the one source that was asked for, or None for all.
        connected: whether a connection is up.
        connections: handshakes completed so far.
        silent_s: sources without a status for too long, and for how many whole seconds.
        notice: the newest warning that is worth showing; may be empty.
    """

    endpoint: str
    source: str | None = None
    connected: bool = True
    connections: int = 1
    silent_s: Mapping[str, int] = field(default_factory=dict)
    notice: str = ""


@dataclass(kw_only=True, slots=True)
class SourceView:
    """One source within one session of its publisher.

    Attributes:
        name: name of the source.
        session: of the publisher; another one begins a new view.
        status: the newest, None before the first.
        label: the newest, None before the first.
        reasoning: the newest, complete or being written.
        earlier: reasonings completed before it, newest first.
        hops: labels of the last `HISTORY_S`, oldest first.
        changed_s: end of the window at which the smoothed label last changed, source clock.
        counts: label messages by smoothed label, over the session.
        totals_ms: total latency of every label message of the session.
        answers: reasonings completed.
        agreements: those whose answer is the label of their window.
        lost: messages lost in transport, by gaps in `seq`.
    """

    name: str
    session: str
    status: Status | None = None
    label: Label | None = None
    reasoning: Reasoning | None = None
    earlier: deque[Reasoning] = field(default_factory=lambda: deque(maxlen=_MAX_EARLIER))
    hops: deque[Hop] = field(default_factory=lambda: deque(maxlen=_MAX_HOPS))
    changed_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    totals_ms: array[float] = field(default_factory=lambda: array("d"))
    answers: int = 0
    agreements: int = 0
    lost: int = 0
    _seq: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The state last published; `live` when labels come before the first status."""
        if self.status is not None:
            return self.status.state
        return "starting" if self.label is None else "live"

    @property
    def presence(self) -> Label | Status | None:
        """What says who is there, the newest message; None where nobody looks."""
        status, label = self.status, self.label
        newest = status if label is None else label
        if status is not None and label is not None and status.timestamp_s >= label.timestamp_s:
            newest = status
        return newest if newest is not None and newest.absent is not None else None

    @property
    def away(self) -> bool:
        """Whether there is nobody to be judged now: the label is an old one."""
        found = self.presence
        if found is None or found.absent is None or isinstance(found, Label):
            return False
        unheard = found.absent.audio is not None or found.speech_ratio is None
        return found.absent.video is not None and unheard

    @property
    def held_s(self) -> float:
        """Seconds for which the smoothed label has been the same, source clock."""
        return 0.0 if self.label is None else self.label.window.end_s - self.changed_s

    @property
    def hop_ids(self) -> int:
        """Grid steps from one window to the next, judged by the smallest seen."""
        return min((b.window_id - a.window_id for a, b in pairwise(self.hops)), default=1)

    @property
    def hop_s(self) -> float:
        """Seconds from one window to the next; 0 until two have been seen."""
        if len(self.hops) < 2:
            return 0.0
        first, last = self.hops[0], self.hops[-1]
        steps = (last.window_id - first.window_id) / self.hop_ids
        return (last.end_s - first.end_s) / steps

    def slots(self) -> list[Hop | None]:
        """The hops at their places in time, oldest first, None for a window that is missing."""
        if not self.hops:
            return []
        ids, newest = self.hop_ids, self.hops[-1].window_id
        by_age = {(newest - hop.window_id) // ids: hop for hop in self.hops}
        # A clock that jumped must not make a strip of a million empty slots.
        ages = range(min(max(by_age), _MAX_HOPS), -1, -1)
        return [by_age.get(age) for age in ages]

    def recent_latency_ms(self, fraction: float) -> float:
        """Quantile of the total latency over the last `HISTORY_S`."""
        return quantile([hop.total_ms for hop in self.hops], fraction)

    def label_of(self, window_id: int) -> str | None:
        """The label published for a window, or None if it is no longer remembered."""
        return next((hop.label for hop in reversed(self.hops) if hop.window_id == window_id), None)

    def take(self, event: Event) -> bool:
        """Take an event of this session; False if it has been seen before."""
        last = self._seq.get(event.topic)
        if last is not None and event.seq <= last:
            return False
        self.lost += 0 if last is None else event.seq - last - 1
        self._seq[event.topic] = event.seq
        match event:
            case Label():
                self._take_label(event)
            case Reasoning():
                self._take_reasoning(event)
            case Status():
                self.status = event
        return True

    def _take_label(self, label: Label) -> None:
        window = label.window
        if self.hops and window.id <= self.hops[-1].window_id:
            self.hops.clear()  # a file that is looped begins again
            self.changed_s = window.end_s
        if self.label is None or self.label.smoothed.label != label.smoothed.label:
            self.changed_s = window.end_s
        hop = Hop(
            window_id=window.id,
            end_s=window.end_s,
            label=label.label,
            smoothed=label.smoothed.label,
            scores=label.smoothed.scores,
            total_ms=label.latency_ms.total,
        )
        self.hops.append(hop)
        while len(self.hops) > 1 and self.hops[0].end_s <= hop.end_s - HISTORY_S:
            self.hops.popleft()
        self.counts[hop.smoothed] += 1
        self.totals_ms.append(hop.total_ms)
        self.label = label

    def _take_reasoning(self, reasoning: Reasoning) -> None:
        before = self.reasoning
        if before is not None and before.done:
            self.earlier.appendleft(before)
        self.reasoning = reasoning
        if reasoning.done:
            self.answers += 1
            self.agreements += bool(reasoning.agrees_with_label)


class ViewState:
    """Every source heard of, in the order of their names.

    Attributes:
        sources: by name.
    """

    def __init__(self) -> None:
        self.sources: dict[str, SourceView] = {}

    def update(self, event: Event) -> bool:
        """Take an event; False if it was a replay that changes nothing."""
        view = self.sources.get(event.source)
        if view is None or view.session != event.session:
            view = SourceView(name=event.source, session=event.session)
            self.sources[event.source] = view
            self.sources = dict(sorted(self.sources.items()))
        return view.take(event)

    @property
    def over(self) -> bool:
        """Whether every source has stopped; False before the first event."""
        return bool(self.sources) and all(s.state == "stopped" for s in self.sources.values())


def quantile(values: Iterable[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of all values do not exceed; `values` not empty."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(fraction * len(ranked)) - 1)]

"""Two streams of events merged by time without waiting for ever."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from emostream.media.info import Modality


@dataclass(slots=True)
class _Lane:
    queue: deque[tuple[float, Any]] = field(default_factory=deque)
    mark_s: float = float("-inf")  # no event to come will be earlier
    max_held: float = float("inf")
    ended: bool = False


class Interleaver:
    """Holds events of each stream until the other stream has caught up, within bounds.

    Args:
        reorder_s: A stream that has come further than this beyond the other is held no longer.
    """

    def __init__(self, reorder_s: float) -> None:
        self._reorder_s = reorder_s
        self._lanes: dict[Modality, _Lane] = {}

    def open(self, kind: Modality, mark_s: float, max_held: float = float("inf")) -> None:
        """Add a stream whose first event is at `mark_s` or later, of which at most `max_held` events are held."""
        self._lanes[kind] = _Lane(mark_s=mark_s, max_held=max_held)

    def put(self, kind: Modality, time_s: float, event: Any) -> None:
        """Add an event at `time_s`, at or after the ones before it in its stream."""
        self._lanes[kind].queue.append((time_s, event))

    def mark(self, kind: Modality, time_s: float) -> None:
        """Promise that no event of this stream to come is before `time_s`."""
        self._lanes[kind].mark_s = time_s

    def end(self, kind: Modality) -> None:
        """No more events of this stream."""
        self._lanes[kind].ended = True

    def ended(self, kind: Modality) -> bool:
        """Whether `end` was called for this stream."""
        return self._lanes[kind].ended

    @property
    def all_ended(self) -> bool:
        """Whether all streams have ended."""
        return all(lane.ended for lane in self._lanes.values())

    def overdue(self, kind: Modality) -> bool:
        """Whether the stream's next event has been held for as long as it may."""
        lane = self._lanes[kind]
        others = [other for other in self._lanes.values() if other is not lane and not other.ended]
        behind_s = min((other.mark_s for other in others), default=float("inf"))
        return bool(lane.queue) and (
            len(lane.queue) > lane.max_held
            or lane.mark_s - max(behind_s, lane.queue[0][0]) > self._reorder_s
        )

    def ready(self) -> Iterator[tuple[float, Any]]:
        """Take out, in order, the events that none to come can precede, or that are overdue."""
        while waiting := {kind: lane for kind, lane in self._lanes.items() if lane.queue}:
            kind = min(waiting, key=lambda kind: waiting[kind].queue[0][0])
            lane, time_s = waiting[kind], waiting[kind].queue[0][0]
            if self.overdue(kind) or all(
                other.queue or other.ended or other.mark_s >= time_s
                for other in self._lanes.values()
            ):
                yield lane.queue.popleft()
            else:
                return

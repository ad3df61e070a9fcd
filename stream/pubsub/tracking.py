"""What a client remembers of a stream: which messages it has had, and who has fallen silent."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from stream.pubsub.messages import Event, Status

_MAX_TOPICS = 1024
_log = logging.getLogger("stream.pubsub.client")


@dataclass(slots=True)
class ClientStats:
    """What a client has seen so far.

    Attributes:
        received: events accepted, of every topic subscribed to.
        lost: messages lost in transport, by gaps in `seq`.
        duplicates: replays of messages already seen, discarded.
        malformed: messages that depart from the wire contract, discarded.
        foreign_version: messages of another version of the wire contract, discarded.
        connections: handshakes completed; more than 1 means reconnections.
        refusals: handshakes that failed: wrong keys, or no ZeroMQ at the other end.
        connected: whether a connection is up now.
    """

    received: int = 0
    lost: int = 0
    duplicates: int = 0
    malformed: int = 0
    foreign_version: int = 0
    connections: int = 0
    refusals: int = 0
    connected: bool = False


class Tracker:
    """Discards replays, counts losses, and notices silent sources; without sockets or clocks.

    Times given to it are of the local monotonic clock: a step of either host's system clock must
    not make a source stale.
    """

    def __init__(self, stats: ClientStats, stale_after_s: float) -> None:
        self._stats = stats
        self._stale_after_s = stale_after_s
        self._last_seq: dict[tuple[str, str], int] = {}
        self._status_at_s: dict[str, float] = {}
        self._warned: set[str] = set()

    def is_new(self, event: Event) -> bool:
        """Whether this (session, topic, seq) is new; a gap before it is counted as loss."""
        key = (event.session, event.topic)
        last = self._last_seq.pop(key, None)
        # Popped and set again: the topics heard from last are the last to be forgotten.
        self._last_seq[key] = event.seq if last is None else max(last, event.seq)
        if len(self._last_seq) > _MAX_TOPICS:
            del self._last_seq[next(iter(self._last_seq))]
        if last is None:
            return True
        # A publisher replays nothing but the newest message, so that a lower seq has been seen.
        if event.seq <= last:
            self._stats.duplicates += 1
            return False
        if event.seq > last + 1:
            lost = event.seq - last - 1
            self._stats.lost += lost
            _log.warning("%s: %d messages were lost in transport", event.topic, lost)
        return True

    def expect(self, source: str, now_s: float) -> None:
        """Begin to wait for the first status of `source`."""
        self._status_at_s[source] = now_s

    def note_status(self, status: Status, now_s: float) -> None:
        """A source has given a sign of life; after `stopped` no further one is expected."""
        if status.source in self._warned:
            self._warned.discard(status.source)
            _log.warning("%s: status messages have resumed", status.source)
        if status.state == "stopped":
            self._status_at_s.pop(status.source, None)
        else:
            self._status_at_s[status.source] = now_s

    def stale(self, now_s: float) -> dict[str, float]:
        """Silent sources, and the seconds since the last status of each."""
        ages_s = {source: now_s - at_s for source, at_s in self._status_at_s.items()}
        return {source: age_s for source, age_s in ages_s.items() if age_s > self._stale_after_s}

    def next_check_s(self, now_s: float) -> float:
        """Warn of sources that have fallen silent; return the seconds until the next one may."""
        for source, age_s in self.stale(now_s).items():
            if source not in self._warned:
                self._warned.add(source)
                _log.warning("%s: no status for %.1f s", source, age_s)
        awaited = [at_s for source, at_s in self._status_at_s.items() if source not in self._warned]
        return max(0.0, min(awaited, default=now_s) + self._stale_after_s - now_s) + 1e-3


def warn_sparsely(count: int, message: str, detail: object) -> None:
    """Warn at the 1st, 10th, 100th ... occurrence: a flood of garbage must not flood the log."""
    if count == 10 ** (len(str(count)) - 1):
        _log.warning(f"{message} (%d so far)", detail, count)

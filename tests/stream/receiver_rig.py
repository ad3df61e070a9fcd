"""A real receiver with a polling thread, for tests of what connects to it."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from stream.transport.events import Event
from stream.transport.receiver import Receiver

WAIT_S = 60.0
E = TypeVar("E")


def events_of(events: Iterable[Event], *kinds: type) -> list[Event]:
    """Events whose message is of these kinds."""
    return [event for event in events if isinstance(event.message, kinds)]


class Listening:
    """Polls a server in a thread and keeps every event; waiting is by condition, never by time alone."""

    def __init__(self, step_s: float = 0.5, *, grant: bool = True, **options) -> None:
        self.server = Receiver(step_s=step_s, **options)
        self.events: list[Event] = []
        self._grant = grant
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receiver")

    def __enter__(self) -> "Listening":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.server.close()

    def stop(self) -> None:
        """Stop polling; what peers send stays in their queues."""
        self._stop.set()
        self.server.wake()
        self._thread.join()

    def events_of(self, *kinds: type) -> list[Event]:
        """Events so far whose message is of these kinds."""
        with self._changed:
            return events_of(self.events, *kinds)

    def of(self, kind: type[E]) -> list[E]:
        """Messages of a kind so far."""
        return [event.message for event in self.events_of(kind) if isinstance(event.message, kind)]

    def wait_for(self, predicate: Callable[[], bool], what: str = "") -> None:
        """Wait until `predicate`, which is asked after every event and now and then, is true."""
        with self._changed:
            for _ in range(round(WAIT_S / 0.1)):
                if predicate():
                    return
                self._changed.wait(0.1)
        raise AssertionError(f"waited {WAIT_S:g} s in vain for {what or predicate}; {self._tail()}")

    def wait_events(self, kind: type[E], count: int = 1) -> list[E]:
        self.wait_for(lambda: len(self.of(kind)) >= count, f"{count} {kind.__name__}")
        return self.of(kind)

    def _tail(self) -> str:
        names = [type(event.message).__name__ for event in self.events[-20:]]
        return f"last events {names}, stats {self.server.stats()}"

    def _run(self) -> None:
        while not self._stop.is_set():
            events = self.server.poll(100)
            with self._changed:
                self.events += events
                self._changed.notify_all()
            if self._grant:
                for source in {event.source for event in events}:
                    data = [
                        event
                        for event in events
                        if event.source == source and hasattr(event.message, "seq")
                    ]
                    if data:
                        self.server.grant(source, len(data))

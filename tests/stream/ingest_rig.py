"""A real ingest server with a polling thread, for tests of what connects to it."""

import threading
from collections.abc import Callable
from typing import TypeVar

from stream.transport.events import IngestEvent
from stream.transport.receiver import IngestServer

WAIT_S = 60.0
E = TypeVar("E")


class Receiver:
    """Polls a server in a thread and keeps every event; waiting is by condition, never by time alone."""

    def __init__(self, step_s: float = 0.5, *, grant: bool = True, **options) -> None:
        self.server = IngestServer(step_s=step_s, **options)
        self.events: list[IngestEvent] = []
        self._grant = grant
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receiver")

    def __enter__(self) -> "Receiver":
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

    def of(self, kind: type[E]) -> list[E]:
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

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
        names = [type(event).__name__ for event in self.events[-20:]]
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
                        if event.source == source and hasattr(event, "seq")
                    ]
                    if data:
                        self.server.grant(source, len(data))

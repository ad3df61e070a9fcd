"""What bridges share. A bridge passes events on to another protocol, at the instants that they speak of.

It is a class with `send(event)` that is a context manager, as in `lsl.py` and `osc.py`; `emostream bridge` gives it
every event in order, the last label and status from before it came among them.
"""

from stream.pubsub.messages import Event, Status
from stream.pubsub.recording import REPLAY


def captured_unix_s(event: Event) -> float:
    """The instant that an event speaks of, as Unix time of its publisher's host.

    A replay happens now: a moment of the past is placed as long before its publication as it was then. A file that is
    read faster than real time has no such instant; what is said of it gets the time of publication.
    """
    if event.session.startswith(REPLAY):
        latency_s = 0.0 if isinstance(event, Status) else event.latency_ms.total / 1000
        return event.published_s - latency_s
    return event.published_s if event.unix_time_s is None else event.unix_time_s

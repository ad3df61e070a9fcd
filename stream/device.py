"""What cameras and microphones have in common: their state, retries, and the loop that reports both."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

from emostream.errors import DeviceTimeout
from stream.capture_link import CaptureLink
from stream.capture_process import EXIT_OK
from stream.ingest_protocol import CaptureState, Stream

EXIT_STUCK = 3  # a driver call hangs; only a new process gets rid of it
POLL_MS = 100.0
STUCK_AFTER_S = 30.0  # longer than any timeout that drivers are given
CLOSE_WITHIN_S = 10.0
STOP_WITHIN_S = 0.5  # a process that was told to stop waits no longer for its driver


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStatus:
    """What a device is doing.

    Attributes:
        state: as it is reported to the inference process.
        detail: why, for a person; empty when live.
        restarts: times it was opened anew after it had been lost.
    """

    state: CaptureState
    detail: str = ""
    restarts: int = 0


class Backoff:
    """Pauses between attempts: `first_s`, doubling up to `most_s`, from `first_s` again after a success."""

    def __init__(self, first_s: float = 0.5, most_s: float = 8.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._pause_s = first_s

    def next_s(self) -> float:
        """The pause before the next attempt, in seconds."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, self._most_s)
        return pause_s

    def reset(self) -> None:
        """The device works."""
        self._pause_s = self._first_s


class DriverCall:
    """Notes since when a driver call is under way, so that another thread can tell when it hangs.

    A hanging call can neither be interrupted nor its thread ended, but the process can: that is why
    every device has one of its own.
    """

    def __init__(self) -> None:
        self._since_s: float | None = None

    def __enter__(self) -> None:
        self._since_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._since_s = None

    @property
    def stuck(self) -> bool:
        """Whether a call has been under way for longer than `STUCK_AFTER_S`."""
        since_s = self._since_s
        return since_s is not None and time.perf_counter() - since_s > STUCK_AFTER_S


class Device(Protocol):
    """The part of a camera or microphone that `run_device` needs."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self, timeout_s: float = CLOSE_WITHIN_S) -> bool:
        """Release the device; false if its driver did not let go in time."""
        ...

    @property
    def stuck(self) -> bool:
        """Whether its driver hangs."""
        ...

    def status(self) -> DeviceStatus:
        """What it is doing."""
        ...


def run_device(
    link: CaptureLink, device: Device, stream: Stream, send_next: Callable[[float], None]
) -> None:
    """Send what a device delivers, and every change of its state, until the link is stopped.

    If its driver hangs the process ends, with `EXIT_STUCK` for its supervisor to start another, or
    with 0 if it was to stop anyway.

    Args:
        link: a link that is ready.
        device: not yet entered.
        stream: what the device is.
        send_next: given a timeout in milliseconds, waits for the next frame or chunk and sends it,
            or raises `DeviceTimeout`.
    """
    reported: DeviceStatus | None = None
    with device:
        while not link.stopped:
            status = device.status()
            if status != reported:
                link.send_state(stream, status.state, status.detail, restarts=status.restarts)
                reported = status
            if device.stuck:
                link.send_state(stream, "lost", "its driver hangs; its process is started anew")
                link.close()
                _leave(EXIT_STUCK)
            try:
                send_next(POLL_MS)
            except DeviceTimeout:
                continue
        if not device.close(STOP_WITHIN_S):
            link.close()
            _leave(EXIT_OK)


def _leave(code: int) -> NoReturn:
    """End now, without waiting for driver threads that may hang in a vanished device."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

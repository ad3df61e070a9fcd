"""What all devices have in common: their state, retries, and the loop that reports both."""

import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Self, TypeVar

from emostream.errors import DeviceTimeout
from stream.capture.process import EXIT_OK
from stream.transport.protocol import CaptureState, Modality
from stream.transport.sender import CaptureLink

Item = TypeVar("Item")

EXIT_STUCK = 3  # a driver call hangs; only a new process gets rid of it
NOUNS: dict[Modality, str] = {"video": "picture", "audio": "sound"}
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

    def failed(self, problem: str, restarts: int) -> "DeviceStatus":
        """The status after a loss or an attempt in vain: `lost` at first, then `retrying`."""
        known = self.state in ("lost", "retrying")
        return DeviceStatus(
            state="retrying" if known else "lost", detail=problem, restarts=restarts
        )


def index_or_name(text: str) -> int | str:
    """A device as the command line gives it: digits are an index, anything else a name, path or URL."""
    return int(text) if text.isdecimal() else text


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


class CaptureDevice(ABC, Generic[Item]):
    """A device that a thread of its own reads; what it yields waits in a bounded queue, oldest dropped.

    Subclasses implement `_run`, the thread's work, which opens the device, calls `_publish` for what it delivers,
    `_retry` after it was lost, and returns when `_closing` is set.

    Args:
        name: how messages call it.
        modalities: what it delivers.
        lost_after_s: without a sign of life (`_hear`) for so long a modality counts as lost.
        queued: how many items wait for `read`.
    """

    def __init__(
        self, *, name: str, modalities: tuple[Modality, ...], lost_after_s: float, queued: int
    ) -> None:
        self.modalities = modalities
        self._name = name
        self._noun = " or ".join(NOUNS[modality] for modality in modalities)
        self._lost_after_s = lost_after_s
        self._changed = threading.Condition()
        self._queue: deque[Item] = deque(maxlen=queued)
        self._status = dict.fromkeys(modalities, DeviceStatus(state="opening"))
        self._failure: Exception | None = None
        self._opened = 0  # times
        self._heard_s = dict.fromkeys(modalities, 0.0)  # when each last showed life
        self._driver = DriverCall()
        self._closing = threading.Event()
        self._backoff = Backoff()
        self._thread = threading.Thread(target=self._guarded_run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, timeout_s: float = CLOSE_WITHIN_S) -> bool:
        """Release the device; false if its driver did not let go within `timeout_s`."""
        self._closing.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def read(self, timeout_ms: float) -> Item:
        """Wait for the next item that was not read before.

        Raises:
            DeviceTimeout: none came within `timeout_ms`; `status` says why.
            EmostreamError: the device cannot be used at all.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._failure, timeout_ms / 1000)
            if self._failure is not None:
                raise self._failure
            if not self._queue:
                raise DeviceTimeout(
                    f"{self._name}: no {self._noun} within {timeout_ms:g} ms; "
                    f"{self.status().detail or 'it is ' + self.status().state}"
                )
            return self._queue.popleft()

    def status(self, modality: Modality | None = None) -> DeviceStatus:
        """What a modality, by default the first, is doing; true to the deadline even while its driver blocks."""
        modality = modality or self.modalities[0]
        with self._changed:
            status, silent_s = self._status[modality], self._silent_s(modality)
        if status.state == "live" and silent_s > self._lost_after_s:
            problem = self._problem(modality)
            return DeviceStatus(state="lost", detail=problem, restarts=status.restarts)
        return status

    @property
    def stuck(self) -> bool:
        """Whether its driver hangs in a call; only a new process helps."""
        return self._driver.stuck

    # For subclasses

    @abstractmethod
    def _run(self) -> None: ...

    def _problem(self, modality: Modality) -> str:
        """Why a modality counts as lost; the same words each time, as every change is reported."""
        return f"{self._name}: no {NOUNS[modality]} for {self._lost_after_s:g} s"

    def _hear(self, modality: Modality | None = None) -> None:
        """A modality, by default all, shows life."""
        now_s = time.perf_counter()
        for heard in (modality,) if modality else self.modalities:
            self._heard_s[heard] = now_s

    def _silent_s(self, modality: Modality) -> float:
        return time.perf_counter() - self._heard_s[modality]

    def _set_status(self, modality: Modality, state: CaptureState, detail: str = "") -> None:
        restarts = max(0, self._opened - 1)
        with self._changed:
            self._status[modality] = DeviceStatus(state=state, detail=detail, restarts=restarts)

    def _publish(self, modality: Modality, items: Sequence[Item], detail: str = "") -> None:
        self._set_status(modality, "live", detail)
        with self._changed:
            self._queue.extend(items)
            self._changed.notify_all()

    def _retry(self, problem: str) -> None:
        """Report a loss and wait before the next attempt."""
        with self._changed:
            for modality, status in self._status.items():
                self._status[modality] = status.failed(problem, max(0, self._opened - 1))
        self._closing.wait(self._backoff.next_s())

    def _guarded_run(self) -> None:
        try:
            self._run()
        except Exception as error:
            # Raised again in `read`: a dead thread must not look like silence.
            with self._changed:
                self._failure = error
                self._changed.notify_all()


def run_device(
    link: CaptureLink,
    device: CaptureDevice[Any],
    send_next: Callable[[float], None],
) -> None:
    """Send what a device delivers, and every change of its state, until the link is stopped.

    If its driver hangs the process ends, with `EXIT_STUCK` for its supervisor to start another, or
    with 0 if it was to stop anyway.

    Args:
        link: a link that is ready.
        device: not yet entered.
        send_next: given a timeout in milliseconds, waits for the next frame or chunk and sends it,
            or raises `DeviceTimeout`.
    """
    reported: dict[Modality, DeviceStatus] = {}
    with device:
        while not link.stopped:
            for modality in device.modalities:
                status = device.status(modality)
                if status != reported.get(modality):
                    link.send_state(modality, status.state, status.detail, restarts=status.restarts)
                    reported[modality] = status
            if device.stuck:
                for modality in device.modalities:
                    link.send_state(
                        modality, "lost", "its driver hangs; its process is started anew"
                    )
                link.close()
                leave(EXIT_STUCK)
            try:
                send_next(POLL_MS)
            except DeviceTimeout:
                continue
        if not device.close(STOP_WITHIN_S):
            link.close()
            leave(EXIT_OK)


def leave(code: int) -> NoReturn:
    """End the process now, without waiting for threads that hang in a call to a driver or the network."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""What the inference process knows of one source: its windower, its rolling label, its counters."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stream.pubsub.messages import State, Status
from stream.transport.protocol import Clock, Modality
from stream.windows.presence_fields import presence_fields
from stream.windows.smoothing import Rolling
from stream.windows.window import Window
from stream.windows.windower import Windower

if TYPE_CHECKING:
    from emostream.people.presence import Attendance

RATE_OVER_S = 5.0  # window of the frame and hop rates in the status


class RateMeter:
    """Events a second over the last few seconds. Not thread-safe, `rate` included: it forgets what is old."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque()
        self._since_s = time.perf_counter()

    def count(self, now_s: float) -> None:
        """One event happened."""
        self._times_s.append(now_s)
        self._forget(now_s)

    def rate(self, now_s: float) -> float:
        """Events a second."""
        self._forget(now_s)
        return len(self._times_s) / max(0.5, min(RATE_OVER_S, now_s - self._since_s))

    def _forget(self, now_s: float) -> None:
        while self._times_s and self._times_s[0] < now_s - RATE_OVER_S:
            self._times_s.popleft()


@dataclass(slots=True)
class Losses:
    """What capture reported of one modality, cumulative."""

    frames: int = 0
    audio_ms: float = 0.0
    restarts: int = 0
    problem: str = ""


@dataclass(slots=True)
class SourceState:
    """One source, from its announcement to its end. What two threads share is guarded by the owner's lock.

    Attributes:
        name: Source name.
        clock: `host` for devices, `media` for files.
        lossless: Every window is wanted, in order, however long it takes.
        rolling: Its smoothed label.
        windower: Set once the source's first data may come; None before.
        epoch_s: `perf_counter` time of a paced file's media time 0.
        ready_s: `perf_counter` time when the next window became ready; None while it is not.
        state: As published in its status.
        detail: What is wrong with the newest window, in one line; empty if nothing is.
        told: State and full detail in the status that was published last.
        gave_up: Modalities whose capture process ended for good, having said why.
        modalities: Modalities that are connected.
        pids: Capture processes that have connected so far, by the modalities that they serve.
        lateness_s: How long after its capture each modality's data may come.
        uncredited: Messages of a lossless source that it has not been given credit for again.
        clock_uncertainty_s: Of the times of another host's capture; 0 for our own.
        position_s: End of the newest window, source clock.
        smoothed_label: Of the newest window.
        reasoned_at_s: End of the window that was reasoned about last, source clock.
        reasoned_label: Smoothed label at that time.
        answers: Reasoned answers that were finished.
        agreements: Those of them that named the label of the same window.
        labels: Label messages so far.
        attendance: Who is there in the newest window; None where nobody looks.
        of: Of a person beyond the first, the source in whose picture they are; its capture is theirs.
        people: The people beyond the first, by name.
        left: Such a person has left, and is forgotten once an answer about them is written.
    """

    name: str
    clock: Clock
    lossless: bool
    rolling: Rolling
    windower: Windower | None = None
    epoch_s: float | None = None
    ready_s: float | None = None
    state: State = "starting"
    detail: str = ""
    told: tuple[str, str] = ("", "")
    gave_up: set[Modality] = field(default_factory=set)
    modalities: set[Modality] = field(default_factory=set)
    pids: dict[tuple[Modality, ...], set[int]] = field(default_factory=dict)
    lateness_s: dict[Modality, float] = field(default_factory=dict)
    losses: dict[Modality, Losses] = field(default_factory=dict)
    uncredited: int = 0
    frames: RateMeter = field(default_factory=RateMeter)
    hops: RateMeter = field(default_factory=RateMeter)
    began_s: float = field(default_factory=time.perf_counter)
    clock_uncertainty_s: float = 0.0
    position_s: float = 0.0
    smoothed_label: str = ""
    reasoned_at_s: float | None = None
    reasoned_label: str = ""
    answers: int = 0
    agreements: int = 0
    labels: int = 0
    attendance: "Attendance | None" = None
    of: "SourceState | None" = None
    people: "dict[str, SourceState]" = field(default_factory=dict)
    left: bool = False

    @property
    def everyone(self) -> "tuple[SourceState, ...]":
        """The people beyond the first, and the first, by whose end the others have ended."""
        return (*self.people.values(), self)

    def person(self, name: str, rolling: Rolling) -> "SourceState":
        """Somebody in this source's picture who has a name of their own."""
        return SourceState(
            name=name,
            clock=self.clock,
            lossless=self.lossless,
            rolling=rolling,
            state=self.state,
            pids=self.pids,
            losses=self.losses,
            frames=self.frames,
            of=self,
        )

    @property
    def _capture(self) -> "SourceState":
        return self.of or self

    @property
    def finished(self) -> bool:
        """Whether a file has been read to its end and every window of it taken."""
        windower = self._capture.windower
        return windower is not None and windower.finished

    @property
    def failed(self) -> bool:
        """Whether it is a file that cannot be read: nothing will come of it."""
        return self.clock == "media" and bool(self.gave_up)

    def take_window(self, now_s: float) -> tuple[Window, float] | None:
        """Cut the next window, None if none is ready, and say since when it could have been taken.

        Live, windows before it that were ready too are skipped and counted. Times are `perf_counter`'s.
        """
        assert self.windower is not None
        window = self.windower.advance(self.source_time_s(now_s))
        if window is None:
            return None
        ready_s = now_s if self.ready_s is None else self.ready_s
        self.ready_s = None
        # After a skip this is a later window than the one that was ready then.
        newest_s = window.newest_capture_s
        captured_s = None if newest_s is None else self.host_time_s(newest_s)
        return window, max(ready_s, captured_s or ready_s)

    def note_losses(self) -> None:
        """Tell the windower what capture has dropped so far."""
        if self.windower is not None:
            self.windower.note_dropped(
                frames=sum(loss.frames for loss in self.losses.values()),
                audio_ms=sum(loss.audio_ms for loss in self.losses.values()),
            )

    def source_time_s(self, now_s: float) -> float | None:
        """Source time now, `now_s` being `perf_counter`'s; None for files that are not paced."""
        if self._capture.clock == "host":
            return now_s
        return None if self._capture.epoch_s is None else now_s - self._capture.epoch_s

    def host_time_s(self, source_s: float) -> float | None:
        """`perf_counter` time of an instant of the source clock; None for files that are not paced."""
        if self._capture.clock == "host":
            return source_s
        return None if self._capture.epoch_s is None else self._capture.epoch_s + source_s

    def unix_time_s(self, source_s: float) -> float | None:
        """Unix time of an instant of the source clock, by the system clock as it stands now."""
        host_s = self.host_time_s(source_s)
        return None if host_s is None else time.time() - (time.perf_counter() - host_s)

    def restarts(self, started_again: int) -> int:
        """How often capture began anew: processes that were started again, and devices that were reopened.

        Our own processes are counted by who starts them, as one may die before it connects; those of other hosts as
        they connect. One process reports the same reopenings for each of its modalities.
        """
        successors = sum(len(pids) - 1 for pids in self.pids.values())
        reopened = sum(
            max(self.losses[modality].restarts for modality in modalities)
            for modalities in self.pids
        )
        return max(started_again, successors) + reopened

    @property
    def full_detail(self) -> str:
        """All that is wrong: with the last window, with capture, with its clock; empty if nothing is."""
        problems = [loss.problem for loss in self.losses.values() if loss.problem]
        if (uncertainty_s := self._capture.clock_uncertainty_s) > 0:
            problems.append(f"captured on another host, clock ± {1e3 * uncertainty_s:.1f} ms")
        return "; ".join(dict.fromkeys([self.detail, *problems])).strip("; ")

    def status(self, now_s: float, process_restarts: int) -> Status:
        """The heartbeat as it stands; devices are reopened, and their processes started again."""
        source_s, windower = self.source_time_s(now_s), self._capture.windower
        if source_s is None:
            source_s = self.position_s
        return Status(
            source=self.name,
            timestamp_s=source_s,
            unix_time_s=self.unix_time_s(source_s),
            state=self.state,
            detail=self.full_detail,
            fps_in=self.frames.rate(now_s),
            hops_per_s=self.hops.rate(now_s),
            skipped=0 if windower is None else windower.skipped,
            restarts=self.restarts(process_restarts),
            uptime_s=now_s - self.began_s,
            **presence_fields(self.attendance),
        )

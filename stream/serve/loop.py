"""The inference process: ingest, windows, model, publisher, in one loop that always puts labels first.

A thread receives from the capture processes, fills the windowers and sends the heartbeat, whatever the model is doing.
The main thread takes every window that is ready, of all sources at once, and publishes its label; while none is ready
it writes reasoning, one token at a time. A window that the model had no time for is skipped and counted, never queued.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from emostream.errors import ConfigError
from emostream.people.limits import MOST_PEOPLE
from stream.pubsub.messages import Label, Status
from stream.pubsub.publisher import Outlet
from stream.serve.compose import Explained, capture_time_s, label_message, reasoning_message
from stream.serve.model import import_torch
from stream.transport.protocol import PCM_RATE_HZ, Clock, Modality
from stream.transport.receiver import Receiver
from stream.windows.config import InferenceConfig
from stream.windows.presence_fields import track_of, why_no_label
from stream.windows.sorting import Sorter
from stream.windows.source_state import SourceState
from stream.windows.window import Window

if TYPE_CHECKING:
    # torch takes seconds to import; by then the status shall say that we are starting.
    from emostream.inference.reasoning import ReasoningStep
    from emostream.inference.recognizer import Recognition, Recognizer
    from emostream.inference.streaming import MediaWindow
    from emostream.people.presence import Attendance
    from stream.windows.attendance import Attendant

POLL_MS = 100
STATUS_EVERY_S = 1.0
IDLE_S = 0.2
REASONING_EVERY_S = 0.1  # how often growing text is sent; the end of an answer is sent at once

_log = logging.getLogger(__name__)


class _Stopped(BaseException):
    """Unwinds the model; no `except Exception` may hold it up."""


class InferenceLoop:
    """Runs until told to stop or every file is over.

    Args:
        load: Makes the model, both speeds; called once the status says `starting`.
        receiver: Bound to its endpoints; its polling belongs to this loop from now on.
        publisher: Where events go.
        config: Windows and cadence.
        sources: Sources that shall come, by name, with their clock; more may connect later.
        dynamic: Whether sources that are not among them may connect (capture on other hosts).
    """

    def __init__(
        self,
        load: Callable[[], Recognizer],
        receiver: Receiver,
        publisher: Outlet,
        config: InferenceConfig,
        sources: Mapping[str, Clock],
        *,
        dynamic: bool = False,
    ):
        self._load = load
        self._recognizer: Recognizer
        self._receiver = receiver
        self._publisher = publisher
        self._config = config
        self._dynamic = dynamic
        self._asked_for = frozenset(sources)
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._stop = False
        self._computing = False
        self._failure: BaseException | None = None
        self._restarts: Callable[[str], int] = lambda name: 0
        self._explained: dict[str, Explained] = {}
        self._unexplained: dict[
            str, tuple[Window, Explained]
        ] = {}  # of files, the last if it has no reasons
        self._attendants: dict[str, Attendant] = {}
        self._status_due_s = 0.0
        self._sorter = Sorter(config, sources, dynamic)
        self._states = self._sorter.states

    @property
    def states(self) -> Mapping[str, SourceState]:
        """What is known of each source; for reading once `run` has returned."""
        return self._states

    def _everyone(self) -> list[SourceState]:
        return [person for state in list(self._states.values()) for person in state.everyone]

    def count_restarts(self, restarts: Callable[[str], int]) -> None:
        """Add how often a source's capture processes were started again to its status."""
        self._restarts = restarts

    def stop(self) -> None:
        """Make `run` return soon; for signal handlers, which run in its own thread.

        A model that takes seconds over a window, or to load, is interrupted between two of its operations.
        """
        # No lock may be taken here: the thread that the signal interrupts may hold it.
        self._stop = True
        if self._computing:
            self._computing = False
            raise _Stopped

    def fail_source(self, name: str, modality: Modality, problem: str) -> None:
        """A capture process ended for good: say so in the status and wait for its modality no longer."""
        with self._wake:
            self._sorter.fail(name, modality, problem)
            news = self._news(self._states[name])
            self._wake.notify()
        self._publish_all(news)

    def run(self) -> None:
        """Warm up, go live, publish until the end; the last status of every source is `stopped`."""
        receiving = threading.Thread(target=self._receive, name="receiver", daemon=True)
        receiving.start()
        try:
            import_torch()
            with self._interruptible():
                self._recognizer = self._load()
                if self._recognizer.voices is not None and len(self._asked_for) == 1:
                    [self._recognizer.voices.keeps] = self._asked_for  # not a visitor
                self._warm_up()
            self._go_live()
            while not self._stop and not self._over():
                self._turn()
            while not self._stop and (
                self._explain_the_last() or self._recognizer.reasoning_sources
            ):
                self._reason()
        except _Stopped:
            _log.debug("stopped while computing")
        finally:
            self._stop = True
            self._receiver.wake()
            receiving.join()
            self._keep_baseline()
            for state in self._everyone():
                state.state = "stopped"
            self._publish_status(time.perf_counter())
        if self._failure is not None:
            raise self._failure

    # The receiving thread

    def _receive(self) -> None:
        try:
            while not self._stop:
                events = self._receiver.poll(POLL_MS)
                if (now_s := time.perf_counter()) >= self._status_due_s:
                    self._publish_status(now_s)
                if not events:
                    continue
                news: list[Status] = []
                with self._wake:
                    for event in events:
                        self._sorter.take(event)
                        if event.source in self._states:
                            news += self._news(self._states[event.source])
                    self._sorter.note_ready(time.perf_counter())
                    self._wake.notify()
                self._publish_all(news)
        except BaseException as error:
            # The main thread must not wait for a receiver that is gone.
            with self._wake:
                self._failure, self._stop = error, True
                self._wake.notify()

    # The main thread

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._computing = True
        try:
            if self._stop:
                raise _Stopped
            yield
        except Exception as error:
            if self._stop and not self._computing:  # what `stop` interrupted broke over it
                raise _Stopped from error
            raise
        finally:
            self._computing = False

    def _warm_up(self) -> None:
        """Pay for lazy initialisation, graph captures and memory before the first label is due."""
        at_once = min(MOST_PEOPLE, len(self._states) * self._config.people)
        self._recognizer.warm_up(
            num_frames=self._config.num_frames,
            audio_samples=round(self._config.window_s * PCM_RATE_HZ),
            sources=max(1, len(self._states), at_once),
        )
        if self._config.people:
            for name in self._states:
                self._new_attendant(name)

    def _go_live(self) -> None:
        with self._lock:
            self._sorter.go_live(self._recognizer.most_samples)
        self._publish_status(time.perf_counter())
        self._receiver.start()

    def _turn(self) -> None:
        self._retire()  # here, as somebody may leave of whom no window is to come
        now_s = time.perf_counter()
        windows = []
        with self._wake:
            for state in self._states.values():
                if state.windower is None or state.finished or self._waits_for_answer(state):
                    continue
                taken = state.take_window(now_s)
                if taken is not None:
                    windows.append((state, *taken))
                else:
                    self._grant_credit(state)
            idle = not self._recognizer.reasoning_sources and not self._unexplained_ends
            if not windows and idle:
                self._wake.wait(self._idle_s(now_s))
                return
        if windows:
            self._label(windows)
            self._keep_baseline(due=True)
        else:
            self._explain_the_last()
            self._reason()

    def _keep_baseline(self, *, due: bool = False) -> None:
        """Write down what is known of the person, if that is wanted; a full disk ends nothing."""
        recognizer = getattr(self, "_recognizer", None)
        if recognizer is not None and recognizer.voices is not None:
            try:
                recognizer.voices.save(due=due)
            except ConfigError as error:
                _log.warning("%s", error)

    def _retire(self) -> None:
        """Say that visitors and people who have left are gone, and forget them.

        A source that was not asked for ends by itself, and so does a person of whom nothing is seen any more.
        """
        for state in list(self._states.values()):
            if state.name not in self._asked_for and state.finished:
                gone = state.everyone
            else:
                gone = tuple(person for person in state.people.values() if person.left)
            for person in gone:
                unexplained = state.finished and person.name in self._unexplained
                writing = person.name in self._recognizer.reasoning_sources
                if person.people or unexplained or writing:
                    continue
                person.state, person.detail = "stopped", ""
                with self._lock:
                    status = person.status(time.perf_counter(), self._restarts(state.name))
                    del (self._states if person is state else state.people)[person.name]
                self._publisher.publish(status)
                self._recognizer.forget(person.name)
                self._attendants.pop(person.name, None)
                self._unexplained.pop(person.name, None)

    def _idle_s(self, now_s: float) -> float:
        """Until the next deadline, or for a while: whatever arrives wakes us, a signal does not."""
        waits = [IDLE_S]
        for state in self._states.values():
            source_s = state.source_time_s(now_s)
            if state.windower is not None and source_s is not None and not state.lossless:
                waits.append(state.windower.deadline_s - source_s)
        return max(0.001, min(waits))

    def _waits_for_answer(self, state: SourceState) -> bool:
        """Whether a source is paced by the model, so that its answer is finished before it moves on."""
        reasoning = self._recognizer.reasoning_sources
        return state.lossless and any(person.name in reasoning for person in state.everyone)

    def _grant_credit(self, state: SourceState) -> None:
        """Let a lossless source send as much again as has come of it."""
        if state.lossless and state.uncredited:
            self._receiver.grant(state.name, state.uncredited)
            state.uncredited = 0

    def _label(self, windows: list[tuple[SourceState, Window, float]]) -> None:
        begun_s = time.perf_counter()
        with self._interruptible():
            attended = [
                (person, seen, ready_s, window)
                for state, window, ready_s in windows
                for person, seen in self._attend(state, window)
            ]
        looked_s = time.perf_counter() - begun_s
        for person, left, _, window in attended:
            self._show(person, window)
            self._note_presence(person, window, left)
        seen = [(person, left, ready_s) for person, left, ready_s, _ in attended if not left.lost]
        if not seen:
            return
        with self._interruptible():
            recognized = self._recognizer.recognize(
                [media_window(window, person.attendance) for person, window, _ in seen]
            )
        for (state, window, ready_s), recognition in zip(seen, recognized, strict=True):
            label = self._publish_label(state, window, recognition, ready_s, begun_s, looked_s)
            captured_s = capture_time_s(state, window, ready_s)
            if self._reasoning_due(state):
                self._explain(state, recognition, Explained(label, captured_s, time.perf_counter()))
            elif state.clock == "media" and self._config.reason_every_s:
                self._unexplained[state.name] = window, Explained(label, captured_s, 0.0)

    def _show(self, state: SourceState, window: Window) -> None:
        if window.frames and self._publisher.preview_wanted(state.name):
            newest = window.frames[-1]
            self._publisher.publish_preview(state.name, newest.time_s, newest.rgb)

    def _attend(self, state: SourceState, window: Window) -> list[tuple[SourceState, Window]]:
        """Of everybody who is shown, the window without what they are not in; their messages say who is there."""
        if not self._config.people:
            return [(state, window)]
        if state.name not in self._attendants:
            self._new_attendant(state.name)
        attended = self._attendants[state.name].attend(window)
        out = []
        with self._lock:  # the receiving thread publishes everybody's status
            for seen, found in attended:
                person = self._sorter.person(state, seen.source)
                person.attendance = found
                out.append((person, seen))
            for person in state.people.values():
                person.left = all(person is not other for other, _ in out)
        return out

    def _new_attendant(self, source: str) -> None:
        from stream.windows.attendance import Attendant

        self._attendants[source] = Attendant(self._recognizer.config, self._config.people)

    def _note_presence(self, state: SourceState, window: Window, left: Window) -> None:
        impaired = [
            f"{name} {presence}"
            for name in ("video", "audio")
            if (presence := getattr(window.modalities, name)) != "ok"
        ]
        state.position_s = window.end_s
        state.state = "lost" if window.lost else "degraded" if impaired else "live"
        if left.lost and not window.lost:
            assert state.attendance is not None
            impaired.append(why_no_label(state.attendance))
        state.detail = ", ".join(impaired)
        with self._lock:  # the receiving thread may be adding what the status is made of
            news = self._news(state)
        self._publish_all(news)

    def _publish_label(
        self,
        state: SourceState,
        window: Window,
        recognition: Recognition,
        ready_s: float,
        begun_s: float,
        looked_s: float,
    ) -> Label:
        now_s = time.perf_counter()
        whose = track_of(state.attendance)
        smoothed = state.rolling.update(window.end_s, recognition.scores, whose)
        label = label_message(
            state,
            window,
            recognition,
            smoothed,
            model=self._config.model_name,
            ready_s=ready_s,
            begun_s=begun_s,
            looked_s=looked_s,
            now_s=now_s,
        )
        self._publisher.publish(label)
        state.smoothed_label = smoothed.label
        state.labels += 1
        with self._lock:  # the receiving thread reads the rate
            state.hops.count(now_s)
        return label

    # Reasoning

    def _reasoning_due(self, state: SourceState) -> bool:
        every_s = self._config.reason_every_s
        if every_s == 0 or state.name in self._recognizer.reasoning_sources:
            return False
        if len(self._recognizer.reasoning_sources) == self._recognizer.slots:
            return False
        if state.reasoned_at_s is None or state.smoothed_label != state.reasoned_label:
            return True
        return state.position_s - state.reasoned_at_s >= every_s

    def _explain(self, state: SourceState, recognition: Recognition, explained: Explained) -> None:
        self._recognizer.start_reasoning(recognition)
        self._explained[state.name] = explained
        self._unexplained.pop(state.name, None)
        state.reasoned_at_s = explained.label.window.end_s
        state.reasoned_label = state.smoothed_label

    @property
    def _unexplained_ends(self) -> list[SourceState]:
        """Files that are over, with a last label that has no reasons yet and a slot to write them in."""
        writing = self._recognizer.reasoning_sources
        ends = [
            state
            for state in self._everyone()
            if state.finished and state.name in self._unexplained and state.name not in writing
        ]
        return ends[: self._recognizer.slots - len(writing)]

    def _explain_the_last(self) -> bool:
        """A file's last label gets its reasons even if they are not due; that it is over may be told later."""
        ends = self._unexplained_ends
        for state in ends:
            window, explained = self._unexplained[state.name]
            with self._interruptible():
                [recognition] = self._recognizer.recognize([media_window(window)])
            explained.begun_s = time.perf_counter()
            self._explain(state, recognition, explained)
        return bool(ends)

    def _reason(self) -> None:
        with self._interruptible():
            steps = self._recognizer.reason()
        for step in steps:
            explained = self._explained[str(step.key)]
            state = next(person for person in self._everyone() if person.name == step.key)
            now_s = time.perf_counter()
            if step.done or now_s - explained.sent_s >= REASONING_EVERY_S:
                self._publish_reasoning(state, explained, step, now_s)
                explained.sent_s = now_s

    def _publish_reasoning(
        self, state: SourceState, explained: Explained, step: ReasoningStep, now_s: float
    ) -> None:
        reasoning = reasoning_message(explained, step, now_s)
        self._publisher.publish(reasoning)
        if step.done:
            state.answers += 1
            state.agreements += bool(reasoning.agrees_with_label)
            del self._explained[state.name]

    # Status and end

    def _publish_status(self, now_s: float) -> None:
        with self._lock:
            statuses = [self._status(state, now_s) for state in self._everyone()]
        self._publish_all(statuses)
        self._status_due_s = now_s + STATUS_EVERY_S

    def _news(self, state: SourceState) -> list[Status]:
        """The status of a source, if it says something else than the last; the caller holds the lock and publishes."""
        told = state.told == (state.state, state.full_detail)
        return [] if told or self._stop else [self._status(state, time.perf_counter())]

    def _status(self, state: SourceState, now_s: float) -> Status:
        status = state.status(now_s, self._restarts((state.of or state).name))
        state.told = (status.state, status.detail)
        return status

    def _publish_all(self, statuses: list[Status]) -> None:
        for status in statuses:
            self._publisher.publish(status)

    def _over(self) -> bool:
        """All sources are files, and all are read to their end or given up."""
        with self._lock:
            states = list(self._states.values())
            return not self._dynamic and all(state.finished or state.failed for state in states)


def media_window(window: Window, found: Attendance | None = None) -> MediaWindow:
    """A windower's window as the model takes it, and who is in it."""
    from emostream.inference.streaming import MediaWindow
    from stream.windows.voice import voice_stretch

    return MediaWindow(
        source=window.source,
        keys=tuple((frame.key, frame.whose) for frame in window.frames),
        frames=tuple(np.asarray(frame.rgb) for frame in window.frames),
        audio=window.pcm,
        voice=voice_stretch(window, found),
    )

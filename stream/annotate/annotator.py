"""One file to its labels and reasons, as fast as the model goes: live windows and encoder, without a clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import structs

from emostream.errors import MediaError
from emostream.media import MediaReader, MediaStats, PcmChunk
from stream.annotate.settings import Settings
from stream.capture.file import present_modalities
from stream.pubsub.messages import Event, EventT, Label, Reasoning
from stream.serve.compose import Explained, label_message, reasoning_message
from stream.serve.loop import media_window
from stream.windows.presence_fields import NOBODY, track_of
from stream.windows.smoothing import Rolling
from stream.windows.source_state import SourceState
from stream.windows.window import Window
from stream.windows.windower import Windower

if TYPE_CHECKING:
    from emostream.inference.recognizer import Recognition, Recognizer
    from emostream.people.presence import Attendance, Scene

SESSION: Final = "annotate"
BATCH: Final = 8  # windows that share a pass of every network


@dataclass(slots=True)
class Annotation:
    """What was found in one file.

    Attributes:
        events: Labels in order, each before the finished reasoning of its window, if it has one.
        duration_s: End of what could be read, media clock.
        stats: What reading met.
        nobody: Windows without a label because nobody is seen or heard in them.
        scenes: What each grid frame shows, once each; none without pictures, or where nobody looked.
        spoken_s: Stretches of speech, seconds of the media clock, in order; None where nobody listened.
    """

    events: list[Event] = field(default_factory=list)
    duration_s: float = 0.0
    stats: MediaStats = field(default_factory=MediaStats)
    nobody: int = 0
    scenes: list[Scene] = field(default_factory=list)
    spoken_s: list[tuple[float, float]] | None = None


class Annotator:
    """A loaded model that annotates one file after another.

    Args:
        settings: What is asked of each.
        recognizer: The model, as `load_recognizer(settings.model)` gives it.
    """

    def __init__(self, settings: Settings, recognizer: Recognizer) -> None:
        self._settings = settings
        self._recognizer = recognizer

    def annotate(self, path: str | Path, source: str) -> Annotation:
        """Label every window of a file, `BATCH` at a time.

        The messages are those of `emostream infer`, and the same bytes every time: what tells of a run and not of the
        file, as latencies, is 0, and `published_s` is media time, so that a replay has the file's own pace.

        Args:
            path: The file.
            source: Name in the messages.

        Raises:
            MediaError: It cannot be read, or there is neither picture nor sound in it.
        """
        annotation = Annotation()
        config = self._settings.inference
        state = SourceState(
            name=source,
            clock="media",
            lossless=True,
            rolling=Rolling(config.smoothing_s, config.hysteresis),
        )
        windows = self._attended(path, source, annotation)
        try:
            while batch := list(islice(windows, BATCH)):
                self._judge(batch, state, annotation)
        finally:
            self._recognizer.forget(source)
        if not annotation.events and not annotation.nobody:
            raise MediaError(f"{path}: neither picture nor sound that could be judged")
        return annotation

    def _attended(
        self, path: str | Path, source: str, annotation: Annotation
    ) -> Iterator[tuple[Window, Attendance | None]]:
        """The windows that are judged, without what nobody is in, and who is there."""
        from stream.windows.attendance import Attendant

        attendant = Attendant(self._recognizer.config) if self._settings.inference.people else None
        for window in self._windows(path, source, annotation):
            if window.lost:
                continue
            if attendant is None:
                yield window, None
                continue
            [(attended, found)] = attendant.attend(window)
            seen_s = annotation.scenes[-1].time_s if annotation.scenes else -1.0
            annotation.scenes += [s for s in attendant.scenes if s.time_s > seen_s]
            if found.speech_ratio is not None:
                annotation.spoken_s = (annotation.spoken_s or []) + attendant.spoken_s
            if attended.lost:
                annotation.nobody += 1
            else:
                yield attended, found
        if annotation.nobody:
            count = f"{annotation.nobody} window{'s' * (annotation.nobody != 1)}"
            annotation.stats.note(f"no label for {count}: {NOBODY}")

    def _windows(self, path: str | Path, source: str, annotation: Annotation) -> Iterator[Window]:
        config, stats = self._settings.inference, annotation.stats
        with MediaReader(path, stats=stats) as probed:
            length_s = probed.info.duration_s
        # Of a file with less than a window all frames may be chosen, else the newest of each grid cell alone.
        long = length_s is not None and length_s > config.window_s + config.step_s
        with MediaReader(path, grid_step_s=config.step_s if long else None, stats=stats) as reader:
            windower = Windower(
                source,
                window_s=config.window_s,
                num_frames=config.num_frames,
                hop_steps=config.hop_steps,
                modalities=present_modalities(reader.info),
                lossless=True,
            )
            windower.limit_sound(self._recognizer.most_samples)
            for event in reader:
                if isinstance(event, PcmChunk):
                    windower.add_pcm(event.start_s, event.pcm, event.gap_samples)
                    end_s = event.end_s
                else:
                    windower.add_frame(event.time_s, event.rgb)
                    end_s = event.time_s
                annotation.duration_s = max(annotation.duration_s, end_s)
                yield from iter(windower.advance, None)
            stats.check_length(reader.info, annotation.duration_s)
            windower.mark_end()
            yield from iter(windower.advance, None)

    def _judge(
        self,
        windows: list[tuple[Window, Attendance | None]],
        state: SourceState,
        annotation: Annotation,
    ) -> None:
        from emostream.inference.recognizer import Timing

        recognized = self._recognizer.recognize([media_window(*attended) for attended in windows])
        due: dict[str, tuple[Label, Recognition]] = {}
        labels = []
        for (window, state.attendance), recognition in zip(windows, recognized, strict=True):
            recognition = replace(recognition, timing=Timing(encode_s=0, prefill_s=0, decode_s=0))
            label = label_message(
                state,
                window,
                recognition,
                state.rolling.update(window.end_s, recognition.scores, track_of(state.attendance)),
                model=self._settings.inference.model_name,
                ready_s=0.0,
                begun_s=0.0,
                now_s=0.0,
            )
            labels.append(_stamped(label, state.labels))
            state.labels += 1
            if self._is_due(state, label):
                state.reasoned_at_s, state.reasoned_label = window.end_s, label.smoothed.label
                # A source has one answer at a time; a window of its own name has its own.
                due[str(window.id)] = label, replace(recognition, source=str(window.id))
        reasons = self._explain(due, state)
        for label in labels:
            annotation.events.append(label)
            if (reasoning := reasons.get(label.window.id)) is not None:
                annotation.events.append(_stamped(reasoning, state.answers))
                state.answers += 1

    def _is_due(self, state: SourceState, label: Label) -> bool:
        if self._settings.reasons == "none":
            return False
        if state.reasoned_at_s is None or label.smoothed.label != state.reasoned_label:
            return True
        every_s = self._settings.inference.reason_every_s
        elapsed_s = label.window.end_s - state.reasoned_at_s
        return self._settings.reasons == "every" and 0 < every_s <= elapsed_s

    def _explain(
        self, due: dict[str, tuple[Label, Recognition]], state: SourceState
    ) -> dict[int, Reasoning]:
        """The finished explanation of each window that is due, by its id."""
        for _, recognition in due.values():
            self._recognizer.start_reasoning(recognition)
        out = {}
        while self._recognizer.reasoning_sources:
            for step in self._recognizer.reason():
                if step.done:
                    label = due[str(step.key)][0]
                    explained = Explained(label, captured_s=0.0, begun_s=0.0)
                    out[label.window.id] = reasoning_message(explained, step, now_s=0.0)
        return out


def _stamped(event: EventT, seq: int) -> EventT:
    return structs.replace(event, session=SESSION, seq=seq, published_s=event.timestamp_s)

"""`emostream.recognize`: what the live pipeline says of a file, in this process and as fast as the model goes."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msgspec import structs

from emostream.checkpoint.shipped import DEFAULT_MODEL
from emostream.errors import ConfigError, MediaError
from emostream.labels import DEFAULT_LABELS
from emostream.people.limits import MOST_PEOPLE
from stream.capture.sources import MediaSource, parse_sources
from stream.capture.supervisor import Supervisor
from stream.pubsub.messages import EventT, Label, Reasoning
from stream.serve.loop import InferenceLoop
from stream.serve.model import ModelConfig, check_one_person, load_recognizer
from stream.serve.run import captures
from stream.transport.receiver import Receiver
from stream.windows.config import InferenceConfig
from stream.windows.person_names import person_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emostream.inference.recognizer import Recognizer

GIVEN = "recognizer"  # name in the messages of a model that was made by the caller


class _Kept:
    """Takes the place of the publisher: keeps labels and whole reasons, stamped as if they had been sent."""

    def __init__(self) -> None:
        self.events: list[Label | Reasoning] = []
        self._session = uuid.uuid4().hex
        self._sent: dict[str, int] = {}

    def publish(self, event: EventT) -> EventT:
        if isinstance(event, Label) or (isinstance(event, Reasoning) and event.done):
            seq = self._sent.get(event.topic, 0)
            self._sent[event.topic] = seq + 1
            event = structs.replace(event, session=self._session, seq=seq, published_s=time.time())
            assert isinstance(event, (Label, Reasoning))
            self.events.append(event)
        return event

    def preview_wanted(self, source: str) -> bool:
        return False

    def publish_preview(self, source: str, timestamp_s: float, rgb: NDArray[np.uint8]) -> None:
        raise AssertionError("nobody wants a preview")


def recognize(
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Recognizer = DEFAULT_MODEL,
    device: str | None = None,
    labels: Sequence[str] | None = None,
    window_s: float = 4.0,
    hop_steps: int = 1,
    people: int | Literal["all"] = 1,
    reason_every_s: float = 5.0,
    engines: str | os.PathLike[str] | None = None,
    baseline: str | os.PathLike[str] | None = None,
) -> list[Label | Reasoning]:
    """Labels and reasons of a video or sound file.

        for event in emostream.recognize("clip.mp4"):
            print(event)

    They are what `emostream run --pace max` says of the file, without a socket: one `Label` a hop and, in between, one
    `Reasoning` for each explanation, whole. A recording can be made of them. `unix_time_s` is None.

    Args:
        path: Video, audio or both.
        model: `small` (for research only), `tiny` (rendered actors only), a checkpoint folder or a hub id; or a
            `Recognizer`, to load it once for many files.
        device: torch device; a CUDA GPU if there is one.
        labels: Label list instead of the seven.
        window_s: Seconds that a label looks back on.
        hop_steps: Steps, of an eighth of a window, from label to label.
        people: How many to judge, each as a source of their own: the first has the file's name, the second that name
            with `-p2`; "all" is 8 at most. What nobody is in is left out; 0: judge whatever is there.
        reason_every_s: Seconds between explanations; 0 for none.
        engines: Export directory whose graphs run the encoders.
        baseline: File that keeps what is known of this person's voice; "off" judges every voice as a stranger's.

    Raises:
        MediaError: The file cannot be read.
        CheckpointError: The model cannot be loaded.
        ConfigError: The options do not fit together.
    """
    if not Path(path).is_file():
        raise MediaError(
            f"recognize: {os.fspath(path)} is no file; to follow a stream, use listen."
        )
    # An absolute path holds no NAME=.
    [source] = parse_sources([os.path.abspath(path)], None, None, "")
    assert isinstance(source, MediaSource)
    if isinstance(model, (str, os.PathLike)):
        config = ModelConfig(
            model=os.fspath(model),
            device=device,
            labels=DEFAULT_LABELS if labels is None else tuple(labels),
            engines=None if engines is None else Path(engines),
            baseline=None if baseline is None else os.fspath(baseline),
        )
        check_one_person(config, 1, MOST_PEOPLE if people == "all" else people)
        model_name = config.name
        recognizer = load_recognizer(config)
    elif device is None and labels is None and engines is None and baseline is None:
        model_name, recognizer = GIVEN, model
    else:
        raise ConfigError(
            "recognize: device, labels, engines and baseline are those of the Recognizer given."
        )
    inference = InferenceConfig(
        window_s=window_s,
        hop_steps=hop_steps,
        people=MOST_PEOPLE if people == "all" else people,
        reason_every_s=reason_every_s,
        model_name=model_name,
    )
    kept = _Kept()
    with ExitStack() as stack:
        # Frames are remembered by source and number, which the next file may have in common.
        for place in range(max(1, inference.people)):
            stack.callback(recognizer.forget, person_name(source.name, place))
        receiver = stack.enter_context(Receiver(step_s=inference.step_s))
        address = receiver.bind_local()
        loop = InferenceLoop(lambda: recognizer, receiver, kept, inference, {source.name: "media"})
        supervisor = stack.enter_context(
            Supervisor(address, captures(source, realtime=False), on_failed=loop.fail_source)
        )
        supervisor.start()
        loop.run()
        [state] = loop.states.values()
        if state.failed:
            problems = dict.fromkeys(loss.problem for loss in state.losses.values() if loss.problem)
            raise MediaError(f"recognize: {'; '.join(problems)}")
    return kept.events

"""`emostream.listen`: the live pipeline in a Python program's care."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Self

from emostream.checkpoint.shipped import DEFAULT_MODEL
from stream.api.pipeline import Pipeline
from stream.capture.sources import parse_sources
from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Event, Status

_LOOK_EVERY_MS = 200  # whether the pipeline has ended

Location = str | os.PathLike[str]


class Listening:
    """Iterator over the events of a pipeline that it owns; also a context manager.

    It ends when every file is over, and closes itself then, on an error and on Ctrl-C, and when nobody holds it any
    more; `with` and `close` say when.
    """

    def __init__(self, arguments: Sequence[str], sources: Sequence[str]) -> None:
        self._going = set(sources)
        self._closed = False
        self._resources = ExitStack()
        with ExitStack() as stack:
            self._pipeline = stack.enter_context(Pipeline(arguments))
            self._client = stack.enter_context(EmotionClient(self._pipeline.endpoint))
            self._resources = stack.pop_all()

    def close(self) -> None:
        """End the pipeline; may be called again."""
        self._closed = True
        self._resources.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event, as from `EmotionClient`.

        Raises:
            EmostreamError: the pipeline failed.
        """
        try:
            return self._next()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A camera must not stay on because a loop was left.
        self.close()

    def _next(self) -> Event:
        while self._going and not self._closed:
            over = not self._pipeline.running  # what it sent before has arrived then
            try:
                event = self._client.recv(_LOOK_EVERY_MS)
            except ReceiveTimeout:
                if over:
                    break
                continue
            if isinstance(event, Status) and event.state == "stopped":
                self._going.discard(event.source)
            return event
        if not self._closed:
            self._pipeline.wait()
        raise StopIteration


def listen(
    source: Location | Sequence[Location] = (),
    *,
    video: int | str | None = None,
    audio: int | str | None = None,
    name: str = "cam0",
    model: Location = DEFAULT_MODEL,
    device: str | None = None,
    labels: Sequence[str] | None = None,
    window_s: float = 4.0,
    hop_steps: int = 1,
    people: int | Literal["all"] = 1,
    reason_every_s: float = 5.0,
    engines: Location | None = None,
    baseline: Location | None = None,
) -> Listening:
    """Watch and listen live: run the pipeline of `emostream run` and iterate over what it publishes.

        with emostream.listen(video=0) as events:
            for event in events:
                match event:
                    case emostream.Label():
                        print(event.smoothed.label)
                    case emostream.Reasoning(done=True):
                        print(event.answer, event.think)

    The pipeline is a process of its own, which ends with this one. Nobody else can subscribe to it.

    Args:
        source: Files and URLs, each a `[NAME=]LOCATION`. Files are played in real time; `recognize` reads one
            as fast as the model goes.
        video: Camera, by index or URL; "none" for no camera.
        audio: Microphone, by name or index; "none" for no microphone. Without `source`, `video` and `audio`
            the default camera and microphone are meant.
        name: Source name of camera and microphone.
        model: `small` (for research only), `tiny` (rendered actors only), a checkpoint folder or a hub id.
        device: torch device; a CUDA GPU if there is one.
        labels: Label list instead of the seven.
        window_s: Seconds that a label looks back on.
        hop_steps: Steps, of an eighth of a window, from label to label.
        people: How many to judge, each as a source of their own: the first has the source's name, the second that name
            with `-p2`; "all" is 8 at most. What nobody is in is left out; 0: judge whatever is there.
        reason_every_s: Seconds between explanations; 0 for none.
        engines: Export directory whose graphs run the encoders.
        baseline: File that keeps what is known of this person's voice; "off" judges every voice as a stranger's.

    Raises:
        EmostreamError: The pipeline cannot start; the message is its own. What fails later, the loading of the model
            included, is raised by the iteration.
    """
    locations = [source] if isinstance(source, (str, os.PathLike)) else source
    texts = [os.fspath(location) for location in locations]
    camera, microphone = (None if device is None else str(device) for device in (video, audio))
    sources = parse_sources(texts, camera, microphone, name)
    options = {
        "video": camera,
        "audio": microphone,
        "name": name,
        "model": os.fspath(model),
        "device": device,
        "labels": None if labels is None else ",".join(labels),
        "window-s": window_s,
        "hop-steps": hop_steps,
        "people": people,
        "reason-every-s": reason_every_s,
        "engines": None if engines is None else Path(engines),
        "baseline": None if baseline is None else os.fspath(baseline),
    }
    arguments = [f"--source={text}" for text in texts]
    arguments += [f"--{name}={value}" for name, value in options.items() if value is not None]
    return Listening(arguments, [source.name for source in sources])

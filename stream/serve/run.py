"""`emostream run`: capture processes, inference and publisher, from the command line to the exit code."""

import _thread
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from stream.capture import lifeline
from stream.capture.sources import MediaSource, Source
from stream.capture.supervisor import Capture, Supervisor
from stream.pubsub.messages import DEFAULT_ENDPOINT, Encoding
from stream.pubsub.publisher import Publisher
from stream.serve.loop import InferenceLoop
from stream.serve.model import ModelConfig, check_one_person, load_recognizer
from stream.sockets import endpoints, security
from stream.transport.protocol import Clock
from stream.transport.receiver import Receiver
from stream.web.config import WebConfig
from stream.web.serve import serving
from stream.windows.config import InferenceConfig

if TYPE_CHECKING:
    from emostream.inference.recognizer import Recognizer


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that `emostream run` is told.

    Attributes:
        sources: What to watch and hear.
        model: Which model, where, and its labels.
        inference: Windows and cadence.
        bind: Endpoint of the publisher.
        ingest: Endpoint for capture on other hosts; None for none.
        curve: Folder of CURVE keys for both endpoints.
        insecure: Listen beyond loopback without keys.
        encoding: Of published payloads.
        loop: Begin files again when they end.
        realtime: Pace files by the clock; else by the model, without loss.
        web: Port of the page, on loopback; None for none.
        metrics: Port of `/metrics` and `/healthz` alone; None for none.
    """

    sources: Sequence[Source]
    model: ModelConfig
    inference: InferenceConfig
    bind: str = DEFAULT_ENDPOINT
    ingest: str | None = None
    curve: Path | None = None
    insecure: bool = False
    encoding: Encoding = "json"
    loop: bool = False
    realtime: bool = True
    web: int | None = None
    metrics: int | None = None


def run(config: RunConfig) -> int:
    """Run until every file is over, or a signal; returns the exit code.

    Raises:
        EmostreamError: The configuration cannot work; nothing has been started then.
    """
    dynamic = config.ingest is not None or config.web is not None
    local = 0 if config.ingest is not None else len(config.sources)
    check_one_person(config.model, local, config.inference.people)
    keys = None if config.curve is None else security.load_server_keys(config.curve)
    with ExitStack() as stack:
        publisher = stack.enter_context(
            Publisher(config.bind, curve=keys, insecure=config.insecure, encoding=config.encoding)
        )
        receiver = stack.enter_context(
            Receiver(step_s=config.inference.step_s, num_frames=config.inference.num_frames)
        )
        address = receiver.bind_local()
        for port, page in ((config.web, True), (config.metrics, False)):
            if port is not None:
                web = WebConfig(
                    connect=publisher.endpoint, port=port, curve=config.curve, page=page
                )
                link = stack.enter_context(serving(web, address if page else None))
                _say(f"page on {link}" if page else f"metrics on {link}metrics")
        if config.ingest is not None:
            reached = _bind_remote(receiver, config, keys, stack)
            _say(f"ingest on {reached}: emostream capture --connect {reached}")
        loop = InferenceLoop(
            lambda: _load(config.model),
            receiver,
            publisher,
            config.inference,
            {source.name: _clock(source) for source in config.sources},
            dynamic=dynamic,
        )
        stop_on_signals(loop.stop, stack)
        _end_with_parent()
        supervisor = stack.enter_context(
            Supervisor(
                address,
                [
                    capture
                    for source in config.sources
                    for capture in captures(source, loop=config.loop, realtime=config.realtime)
                ],
                on_failed=loop.fail_source,
            )
        )
        loop.count_restarts(supervisor.restarts)
        supervisor.start()
        names = ", ".join(source.name for source in config.sources) or "sources that connect"
        config.model.say_licence()
        _say(f"publishing {names} on {publisher.endpoint}")
        loop.run()
        failed = [state for state in loop.states.values() if state.failed]
        for person in (person for state in loop.states.values() for person in state.everyone):
            if person.answers:
                _say(
                    f"{person.name}: {person.labels} labels; the reasoned answer agreed with the label "
                    f"{person.agreements} of {person.answers} times"
                )
    return 2 if failed and len(failed) == len(loop.states) else 0


def _load(config: ModelConfig) -> "Recognizer":
    recognizer = load_recognizer(config)
    _say(f"encoders: {recognizer.runs_on}")
    return recognizer


def captures(source: Source, *, loop: bool = False, realtime: bool = True) -> list[Capture]:
    """The capture processes of a source; `loop` and `realtime` are for files and recordings behind URLs."""
    if isinstance(source, MediaSource):
        arguments = ["--location", source.location, "--pace", "realtime" if realtime else "max"]
        arguments += ["--loop"] * loop
        if source.audio_track is not None:
            arguments += ["--audio-track", str(source.audio_track)]
        return [
            Capture(
                module="stream.capture.file",
                source=source.name,
                modalities=("video", "audio"),
                arguments=arguments,
            )
        ]
    out = []
    if source.video is not None:
        arguments = ["--video", source.video]
        if source.frozen_after_s is not None:
            arguments += ["--frozen-after-s", str(source.frozen_after_s)]
        out.append(
            Capture(
                module="stream.capture.camera",
                source=source.name,
                modalities=("video",),
                arguments=arguments,
            )
        )
    if source.audio is not None:
        arguments = ["--audio", source.audio] if source.audio else []
        out.append(
            Capture(
                module="stream.capture.microphone",
                source=source.name,
                modalities=("audio",),
                arguments=arguments,
            )
        )
    return out


def _clock(source: Source) -> Clock:
    """The clock that is expected of a source; a URL may turn out to give a recording."""
    return "media" if isinstance(source, MediaSource) and not source.is_url else "host"


def _bind_remote(
    receiver: Receiver, config: RunConfig, keys: security.ServerKeys | None, stack: ExitStack
) -> str:
    """Let capture on other hosts connect, under the same rules as the publisher's endpoint."""
    assert config.ingest is not None
    endpoints.check_exposure(config.ingest, secured=keys is not None, insecure=config.insecure)
    if keys is None:
        return receiver.bind(config.ingest)
    stack.enter_context(security.authenticator(zmq.Context.instance(), keys))
    return receiver.bind(
        config.ingest, secure=lambda socket: security.configure_server(socket, keys)
    )


def stop_on_signals(stop: Callable[[], None], stack: ExitStack) -> None:
    """Ctrl-C and SIGTERM call `stop`; the handlers that were there come back with `stack`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        previous = signal.signal(number, lambda *_: stop())
        stack.callback(signal.signal, number, previous)


def _end_with_parent() -> None:
    """Where a parent holds our lifeline, its wish and its death end us as SIGTERM does."""

    def stop() -> None:
        _thread.interrupt_main(signal.SIGTERM)

    lifeline.attach(on_quit=stop, on_orphaned=stop)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  for the person who started it

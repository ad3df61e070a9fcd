"""The `emostream` command. Heavy imports wait until a subcommand needs them."""

import argparse
import json
import logging
import math
import re
import secrets
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from emostream.checkpoint.shipped import DEFAULT_MODEL
from emostream.console import write_anything
from emostream.errors import EmostreamError
from emostream.labels import DEFAULT_LABELS
from emostream.people.limits import MOST_PEOPLE
from emostream.shadowing import refuse_shadowed_packages
from emostream.startup import start_quickly
from emostream.urls import hide_secrets
from stream.pubsub.messages import DEFAULT_ENDPOINT
from stream.serve.model import BACKENDS, DTYPES, ModelConfig
from stream.web.config import DEFAULT_PORT, WebConfig
from stream.windows.config import InferenceConfig

if TYPE_CHECKING:
    from stream.capture.sources import Source
    from stream.pubsub.client import EmotionClient
    from stream.pubsub.messages import Event

EXIT_USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; user errors are one line and exit code 2."""
    start_quickly()
    write_anything()
    parser = _parser()
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.WARNING,
        format="%(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        refuse_shadowed_packages()
        return int(options.handler(options) or 0)
    except EmostreamError as error:
        print(f"emostream: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain about it at exit.
        sys.stderr.close()
        return 0


class _Parser(argparse.ArgumentParser):
    """Complains without the secrets of URLs."""

    def error(self, message: str) -> NoReturn:
        super().error(hide_secrets(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="emostream",
        # Other users of this host can list command lines, and a camera's URL may hold a password.
        fromfile_prefix_chars="@",
        description="Live emotion recognition from camera and microphone, with reasons, on a ZeroMQ topic.",
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens to stderr")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, handler: Callable[[argparse.Namespace], Any], text: str) -> Any:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(handler=handler)
        return sub

    run = command(
        "run", _run, "publish the emotions of people before cameras and microphones, or in files"
    )
    _add_sources(run)
    _add_model(run)
    _add_windows(run)
    _add_people(run)
    run.add_argument(
        "--engines",
        type=Path,
        metavar="DIR",
        help="run the encoders from an export directory of `emostream-export build`",
    )
    run.add_argument(
        "--backend",
        choices=BACKENDS,
        help="what runs the encoders; what DIR was built for, and torch without --engines",
    )
    run.add_argument("--loop", action="store_true", help="begin files again when they end")
    run.add_argument(
        "--pace",
        choices=("realtime", "max"),
        default="realtime",
        help="read files by the clock, or as fast as the model goes, losing nothing",
    )
    run.add_argument("--bind", default=DEFAULT_ENDPOINT, metavar="ENDPOINT")
    run.add_argument("--ingest", metavar="ENDPOINT", help="take in capture from other hosts here")
    _add_curve(run, "folder of the server's keys, from `emostream keygen`")
    run.add_argument("--insecure", action="store_true", help="listen beyond loopback without keys")
    run.add_argument(
        "--web",
        type=int,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"show what is published as a page too; {DEFAULT_PORT} without a value",
    )
    run.add_argument(
        "--metrics", type=int, metavar="PORT", help="answer /metrics and /healthz on this port"
    )
    run.add_argument("--encoding", choices=("json", "msgpack"), default="json")

    infer = command("infer", _infer, "label a file offline, each window by itself")
    infer.add_argument("file")
    infer.add_argument("--out", required=True, type=Path, metavar="F.jsonl")
    _add_audio_track(infer)
    infer.add_argument("--name", metavar="SOURCE", help="source name in the messages")
    _add_model(infer)
    _add_windows(infer)
    _add_people(infer)

    annotate = command("annotate", _annotate, "label files and folders as fast as the model goes")
    annotate.add_argument(
        "paths", nargs="+", metavar="PATH", help="files, folders, globs, manifests"
    )
    annotate.add_argument("--out", required=True, metavar="DIR", help="goes on if it was begun")
    annotate.add_argument(
        "--jobs", type=int, metavar="N", help="workers: 1, on a cluster one a GPU or core"
    )
    annotate.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster that they run on")
    annotate.add_argument(
        "--format",
        default="jsonl",
        metavar="A,B,…",
        help="of each file jsonl, csv, eaf (ELAN), textgrid (Praat), png; parquet of the summary",
    )
    annotate.add_argument("--plot", action="store_true", help="as png in --format")
    annotate.add_argument(
        "--reasons",
        default="changes",
        choices=("every", "changes", "none"),
        help="explain changes of the rolling label, also every --reason-every-s, or nothing",
    )
    _add_model(annotate)
    _add_windows(annotate)
    annotate.add_argument(
        "--people",
        type=int,
        default=1,
        choices=(0, 1),
        help="1: the person in front; 0: look for nobody and judge whatever is there",
    )

    demo = command("demo", _demo, "show the whole pipeline on a bundled clip, without any device")
    demo.add_argument("--web", action="store_true", help="in a browser instead of the terminal")
    _add_model_name(demo)

    watch = command("watch", _watch, "show what is published, in the terminal")
    _add_connect(watch)

    web = command("web", _web, "show what is published, as a page for a browser")
    web.add_argument("--connect", default=DEFAULT_ENDPOINT, metavar="ENDPOINT")
    _add_curve(web, "folder of the client's keys")
    web.add_argument("--host", default="127.0.0.1", help="address to listen on")
    web.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for any free one")
    web.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="TOKEN",
        help="visitors must show it; a random one without a value",
    )
    web.add_argument("--tls-cert", type=Path, metavar="PEM")
    web.add_argument("--tls-key", type=Path, metavar="PEM")
    web.add_argument(
        "--insecure", action="store_true", help="listen beyond loopback without token or TLS"
    )
    web.add_argument("--open", action="store_true", help="open it in the default browser")

    record = command("record", _record, "write what is published to a file, a message a line")
    _add_connect(record)
    record.add_argument("--out", required=True, type=Path, metavar="F.jsonl")

    replay = command("replay", _replay, "publish a recording again, at its pace")
    replay.add_argument("file", type=Path)
    replay.add_argument("--bind", default=DEFAULT_ENDPOINT, metavar="ENDPOINT")
    replay.add_argument("--speed", type=float, default=1.0)
    _add_curve(replay, "folder of the server's keys")
    replay.add_argument("--insecure", action="store_true")

    bridge = command("bridge", _bridge, "pass on what is published to Lab Streaming Layer or OSC")
    bridge.add_argument("protocol", choices=("lsl", "osc"))
    _add_connect(bridge)
    bridge.add_argument(
        "--to", metavar="HOST:PORT", default="127.0.0.1:9000", help="where to send OSC"
    )
    bridge.add_argument(
        "--insecure",
        action="store_true",
        help="beyond this host: announce LSL on the network, or send OSC to another host",
    )

    table = command("table", _table, "turn a recording into a table")
    table.add_argument("file", type=Path)
    table.add_argument("--csv", required=True, type=Path, metavar="G.csv")
    commands.add_parser("export", parents=[table], add_help=False)  # its old name, not in the help

    plot = command("plot", _plot, "draw a recording's scores over time")
    plot.add_argument("file", type=Path)
    plot.add_argument("--out", required=True, type=Path, metavar="G.png", help="PNG or SVG")
    plot.add_argument("--source", help="which source, if the recording has several")

    capture = command("capture", _capture, "capture here for an `emostream run --ingest` elsewhere")
    _add_sources(capture)
    capture.add_argument("--connect", required=True, metavar="ENDPOINT")
    _add_curve(capture, "folder of the client's keys")

    devices = command("devices", _devices, "list cameras and microphones")
    devices.add_argument("--json", action="store_true")
    doctor = command("doctor", _doctor, "check this installation and say what to mend")
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument(
        "--engines",
        type=Path,
        metavar="DIR",
        help="export directory to check; engines/ if there is one",
    )

    keygen = command("keygen", _keygen, "make CURVE keys for server and clients")
    keygen.add_argument("directory", type=Path, metavar="DIR")
    return parser


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", action="append", default=[], metavar="[NAME=]FILE|URL", help="may be repeated"
    )
    parser.add_argument("--video", metavar="INDEX|URL", help="camera; none for no camera")
    parser.add_argument("--audio", metavar="NAME|INDEX", help="microphone; none for no microphone")
    _add_audio_track(parser)
    parser.add_argument(
        "--frozen-after-s",
        type=float,
        metavar="S",
        help="a camera whose picture does not change at all for so long is lost; 5, and 0 accepts stills",
    )
    parser.add_argument("--name", default="cam0", help="source name of camera and microphone")


def _add_audio_track(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio-track",
        type=int,
        metavar="N",
        help="of a file with several sound tracks, from 1; else the best one with sound in it",
    )


def _add_model_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="small|tiny|DIR|HUB_ID",
        help="small, the default, has seen people and is for research only; tiny is Apache-2.0 and has seen rendered "
        "actors only; or a checkpoint",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add_model_name(parser)
    parser.add_argument("--device", help="torch device; a CUDA GPU if there is one")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--labels", metavar="A,B,…", help="label list instead of the seven")
    parser.add_argument(
        "--baseline",
        metavar="FILE|off",
        help="keep what is known of this person's voice in a file, and go on from it if it is there; off: judge every "
        "voice as a stranger's",
    )
    parser.add_argument(
        "--audio-context-s",
        type=float,
        metavar="S",
        help="pad audio to S seconds only: faster, and not what the model was trained on",
    )


def _add_people(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--people",
        type=_people,
        default=1,
        metavar="N|all",
        help="1: the person in front; N: so many, each on topics of their own (cam0, cam0-p2 …); all: "
        f"{MOST_PEOPLE} at most; 0: look for nobody and judge whatever is there",
    )


def _people(text: str) -> int:
    if text == "all":
        return MOST_PEOPLE
    if not re.fullmatch(f"[0-{MOST_PEOPLE}]", text):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted 0 to {MOST_PEOPLE}, or all")
    return int(text)


def _add_windows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--window-s", type=float, default=4.0)
    parser.add_argument("--hop-steps", type=int, default=1)
    parser.add_argument("--reason-every-s", type=float, default=5.0, help="0 for no reasoning")


def _add_connect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connect", default=DEFAULT_ENDPOINT, metavar="ENDPOINT")
    parser.add_argument("--source", help="one source only")
    _add_curve(parser, "folder of the client's keys")


def _add_curve(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--curve", type=Path, metavar="DIR", help=text)


def _run(options: argparse.Namespace) -> int:
    from stream.serve.run import RunConfig, run

    # With remote capture alone, the default devices of this host are not meant.
    local = options.source or options.video or options.audio or not options.ingest
    if options.web is not None and not options.source and options.video == options.audio == "none":
        local = False  # the page's visitors alone
    model = _model_config(options)
    return run(
        RunConfig(
            sources=_sources(options) if local else [],
            model=model,
            inference=_inference_config(options, model.name),
            bind=options.bind,
            ingest=options.ingest,
            curve=options.curve,
            insecure=options.insecure,
            encoding=options.encoding,
            loop=options.loop,
            realtime=options.pace == "realtime",
            web=options.web,
            metrics=options.metrics,
        )
    )


def _infer(options: argparse.Namespace) -> None:
    from stream.capture.sources import parse_sources
    from stream.serve.model import check_one_person, load, load_voices

    config = _model_config(options)
    check_one_person(config, 1, options.people)
    [source] = parse_sources([options.file], None, None, "")
    from emostream.media import MediaStats
    from stream.commands.offline import infer, write_labels  # with torch, which takes seconds

    model, processor = load(config)
    voices = load_voices(config, model)
    config.say_licence()
    stats = MediaStats()
    labels = infer(
        options.file,
        model,
        processor,
        _inference_config(options, config.name),
        config.labels,
        source=options.name or source.name,
        audio_track=options.audio_track,
        stats=stats,
        voices=voices,
    )
    count = write_labels(labels, options.out)
    if voices is not None:
        voices.save()
    for problem in stats.problems:
        print(f"{options.file}: {problem}", file=sys.stderr)
    print(f"{count} label{'s' * (count != 1)} written to {options.out}", file=sys.stderr)


def _annotate(options: argparse.Namespace) -> int:
    from stream.annotate.run import command
    from stream.annotate.settings import Settings

    model = _model_config(options)
    formats = [*options.format.split(","), *(["png"] if options.plot else [])]
    settings = Settings(
        model=model,
        inference=_inference_config(options, model.name),
        reasons=options.reasons,
        formats=tuple(dict.fromkeys(formats)),
    )
    with _on_signals():
        return command(options.paths, options.out, settings, options.jobs, options.ray)


def _model_config(options: argparse.Namespace) -> ModelConfig:
    labels = DEFAULT_LABELS if options.labels is None else tuple(options.labels.split(","))
    return ModelConfig(
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        labels=labels,
        audio_context_s=options.audio_context_s,
        engines=getattr(options, "engines", None),
        backend=getattr(options, "backend", None),
        baseline=options.baseline,
    )


def _inference_config(options: argparse.Namespace, model_name: str) -> InferenceConfig:
    return InferenceConfig(
        window_s=options.window_s,
        hop_steps=options.hop_steps,
        reason_every_s=options.reason_every_s,
        people=getattr(options, "people", 0),
        model_name=model_name,
    )


def _demo(options: argparse.Namespace) -> int:
    from stream.commands.demo import demo

    with _on_signals() if options.web else nullcontext():
        return demo(options.model, web=options.web)


def _web(options: argparse.Namespace) -> None:
    from stream.web.serve import serving

    config = WebConfig(
        connect=options.connect,
        host=options.host,
        port=options.port,
        curve=options.curve,
        token=secrets.token_urlsafe(24) if options.token == "" else options.token,
        certificate=options.tls_cert,
        key=options.tls_key,
        insecure=options.insecure,
    )
    with _on_signals(), serving(config) as link:
        print(f"{options.connect} is shown on {link}", file=sys.stderr, flush=True)
        if options.open:
            webbrowser.open(link)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _watch(options: argparse.Namespace) -> None:
    from stream.view import watch

    with _client(options) as client:
        watch(client)


def _record(options: argparse.Namespace) -> None:
    from stream.pubsub.recording import Recorder

    with (
        _stopped_by_signals() as stop,
        _client(options) as client,
        Recorder(options.out) as recorder,
    ):
        print(f"recording {options.connect} to {options.out}; Ctrl-C ends it", file=sys.stderr)
        for event in _received(client, stop):
            recorder.write(event)
        print(f"{recorder.messages} messages written to {options.out}", file=sys.stderr)


def _replay(options: argparse.Namespace) -> None:
    from stream.pubsub.publisher import Publisher
    from stream.pubsub.recording import RecordingError, replay, replay_session
    from stream.sockets import security

    if not options.file.is_file():
        raise RecordingError(f"cannot read {options.file}: there is no such file")
    keys = None if options.curve is None else security.load_server_keys(options.curve)
    with (
        _stopped_by_signals() as stop,
        Publisher(
            options.bind, curve=keys, insecure=options.insecure, session=replay_session()
        ) as publisher,
    ):
        print(f"replaying {options.file} on {publisher.endpoint}", file=sys.stderr)
        replay(options.file, publisher, speed=options.speed, stop=stop)


class _SetBySignals(threading.Event):
    """An event that a signal's handler may set while the same thread waits for it; a lock would block for ever."""

    _was_set = False

    def set(self) -> None:
        self._was_set = True

    def is_set(self) -> bool:
        return self._was_set

    def wait(self, timeout: float | None = None) -> bool:
        end_s = math.inf if timeout is None else time.monotonic() + timeout
        while not self._was_set and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))
        return self._was_set


@contextmanager
def _stopped_by_signals() -> "Iterator[_SetBySignals]":
    """What Ctrl-C and SIGTERM set: an exception that they raise anywhere may be lost in a destructor."""
    stop = _SetBySignals()
    with _on_signals(lambda *_: stop.set()):
        yield stop


def _bridge(options: argparse.Namespace) -> None:
    from stream.bridges.lsl import LslBridge
    from stream.bridges.osc import OscBridge

    bridge = (
        LslBridge(network=options.insecure)
        if options.protocol == "lsl"
        else OscBridge(options.to, insecure=options.insecure)
    )
    with _stopped_by_signals() as stop, bridge, _client(options) as client:
        print(f"bridging {options.connect} to {options.protocol}; Ctrl-C ends it", file=sys.stderr)
        for event in _received(client, stop):
            bridge.send(event)


def _received(client: "EmotionClient", stop: threading.Event) -> "Iterator[Event]":
    """What a client receives until `stop`."""
    from stream.pubsub.client import ReceiveTimeout

    while not stop.is_set():
        with suppress(ReceiveTimeout):
            yield client.recv(timeout_ms=250)


def _table(options: argparse.Namespace) -> None:
    from stream.pubsub.recording import write_table

    rows = write_table(options.file, options.csv)
    print(f"{rows} rows written to {options.csv}", file=sys.stderr)


def _plot(options: argparse.Namespace) -> None:
    from stream.view.plot import plot

    plot(options.file, options.out, source=options.source)
    print(f"drawn to {options.out}", file=sys.stderr)


def _sources(options: argparse.Namespace) -> "list[Source]":
    from stream.capture.sources import parse_sources

    return parse_sources(
        options.source,
        options.video,
        options.audio,
        options.name,
        options.audio_track,
        options.frozen_after_s,
    )


def _capture(options: argparse.Namespace) -> int:
    from stream.commands.remote_capture import capture

    return capture(_sources(options), options.connect, curve=options.curve)


def _devices(options: argparse.Namespace) -> None:
    from stream.capture.devices import list_devices

    found = list_devices()
    if options.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        print(found.as_text())


def _doctor(options: argparse.Namespace) -> int:
    from stream.commands.doctor import report

    return report(as_json=options.json, engines=options.engines)


def _keygen(options: argparse.Namespace) -> None:
    from stream.sockets.security import keygen

    for path in keygen(options.directory):
        print(path)


@contextmanager
def _on_signals(handler: Callable[..., object] = signal.default_int_handler) -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that what it holds is closed and it exits 0."""
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, handler)
            stack.callback(signal.signal, number, before)
        yield


def _client(options: argparse.Namespace) -> Any:
    from stream.pubsub.client import EmotionClient

    return EmotionClient(options.connect, source=options.source, curve=options.curve)


if __name__ == "__main__":
    sys.exit(main())

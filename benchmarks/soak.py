"""The live pipeline over a long time, with a fault every minute: is anything lost besides, does anything grow?

    python benchmarks/soak.py --minutes 30

Runs `emostream run` on the demo clip, looped, and beside it on a network camera and, where PulseAudio is installed, a
microphone. Faults are injected in rotation. The clip's hops must all be labelled, save where its own capture process is
the victim, and after each fault both sources must be as before. Memory, threads, sockets and files of the main process
are sampled every 10 s. A second pipeline, undisturbed, sees people come and go (`visits.py`).
"""

import argparse
import contextlib
import itertools
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zmq
from provenance import write_result
from rich.console import Console
from rich.table import Table
from visits import Visits

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Label, Status

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.stream.rigs import MjpegCamera, PipeMicrophone, SoundServer
from tests.system_packages import SOUND_SERVER

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "stream" / "assets" / "demo.mp4"
SAMPLE_EVERY_S = 10.0
SETTLE_S = (
    20.0  # from the end of a fault until all must be as before: a process or connection starts anew
)
WARM_S = 30.0  # after going live, before the first sample and the first fault
HEAL_S = 45.0  # before the end no fault begins: the longest takes 25 s


@dataclass
class Fault:
    """Something to break for a while, and the sources that it may touch."""

    name: str
    seconds: float
    touches: tuple[str, ...]
    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None


@dataclass
class Injected:
    """A fault that was injected, Unix times, and when each source was whole again after its end."""

    name: str
    touches: tuple[str, ...]
    begun_s: float
    ended_s: float = 0.0
    whole_after_s: dict[str, float] = field(default_factory=dict)

    def covers(self, source: str, unix_time_s: float) -> bool:
        """Whether a window that ends then may be lost to this fault."""
        until_s = (self.ended_s or time.time()) + SETTLE_S
        # A window that has ended may still wait for what was on its way when the fault began.
        begun_s = self.begun_s - 0.5
        return source in self.touches and begun_s <= unix_time_s <= until_s


class Pipeline:
    """`emostream run` as users start it, with what it says."""

    def __init__(self, arguments: list[str], environment: dict[str, str]):
        command = [
            sys.executable,
            "-P",
            "-m",
            "stream.commands.cli",
            "run",
            "--people=0",  # most of its pictures are patterns
            "--bind",
            "tcp://127.0.0.1:*",
        ]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        assert self.process.stderr is not None
        said = iter(self.process.stderr)
        self.ingest = _first(said, r"ingest on (\S+):")
        self.endpoint = _first(said, r"publishing .* on (\S+)")
        self.warnings: list[str] = []
        # Somebody must read on, or the pipe fills and the pipeline stands.
        self._reader = threading.Thread(target=lambda: self.warnings.extend(said), daemon=True)
        self._reader.start()
        self.main = psutil.Process(self.process.pid)

    def capture_process(self, module: str, source: str) -> psutil.Process | None:
        """The process that captures a source with a module, None while it is being started again."""
        for child in self.main.children():
            with contextlib.suppress(psutil.Error):
                if {module, source} <= set(child.cmdline()):
                    return child
        return None

    def sample(self) -> dict[str, Any]:
        """Resources of the main process."""
        with self.main.oneshot():
            return {
                "rss_mb": self.main.memory_info().rss / 1e6,
                "threads": self.main.num_threads(),
                "sockets": len(self.main.net_connections("all")),
                "files": len(self.main.open_files()),
                "fds": self.main.num_fds(),
                "children": len(self.main.children()),
            }

    def end(self) -> dict[str, Any]:
        """Stop it, and look for what it left behind."""
        children = self.main.children(recursive=True)
        directories = {
            Path(connection.laddr).parent
            for connection in self.main.net_connections("unix")
            if "emostream-" in str(connection.laddr)
        }
        begun_s = time.monotonic()
        self.process.terminate()
        code = self.process.wait()
        took_s = time.monotonic() - begun_s
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        _, orphans = psutil.wait_procs(children, timeout=5)
        return {
            "exit_code": code,
            "exit_s": round(took_s, 2),
            "orphans": len(orphans),
            "directories_left": sum(directory.exists() for directory in directories),
        }


class Strangers:
    """Peers that do what they should not."""

    def __init__(self, pipeline: Pipeline):
        self._endpoints = (pipeline.endpoint, pipeline.ingest)
        self._context = zmq.Context()
        self._idle: zmq.Socket[bytes] | None = None
        self._random = np.random.default_rng(0)

    def close(self) -> None:
        """Leave."""
        self._context.destroy(linger=0)

    def begin_idling(self) -> None:
        """Subscribe to everything, pictures included, and read nothing."""
        self._idle = self._context.socket(zmq.SUB)
        self._idle.rcvhwm = 1
        self._idle.rcvbuf = 2048
        for topic in ("", "preview."):
            self._idle.subscribe(topic)
        self._idle.connect(self._endpoints[0])

    def end_idling(self) -> None:
        """Go away without having read."""
        assert self._idle is not None
        self._idle.close(linger=0)

    def talk_garbage(self) -> None:
        """Random bytes on both ports, as TCP and as ZeroMQ messages."""
        for endpoint, kind in zip(self._endpoints, (zmq.XSUB, zmq.DEALER), strict=True):
            port = int(endpoint.rsplit(":", 1)[1])
            with (
                contextlib.suppress(ConnectionError),
                socket.create_connection(("127.0.0.1", port)) as stranger,
            ):
                stranger.sendall(self._random.bytes(50_000))
            with self._context.socket(kind) as peer:
                peer.linger = 500
                peer.connect(endpoint)
                for size in (1, 100, 10_000):
                    peer.send(b"\x01" + self._random.bytes(size))


def faults(
    pipeline: Pipeline,
    camera: MjpegCamera,
    microphone: PipeMicrophone | None,
    strangers: Strangers,
) -> list[Fault]:
    """Every fault of the rotation."""

    def kill(module: str, source: str) -> Callable[[], None]:
        def begin() -> None:
            if (process := pipeline.capture_process(module, source)) is not None:
                process.kill()

        return begin

    def suspend(module: str, source: str, seconds: float) -> Fault:
        held: list[psutil.Process] = []

        def begin() -> None:
            if (process := pipeline.capture_process(module, source)) is not None:
                process.suspend()
                held.append(process)

        def end() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was killed for its silence
                held.pop().resume()

        return Fault(f"suspend {module}", seconds, (source,), begin, end)

    live, clip = "cam0", "demo"
    every = [
        Fault("kill stream.capture.camera", 0, (live,), kill("stream.capture.camera", live)),
        Fault("camera server stops", 8, (live,), camera.stop, camera.start),
        Fault("camera freezes", 10, (live,), camera.freeze, camera.thaw),
        Fault("subscriber never reads", 25, (), strangers.begin_idling, strangers.end_idling),
        Fault("garbage bytes", 0, (), strangers.talk_garbage),
        suspend("stream.capture.camera", live, 6),
        Fault("kill stream.capture.file", 0, (clip,), kill("stream.capture.file", clip)),
        suspend("stream.capture.file", clip, 4),
        Fault("camera hangs", 8, (live,), camera.hang, camera.thaw),
    ]
    if microphone is not None:
        every += [
            Fault(
                "kill stream.capture.microphone",
                0,
                (live,),
                kill("stream.capture.microphone", live),
            ),
            Fault("microphone stalls", 8, (live,), microphone.stall, microphone.resume),
            suspend("stream.capture.microphone", live, 6),
        ]
    return every


class Watch:
    """What a subscriber saw."""

    def __init__(self, client: EmotionClient):
        self._client = client
        self.labels: dict[str, list[Label]] = {}
        self.status: dict[str, Status] = {}
        self.seconds_in_state: dict[str, dict[str, int]] = {}
        self.lost_in_transport = 0

    def receive(self, timeout_ms: int) -> None:
        """Take one event."""
        try:
            event = self._client.recv(timeout_ms=timeout_ms)
        except ReceiveTimeout:
            return
        if isinstance(event, Label):
            self.labels.setdefault(event.source, []).append(event)
        elif isinstance(event, Status):
            self.status[event.source] = event
            seconds = self.seconds_in_state.setdefault(event.source, {})
            seconds[event.state] = seconds.get(event.state, 0) + 1
        self.lost_in_transport = self._client.stats.lost

    def whole(self, source: str, audio: str) -> bool:
        """Whether the newest label of a source is as it should be."""
        labels = self.labels.get(source)
        if not labels or labels[-1].published_s < time.time() - 2:
            return False
        modalities = labels[-1].modalities
        return (modalities.video, modalities.audio) == ("ok", audio)

    def lost_hops(self, source: str, injected: list[Injected]) -> dict[str, int]:
        """Windows without a label, by the fault that took them, or `outside faults`."""
        lost: dict[str, int] = {}
        for before, after in itertools.pairwise(self.labels[source]):
            step_s = after.window.end_s / after.window.id
            assert before.unix_time_s is not None
            for missing in range(before.window.id + 1, after.window.id):
                unix_s = before.unix_time_s + (missing - before.window.id) * step_s
                names = [fault.name for fault in injected if fault.covers(source, unix_s)]
                name = names[-1] if names else "outside faults"
                lost[name] = lost.get(name, 0) + 1
        return lost


def soak(options: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Run, break, sample."""
    camera = stack.enter_context(MjpegCamera())
    arguments = ["--source", f"demo={DEMO}", "--loop", "--video", camera.url]
    microphone, environment = None, {}
    if missing := SOUND_SERVER.missing:
        print(f"without a microphone: {missing}", file=sys.stderr)
        arguments += ["--audio", "none"]
    else:
        sounds = stack.enter_context(
            SoundServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        )
        microphone = stack.enter_context(PipeMicrophone(sounds, _hum, name="desk"))
        arguments += ["--audio", "pulse:desk"]
        environment = sounds.environment
    arguments += ["--ingest", "tcp://127.0.0.1:*", "--model", options.model]
    pipeline = Pipeline(arguments, environment)
    stack.callback(pipeline.process.kill)
    client = stack.enter_context(EmotionClient(pipeline.endpoint))
    strangers = Strangers(pipeline)
    stack.callback(strangers.close)
    expected_audio = {"demo": "ok", "cam0": "missing" if microphone is None else "ok"}
    watch = Watch(client)

    while not all(watch.whole(source, audio) for source, audio in expected_audio.items()):
        watch.receive(500)
    # The first picture that somebody asks for has OpenCV loaded, which is no leak.
    strangers.begin_idling()
    warm_s = time.monotonic() + min(WARM_S, options.fault_every_s) / 2
    while time.monotonic() < warm_s:
        watch.receive(100)
    strangers.end_idling()
    rotation = itertools.cycle(faults(pipeline, camera, microphone, strangers))
    injected: list[Injected] = []
    samples: list[dict[str, Any]] = []
    begun_s = time.monotonic()
    end_s = begun_s + 60 * options.minutes
    next_sample_s = begun_s + min(WARM_S, options.fault_every_s)
    next_fault_s = next_sample_s
    fault: Fault | None = None
    while (now_s := time.monotonic()) < end_s or fault is not None:
        watch.receive(100)
        if now_s >= next_sample_s:
            samples.append(
                {"at_s": round(now_s - begun_s, 1), **pipeline.sample()}
                | {"fault": fault.name if fault else ""}
            )
            next_sample_s += SAMPLE_EVERY_S
        if fault is None and next_fault_s <= now_s < end_s - HEAL_S:
            fault = next(rotation)
            fault.begin()
            injected.append(Injected(fault.name, fault.touches, time.time()))
            fault_over_s = now_s + fault.seconds
            next_fault_s += options.fault_every_s
        elif fault is not None and now_s >= fault_over_s:
            fault.end()
            injected[-1].ended_s = time.time()
            fault = None
        elif fault is None and injected:
            last = injected[-1]
            for source, audio in expected_audio.items():
                # What a fault does takes a moment to show; a label in which it shows is not whole.
                if source not in last.whole_after_s and (
                    time.time() > last.ended_s + 3 and watch.whole(source, audio)
                ):
                    last.whole_after_s[source] = round(time.time() - last.ended_s, 1)
    end = pipeline.end()
    return summary(watch, injected, samples, pipeline.warnings) | end


def summary(
    watch: Watch,
    injected: list[Injected],
    samples: list[dict[str, Any]],
    warnings: list[str],
) -> dict[str, Any]:
    """Figures of one run, and what they must be."""
    lost = {source: watch.lost_hops(source, injected) for source in watch.labels}
    warned = [line.strip() for line in warnings]
    growth = {}
    # A fault holds sockets of its own while it lasts.
    quiet = [sample for sample in samples if not sample["fault"]]
    for name in ("rss_mb", "threads", "sockets", "files", "fds"):
        values = [sample[name] for sample in quiet]
        third = max(1, len(values) // 3)
        growth[name] = {
            "first_third": round(statistics.mean(values[:third]), 2),
            "last_third": round(statistics.mean(values[-third:]), 2),
            "max": round(max(values), 2),
        }
    checks = {
        "no hop of either source lost outside the faults": all(
            "outside faults" not in own for own in lost.values()
        ),
        "all whole again after each fault": all(
            fault.whole_after_s.keys() == watch.labels.keys() for fault in injected
        ),
        "no message lost in transport": watch.lost_in_transport == 0,
        "memory flat (last third within 5 % of the first)": growth["rss_mb"]["last_third"]
        <= 1.05 * growth["rss_mb"]["first_third"],
        "threads, sockets and files flat": all(
            growth[name]["last_third"] <= growth[name]["first_third"] + 1
            for name in ("threads", "sockets", "files", "fds")
        ),
    }
    return {
        "checks": checks,
        "labels": {source: len(labels) for source, labels in watch.labels.items()},
        "skipped_by_inference": {
            source: labels[-1].dropped.windows - labels[0].dropped.windows
            for source, labels in watch.labels.items()
        },
        "lost_hops": lost,
        "statuses_by_state": watch.seconds_in_state,
        "restarts": {source: status.restarts for source, status in watch.status.items()},
        "faults": [
            {
                "name": fault.name,
                "seconds": round(fault.ended_s - fault.begun_s, 1),
                "whole_after_s": fault.whole_after_s,
            }
            for fault in injected
        ],
        "growth": growth,
        "warnings": warned,
        "samples": samples,
    }


def _first(lines: Iterator[str], pattern: str) -> str:
    said = []
    for line in lines:
        said.append(line)
        if match := re.search(pattern, line):
            return match[1]
    raise RuntimeError(f"emostream run ended without {pattern!r}: {said}")


def _hum(indices: Any) -> Any:
    return (0.1 * np.sin(indices / 20)).astype(np.float32)


def main() -> int:
    """Soak and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--fault-every-s", type=float, default=60)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        visits = stack.enter_context(Visits(folder, options.model))
        result = soak(options, stack)
        result["people"] = visits.result()
        result["checks"] |= result["people"].pop("checks")
    table = Table("fault", "seconds", "whole again after s", title="faults")
    for fault in result["faults"]:
        after = ", ".join(f"{name} {value}" for name, value in fault["whole_after_s"].items())
        table.add_row(fault["name"], str(fault["seconds"]), after)
    console = Console(width=110)
    console.print(table)
    console.print({key: value for key, value in result.items() if key not in ("faults", "samples")})
    fields = {"minutes": options.minutes, "fault_every_s": options.fault_every_s}
    write_result("soak", fields | {"model": options.model} | result, options.out)
    well = all(result["checks"].values()) and (result["exit_code"], result["orphans"]) == (0, 0)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

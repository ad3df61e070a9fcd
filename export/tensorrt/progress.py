"""What a TensorRT build says while it runs: its log's errors, its phases, and the time that has gone by."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

EVERY_S = 10.0


class Heartbeat:
    """Says every few seconds that a build is still running: TensorRT may report no phase for minutes.

    Args:
        name: Of what is built.
        say: Told.
        every_s: Between two lines.

    Attributes:
        phase: What is under way.
    """

    def __init__(self, name: str, say: Callable[[str], None], every_s: float = EVERY_S):
        self._name, self._say, self._every_s = name, say, every_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tensorrt-heartbeat", daemon=True)
        self.phase = "building"

    def __enter__(self) -> Self:
        self._begun_s = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            elapsed_s = time.perf_counter() - self._begun_s
            self._say(f"{self._name}: {elapsed_s:.0f} s, {self.phase}")


def monitor_of(trt: Any, heartbeat: Heartbeat) -> Any:
    """A progress monitor that names the phase, and stops the build on Ctrl-C.

    An exception must not pass through TensorRT, so that an interrupt is kept until the build has returned.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                self._steps[phase_name] = num_steps
                heartbeat.phase = phase_name
            except KeyboardInterrupt:
                self.interrupted = True

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                heartbeat.phase = f"{phase_name} {step + 1}/{self._steps.get(phase_name, '?')}"
            except KeyboardInterrupt:
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            try:
                self._steps.pop(phase_name, None)
            except KeyboardInterrupt:
                self.interrupted = True

    return Monitor()


def logger_of(trt: Any) -> Any:
    """A logger that keeps the first error, which is the reason of those that follow it."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.reason = "it gives no reason"
            self._failed = False

        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR and not self._failed:
                self.reason, self._failed = " ".join(msg.split()), True

    return Logger()

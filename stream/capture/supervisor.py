"""Starts the capture processes of a host, restarts those that die, and ends them with itself."""

import collections
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emostream.urls import hide_secrets
from stream.capture.device import Backoff
from stream.capture.lifeline import LIFELINE_VARIABLE, QUIT
from stream.capture.process import EXIT_OK, EXIT_RETRY, EXIT_USER_ERROR, private_arguments
from stream.transport.protocol import IngestAddress, Modality

STABLE_S = 10.0  # who lived so long is restarted at once when it dies
STOP_WITHIN_S = 1.0
STDERR_LINES = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """One capture process.

    Attributes:
        module: what `python -m` runs; its `main` is made of `capture_parser` and `run_capture`.
        source: source name.
        modalities: what it captures.
        arguments: its own arguments; a list of processes does not show them.
    """

    module: str
    source: str
    modalities: tuple[Modality, ...]
    arguments: Sequence[str] = ()


class Supervisor:
    """Keeps one process running for each `Capture`.

    A process that exits with 0 has done its work (a file is over); with 2 it has met what a restart cannot mend, which
    `on_failed` is told. Any other end, SIGKILL included, has it started again after a pause that grows from 0.5 to 8 s
    while it keeps dying.

    Args:
        address: where the processes shall connect.
        captures: what to run.
        on_failed: called with source, modality and problem, for every modality of a process that gave up. Called from a
            thread of the supervisor's.
        backoff: makes the pauses of one process.
    """

    def __init__(
        self,
        address: IngestAddress,
        captures: Sequence[Capture],
        *,
        on_failed: Callable[[str, Modality, str], None] | None = None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self._on_failed = on_failed
        self._stopping = threading.Event()
        self._children = [_Child(capture, address, backoff(), self) for capture in captures]

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every process; returns at once."""
        for child in self._children:
            child.start()

    def stop(self) -> None:
        """Ask every process to exit, and kill those that have not within `STOP_WITHIN_S`."""
        self._stopping.set()
        deadline_s = time.perf_counter() + STOP_WITHIN_S
        for child in self._children:
            child.quit()
        for child in self._children:
            child.join(deadline_s)

    def pids(self) -> dict[str, list[int]]:
        """Processes that are running now, by source."""
        running: dict[str, list[int]] = {}
        for child in self._children:
            if (pid := child.pid) is not None:
                running.setdefault(child.capture.source, []).append(pid)
        return running

    def restarts(self, source: str) -> int:
        """How often processes of a source were started again."""
        return sum(child.restarts for child in self._children if child.capture.source == source)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no process runs and none will be started again; false after the timeout."""
        deadline_s = None if timeout_s is None else time.perf_counter() + timeout_s
        return all(child.wait(deadline_s) for child in self._children)

    @property
    def stopping(self) -> threading.Event:
        """Set once `stop` has been called."""
        return self._stopping

    def report(self, capture: Capture, problem: str) -> None:
        """Tell the owner that a process gave up."""
        _log.error("%s: %s gave up: %s", capture.source, capture.module, problem)
        if self._on_failed is not None:
            for modality in capture.modalities:
                self._on_failed(capture.source, modality, problem)


class _Child:
    """One capture process and its successors, each started and awaited by one thread.

    The kernel's signal at a parent's death is in truth sent at the death of the thread that started the process, so
    that thread must live as long as the process.
    """

    def __init__(
        self, capture: Capture, address: IngestAddress, backoff: Backoff, owner: Supervisor
    ) -> None:
        self.capture = capture
        self.restarts = 0
        self._command = [
            sys.executable,
            "-P",  # the working directory must not shadow our packages
            "-m",
            capture.module,
            "--endpoint",
            address.endpoint,
            "--source",
            capture.source,
        ]
        self._environment = address.environment() | private_arguments(capture.arguments)
        self._environment[LIFELINE_VARIABLE] = "1"
        self._backoff = backoff
        self._owner = owner
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(
            target=self._run, name=f"supervise-{capture.source}", daemon=True
        )

    @property
    def pid(self) -> int | None:
        with self._lock:
            return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._thread.start()

    def quit(self) -> None:
        """Ask the process to exit."""
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                try:
                    self._process.stdin.write(QUIT)
                except OSError:
                    _log.debug("%s has gone already", self.capture.module)

    def wait(self, deadline_s: float | None) -> bool:
        if self._thread.ident is None:
            return True
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.perf_counter())
        self._thread.join(left_s)
        return not self._thread.is_alive()

    def join(self, deadline_s: float) -> None:
        """Wait until the process has gone; kill it at the deadline."""
        if self.wait(deadline_s):
            return
        with self._lock:
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while True:
            started_s = time.perf_counter()
            try:
                process = self._spawn()
            except OSError as error:  # no memory or no process left, which may pass
                code, problem = EXIT_RETRY, f"cannot be started: {error}"
            else:
                if process is None:
                    return
                code, problem = self._attend(process)
            if self._owner.stopping.is_set() or code == EXIT_OK:
                return
            if code == EXIT_USER_ERROR:
                self._owner.report(self.capture, problem or "it does not say why")
                return
            if time.perf_counter() - started_s > STABLE_S:
                self._backoff.reset()
            pause_s = self._backoff.next_s()
            _log.warning(
                "%s: %s ended with %d%s; starting it again in %.1f s",
                self.capture.source,
                self.capture.module,
                code,
                f" ({problem})" if problem else "",
                pause_s,
            )
            if self._owner.stopping.wait(pause_s):
                return
            self.restarts += 1

    def _spawn(self) -> "subprocess.Popen[bytes] | None":
        with self._lock:
            if self._owner.stopping.is_set():
                return None
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=os.environ | self._environment,
                # Ctrl-C is for us alone; we end our children in order.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            return self._process

    def _attend(self, process: "subprocess.Popen[bytes]") -> tuple[int, str]:
        """Wait for the end of a process; its exit code and the last line that it wrote to stderr."""
        lines: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        assert process.stderr is not None
        with process:
            for line in open(process.stderr.fileno(), errors="replace", closefd=False):  # noqa: SIM115
                lines.append(hide_secrets(line.rstrip()))  # tracebacks too hold URLs
                _log.debug("%s: %s", self.capture.source, lines[-1])
            code = process.wait()
            with self._lock:
                self._process = None
        return code, next((line for line in reversed(lines) if line), "")

"""Runs the real `emostream` command in a process of its own and collects what it publishes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Event, Label, Reasoning, Status

# Most of what is streamed here shows patterns and tones, to the model that was trained on whole pictures; where there
# are people, a later --people 1 has the last word, and where the model matters, a later --model.
NOBODY = ("--people", "0", "--model", "tiny")
DEADLINE_S = 90.0  # a loaded machine may be slow; nothing here waits longer than it must


class Live:
    """A running `emostream run` and a subscriber to it.

    `environment` is added to ours, for instance that of a sound server.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        curve: Path | None = None,
        environment: Mapping[str, str] | None = None,
        verbose: bool = False,
    ):
        main = ["--verbose"] * verbose + ["run", *NOBODY]
        command = [sys.executable, "-P", "-m", "stream.commands.cli", *main, *arguments]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
        )
        self.said: list[str] = []
        self._spoke = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.endpoint = self._said(r"publishing .* on (\S+)")
        self.client = EmotionClient(self.endpoint, curve=curve)
        self.events: list[Event] = []

    def ingest(self) -> str:
        """Endpoint for remote capture."""
        return self._said(r"ingest on (\S+):")

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """Receive until an event is wanted, and return it."""
        deadline_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline_s:
            try:
                event = self.client.recv(timeout_ms=500)
            except ReceiveTimeout:
                assert self.process.poll() is None, f"ended early: {self.said}"
                continue
            self.events.append(event)
            if wanted(event):
                return event
        raise AssertionError(f"not within {DEADLINE_S} s; said {self.said}; got {self.events[-5:]}")

    def until_stopped(self) -> None:
        """Receive to the last message of every source seen so far."""
        sources = {event.source for event in self.events}
        while sources or not self.events:
            event = self.until(lambda e: isinstance(e, Status) and e.state == "stopped")
            sources.discard(event.source)

    def labels(self, source: str | None = None) -> list[Label]:
        """Label messages received."""
        return [e for e in self.events if isinstance(e, Label) and source in (None, e.source)]

    def reasonings(self) -> list[Reasoning]:
        """Reasoning messages received."""
        return [e for e in self.events if isinstance(e, Reasoning)]

    def statuses(self) -> list[Status]:
        """Status messages received."""
        return [e for e in self.events if isinstance(e, Status)]

    def send(self, number: int = signal.SIGTERM) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def close(self) -> None:
        """End everything."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._spoke:
                self.said.append(line.rstrip())
                self._spoke.notify_all()
        with self._spoke:
            self.said.append("")
            self._spoke.notify_all()

    def _said(self, pattern: str) -> str:
        def found() -> list[str]:
            return [match[1] for line in self.said if (match := re.search(pattern, line))]

        with self._spoke:
            ok = self._spoke.wait_for(lambda: found() or "" in self.said, DEADLINE_S)
            assert ok, f"said nothing like {pattern!r}: {self.said}"
            assert found(), f"ended without saying {pattern!r}: {self.said}"
            return found()[-1]


@contextlib.contextmanager
def live(
    *arguments: str,
    curve: Path | None = None,
    environment: Mapping[str, str] | None = None,
    verbose: bool = False,
) -> Iterator[Live]:
    """Run `emostream run` with a free port and these arguments."""
    bind = [] if "--bind" in arguments else ["--bind", "tcp://127.0.0.1:*"]
    running = Live([*arguments, *bind], curve, environment, verbose)
    try:
        yield running
    finally:
        running.close()


def run_command(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    """Run a subcommand to its end."""
    if arguments[0] in ("run", "infer"):
        arguments = (arguments[0], *NOBODY, *arguments[1:])
    return subprocess.run(
        [sys.executable, "-P", "-m", "stream.commands.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **kwargs,  # type: ignore[call-overload]
    )

"""`emostream run` in a process of its own, for a program that need not know its socket."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from emostream.errors import EmostreamError
from stream.capture.lifeline import LIFELINE_VARIABLE, QUIT
from stream.sockets.local_endpoint import LocalEndpoint

STOP_WITHIN_S = 10.0
_PUBLISHING = re.compile(r"publishing .* on (\S+)$")
_PREFIX = re.compile(r"^emostream( run)?: (error: )?")
_LINES = 20
_log = logging.getLogger(__name__)


class PipelineError(EmostreamError):
    """The live pipeline did not start or failed; the message is its own."""


class Pipeline:
    """A running `emostream run` to which this user alone can subscribe; a context manager.

    It ends when it is closed, or with this process, however that ends.

    Args:
        arguments: those of `emostream run` without `--bind`, each option as `--NAME=VALUE`.

    Attributes:
        endpoint: where it publishes.

    Raises:
        PipelineError: it ended before it published anything.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.endpoint = ""
        self._said: deque[str] = deque(maxlen=_LINES)
        self._closing = False
        self._local = LocalEndpoint()
        self._process: subprocess.Popen[str] | None = None
        self._published = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(arguments,), name="pipeline", daemon=True
        )
        self._thread.start()
        try:
            self._published.wait()
            if not self.endpoint:
                self.wait()
                raise PipelineError("the pipeline ended before it published anything")
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> list[str]:
        """The last lines that it has written for people since it publishes."""
        return list(self._said)

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            PipelineError: it failed or was killed, and not by `close`.
        """
        self._thread.join()
        code = None if self._process is None else self._process.wait()
        if code == 0 or self._closing:
            return
        if code is not None and code < 0:
            raise PipelineError(f"the pipeline was ended by {signal.Signals(-code).name}")
        last = self._said[-1] if self._said else f"the pipeline ended with exit code {code}"
        raise PipelineError(_PREFIX.sub("", last))

    def close(self) -> None:
        """Ask it to end, and kill it if it has not within `STOP_WITHIN_S`; may be called again."""
        self._closing = True
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(OSError, ValueError):  # it has ended already
                self._process.stdin.write(QUIT.decode())
                self._process.stdin.close()
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._thread.join()
        self._local.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, arguments: Sequence[str]) -> None:
        """Start it and read what it says, to its end: Linux takes the thread that started a process for its parent."""
        arguments = [*arguments, f"--bind={self._local.endpoint}"]
        try:
            if self._local.directory is not None:
                # Other users of this host can list command lines, and a camera's URL may hold a password.
                file = self._local.directory / "arguments"
                file.write_text("\n".join(arguments), encoding="utf-8")
                arguments = [f"@{file}"]
            with subprocess.Popen(
                [sys.executable, "-P", "-m", "stream.commands.cli", "run", *arguments],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {LIFELINE_VARIABLE: "1"},
            ) as self._process:
                assert self._process.stderr is not None
                for line in self._process.stderr:
                    self._take(line.rstrip())
        except OSError as error:
            self._said.append(f"cannot start the pipeline: {error}")
        finally:
            self._published.set()

    def _take(self, line: str) -> None:
        found = None if self.endpoint else _PUBLISHING.search(line)
        if found is None:
            self._said.append(line)
            _log.info("%s", line)
        else:
            self._said.clear()
            self.endpoint = found[1]
            self._published.set()

"""Workers on this machine: as many processes as jobs, each with its model."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace

from emostream.errors import EmostreamError
from stream.annotate.files import MediaFile
from stream.annotate.results import Row
from stream.annotate.worker import Job, failed

TRIES = 2  # of a file whose worker dies
DIES_WITHIN_S = 5.0  # once it has closed its output


def annotate_here(files: Sequence[MediaFile], job: Job, jobs: int) -> Generator[Row, None, None]:
    """Rows of files as they are finished; leaving the iterator ends the workers.

    A file whose worker dies twice, as a decoder that crashes does, gets a row that says so.

    Raises:
        EmostreamError: The model cannot be loaded.
    """
    tasks: queue.SimpleQueue[MediaFile] = queue.SimpleQueue()
    rows: queue.SimpleQueue[Row | BaseException] = queue.SimpleQueue()
    for file in files:
        tasks.put(file)
    workers = [_Process(replace(job, index=index), jobs) for index in range(min(jobs, len(files)))]

    def serve(process: _Process) -> None:
        try:
            while True:
                file = tasks.get_nowait()
                for _ in range(TRIES):
                    row = process.annotate(file)
                    if row is not None:
                        break
                rows.put(row or failed(file, job.digest, f"its worker died: {process.end}"))
        except queue.Empty:
            pass
        except BaseException as error:
            rows.put(error)

    threads = [threading.Thread(target=serve, args=(w,), daemon=True) for w in workers]
    try:
        for thread in threads:
            thread.start()
        for _ in files:
            row = rows.get()
            if isinstance(row, BaseException):
                raise row
            yield row
    finally:
        while not tasks.empty():
            with suppress(queue.Empty):
                tasks.get_nowait()
        for worker in workers:
            worker.kill()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.reap()


class _Process:
    """A worker's process, started when it is needed and again when it has died.

    Attributes:
        end: How it died last.
    """

    def __init__(self, job: Job, jobs: int) -> None:
        self._job = job
        self._environment = dict(os.environ)
        if jobs > 1:
            # Together they have one thread a core.
            self._environment.setdefault(
                "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs))
            )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.end = ""

    def annotate(self, file: MediaFile) -> Row | None:
        """The row of a file; None if the process died over it.

        Raises:
            EmostreamError: The model cannot be loaded.
        """
        try:
            process = self._start()
            row = self._ask(process, file)
            assert isinstance(row, Row)
            return row
        except (EOFError, OSError):
            self.reap()
            return None

    def reap(self) -> None:
        """Forget a process that has died."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(DIES_WITHIN_S)  # by itself, so that its own reason is told
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        code = process.returncode
        self.end = signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process, and start no other."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._process is not None:
                return self._process
            if self._closed:
                raise EOFError
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "stream.annotate.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
            )
        ready = self._ask(process, self._job)
        if isinstance(ready, EmostreamError):
            raise ready
        return process

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], what: Job | MediaFile) -> object:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(what, process.stdin)
        process.stdin.flush()
        return pickle.load(process.stdout)

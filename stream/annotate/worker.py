"""What annotates files, one after another: a process (`python -P -m stream.annotate.worker`), or an actor on a cluster.

The process reads pickles from standard input, settings first and then one file after another, and answers each with a
pickle. It ends at once when its input does, whatever it is doing: it never outlives the run that started it.
"""

from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from emostream.errors import EmostreamError, MediaError
from emostream.startup import start_quickly
from emostream.urls import hide_secrets
from stream.annotate.files import MediaFile, filesystem_of
from stream.annotate.results import Folder, Row
from stream.annotate.settings import Settings
from stream.annotate.timeline import PEOPLE, SPEECH, runs
from stream.pubsub.messages import Reasoning


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is started with.

    Attributes:
        settings: What is asked of each file.
        digest: Of the settings, where the run was started: on another machine a model's files have other times.
        out: Folder of the results.
        index: Which worker it is; with several GPUs it takes that one.
    """

    settings: Settings
    digest: str
    out: str
    index: int = 0


class Worker:
    """A model, loaded once.

    Raises:
        EmostreamError: The model cannot be had.
    """

    def __init__(self, job: Job) -> None:
        from stream.annotate.annotator import Annotator
        from stream.serve.model import load_recognizer

        self._settings, self._folder = job.settings, Folder(job.out)
        self._digest = job.digest
        model = replace(job.settings.model, device=_device(job))
        self._annotator = Annotator(job.settings, load_recognizer(model))

    def annotate(self, file: MediaFile) -> Row:
        """Write a file's results and its row; a file that cannot be read gets a row alone, which says why."""
        from stream.annotate.outputs import presence, write
        from stream.capture.sources import name_of

        work, local = self._folder.work(), Path(file.path)
        try:
            local = _fetch(file, work)
            annotation = self._annotator.annotate(local, name_of(file.name))
            names = write(annotation, self._settings, file.path, file.name, work)
            inference = self._settings.inference
            hop_s = inference.hop_steps * inference.step_s
            who = presence(annotation, self._settings)
            reasonings = [e for e in annotation.events if isinstance(e, Reasoning)]
            row = Row(
                name=file.name,
                size=file.size,
                stamp=file.stamp,
                settings=self._digest,
                duration_s=annotation.duration_s,
                windows=len(annotation.events) - len(reasonings),
                runs=runs(annotation.events, hop_s, annotation.duration_s),
                people=who.get(PEOPLE, []),
                speech=who.get(SPEECH),
                reasons=len(reasonings),
                agreed=sum(bool(r.agrees_with_label) for r in reasonings),
                problems=annotation.stats.problems,
            )
            self._folder.commit(row, work, names)
        except EmostreamError as error:
            # Not where it was fetched to, which nobody finds any more.
            error_text = str(error).replace(str(local), hide_secrets(file.path))
            row = failed(file, self._digest, error_text)
            self._folder.commit(row, work, [])
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return row


def failed(file: MediaFile, settings: str, error: str) -> Row:
    """The row of a file without results."""
    return Row(name=file.name, size=file.size, stamp=file.stamp, settings=settings, error=error)


def _device(job: Job) -> str | None:
    """One GPU a worker, in turn."""
    if job.settings.model.device not in (None, "cuda"):
        return job.settings.model.device
    import torch

    gpus = torch.cuda.device_count()
    return f"cuda:{job.index % gpus}" if gpus else job.settings.model.device


def _fetch(file: MediaFile, work: Path) -> Path:
    """The file on this machine."""
    filesystem, path = filesystem_of(file.path)
    if "file" in filesystem.protocol:
        return Path(path)
    local = work / f"media{Path(path).suffix}"
    try:
        filesystem.get_file(path, str(local))
    except OSError as error:
        raise MediaError(f"{file.path}: cannot be fetched: {error}") from error
    return local


def main() -> None:
    """Entry of the worker's process."""
    start_quickly()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the run, which ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    tasks: queue.Queue[MediaFile] = queue.Queue()
    job: Job = pickle.load(sys.stdin.buffer)

    def read() -> None:
        while True:
            try:
                tasks.put(pickle.load(sys.stdin.buffer))
            except EOFError:
                os._exit(0)

    threading.Thread(target=read, name="tasks", daemon=True).start()
    try:
        worker = Worker(job)
        _answer(answers, None)
    except EmostreamError as error:
        _answer(answers, error)
        return
    while True:
        _answer(answers, worker.annotate(tasks.get()))


def _answer(to: object, answer: object) -> None:
    pickle.dump(answer, to)  # type: ignore[arg-type]
    to.flush()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

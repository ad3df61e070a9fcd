"""The same workers on a Ray cluster: an actor each, wherever the cluster has room."""

from __future__ import annotations

import logging
import signal
import socket
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from emostream.errors import ConfigError, EmostreamError
from stream.annotate.files import MediaFile
from stream.annotate.pool import TRIES
from stream.annotate.results import Row
from stream.annotate.worker import Job, Worker, failed

_SAY_EVERY_S: Final = 30.0
_log = logging.getLogger(__name__)


def annotate_on_ray(
    files: Sequence[MediaFile], job: Job, address: str, jobs: int | None
) -> Generator[Row, None, None]:
    """Rows of files as they are finished; leaving the iterator ends the workers.

    The files of a worker or node that is lost are done again by another worker, and one over which a worker is lost
    `TRIES` times gets a row that says so. Workers that find no room yet wait for it, while the others do the work.

    Args:
        files: On paths that every node sees: of a shared file system, or URLs.
        job: Likewise its folder of results and its model.
        address: Of the cluster, as `ray.init` takes it.
        jobs: Workers; None for one on each GPU or, if the cluster has none, on each core.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
        EmostreamError: The model cannot be loaded.
    """
    ray = _connect(address)
    try:
        resources = ray.cluster_resources()
        wants_gpus = job.settings.model.device != "cpu" and resources.get("GPU", 0) >= 1
        room = int(resources.get("GPU" if wants_gpus else "CPU", 1))
        actors = ray.remote(num_gpus=1)(_Actor) if wants_gpus else ray.remote(num_cpus=1)(_Actor)
        waiting, idle, lost = deque(files), deque[Any](), Counter[str]()
        running: dict[Any, tuple[Any, MediaFile | None]] = {}  # a file, or the model

        def start() -> None:
            actor = actors.remote(_anywhere(job))
            running[actor.load.remote()] = actor, None

        for _ in range(min(jobs or max(1, room), len(files))):
            start()
        left = len(files)
        while left:
            while waiting and idle:
                actor, following = idle.popleft(), waiting.popleft()
                running[actor.annotate.remote(following)] = actor, following
            done, _ = ray.wait(list(running), num_returns=1, timeout=_SAY_EVERY_S)
            if not done:
                if all(file is None for _, file in running.values()):
                    _log.warning("no worker has started yet: has the cluster room for one?")
                continue
            actor, file = running.pop(done[0])
            try:
                row = ray.get(done[0])
                idle.append(actor)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, EmostreamError):
                    raise cause from None
                ray.kill(actor)
                # One that dies over its model takes a file for it, or it would be started for ever.
                file = file or (waiting.popleft() if waiting else None)
                if file is None:
                    continue
                start()
                lost[file.name] += 1
                _log.warning("a worker was lost over %s", file.name)
                if lost[file.name] < TRIES:
                    waiting.append(file)
                    continue
                row = failed(file, job.digest, f"its worker died: {_last_line(error)}")
            if row is not None:
                left -= 1
                yield row
    finally:
        ray.shutdown()  # ends the workers of this run, and leaves the cluster as it is


class _Actor:
    """A worker whose model is loaded apart from its making, so that what is wrong with it is an error of its own."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None

    def load(self) -> None:
        from emostream.shadowing import refuse_shadowed_packages

        refuse_shadowed_packages()  # Ray lets workers look into the folder that the run was started in
        self._worker = Worker(self._job)

    def annotate(self, file: MediaFile) -> Row:
        assert self._worker is not None
        return self._worker.annotate(file)


def _anywhere(job: Job) -> Job:
    """A job whose paths hold in any working directory."""
    model = job.settings.model
    if Path(model.model).exists():
        model = replace(model, model=str(Path(model.model).absolute()))
    return replace(job, settings=replace(job.settings, model=model))


def _connect(address: str) -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ConfigError("--ray needs ray: pip install 'emostream[ray]'") from error
    before = signal.getsignal(signal.SIGTERM)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():
            # Ray would try for minutes.
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"--ray {address}: there is no such cluster: {' '.join(str(error).split())}"
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray takes it for itself
    module: ModuleType = ray
    return module


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()

"""`corpus synth`: render a corpus to disk on several processes, resumable and reproducible."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait as wait_handles
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console

from emostream.errors import ConfigError
from training.data.manifest import Row, write_manifest
from training.progress import bars
from training.synth.actors import SPLITS, Split
from training.synth.clip import FRAMES_HZ, SIZE_PX, clip_name, clip_row, film, frame_times, speak
from training.synth.media import is_whole, require_encoders, write_mp4
from training.synth.script import write_script
from training.synth.speech import plan_speech
from training.synth.twins import (
    KIND,
    MANIFEST,
    check_kinds,
    chosen_change,
    render_twin,
    twin_name,
    twin_row,
)
from training.synth.voice import SAMPLE_RATE_HZ

#: Raise when a change of the generator changes what a (seed, split, index) looks or sounds like.
GENERATOR_VERSION = 1
Task = tuple[int, str]
"""A file to render: the clip's number, and the kind of its twin or `""` for the clip itself."""
#: A generous bound on one clip's file at `SIZE_PX`, for the check of free space.
_CLIP_BYTES = 180_000
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthReport:
    """What `synth` did.

    Attributes:
        manifest: The manifest that it wrote.
        clips: Rows in the manifest.
        written: Files rendered by this call, twins too.
        kept: Files that were there already.
        bytes: Size of all of them on disk.
        elapsed_s: Wall time.
        workers: Processes used.
        twins: Rows in the manifest of twins.
    """

    manifest: Path
    clips: int
    written: int
    kept: int
    bytes: int
    elapsed_s: float
    workers: int
    twins: int = 0


def synth(
    out: str | Path,
    clips: int,
    seed: int,
    split: str = "train",
    workers: int | None = None,
    *,
    size_px: int = SIZE_PX,
    twins: Sequence[str] = (),
    console: Console | None = None,
) -> SynthReport:
    """Render clips 0 to `clips` - 1 of a corpus into `out/clips/` and write `out/manifest.jsonl`.

    With `twins`, also a counterfactual twin of each kind of each clip that offers it, into `out/twins/`, and
    `out/twins.jsonl` (`training.synth.twins`).

    The files depend on (seed, split, size_px) alone, not on the number of workers or clips, so a
    corpus can be continued after an interruption and extended: clips that exist whole are kept.

    Args:
        out: The corpus folder; made if needed. It holds one split of one seed.
        clips: How many, 1 or more.
        seed: 0 or more.
        split: `train`, `test` or `ood`.
        workers: Processes; None for one a CPU that this process may use.
        size_px: Width and height of the frames, even.
        twins: Kinds of twins.
        console: Where to show progress; None for stderr.

    Raises:
        ConfigError: An argument is out of range, a kind is unknown, `out` holds another corpus, or the disk is full.
        MediaError: PyAV has no H.264 or AAC encoder.
    """
    out, split_, workers = _checked(out, clips, seed, split, workers, size_px)
    check_kinds(twins)
    require_encoders()
    started = time.perf_counter()
    _claim_folder(out, {"seed": seed, "split": split_, "size_px": size_px})
    scripts = [write_script(seed, split_, index) for index in range(clips)]
    rows = [replace(row, path=out / row.path) for row in map(clip_row, scripts)]
    changed = [
        (script.index, replace(row, path=out / row.path))
        for script in scripts
        for kind in twins
        if (change := chosen_change(script, kind))
        for row in [twin_row(script, kind, change)]
    ]
    tasks: list[tuple[Task, Row]] = [((index, ""), row) for index, row in enumerate(rows)]
    tasks += [((index, str(row.meta[KIND])), row) for index, row in changed]
    missing = [task for task, row in tasks if not is_whole(row.path, row.end_s or 0.0)]
    _check_space(out, len(missing), size_px)
    workers = max(1, min(workers, len(missing)))
    with bars(console) as step:
        done = len(tasks) - len(missing)
        step(f"{split_} clips", done, len(tasks))
        render = _render_here if workers == 1 else _render_on_workers
        for count in render(out, seed, split_, missing, size_px, workers):
            done += count
            step(f"{split_} clips", done, len(tasks))
    write_manifest(out / "manifest.jsonl", rows)
    if twins:
        write_manifest(out / MANIFEST, [row for _, row in changed])
    return SynthReport(
        manifest=out / "manifest.jsonl",
        clips=clips,
        written=len(missing),
        kept=len(tasks) - len(missing),
        bytes=sum(row.path.stat().st_size for _, row in tasks),
        elapsed_s=time.perf_counter() - started,
        workers=workers,
        twins=len(changed),
    )


def write_file(out: Path, seed: int, split: Split, task: Task, size_px: int) -> None:
    """Render one clip, or a twin of it, and write its file."""
    index, kind = task
    script = write_script(seed, split, index)
    if kind:
        change = chosen_change(script, kind)
        assert change is not None
        frames, pcm = render_twin(script, change, size_px=size_px)
    else:
        speech = plan_speech(script)
        frames = film(script, speech, frame_times(script), size_px)
        pcm = speak(script, speech)
    path = out / (twin_name(index, kind) if kind else clip_name(index))
    path.parent.mkdir(exist_ok=True)
    write_mp4(path, frames, pcm, FRAMES_HZ, SAMPLE_RATE_HZ)


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(
    out: str | Path, clips: int, seed: int, split: str, workers: int | None, size_px: int
) -> tuple[Path, Split, int]:
    if clips < 1:
        raise ConfigError(f"corpus synth: clips is {clips}; wanted 1 or more")
    if seed < 0:
        raise ConfigError(f"corpus synth: seed is {seed}; wanted 0 or more")
    if split not in SPLITS:
        raise ConfigError(f"corpus synth: unknown split {split!r}; wanted {', '.join(SPLITS)}")
    if workers is not None and workers < 1:
        raise ConfigError(f"corpus synth: workers is {workers}; wanted 1 or more")
    if size_px < 48 or size_px % 2:
        raise ConfigError(f"corpus synth: size_px is {size_px}; wanted an even number from 48 on")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"corpus synth: {out} is a file; name a folder for the corpus")
    return out, split, workers or usable_cpus()


def _claim_folder(out: Path, corpus: dict[str, Any]) -> None:
    """Make the folder and its `corpus.json`, or check that it is this corpus's."""
    corpus = {"generator": GENERATOR_VERSION, **corpus}
    name = out / "corpus.json"
    try:
        (out / "clips").mkdir(parents=True, exist_ok=True)
        if name.exists():
            found = json.loads(name.read_text(encoding="utf-8"))
            if found != corpus:
                raise ConfigError(
                    f"corpus synth: {out} holds the corpus {json.dumps(found)}, not "
                    f"{json.dumps(corpus)}; name another folder or remove this one"
                )
        else:
            name.write_text(json.dumps(corpus) + "\n", encoding="utf-8")
        for part in out.glob("*/.*.part.mp4"):  # of an interrupted run
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"corpus synth: cannot write to {out}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"corpus synth: {name} is not JSON ({error}); remove it") from error


def _check_space(out: Path, clips: int, size_px: int) -> None:
    wanted = int(clips * _CLIP_BYTES * max(1.0, (size_px / SIZE_PX) ** 2))
    free = shutil.disk_usage(out).free
    if wanted > free:
        raise ConfigError(
            f"corpus synth: {clips} clips may take {wanted / 1e9:.1f} GB and {out} has "
            f"{free / 1e9:.1f} GB free; ask for fewer clips or name another disk"
        )


def _render_here(
    out: Path, seed: int, split: Split, missing: list[Task], size_px: int, workers: int
) -> Iterator[int]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        for task in missing:
            write_file(out, seed, split, task, size_px)
            yield 1
    finally:
        cv2.setNumThreads(threads)


def _render_on_workers(
    out: Path, seed: int, split: Split, missing: list[Task], size_px: int, workers: int
) -> Iterator[int]:
    """Batches over spawned processes; a failure or Ctrl-C cancels what has not started."""
    batches = [missing[i : i + 16] for i in range(0, len(missing), 16)]
    with _one_thread_each():
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_start_worker
        )
        try:
            pending: set[Future[int]] = set()
            waiting = iter(batches)
            # A few batches in flight a worker: an error surfaces soon and memory stays flat.
            for batch in waiting:
                pending.add(pool.submit(_write_batch, out, seed, split, batch, size_px))
                if len(pending) >= 2 * workers:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in finished)
            for future in list(pending):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _write_batch(out: Path, seed: int, split: Split, tasks: list[Task], size_px: int) -> int:
    for task in tasks:
        write_file(out, seed, split, task, size_px)
    return len(tasks)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children started inside run their numeric libraries on one thread."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with(handle: int) -> None:
        wait_handles([handle])
        os._exit(1)

    # A worker whose parent was killed would wait for work for ever.
    threading.Thread(target=leave_with, args=(parent.sentinel,), daemon=True).start()

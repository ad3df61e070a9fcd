"""`emostream annotate`: which files are left to do, who does them, and the summary of all."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from emostream.errors import ConfigError, EmostreamError
from stream.annotate import report
from stream.annotate.files import MediaFile, find
from stream.annotate.results import Folder, Row
from stream.annotate.settings import Settings
from stream.annotate.worker import Job

Engine = Callable[[Sequence[MediaFile], Job], Generator[Row, None, None]]


class AnnotateError(EmostreamError):
    """The results cannot be written."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counts of a run: files annotated now, those that were done before, and the rows of those that failed."""

    annotated: int
    before: int
    failed: list[Row]


def annotate(paths: Sequence[str], out: str, settings: Settings, engine: Engine) -> Outcome:
    """Annotate what is not done yet, and write the summary of everything that was named.

    Args:
        paths: Files, folders, globs, manifests.
        out: Folder of the results.
        settings: What is asked of each file.
        engine: Gives the rows of files as they are finished.

    Raises:
        ConfigError: A path stands for nothing.
        EmostreamError: The model cannot be loaded, or the results cannot be written.
    """
    files = find(paths)
    try:
        folder = Folder(out)
        folder.sweep()
        digest = settings.digest()
        rows = {file.name: row for file in files if (row := folder.row(file, digest)) is not None}
        left = [file for file in files if file.name not in rows]
        before = len(rows)
        if left:
            with closing(engine(left, Job(settings, digest, folder.path))) as finished:
                rows |= {row.name: row for row in _shown(finished, left)}
            folder.sweep()
        _summarise(folder, [rows[file.name] for file in files], settings)
    except OSError as error:
        raise AnnotateError(f"annotate: cannot write to {out}: {error}") from error
    failed = [row for row in rows.values() if row.error]
    return Outcome(len(rows) - before - len(failed), before, failed)


def _shown(rows: Iterator[Row], files: Sequence[MediaFile]) -> Iterator[Row]:
    """Rows as they come, with a bar that goes by bytes, and a line for each file that failed."""
    sizes = {file.name: file.size for file in files}
    console = Console(stderr=True, highlight=False)
    files_done = TextColumn("{task.fields[done]} of {task.fields[files]} files")
    columns = (files_done, BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=sum(sizes.values()), files=len(files), done=0)
        for number, row in enumerate(rows, 1):
            if row.error:
                progress.console.print(f"{row.name}: {row.error}", markup=False, soft_wrap=True)
            progress.update(bar, advance=sizes[row.name], done=number)
            yield row


def _summarise(folder: Folder, rows: Sequence[Row], settings: Settings) -> None:
    work = folder.work()
    labels, model = settings.model.labels, settings.inference.model_name
    try:
        summary = report.table(rows, labels)
        report.write_csv(work / "summary.csv", summary)
        names = ["summary.csv", "report.html"]
        if "parquet" in settings.formats:
            report.write_parquet(work / "summary.parquet", summary)
            names.append("summary.parquet")
        report.write_html(work / "report.html", rows, labels, model)
        for name in names:
            folder.place(work / name, name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def command(
    paths: Sequence[str],
    out: str,
    settings: Settings,
    jobs: int | None = None,
    ray: str | None = None,
) -> int:
    """Run and say how it went.

    Args:
        paths: Files, folders, globs, manifests.
        out: Folder of the results.
        settings: What is asked of each file.
        jobs: Workers; None for one, on a cluster for as many as it has GPUs or cores.
        ray: Address of a Ray cluster that they run on.

    Returns:
        The exit code: 0, 1 if a file failed, 130 if it was interrupted.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: wanted 1 or more.")

    def engine(files: Sequence[MediaFile], job: Job) -> Generator[Row, None, None]:
        settings.model.say_licence()
        if ray is not None:
            from stream.annotate.cluster import annotate_on_ray

            return annotate_on_ray(files, job, ray, jobs)
        from stream.annotate.pool import annotate_here

        return annotate_here(files, job, jobs or 1)

    try:
        outcome = annotate(paths, out, settings, engine)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    counts = f"{outcome.annotated} files annotated, {outcome.before} were done before"
    counts += f", {len(outcome.failed)} failed" if outcome.failed else ""
    print(f"{counts}; see {out}/report.html", file=sys.stderr)  # noqa: T201
    return 1 if outcome.failed else 0

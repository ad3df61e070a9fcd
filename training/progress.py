"""How far a command is: named steps, each so many of so many, on a terminal or told to nobody."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

#: Told of a named step: how much is done, and of how much.
Step = Callable[[str, int, int], None]
Progress = Callable[[], AbstractContextManager[Step]]


def unseen() -> AbstractContextManager[Step]:
    """Progress that nobody sees."""
    return nullcontext(lambda name, done, total: None)


@contextmanager
def bars() -> Iterator[Step]:
    """A bar for each step on stderr, with the time that it has taken and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def step(name: str, done: int, total: int) -> None:
        if not tasks:
            shown.start()  # not before: an error that comes first is the only line then
        if name not in tasks:
            tasks[name] = shown.add_task(name, total=total)
        shown.update(tasks[name], completed=done, total=total)

    try:
        yield step
    finally:
        if tasks:
            shown.stop()

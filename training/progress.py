"""Progress of a command by named steps: bars on a terminal, or not shown at all."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Called with the name of a step, how many items of it are done, and how many there are.
Step = Callable[[str, int, int], None]
Progress = Callable[[], AbstractContextManager[Step]]


def unseen() -> AbstractContextManager[Step]:
    """Progress that is not shown."""
    return nullcontext(lambda name, done, total: None)


@contextmanager
def bars(console: "Console | None" = None) -> Iterator[Step]:
    """A bar for each step, with the time that it has taken and the time left.

    Args:
        console: Where; None for stderr.
    """
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
    shown = Progress(*columns, console=console or Console(stderr=True))
    tasks: dict[str, Any] = {}

    def step(name: str, done: int, total: int) -> None:
        if not tasks:
            shown.start()  # not before: an error that comes first is the only line then
        if name not in tasks:
            # What an earlier run has done tells nothing of the speed of this one.
            tasks[name] = shown.add_task(name, total=total, completed=done)
        shown.update(tasks[name], completed=done, total=total)

    try:
        yield step
    finally:
        if tasks:
            shown.stop()

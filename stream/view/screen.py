"""The terminal while the view is on it: alternate screen, rows painted where they changed, quiet keys."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text


class Screen:
    """The alternate screen of a terminal; leaving it brings back what was there before.

    Only rows that changed are written, all in one write: nothing flickers, and little goes over a
    slow line. A screen of another size is painted anew.

    Args:
        console: writes to a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[Text] = []
        self._size = console.size
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        self._shown = []
        self._resources.enter_context(_quiet_keyboard())
        self._resources.enter_context(self._console.screen())
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def paint(self, rows: Sequence[Text]) -> None:
        """Show `rows`, at most as many and as wide as the terminal."""
        if self._console.size != self._size:
            self._size = self._console.size
            self._shown = []
        if not self._shown:
            self._console.clear()
        width = self._size.width
        rows = [*rows, *[Text()] * (len(self._shown) - len(rows))]
        before = [*self._shown, *[Text()] * (len(rows) - len(self._shown))]
        changes = [(y, row) for y, row in enumerate(rows) if row != before[y]]
        if changes:
            self._console.print(_Changes(changes, width), end="", crop=False)
        self._shown = rows

    def suspend(self) -> None:
        """Stop as Ctrl-Z does, with the terminal given back meanwhile; returns when continued."""
        self._resources.close()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.__enter__()


class _Changes:
    """Rows with the numbers of the screen rows that they replace."""

    def __init__(self, changes: Sequence[tuple[int, Text]], width: int) -> None:
        self._changes, self._width = changes, width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for y, row in self._changes:
            yield Control.move_to(0, y)
            yield from row.render(console)
            # After a full row the cursor still stands on its last cell, which this would erase.
            if row.cell_len < self._width:
                yield Control((ControlType.ERASE_IN_LINE, 0))


class Interrupts:
    """Remembers Ctrl-C, SIGTERM and Ctrl-Z instead of being torn out of the middle of a write.

    A second Ctrl-C acts at once. Outside the main thread, where signals cannot be handled, it
    changes nothing.

    Args:
        suspend: whether to remember Ctrl-Z; who does must call `Screen.suspend`.

    Attributes:
        stop: Ctrl-C or SIGTERM has come.
        suspend: Ctrl-Z has come; the reader sets it back.
    """

    def __init__(self, *, suspend: bool) -> None:
        self.stop = False
        self.suspend = False
        self._names = ["SIGINT", "SIGTERM", *(["SIGTSTP"] if suspend else [])]
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in self._names:
                if hasattr(signal, name):  # Windows has no SIGTSTP
                    number = getattr(signal, name)
                    before = signal.signal(number, self._note) or signal.SIG_DFL
                    self._resources.callback(signal.signal, number, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _note(self, number: int, _: FrameType | None) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True
        else:
            self.suspend = True


@contextlib.contextmanager
def _quiet_keyboard() -> Iterator[None]:
    """Keys are not echoed, which would spoil the screen; Ctrl-C and Ctrl-Z keep their meaning."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    stdin = _own_terminal()
    if stdin is None:
        yield
        return
    before = termios.tcgetattr(stdin)
    quiet = termios.tcgetattr(stdin)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(stdin, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        # What was typed at the view is not meant for the shell.
        termios.tcsetattr(stdin, termios.TCSAFLUSH, before)


def _own_terminal() -> int | None:
    """Descriptor of standard input if it is our terminal and we are in its foreground.

    A background job that touched the settings of its terminal would be stopped.
    """
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return None
    stdin = sys.stdin.fileno()
    try:
        return stdin if os.tcgetpgrp(stdin) == os.getpgrp() else None
    except OSError:  # a terminal, but not the one that controls us
        return None

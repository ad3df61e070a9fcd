"""`emostream watch`: follow a publisher on a terminal, or as plain lines where there is none."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from rich.console import Console

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Event
from stream.view.layout import frame
from stream.view.look import Look
from stream.view.marks import wrap
from stream.view.plain import PlainLines, summary
from stream.view.screen import Interrupts, Screen
from stream.view.state import Link, ViewState

_POLL_MS: Final = 100.0  # how soon a signal, a new size or `until` is noticed
_REDRAW_S: Final = 0.1
_NOTICE_S: Final = 10.0  # how long a warning stays on the screen
_FINAL_ROWS: Final = 30


def watch(
    client: EmotionClient,
    *,
    console: Console | None = None,
    until: Callable[[ViewState], bool] | None = None,
) -> ViewState:
    """Show what `client` receives until Ctrl-C, SIGTERM or `until`; the last view and a summary remain.

    On a terminal it draws a view of every source on the alternate screen, at most ten times a
    second and only what changed. Anywhere else it writes plain lines without escape codes. A
    publisher that is not there yet, goes away or comes back is waited for and told of.

    Args:
        client: connected or not, to all sources or one; stays open.
        console: where to draw; standard output by default.
        until: asked after every event and ten times a second; once it holds, what has already
            arrived is still shown. `lambda state: state.over` ends when every source has stopped.

    Returns:
        What was received.
    """
    console = console or Console(highlight=False)
    state = ViewState()
    # Not `console.is_terminal`, which FORCE_COLOR makes true of a pipe.
    drawable = console.file.isatty() and not console.is_dumb_terminal
    with Interrupts(suspend=drawable) as interrupts, _Notices() as notices:
        events = _events(client, state, interrupts, until or (lambda _: False))
        if drawable:
            _draw(console, client, state, events, interrupts, notices)
        else:
            _list(console, client, state, events, notices)
    return state


def _events(
    client: EmotionClient,
    state: ViewState,
    interrupts: Interrupts,
    until: Callable[[ViewState], bool],
) -> Iterator[Event | None]:
    """Every new event once `state` has it, None whenever nothing came for a while."""
    ending = False
    while not interrupts.stop:
        ending = ending or until(state)
        try:
            event = client.recv(timeout_ms=0.0 if ending else _POLL_MS)
        except ReceiveTimeout:
            if ending:
                return
            yield None
        else:
            if state.update(event):
                yield event


def _draw(
    console: Console,
    client: EmotionClient,
    state: ViewState,
    events: Iterator[Event | None],
    interrupts: Interrupts,
    notices: _Notices,
) -> None:
    look = Look.of(console)
    drawn_s, drawn = 0.0, None
    link = _link(client, notices)
    fresh = True
    with Screen(console) as screen:
        for event in events:
            if interrupts.suspend:
                interrupts.suspend = False
                screen.suspend()
                fresh = True
            fresh = fresh or event is not None
            now_s = time.monotonic()
            if now_s - drawn_s < _REDRAW_S:
                continue
            link, size = _link(client, notices), console.size
            if fresh or (link, size) != drawn:
                screen.paint(frame(state, link, look, size.width, size.height))
                drawn_s, drawn, fresh = now_s, (link, size), False
    lines = []
    for view in state.sources.values():
        first, *more = wrap(summary(view, look), max(8, console.width - 2))
        lines += [first, *(f"  {row}" for row in more)]
    rows = min(_FINAL_ROWS, console.height - len(lines) - 2)
    final = frame(state, link, look, console.width, max(rows, 1), footer=False)
    while final and not final[-1].plain.strip():
        final.pop()
    for text in final:
        console.print(text, no_wrap=True, crop=False, overflow="ignore", end="\n")
    for line in lines:
        console.print(line, markup=False, highlight=False, no_wrap=True)


def _list(
    console: Console,
    client: EmotionClient,
    state: ViewState,
    events: Iterator[Event | None],
    notices: _Notices,
) -> None:
    look = Look.of(console)
    lines = PlainLines(console.file, look)  # type: ignore[arg-type]
    waiting = False
    try:
        for event in events:
            if not waiting and not client.stats.connections:
                waiting = True
                lines.notice(f"waiting for a publisher on {client.endpoint}")
            for text in notices.take():
                lines.notice(text)
            if event is not None:
                lines.event(event)
        for view in state.sources.values():
            lines.line(summary(view, look))
    except BrokenPipeError:
        # The reader, `head` for one, has had enough. Python would complain again on exit.
        if console.file is sys.stdout:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _link(client: EmotionClient, notices: _Notices) -> Link:
    return Link(
        endpoint=client.endpoint,
        source=client.source,
        connected=client.stats.connected,
        connections=client.stats.connections,
        silent_s={name: int(age_s) for name, age_s in client.stale_sources().items()},
        notice=notices.newest(),
    )


class _Notices(logging.Handler):
    """Keeps the warnings of this package, which would spoil the screen, to be shown as part of it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []
        self._at_s = 0.0
        self._logger = logging.getLogger("stream")

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())
        self._at_s = time.monotonic()

    def newest(self) -> str:
        """The newest warning while it is fresh, else an empty string."""
        if self._texts and time.monotonic() - self._at_s < _NOTICE_S:
            return self._texts[-1]
        self._texts.clear()
        return ""

    def take(self) -> list[str]:
        """All warnings since the last call."""
        texts, self._texts = self._texts, []
        return texts

    def __enter__(self) -> Self:
        self._propagate = self._logger.propagate
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagate

"""Recordings: one JSON message a line, exactly as published; written, replayed, turned into CSV."""

from __future__ import annotations

import csv
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

import msgspec

from emostream.errors import ConfigError, EmostreamError
from stream.pubsub.messages import Event, Label, MessageError, Status, decode_payload, encode
from stream.pubsub.publisher import Publisher

_BOX = ("left", "top", "width", "height")
# Columns of what may be null as a whole.
_PARTS: dict[str, Any] = {
    "face": {"box": dict.fromkeys(_BOX), "confidence": None, "track": None},
    "absent": {"video": None, "audio": None},
}
_MAX_LINE_BYTES = 4 << 20  # above the largest message that a client receives
_LINE_START = b'{"version":'
REPLAY = "replay-"
"""Beginning of a replay's session name, by which subscribers can tell it from a live stream."""
_log = logging.getLogger(__name__)


class RecordingError(EmostreamError):
    """A recording cannot be written, or is none."""


class Recorder:
    """Appends events to a JSONL file, each line whole whatever happens; a context manager.

    A line reaches the operating system before `write` returns, so that a crash of this process
    loses nothing. A line that another crash has torn is removed before anything is appended, and a
    line that a full disk has cut short is removed at once.

    Args:
        path: the file, created or continued.

    Raises:
        RecordingError: the file cannot be opened, or holds something other than a recording.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.messages = 0
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise RecordingError(f"cannot record to {path}: {error.strerror}") from error
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._mend()
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, event: Event) -> None:
        """Append one event.

        Raises:
            RecordingError: the disk is full or fails; the file ends with the last whole line.
        """
        line = encode(event)[1] + b"\n"
        whole_bytes = os.fstat(self._fd).st_size
        try:
            written = 0
            while written < len(line):  # a disk that fills up takes a part first
                written += os.write(self._fd, line[written:])
        except OSError as error:
            with suppress(OSError):  # what is left over then, the next recorder mends
                os.ftruncate(self._fd, whole_bytes)
            raise RecordingError(
                f"cannot record to {self.path}: {error.strerror}; the {self.messages} messages "
                "before are whole. Free some space and record again: the file will be continued"
            ) from error
        self.messages += 1

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _mend(self) -> None:
        """Remove a torn last line; refuse a file that is no recording before touching it."""
        with open(self.path, "rb") as file:
            first = file.readline(_MAX_LINE_BYTES)
            size_bytes = os.fstat(self._fd).st_size
            file.seek(max(0, size_bytes - _MAX_LINE_BYTES))
            tail = file.read().rpartition(b"\n")[2]
        if first.endswith(b"\n"):
            _parse(first, f"{self.path}:1")
        elif first[: len(_LINE_START)] != _LINE_START[: len(first)]:
            raise RecordingError(f"{self.path} is no recording; choose another file")
        if not tail:
            return
        try:
            decode_payload(tail)
        except MessageError:
            os.ftruncate(self._fd, size_bytes - len(tail))
            _log.warning("%s: removed a torn last line of %d bytes", self.path, len(tail))
        else:
            os.write(self._fd, b"\n")


def record(events: Iterable[Event], path: str | os.PathLike[str]) -> int:
    """Append every event to `path` until they end; returns how many were written.

    Raises:
        RecordingError: the file cannot be written, or holds something other than a recording.
    """
    with Recorder(path) as recorder:
        for event in events:
            recorder.write(event)
        return recorder.messages


def read(path: str | os.PathLike[str]) -> Iterator[Event]:
    """Events of a recording in order, read as they are asked for. A torn last line is passed over.

    Raises:
        RecordingError: the file cannot be read, or a line (named by number) is no message.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                try:
                    yield decode_payload(line)
                except MessageError:
                    _log.warning("%s:%d: passed over a torn last line", path, number)
                return
            yield _parse(line, f"{path}:{number}")


def replay(
    path: str | os.PathLike[str],
    publisher: Publisher,
    *,
    speed: float = 1.0,
    max_pause_s: float = 10.0,
    stop: threading.Event | None = None,
) -> int:
    """Publish a recording at the pace at which it was published; returns the messages sent.

    Each message is a new transmission: the publisher gives it its own session, seq and time of
    publication, or subscribers would take it for a duplicate and the recorder's losses for their
    own. Everything else, `timestamp_s`, `unix_time_s` and `latency_ms` included, stays as recorded,
    since it tells of the moment that was recorded. Every source ends with a status `stopped`, also
    when an exception ends the replay.

    Args:
        path: the recording.
        publisher: where to publish; `replay_session` makes a session name that says so.
        speed: 2 is twice as fast; `math.inf` never waits.
        max_pause_s: longer pauses, as between two sessions in one file, are cut to this.
        stop: ends the replay early when set, from another thread or a signal handler.

    Raises:
        ConfigError: `speed` or `max_pause_s` is not positive.
        RecordingError: the file cannot be read or has a line that is no message.
    """
    if not speed > 0 or not max_pause_s >= 0:
        raise ConfigError(
            f"replay: speed must be above 0 and max_pause_s at least 0; got {speed}, {max_pause_s}"
        )
    stop = stop or threading.Event()
    running: dict[str, Event] = {}
    sent = 0
    due_s = time.monotonic()  # advanced by the pauses alone, so that sending causes no drift
    try:
        for pause_s, event in with_pauses(read(path), max_pause_s):
            due_s += pause_s / speed
            if stop.wait(max(0.0, due_s - time.monotonic())):
                break
            # Before it is published: an interrupt may come as soon as a subscriber has it.
            running[event.source] = event
            publisher.publish(event)
            sent += 1
            if isinstance(event, Status) and event.state == "stopped":
                del running[event.source]
    finally:
        for source, last in running.items():
            publisher.publish(
                Status(
                    source=source,
                    timestamp_s=last.timestamp_s,
                    unix_time_s=last.unix_time_s,
                    state="stopped",
                    detail="end of the replay",
                    fps_in=0.0,
                    hops_per_s=0.0,
                    skipped=0,
                    restarts=0,
                    uptime_s=0.0,
                )
            )
    return sent


def replay_session() -> str:
    """A name for the session of a replay."""
    return f"{REPLAY}{uuid.uuid4().hex}"


def with_pauses(events: Iterable[Event], max_pause_s: float) -> Iterator[tuple[float, Event]]:
    """Each event with the seconds to wait before it, from the recorded times of publication.

    A clock that was set back gives no pause, one that was set forward at most `max_pause_s`.
    """
    before_s: float | None = None
    for event in events:
        pause_s = 0.0 if before_s is None else event.published_s - before_s
        before_s = event.published_s
        yield min(max(pause_s, 0.0), max_pause_s), event


def write_table(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write the label messages of a recording as CSV, one row each; returns the rows.

    Nested fields become columns joined by `_` (`window_id`, `latency_ms_total`, `scores_happy`,
    `smoothed_scores_happy`, `face_box_left`); a score is empty where a session did not know that
    label, and any other field where it is null.

    Raises:
        RecordingError: the recording cannot be read, or the CSV cannot be written.
    """
    names: dict[str, None] = {}
    rows = 0
    for event in read(path):
        if isinstance(event, Label):
            names |= dict.fromkeys(event.scores)
            rows += 1
    if not rows:
        raise RecordingError(f"{path} holds no label messages")
    columns = [f"{kind}_{name}" for kind in ("scores", "smoothed_scores") for name in names]
    # Beside the destination, which an error or a crash on the way leaves as it was.
    partial = Path(f"{os.fspath(out)}.partial")
    labels = (event for event in read(path) if isinstance(event, Label))
    try:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            # As many as counted: a recording may be growing.
            for number, event in enumerate(islice(labels, rows)):
                row = _flat(_whole(msgspec.to_builtins(event)))
                if number == 0:
                    plain = [key for key in row if key not in columns]
                    writer = csv.DictWriter(file, [*plain, *columns], restval="")
                    writer.writeheader()
                writer.writerow(row)
        os.replace(partial, out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RecordingError(f"cannot write {out}: {error.strerror}") from error
    return rows


def _whole(label: dict[str, Any]) -> dict[str, Any]:
    """A label with the same columns whatever it says: parts of what is null, parts of a box by name."""
    if label["face"] is not None:
        box = dict(zip(_BOX, label["face"]["box"], strict=True))
        label["face"] = label["face"] | {"box": box}
    return label | {name: parts for name, parts in _PARTS.items() if label[name] is None}


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            row |= _flat(value, f"{prefix}{name}_")
        else:
            row[prefix + name] = value
    return row


def _parse(line: bytes, where: str) -> Event:
    try:
        return decode_payload(line)
    except MessageError as error:
        raise RecordingError(f"{where} is no message of a recording: {error}") from error

"""People who come and go before a pipeline, for hours: is it said right, are they forgotten, does anything grow?"""

import itertools
import re
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from stream.pubsub.client import EmotionClient, ReceiveTimeout
from stream.pubsub.messages import Event, Label, Reasoning, Status

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.crowd import actors
from tests.media_factory import Video, write_media

#: Seconds, and how many people are there, over and over again.
SCHEDULE = ((8.0, 1), (6.0, 0), (8.0, 2), (6.0, 0))
CYCLE_S = sum(seconds for seconds, _ in SCHEDULE)
#: Who comes must be in the label, and who leaves out of it, so long after.
SAID_WITHIN_S = 1.0
#: A status is of the newest window, which ended up to a hop and its latency ago.
STATUS_LAGS_S = 1.0
SOURCE = "visits"
SIZE = (640, 360)


class Visits:
    """`emostream run --people 2` on such a clip, looped, watched in a thread of its own; a context manager.

    Args:
        folder: For the clip.
        model: Which one judges.
    """

    def __init__(self, folder: Path, model: str) -> None:
        clip = write_media(
            folder / "visits.mp4",
            Video(duration_s=CYCLE_S, fps=10, size=SIZE, picture=_Scenes()),
            None,
        )
        command = [sys.executable, "-P", "-m", "stream.commands.cli", "run", "--people", "2"]
        command += ["--source", f"{SOURCE}={clip}", "--loop", "--bind", "tcp://127.0.0.1:*"]
        command += ["--model", model, "--reason-every-s", "0"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if found := re.search(r"publishing .* on (\S+)", line):
                break
        else:
            raise RuntimeError(f"emostream run ended: {said}")
        self._client = EmotionClient(found[1])
        self._events: list[Event] = []
        self._rss_mb: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
        self._process.terminate()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _watch(self) -> None:
        main, position_s = psutil.Process(self._process.pid), 0.0
        while not self._stop.is_set():
            try:
                event = self._client.recv(timeout_ms=200)
            except ReceiveTimeout:
                continue
            if isinstance(event, Reasoning):
                continue
            self._events.append(event)
            # Two cycles fill what is kept for a while.
            if event.source == SOURCE and event.timestamp_s >= position_s + 10:
                position_s = event.timestamp_s
                if position_s > 2 * CYCLE_S:
                    self._rss_mb.append(main.memory_info().rss / 1e6)

    def result(self) -> dict[str, Any]:
        """Figures so far, and what they must be."""
        counted = [e for e in self._events if e.source == SOURCE and e.people is not None]
        judged = [
            (expected, e)
            for e in counted
            if (expected := expected_people(e.timestamp_s, isinstance(e, Status))) is not None
        ]
        wrong = [f"{e.timestamp_s:.1f} s: {e.people}, not {n}" for n, e in judged if e.people != n]
        tracks: dict[int, set[int]] = {}
        for visit, track in filter(None, map(_whose, self._events)):
            tracks.setdefault(visit, set()).add(track)
        visits = [tracks[visit] for visit in sorted(tracks)]
        new = all(min(after) > max(before) for before, after in itertools.pairwise(visits))
        second = [e for e in self._events if e.source == f"{SOURCE}-p2" and isinstance(e, Status)]
        left = sum(e.state == "stopped" for e in second)
        third = max(1, len(self._rss_mb) // 3)
        first_mb, last_mb = (
            statistics.mean(part) if part else 0.0
            for part in (self._rss_mb[:third], self._rss_mb[-third:])
        )
        return {
            "checks": {
                "people counted right (95 % of messages)": len(wrong) <= 0.05 * len(judged) > 0,
                "who comes again is somebody new": new and len(visits) > 1,
                "the second person's topics end with each visit": left >= len(visits) // 2,
                "memory flat where people come and go": 0 < last_mb <= 1.05 * first_mb,
            },
            "messages": len(judged),
            "wrong": wrong[:20],
            "wrong_messages": len(wrong),
            "visits": len(visits),
            "tracks": max(map(max, visits), default=0),
            "second_person_left": left,
            "rss_mb": {"first_third": round(first_mb, 1), "last_third": round(last_mb, 1)},
        }


def expected_people(time_s: float, status: bool) -> int | None:
    """How many are to be there at a time of the looped clip; None close behind a change."""
    at_s = time_s % CYCLE_S
    since_s = 0.0
    for seconds, people in SCHEDULE:
        if at_s < since_s + seconds:
            late_s = SAID_WITHIN_S + (STATUS_LAGS_S if status else 0.0)
            return people if at_s - since_s >= late_s else None
        since_s += seconds
    return None


def _whose(event: Event) -> tuple[int, int] | None:
    """Number of the visit and the track of whom a label is about; None of anything else."""
    if not isinstance(event, Label) or event.face is None:
        return None
    cycles, at_s = divmod(event.timestamp_s, CYCLE_S)
    # Halves of the cycle begin with a visit each; who is still seen at the end of a pause is of none.
    half_s = CYCLE_S / 2
    return int(2 * cycles + at_s // half_s), event.face.track


class _Scenes:
    """Pictures of the schedule."""

    def __init__(self) -> None:
        self._people = actors((1, 5))

    def __call__(self, number: int, time_s: float, size: tuple[int, int]) -> NDArray[np.uint8]:
        frame = np.full((size[1], size[0], 3), 110, np.uint8)
        since_s, count = 0.0, 0
        for seconds, people in SCHEDULE:
            if since_s <= time_s < since_s + seconds:
                count = people
            since_s += seconds
        for k in range(count):
            picture = self._people[k][number // 5 % 8]
            side = picture.shape[0]
            x = 60 + 300 * k + round(20 * np.sin(time_s))
            frame[80 : 80 + side, x : x + side] = picture
        return frame

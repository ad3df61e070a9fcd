import dataclasses
import fcntl
import io
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from rich.console import Console
from rich.text import Text

from stream.pubsub.client import EmotionClient
from stream.pubsub.messages import Absent, Dropped, Event, Modalities, Smoothed
from stream.pubsub.publisher import Publisher
from stream.view import ViewState, snapshot, watch
from stream.view.layout import frame
from stream.view.lettering import letter
from stream.view.look import Look
from stream.view.marks import areas, initials, strip, wrap
from stream.view.plain import PlainLines
from stream.view.screen import Screen
from stream.view.state import HISTORY_S, Link, SourceView, quantile
from tests.stream.events import LATENCY, events, label, reasoning, scores, stamped, status

LOOPBACK = "tcp://127.0.0.1:*"
LIMIT_S = 60.0
LINK = Link(endpoint="tcp://127.0.0.1:5556")
ESCAPE = "\x1b"


def reduced(*stream: Event, session: str = "s1") -> ViewState:
    """The state after events that are given their numbers in order."""
    state, seqs = ViewState(), dict[str, int]()
    for event in stream:
        seq = seqs[event.topic] = seqs.get(event.topic, -1) + 1
        assert state.update(stamped(event, seq=seq, session=session))
    return state


def hops(source: str, tops: Iterable[str], first: int = 8, step: int = 1) -> list[Event]:
    return [
        label(
            source,
            first + k * step,
            top,
            latency_ms=structs.replace(LATENCY, total=float(k + 1)),
        )
        for k, top in enumerate(tops)
    ]


def shown(
    state: ViewState, width: int, height: int, link: Link = LINK, look: Look | None = None
) -> str:
    rows = frame(state, link, look or Look(), width, height)
    assert len(rows) <= height
    assert all(row.cell_len <= width for row in rows)
    return "\n".join(row.plain for row in rows)


# Who is there

SEEN = {"people": 2, "speech_ratio": 0.5, "absent": Absent(audio="voice unattributed")}


@pytest.mark.parametrize(
    ("people", "video", "audio", "said"),
    [
        (0, "nobody visible", "nobody speaking", "nobody visible, nobody speaking"),
        (0, "nobody visible", None, "nobody visible"),
        (1, "face too small", None, "1 person, face too small"),
        (1, None, "nobody speaking", "1 person, nobody speaking"),
        (3, None, "voice unattributed", "3 people, voice unattributed"),
        (None, None, "nobody speaking", "no picture, nobody speaking"),
    ],
)
def test_who_is_there_is_said(
    people: int | None, video: str | None, audio: str | None, said: str
) -> None:
    absent = Absent(video=video, audio=audio)
    state = reduced(label(people=people, absent=absent, speech_ratio=0.0))
    assert f"there {said} " in shown(state, 100, 24)
    lines = io.StringIO()
    PlainLines(lines, Look()).event(stamped(label(people=people, absent=absent)))
    assert lines.getvalue().endswith(f", {said}\n")


def test_a_person_beyond_the_first_is_named() -> None:
    state = reduced(label("cam0", **SEEN), label("cam0-p2", **SEEN))
    assert "─ cam0-p2 person 2 of cam0 ─" in shown(state, 100, 40)
    # A source that is only called like one, where nobody looks for people.
    assert "person 2" not in shown(reduced(label("cam0-p2")), 100, 24)


def test_a_label_is_no_news_once_nobody_is_there() -> None:
    gone = Absent(video="nobody visible", audio="nobody speaking")
    there = label(people=1, absent=Absent(), speech_ratio=0.5)
    left = status(timestamp_s=6.0, people=0, absent=gone, speech_ratio=0.0)
    state = reduced(there, left)
    view = state.sources["cam0"]
    assert view.away
    assert "there nobody visible, nobody speaking" in shown(state, 100, 24)
    back = label(window_id=14, people=1, absent=Absent(), speech_ratio=0.5)
    assert not reduced(there, left, back).sources["cam0"].away
    # By the voice alone there still is a label.
    heard = structs.replace(left, absent=Absent(video="nobody visible"), speech_ratio=0.5)
    assert not reduced(there, heard).sources["cam0"].away
    many = reduced(*(e for n in range(9) for e in (label(f"s{n}"),)), there, left)
    [row] = [row for row in shown(many, 100, 12).splitlines() if row.startswith("cam0")]
    assert row.split(maxsplit=2)[2] == "nobody visible, nobody speaking"


# Reducing events to a state


def test_labels_make_a_history_with_places_for_windows_that_were_skipped() -> None:
    view = reduced(*hops("cam0", ["happy", "happy"]), *hops("cam0", ["sad"], first=11)).sources[
        "cam0"
    ]
    assert [hop and hop.label for hop in view.slots()] == ["happy", "happy", None, "sad"]
    assert view.counts == {"happy": 2, "sad": 1}
    assert view.held_s == 0.0
    assert view.hop_s == 0.5


def test_a_hop_of_several_steps_leaves_no_gaps() -> None:
    view = reduced(*hops("cam0", ["happy"] * 4, step=3)).sources["cam0"]
    assert [hop and hop.window_id for hop in view.slots()] == [8, 11, 14, 17]
    assert view.hop_s == 1.5
    assert view.held_s == 4.5


def test_history_covers_a_minute_of_the_source_clock() -> None:
    view = reduced(*hops("cam0", ["happy"] * 200)).sources["cam0"]
    assert view.hops[-1].end_s - view.hops[0].end_s < HISTORY_S
    assert len(view.hops) == HISTORY_S / 0.5
    assert len(view.totals_ms) == view.counts.total() == 200
    # The last 120 latencies are 81 to 200 ms; 95 % of 120 are 114.
    assert view.recent_latency_ms(0.95) == 194


def test_quantile_is_the_nearest_rank() -> None:
    assert [quantile([3.0, 1.0, 2.0, 4.0], f) for f in (0, 0.25, 0.5, 0.51, 1)] == [1, 1, 2, 3, 4]


def test_a_file_that_begins_again_begins_a_new_history() -> None:
    view = reduced(*hops("cam0", ["sad"] * 5), *hops("cam0", ["sad"] * 2)).sources["cam0"]
    assert [hop.window_id for hop in view.hops] == [8, 9]
    assert view.held_s == 0.5


def test_replays_change_nothing_and_gaps_in_seq_are_counted() -> None:
    state = ViewState()
    assert state.update(stamped(label(window_id=8), seq=4))
    assert not state.update(stamped(label(window_id=8), seq=4))
    assert state.update(stamped(status(), seq=2))
    assert state.sources["cam0"].lost == 0
    assert state.update(stamped(label(window_id=12), seq=8))
    assert state.sources["cam0"].lost == 3
    assert state.sources["cam0"].counts.total() == 2


def test_a_new_session_begins_anew() -> None:
    state = reduced(*hops("cam0", ["happy"] * 3))
    assert state.update(stamped(label(window_id=8, top="sad"), session="s2"))
    view = state.sources["cam0"]
    assert (view.session, view.counts, view.lost) == ("s2", {"sad": 1}, 0)


def test_answers_are_counted_and_kept_once_they_are_done() -> None:
    writing = reasoning(window_id=9, done=False, answer=None, agrees_with_label=None)
    view = reduced(
        reasoning(window_id=8),
        writing,
        structs.replace(writing, think="The brows"),
        reasoning(window_id=9, answer="sad", agrees_with_label=False),
    ).sources["cam0"]
    assert (view.answers, view.agreements) == (2, 1)
    assert [earlier.window.id for earlier in view.earlier] == [8]
    assert view.reasoning is not None
    assert view.reasoning.answer == "sad"


def test_over_once_every_source_has_stopped() -> None:
    assert not ViewState().over
    state = reduced(status(state="stopped"), status("cam1"))
    assert not state.over
    assert state.update(stamped(status("cam1", state="stopped"), seq=1))
    assert state.over
    assert list(state.sources) == ["cam0", "cam1"]


# Drawing it


@pytest.mark.parametrize(("width", "height"), [(40, 24), (80, 24), (80, 30), (120, 40), (200, 60)])
def test_the_view_shows_what_was_received(width: int, height: int) -> None:
    state = reduced(
        *hops("cam0", ["sad"] * 3),
        label(
            window_id=11,
            top="happy",
            smoothed=Smoothed(label="sad", scores=scores("sad", 0.58)),
            modalities=Modalities(video="ok", audio="degraded"),
            dropped=Dropped(frames=3, audio_ms=40.0, windows=0),
            model="tiny (onnxruntime int8)",
        ),
        reasoning(window_id=10, think="The inner brows are raised.", answer="sad"),
        status(state="degraded", detail="audio degraded", uptime_s=75.0),
    )
    text = shown(state, width, height)
    for wanted in (
        "cam0",
        "tiny (onnxruntime int8)",
        "degraded",
        "58%",  # smoothed
        "70%",  # raw
        "The inner brows are raised.",
        "sad",
        "agrees",
        "63 ms",
        "p95 63",
        "video ok",
        "audio degraded",
        "fps 30.0",
        "hops/s 2.0",
        "tcp://127.0.0.1:5556",
    ):
        assert wanted in text
    if width >= 80:
        assert all(name in text for name in scores())
        assert all(x in text for x in ("3 frames, 40 ms audio", "skew −12 ms", "seq gaps 0"))


def test_how_well_a_voice_is_known_is_said_by_models_that_get_to_know_it() -> None:
    assert "voice known 12 s" in shown(reduced(label(baseline_s=12.4), status()), 80, 24)
    assert "voice known" not in shown(reduced(label(), status()), 80, 24)


def test_large_letters_say_the_smoothed_label() -> None:
    drawn = letter("surprise")
    assert drawn is not None
    text = shown(reduced(*hops("cam0", ["surprise"])), 80, 24)
    assert all(row.strip() in text for row in drawn)
    assert letter("jalousie à deux") is None


def test_reasons_grow_and_their_end_stays_in_sight() -> None:
    think = " ".join(f"word{k}" for k in range(300))
    writing = reasoning(
        think=think, done=False, answer=None, agrees_with_label=None, window_id=8, tokens=300
    )
    text = shown(reduced(label(), writing), 80, 24)
    assert "writing" in text
    assert "word299▌" in text
    assert "word0 " not in text
    text = shown(reduced(label(), reasoning(answer="sad", agrees_with_label=False)), 80, 24)
    assert "sad ✗ the label was happy" in text
    text = shown(reduced(label(), reasoning(answer=None, agrees_with_label=False)), 80, 24)
    assert "no answer" in text
    text = shown(reduced(label(), reasoning(think="")), 80, 24)
    assert "Nothing stands out." in text


def test_before_the_first_label_it_says_what_is_waited_for() -> None:
    state = reduced(status(state="starting", detail="loading tiny, 3 MB"))
    assert "loading tiny, 3 MB" in shown(state, 80, 24)
    assert "loading the model" in shown(reduced(status(state="starting")), 80, 24)
    assert "whole window" in shown(reduced(status()), 80, 24)


def test_a_connection_that_is_missing_or_lost_shows() -> None:
    waiting = dataclasses.replace(LINK, connected=False, connections=0)
    assert "Waiting for a publisher on tcp://127.0.0.1:5556" in shown(ViewState(), 80, 24, waiting)
    lost = dataclasses.replace(LINK, connected=False)
    text = shown(reduced(label()), 80, 24, lost)
    assert "no connection" in text
    assert "lost the connection to tcp://127.0.0.1:5556" in text
    silent = dataclasses.replace(LINK, silent_s={"cam0": 7})
    assert "silent for 7 s" in shown(reduced(label()), 80, 24, silent)
    noticed = dataclasses.replace(LINK, notice="the handshake failed")
    assert "the handshake failed" in shown(ViewState(), 80, 24, noticed)


def test_many_sources_are_all_there_and_too_many_are_counted() -> None:
    names = [f"cam{k}" for k in range(9)]
    state = reduced(*(event for name in names for event in hops(name, ["happy"] * 3)))
    for height in (60, 24, 11):
        text = shown(state, 80, height)
        assert all(name in text for name in names)
        assert "HAPPY" in text
    assert "and 4 more sources" in shown(state, 80, 7)


def test_without_unicode_or_colour_marks_become_letters() -> None:
    state = reduced(*hops("cam0", ["happy", "sad", "surprise"]), reasoning(think="Brows “up” …"))
    ascii_look = Look(colour=False, encoding="ascii")
    text = shown(state, 80, 24, look=ascii_look)
    assert text.isascii()
    assert "hSs" in text  # happy, sad and surprise: S because s is taken
    assert 'Brows "up" ~' in text
    assert "hSs" in shown(state, 80, 24, look=Look(colour=False))


def test_messages_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x9b2J‮\u2028"
    state = reduced(
        label(model=evil),
        reasoning(think=f"brows {evil} up", answer=evil, agrees_with_label=False),
        status(detail=evil, state="degraded"),
    )
    text = shown(state, 80, 30)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "brows ?]0;owned??2J? up" in text


@given(
    st.lists(events, min_size=1, max_size=6),
    st.integers(1, 140),
    st.integers(1, 50),
    st.sampled_from([Look(), Look(colour=False), Look(encoding="latin-1")]),
)
@settings(max_examples=150)
def test_any_events_fit_into_any_terminal(
    received: list[Event], width: int, height: int, look: Look
) -> None:
    state = ViewState()
    for event in received:
        state.update(event)
    text = shown(state, width, height, look=look)
    assert all(c.isprintable() or c == "\n" for c in text)
    text.encode(look.encoding)


def test_strips_and_areas_have_a_cell_for_each_hop_until_they_must_share() -> None:
    colours = {"a": "#ff0000", "b": "#0000ff"}
    assert strip(Look(), ["a", None, "b"], 1, 5, colours).plain == "  █·█"
    assert strip(Look(), ["a", "b", "b", "a", None], 2, 3, colours).plain == "▐▌▌"
    assert strip(Look(), ["a", "b", "a"], 2, 1, colours).plain == "▌"
    assert strip(Look(colour=False), ["a", "b", "b"], 1, 2, colours).plain == "bb"
    rows = areas([{"a": 0.75, "b": 0.25}, None], 1, 3, 2, colours)
    assert [row.plain for row in rows] == [" ▀ ", " ▀ "]
    assert [str(span.style) for row in rows for span in row.spans] == [
        "#ff0000 on #ff0000",
        "#ff0000 on #0000ff",
    ]


def test_initials_are_unique_while_letters_last() -> None:
    assert initials(["sad", "surprise", "sa", "s"]) == {
        "sad": "s",
        "surprise": "u",
        "sa": "a",
        "s": "S",
    }


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60), st.integers(2, 30))
def test_wrapping_keeps_every_character(text: str, width: int) -> None:
    rows = wrap(text, width)
    assert all(Text(row).cell_len <= width for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


# The terminal


def test_the_screen_writes_only_the_rows_that_changed() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=20, height=4, color_system="truecolor")
    with Screen(console) as screen:
        screen.paint([Text("one"), Text("two"), Text("x" * 20)])
        assert "\x1b[?1049h" in file.getvalue()
        before = len(file.getvalue())
        screen.paint([Text("one"), Text("2"), Text("x" * 20)])
        assert file.getvalue()[before:] == "\x1b[2;1H2\x1b[0K"
        before = len(file.getvalue())
        screen.paint([Text("one"), Text("2"), Text("x" * 20)])
        assert file.getvalue()[before:] == ""
        console.size = (30, 4)  # type: ignore[assignment]
        screen.paint([Text("one"), Text("2")])
        assert all(text in file.getvalue()[before:] for text in ("\x1b[2J", "one", "2"))
    assert file.getvalue().endswith("\x1b[?1049l\x1b[?25h")


class Script:
    """`until` of a watch: takes one step after another as soon as each one's condition holds."""

    def __init__(self, *steps: tuple[Callable[[ViewState], bool], Callable[[], object]]) -> None:
        self._steps = list(steps)
        self._deadline_s = time.monotonic() + LIMIT_S

    def __call__(self, state: ViewState) -> bool:
        assert time.monotonic() < self._deadline_s, f"{len(self._steps)} steps are left"
        if self._steps and self._steps[0][0](state):
            self._steps.pop(0)[1]()
        return not self._steps and state.over


def plain_watch(client: EmotionClient, until: Callable[[ViewState], bool]) -> tuple[ViewState, str]:
    file = io.StringIO()
    state = watch(client, console=Console(file=file), until=until)
    return state, file.getvalue()


def seen(state: ViewState) -> bool:
    return bool(state.sources)


def test_piped_it_writes_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Publisher(LOOPBACK) as publisher, EmotionClient(publisher.endpoint) as client:

        def publish() -> None:
            publisher.publish(status())
            publisher.publish(status(uptime_s=5.5))
            publisher.publish(label(modalities=Modalities(video="missing", audio="ok")))
            publisher.publish(reasoning(done=False, answer=None, agrees_with_label=None))
            publisher.publish(reasoning(answer="sad", agrees_with_label=False))
            publisher.publish(reasoning(think=""))
            publisher.publish(status(state="stopped"))

        publisher.publish(status(state="starting", detail="loading tiny"))
        state, text = plain_watch(client, Script((seen, publish)))
    assert ESCAPE not in text
    lines = [re.sub(r"^\d\d:\d\d:\d\d\.\d{3}  ", "", line) for line in text.splitlines()]
    if lines[0].startswith("waiting for a publisher"):
        lines.pop(0)
    assert lines == [
        "cam0  status     starting: loading tiny",
        "cam0  status     live",
        "cam0  label      happy 60%, this window happy 70%, 63 ms, video missing",
        "cam0  reasoning  sad, does not agree with the label: The corners of the mouth rise.",
        "cam0  reasoning  happy, agrees with the label: Nothing stands out.",
        "cam0  status     stopped",
        "cam0: 1 labels, happy 100%. 1 of 2 reasoned answers agree with their label. "
        "Latency 63 ms (median), 63 ms (95th percentile). Lost: 1 frames, 20 ms of audio.",
    ]
    assert state.over


def test_a_lost_publisher_is_told_of_and_its_successor_followed() -> None:
    publishers = [Publisher(LOOPBACK, session="first")]
    try:
        with EmotionClient(publishers[0].endpoint) as client:

            def succeed() -> None:
                publishers.append(Publisher(client.endpoint, session="second"))
                publishers[1].publish(label(top="sad"))

            def end() -> None:
                publishers[1].publish(status(state="stopped"))

            publishers[0].publish(label())
            script = Script(
                (seen, publishers[0].close),
                (lambda _: not client.stats.connected, succeed),
                (lambda state: state.sources["cam0"].session == "second", end),
            )
            _, text = plain_watch(client, script)
    finally:
        for publisher in publishers:
            publisher.close()
    order = ["label      happy", "lost the connection", "reconnected", "label      sad", "stopped"]
    places = [text.find(part) for part in order]
    assert -1 not in places
    assert places == sorted(places)


WATCH = """
import os, sys
if os.isatty(0):
    os.close(os.open(os.ttyname(0), os.O_RDWR))  # a session leader's first terminal controls it
from stream.pubsub.client import EmotionClient
from stream.view import watch
with EmotionClient(sys.argv[1]) as client:
    watch(client)
"""


class Terminal:
    """`watch` in a process of its own on a pseudo-terminal of 80 x 24."""

    def __init__(self, endpoint: str, **environment: str) -> None:
        self._master, slave = os.openpty()
        self.resize(80, 24)
        env = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCH, endpoint],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=env,
        )
        os.close(slave)
        self.text = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read_until(self, *parts: str) -> None:
        """Read until each part has been written, or with none, until the end."""
        deadline_s = time.monotonic() + LIMIT_S
        while not parts or not all(part in self.text for part in parts):
            left_s = deadline_s - time.monotonic()
            assert select.select([self._master], [], [], left_s)[0], f"no {parts} in {self.text!r}"
            try:
                read = os.read(self._master, 1 << 16)
            except OSError:  # Linux: the other end is closed
                read = b""
            if not read:
                assert not parts, f"ended without {parts}: {self.text!r}"
                return
            self.text += read.decode(errors="replace")


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
def test_on_a_terminal_it_draws_and_ends_cleanly(end: str) -> None:
    with Publisher(LOOPBACK) as publisher, Terminal(publisher.endpoint) as terminal:
        publisher.publish(status())
        publisher.publish(label(model="tiny (onnxruntime int8)"))
        publisher.publish(reasoning())
        terminal.read_until("tiny (onnxruntime int8)", "The corners of the mouth rise.", "fps")
        assert terminal.text.index("\x1b[?1049h") < terminal.text.index("tiny (onnxruntime int8)")
        assert "\x1b[?1049l" not in terminal.text
        assert "38;2;" in terminal.text
        assert not terminal.echoes
        terminal.resize(60, 20)
        terminal.read_until("\x1b[2J")
        if end == "Ctrl-C":
            terminal.type(b"\x03")
        else:
            terminal.process.send_signal(signal.SIGTERM)
        terminal.read_until()
        assert terminal.process.wait(LIMIT_S) == 0
        assert terminal.echoes
    _, left, rest = terminal.text.partition("\x1b[?1049l")
    assert left
    assert "\x1b[?25h" in rest  # the cursor is back
    for remains in ("cam0", "The corners of the mouth rise.", "cam0: 1 labels, happy 100%."):
        assert remains in rest
    assert "Traceback" not in terminal.text


def test_ctrl_z_gives_the_terminal_back_until_it_is_continued() -> None:
    with Publisher(LOOPBACK) as publisher, Terminal(publisher.endpoint) as terminal:
        publisher.publish(label())
        terminal.read_until("happy", "Ctrl-C ends")
        # Nobody could continue a process group without a parent: the kernel does not stop it.
        terminal.type(b"\x1a")
        terminal.read_until("\x1b[?1049l")
        terminal.text = terminal.text.partition("\x1b[?1049l")[2]
        terminal.read_until("\x1b[?1049h", "happy", "Ctrl-C ends")
        terminal.type(b"\x03")
        terminal.read_until()
        assert terminal.process.wait(LIMIT_S) == 0
        assert terminal.echoes


def test_no_color_is_honoured_on_a_terminal() -> None:
    with Publisher(LOOPBACK) as publisher, Terminal(publisher.endpoint, NO_COLOR="1") as terminal:
        publisher.publish(label())
        terminal.read_until("happy", "Ctrl-C ends")
        terminal.type(b"\x03")
        terminal.read_until()
        assert terminal.process.wait(LIMIT_S) == 0
    codes = {c for sgr in re.findall("\x1b\\[([0-9;]*)m", terminal.text) for c in sgr.split(";")}
    assert codes <= {"0", "1", "2", ""}  # bold and dim only


def test_a_reader_that_has_had_enough_ends_it_quietly() -> None:
    with Publisher(LOOPBACK) as publisher:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCH, publisher.endpoint],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Without a buffer nothing would be left over to complain about.
            env={name: x for name, x in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            publisher.publish(label())
            process.stdout.readline()
            process.stdout.close()
            deadline_s = time.monotonic() + LIMIT_S
            window_id = 9
            while process.poll() is None:
                assert time.monotonic() < deadline_s
                publisher.publish(label(window_id=window_id))
                window_id += 1
                select.select([process.stderr], [], [], 0.05)
            assert process.stderr.read() == b""
            assert process.returncode == 0


# The picture


def test_the_picture_is_an_svg_of_the_view(tmp_path: Path) -> None:
    stream: list[Any] = [
        stamped(event, seq=k)
        for k, event in enumerate(
            [*hops("cam0", ["happy", "sad"]), label(window_id=10, model="<&>")]
        )
    ]
    stream += [stamped(reasoning()), stamped(status())]
    snapshot(stream, tmp_path / "a.svg", width=90)
    snapshot(iter(stream), tmp_path / "b.svg", width=90)
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    root = xml.etree.ElementTree.fromstring(text)
    words = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    for wanted in ("cam0", "<&>", "surprise", "The corners of the mouth rise.", "60%", "63 ms"):
        assert any(wanted in word for word in words), wanted
    width = float(root.attrib["viewBox"].split()[2])
    for element in root.iter():
        if element.tag.endswith("rect"):
            assert float(element.get("x", 0)) + float(element.attrib["width"]) <= width
    assert not re.search(r"[█▀▄▌▐│─]", "".join(words))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_an_empty_view_says_so() -> None:
    assert "No events" in "\n".join(row.plain for row in frame(ViewState(), None, Look(), 40, 5))
    assert SourceView(name="cam0", session="s").slots() == []

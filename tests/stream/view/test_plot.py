import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from msgspec import structs
from numpy.typing import NDArray

from emostream.errors import ConfigError
from stream.pubsub import recording
from stream.pubsub.messages import Absent, Event, Label, Modalities, Reasoning
from stream.pubsub.recording import RecordingError
from stream.view.figure import STYLE, Track, draw, wrap
from stream.view.palette import COLOURS, colours
from stream.view.plot import choose_reasons, load_tracks, plot
from tests.stream.events import LABELS, label, reasoning, stamped, status

THINK = "The corners of the mouth rise, for $5 and 100% of the cues_in^this clip. " * 4


def session(source: str = "cam0") -> list[Event]:
    """A minute: happy, then sad with a gap of five windows, then neutral; reasons every 5 s."""
    tops = ["happy"] * 40 + ["sad"] * 45 + ["neutral"] * 40
    kept = [k for k in range(len(tops)) if not 60 <= k < 65]
    events: list[Event] = [stamped(status(source))]
    for seq, k in enumerate(kept):
        modalities = Modalities(
            video="degraded" if 10 <= k < 14 else "ok",
            audio="missing" if 70 <= k < 80 else "ok",
        )
        events.append(
            stamped(label(source, window_id=8 + k, top=tops[k], modalities=modalities), seq)
        )
        if k % 10 == 5:
            events.append(
                stamped(reasoning(source, window_id=8 + k, think=THINK, answer=tops[k]), seq)
            )
    return events


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recording.record(session(), tmp_path / "a.jsonl")
    return tmp_path / "a.jsonl"


def figure_of(path: Path, reasons: int = 4) -> Figure:
    tracks = [(track, choose_reasons(track, reasons)) for track in load_tracks(path)]
    with matplotlib.rc_context(STYLE):
        figure = draw(tracks)
        figure.canvas.draw()
    return figure


def rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255


def test_png_shows_every_score_in_its_colour(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    plot(path, out, dpi=100)
    pixels = imread(out)[..., :3]
    assert pixels.shape[1] == 720
    shares = {
        name: float((np.abs(pixels - rgb(COLOURS[name])).max(axis=-1) < 0.01).mean())
        for name in LABELS
    }
    assert min(shares.values()) > 0.002, shares
    assert shares["happy"] > 3 * shares["fear"]


def test_svg_keeps_text_and_is_the_same_every_time(path: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    plot(path, first)
    plot(path, second)
    assert first.read_bytes() == second.read_bytes()
    words = " ".join(ElementTree.parse(first).getroot().itertext())
    for word in ("cam0", "probability", "time (s)", "degraded", "missing", "$5 and 100%", *LABELS):
        assert word in words


def test_pdf(path: Path, tmp_path: Path) -> None:
    plot(path, tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("reasons", [0, 1, 2, 4, 6])
def test_no_text_overlaps_another_or_leaves_the_page(path: Path, reasons: int) -> None:
    figure = figure_of(path, reasons)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip()
    ]
    assert sum(word.startswith("The corners") for word, _ in boxes) == reasons
    page = figure.bbox
    for word, box in boxes:
        assert box.x0 >= page.x0, word
        assert box.x1 <= page.x1, word
        assert box.y0 >= page.y0, word
        assert box.y1 <= page.y1, word
    for (word, box), (other_word, other) in itertools.combinations(boxes, 2):
        width = min(box.x1, other.x1) - max(box.x0, other.x0)
        height = min(box.y1, other.y1) - max(box.y0, other.y0)
        assert min(width, height) < 1, (word, other_word)


def test_gaps_stay_empty_and_changes_are_marked(path: Path) -> None:
    figure = figure_of(path)
    strip, areas, health = figure.axes
    # Two runs of seven areas; each run starts a step before its first label.
    assert len(areas.collections) == 2 * len(LABELS)
    spans = [area.get_paths()[0].get_extents() for area in areas.collections]
    assert {(span.x0, span.x1) for span in spans} == {(3.5, 33.5), (36.0, 66.0)}
    assert [line.get_xdata()[0] for line in areas.lines] == [23.5, 46.0]  # type: ignore[index]
    assert [text.get_text() for text in strip.texts] == ["happy", "sad", "sad", "neutral"]
    assert areas.get_xlim() == strip.get_xlim() == health.get_xlim() == (3.5, 66.0)


def test_stretches_with_nobody_are_shaded(tmp_path: Path) -> None:
    absent = Absent(video="nobody visible")
    seen = [label(window_id=k, people=1) for k in (8, 9, 10)]
    # Nobody is visible but somebody speaks, then nothing but the status tells of it, then somebody comes.
    seen += [label(window_id=k, people=0, absent=absent) for k in (11, 12)]
    quiet = [status(timestamp_s=t, people=0, absent=absent) for t in (6.7, 7.7)]
    back = [label(window_id=k, people=1) for k in (17, 18)]
    with recording.Recorder(tmp_path / "r.jsonl") as recorder:
        for seq, event in enumerate([*seen, *quiet, *back]):
            recorder.write(stamped(event, seq=seq))
    [track] = load_tracks(tmp_path / "r.jsonl")
    assert track.nobody == [(5.0, 7.7)]
    figure = draw([(track, [])])
    for axes in figure.axes[:2]:
        shades = [p for p in axes.patches if p.get_hatch()]
        assert [(p.get_x(), p.get_x() + p.get_width()) for p in shades] == [(5.0, 7.7)]
    assert "nobody" in [t.get_text() for t in figure.axes[2].get_legend().get_texts()]


def test_the_top_of_the_stack_is_one(path: Path) -> None:
    _, areas, _ = figure_of(path).axes
    tops = [area.get_paths()[0].get_extents().y1 for area in areas.collections]
    assert max(tops) == pytest.approx(1.0)


def test_sources_and_sessions_have_blocks_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    recording.record([*session("cam0"), *session("cam1"), stamped(label(), 0, "other")], path)
    assert [(t.source, t.session) for t in load_tracks(path)] == [
        ("cam0", "s1"),
        ("cam1", "s1"),
        ("cam0", "other"),
    ]
    assert [t.source for t in load_tracks(path, "cam1")] == ["cam1"]
    figure = figure_of(path)
    assert len(figure.axes) == 9
    plot(path, tmp_path / "a.png", source="cam1", dpi=50)
    with pytest.raises(RecordingError, match="no label messages of source 'cam7'"):
        plot(path, tmp_path / "b.png", source="cam7")


def test_one_label_is_enough(tmp_path: Path) -> None:
    recording.record([stamped(label()), stamped(reasoning())], tmp_path / "a.jsonl")
    plot(tmp_path / "a.jsonl", tmp_path / "a.png", dpi=50)


def test_hours_of_flicker_can_be_drawn(tmp_path: Path) -> None:
    events: list[Event] = [
        stamped(label(window_id=8 + k, top=LABELS[k // 3 % 7]), k) for k in range(3000)
    ]
    recording.record(events, tmp_path / "a.jsonl")
    plot(tmp_path / "a.jsonl", tmp_path / "a.png", dpi=50)


def track(labels: Sequence[Label], reasonings: Sequence[Reasoning]) -> Track:
    return Track("cam0", "s1", labels, reasonings)


def test_reasons_at_label_changes_come_first() -> None:
    tops = ["happy"] * 20 + ["sad"] * 20
    labels = [label(window_id=8 + k, top=top) for k, top in enumerate(tops)]
    reasonings = [reasoning(window_id=8 + k) for k in (0, 2, 4, 24, 38)]
    chosen = choose_reasons(track(labels, reasonings), 1)
    assert [r.window.id for r in chosen] == [32]
    chosen = choose_reasons(track(labels, reasonings), 3)
    assert [r.window.id for r in chosen] == [8, 32, 46]
    assert choose_reasons(track(labels, reasonings), 9) == reasonings
    assert choose_reasons(track(labels, reasonings), 0) == []


def test_wrap_keeps_every_word_within_the_width() -> None:
    words = "one two three four " + "long" * 10
    lines = wrap(words, 10, len, 99)
    assert max(map(len, lines)) <= 10
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")
    assert wrap(words, 10, len, 2) == ["one two", "three …"]
    assert wrap("", 10, len, 2) == [""]


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour: str, vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of an sRGB colour as seen with some vision."""
    c = rgb(colour)
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = RGB_TO_XYZ @ np.clip(vision @ linear, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_colour_blind_readers(vision: str) -> None:
    """CIE76 difference, of which 2.3 is just noticeable side by side."""
    seen = {name: lab(colour, VISION[vision]) for name, colour in COLOURS.items()}
    for a, b in itertools.combinations(COLOURS, 2):
        least = 25 if {a, b} <= set(LABELS) else 12
        assert np.linalg.norm(seen[a] - seen[b]) > least, (a, b)


def test_each_label_has_one_colour() -> None:
    assert colours(["sad", "happy"]) == {"sad": COLOURS["sad"], "happy": COLOURS["happy"]}
    more = colours(["zeal", "sad", "awe", "zeal"])
    assert list(more) == ["zeal", "sad", "awe"]
    assert len(set(more.values())) == 3
    assert more == {name: colours(["awe", "zeal", "sad"])[name] for name in more}


def test_errors_say_what_to_do(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png, \.svg, \.pdf"):
        plot(path, tmp_path / "a.gif")
    with pytest.raises(RecordingError, match="cannot write"):
        plot(path, tmp_path / "no" / "a.png")
    recording.record([structs.replace(session()[0])], tmp_path / "b.jsonl")
    with pytest.raises(RecordingError, match="no label messages"):
        plot(tmp_path / "b.jsonl", tmp_path / "a.png")


def test_without_matplotlib_the_remedy_is_named(path: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["matplotlib"] = None
from emostream.errors import ConfigError
from stream.view.plot import plot
try:
    plot({str(path)!r}, {str(tmp_path / "a.png")!r})
except ConfigError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install matplotlib" in run.stdout

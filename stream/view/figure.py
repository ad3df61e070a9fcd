"""Labels and reasons over time as a matplotlib figure for print. Positions are inches from its lower left corner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby, pairwise
from typing import TYPE_CHECKING, Any

from stream.pubsub.messages import Label, Reasoning
from stream.view.palette import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 7.2  # a page of two columns
_LEFT_IN, _PLOT_IN, _EDGE_IN = 0.62, 5.72, 0.12
_TITLE_IN, _STRIP_IN, _AREAS_IN, _HEALTH_IN, _AXIS_IN, _GAP_IN = 0.30, 0.16, 1.75, 0.26, 0.44, 0.05
_NOTE_PT, _NOTE_LINES, _NOTE_GAP_IN, _NOTE_PAD_IN, _LEADER_IN = 6.3, 13, 0.10, 0.05, 0.34
_LINE_IN = _NOTE_PT * 1.28 / 72
_INK, _FAINT = "#22262A", "#8A9096"
_HEALTH: dict[str, dict[str, Any]] = {
    "ok": {"facecolor": "#DCE3E8"},
    "degraded": {"facecolor": "#F0B860", "edgecolor": "#8A5A00", "hatch": "////"},
    "missing": {"facecolor": "#33383D"},
}
_NOBODY: dict[str, Any] = {
    "facecolor": (0.87, 0.88, 0.9, 0.45),
    "edgecolor": (0.35, 0.38, 0.42, 0.6),
    "hatch": "..",
    "linewidth": 0,
}
_LEGEND = {
    "loc": "upper left",
    "bbox_to_anchor": (1.015, 1.0),
    "frameon": False,
    "handlelength": 0.9,
    "handleheight": 0.9,
    "handletextpad": 0.5,
    "borderaxespad": 0,
    "borderpad": 0,
}
STYLE = {
    "font.size": 7.5,
    "font.family": "sans-serif",
    "axes.linewidth": 0.6,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "emostream",
    "pdf.fonttype": 42,
    # Explanations are prose: a dollar sign in them is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Track:
    """The labels and finished reasonings of one source in one session, in order of time."""

    source: str
    session: str
    labels: Sequence[Label]
    reasonings: Sequence[Reasoning]
    nobody: Sequence[tuple[float, float]] = ()
    """Stretches with nobody visible, source clock."""

    def time_s(self, event: Label | Reasoning) -> float:
        """When on the figure, whose time 0 is the start of the first window."""
        return event.timestamp_s - self.labels[0].window.start_s

    @property
    def step_s(self) -> float:
        """The usual time between two labels, seconds; the step before each label belongs to it."""
        steps = sorted(b.timestamp_s - a.timestamp_s for a, b in pairwise(self.labels))
        return steps[len(steps) // 2] if steps else 0.5

    def unbroken(self) -> list[list[Label]]:
        """Runs of labels without a missing window between them."""
        step_s = self.step_s
        runs = [[self.labels[0]]]
        for before, label in pairwise(self.labels):
            if label.timestamp_s - before.timestamp_s > 1.5 * step_s:
                runs.append([])
            runs[-1].append(label)
        return runs

    def spans(self, value_of: Callable[[Label], str]) -> Iterator[tuple[float, float, str]]:
        """(start_s, end_s, value) of each stretch over which the value stays and no window is missing."""
        for run in self.unbroken():
            for value, group in groupby(run, key=value_of):
                labels = list(group)
                yield self.time_s(labels[0]) - self.step_s, self.time_s(labels[-1]), value


def draw(tracks: Sequence[tuple[Track, Sequence[Reasoning]]]) -> Figure:
    """The figure of some tracks with the reasons to show, one block below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 1.0))
    FigureCanvasAgg(figure)
    palette = colours(name for track, _ in tracks for x in track.labels for name in x.scores)
    texts = [_wrapped_notes(figure, reasons) for _, reasons in tracks]
    body_in = _TITLE_IN + _STRIP_IN + _AREAS_IN + _HEALTH_IN + 2 * _GAP_IN + _AXIS_IN
    heights_in = [body_in + max(map(_note_height_in, notes), default=0.0) for notes in texts]
    figure.set_size_inches(WIDTH_IN, sum(heights_in))
    top_in = sum(heights_in)
    for (track, reasons), notes, height_in in zip(tracks, texts, heights_in, strict=True):
        strip_top_in = top_in - height_in + body_in - _TITLE_IN
        areas_top_in = strip_top_in - _STRIP_IN - _GAP_IN
        strip = _axes(figure, strip_top_in, _STRIP_IN)
        areas = _axes(figure, areas_top_in, _AREAS_IN)
        health = _axes(figure, areas_top_in - _AREAS_IN - _GAP_IN, _HEALTH_IN)
        first_s, last_s = (
            track.time_s(track.labels[0]) - track.step_s,
            track.time_s(track.labels[-1]),
        )
        for axes in (strip, areas, health):
            axes.set_xlim(first_s, last_s)
        title = f"{track.labels[-1].model} · {len(track.labels)} windows · {last_s:.0f} s"
        _text(figure, _LEFT_IN, top_in - 0.17, track.source, weight="bold", size=8.5)
        _text(figure, WIDTH_IN - _EDGE_IN, top_in - 0.17, title, ha="right", color=_FAINT, size=6.5)
        _draw_scores(areas, track, palette)
        zero_s = track.labels[0].window.start_s
        for start_s, end_s in track.nobody:
            for axes in (strip, areas):
                axes.axvspan(start_s - zero_s, end_s - zero_s, zorder=2.5, **_NOBODY)
        _draw_smoothed(figure, strip, areas, track, palette)
        _draw_health(health, track)
        times = [track.time_s(reason) for reason in reasons]
        places_in = [_LEFT_IN + _PLOT_IN * (t - first_s) / (last_s - first_s) for t in times]
        heads = [
            (f"{t:.1f} s", r.answer or "no answer") for t, r in zip(times, reasons, strict=True)
        ]
        _draw_notes(figure, strip_top_in, places_in, heads, notes, palette)
        top_in -= height_in
    return figure


def _draw_scores(axes: Axes, track: Track, palette: dict[str, str]) -> None:
    """Stacked scores; gaps stay white."""
    names = [name for name in palette if any(name in label.scores for label in track.labels)]
    for run in track.unbroken():
        times_s = [track.time_s(run[0]) - track.step_s, *map(track.time_s, run)]
        axes.stackplot(
            times_s,
            [[label.scores.get(name, 0.0) for label in (run[0], *run)] for name in names],
            colors=[palette[name] for name in names],
            edgecolor="white",
            # White seams between windows closer than a pixel would be all that is seen.
            linewidth=0.35 if len(track.labels) < 90 * _PLOT_IN else 0,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_ylabel("probability")
    axes.tick_params(labelbottom=False)
    axes.spines[["top", "right"]].set_visible(False)
    few = len(names) <= 8
    # In the order of the stack, top down.
    handles = [_patch(name, facecolor=palette[name]) for name in reversed(names)]
    space, size = (0.35, 6.5) if few else (0.1, 5.5)
    axes.legend(handles=handles, **_LEGEND, labelspacing=space, fontsize=size)


def _draw_smoothed(
    figure: Figure, strip: Axes, areas: Axes, track: Track, palette: dict[str, str]
) -> None:
    """The smoothed label, named where the name fits, its changes drawn through the areas."""
    spans = list(track.spans(lambda label: label.smoothed.label))
    inch_s = (strip.get_xlim()[1] - strip.get_xlim()[0]) / _PLOT_IN
    line_pt = 0.7 if sum(a[2] != b[2] for a, b in pairwise(spans)) <= 30 else 0.25
    for before, (start_s, end_s, name) in zip([None, *spans], spans, strict=False):
        strip.axvspan(start_s, end_s, color=palette[name], linewidth=0)
        if _width_in(figure, name, 6.5) + 0.06 < (end_s - start_s) / inch_s:
            middle_s, ink = (start_s + end_s) / 2, _readable_on(palette[name])
            strip.text(middle_s, 0.45, name, ha="center", va="center", size=6.5, color=ink)
        if before and before[2] != name:
            areas.axvline(start_s, color=_INK, linewidth=line_pt, linestyle=(0, (3, 2)))
            strip.axvline(start_s, color=_INK, linewidth=line_pt)
    strip.set_ylim(0, 1)
    strip.set_ylabel("smoothed", rotation=0, ha="right", va="center", size=6.5)
    strip.set(xticks=[], yticks=[])
    strip.spines[:].set_visible(False)


def _draw_health(axes: Axes, track: Track) -> None:
    """Whether picture and sound were there."""
    seen = set()
    for row, modality in enumerate(("audio", "video")):
        for start_s, end_s, state in track.spans(partial(_presence, modality)):
            seen.add(state)
            span = [(start_s, end_s - start_s)]
            axes.broken_barh(span, (row + 0.1, 0.8), linewidth=0, **_HEALTH[state])
    axes.set_ylim(0, 2)
    axes.set_yticks([0.5, 1.5], ["audio", "video"], size=6.5)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("time (s)", labelpad=2)
    handles = [_patch(state, **style) for state, style in _HEALTH.items() if state in seen]
    handles += [_patch("nobody", **_NOBODY)] if track.nobody else []
    axes.legend(handles=handles, **_LEGEND, labelspacing=0.15, fontsize=5.8)


def _presence(modality: str, label: Label) -> str:
    return str(getattr(label.modalities, modality))


def _draw_notes(
    figure: Figure,
    bottom_in: float,
    places_in: Sequence[float],
    heads: Sequence[tuple[str, str]],
    notes: Sequence[Sequence[str]],
    palette: dict[str, str],
) -> None:
    """Reasons side by side in order of time, so that neither notes nor the lines to their moments cross."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width_in, inches = _note_width_in(len(notes)), figure.dpi_scale_trans
    pitch_in = width_in + _NOTE_GAP_IN
    # As near above their moments as the row allows.
    offsets_in = [x - width_in / 2 - k * pitch_in for k, x in enumerate(places_in)]
    rightmost_in = WIDTH_IN - _EDGE_IN - pitch_in * len(notes) + _NOTE_GAP_IN
    first_in = min(max(sum(offsets_in) / max(1, len(notes)), _LEFT_IN), rightmost_in)
    low_in = bottom_in + _LEADER_IN
    for k, (x_in, (time, answer), lines) in enumerate(zip(places_in, heads, notes, strict=True)):
        left_in, tall_in = first_in + k * pitch_in, _note_height_in(lines) - _LEADER_IN
        for y_in, height_in, colour in (
            (low_in, tall_in, "#F6F7F8"),
            (low_in + tall_in - 0.025, 0.025, palette.get(answer, _FAINT)),
        ):
            box = Rectangle((left_in, y_in), width_in, height_in, fc=colour, lw=0, transform=inches)
            figure.add_artist(box)
        top_in, style = (
            low_in + tall_in - _NOTE_PAD_IN - 0.01,
            {"va": "top", "size": _NOTE_PT, "linespacing": 1.2},
        )
        text_in, body = left_in + _NOTE_PAD_IN, "\n".join(lines)
        _text(figure, text_in, top_in, f"{time}  {answer}", weight="bold", **style)
        _text(figure, text_in, top_in - _LINE_IN, body, **style)
        # Down from the nearest point of the note, then to the moment.
        anchor_in = min(max(x_in, left_in + 0.08), left_in + width_in - 0.08)
        xs, ys = [anchor_in] * 2 + [x_in] * 2, [low_in, low_in - 0.08, bottom_in + 0.07, bottom_in]
        figure.add_artist(Line2D(xs, ys, color=_FAINT, linewidth=0.6, transform=inches))


def _wrapped_notes(figure: Figure, reasons: Sequence[Reasoning]) -> list[list[str]]:
    room_in = _note_width_in(len(reasons)) - 2 * _NOTE_PAD_IN

    def measure(text: str) -> float:
        return _width_in(figure, text, _NOTE_PT)

    return [wrap(reason.think, room_in, measure, _NOTE_LINES) for reason in reasons]


def _note_width_in(notes: int) -> float:
    # The margin on the right too, where nothing else stands at their height.
    row_in = WIDTH_IN - _EDGE_IN - _LEFT_IN + _NOTE_GAP_IN
    return min(row_in / max(1, notes) - _NOTE_GAP_IN, 2.4)


def _note_height_in(lines: Sequence[str]) -> float:
    return (len(lines) + 1) * _LINE_IN + 2 * _NOTE_PAD_IN + _LEADER_IN


def wrap(text: str, width_in: float, measure: Callable[[str], float], lines: int) -> list[str]:
    """Lines of at most `width_in` inches; what exceeds `lines` of them ends in an ellipsis."""
    done, line = [], ""
    for word in text.split():
        if line and measure(f"{line} {word}") > width_in:
            done.append(line)
            line = ""
        line = f"{line} {word}" if line else word
        while len(line) > 1 and measure(line) > width_in:  # a word alone: scripts without spaces
            fits = next(n for n in count(1) if measure(line[: n + 1]) > width_in)
            done.append(line[:fits])
            line = line[fits:]
    done.append(line)
    if len(done) > lines:
        last = done[lines - 1]
        while last and measure(last + " …") > width_in:
            last = last.rpartition(" ")[0] or last[:-1]
        done = [*done[: lines - 1], last + " …"]
    return done


def _axes(figure: Figure, top_in: float, height_in: float) -> Axes:
    whole_in = figure.get_figheight()
    left, bottom = _LEFT_IN / WIDTH_IN, (top_in - height_in) / whole_in
    return figure.add_axes((left, bottom, _PLOT_IN / WIDTH_IN, height_in / whole_in))


def _text(figure: Figure, x_in: float, y_in: float, text: str, **style: Any) -> None:
    figure.text(x_in, y_in, text, transform=figure.dpi_scale_trans, **style)


def _width_in(figure: Figure, text: str, size_pt: float) -> float:
    from matplotlib.font_manager import FontProperties

    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    font = FontProperties(size=size_pt)
    return float(renderer.get_text_width_height_descent(text, font, ismath=False)[0]) / figure.dpi


def _patch(label: str, **style: Any) -> Any:
    from matplotlib.patches import Patch

    return Patch(label=label, **({"linewidth": 0} | style))


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 130 else _INK

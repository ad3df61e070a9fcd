"""Drawing tracks of labels and reasons with matplotlib, in inches, for print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from stream.pubsub.messages import Label, Presence, Reasoning
from stream.view.notes import FAINT, NoteRow
from stream.view.palette import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 7.2  # a page of two columns
_INK = "#22262A"
_HEALTH: dict[Presence, tuple[str, str]] = {
    "ok": ("#DCE3E8", ""),
    "degraded": ("#F0B860", "////"),
    "missing": ("#33383D", ""),
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

    @property
    def start_s(self) -> float:
        """Source clock at time 0 of the figure: the start of the first window."""
        return self.labels[0].window.start_s

    @property
    def step_s(self) -> float:
        """The usual time between two labels, seconds."""
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


def draw(tracks: Sequence[tuple[Track, Sequence[Reasoning]]]) -> Figure:
    """The figure of some tracks with the reasons to show, one block below the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 1.0))
    canvas = FigureCanvasAgg(figure)
    palette = colours(
        name for track, _ in tracks for label in track.labels for name in label.scores
    )

    def text_width_in(text: str, size: float) -> float:
        width, _, _ = canvas.get_renderer().get_text_width_height_descent(
            text, _font(size), ismath=False
        )
        return float(width) / figure.dpi

    blocks = [Block(track, reasons, text_width_in) for track, reasons in tracks]
    height_in = sum(block.height_in for block in blocks)
    figure.set_size_inches(WIDTH_IN, height_in)
    top_in = height_in
    for block in blocks:
        block.draw(figure, top_in, height_in, palette)
        top_in -= block.height_in
    return figure


def _font(size: float) -> Any:
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=size)


class Block:
    """One track laid out in inches, top down: title, notes, strip, areas, health."""

    LEFT_IN, RIGHT_IN, TOP_IN, BOTTOM_IN = 0.62, 0.86, 0.30, 0.44
    STRIP_IN, AREAS_IN, HEALTH_IN, GAP_IN = 0.16, 1.75, 0.26, 0.05

    def __init__(
        self,
        track: Track,
        reasons: Sequence[Reasoning],
        measure: Callable[[str, float], float],
    ) -> None:
        self.track = track
        self.measure = measure
        self.width_in = WIDTH_IN - self.LEFT_IN - self.RIGHT_IN
        # Notes use the margin on the right too, where nothing else stands at their height.
        self.notes = NoteRow(reasons, self.LEFT_IN, WIDTH_IN - 0.12, measure)
        self.height_in = (
            self.TOP_IN
            + self.notes.height_in
            + self.STRIP_IN
            + self.AREAS_IN
            + 2 * self.GAP_IN
            + self.HEALTH_IN
            + self.BOTTOM_IN
        )

    def draw(
        self, figure: Figure, top_in: float, figure_in: float, palette: dict[str, str]
    ) -> None:
        """Draw with the upper edge `top_in` above the lower edge of a figure of `figure_in`."""
        track = self.track

        def axes(top_in: float, height_in: float) -> Axes:
            return figure.add_axes(
                (
                    self.LEFT_IN / WIDTH_IN,
                    (top_in - height_in) / figure_in,
                    self.width_in / WIDTH_IN,
                    height_in / figure_in,
                )
            )

        figure.text(
            self.LEFT_IN / WIDTH_IN,
            (top_in - 0.17) / figure_in,
            track.source,
            weight="bold",
            size=8.5,
        )
        last_s = track.labels[-1].timestamp_s - track.start_s
        figure.text(
            1 - 0.12 / WIDTH_IN,
            (top_in - 0.17) / figure_in,
            f"{track.labels[-1].model} · {len(track.labels)} windows · {last_s:.0f} s",
            ha="right",
            color=FAINT,
            size=6.5,
        )
        strip_top_in = top_in - self.TOP_IN - self.notes.height_in
        strip = axes(strip_top_in, self.STRIP_IN)
        areas_top_in = strip_top_in - self.STRIP_IN - self.GAP_IN
        areas = axes(areas_top_in, self.AREAS_IN)
        health_top_in = areas_top_in - self.AREAS_IN - self.GAP_IN
        health = axes(health_top_in, self.HEALTH_IN)
        first_s = track.labels[0].timestamp_s - track.start_s - track.step_s
        for ax in (strip, areas, health):
            ax.set_xlim(first_s, last_s)
        self._areas(areas, palette)
        self._strip(strip, areas, palette)
        self._health(health)
        self._legend(figure, areas, palette)
        self.notes.draw(
            figure,
            bottom_in=strip_top_in,
            start_s=track.start_s,
            moments_in=[
                self.LEFT_IN
                + self.width_in * (r.timestamp_s - track.start_s - first_s) / (last_s - first_s)
                for r in self.notes.reasons
            ],
            palette=palette,
        )

    def _areas(self, ax: Axes, palette: dict[str, str]) -> None:
        """Stacked scores; the step before each label belongs to it, and gaps stay white."""
        track = self.track
        names = [name for name in palette if any(name in x.scores for x in track.labels)]
        for run in track.unbroken():
            times_s = [label.timestamp_s - track.start_s for label in (run[0], *run)]
            times_s[0] -= track.step_s
            rows = [[label.scores.get(name, 0.0) for label in (run[0], *run)] for name in names]
            ax.stackplot(
                times_s,
                rows,
                colors=[palette[name] for name in names],
                edgecolor="white",
                # White seams between windows closer than a pixel would be all that is seen.
                linewidth=0.35 if len(track.labels) < 90 * self.width_in else 0,
            )
        ax.set_ylim(0, 1)
        ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        ax.set_ylabel("probability")
        ax.tick_params(labelbottom=False, length=2.5)
        ax.spines[["top", "right"]].set_visible(False)

    def _strip(self, ax: Axes, areas: Axes, palette: dict[str, str]) -> None:
        """The smoothed label, named where the name fits, its changes drawn through the areas."""
        track = self.track
        scale_in = self.width_in / (ax.get_xlim()[1] - ax.get_xlim()[0])
        labels = track.labels
        changes = sum(a.smoothed.label != b.smoothed.label for a, b in pairwise(labels))
        line_pt = 0.7 if changes <= 30 else 0.25
        previous: str | None = None
        for run in track.unbroken():
            for name, group in groupby(run, key=lambda label: label.smoothed.label):
                labels = list(group)
                start_s = labels[0].timestamp_s - track.start_s - track.step_s
                end_s = labels[-1].timestamp_s - track.start_s
                ax.axvspan(start_s, end_s, color=palette[name], linewidth=0)
                if self.measure(name, 6.5) + 0.06 < (end_s - start_s) * scale_in:
                    ax.text(
                        (start_s + end_s) / 2,
                        0.45,
                        name,
                        ha="center",
                        va="center",
                        size=6.5,
                        color=_readable_on(palette[name]),
                    )
                if previous not in (None, name):
                    areas.axvline(start_s, color=_INK, linewidth=line_pt, linestyle=(0, (3, 2)))
                    ax.axvline(start_s, color=_INK, linewidth=line_pt)
                previous = name
        ax.set_ylim(0, 1)
        ax.set_ylabel("smoothed", rotation=0, ha="right", va="center", size=6.5)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)

    def _health(self, ax: Axes) -> None:
        track = self.track
        for row, modality in enumerate(("audio", "video")):
            for run in track.unbroken():
                for state, group in groupby(run, key=lambda x: getattr(x.modalities, modality)):
                    labels = list(group)
                    start_s = labels[0].timestamp_s - track.start_s - track.step_s
                    colour, hatch = _HEALTH[state]
                    ax.broken_barh(
                        [(start_s, labels[-1].timestamp_s - track.start_s - start_s)],
                        (row + 0.1, 0.8),
                        facecolor=colour,
                        hatch=hatch,
                        edgecolor="#8A5A00" if hatch else colour,
                        linewidth=0,
                    )
        ax.set_ylim(0, 2)
        ax.set_yticks([0.5, 1.5], ["audio", "video"], size=6.5)
        ax.tick_params(axis="y", length=0)
        ax.tick_params(axis="x", length=2.5)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.set_xlabel("time (s)", labelpad=2)

    def _legend(self, figure: Figure, areas: Axes, palette: dict[str, str]) -> None:
        """Labels in the order of the stack, top down, and the health states that occur."""
        from matplotlib.patches import Patch

        names = [n for n in palette if any(n in label.scores for label in self.track.labels)]
        handles = [Patch(facecolor=palette[name], label=name) for name in reversed(names)]
        areas.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.015, 1.0),
            frameon=False,
            handlelength=0.9,
            handleheight=0.9,
            handletextpad=0.5,
            labelspacing=0.35 if len(names) <= 8 else 0.1,
            borderaxespad=0,
            borderpad=0,
            fontsize=6.5 if len(names) <= 8 else 5.5,
        )
        seen = {s for x in self.track.labels for s in (x.modalities.video, x.modalities.audio)}
        patches = [
            Patch(facecolor=colour, hatch=hatch, edgecolor="#8A5A00" if hatch else colour, label=s)
            for s, (colour, hatch) in _HEALTH.items()
            if s in seen
        ]
        for patch in patches:
            patch.set_linewidth(0)
        box = areas.get_position()
        figure.legend(
            handles=patches,
            loc="upper left",
            bbox_to_anchor=(
                box.x1 + 0.015 * box.width,
                box.y0 - self.GAP_IN / figure.get_figheight(),
            ),
            frameon=False,
            handlelength=0.9,
            handleheight=0.9,
            handletextpad=0.5,
            labelspacing=0.15,
            borderaxespad=0,
            borderpad=0,
            fontsize=5.8,
        )


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 130 else _INK

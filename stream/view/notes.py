"""A row of notes above a plot, each tied by a line to its moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from stream.pubsub.messages import Reasoning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = "#8A9096"
_SIZE_PT = 6.3
_LINE_IN = _SIZE_PT * 1.28 / 72
_MAX_LINES = 13
_GAP_IN, _PAD_IN, _LEADER_IN, _MAX_WIDTH_IN = 0.10, 0.05, 0.34, 2.4


def wrap(text: str, width_in: float, measure: Callable[[str], float], lines: int) -> list[str]:
    """Lines of at most `width_in` inches; what exceeds `lines` of them ends in an ellipsis."""
    wrapped: list[str] = []
    line = ""
    words = [piece for word in text.split() for piece in _pieces(word, width_in, measure)]
    for word in words:
        longer = f"{line} {word}" if line else word
        if line and measure(longer) > width_in:
            wrapped.append(line)
            line = word
        else:
            line = longer
    wrapped.append(line)
    if len(wrapped) > lines:
        last = wrapped[lines - 1]
        while last and measure(last + " …") > width_in:
            last = last.rpartition(" ")[0] or last[:-1]
        wrapped = [*wrapped[: lines - 1], last + " …"]
    return wrapped


def _pieces(word: str, width_in: float, measure: Callable[[str], float]) -> list[str]:
    """A word cut where it is wider than a line, as in scripts without spaces."""
    pieces, piece = [], ""
    for letter in word:
        if piece and measure(piece + letter) > width_in:
            pieces.append(piece)
            piece = ""
        piece += letter
    return [*pieces, piece]


class NoteRow:
    """Explanations side by side in order of time, so that neither notes nor their lines cross.

    Args:
        reasons: what to show, in order of time.
        left_in: left edge of the row in inches from the left edge of the figure.
        right_in: right edge likewise.
        measure: width in inches of a text at a size in points.
    """

    def __init__(
        self,
        reasons: Sequence[Reasoning],
        left_in: float,
        right_in: float,
        measure: Callable[[str, float], float],
    ) -> None:
        self.reasons = reasons
        self._left_in, self._right_in = left_in, right_in
        count = max(1, len(reasons))
        self._width_in = min((right_in - left_in + _GAP_IN) / count - _GAP_IN, _MAX_WIDTH_IN)
        self._lines = [
            wrap(
                reason.think,
                self._width_in - 2 * _PAD_IN,
                lambda text: measure(text, _SIZE_PT),
                _MAX_LINES,
            )
            for reason in reasons
        ]
        self.height_in = max((self._note_in(lines) for lines in self._lines), default=0.0)
        self.height_in += _LEADER_IN if reasons else 0.0

    @staticmethod
    def _note_in(lines: Sequence[str]) -> float:
        return (len(lines) + 1) * _LINE_IN + 2 * _PAD_IN

    def draw(
        self,
        figure: Figure,
        *,
        bottom_in: float,
        start_s: float,
        moments_in: Sequence[float],
        palette: dict[str, str],
    ) -> None:
        """Draw above `bottom_in`, inches from the lower edge of the figure.

        Args:
            figure: where to draw.
            bottom_in: height at which the moments lie.
            start_s: source clock at time 0 of the figure.
            moments_in: place of each moment, inches from the left edge of the figure.
            palette: colour by label.
        """
        if not self.reasons:
            return
        pitch_in = self._width_in + _GAP_IN
        # As near above their moments as the row allows.
        offsets_in = [m - self._width_in / 2 - k * pitch_in for k, m in enumerate(moments_in)]
        slack_in = self._right_in - self._left_in - pitch_in * len(moments_in) + _GAP_IN
        first_in = sum(offsets_in) / len(offsets_in)
        first_in = min(max(first_in, self._left_in), self._left_in + slack_in)
        for k, moment_in in enumerate(moments_in):
            x_in, base_in = first_in + k * pitch_in, bottom_in + _LEADER_IN
            self._draw_note(
                figure, k, x_in, base_in, self.reasons[k].timestamp_s - start_s, palette
            )
            # Down from the nearest point of the note, then to the moment.
            anchor_in = min(max(moment_in, x_in + 0.08), x_in + self._width_in - 0.08)
            self._draw_line(
                figure,
                [anchor_in, anchor_in, moment_in, moment_in],
                [base_in, base_in - 0.08, bottom_in + 0.07, bottom_in],
            )

    def _draw_note(
        self,
        figure: Figure,
        k: int,
        x_in: float,
        base_in: float,
        moment_s: float,
        palette: dict[str, str],
    ) -> None:
        from matplotlib.patches import Rectangle

        answer = self.reasons[k].answer or "no answer"
        width_in, height_in = figure.get_size_inches()
        note_in = self._note_in(self._lines[k])
        for low_in, tall_in, colour in (
            (base_in, note_in, "#F6F7F8"),
            (base_in + note_in - 0.025, 0.025, palette.get(answer, FAINT)),
        ):
            figure.add_artist(
                Rectangle(
                    (x_in / width_in, low_in / height_in),
                    self._width_in / width_in,
                    tall_in / height_in,
                    facecolor=colour,
                    edgecolor="none",
                )
            )
        top_in = base_in + note_in - _PAD_IN - 0.01
        for text, weight, y_in in (
            (f"{moment_s:.1f} s  {answer}", "bold", top_in),
            ("\n".join(self._lines[k]), "normal", top_in - _LINE_IN),
        ):
            figure.text(
                (x_in + _PAD_IN) / width_in,
                y_in / height_in,
                text,
                va="top",
                size=_SIZE_PT,
                weight=weight,
                linespacing=1.2,
            )

    @staticmethod
    def _draw_line(figure: Figure, x_in: Sequence[float], y_in: Sequence[float]) -> None:
        from matplotlib.lines import Line2D

        width_in, height_in = figure.get_size_inches()
        figure.add_artist(
            Line2D(
                [x / width_in for x in x_in],
                [y / height_in for y in y_in],
                color=FAINT,
                linewidth=0.6,
            )
        )

"""Which camera frames travel onward: the newest of each grid cell."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emostream.sampling import grid_index, grid_time

FLUSH_AFTER_S = 0.04  # a frame of a running 30 Hz camera would have closed the cell by then


@dataclass(frozen=True, slots=True)
class Pick:
    """A frame to send, or (`rgb` None) only the news that its cells are complete."""

    time_s: float
    rgb: NDArray[np.uint8] | None  # (H, W, 3) RGB
    watermark_s: float | None  # no frame at or before this time will follow


class GridPicker:
    """Holds the newest frame of the current grid cell (t_j - step_s, t_j] and lets it go when the cell is over.

    Times are on the source clock. Frames come in capture order; one that does not is passed on at once.
    """

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._cell: int | None = None
        self._held: Pick | None = None
        self._last_s: float | None = None
        self._interval_s = 0.0

    def wanted(self, time_s: float) -> tuple[bool, list[Pick]]:
        """Whether a frame at `time_s` may be the newest of its cell, and what its coming releases."""
        first_of_cell = self._cell is None or grid_index(time_s, self.step_s) > self._cell
        if self._last_s is not None and time_s > self._last_s:
            elapsed_s = time_s - self._last_s
            # Quick to lengthen, slow to shorten: a frame decoded in vain is cheaper than one missed.
            self._interval_s = max(elapsed_s, 0.9 * self._interval_s + 0.1 * elapsed_s)
        self._last_s = time_s
        picks = self._advance(time_s)
        assert self._cell is not None
        last_of_cell = time_s + 1.5 * self._interval_s > grid_time(self._cell, self.step_s)
        return first_of_cell or last_of_cell, picks

    def offer(self, time_s: float, rgb: NDArray[np.uint8]) -> list[Pick]:
        """Take a frame; returns what can be sent now."""
        picks = self._advance(time_s)
        if self._cell is not None and grid_index(time_s, self.step_s) < self._cell:
            return [*picks, Pick(time_s, rgb, None)]
        if self._held is None or time_s >= self._held.time_s:
            self._held = Pick(time_s, rgb, None)
        return picks

    @property
    def flush_due_s(self) -> float | None:
        """When to `close` the cell of the held frame by the clock, seconds on the source clock.

        A slow or frozen camera closes its cell late or never; its frame must not wait for that.
        """
        if self._held is None or self._cell is None:
            return None
        return grid_time(self._cell, self.step_s) + FLUSH_AFTER_S

    def close(self) -> list[Pick]:
        """Release the held frame without saying that its cell is complete (clock, device lost, file over)."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _advance(self, time_s: float) -> list[Pick]:
        cell = grid_index(time_s, self.step_s)
        if self._cell is None:
            self._cell = cell
        if cell <= self._cell:
            return []
        self._cell = cell
        watermark_s = grid_time(cell - 1, self.step_s)
        held, self._held = self._held, None
        if held is None:
            return [Pick(time_s, None, watermark_s)]
        return [Pick(held.time_s, held.rgb, watermark_s)]

"""Pictures as cameras deliver them, and telling a frozen one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraFrame:
    """One picture.

    Attributes:
        time_s: when it was captured, seconds of `time.perf_counter`; ascends.
        rgb: uint8 (H, W, 3) RGB, not to be written to.
    """

    time_s: float
    rgb: NDArray[np.uint8]


class StillPicture:
    """Tells a frozen picture: one that repeats to the last bit for `frozen_after_s` and more.

    The last picture is remembered for good, so that a camera which is opened anew and still shows
    it is still frozen.
    """

    def __init__(self, frozen_after_s: float) -> None:
        self._frozen_after_s = frozen_after_s
        self._last: NDArray[np.uint8] | None = None
        self._since_s = 0.0
        self.frozen = False

    def add(self, picture: NDArray[np.uint8], time_s: float) -> bool:
        """Whether the picture is frozen with this one, captured at `time_s`; it is kept."""
        if self._last is None or not np.array_equal(picture, self._last):
            self._last, self._since_s = picture, time_s
        self.frozen = 0 < self._frozen_after_s <= time_s - self._since_s
        return self.frozen

    @property
    def problem(self) -> str:
        """What is wrong with a frozen picture."""
        return (
            f"the picture has not changed for {self._frozen_after_s:g} s; "
            "it is frozen or covered (a still is accepted with --frozen-after-s 0)"
        )

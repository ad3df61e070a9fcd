"""Which frames a clip or a window is made of, and the rate of its sound.

Pure functions of times and counts; the live windower and the offline reference both call them, so that they cannot
disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Of all sound that the model, the wire and the windows know.
SAMPLE_RATE_HZ = 16_000

#: Times closer than this to a grid point count as on it. Media times are ratios of integers and perf_counter resolves
#: nanoseconds, so that a larger distance is real; float64 holds it up to times of about 10^6 s.
EDGE_S = 1e-9


def segment_midpoint_indices(n_frames: int, num_frames: int) -> NDArray[np.int64]:
    """Indices of `num_frames` frames at the midpoints of equal segments of a clip, as published checkpoints expect.

    index_i = round((seg·i + seg·(i+1)) / 2 + 1e-6) with seg = (n_frames − 1) / num_frames, i = 0 … num_frames − 1.

    A clip with fewer frames than asked repeats some of them: the result always has `num_frames` entries, never
    decreasing and within [0, n_frames − 1]; a single frame is repeated throughout.

    Args:
        n_frames: Frames in the clip, ≥ 1.
        num_frames: Frames wanted, ≥ 1.

    Returns:
        (num_frames,) int64.

    Raises:
        ValueError: `n_frames` or `num_frames` is below 1.
    """
    if n_frames < 1 or num_frames < 1:
        raise ValueError(
            f"segment_midpoint_indices: wanted at least 1 of each, found n_frames={n_frames}, num_frames={num_frames}"
        )
    seg = (n_frames - 1) / num_frames
    midpoints = [(seg * i + seg * (i + 1)) / 2 for i in range(num_frames)]
    return np.array([round(midpoint + 1e-6) for midpoint in midpoints], dtype=np.int64)


def grid_time(index: int, step_s: float) -> float:
    """Time in seconds of grid point `index`: t_j = j·step_s, on the clock whose zero the grid shares."""
    return index * step_s


def grid_index(time_s: float, step_s: float) -> int:
    """The grid point that a frame at `time_s` belongs to: the smallest j with t_j ≥ time_s.

    Frame times in (t_j − step_s, t_j] give j. A time within `EDGE_S` of a grid point is taken to be on it, so that a
    frame stamped 0.5000000001 or 0.4999999999 belongs to the point at 0.5 either way.

    Args:
        time_s: Time of the frame in seconds, any sign.
        step_s: Distance of grid points in seconds, > 0.
    """
    time_s -= EDGE_S
    index = math.ceil(time_s / step_s)
    # The quotient is rounded: it can fall on either side of the integer that the products decide.
    if (index - 1) * step_s >= time_s:
        index -= 1
    elif index * step_s < time_s:
        index += 1
    return index


def nearest_index(time_s: float, step_s: float) -> int:
    """The grid point nearest to `time_s`, the later one of two that are.

    Args:
        time_s: Time in seconds, any sign, finite.
        step_s: Distance of grid points in seconds, > 0.
    """
    return math.floor(time_s / step_s + 0.5)


@dataclass(frozen=True, slots=True)
class GridFrames:
    """A choice of frames for consecutive grid points, oldest first.

    Attributes:
        indices: (num,) int64 into the times given; −1 throughout if no frame is as early as the last grid point.
        repeated: (num,) bool; true where no frame belongs to the grid point itself and another one stands in.
    """

    indices: NDArray[np.int64]
    repeated: NDArray[np.bool_]


def grid_frames(times_s: Sequence[float], first_k: int, num: int, step_s: float) -> GridFrames:
    """The frames of grid points first_k … first_k + num − 1: the newest frame in (t_j − step_s, t_j] for each.

    A grid point without a frame of its own repeats the frame of the point before it, however old that is; points
    before the first one that has a frame take that one's. Both are flagged. Frames later than the last grid point are
    ignored, so that the choice is the same whether or not the future is known; and no frame but the newest of a grid
    point is ever chosen, so that it is the same when only those are known.

    Args:
        times_s: Frame times in seconds, not decreasing, on the clock whose zero the grid shares. To repeat a frame
            from before the first grid point, it must be among them.
        first_k: Index of the first grid point.
        num: How many grid points, ≥ 1.
        step_s: Distance of grid points in seconds, > 0.

    Returns:
        `num` indices into `times_s`, and which of them are stand-ins.
    """
    cells = np.array([grid_index(time_s, step_s) for time_s in times_s], dtype=np.int64)
    points = np.arange(first_k, first_k + num)
    newest = np.searchsorted(cells, points, side="right") - 1
    if newest[-1] < 0:
        return GridFrames(np.full(num, -1, dtype=np.int64), np.ones(num, dtype=np.bool_))
    first = np.searchsorted(cells, cells[0], side="right") - 1
    indices = np.maximum(newest, first).astype(np.int64)
    return GridFrames(indices, cells[indices] != points)

"""Smooth curves through control points as one matrix product, so that all frames are drawn at once."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@cache
def catmull_rom(controls: int, per_segment: int, closed: bool) -> Array:
    """Matrix (points, controls) of a Catmull-Rom spline through its control points."""
    segments = controls if closed else controls - 1
    u = np.arange(per_segment) / per_segment
    weights = 0.5 * np.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], 1
    )
    matrix = np.zeros((segments * per_segment + (0 if closed else 1), controls))
    for s in range(segments):
        for k in range(4):
            at = s + k - 1
            at = at % controls if closed else min(max(at, 0), controls - 1)
            matrix[s * per_segment : (s + 1) * per_segment, at] += weights[:, k]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def curve(controls: Array, per_segment: int = 5, *, closed: bool = False) -> Array:
    """Points on the spline through `controls` (…, K, 2): (…, points, 2)."""
    return np.asarray(catmull_rom(controls.shape[-2], per_segment, closed) @ controls)


def mirrored(right: Array) -> Array:
    """A closed outline from its right half (K, 2), top to bottom, first and last on the axis."""
    left = right[-2:0:-1] * np.array([-1.0, 1.0])
    return np.concatenate([right, left])


def mirror(points: Array) -> Array:
    """The same points on the other side of the face."""
    return points * np.array([-1.0, 1.0])

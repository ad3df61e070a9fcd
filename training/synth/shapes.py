"""What a face is made of before it is painted: outlines in face units, and how the camera sees them.

Face units: x to the viewer's right, y down, the origin between the eyes, 1 from there to the chin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.synth.motion import Motion

Array = NDArray[np.float64]
Plane = Literal["head", "front", "body"]

#: Height of a head with hair, in face units.
HEAD_HEIGHT = 2.05
#: cv2 draws at 1/16 px when given integers with this shift.
SHIFT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """An outline in every frame.

    Attributes:
        paint: What it is, for the renderer to colour: `skin`, `hair`, `iris`, …
        points: (F, M, 2) or, where nothing moves it but the head, (1, M, 2), face units.
        line: Width in face units of an open stroke; None fills the closed outline.
        strength: (F,) 0 to 1, how far it stands out from the skin; None is fully.
        plane: On the head's surface (turns with it), before the face (an object held there), or
            on the body (does not turn).
    """

    paint: str
    points: Array
    line: float | None = None
    strength: Array | None = None
    plane: Plane = "head"


def ellipse(cx: float, cy: float, rx: float, ry: float, points: int = 20) -> Array:
    """Closed outline (points, 2)."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=-1)


def _depth(x: Array, y: Array) -> Array:
    """Height of the face's surface towards the viewer: an ellipsoid and a nose."""
    ball = 0.58 * np.sqrt(np.maximum(0.0, 1 - (x / 0.8) ** 2 - (y / 1.25) ** 2))
    return ball + 0.2 * np.exp(-((x / 0.11) ** 2) - ((y - 0.2) / 0.17) ** 2)


def _column(track: Array) -> Array:
    return track[:, None]


def _project(points: Array, motion: Motion, size_px: int, plane: Plane) -> Array:
    """Face units to pixels, (F, M, 2)."""
    x, y = points[..., 0], points[..., 1]
    unit = _column(motion.scale) * (size_px / HEAD_HEIGHT)
    if plane == "body":
        px = x * unit + _column(motion.centre[:, 0]) * size_px
        py = y * unit + _column(motion.centre[:, 1]) * size_px
        return np.stack([px, py], axis=-1)
    yaw, pitch, roll = _column(motion.yaw), _column(motion.pitch), _column(motion.roll)
    z = _depth(x, y) if plane == "head" else np.full_like(x, 0.75)
    # The outline of a head stays as wide when it turns; what lies on its front foreshortens.
    rim = np.clip((x / 0.72) ** 2 + (y / 1.05) ** 2, 0.0, 1.0) if plane == "head" else 0.0
    turned = x * (1 - (1 - np.cos(yaw)) * (1 - rim)) + z * np.sin(yaw)
    nodded = y * (1 - (1 - np.cos(pitch)) * (1 - rim)) + z * np.sin(pitch)
    nearer = 1 + 0.08 * (z - 0.4) - 0.06 * nodded * np.sin(pitch)
    turned, nodded = turned * nearer, nodded * nearer
    # The neck carries the head: roll turns it about the throat.
    pivot = 0.9
    cos, sin = np.cos(roll), np.sin(roll)
    fx = turned * cos - (nodded - pivot) * sin
    fy = turned * sin + (nodded - pivot) * cos + pivot
    px = fx * unit + _column(motion.centre[:, 0]) * size_px
    py = fy * unit + _column(motion.centre[:, 1]) * size_px
    return np.stack([px, py], axis=-1)


def project(shapes: Sequence[Shape], motion: Motion, size_px: int) -> list[NDArray[np.int32]]:
    """Every shape in every frame as cv2 wants it: (F, M, 2) int32 in 1/2**SHIFT pixels."""
    frames = len(motion.yaw)
    out: list[NDArray[np.int32]] = [np.empty((0, 0, 2), np.int32)] * len(shapes)
    for plane in ("head", "front", "body"):
        members = [i for i, shape in enumerate(shapes) if shape.plane == plane]
        if not members:
            continue
        parts = [
            np.broadcast_to(shapes[i].points, (frames, *shapes[i].points.shape[1:]))
            for i in members
        ]
        pixels = _project(np.concatenate(parts, axis=1), motion, size_px, plane)
        fixed = np.rint(pixels * (1 << SHIFT) - 0.5 * (1 << SHIFT)).astype(np.int32)
        at = 0
        for i, part in zip(members, parts, strict=True):
            out[i] = np.ascontiguousarray(fixed[:, at : at + part.shape[1]])
            at += part.shape[1]
    return out

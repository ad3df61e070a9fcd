"""The parts of a face that act: brows, eyes, mouth, and the folds of the skin, moved by action units.

Displacements follow the appearance changes that the FACS manual (Ekman, Friesen & Hager 2002) lists for each unit, a
little larger than life so that they survive a 128-pixel frame.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.synth.actors import FaceIdentity
from training.synth.motion import AU, Motion
from training.synth.shapes import Shape, ellipse
from training.synth.splines import curve

Array = NDArray[np.float64]
_SIDES = (-1.0, 1.0)
_LIP = np.linspace(-1.0, 1.0, 19)
_LID = np.linspace(-1.0, 1.0, 11)


@dataclass(frozen=True, slots=True)
class Units:
    """Action units by name and side; a person's two halves act a little differently."""

    values: Array
    side_gains: tuple[float, float]

    def __call__(self, number: int, side: float = 0.0) -> Array:
        """(F,) intensity of AU `number`, on one side (-1 left, 1 right) or on average."""
        value = self.values[:, AU[f"AU{number}"]]
        if side == 0.0:
            return value
        return np.clip(value * self.side_gains[0 if side < 0 else 1], 0.0, 1.15)


def _points(x: Array, y: Array) -> Array:
    """(F, M, 2) from x and y that broadcast to (F, M)."""
    x, y = np.broadcast_arrays(x, y)
    return np.stack([x, y], axis=-1)


def _col(track: Array) -> Array:
    return track[:, None]


def brows(who: FaceIdentity, au: Units) -> list[Shape]:
    """Two tapering strips."""
    out = []
    for side in _SIDES:
        a1, a2, a4, a9 = (au(n, side) for n in (1, 2, 4, 9))
        rest, inner = who.rest_brow, who.rest_brow_inner
        raised = [
            -0.15 * a1 + 0.09 * a4 + 0.05 * a9 - 0.03 * a1 * a4 + inner,
            -0.08 * a1 - 0.07 * a2 + 0.09 * a4 + 0.04 * a9,
            -0.02 * a1 - 0.13 * a2 + 0.05 * a4 + 0.02 * a9,
            -0.09 * a2 + 0.01 * a4 + 0.015 * au(6, side),
        ]
        ys = (-0.275, -0.282 - 0.5 * who.brow_arch, -0.262 - who.brow_arch, -0.2)
        xs = (0.13, 0.27, 0.43, 0.58)
        pinch = -0.05 * a4 - 0.02 * a9
        shift = who.eye_spacing - 0.33
        x = np.stack(
            [xs[0] + shift + pinch, xs[1] + shift + 0.5 * pinch]
            + [np.full_like(a1, x + shift) for x in xs[2:]],
            1,
        )
        y = np.stack([y0 + rest + dy for y0, dy in zip(ys, raised, strict=True)], 1)
        middle = curve(_points(side * x, y), 4)
        taper = np.interp(
            np.linspace(0, 1, middle.shape[1]), [0, 0.2, 0.6, 1], [0.8, 1.0, 0.85, 0.25]
        )
        half = np.stack([np.zeros_like(taper), 0.5 * who.brow_thickness * taper], -1)
        out.append(
            Shape(paint="brow", points=np.concatenate([middle - half, (middle + half)[:, ::-1]], 1))
        )
    return out


def eyes(who: FaceIdentity, au: Units, motion: Motion) -> list[Shape]:
    """Sclera, iris and pupil between the lids, lashes, and the folds around."""
    out = []
    half_width = 0.175 * who.eye_scale
    arch = (1 - _LID**2) ** 0.75
    for side in _SIDES:
        a5, a6, a7, a43 = (au(n, side) for n in (5, 6, 7, 43))
        gaze_x, gaze_y = motion.gaze[:, 0], motion.gaze[:, 1]
        opening = 0.1 * who.eye_open * who.eye_scale
        upper = opening * (1 + 0.75 * a5 - 0.45 * a7 - 0.12 * a6) - 0.02 * au(4, side)
        lower = 0.055 * who.eye_scale * (1 - 0.8 * a7 - 0.75 * a6 + 0.25 * a5)
        drooping = np.maximum(np.maximum(motion.blink, 0.9 * a43), 0.42 * np.clip(gaze_y, 0, 1))
        upper = upper - drooping * (upper + lower)
        # Sadness lifts the inner end of the lid with the brow.
        slant = np.clip(1 - _LID, 0, 2) * 0.5
        x = side * (who.eye_spacing + half_width * _LID)[None]
        tilt = -who.eye_tilt * _LID[None]
        lid_y = tilt - _col(upper) * arch - _col(0.025 * au(1, side) * au(4, side)) * slant * arch
        low_y = np.maximum(tilt + _col(lower) * arch, lid_y)
        lid, low = _points(x, lid_y), _points(x, low_y)
        ball = np.concatenate([lid, low[:, ::-1]], 1)
        out.append(Shape(paint="sclera", points=ball))
        for paint, radius in (("iris", 0.083), ("pupil", 0.042)):
            ring = ellipse(0, 0, radius * who.eye_scale, radius * who.eye_scale, 16)
            cx = side * who.eye_spacing + 0.06 * _col(gaze_x)
            cy = -0.008 + 0.045 * _col(gaze_y)
            rx = cx + ring[None, :, 0]
            place = np.clip((rx * side - who.eye_spacing) / half_width, -0.98, 0.98)
            room = (1 - place**2) ** 0.75
            top = -who.eye_tilt * place - _col(upper) * room
            bottom = np.maximum(-who.eye_tilt * place + _col(lower) * room, top)
            out.append(
                Shape(paint=paint, points=_points(rx, np.clip(cy + ring[None, :, 1], top, bottom)))
            )
        shut = (motion.blink > 0.9).astype(float)
        out.append(Shape(paint="lash", points=lid, line=0.03, strength=0.85 + 0.15 * shut))
        out.append(Shape(paint="fold", points=low, line=0.018, strength=0.35 + 0.4 * a7))
        crease = _points(
            x, np.minimum(tilt - 0.045 - _col(np.maximum(upper, 0.5 * opening)) * arch, tilt - 0.03)
        )
        out.append(Shape(paint="fold", points=crease[:, 2:-1], line=0.02, strength=0.4 + 0.2 * a7))
        bag_y = 0.105 + 0.02 * _LID**2 - _col(0.02 * a6) + 0.05 * (1 - _LID**2)
        pouch = np.clip(0.25 * max(0.0, who.age - 0.3) + 0.75 * a6 + 0.35 * a7, 0, 1)
        out.append(Shape(paint="fold", points=_points(0.92 * x, bag_y), line=0.024, strength=pouch))
        outer = side * (who.eye_spacing + half_width + 0.035)
        for dy, reach in ((-0.05, -0.10), (0.015, 0.02), (0.07, 0.12)):
            foot = np.array([[[outer, dy], [outer + side * 0.11, reach]]])
            strength = np.clip(0.9 * a6 + 0.3 * max(0.0, who.age - 0.5), 0, 1)
            out.append(Shape(paint="fold", points=foot, line=0.02, strength=strength))
    return out


@dataclass(frozen=True, slots=True)
class Mouth:
    """Where the mouth is in every frame; the jaw, beard and folds follow it.

    Attributes:
        shapes: To draw.
        jaw: (F,) how far the chin is dropped, face units.
        half_width: (F,) of the mouth.
        corner_y: (F, 2) left and right corner.
        top, bottom: (F,) middle of the outer edge of the lips.
    """

    shapes: list[Shape]
    jaw: Array
    half_width: Array
    corner_y: Array
    top: Array
    bottom: Array


def mouth(who: FaceIdentity, au: Units, motion: Motion) -> Mouth:
    """Lips, teeth and tongue: expression and speech together."""
    a9, a10, a12, a15, a17 = (au(n) for n in (9, 10, 12, 15, 17))
    a20, a23, a24, a25, a26, a27 = (au(n) for n in (20, 23, 24, 25, 26, 27))
    talk, rounding, closure = motion.speak.T
    acted = 0.09 * a25 + 0.25 * a26 + 0.42 * a27 + 0.05 * a10 * (a25 > 0.1)
    spoken = (
        0.17 * talk * (1 - 0.5 * a24) * (1 - 0.3 * a23) * (1 - 0.5 * np.minimum(acted / 0.3, 1))
    )
    gap = (acted * (1 - 0.5 * a24) + spoken) * (1 - 0.92 * closure)
    jaw = 0.6 * gap + 0.06 * a26 + 0.08 * a27 - 0.03 * a17
    half = who.mouth_width * (
        1 + 0.24 * a12 + 0.34 * a20 + 0.05 * a10 - 0.06 * a15 - 0.12 * a23 - 0.08 * a24
        - 0.22 * a27 - 0.10 * a26 * (1 - a12) - 0.20 * np.clip(rounding, 0, 1) + 0.06 * np.clip(-rounding, 0, 1)
    )  # fmt: skip
    corners = np.stack(
        [
            who.mouth_y
            + who.rest_corner
            + 0.3 * jaw
            - 0.17 * au(12, s)
            + 0.13 * au(15, s)
            + 0.03 * au(20, s)
            for s in _SIDES
        ],
        axis=1,
    )
    centre = who.mouth_y + 0.12 * jaw
    u = _LIP[None]
    side_y = np.where(u < 0, corners[:, :1], corners[:, 1:])
    base = _col(centre) + (side_y - _col(centre)) * np.abs(u) ** 2.0
    dome = 1 - u**2
    pushed = _col(0.055 * a17) * dome
    lifted = _col(0.075 * a10 + 0.045 * a9) * (1 - np.abs(u) ** 3) * 0.8
    boxy = 2.2 + 2.5 * _col(a20) + 1.5 * _col(a10)
    in_top = base - _col(0.28 * gap) * (1 - np.abs(u) ** boxy) - pushed - lifted
    in_low = base + _col(0.72 * gap) * (1 - np.abs(u) ** boxy) - pushed
    in_low = np.maximum(in_low - 0.5 * lifted, in_top)
    thin = np.clip(1 - 0.6 * a24 - 0.5 * a23 - 0.3 * a12 - 0.35 * a20, 0.25, 1.2)
    pucker = 1 + 0.2 * np.clip(rounding, 0, 1)
    cupid = 1 - 0.3 * np.exp(-((u / 0.16) ** 2)) + 0.1 * np.exp(-(((np.abs(u) - 0.28) / 0.15) ** 2))
    out_top = in_top - _col(who.upper_lip * thin * pucker) * dome**0.7 * cupid
    out_low = in_low + _col(who.lower_lip * thin * pucker * (1 + 0.15 * a17)) * dome**0.6
    x = u * _col(half)

    def between(a: Array, b: Array) -> Array:
        return np.concatenate([_points(x, a), _points(x, b)[:, ::-1]], axis=1)

    teeth_low = np.minimum(in_low, in_top + 0.085 * (1 - u**4))
    tongue_top = np.maximum(in_top, in_low - _col(0.32 * gap) * dome)
    middle = _LIP.size // 2
    gap_seen = np.clip((gap - 0.02) / 0.05, 0, 1)
    shapes = [
        Shape(paint="mouth", points=between(in_top, in_low)),
        Shape(
            paint="tongue", points=between(tongue_top, in_low), strength=np.clip(gap / 0.25, 0, 1)
        ),
        Shape(paint="teeth", points=between(in_top, teeth_low)[:, 2:-2], strength=gap_seen),
        Shape(paint="lip_upper", points=between(out_top, in_top)),
        Shape(paint="lip_lower", points=between(in_low, out_low)),
        Shape(
            paint="lip_line", points=_points(x, in_top), line=0.022, strength=np.full(len(gap), 0.8)
        ),
        Shape(paint="lip_line", points=_points(x, in_low), line=0.014, strength=0.6 * gap_seen),
    ]
    return Mouth(shapes, jaw, half, corners, out_top[:, middle], out_low[:, middle])


def folds(who: FaceIdentity, au: Units, lips: Mouth) -> list[Shape]:
    """Lines and bulges of the skin: forehead, glabella, nose, cheeks, chin."""
    out = []
    old = max(0.0, who.age - 0.35)
    a1, a2, a4, a9 = (au(n) for n in (1, 2, 4, 9))
    x = np.linspace(-1, 1, 9)[None]
    span = 0.22 + 0.16 * _col(a2)
    for k, y in enumerate((-0.47, -0.56, -0.65)):
        bow = (
            -0.03 * _col(a1) * (1 - x**2) - 0.05 * _col(a2) * x**2 - 0.04 * _col(np.maximum(a1, a2))
        )
        line = np.clip(0.9 * np.maximum(0.8 * a1, a2) - 0.12 * k + 0.5 * old, 0, 1)
        out.append(
            Shape(paint="fold", points=_points(x * span, y + bow), line=0.024, strength=line)
        )
    for side in _SIDES:
        frown = np.array([[[side * 0.05, -0.35], [side * 0.062, -0.27], [side * 0.045, -0.17]]])
        out.append(
            Shape(paint="fold", points=frown, line=0.028, strength=np.clip(a4 + 0.3 * old, 0, 1))
        )
        for y in (-0.06, 0.02):
            wrinkle = np.array(
                [[[side * 0.015, y - 0.02], [side * 0.07, y], [side * 0.11, y + 0.05]]]
            )
            out.append(Shape(paint="fold", points=wrinkle, line=0.024, strength=a9))
        index = 0 if side < 0 else 1
        a6, a10, a12, a15 = (au(n, side) for n in (6, 10, 12, 15))
        corner_x, corner_y = side * lips.half_width, lips.corner_y[:, index]
        controls = np.stack(
            [
                _points(
                    np.full_like(a6, side * (who.nose_width + 0.02)), 0.19 - 0.03 * a9 - 0.02 * a10
                ),
                _points(side * (who.nose_width + 0.09 + 0.05 * a12 + 0.02 * a10), 0.28 - 0.02 * a9),
                _points(corner_x + side * 0.075, corner_y - 0.06),
                _points(corner_x + side * (0.07 + 0.02 * a12), corner_y + 0.03),
            ],
            axis=1,
        )
        deep = np.clip(0.12 + 0.5 * old + 0.6 * a12 + 0.7 * a10 + 0.55 * a9, 0, 1)
        out.append(Shape(paint="fold", points=curve(controls, 4), line=0.028, strength=deep))
        apple = (
            ellipse(side * 0.42, 0.24, 0.16, 0.11, 14)[None]
            - np.stack([0 * a6, 0.05 * a6], -1)[:, None]
        )
        glow = np.clip(0.55 * a6 + 0.35 * a12, 0, 1)
        out.insert(0, Shape(paint="cheek", points=apple, strength=glow))
        droop = np.stack(
            [
                _points(corner_x + side * 0.015, corner_y),
                _points(corner_x + side * 0.05, corner_y + 0.1),
            ],
            1,
        )
        out.append(
            Shape(
                paint="fold",
                points=droop,
                line=0.024,
                strength=np.clip(0.8 * a15 + 0.3 * old, 0, 1),
            )
        )
        dent = np.stack(
            [
                _points(corner_x + side * 0.03, corner_y - 0.04),
                _points(corner_x + side * 0.03, corner_y + 0.03),
            ],
            1,
        )
        tight = np.clip(0.6 * au(20, side) + 0.5 * au(23) + 0.6 * au(24) + 0.4 * a12, 0, 1)
        out.append(Shape(paint="fold", points=dent, line=0.022, strength=tight))
    a17 = au(17)
    below = _col(lips.bottom + 0.05 - 0.01 * a17) + 0.03 * x**2 - 0.05 * _col(a17) * (1 - x**2)
    out.append(
        Shape(
            paint="fold",
            points=_points(0.14 * x, below),
            line=0.026,
            strength=np.clip(0.3 + 0.6 * a17, 0, 1),
        )
    )
    for side in _SIDES:
        pit = _points(side * (0.05 + 0.03 * x), _col(0.82 - 0.02 * a17 + lips.jaw) + 0.02 * x)
        out.append(Shape(paint="fold", points=pit, line=0.022, strength=0.8 * a17))
    return out

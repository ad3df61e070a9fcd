"""The parts of a head that do not act: skull, ears, nose, neck, hair, beard, and what people wear."""

import numpy as np
from numpy.typing import NDArray

from training.synth.actors import FaceIdentity
from training.synth.face import Mouth, Units
from training.synth.shapes import Shape, ellipse
from training.synth.splines import curve, mirror, mirrored

Array = NDArray[np.float64]


def skull_controls(who: FaceIdentity) -> Array:
    """Right half of the head's outline, crown to chin, (K, 2)."""
    j = who.jaw
    half = np.array(
        [
            (0.0, -1.0),
            (0.36, -0.94),
            (0.62, -0.66),
            (0.705, -0.26),
            (0.69, 0.12),
            (0.615 + 0.03 * j, 0.44),
            (0.46 + 0.1 * j, 0.72),
            (who.chin_width + 0.05, 0.94),
            (0.0, 1.0),
        ]
    )
    half[:, 0] *= who.width_scale
    half[-2:, 1] *= who.chin_y
    return half


def _dropped(points: Array, jaw: Array) -> Array:
    """Points (K, 2) with the chin dropped by `jaw` (F,): (F, K, 2)."""
    share = np.clip((points[:, 1] - 0.25) / 0.75, 0.0, 1.0)
    out = np.repeat(points[None], len(jaw), axis=0)
    out[:, :, 1] += jaw[:, None] * share * share * (3 - 2 * share)
    return out


def skull(who: FaceIdentity, lips: Mouth) -> Shape:
    """The face's outline; its chin follows the jaw."""
    outline = _dropped(mirrored(skull_controls(who)), lips.jaw)
    return Shape(paint="skin", points=curve(outline, 4, closed=True))


def body(who: FaceIdentity) -> list[Shape]:
    """Neck and shoulders."""
    wide = 0.30 + 0.07 * who.jaw
    neck = mirrored(
        np.array([(0.0, 0.5), (wide, 0.5), (wide, 1.0), (wide + 0.12, 1.35), (0.0, 1.5)])
    )
    coat = mirrored(
        np.array(
            [
                (0.0, 1.42),
                (0.26, 1.2),
                (0.62, 1.28),
                (1.05, 1.45),
                (1.3, 1.9),
                (1.35, 2.9),
                (0.0, 2.9),
            ]
        )
    )
    return [
        Shape(paint="neck", points=curve(neck, 3, closed=True)[None], plane="body"),
        Shape(paint="clothes", points=curve(coat, 3, closed=True)[None], plane="body"),
    ]


def ears(who: FaceIdentity) -> list[Shape]:
    """Behind the face's outline."""
    x, r = 0.70 * who.width_scale, 0.17 * who.ear_scale
    out = []
    for side in (-1.0, 1.0):
        out.append(Shape(paint="ear", points=ellipse(side * x, 0.08, 0.55 * r, r, 14)[None]))
        out.append(
            Shape(
                paint="ear_in",
                points=ellipse(side * (x + 0.015), 0.08, 0.28 * r, 0.6 * r, 10)[None],
            )
        )
    return out


def nose(who: FaceIdentity, au: Units, light: float) -> list[Shape]:
    """Bridge in shade on the side away from the light (-1 left to 1 right), wings and nostrils."""
    w, tip = who.nose_width, who.nose_length + 0.07
    up = 0.045 * au(9) + 0.025 * au(10)
    wide = w * (1 + 0.10 * au(9) + 0.06 * au(10))
    dark = -1.0 if light > 0 else 1.0
    shade = np.array(
        [(0.05, -0.14), (0.055, 0.05), (w * 0.85, tip - 0.09), (0.06, tip - 0.02), (0.012, 0.1)]
    )
    # Fractions of the wing's width and heights against the tip, left wing to right.
    across = np.array([-1.0, -1.04, -0.55, 0.0, 0.55, 1.04, 1.0])
    height = np.array([-0.1, -0.04, -0.005, 0.02, -0.005, -0.04, -0.1])
    pulled = np.where(np.abs(across) > 0.3, 1.0, 0.3)
    base = np.stack([across * wide[:, None], tip + height - pulled * up[:, None]], axis=-1)
    out = [
        Shape(
            paint="nose_shade", points=curve(shade * np.array([dark, 1.0]), 3, closed=True)[None]
        ),
        Shape(paint="nose_light", points=ellipse(-dark * 0.012, 0.11, 0.02, 0.1, 10)[None]),
        Shape(paint="fold", points=curve(base, 3), line=0.026, strength=np.full(len(up), 0.7)),
    ]
    for side in (-1.0, 1.0):
        hole = ellipse(0, tip - 0.012, 0.036, 0.018, 8)[None].repeat(len(up), 0)
        hole[:, :, 0] += (side * 0.48 * wide)[:, None]
        hole[:, :, 1] -= 0.4 * up[:, None]
        out.append(Shape(paint="nostril", points=hole))
    return out


def beard(who: FaceIdentity, lips: Mouth) -> list[Shape]:
    """Stubble, moustache, goatee or full beard, moved by jaw and lips."""
    if who.beard == "none":
        return []
    out = []
    frames = len(lips.jaw)
    if who.beard in ("stubble", "full"):
        contour = skull_controls(who)[4:]
        inner = np.array([(0.0, 0.36), (0.22, 0.38), (0.44, 0.44), (0.55, 0.25)])
        right = np.concatenate(
            [inner, contour * np.array([1.0, 1.0 + 0.03 * (who.beard == "full")])]
        )
        outline = _dropped(mirrored(right), lips.jaw)
        paint = "beard" if who.beard == "full" else "stubble"
        out.append(Shape(paint=paint, points=curve(outline, 3, closed=True)))
    if who.beard in ("moustache", "goatee"):
        top, half = lips.top, 0.85 * lips.half_width
        strip = np.zeros((frames, 7, 2))
        for k, (x, y) in enumerate(
            (
                (-1, 0.05),
                (-0.5, -0.045),
                (0, -0.05),
                (0.5, -0.045),
                (1, 0.05),
                (0.5, 0.01),
                (-0.5, 0.01),
            )
        ):
            strip[:, k, 0], strip[:, k, 1] = x * half, top + y
        out.append(Shape(paint="beard", points=curve(strip, 3, closed=True)))
    if who.beard == "goatee":
        patch = np.array(
            [(-0.16, 0.68), (0.0, 0.70), (0.16, 0.68), (0.17, 0.9), (0.0, 1.02), (-0.17, 0.9)]
        )
        outline = np.repeat(patch[None], frames, 0)
        outline[:, :, 1] += lips.jaw[:, None]
        out.append(Shape(paint="beard", points=curve(outline, 3, closed=True)))
    return out


_HAIRLINE = {
    "cropped": [(0.70, 0.0), (0.655, -0.2), (0.60, -0.5), (0.34, -0.66), (0.0, -0.68)],
    "side": [(0.70, 0.05), (0.65, -0.2), (0.56, -0.52), (0.30, -0.60), (0.0, -0.66)],
    "fringe": [(0.71, 0.1), (0.66, -0.2), (0.58, -0.42), (0.3, -0.44), (0.0, -0.46)],
    "bob": [(0.74, 0.5), (0.62, 0.1), (0.58, -0.36), (0.3, -0.46), (0.0, -0.48)],
    "long": [(0.78, 0.7), (0.60, 0.2), (0.575, -0.35), (0.30, -0.66), (0.0, -0.76)],
    "bun": [(0.70, -0.02), (0.64, -0.25), (0.57, -0.5), (0.3, -0.66), (0.0, -0.70)],
    "curly": [(0.74, 0.05), (0.66, -0.2), (0.56, -0.5), (0.3, -0.58), (0.0, -0.62)],
    "receding": [(0.70, 0.02), (0.66, -0.2), (0.655, -0.5), (0.48, -0.82), (0.0, -0.80)],
}
_CROWN = [(0.0, -1.08), (0.40, -1.0), (0.68, -0.70), (0.755, -0.3), (0.745, 0.0)]


def hair(who: FaceIdentity) -> tuple[list[Shape], list[Shape]]:
    """What hangs behind the head, and what lies on it."""
    style, w = who.hair_style, np.array([who.width_scale, 1.0])
    if style == "bald":
        return [], []
    line = np.array(_HAIRLINE[style])
    crown = np.array(_CROWN)
    back = []
    if style in ("long", "bob"):
        low = 1.35 if style == "long" else 0.72
        mass = np.array(
            [
                (0.0, -1.08),
                (0.5, -1.0),
                (0.82, -0.55),
                (0.87, 0.1),
                (0.86, 0.6 * low),
                (0.74, low),
                (0.0, low),
            ]
        )
        back.append(
            Shape(paint="hair_back", points=curve(mirrored(mass * w), 3, closed=True)[None])
        )
        crown = crown * np.array([1.06, 1.02])
    elif style == "bun":
        back.append(Shape(paint="hair_back", points=ellipse(0.0, -1.16, 0.3, 0.26)[None]))
    elif style == "curly":
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        radius = 1 + 0.05 * np.sin(14 * angle)
        cloud = np.stack([0.86 * radius * np.cos(angle), -0.42 + 0.80 * radius * np.sin(angle)], -1)
        back.append(Shape(paint="hair_back", points=(cloud * w)[None]))
        crown = crown * np.array([1.08, 1.06])
    outer = np.concatenate(
        [mirror(crown[:0:-1]), crown]
    )  # left temple, over the crown, right temple
    inner = np.concatenate([line, mirror(line[-2::-1])])  # right temple, along the hairline, left
    if style == "side":
        inner[3:7] += np.array([(0.0, 0.0), (0.0, -0.06), (-0.02, 0.0), (0.02, 0.12)])
    outline = np.concatenate([curve(outer * w, 4), curve(inner * w, 4)])
    front = [Shape(paint="hair", points=outline[None])]
    for k in np.linspace(-0.4, 0.4, 3 if style != "cropped" else 0):
        lock = np.array([(k * 0.5, -1.03), (k * 0.9, -0.9), (k * 1.15, -0.74)])
        front.append(Shape(paint="strand", points=curve(lock * w, 3)[None], line=0.02))
    return back, front


def glasses(who: FaceIdentity) -> list[Shape]:
    """Rims and bridge; the eyes stay visible."""
    if who.glasses == "none":
        return []
    out = []
    x, rx, ry = who.eye_spacing + 0.01, 0.235, 0.185
    for side in (-1.0, 1.0):
        if who.glasses == "round":
            rim = ellipse(side * x, 0.02, 0.21, 0.2, 20)
        else:
            corners = [(-rx, -0.75 * ry), (rx, -0.8 * ry), (0.9 * rx, ry), (-0.85 * rx, 0.95 * ry)]
            rim = np.array(corners) * np.array([side, 1.0]) + np.array([side * x, 0.03])
        out.append(Shape(paint="rim", points=np.concatenate([rim, rim[:1]])[None], line=0.026))
        arm = np.array([(side * (x + 0.22), -0.03), (side * 0.7, -0.04)])
        out.append(Shape(paint="rim", points=arm[None], line=0.026))
    bridge = np.array([(-x + 0.21, -0.02), (0.0, -0.05), (x - 0.21, -0.02)])
    return [*out, Shape(paint="rim", points=curve(bridge, 3)[None], line=0.026)]

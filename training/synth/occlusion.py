"""What hides a face: a mask, sunglasses, a low cap, something held before it, the back of the head."""

import numpy as np

from training.synth.actors import FaceIdentity
from training.synth.face import Mouth
from training.synth.head import skull_controls
from training.synth.shapes import Shape, ellipse
from training.synth.splines import curve, mirrored


def medical_mask(lips: Mouth) -> list[Shape]:
    """From the bridge of the nose to under the chin; the jaw moves it a little."""
    half = np.array(
        [(0.0, 0.10), (0.3, 0.18), (0.62, 0.26), (0.6, 0.55), (0.42, 0.88), (0.0, 1.06)]
    )
    outline = mirrored(half)[None].repeat(len(lips.jaw), 0)
    outline[:, :, 1] += 0.5 * lips.jaw[:, None] * (outline[:, :, 1] > 0.5)
    out = [Shape(paint="cloth", points=curve(outline, 4, closed=True))]
    for y in (0.42, 0.58, 0.74):
        pleat = np.array([(-0.5, y), (0.0, y + 0.04), (0.5, y)])
        out.append(Shape(paint="cloth_line", points=curve(pleat, 3)[None], line=0.018))
    for side in (-1.0, 1.0):
        for y in (0.28, 0.56):
            loop = np.array([(side * 0.58, y), (side * 0.71, 0.1)])
            out.append(Shape(paint="cloth_line", points=loop[None], line=0.02))
    return out


def sunglasses(who: FaceIdentity) -> list[Shape]:
    """Two dark lenses that take the lids and what is around them."""
    out = []
    for side in (-1.0, 1.0):
        lens = ellipse(side * (who.eye_spacing + 0.01), 0.02, 0.27, 0.205, 18)
        out.append(Shape(paint="lens", points=lens[None]))
        arm = np.array([(side * 0.56, -0.03), (side * 0.71, -0.04)])
        out.append(Shape(paint="lens", points=arm[None], line=0.05))
    bridge = np.array([(-0.1, -0.03), (0.1, -0.03)])
    return [*out, Shape(paint="lens", points=bridge[None], line=0.05)]


def cap() -> list[Shape]:
    """Pulled down over the brows, with a peak."""
    dome = np.array(
        [(0.0, -1.14), (0.46, -1.05), (0.76, -0.7), (0.77, -0.28), (0.5, -0.2), (0.0, -0.17)]
    )
    peak = np.array([(0.0, -0.36), (0.52, -0.34), (0.66, -0.2), (0.4, -0.12), (0.0, -0.09)])
    return [
        Shape(paint="cloth", points=curve(mirrored(dome), 4, closed=True)[None]),
        Shape(paint="cloth_line", points=curve(mirrored(peak), 4, closed=True)[None]),
    ]


def held_object(kind: str, skew: float) -> list[Shape]:
    """A `book`, a sheet of `paper` or two `hands` before the whole face; `skew` in [-1, 1]."""
    if kind in ("book", "paper"):
        corners = np.array([(-0.82, -0.62), (0.82, -0.62), (0.82, 1.12), (-0.82, 1.12)])
        turn = 0.12 * skew
        corners = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        out = [Shape(paint="cloth", points=corners[None], plane="front")]
        if kind == "book":
            spine = np.array([(0.0, -0.6), (0.0, 1.1)])
            out.append(Shape(paint="cloth_line", points=spine[None], line=0.05, plane="front"))
        for y in np.linspace(-0.4, 0.9, 5 if kind == "paper" else 2):
            text = np.array([(-0.55, y), (0.55, y + 0.03 * skew)])
            out.append(Shape(paint="cloth_line", points=text[None], line=0.03, plane="front"))
        return out
    out = []
    for side in (-1.0, 1.0):
        palm = ellipse(side * 0.36, 0.62, 0.36, 0.46, 18)
        out.append(Shape(paint="hand", points=palm[None], plane="front"))
        for k, x in enumerate((0.08, 0.27, 0.46, 0.62)):
            tip = (-0.46, -0.55, -0.50, -0.30)[k] + 0.05 * skew
            finger = np.array([(side * (x + 0.02), 0.5), (side * (x + 0.01 * skew), tip)])
            out.append(Shape(paint="hand", points=finger[None], line=0.185, plane="front"))
            gap = np.array([(side * (x + 0.11), 0.45), (side * (x + 0.1), tip + 0.1)])
            out.append(Shape(paint="hand_line", points=gap[None], line=0.02, plane="front"))
    return out


def back_of_head(who: FaceIdentity, lips: Mouth) -> list[Shape]:
    """The head from behind: hair where the face would be, or skin on a bald head."""
    half = skull_controls(who) * np.array([1.05, 1.0])
    half[:, 1] = np.where(half[:, 1] < 0, half[:, 1] * 1.07, half[:, 1] * 0.86)
    outline = curve(mirrored(half), 4, closed=True)[None]
    bald = who.hair_style == "bald"
    out = [Shape(paint="skin" if bald else "hair", points=outline)]
    for x in np.linspace(-0.5, 0.5, 6):
        lock = np.array([(0.35 * x, -0.95), (x, -0.3), (1.05 * x, 0.55)])
        paint = "fold" if bald else "strand"
        if not bald:
            out.append(Shape(paint=paint, points=curve(lock, 4)[None], line=0.022))
    return out

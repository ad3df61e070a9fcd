"""The renderer of `train` and `test`: anti-aliased outlines at twice the size, painted back to front."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth import face, head, occlusion
from training.synth.backdrop import Sensor, backdrop
from training.synth.motion import Motion
from training.synth.script import Script
from training.synth.shapes import HEAD_HEIGHT, SHIFT, Shape, ellipse, project
from training.synth.styles import OUTLINED, OVER, STYLES, Style, palette, rgb

LINE = cv2.LINE_8
_OVERSAMPLE = 2
#: Onion layers of a rounded head: how far each shrinks towards the light, and its brightness.
_LAYERS = ((0.0, 0.80), (0.10, 0.87), (0.22, 0.94), (0.38, 1.0), (0.6, 1.05))


def build_shapes(script: Script, motion: Motion, style: Style, light: float) -> list[Shape]:
    """Everything to draw, back to front."""
    who = script.actor.face
    who = replace(
        who,
        eye_scale=who.eye_scale * style.features,
        brow_thickness=who.brow_thickness * style.features,
    )
    acting = script.acting.face
    au = face.Units(motion.action_units, script.actor.habits.side_gains)
    lips = face.mouth(who, au, motion)
    back, front = head.hair(who)
    if acting.state == "turned":
        return [*back, *head.body(who), *head.ears(who), *occlusion.back_of_head(who, lips)]
    sockets = [
        Shape(paint="socket", points=ellipse(s * who.eye_spacing, -0.05, 0.225, 0.155)[None])
        for s in (-1.0, 1.0)
    ]
    shapes = [*back, *head.body(who), *head.ears(who), head.skull(who, lips)]
    shapes += [*sockets, *head.beard(who, lips), *face.folds(who, au, lips)]
    shapes += [*head.nose(who, au, light), *lips.shapes, *face.eyes(who, au, motion)]
    if "brows" in acting.covered and acting.state == "expressive":
        shapes += [*face.brows(who, au), *head.glasses(who), *occlusion.cap()]
    else:
        shapes += [*front, *face.brows(who, au), *head.glasses(who)]
    if acting.state == "occluded":
        rng = script.rng("object")
        kind = str(rng.choice(["book", "paper", "hands"], p=[0.35, 0.25, 0.4]))
        shapes += occlusion.held_object(kind, float(rng.uniform(-1, 1)))
    elif acting.covered == ("mouth",):
        shapes += occlusion.medical_mask(lips)
    elif acting.covered == ("eyes",):
        shapes += occlusion.sunglasses(who)
    return shapes


def render(script: Script, motion: Motion, size_px: int) -> NDArray[np.uint8]:
    """Frames (F, size_px, size_px, 3) RGB of a clip of the `train` or `test` split."""
    style = STYLES[script.acting.style]
    rng = script.rng("picture")
    frames = len(motion.yaw)
    big = size_px * _OVERSAMPLE
    light = float(rng.uniform(-1, 1))
    colours = palette(style, script.actor.face, rng)
    background = backdrop(style, colours["skin"], big, rng)
    sensor = Sensor(style, size_px, rng)
    # By time, not by position, so that a frame is the same whichever others are asked for.
    offsets = rng.integers(0, 16, (64, 2))[np.rint(motion.times_s * 100).astype(int) % 64]
    shapes = build_shapes(script, motion, style, light)
    outlines = project(shapes, motion, big)
    unit_px = motion.home_scale * big / HEAD_HEIGHT
    ink = rgb(colours.get("ink", colours["fold"]))
    ink_px = max(1, round(style.outline * unit_px)) if style.outline else 0
    glint = style.rounded or style.outline > 0

    plan = []
    for shape, points in zip(shapes, outlines, strict=True):
        under, over = colours[OVER.get(shape.paint, "skin")], colours[shape.paint]
        if shape.strength is None:
            paints = [rgb(over)] * frames
            seen = [True] * frames
        else:
            mixed = under + np.clip(shape.strength, 0, 1)[:, None] * (over - under)
            paints = [(int(r), int(g), int(b)) for r, g, b in np.rint(np.clip(mixed, 0, 255))]
            seen = (shape.strength > 0.06).tolist()
        width = None if shape.line is None else max(1, round(shape.line * unit_px))
        if width is not None and points.shape[1] > 6:  # half the points: a stroke is cheap to thin
            points = np.ascontiguousarray(points[:, np.r_[0 : points.shape[1] - 1 : 2, -1]])
        rounded = style.rounded and shape.paint == "skin"
        outlined = ink_px > 0 and shape.paint in OUTLINED
        plan.append(
            (points, paints, seen, width, rounded, outlined, shape.paint == "pupil" and glint)
        )

    slack = background.shape[0] - big
    pan = np.clip((0.5 + 0.8 * (motion.centre - motion.home)) * slack, 0, slack).astype(int)
    base = colours["skin"]
    out = np.empty((frames, size_px, size_px, 3), dtype=np.uint8)
    for f in range(frames):
        px, py = pan[f]
        canvas = background[py : py + big, px : px + big].copy()
        for points, paints, seen, width, rounded, outlined, eye in plan:
            if not seen[f]:
                continue
            outline = points[f]
            if width is not None:
                cv2.polylines(canvas, [outline], False, paints[f], width, LINE, SHIFT)
                continue
            if rounded:
                _paint_ball(canvas, outline, base, light)
            else:
                cv2.fillPoly(canvas, [outline], paints[f], LINE, SHIFT)
            if outlined:
                cv2.polylines(canvas, [outline], True, ink, ink_px, LINE, SHIFT)
            if eye and np.ptp(outline[:, 1]) > 3 << SHIFT:
                spot = outline.mean(0).astype(int) - np.array([1, 1]) * (
                    round(0.022 * unit_px) << SHIFT
                )
                cv2.circle(
                    canvas,
                    spot.tolist(),
                    round(0.016 * unit_px) << SHIFT,
                    (250, 250, 250),
                    -1,
                    cv2.LINE_AA,
                    SHIFT,
                )
        picture = cv2.resize(canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
        y, x = offsets[f]
        out[f] = sensor.expose(picture, (int(y), int(x)))
    return out


def _paint_ball(
    canvas: NDArray[np.uint8], outline: NDArray[np.int32], skin: NDArray[np.float64], light: float
) -> None:
    """The head as a ball lit from one side: ever smaller, ever brighter layers."""
    middle = outline.mean(0)
    reach = np.ptp(outline[:, 0])
    towards = middle + reach * np.array([0.22 * light, -0.14])
    for shrink, brightness in _LAYERS:
        layer = outline + shrink * (towards - outline)
        cv2.fillPoly(canvas, [layer.astype(np.int32)], rgb(skin * brightness), LINE, SHIFT)

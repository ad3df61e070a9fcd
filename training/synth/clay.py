"""The out-of-distribution renderer: a stop-motion puppet of modelling clay, lit as a relief.

Where `render` paints colours, this builds a height map from the same parts on a differently proportioned head, finds
its normals, and lights them (Lambert, Blinn-Phong highlight, darkened hollows). It never draws a shadow, fold or line:
all of them come from the relief. Its movement is on twos, as puppets are animated.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.synth.motion import Motion
from training.synth.render import build_shapes
from training.synth.script import Script
from training.synth.shapes import HEAD_HEIGHT, SHIFT, Shape, ellipse, project
from training.synth.styles import Style, rgb

Array = NDArray[np.float64]

#: Pictures a second that the puppet is moved at.
POSES_HZ = 8.0
_OVERSAMPLE = 2
_STYLE = Style(name="clay", features=1.12)
_SKIP = frozenset({"nose_shade", "nose_light", "socket", "lash", "strand", "stubble", "nostril"})
#: Height of each part, 0 far to 255 near.
_HEIGHT = {
    "neck": 60, "clothes": 70, "ear": 95, "ear_in": 70, "hair_back": 60, "hair": 178, "beard": 182,
    "mouth": 70, "tongue": 105, "teeth": 140, "lip_upper": 196, "lip_lower": 200, "sclera": 182,
    "iris": 186, "pupil": 180, "brow": 208, "rim": 205, "lens": 214, "cloth": 205, "cloth_line": 190,
    "hand": 218, "hand_line": 190, "nose_ball": 232,
}  # fmt: skip
_RIM = ((0.0, 118), (0.03, 142), (0.06, 158), (0.10, 164))
_DOME = 95.0
_CLAYS = np.array(
    [(222, 168, 128), (198, 132, 92), (150, 96, 66), (240, 200, 170), (120, 170, 200), (150, 190, 120),
     (226, 150, 160), (170, 140, 200), (232, 190, 96)],
    dtype=float,
)  # fmt: skip


def pose_times(times_s: Array) -> Array:
    """The instants that the puppet was posed at: each pose is held until the next."""
    return np.floor(times_s * POSES_HZ + 1e-9) / POSES_HZ


def _puppet(points: Array) -> Array:
    """A puppet's proportions: a broad low face, features spread out."""
    x, y = points[..., 0], points[..., 1]
    broad = 1.10 + 0.05 * np.clip(y, -1, 1)
    high = 0.04 * np.exp(-(((y + 0.3) / 0.13) ** 2))  # brows sit high
    return np.stack([x * broad, np.where(y > 0, 0.93 * y, 0.96 * y) - high], axis=-1)


def _clay_shapes(script: Script, motion: Motion) -> list[Shape]:
    shapes = []
    for shape in build_shapes(script, motion, _STYLE, light=0.0):
        if shape.paint in _SKIP:
            continue
        points = shape.points if shape.plane == "body" else _puppet(shape.points)
        shapes.append(replace(shape, points=points))
        if shape.paint == "skin" and script.acting.face.state != "turned":
            # Right after the head: under lips, brows and anything that is held before the face.
            nose = ellipse(0.0, 0.2, 0.13, 0.14, 16)[None]
            shapes.append(Shape(paint="nose_ball", points=nose))
    return shapes


def _palette(script: Script, rng: np.random.Generator) -> dict[str, Array]:
    skin = _CLAYS[int(rng.integers(len(_CLAYS)))] + rng.normal(0, 8, 3)
    hair = rng.uniform(30, 200, 3)
    cloth = rng.uniform(60, 220, 3)
    lips = skin * np.array([0.86, 0.55, 0.56]) + np.array([22.0, 0, 6])
    return {
        "skin": skin, "neck": skin * 0.95, "ear": skin, "ear_in": skin * 0.9, "hand": skin * 1.02,
        "hand_line": skin * 0.7, "cheek": skin * np.array([1.05, 0.93, 0.93]), "nose_ball": skin * 1.02,
        "hair": hair, "hair_back": hair * 0.9, "beard": hair, "brow": np.minimum(hair * 0.8, skin * 0.55),
        "lip_upper": lips, "lip_lower": lips, "lip_line": lips * 0.6, "mouth": np.array([58.0, 20, 28]),
        "tongue": np.array([200.0, 96, 104]), "teeth": np.array([240.0, 236, 226]),
        "sclera": np.array([244.0, 242, 236]), "iris": rng.uniform(30, 150, 3), "pupil": np.array([16.0, 14, 16]),
        "clothes": rng.uniform(40, 220, 3), "rim": rng.uniform(20, 120, 3), "lens": np.array([26.0, 26, 34]),
        "cloth": cloth, "cloth_line": cloth * 0.8, "fold": skin * 0.86,
    }  # fmt: skip


def _stage(size_px: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Painted card behind the puppet: colours and a paper relief, at drawing size."""
    top, low = rng.uniform(60, 220, 3), rng.uniform(40, 200, 3)
    edge = int(rng.uniform(0.55, 0.9) * size_px)
    colour = np.empty((size_px, size_px, 3), np.uint8)
    colour[:edge], colour[edge:] = top.astype(np.uint8), low.astype(np.uint8)
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.integers(0, size_px, 2).tolist()
        radius = int(rng.uniform(0.04, 0.14) * size_px)
        cv2.circle(colour, (x, y), radius, rng.uniform(60, 240, 3).tolist(), -1)
    return colour, np.zeros((size_px, size_px), np.uint8)


def _light(
    albedo: NDArray[np.uint8], height: NDArray[np.float32], sun: Array, gloss: float, ambient: float
) -> NDArray[np.uint8]:
    """Shade a relief; `height` in grey levels, `sun` a unit vector (x right, y down, z to the viewer)."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 90)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 90)
    inverse = 1 / np.sqrt(dx * dx + dy * dy + 1)
    facing = (sun[2] - sun[0] * dx - sun[1] * dy) * inverse
    hollow = height - cv2.blur(height, (9, 9))
    shade = ambient + (1.15 - ambient) * np.maximum(facing, 0) + 0.006 * np.minimum(hollow, 0)
    half = sun + np.array([0.0, 0.0, 1.0])
    half = half / np.linalg.norm(half)
    shine = np.maximum((half[2] - half[0] * dx - half[1] * dy) * inverse, 0) ** 24 * gloss
    lit = albedo * np.maximum(shade, 0.1)[..., None] + shine[..., None]
    return np.clip(lit, 0, 255).astype(np.uint8)


def render(script: Script, motion: Motion, size_px: int) -> NDArray[np.uint8]:
    """Frames (F, size_px, size_px, 3) RGB of a clip of the `ood` split."""
    rng = script.rng("picture")
    frames = len(motion.yaw)
    big = size_px * _OVERSAMPLE
    colours = _palette(script, rng)
    stage, ground = _stage(big, rng)
    angle, rise = rng.uniform(-2.4, -0.7), rng.uniform(0.5, 0.9)
    sun = np.array(
        [np.cos(angle) * np.sqrt(1 - rise**2), np.sin(angle) * np.sqrt(1 - rise**2), rise]
    )
    gloss, ambient = rng.uniform(10, 60), rng.uniform(0.3, 0.5)
    tint = 1 + rng.normal(0, 0.05, 3)
    dents = cv2.GaussianBlur(rng.standard_normal((size_px, size_px), dtype=np.float32), (0, 0), 1.6)
    dents *= rng.uniform(6, 14)
    grain = rng.normal(0, rng.uniform(0.5, 2.0), (size_px, size_px, 3)).astype(np.int16)
    shapes = _clay_shapes(script, motion)
    outlines = project(shapes, motion, big)
    unit_px = motion.home_scale * big / HEAD_HEIGHT

    out = np.empty((frames, size_px, size_px, 3), np.uint8)
    for f in range(frames):
        colour, height = stage.copy(), ground.copy()
        for shape, points in zip(shapes, outlines, strict=True):
            strength = 1.0 if shape.strength is None else float(shape.strength[f])
            if strength < 0.08:
                continue
            _model(colour, height, shape, points[f], strength, colours, unit_px)
        small = cv2.resize(colour, (size_px, size_px), interpolation=cv2.INTER_AREA)
        relief = cv2.resize(height, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(
            np.float32
        )
        relief = cv2.GaussianBlur(relief, (5, 5), 1.0) + dents
        relief += _dome(motion.centre[f], float(motion.scale[f]), size_px)
        lit = _light(small, relief, sun, gloss, ambient)
        out[f] = cv2.add(np.clip(lit * tint, 0, 255).astype(np.uint8), grain, dtype=cv2.CV_8U)
    return out


def _dome(centre: Array, scale: float, size_px: int) -> NDArray[np.float32]:
    """The roundness of the whole head, (size_px, size_px) grey levels."""
    grid = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    across = ((grid - np.float32(centre[0])) / np.float32(0.385 * scale)) ** 2
    down = ((grid - np.float32(centre[1])) / np.float32(0.52 * scale)) ** 2
    return np.asarray(_DOME * np.sqrt(np.maximum(1 - across - down[:, None], 0)))


def _model(
    colour: NDArray[np.uint8],
    height: NDArray[np.uint8],
    shape: Shape,
    outline: NDArray[np.int32],
    strength: float,
    colours: dict[str, Array],
    unit_px: float,
) -> None:
    """Add one part to the puppet."""
    paint = rgb(colours[shape.paint])
    if shape.paint == "skin":
        cv2.fillPoly(colour, [outline], paint, cv2.LINE_8, SHIFT)
        middle = outline.mean(0)
        for shrink, level in _RIM:
            layer = (outline + shrink * (middle - outline)).astype(np.int32)
            cv2.fillPoly(height, [layer], level, cv2.LINE_8, SHIFT)
        return
    if shape.paint in ("fold", "lip_line"):
        # A groove, pressed deeper the stronger it is.
        width = max(1, round(1.5 * (shape.line or 0.02) * unit_px))
        cv2.polylines(
            height, [outline], False, round(164 - 62 * strength), width, cv2.LINE_8, SHIFT
        )
        return
    if shape.paint == "cheek":
        cv2.fillPoly(height, [outline], round(166 + 40 * strength), cv2.LINE_8, SHIFT)
        return
    level = _HEIGHT[shape.paint]
    if shape.line is not None:
        width = max(1, round(shape.line * unit_px))
        cv2.polylines(colour, [outline], False, paint, width, cv2.LINE_8, SHIFT)
        cv2.polylines(height, [outline], False, level, width, cv2.LINE_8, SHIFT)
        return
    cv2.fillPoly(colour, [outline], paint, cv2.LINE_8, SHIFT)
    cv2.fillPoly(height, [outline], level, cv2.LINE_8, SHIFT)
    if shape.paint == "nose_ball":
        core = (outline + 0.45 * (outline.mean(0) - outline)).astype(np.int32)
        cv2.fillPoly(height, [core], 248, cv2.LINE_8, SHIFT)

"""Ways of drawing the same head: shaded, cartoon, line, dim; and the colours of a clip in one of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.synth.actors import FaceIdentity

Array = NDArray[np.float64]
Rgb = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """A renderer setting.

    Attributes:
        name: As recorded in the manifest.
        rounded: Shade the head as a ball instead of painting it flat.
        outline: Width of the ink around every part, face units; 0 for none.
        ink_only: Lines on paper, no skin.
        features: Enlargement of eyes and brows.
        saturation, contrast, brightness: Of colours, 1 is as they are.
        blur_px: Standard deviation at 128 px.
        noise: Standard deviation range of sensor noise, grey levels.
    """

    name: str
    rounded: bool = False
    outline: float = 0.0
    ink_only: bool = False
    features: float = 1.0
    saturation: float = 1.0
    contrast: float = 1.0
    brightness: float = 1.0
    blur_px: float = 0.0
    noise: tuple[float, float] = (1.0, 4.0)


STYLES = {
    style.name: style
    for style in (
        Style(name="shaded", rounded=True, blur_px=0.45),
        Style(name="cartoon", outline=0.022, features=1.14, saturation=1.25, noise=(0.0, 2.0)),
        Style(name="line", ink_only=True, outline=0.02, noise=(0.5, 3.0)),
        Style(
            name="dim", rounded=True, saturation=0.35, contrast=0.6, brightness=0.78,
            blur_px=0.6, noise=(3.0, 7.0),
        ),
    )
}  # fmt: skip

#: Parts that ink goes around.
OUTLINED = frozenset(
    {"skin", "hair", "hair_back", "ear", "neck", "clothes", "beard", "lip_upper", "lip_lower", "sclera",
     "cloth", "lens", "hand", "mouth"}
)  # fmt: skip
#: Parts drawn over something other than skin: their strength fades towards it.
OVER = {"teeth": "mouth", "tongue": "mouth", "lash": "skin", "lip_line": "lip_lower"}


def _paint_colours(who: FaceIdentity, rng: np.random.Generator) -> dict[str, Array]:
    skin, hair = np.array(who.skin), np.array(who.hair)
    lips = np.array(who.lips)
    cloth = rng.choice(
        [(196, 214, 226), (236, 236, 232), (46, 48, 54), (160, 60, 58), (60, 92, 140)]
    )
    return {
        "skin": skin,
        "neck": skin * 0.84,
        "ear": skin * 0.93,
        "ear_in": skin * 0.76,
        "nose_shade": skin * 0.87,
        "nose_light": skin * 1.07 + 4,
        "nostril": skin * 0.36,
        "fold": skin * 0.47 - 4,
        "cheek": skin * np.array([1.08, 0.93, 0.93]) + np.array([8.0, 2, 2]),
        "socket": skin * 0.88,
        "lip_upper": lips * 0.9,
        "lip_lower": lips,
        "lip_line": lips * 0.42,
        "mouth": np.array([62.0, 18, 24]),
        "tongue": np.array([186.0, 88, 92]),
        "teeth": np.array([236.0, 230, 218]),
        "sclera": np.array([238.0, 236, 232]),
        "iris": np.array(who.iris),
        "pupil": np.array([14.0, 12, 12]),
        "lash": np.array([30.0, 22, 20]),
        "brow": np.minimum(np.array(who.brow), skin * 0.62),
        "hair": hair,
        "hair_back": hair * 0.72,
        "strand": hair * 1.2 + 12,
        "beard": 0.82 * hair + 0.12 * skin,
        "stubble": 0.72 * skin + 0.2 * hair,
        "clothes": np.array(who.clothes),
        "rim": rng.choice([(24.0, 22, 22), (96, 60, 34), (150, 40, 44), (170, 170, 176)]),
        "lens": np.array([22.0, 24, 30]),
        "cloth": cloth.astype(float),
        "cloth_line": cloth * 0.62,
        "hand": skin * 0.97,
        "hand_line": skin * 0.55,
        "ink": np.array([32.0, 26, 26]),
    }


def _ink_colours(rng: np.random.Generator) -> dict[str, Array]:
    """Everything is paper but what a draughtsman would fill."""
    pairs = [
        ((238, 235, 226), (34, 34, 40)),
        ((226, 214, 190), (70, 44, 30)),
        ((40, 48, 52), (226, 228, 222)),
    ]
    paper, ink = (np.array(c, float) for c in pairs[int(rng.choice(3, p=[0.6, 0.25, 0.15]))])

    def mix(share: float) -> Array:
        return paper + share * (ink - paper)

    shares = {
        "brow": 0.95, "pupil": 1.0, "iris": 0.55, "lash": 1.0, "fold": 0.75, "lip_line": 1.0, "mouth": 0.8,
        "nostril": 0.8, "rim": 0.9, "hair": 0.3, "hair_back": 0.42, "strand": 0.7, "beard": 0.35, "stubble": 0.14,
        "lens": 0.9, "clothes": 0.2, "cloth": 0.12, "cloth_line": 0.6, "hand_line": 0.8, "cheek": 0.1, "ink": 0.95,
        "lip_upper": 0.16, "lip_lower": 0.1, "tongue": 0.45, "ear_in": 0.25, "nose_shade": 0.1,
    }  # fmt: skip
    names = ("skin", "neck", "ear", "nose_light", "socket", "teeth", "sclera", "hand")
    return {**{name: paper for name in names}, **{name: mix(s) for name, s in shares.items()}}


def palette(style: Style, who: FaceIdentity, rng: np.random.Generator) -> dict[str, Array]:
    """RGB of every paint in this clip's light."""
    colours = _ink_colours(rng) if style.ink_only else _paint_colours(who, rng)
    warmth, exposure = rng.normal(0, 0.05), rng.uniform(0.82, 1.12)
    light = exposure * np.array([1 + warmth, 1.0, 1 - warmth])
    # The camera meters the face: deep skin keeps its folds and lines in dim light.
    metered = light * np.clip(88 / float(np.mean(who.skin)), 1.0, 1.7)
    light = np.clip(light, 0.92, 1.05) if style.ink_only else metered
    out = {}
    for name, colour in colours.items():
        grey = colour.mean()
        lit = (grey + style.saturation * (colour - grey)) * light
        out[name] = np.clip((lit - 110) * style.contrast + 110 * style.brightness, 2, 253)
    return out


def rgb(colour: Array) -> Rgb:
    """As cv2 takes it."""
    r, g, b = (round(float(c)) for c in np.clip(colour, 0, 255))
    return r, g, b

"""One colour for each emotion label, the same in the terminal view and in figures."""

from collections.abc import Iterable
from typing import Final

COLOURS: Final = {
    "happy": "#FACD21",
    "surprise": "#DB7F33",
    "neutral": "#CDD2D6",
    "angry": "#A01414",
    "disgust": "#279166",
    "sad": "#1F4390",
    "fear": "#AA84C4",
    "contemptuous": "#553F44",
    "disappointed": "#6BBBF2",
    "helpless": "#9EE08B",
    "anxious": "#C88DA1",
    "calm": "#FFE6CF",
}
"""Hex sRGB by label, chosen to stay apart under protanopia, deuteranopia and tritanopia."""

_OTHERS: Final = ("#4C5B6B", "#9FD3D1", "#6B8E23", "#D9B48F", "#5F4B8B", "#F2A7A0", "#3B7A80")


def colours(labels: Iterable[str]) -> dict[str, str]:
    """Colour of each label; labels beyond `COLOURS` take turns among seven more, by name."""
    names = list(dict.fromkeys(labels))
    others = sorted(name for name in names if name not in COLOURS)
    taken = {name: _OTHERS[k % len(_OTHERS)] for k, name in enumerate(others)}
    return {name: COLOURS.get(name) or taken[name] for name in names}

"""Words in letters three rows high, drawn with half blocks."""

from __future__ import annotations

from typing import Final

ROWS: Final = 3

_LETTERS: Final = """
A .#. #.# ### #.# #.#
B ##. #.# ##. #.# ##.
C .## #.. #.. #.. .##
D ##. #.# #.# #.# ##.
E ### #.. ##. #.. ###
F ### #.. ##. #.. #..
G .## #.. #.# #.# .##
H #.# #.# ### #.# #.#
I # # # # #
J ..# ..# ..# #.# .#.
K #.# #.# ##. #.# #.#
L #.. #.. #.. #.. ###
M #...# ##.## #.#.# #...# #...#
N #..# ##.# #.## #..# #..#
O .#. #.# #.# #.# .#.
P ##. #.# ##. #.. #..
Q .#. #.# #.# .#. ..#
R ##. #.# ##. #.# #.#
S .## #.. .#. ..# ##.
T ### .#. .#. .#. .#.
U #.# #.# #.# #.# ###
V #.# #.# #.# #.# .#.
W #...# #...# #.#.# ##.## #...#
X #.# #.# .#. #.# #.#
Y #.# #.# .#. .#. .#.
Z ### ..# .#. #.. ###
- .. .. ## .. ..
"""
_FONT: Final = {line[0]: line[2:].split() for line in _LETTERS.strip().splitlines()}
_FONT[" "] = [".."] * 5
_BLOCKS: Final = {"..": " ", "#.": "▀", ".#": "▄", "##": "█"}


def letter(word: str) -> list[str] | None:
    """`word` as `ROWS` strings of equal length, or None if a character has no drawing."""
    glyphs = [_FONT.get(character) for character in word.upper()]
    if not glyphs or None in glyphs:
        return None
    pixels = [".".join(glyph[row] for glyph in glyphs if glyph) for row in range(5)]
    pixels.append("." * len(pixels[0]))
    return [
        "".join(_BLOCKS[upper + lower] for upper, lower in zip(*pair, strict=True))
        for pair in zip(pixels[::2], pixels[1::2], strict=True)
    ]

"""Who is who from frame to frame, by place, size, motion and a few mean colours, all of which go with the track.

Numbers are given in the order of coming. Who was out of sight for longer than `BRIDGE_S` is forgotten and gets a new
number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emostream.people.faces import BEGIN_FROM, Box, Face

#: Seconds for which a track waits for a face that is hidden, or that the detector missed.
BRIDGE_S = 3.0
#: Seconds without a face after which somebody no longer counts as visible.
VISIBLE_S = 0.75
#: A face farther than this from a track is not its next one; in sides of the face, as `Track.distance` counts.
REACH = 6.0
#: Sides that a difference of colours of 1 counts as: from frame to frame it is 0.02, between two people 0.15.
COLOURS = 30.0
#: Share of a frame's colours in the remembered ones: small, for others may be in front.
BLEND = 0.2
#: Share of the newly measured velocity in the one that is expected.
AGILITY = 0.7
#: Movements of the box below this share of its side are the detector's own unrest and mostly smoothed away.
UNREST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Somebody who stays in the picture.

    Attributes:
        number: From 1.
        face: As last seen.
        seen_s: When that was, in seconds of the frames' clock.
        velocity: Of the box's centre, in pixels a second.
        colours: (6, 4, 3) as `Face.colours`, blended over the last frames; None if unknown.
        steady: The box without the detector's unrest: what a picture of this face is cut by.
    """

    number: int
    face: Face
    seen_s: float
    velocity: tuple[float, float]
    colours: NDArray[np.float32] | None
    steady: Box

    def expected(self, time_s: float) -> tuple[float, float]:
        """Where the centre should be; who is out of sight is taken to slow down."""
        away_s = min(time_s - self.seen_s, BRIDGE_S)
        ahead_s = away_s * (1 - away_s / (2 * BRIDGE_S))
        x, y = self.face.box.centre
        return x + self.velocity[0] * ahead_s, y + self.velocity[1] * ahead_s

    def distance(self, face: Face, time_s: float) -> float:
        """How unlike the expected one a face is, in sides of a face; infinite if it cannot be this track's."""
        side = self.face.box.side
        total = math.dist(self.expected(time_s), face.box.centre) / side
        total += 2 * abs(math.log(face.box.side / side))
        if face.colours is not None and self.colours is not None:
            total += COLOURS * float(np.abs(face.colours - self.colours).mean())
        return total if total <= REACH else math.inf

    def moved(self, face: Face, time_s: float) -> "Track":
        """The track with its next face."""
        elapsed_s = time_s - self.seen_s
        velocity = tuple(
            AGILITY * (new - old) / elapsed_s + (1 - AGILITY) * before
            for new, old, before in zip(
                face.box.centre, self.face.box.centre, self.velocity, strict=True
            )
        )
        return replace(
            self,
            face=face,
            seen_s=time_s,
            velocity=(velocity[0], velocity[1]),
            colours=_blend(self.colours, face.colours),
            steady=steadied(self.steady, face.box),
        )


def steadied(steady: Box, new: Box) -> Box:
    """The box `new`, freed of unrest by the steady one before it: small differences are damped, large ones followed."""
    change = math.dist(steady.centre, new.centre) / steady.side
    change = max(change, abs(math.log(new.side / steady.side)))
    follow = min(1.0, 0.2 + change / UNREST / 2)
    return Box(
        *(
            old + follow * (now - old)
            for old, now in zip(
                (steady.x, steady.y, steady.width, steady.height),
                (new.x, new.y, new.width, new.height),
                strict=True,
            )
        )
    )


class Tracker:
    """Gives faces that belong together the same number."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._count = 0

    def update(self, time_s: float, faces: Sequence[Face]) -> tuple[Track, ...]:
        """Take in the faces of a frame.

        Args:
            time_s: Of the frame, in seconds; later than any before.
            faces: From `FaceDetector.find`.

        Returns:
            Those who are visible, in the order of coming: seen in this frame, or at most `VISIBLE_S` ago.
        """
        self._tracks = [track for track in self._tracks if time_s - track.seen_s <= BRIDGE_S]
        pairs = assigned(
            [[track.distance(face, time_s) for face in faces] for track in self._tracks]
        )
        for index, taken in pairs.items():
            self._tracks[index] = self._tracks[index].moved(faces[taken], time_s)
        for index, face in enumerate(faces):
            if index not in pairs.values() and face.confidence >= BEGIN_FROM:
                self._count += 1
                self._tracks.append(
                    Track(
                        number=self._count,
                        face=face,
                        seen_s=time_s,
                        velocity=(0.0, 0.0),
                        colours=face.colours,
                        steady=face.box,
                    )
                )
        return tuple(track for track in self._tracks if time_s - track.seen_s <= VISIBLE_S)


def assigned(costs: Sequence[Sequence[float]]) -> dict[int, int]:
    """Row -> column, each used once: the pairs with the lowest cost first, infinite ones never."""
    pairs: dict[int, int] = {}
    ordered = sorted((cost, r, c) for r, row in enumerate(costs) for c, cost in enumerate(row))
    for cost, row, column in ordered:
        if cost < math.inf and row not in pairs and column not in pairs.values():
            pairs[row] = column
    return pairs


def _blend(
    before: NDArray[np.float32] | None, now: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    return now if before is None or now is None else before + BLEND * (now - before)

"""Who is there: each grid frame is looked at once, each sound heard once, and every window gets its answer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emostream.errors import ConfigError
from emostream.people.crop import LEAST_FACE_PX
from emostream.people.faces import Box, FaceDetector
from emostream.people.limits import MOST_PEOPLE
from emostream.people.speech import Listener
from emostream.people.tracks import BRIDGE_S, Track, Tracker

#: Share of a window from which somebody is speaking: 0.4 s of 4 s. Music reaches 0.06.
SPEAKING_FROM = 0.1
#: How much larger in area somebody must be, and for how long, to take the place of one who is shown.
LARGER, FOR_S = 1.5, 1.0

NOBODY_VISIBLE = "nobody visible"
FACE_TOO_SMALL = "face too small"
NOBODY_SPEAKING = "nobody speaking"
VOICE_UNATTRIBUTED = "voice unattributed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in a grid frame.

    Attributes:
        track: Number that holds while they stay.
        box: Steady, in pixels of the frame: what a crop is cut by.
        confidence: The detector's when they were last seen, in [0, 1].
        seen: Whether the face was found in this very frame; else the frame before stands in.
        too_small: The face has fewer than `LEAST_FACE_PX` pixels a side.
    """

    track: int
    box: Box
    confidence: float
    seen: bool
    too_small: bool

    @classmethod
    def of(cls, track: Track, time_s: float) -> "Person":
        """Who is tracked, in the grid frame at `time_s`."""
        return cls(
            track=track.number,
            box=track.steady,
            confidence=track.face.confidence,
            seen=track.seen_s == time_s,
            too_small=track.steady.side < LEAST_FACE_PX,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a grid frame shows.

    Attributes:
        time_s: Of the frame.
        width, height: Of the frame in pixels.
        people: How many are visible.
        shown: Those who are to be judged, each in the place that is theirs while they stay; None where nobody is.
        taken: Whether each place is somebody's, who may be out of sight for a moment.
        tracks: Numbers of all who are visible.
    """

    time_s: float
    width: int
    height: int
    people: int
    shown: tuple[Person | None, ...]
    taken: tuple[bool, ...] = ()
    tracks: frozenset[int] = frozenset()

    @property
    def left_out(self) -> int:
        """How many are visible and not shown."""
        return self.people - sum(person is not None for person in self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleFace:
    """Attributes for messages.

    Attributes:
        box: x, y, width and height, in parts of the frame's width and height.
        confidence: In [0, 1].
        track: Number that holds while they stay.
    """

    box: tuple[float, float, float, float]
    confidence: float
    track: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """Why a modality is left out of a window; None where it is not."""

    video: str | None
    audio: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """Who is there in a window, of one shown person.

    Attributes:
        people: How many are visible at its end; None without pictures.
        face: Of the person; None if not visible.
        speech_ratio: Share of the window in which somebody speaks; None without sound.
        absent: Why a modality is to be left out.
        left_out: How many are visible and not shown; None without pictures.
        voice: `attributed` to the person, the only one in view; `unattributed` while there are several; None if nobody
            speaks, or nobody is in view.
        spoken: Where in the window somebody speaks, as `Listener.spoken`; None without sound.
    """

    people: int | None
    face: VisibleFace | None
    speech_ratio: float | None
    absent: Absent
    left_out: int | None = None
    voice: str | None = None
    spoken: tuple[tuple[int, int], ...] | None = None


class People:
    """The people in front of one camera and microphone; not for several threads at once.

    Args:
        most: How many are shown, the largest faces first; None: all, up to `MOST_PEOPLE`.

    Raises:
        ConfigError: `most` is below 1 or above `MOST_PEOPLE`.
        CheckpointError: The weights that ship with this package are damaged.
    """

    def __init__(self, most: int | None = 1) -> None:
        if most is not None and not 1 <= most <= MOST_PEOPLE:
            raise ConfigError(
                f"people: wanted 1 to {MOST_PEOPLE}, or all, found {most}. Show fewer people."
            )
        self._detector = FaceDetector()
        self._tracker = Tracker()
        self._listener = Listener()
        self._cast = Cast(MOST_PEOPLE if most is None else most)

    def see(self, time_s: float, rgb: NDArray[np.uint8]) -> Scene:
        """Look at a grid frame.

        Args:
            time_s: Of the grid point, in seconds; later than any before.
            rgb: (H, W, 3) uint8 RGB.

        Raises:
            InputError: `rgb` has another shape or dtype.
        """
        tracks = self._tracker.update(time_s, self._detector.find(rgb))
        shown = self._cast.choose(time_s, tracks)
        return Scene(
            time_s=time_s,
            width=rgb.shape[1],
            height=rgb.shape[0],
            people=len(tracks),
            shown=tuple(None if track is None else Person.of(track, time_s) for track in shown),
            taken=self._cast.taken,
            tracks=frozenset(track.number for track in tracks),
        )

    def hear(self, start: int, pcm: NDArray[np.float32]) -> float:
        """The share of a window in which somebody speaks; arguments and errors as `Listener.hear`."""
        return self._listener.hear(start, pcm)

    @property
    def spoken(self) -> list[tuple[int, int]]:
        """Where somebody speaks in the window heard last; as `Listener.spoken`."""
        return self._listener.spoken


def several(scenes: Iterable[Scene]) -> bool:
    """Whether more than one person was visible in grid frames, though maybe not at once."""
    return len({track for scene in scenes for track in scene.tracks}) > 1


def attendance(
    scene: Scene | None, speech_ratio: float | None, place: int = 0, *, crowd: bool = False
) -> Attendance:
    """What a window says of the person in a place.

    Who of several speaks cannot be told from two frames a second: the voice is then nobody's, and each is judged by the
    picture alone.

    Args:
        scene: Of its last grid frame; None if there are no pictures.
        speech_ratio: Of its sound; None if there is none.
        place: Index into `Scene.shown`.
        crowd: Whether there were `several` in the window.
    """
    person = None if scene is None or place >= len(scene.shown) else scene.shown[place]
    face = None
    if scene is not None and person is not None:
        face = VisibleFace(
            box=(
                person.box.x / scene.width,
                person.box.y / scene.height,
                person.box.width / scene.width,
                person.box.height / scene.height,
            ),
            confidence=person.confidence,
            track=person.track,
        )
    video = audio = voice = None
    if scene is not None:
        if person is None:
            video = NOBODY_VISIBLE
        elif person.too_small:
            video = FACE_TOO_SMALL
    # Who is out of sight is not the one who speaks if somebody else is in view; a voice alone is the first place's.
    mine = scene is None or person is not None or (place == 0 and scene.people == 0)
    if speech_ratio is not None and speech_ratio < SPEAKING_FROM:
        audio = NOBODY_SPEAKING
    elif speech_ratio is not None and (crowd or not mine):
        audio, voice = VOICE_UNATTRIBUTED, "unattributed"
    elif speech_ratio is not None and person is not None:
        voice = "attributed"
    return Attendance(
        people=None if scene is None else scene.people,
        face=face,
        speech_ratio=speech_ratio,
        absent=Absent(video=video, audio=audio),
        left_out=None if scene is None else scene.left_out,
        voice=voice,
    )


class Cast:
    """Who is shown where: the largest faces, each in one place while they stay.

    Args:
        places: How many are shown at once.
    """

    def __init__(self, places: int) -> None:
        self._places: list[Track | None] = [None] * places  # as last seen
        self._larger_since_s: dict[int, float] = {}

    @property
    def taken(self) -> tuple[bool, ...]:
        """Whether each place is somebody's, in sight or not."""
        return tuple(track is not None for track in self._places)

    def choose(self, time_s: float, tracks: tuple[Track, ...]) -> tuple[Track | None, ...]:
        """Fill the places with those who are visible.

        Who is shown and goes out of sight has the place back within `BRIDGE_S`, unless nobody else's is free for
        somebody who is visible. It goes to somebody whose face has been `LARGER` for `FOR_S` too.

        Args:
            time_s: Of the frame, in seconds.
            tracks: From `Tracker.update`.

        Returns:
            Who is visible in each place; None where nobody is.
        """
        by_number = {track.number: track for track in tracks}
        self._places = [
            held and by_number.get(held.number, held if time_s - held.seen_s <= BRIDGE_S else None)
            for held in self._places
        ]
        numbers = {held.number for held in self._places if held is not None}
        others = sorted(
            (t for t in tracks if t.number not in numbers), key=lambda t: -t.steady.side
        )
        # Free places first, then those of whom has been out of sight longest.
        spare = [
            (-math.inf if held is None else held.seen_s, i)
            for i, held in enumerate(self._places)
            if held is None or held.number not in by_number
        ]
        for track, (_, i) in zip(others, sorted(spare), strict=False):
            self._places[i] = track
        waiting: dict[int, float] = {}
        if len(others) > len(spare):
            side, i = min((held.steady.side, i) for i, held in enumerate(self._places) if held)
            for track in others[len(spare) :]:
                if track.steady.side**2 > LARGER * side**2:
                    waiting[track.number] = self._larger_since_s.get(track.number, time_s)
            due = [number for number, since_s in waiting.items() if time_s - since_s >= FOR_S]
            if due:
                self._places[i] = by_number[due[0]]
        self._larger_since_s = waiting
        return tuple(
            held if held is not None and held.number in by_number else None for held in self._places
        )

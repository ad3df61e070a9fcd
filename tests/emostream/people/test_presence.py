from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from emostream.errors import ConfigError
from emostream.media import iter_frames
from emostream.people.faces import Box, Face
from emostream.people.presence import (
    FACE_TOO_SMALL,
    MOST_PEOPLE,
    NOBODY_SPEAKING,
    NOBODY_VISIBLE,
    VOICE_UNATTRIBUTED,
    Cast,
    People,
    Person,
    Scene,
    attendance,
)
from emostream.people.tracks import Track

STEP_S = 0.5


@pytest.fixture(scope="module")
def actors() -> list[np.ndarray]:
    """(192, 192, 3) frames of the demo's three actors."""
    at = {}
    for frame in iter_frames(Path(str(files("stream") / "assets" / "demo.mp4"))):
        at.setdefault(int(frame.time_s), frame.rgb)
    return [at[1], at[8], at[15]]


def room(*placed: tuple[np.ndarray, int, int]) -> np.ndarray:
    """(480, 960, 3): actors in a grey room, each (frame, x, side)."""
    frame = np.full((480, 960, 3), 90, np.uint8)
    for actor, x, side in placed:
        frame[480 - side :, x : x + side] = cv2.resize(
            actor, (side, side), interpolation=cv2.INTER_AREA
        )
    return frame


def test_somebody_comes_and_goes(actors):
    people = People()
    here, empty = room((actors[0], 300, 300)), room()
    frames = [empty, empty, here, here, here, empty, empty, empty]
    scenes = [people.see(i * STEP_S, frame) for i, frame in enumerate(frames)]
    assert [scene.people for scene in scenes] == [0, 0, 1, 1, 1, 1, 0, 0]
    found = [attendance(scene, 0.5) for scene in scenes]
    assert [a.absent.video for a in found] == [NOBODY_VISIBLE] * 2 + [None] * 4 + [
        NOBODY_VISIBLE
    ] * 2
    assert found[0].face is None
    assert found[2].face.track == 1
    x, y, width, height = found[2].face.box
    assert 300 < 960 * (x + width / 2) < 600
    assert 180 < 480 * (y + height / 2) < 480
    # The frame in which nobody was found is bridged, and says so.
    assert [scene.shown[0].seen for scene in scenes[2:6]] == [True, True, True, False]


@pytest.mark.parametrize(("side", "reason"), [(15.9, FACE_TOO_SMALL), (16.0, None)])
def test_a_far_face_is_too_small(side, reason):
    far = Person.of(track(1, side), time_s=0.0)
    scene = Scene(time_s=0.0, width=640, height=360, people=1, shown=(far,))
    found = attendance(scene, None)
    assert (found.people, found.face.track, found.absent.video) == (1, 1, reason)


def test_places_hold_while_people_come_and_go(actors):
    a, b, c = actors
    left, middle, right = (a, 0, 300), (b, 330, 250), (c, 640, 200)
    people = People(2)
    frames = [
        room(left),
        room(left, middle),
        room(left, middle, right),
        room(middle, right),
        room(middle, right),
        room(middle, right),
        room(right),
        room(right),
    ]
    scenes = [people.see(i * STEP_S, frame) for i, frame in enumerate(frames)]
    shown = [[p and p.track for p in scene.shown] for scene in scenes]
    assert shown[:3] == [[1, None], [1, 2], [1, 2]]
    assert [scene.left_out for scene in scenes[:3]] == [0, 0, 1]
    assert shown[5] == [3, 2]  # who was left out takes the place that is free
    assert shown[7] == [3, None]


def track(number: int, side: float) -> Track:
    face = Face(Box(0, 0, side, side), 0.9)
    return Track(number=number, face=face, seen_s=0, velocity=(0, 0), colours=None, steady=face.box)


def test_another_takes_over_only_when_clearly_larger_for_a_while():
    cast = Cast(1)

    def shown(time_s: float, *tracks: Track) -> int | None:
        [chosen] = cast.choose(time_s, tracks)
        return chosen and chosen.number

    assert shown(0.0, track(1, 100), track(2, 90)) == 1
    assert [shown(0.5 * i, track(1, 100), track(2, 120)) for i in range(1, 9)] == [1] * 8
    assert [shown(5 + 0.5 * i, track(1, 100), track(2, 125)) for i in range(2)] == [1, 1]
    assert shown(6.0, track(1, 100), track(2, 110)) == 1  # not for long enough
    assert [shown(7 + 0.5 * i, track(1, 100), track(2, 125)) for i in range(3)] == [1, 1, 2]
    assert shown(9.0, track(1, 100)) == 1
    assert shown(9.5) is None


def test_the_cap_counts_who_is_left_out():
    cast = Cast(MOST_PEOPLE)
    chosen = cast.choose(0.0, tuple(track(n, 100 - n) for n in range(1, 12)))
    assert [t.number for t in chosen] == list(range(1, 9))


def test_a_place_is_kept_for_who_is_out_of_sight_for_a_moment():
    cast = Cast(3)

    def shown(time_s: float, *numbers: int) -> list[int | None]:
        tracks = tuple(replace(track(n, 100 - n), seen_s=time_s) for n in numbers)
        return [chosen and chosen.number for chosen in cast.choose(time_s, tracks)]

    assert shown(0.0, 1, 2) == [1, 2, None]
    assert shown(1.0) == [None] * 3  # both stand behind a pillar
    assert cast.taken == (True, True, False)
    assert shown(2.0, 2) == [None, 2, None]
    assert shown(2.5, 2, 3) == [None, 2, 3]  # a free place is there
    assert shown(3.0, 1, 2, 3) == [1, 2, 3]
    assert shown(4.0, 2, 3, 4) == [4, 2, 3]  # none is free: the hidden one's is taken
    assert shown(5.0, 1, 2, 3, 4) == [4, 2, 3]
    assert shown(8.5) == [None] * 3
    assert cast.taken == (False,) * 3


def test_a_voice_is_the_only_visible_person_s_or_nobody_s():
    somebody = Person.of(track(1, 64), time_s=0.0)

    def scene(people: int, *shown: Person | None) -> Scene:
        return Scene(time_s=0.0, width=640, height=360, people=people, shown=shown)

    def voice(*arguments, **options) -> tuple[str | None, str | None]:
        found = attendance(*arguments, **options)
        return found.voice, found.absent.audio

    alone, both = scene(1, somebody), scene(2, somebody, somebody)
    unattributed = ("unattributed", VOICE_UNATTRIBUTED)
    assert voice(alone, 0.5) == ("attributed", None)
    assert voice(alone, 0.05) == (None, NOBODY_SPEAKING)
    assert voice(both, 0.05, crowd=True) == (None, NOBODY_SPEAKING)
    assert [voice(both, 0.5, place, crowd=True) for place in (0, 1)] == [unattributed] * 2
    assert voice(alone, 0.5, crowd=True) == unattributed  # somebody else has just left
    # Heard and not seen: the first place's, unless somebody is seen in another.
    assert voice(scene(0, None), 0.5) == (None, None)
    assert voice(scene(0, None, None), 0.5, 1) == unattributed
    assert voice(scene(1, None, somebody), 0.5) == unattributed
    assert voice(scene(1, None, somebody), 0.5, 1) == ("attributed", None)


def test_without_pictures_or_sound_nothing_is_said_of_them():
    nothing = attendance(None, None)
    assert (nothing.people, nothing.face, nothing.speech_ratio) == (None, None, None)
    assert (nothing.absent.video, nothing.absent.audio) == (None, None)
    assert attendance(None, 0.05).absent.audio == NOBODY_SPEAKING
    assert attendance(None, 0.5).absent.audio is None


def test_silence_is_nobody_speaking():
    assert People().hear(0, np.zeros(64_000, np.float32)) == 0.0


@pytest.mark.parametrize("most", [0, -1, MOST_PEOPLE + 1])
def test_a_number_of_people_that_cannot_be_is_refused(most):
    with pytest.raises(ConfigError, match="wanted 1 to 8"):
        People(most)

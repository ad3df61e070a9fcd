import math

import numpy as np
import pytest

from emostream.people.faces import Box, Face
from emostream.people.tracks import BRIDGE_S, Tracker, assigned, steadied

STEP_S = 0.5


def face(x: float, y: float = 300, side: float = 100, confidence: float = 0.9, shade=None) -> Face:
    colours = None if shade is None else np.full((6, 4, 3), shade, np.float32)
    return Face(Box(x - 0.45 * side, y - 0.55 * side, 0.9 * side, 1.1 * side), confidence, colours)


def numbers(tracker: Tracker, frames: list[list[Face]]) -> list[list[int]]:
    return [
        [track.number for track in tracker.update(i * STEP_S, faces)]
        for i, faces in enumerate(frames)
    ]


def test_one_who_walks_past_keeps_the_number():
    frames = [[face(100 + 150 * i)] for i in range(8)]
    assert numbers(Tracker(), frames) == [[1]] * 8


def test_beginning_needs_more_confidence_than_staying():
    frames = [[face(300, confidence=c)] for c in (0.79, 0.8, 0.71, 0.79)]
    assert numbers(Tracker(), frames) == [[], [1], [1], [1]]


def test_one_missed_frame_is_bridged_and_a_leaver_is_gone_within_a_second():
    here = [face(300)]
    frames = [here, [], here, here, [], [], []]
    assert numbers(Tracker(), frames) == [[1], [1], [1], [1], [1], [], []]


def test_a_short_absence_keeps_the_number_and_a_long_one_does_not():
    away = int(BRIDGE_S / STEP_S)
    here = [face(300)]
    frames = [here, *[[]] * (away - 1), here, *[[]] * away, here]
    seen = [n for n in numbers(Tracker(), frames) if n]
    assert (seen[0], seen[2], seen[-1]) == ([1], [1], [2])


def test_numbers_are_never_given_again():
    gone = [[]] * 8
    frames = [[face(300)], *gone, [face(300)], *gone, [face(300), face(900)]]
    assert numbers(Tracker(), frames)[-1] == [3, 4]


def crossing(seed: int, people: int) -> list[tuple[list[Face], list[int]]]:
    """People who walk to and fro for 30 s; who is behind somebody is not found."""
    rng = np.random.default_rng(seed)
    side, period = rng.uniform(80, 140, people), rng.uniform(8, 20, people)
    phase, row = rng.uniform(0, 2 * np.pi, people), rng.uniform(250, 400, people)
    shade = np.linspace(0.2, 0.8, people)
    out = []
    for i in range(60):
        t = i * STEP_S
        centres = [
            640 + 500 * math.sin(2 * np.pi * t / period[k] + phase[k]) for k in range(people)
        ]
        who, faces = [], []
        for k in range(people):
            hidden = any(
                abs(centres[k] - centres[other]) < (side[k] + side[other]) / 4
                for other in range(k + 1, people)
            )
            if not hidden and rng.random() > 0.03:
                x, y = rng.normal((centres[k], row[k]), 0.03 * side[k])
                faces.append(
                    face(x, y, side[k] * rng.normal(1, 0.03), shade=rng.normal(shade[k], 0.02))
                )
                who.append(k)
        out.append((faces, who))
    return out


@pytest.mark.parametrize("people", [2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_none_is_swapped_over_30_s_of_crossing(seed, people):
    tracker, owner = Tracker(), {}
    for i, (faces, who) in enumerate(crossing(seed, people)):
        for track in tracker.update(i * STEP_S, faces):
            if track.seen_s == i * STEP_S:
                person = who[next(j for j, face in enumerate(faces) if face is track.face)]
                assert owner.setdefault(track.number, person) == person
    assert len(set(owner.values())) == people


def test_pairs_take_the_lowest_cost_first_and_never_an_infinite_one():
    assert assigned([[2.0, 1.0], [1.5, 0.5], [math.inf, math.inf]]) == {1: 1, 0: 0}
    assert assigned([]) == {}


def test_a_steady_box_rests_under_unrest_and_follows_a_movement():
    rng = np.random.default_rng(0)
    boxes = [
        face(*rng.normal((300, 300), 2), side=100 * rng.normal(1, 0.02)).box for _ in range(40)
    ]
    steady = [boxes[0]]
    for box in boxes[1:]:
        steady.append(steadied(steady[-1], box))
    unrest = np.std([box.centre for box in boxes[10:]], axis=0)
    assert (np.std([box.centre for box in steady[10:]], axis=0) < 0.6 * unrest).all()
    moved = steadied(steady[-1], face(340).box)
    assert moved.centre == pytest.approx((340, 300))

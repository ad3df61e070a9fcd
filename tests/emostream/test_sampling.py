import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.sampling import (
    EDGE_S,
    grid_frames,
    grid_index,
    grid_time,
    segment_midpoint_indices,
)

STEPS = st.sampled_from([0.5, 0.1, 1 / 3, 4.0 / 8, 4.0 / 7, 0.04, 1.0, 2.5])


@pytest.mark.parametrize(
    ("n_frames", "expected"),
    [
        (1, [0] * 8),
        (2, [0, 0, 0, 0, 1, 1, 1, 1]),
        (4, [0, 1, 1, 1, 2, 2, 2, 3]),
        # seg = 1: midpoints 0.5, 1.5, …; the 1e-6 lifts every tie, so that round never goes to the even neighbour
        (9, [1, 2, 3, 4, 5, 6, 7, 8]),
        (100, [6, 19, 31, 43, 56, 68, 80, 93]),
    ],
)
def test_midpoints_by_hand(n_frames: int, expected: list[int]) -> None:
    assert segment_midpoint_indices(n_frames, 8).tolist() == expected


@given(st.integers(1, 100_000), st.integers(1, 64))
def test_midpoints_stay_in_order_and_in_range(n_frames: int, num_frames: int) -> None:
    indices = segment_midpoint_indices(n_frames, num_frames)
    assert indices.shape == (num_frames,)
    assert indices.dtype == np.int64
    assert indices[0] >= 0
    assert indices[-1] <= n_frames - 1
    assert (np.diff(indices) >= 0).all()
    if n_frames > num_frames:
        assert len(set(indices.tolist())) == num_frames


@pytest.mark.parametrize(("n_frames", "num_frames"), [(0, 8), (8, 0), (-1, 1)])
def test_midpoints_of_nothing_are_refused(n_frames: int, num_frames: int) -> None:
    with pytest.raises(ValueError, match=f"n_frames={n_frames}"):
        segment_midpoint_indices(n_frames, num_frames)


@pytest.mark.parametrize(
    ("time_s", "index"),
    [
        (0.0, 0),
        (0.5, 1),
        (0.5 + 1e-10, 1),
        (0.5 - 1e-10, 1),
        (0.5 + 1e-6, 2),
        (-0.5, -1),
        (-0.2, 0),
        (1e-12, 0),
    ],
)
def test_grid_edges_by_hand(time_s: float, index: int) -> None:
    assert grid_index(time_s, 0.5) == index


@given(st.integers(-10_000, 2_000_000), STEPS, st.floats(-1e-10, 1e-10))
def test_times_on_the_grid_belong_to_their_point(j: int, step_s: float, error_s: float) -> None:
    assert grid_index(grid_time(j, step_s), step_s) == j
    assert grid_index(grid_time(j, step_s) + error_s, step_s) == j


@given(st.integers(0, 10**7), st.sampled_from([25, 30, 50, 60]), st.integers(2, 16))
def test_rational_frame_times_agree_with_exact_arithmetic(n: int, fps: int, num: int) -> None:
    """Frame n/fps on a grid of 4/num seconds: float arithmetic gives what fractions give."""
    exact = math.ceil(Fraction(n, fps) / Fraction(4, num))
    assert grid_index(n / fps, 4 / num) == exact


@given(st.floats(-1e4, 1e6), STEPS)
def test_every_time_lies_in_the_cell_of_its_index(time_s: float, step_s: float) -> None:
    j = grid_index(time_s, step_s)
    assert grid_time(j, step_s) >= time_s - EDGE_S
    assert grid_time(j - 1, step_s) < time_s - EDGE_S


def test_grid_takes_the_newest_frame_and_flags_repeats() -> None:
    times_s = [0.1, 0.4, 0.5, 0.9, 2.1]
    chosen = grid_frames(times_s, first_k=1, num=5, step_s=0.5)
    assert chosen.indices.tolist() == [2, 3, 3, 3, 4]
    assert chosen.repeated.tolist() == [False, False, True, True, False]


def test_frames_before_the_window_are_repeated_and_later_ones_ignored() -> None:
    chosen = grid_frames([0.2, 9.0], first_k=4, num=3, step_s=0.5)
    assert chosen.indices.tolist() == [0, 0, 0]
    assert chosen.repeated.all()


def test_points_before_the_first_frame_take_it_flagged() -> None:
    chosen = grid_frames([1.2, 1.7], first_k=1, num=4, step_s=0.5)
    assert chosen.indices.tolist() == [0, 0, 0, 1]
    assert chosen.repeated.tolist() == [True, True, False, False]


@pytest.mark.parametrize("times_s", [[], [2.1, 3.0]])
def test_no_frame_in_time_gives_no_index(times_s: list[float]) -> None:
    chosen = grid_frames(times_s, first_k=1, num=4, step_s=0.5)
    assert chosen.indices.tolist() == [-1] * 4
    assert chosen.repeated.all()


@given(
    st.lists(st.floats(0, 12), max_size=40).map(sorted),
    st.integers(1, 20),
    st.integers(1, 12),
    STEPS,
)
def test_grid_frames_equals_its_definition(
    times_s: list[float], first_k: int, num: int, step_s: float
) -> None:
    chosen = grid_frames(times_s, first_k, num, step_s)
    last_index = first_k + num - 1
    in_time = [i for i, t in enumerate(times_s) if grid_index(t, step_s) <= last_index]
    for row, k in enumerate(range(first_k, first_k + num)):
        own = [i for i, t in enumerate(times_s) if grid_index(t, step_s) == k]
        earlier = [i for i, t in enumerate(times_s) if grid_index(t, step_s) < k]
        # Of the first grid point that has frames, the newest, as of any other.
        first = [
            i for i in in_time if grid_index(times_s[i], step_s) == grid_index(times_s[0], step_s)
        ]
        expected = (own or earlier or first or [-1])[-1]
        assert chosen.indices[row] == expected
        assert chosen.repeated[row] == (not own)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=60).map(sorted), STEPS)
def test_the_future_does_not_change_a_window(times_s: list[float], step_s: float) -> None:
    """What the live path knows at t_k gives the same choice as the whole file does."""
    for k in range(8, 24, 5):
        known = [t for t in times_s if grid_index(t, step_s) <= k]
        live = grid_frames(known, k - 7, 8, step_s)
        offline = grid_frames(times_s, k - 7, 8, step_s)
        assert live.indices.tolist() == offline.indices.tolist()
        assert live.repeated.tolist() == offline.repeated.tolist()

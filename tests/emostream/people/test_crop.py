import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import InputError
from emostream.people.crop import crop_face, crop_faces, square
from emostream.people.faces import Box


def gradient(height: int, width: int) -> np.ndarray:
    """Red is the column, green the row, both in pixels."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack((columns, rows, np.zeros_like(rows)), -1).astype(np.uint8)


def test_the_square_has_the_margin_and_sits_a_little_higher():
    found = square(Box(100, 100, 80, 125), margin=1.1)  # √(80·125) = 100
    assert (found.width, found.height) == pytest.approx((110, 110))
    assert found.centre == pytest.approx((140, 162.5 - 0.016 * 110))


def test_a_crop_shows_what_stood_there():
    crop = crop_face(gradient(200, 200), Box(50, 60, 100, 100), size_px=50, margin=1.0)
    # The square begins at (50, 58); two pixels become one.
    assert crop.shape == (50, 50, 3)
    assert crop[0, 0, :2] == pytest.approx((50.5, 58.5), abs=1)
    assert crop[-1, -1, :2] == pytest.approx((148.5, 156.5), abs=1)


def test_a_small_face_is_enlarged_undistorted():
    crop = crop_face(gradient(100, 100), Box(40, 40, 20, 20), size_px=80, margin=1.0)
    assert crop[40, 60, 0] - crop[40, 20, 0] == pytest.approx(10, abs=1)
    assert crop[60, 40, 1] - crop[20, 40, 1] == pytest.approx(10, abs=1)


def test_beyond_the_frame_its_edge_is_repeated():
    crop = crop_face(gradient(100, 100), Box(-50, 0, 100, 100), size_px=100, margin=1.0)
    assert (crop[:, :50, 0] == 0).all()
    assert crop[50, 99, 0] == pytest.approx(49, abs=1)


@given(
    st.tuples(st.floats(-400, 400), st.floats(-400, 400), st.floats(0.1, 600), st.floats(0.1, 600)),
    st.sampled_from([0.5, 1.1, 4.0]),
)
def test_every_box_gives_a_crop(box, margin):
    assert crop_face(gradient(60, 90), Box(*box), size_px=16, margin=margin).shape == (16, 16, 3)


def test_a_window_of_crops_is_its_crops_and_who_is_out_of_sight_stands_still():
    frames = np.random.default_rng(0).integers(0, 255, (5, 90, 90, 3)).astype(np.uint8)
    first, second = Box(10, 10, 30, 30), Box(40, 30, 30, 30)
    crops = crop_faces(frames, [None, first, None, second, None], size_px=32, margin=1.1)
    at = {
        1: crop_face(frames[1], first, size_px=32, margin=1.1),
        3: crop_face(frames[3], second, size_px=32, margin=1.1),
    }
    for crop, index in zip(crops, (1, 1, 1, 3, 3), strict=True):
        assert np.array_equal(crop, at[index])


def test_a_window_without_the_person_is_refused():
    frames = np.zeros((2, 9, 9, 3), np.uint8)
    with pytest.raises(InputError, match="one at least"):
        crop_faces(frames, [None, None], size_px=8, margin=1.1)
    with pytest.raises(InputError, match="found \\(9, 9\\)"):
        crop_face(frames[0, ..., 0], Box(1, 1, 5, 5), size_px=8, margin=1.1)

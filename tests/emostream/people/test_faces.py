from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from emostream.errors import InputError
from emostream.media import iter_frames
from emostream.people.faces import BEGIN_FROM, FaceDetector


@pytest.fixture(scope="module")
def actor() -> np.ndarray:
    """(192, 192, 3): a frame of the demo."""
    return next(iter_frames(Path(str(files("stream") / "assets" / "demo.mp4")))).rgb


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def placed(actor: np.ndarray, x: int, y: int, side: int, height: int = 720, width: int = 1280):
    frame = np.full((height, width, 3), 90, np.uint8)
    frame[y : y + side, x : x + side] = cv2.resize(actor, (side, side))
    return frame


def test_a_face_is_found_where_it_is_at_any_frame_size(actor, detector):
    [face] = detector.find(actor)
    assert face.confidence > BEGIN_FROM
    for x, y, side in ((0, 0, 300), (700, 300, 400)):
        [found] = detector.find(placed(actor, x, y, side))
        scale = side / len(actor)
        expected = [x + scale * face.box.centre[0], y + scale * face.box.centre[1]]
        assert found.box.centre == pytest.approx(expected, abs=0.06 * side)
        assert found.box.side == pytest.approx(scale * face.box.side, rel=0.15)


def test_two_faces_and_none(actor, detector):
    frame = placed(actor, 100, 100, 350)
    frame[:, 640:] = placed(actor, 800, 200, 350)[:, 640:]
    assert len(detector.find(frame)) == 2
    assert detector.find(np.full((480, 640, 3), 90, np.uint8)) == ()
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    assert detector.find(noise) == ()


def test_colours_are_of_the_face_and_not_of_what_is_round_it(actor, detector):
    [here] = detector.find(placed(actor, 0, 100, 350))
    [there] = detector.find(placed(actor, 800, 300, 350))
    [tinted] = detector.find(placed(255 - (255 - actor) // 2, 0, 100, 350))
    assert here.colours.shape == (6, 4, 3)
    assert np.abs(here.colours - there.colours).mean() < 0.05
    assert np.abs(here.colours - tinted.colours).mean() > 0.1


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3000, 3), (9, 5, 3)])
def test_odd_frames_are_looked_at(detector, shape):
    assert detector.find(np.zeros(shape, np.uint8)) == ()


def test_what_is_no_frame_is_refused(detector):
    for frame in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="wanted"):
            detector.find(frame)


def test_nothing_is_said_on_the_console(capfd):
    FaceDetector()
    assert capfd.readouterr() == ("", "")

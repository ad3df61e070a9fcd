"""Stills are shown as short films, and go through a model like clips."""

import cv2
import numpy as np
import pytest
import torch

from emostream.errors import MediaError
from emostream.model.presets import from_preset
from training.data.clip_encoding import decode_clip
from training.data.features import cache_features
from training.data.manifest import Row
from training.data.stills import still_frames


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Two tiles of one smooth mosaic."""
    path = tmp_path_factory.mktemp("stills") / "faces.png"
    noise = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 3))
    return [Row(path=path, region=(x, 0, 48, 48), label="sad", split="train") for x in (0, 48)]


def test_no_two_frames_are_equal_and_all_are_the_picture(rows):
    frames = still_frames(rows[0], 8)
    assert frames.shape == (8, 48, 48, 3)
    picture = cv2.imread(str(rows[0].path))[:, :48, ::-1]
    for place, frame in enumerate(frames):
        assert np.abs(frame.astype(int) - picture).mean() < 12
        for other in frames[:place]:
            assert (frame != other).mean() > 0.3
    np.testing.assert_array_equal(frames, still_frames(rows[0], 8))


def test_each_still_moves_in_its_own_way(rows):
    def drift(row):
        return still_frames(row, 8).astype(float).mean((1, 2, 3))

    first, second = (drift(row) / drift(row).mean() for row in rows)
    assert np.abs(first - second).max() > 0.01


def test_a_tile_is_a_face_already_and_has_features_of_its_own(rows, tmp_path):
    model, processor = from_preset("small")
    clip = decode_clip(processor, rows[0], model.config)
    assert clip.problem is None
    assert clip.mel is None
    assert clip.pixels.shape == (8, 3, 64, 64)
    store = cache_features(model, processor, rows, tmp_path)
    again = cache_features(model, processor, rows, tmp_path)
    first, second = (again.features(row)["vision_features"] for row in rows)
    assert first.shape == (8, 16, 256)
    assert not torch.equal(first, second)
    assert torch.equal(first, store.features(rows[0])["vision_features"])


def test_an_edit_is_done_to_a_still(rows):
    model, processor = from_preset("small")
    clip = decode_clip(processor, rows[0], model.config)
    edited = decode_clip(
        processor,
        rows[0],
        model.config,
        edit=lambda _, frames, pcm: (frames[:, :, ::-1].copy(), pcm),
    )
    torch.testing.assert_close(edited.pixels, clip.pixels.flip(-1), atol=0.05, rtol=0)
    assert not torch.allclose(edited.pixels, clip.pixels, atol=0.05)


def test_in_a_whole_picture_the_face_is_looked_for(rows):
    model, processor = from_preset("small")
    whole = Row(path=rows[0].path, label="sad", split="train")
    assert "nobody" in decode_clip(processor, whole, model.config).problem


def test_a_picture_that_is_none(tmp_path):
    row = Row(path=tmp_path / "a.jpg", label="sad", split="train")
    with pytest.raises(MediaError, match=r"a\.jpg: cannot be read"):
        still_frames(row, 8)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(MediaError, match=r"a\.jpg: wanted a picture"):
        still_frames(row, 8)

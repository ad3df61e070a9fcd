"""Edits of clips: each does what it says, to what it says, and to nothing else."""

import numpy as np
import pytest

from tests.training.clips import write_clip
from training.claims.measure import measure_voice
from training.data.manifest import Row
from training.faithful.edits import EDITS, LEVEL_DB, PITCH_ST, blurred, edits, levelled, pitched
from training.synth.clip import render_clip


@pytest.fixture(scope="module")
def clip():
    for index in range(20):
        frames, pcm, row = render_clip(3, "test", index, times_s=np.array([1.0, 2.0]), size_px=64)
        voiced = row.cues.recorded("voice") and row.cues.informative.audio
        if voiced and row.meta["voice_type"] == "close" and row.cues.voice["pitch"] < 0.5:
            return frames, pcm, row
    raise AssertionError


@pytest.mark.parametrize("semitones", [PITCH_ST, -PITCH_ST])
def test_pitch_moves_by_what_is_asked_and_pace_and_level_do_not(clip, semitones):
    _, pcm, _ = clip
    before, after = measure_voice(pcm), measure_voice(pitched(pcm, semitones))
    assert after.pitch - before.pitch == pytest.approx(semitones, abs=1.0)
    assert after.loudness - before.loudness == pytest.approx(0.0, abs=2.0)
    assert len(pitched(pcm, semitones)) == len(pcm)


def test_sound_without_a_voice_is_left_as_it_is():
    silence = np.zeros(16_000, np.float32)
    assert pitched(silence, 4.0) is silence


def test_level_changes_by_decibels_and_never_clips_beyond_full_scale(clip):
    _, pcm, _ = clip
    softer = levelled(pcm, -LEVEL_DB)
    assert 20 * np.log10(np.std(softer) / np.std(pcm)) == pytest.approx(-LEVEL_DB, abs=0.01)
    assert np.abs(levelled(pcm, 60.0)).max() == 1.0


def test_blurring_leaves_no_feature_of_a_face(clip):
    frames, _, _ = clip
    fine = np.abs(np.diff(frames.astype(float), axis=2)).mean()
    assert np.abs(np.diff(blurred(frames).astype(float), axis=2)).mean() < fine / 4


def test_each_edit_touches_its_modality_alone(clip, tmp_path):
    frames, pcm, _ = clip
    other = Row(path=write_clip(tmp_path / "b.wav", video=False), label="sad", split="test")
    mine = Row(path=tmp_path / "a.mp4", label="happy", split="test")
    made = edits([mine, other])
    assert set(made) == set(EDITS)
    for name, (edit, _) in made.items():
        seen, heard = edit(mine, frames, pcm)
        of_picture = name in ("hidden", "blurred", "mirrored")
        assert np.array_equal(seen, frames) != of_picture if seen is not None else name == "hidden"
        if heard is not None:
            same = len(heard) == len(pcm) and np.array_equal(heard, pcm)
            assert same == of_picture, name
        else:
            assert name == "mute"
    _, heard = made["other_sound"][0](mine, frames, pcm)
    assert 15_000 < len(heard) < 18_000
    mirrored, _ = made["mirrored"][0](mine, frames, pcm)
    assert np.array_equal(mirrored[:, :, 0], frames[:, :, -1])

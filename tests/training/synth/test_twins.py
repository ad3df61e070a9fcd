"""Twins: the changed cause differs, and every other draw, picture and sound is the clip's own."""

import io

import numpy as np
import pytest
from rich.console import Console

from emostream.errors import ConfigError
from training.data.manifest import read_manifest
from training.synth.acting import evident_cues
from training.synth.clip import clip_row, render_clip
from training.synth.command import synth
from training.synth.draws import recording, repeating
from training.synth.script import write_script
from training.synth.speech import plan_speech
from training.synth.twins import (
    CHANGE,
    KINDS,
    TWIN_OF,
    changes,
    chosen_change,
    counterfactual,
    render_twin,
)

TIMES_S = np.array([1.0, 2.0, 3.0])
SIZE_PX = 64


def script_with(change: str, split: str = "test"):
    """The first clip of a corpus that offers a change."""
    for index in range(400):
        script = write_script(5, split, index)
        if change in {name for offered in changes(script).values() for name in offered}:
            return script
    raise AssertionError(change)


def both(change: str, split: str = "test"):
    script = script_with(change, split)
    frames, pcm, _ = render_clip(5, split, script.index, times_s=TIMES_S, size_px=SIZE_PX)
    return script, (frames, pcm), render_twin(script, change, times_s=TIMES_S, size_px=SIZE_PX)


@pytest.mark.parametrize("split", ["test", "ood"])
def test_without_an_action_the_sound_is_bit_equal_and_pictures_differ_around_it_alone(split):
    _, (frames, pcm), (twin_frames, twin_pcm) = both("face.lip_corners_up", split)
    assert np.array_equal(pcm, twin_pcm)
    rows, _ = np.nonzero((frames != twin_frames).any(-1).any(0))
    assert len(rows) > 20
    # The upper third holds hair, forehead and brows; clay is shaded by what surrounds a place.
    assert rows.min() > SIZE_PX // 3


@pytest.mark.parametrize("dimension", ["pitch", "pitch_range", "breathiness", "tension"])
def test_a_dimension_of_the_voice_alone_leaves_the_pictures_bit_equal(dimension):
    _, (frames, pcm), (twin_frames, twin_pcm) = both(f"voice.{dimension}")
    assert np.array_equal(frames, twin_frames)
    assert len(pcm) == len(twin_pcm)
    assert not np.array_equal(pcm, twin_pcm)


@pytest.mark.parametrize("change", ["voice.pitch", "voice.rate", "voice.pauses", "voice", "actor"])
def test_draws_that_both_have_are_equal(change):
    script = script_with(change)
    before, after = {}, {}
    plan_speech(script, recording(script.rng("speech"), before))
    twin = counterfactual(script, change)
    more = repeating(before, script.rng("more"))
    plan_speech(twin, recording(more, after))
    assert set(after) <= set(before)
    compared = 0
    for kind, drawn in after.items():
        if kind[0] == "dirichlet":
            continue
        for old, new in zip(before[kind], drawn, strict=False):
            same = min(np.size(old), np.size(new))
            assert np.array_equal(np.ravel(old)[:same], np.ravel(new)[:same]), kind
            compared += same
    assert compared > 30


def test_noise_of_the_voice_is_the_same_at_another_pitch():
    """At a lower pitch there are fewer cycles, and the breath behind them is drawn as before."""
    script = script_with("voice.breathiness")
    kept = {}
    recording(script.rng("voice"), kept).standard_normal(10)
    again = repeating(kept, script.rng("more"))
    recorded = next(iter(kept.values()))[0]
    assert np.array_equal(again.standard_normal(7), recorded[:7])
    longer = repeating(kept, script.rng("more")).standard_normal(14)
    assert np.array_equal(longer[:10], recorded)
    assert len(set(longer)) == 14


def test_loudness_changes_the_level_alone():
    script, (_, pcm), (_, twin_pcm) = both("voice.loudness")
    loud = script.acting.voice.prosody["loudness"] > 0
    assert (np.std(pcm) > np.std(twin_pcm)) == loud
    assert np.corrcoef(pcm, twin_pcm)[0, 1] > 0.5


def test_only_the_changed_cue_changes():
    script = script_with("face.brows_lowered")
    before = clip_row(script).cues
    after = evident_cues(counterfactual(script, "face.brows_lowered").acting, script.label)
    assert {n for n in before.face if before.face[n] != after.face[n]} == {"AU4"}
    assert after.face["AU4"] == 0.0
    assert after.voice == before.voice


def test_the_label_is_what_the_rest_tells():
    script = next(
        s
        for s in (write_script(5, "test", i) for i in range(100))
        if s.label != "neutral" and s.acting.conflict is None and changes(s)["both"]
        and s.acting.face.emotion == s.acting.voice.emotion == s.label
    )  # fmt: skip
    assert [counterfactual(script, c).label for c in ("face", "voice", "both")] == [
        script.label, script.label, "neutral",
    ]  # fmt: skip
    deadpan = next(
        s
        for s in (write_script(5, "test", i) for i in range(400))
        if s.label != "neutral" and s.acting.face.state == "neutral" and changes(s)["voice"]
    )
    assert counterfactual(deadpan, "voice").label == "neutral"


def test_another_actor_does_the_same():
    script = script_with("actor")
    twin = counterfactual(script, "actor")
    assert twin.actor.id != script.actor.id
    assert twin.acting == script.acting


def test_a_further_take_has_the_same_acting_and_other_draws():
    _, (frames, pcm), (twin_frames, twin_pcm) = both("take")
    assert not np.array_equal(frames, twin_frames)
    assert not np.array_equal(pcm, twin_pcm)


def test_synth_writes_twins_beside_the_clips_and_leaves_those_as_they_are(tmp_path):
    quiet = Console(file=io.StringIO())
    plain = synth(tmp_path / "plain", 2, 5, "test", 1, size_px=64, console=quiet)
    report = synth(
        tmp_path / "twins", 2, 5, "test", 1, size_px=64, twins=("voice_cue", "take"), console=quiet
    )
    scripts = [write_script(5, "test", index) for index in range(2)]
    expected = [c for s in scripts for k in ("voice_cue", "take") if (c := chosen_change(s, k))]
    assert report.twins == len(expected)
    assert report.written == 2 + report.twins
    rows = read_manifest(tmp_path / "twins" / "twins.jsonl")
    assert [row.meta[CHANGE] for row in rows] == expected
    assert all((tmp_path / "twins" / row.meta[TWIN_OF]).is_file() for row in rows)
    assert all(row.path.is_file() for row in rows)
    for name in ("manifest.jsonl", "clips/000000.mp4", "clips/000001.mp4"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "twins" / name).read_bytes()
    assert plain.twins == 0
    assert not (tmp_path / "plain" / "twins.jsonl").exists()


def test_unknown_kinds_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown kind 'mood'; wanted some of face_cue"):
        synth(tmp_path, 1, 0, twins=("mood",))
    assert set(changes(write_script(0, "test", 0))) == set(KINDS)

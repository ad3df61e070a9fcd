"""Scripts of synthetic clips: reproducible, balanced, and honest about what can be seen and heard."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emostream.labels import DEFAULT_LABELS
from training.data.cues import FACE_UNITS, VOICE_DIMENSIONS, Cues
from training.synth.acting import ACTION_UNITS, PROSODY, REGIONS, acting_meta, evident_cues
from training.synth.actors import CAST_SIZE, SPLITS, cast_actor
from training.synth.emotions import EMFACS, PROFILES, action_units
from training.synth.script import CONFLICT_P, FACE_OUT_P, VOICE_OUT_P, Script, write_script

splits = st.sampled_from(SPLITS)


def many(split: str = "train", clips: int = 2100) -> list[Script]:
    return [write_script(0, split, index) for index in range(clips)]


@given(st.integers(0, 2**31), splits, st.integers(0, 10**6))
@settings(max_examples=40)
def test_a_script_is_a_function_of_seed_split_and_index(seed, split, index):
    one, two = write_script(seed, split, index), write_script(seed, split, index)
    assert one.acting == two.acting
    assert (one.label, one.actor.id, one.duration_s) == (two.label, two.actor.id, two.duration_s)
    assert one.actor.id.startswith(f"{split}-")
    assert 4.0 < one.duration_s < 5.0  # a live window fits


def test_another_seed_is_another_corpus():
    assert [write_script(0, "train", i).acting for i in range(5)] != [
        write_script(1, "train", i).acting for i in range(5)
    ]


@given(st.integers(0, 100), splits, st.integers(0, 500))
@settings(max_examples=30)
def test_every_run_of_seven_clips_has_every_label(seed, split, block):
    labels = [write_script(seed, split, 7 * block + k).label for k in range(7)]
    assert sorted(labels) == sorted(DEFAULT_LABELS)


def test_order_of_labels_is_not_the_same_in_every_run():
    orders = {tuple(write_script(0, "train", 7 * b + k).label for k in range(7)) for b in range(20)}
    assert len(orders) > 10


def test_casts_are_disjoint_people():
    ids = {split: {cast_actor(split, n).id for n in range(CAST_SIZE[split])} for split in SPLITS}
    assert all(len(ids[split]) == CAST_SIZE[split] for split in SPLITS)
    assert not (ids["train"] & ids["test"])
    assert not (ids["train"] & ids["ood"])
    assert not (ids["test"] & ids["ood"])
    voices = {round(cast_actor(split, n).voice.f0_hz, 6) for split in SPLITS for n in range(100)}
    assert len(voices) == 300  # nobody is another person's copy under another name


def test_an_actor_stays_who_they_are():
    a, b = cast_actor("train", 7), cast_actor.__wrapped__("train", 7)
    assert a.face == b.face
    np.testing.assert_array_equal(a.habits.au_gains, b.habits.au_gains)


def test_an_actor_outside_the_cast_is_refused():
    with pytest.raises(ValueError, match="train has actors 0 to"):
        cast_actor("train", CAST_SIZE["train"])


def test_shares_of_uninformative_and_conflicting_clips():
    scripts = many()
    face_out = np.mean([s.acting.face.state != "expressive" for s in scripts])
    voice_out = np.mean([s.acting.voice.state != "expressive" for s in scripts])
    conflict = np.mean([s.acting.conflict is not None for s in scripts])
    assert face_out == pytest.approx(FACE_OUT_P, abs=0.03)
    assert voice_out == pytest.approx(VOICE_OUT_P, abs=0.03)
    assert conflict == pytest.approx(CONFLICT_P * 6 / 7, abs=0.02)
    assert {s.acting.face.state for s in scripts} == {
        "expressive", "neutral", "occluded", "turned", "absent",
    }  # fmt: skip
    assert {s.acting.voice.state for s in scripts} == {
        "expressive", "neutral", "silent", "muted", "noise",
    }  # fmt: skip


@pytest.mark.parametrize("split", SPLITS)
def test_one_modality_always_tells_the_label(split):
    for script in many(split, 700):
        acting = script.acting
        channels = (
            acting.face.state == "expressive" and acting.face.emotion == script.label,
            acting.voice.state == "expressive" and acting.voice.emotion == script.label,
        )
        assert any(channels)
        if script.label == "neutral":
            assert acting.face.state != "neutral"
            assert acting.voice.state != "neutral"
            assert acting.conflict is None


def test_conflict_is_mild():
    for script in many():
        acting = script.acting
        if acting.conflict == "face":
            assert acting.face.emotion not in (script.label, "neutral")
            assert acting.voice.emotion == script.label
            assert np.mean(list(acting.face.action_units.values()) or [0.0]) < 0.6
        elif acting.conflict == "voice":
            assert acting.voice.emotion not in (script.label, "neutral")
            assert acting.face.emotion == script.label


def test_cues_hold_what_is_evident_and_nothing_else():
    seen = Counter()
    for script in many():
        cues = evident_cues(script.acting, script.label)
        assert Cues.from_json(cues.to_json()) == cues
        face, voice = script.acting.face, script.acting.voice
        if face.state in ("occluded", "turned", "absent"):
            assert cues.face == {}
            assert cues.hidden("face")
            seen["hidden"] += 1
        elif face.covered:
            (region,) = face.covered
            assert set(cues.face) == set(FACE_UNITS) - REGIONS[region]
            seen["covered"] += 1
        else:
            assert set(cues.face) == set(FACE_UNITS)
        if voice.state in ("silent", "muted", "noise"):
            assert cues.voice == {}
            assert cues.hidden("voice")
            seen["inaudible"] += 1
        else:
            assert set(cues.voice) == set(VOICE_DIMENSIONS)
        if script.acting.conflict == "face" or face.state == "neutral":
            assert not cues.informative.video
        if script.acting.conflict == "voice" or voice.state == "neutral":
            assert not cues.informative.audio
        assert set(acting_meta(script.acting)) >= {"intensity", "conflict", "style", "face_state"}
    assert min(seen["hidden"], seen["covered"], seen["inaudible"]) > 50


def test_tables_name_what_exists():
    assert set(EMFACS) == set(PROFILES) == set(DEFAULT_LABELS)
    for variants in EMFACS.values():
        for variant in variants:
            assert set(variant) <= set(ACTION_UNITS)
    assert all(len(profile) == len(PROSODY) for profile in PROFILES.values())
    assert set(VOICE_DIMENSIONS) <= set(PROSODY)


@given(st.sampled_from(DEFAULT_LABELS), st.floats(0.2, 1.0), st.integers(0, 999))
@settings(max_examples=60)
def test_action_units_stay_in_range_and_keep_the_strongest(label, intensity, seed):
    variants = EMFACS[label]
    preferences = np.full(len(variants), 1 / len(variants))
    gains = np.ones(len(ACTION_UNITS))
    units = action_units(label, intensity, preferences, gains, np.random.default_rng(seed))
    assert units.shape == (len(ACTION_UNITS),)
    assert units.min() >= 0
    assert units.max() <= 1
    shown = {
        name for name, value in zip(ACTION_UNITS, units, strict=True) if value > 0.3 * intensity
    }
    if label != "neutral":
        strongest = {max(v, key=lambda n, v=v: v[n]) for v in variants}
        assert shown & strongest


def test_stronger_acting_is_stronger():
    gains, preferences = np.ones(len(ACTION_UNITS)), np.full(4, 0.25)
    sums = [
        np.mean(
            [
                action_units("happy", i, preferences, gains, np.random.default_rng(s)).sum()
                for s in range(80)
            ]
        )
        for i in (0.2, 0.6, 1.0)
    ]
    assert sums[0] < 0.8 * sums[1]
    assert sums[1] < 0.9 * sums[2]


@pytest.mark.parametrize(
    ("seed", "split", "index"), [(-1, "train", 0), (0, "dev", 0), (0, "train", -1)]
)
def test_impossible_clips_are_refused(seed, split, index):
    with pytest.raises(ValueError, match="no clip"):
        write_script(seed, split, index)

"""Clips of actors who were heard before, with the small model and random weights."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from emostream import save_model
from emostream.errors import ConfigError
from emostream.media import load_clip
from emostream.model.presets import from_preset
from emostream.people.voice_baseline import PRIOR_S, STEP_S, moments, speech_steps
from tests.training.clips import write_clip
from training.cli import main
from training.data.clip_features import computed_features
from training.data.features import cache_features
from training.data.manifest import Row, read_manifest, write_manifest
from training.evaluation.predict import EvalSettings


@pytest.fixture(scope="module")
def small():
    """The preset as if its statistics had been learned; shown whole frames, so that noise is not left out as such."""
    model, processor = from_preset("small")
    model.config.frame_crop = "whole"
    baseline = model.model.audio_tower.audio_tower["baseline"]
    generator = torch.Generator().manual_seed(0)
    baseline.mean.copy_(0.3 * torch.randn(baseline.mean.shape, generator=generator))
    baseline.std.copy_(0.5 + torch.rand(baseline.std.shape, generator=generator))
    return model, processor


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """An actor in three clips of a second, another in one, and somebody unknown."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    made = []
    for i, actor in enumerate(("her", "her", "her", "him", None)):
        tone = np.sin(np.arange(16_000) * (0.05 + 0.02 * i)) * np.linspace(0.2, 0.9, 16_000)
        path = write_clip(
            folder / f"{i}.wav", pcm=0.3 * tone + 0.01 * rng.standard_normal(16_000), video=False
        )
        made.append(Row(path=path, label="sad", split="test", actor=actor))
    return made


@torch.inference_mode()
def encoded(small, row):
    """What the tower gives before it is standardised, and which steps are speech."""
    mel = load_mel(small, row)
    return small[0].model.audio_tower.encode(mel)[0], speech_steps(mel)[0]


def load_mel(small, row):
    return small[1].mel(load_clip(row.path, 1, need={"audio"}).audio)[None]


@torch.inference_mode()
def expected(small, row, others):
    """In the tower's own units and all at once, as training has it."""
    x_SD, _ = encoded(small, row)
    tower = small[0].model.audio_tower.audio_tower["baseline"]
    parts = [encoded(small, other) for other in others]
    x = torch.cat([part[0] for part in parts])[None]
    weight = torch.cat([part[1] for part in parts])[None]
    seconds = float(weight.sum()) * STEP_S
    share = seconds / (seconds + PRIOR_S)
    mean, variance = moments(x, weight)
    mean = torch.lerp(tower.mean, mean, share)
    std = torch.lerp(tower.std**2, variance, share).sqrt()
    standardised, mel = ((x_SD - mean) / std)[None], load_mel(small, row)
    return small[0].model.audio_tokens(standardised, mel)[0], seconds


def test_a_clip_is_standardised_by_its_actors_other_clips(small, rows, tmp_path):
    store = cache_features(*small, rows, tmp_path, dtype="float32")
    cold = store.features(rows[0])["audio_features"]
    assert store.heard_s(rows[0]) == 0
    # The same store, without another pass, at any amount.
    warm = replace(rows[0], heard_s=120.0)
    wanted, seconds = expected(small, rows[0], rows[1:3])
    assert store.heard_s(warm) == pytest.approx(seconds)
    assert 0.5 < seconds < 2.1
    torch.testing.assert_close(store.features(warm)["audio_features"], wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(cold, wanted, atol=0.01)
    # One clip is enough for half a second, and it is the same one each time.
    little = replace(rows[0], heard_s=0.5)
    one = [expected(small, rows[0], [other]) for other in rows[1:3]]
    assert store.heard_s(little) in [pytest.approx(found[1]) for found in one]
    again = cache_features(*small, [*rows, little], tmp_path, dtype="float32")
    both = [kept.features(little)["audio_features"] for kept in (store, again)]
    assert torch.equal(*both)
    assert any(torch.allclose(both[0], found[0], atol=1e-4) for found in one)
    # Of nobody else is anything known.
    for stranger in rows[3:]:
        asked = store.features(replace(stranger, heard_s=30.0))["audio_features"]
        assert torch.equal(asked, store.features(stranger)["audio_features"])


def test_a_clip_without_a_store_is_standardised_alike(small, rows, tmp_path):
    asked = [replace(row, heard_s=120.0) for row in rows]
    store = cache_features(*small, asked, tmp_path, dtype="float32")
    clips = computed_features(
        *small, asked, range(len(asked)), [1, 2, 3, 4, 0], batch_size=2, loaders=1
    )
    for index, clip in enumerate(clips):
        torch.testing.assert_close(
            clip.audio, store.features(asked[index])["audio_features"], rtol=1e-4, atol=1e-4
        )
        partner = store.features(asked[(index + 1) % 5])["audio_features"]
        torch.testing.assert_close(clip.other, partner, rtol=1e-4, atol=1e-4)


def test_what_was_heard_before_is_not_edited(small, rows):
    def others_reversed(row, frames, pcm):
        return frames, pcm if row.path == rows[0].path else pcm[::-1].copy()

    asked = [replace(row, heard_s=120.0) for row in rows]
    whole, edited = (
        list(computed_features(*small, asked, (0, 1), None, batch_size=2, loaders=1, edit=edit))
        for edit in (None, others_reversed)
    )
    assert torch.equal(edited[0].audio, whole[0].audio)
    assert not torch.allclose(edited[1].audio, whole[1].audio, atol=0.1)


def test_features_without_voices_are_made_anew(small, rows, tmp_path):
    cache_features(*small, rows, tmp_path)
    [index] = [p for p in tmp_path.rglob("*.json") if p.name != "towers.json"]
    index.write_text(index.read_text().replace('"voice"', '"unknown"'))
    store = cache_features(*small, rows, tmp_path)
    assert store.heard_s(replace(rows[0], heard_s=1.0)) > 0


def test_evaluation_is_told_how_long_actors_were_heard(small, rows, tmp_path, caplog):
    save_model(*small, tmp_path / "small")
    write_manifest(tmp_path / "m.jsonl", rows)
    common = ["eval", "--model", str(tmp_path / "small"), "--manifest", str(tmp_path / "m.jsonl")]
    common += ["--no-reasoning", "--conditions", "both", "--features", str(tmp_path / "features")]
    found = {}
    for heard_s in ("0", "120"):
        out = tmp_path / heard_s
        with caplog.at_level(logging.WARNING):
            assert main([*common, "--out", str(out), "--heard-s", heard_s]) == 0
        found[heard_s] = (out / "predictions.jsonl").read_text()
        assert json.loads((out / "eval.json").read_text())["settings"]["heard_s"] == float(heard_s)
    assert found["0"] != found["120"]
    [said] = [r.getMessage() for r in caplog.records if "to have been heard" in r.getMessage()]
    assert "120 s are to have been heard; such clips make do" in said
    with pytest.raises(ConfigError, match="heard_s is -1"):
        EvalSettings(heard_s=-1)


def test_nobody_is_known_to_a_tower_that_is_not_standardised(rows, tmp_path):
    tiny = from_preset("tiny")
    asked = [replace(row, heard_s=5.0) for row in rows]
    with pytest.raises(ConfigError, match=r"0\.wav wants its actor .* 5 s, .* Leave heard_s out"):
        cache_features(*tiny, asked, tmp_path)
    assert len(cache_features(*tiny, rows, tmp_path)) == 5


def test_somebody_must_be_named(small, rows, tmp_path):
    with pytest.raises(ConfigError, match="none of 1 rows says who its actor is"):
        cache_features(*small, [replace(rows[4], heard_s=5.0)], tmp_path)


def test_manifests_keep_how_long_an_actor_was_heard(rows, tmp_path):
    asked = [replace(rows[0], heard_s=30.0), rows[1]]
    write_manifest(tmp_path / "m.jsonl", asked)
    text = (tmp_path / "m.jsonl").read_text()
    assert text.count("heard_s") == 1
    assert [row.heard_s for row in read_manifest(tmp_path / "m.jsonl")] == [30.0, 0.0]
    with pytest.raises(ConfigError, match="heard_s is -1; wanted a time from 0 on"):
        replace(rows[0], heard_s=-1)

"""Voice heads that were fitted without an actor stand in for the model's in his clips, and in nobody else's."""

import numpy as np
import pytest
import torch

from emostream.errors import ConfigError
from emostream.model.presets import from_preset
from emostream.model.towers import VoiceHeads
from tests.training.clips import write_clip
from training.data.features import cache_features
from training.data.manifest import Row
from training.data.voice_folds import read_voice_folds, write_voice_folds


@pytest.fixture
def model():
    found, processor = from_preset("small", voice_heads=3)
    found.config.frame_crop = "whole"
    return found, processor


def test_an_actors_clips_are_told_by_the_heads_that_do_not_know_him(model, tmp_path):
    rng = np.random.default_rng(0)
    pcm = 0.3 * np.sin(np.arange(16_000) / 8) * np.linspace(0.2, 0.9, 16_000)
    rows = [
        Row(
            path=write_clip(
                tmp_path / f"{actor}.wav", video=False, pcm=pcm + 0.01 * rng.standard_normal(16_000)
            ),
            label="sad",
            split="train",
            actor=actor,
        )
        for actor in ("her", "him", "them")
    ]
    own = model[0].model.voice_heads
    folds = [VoiceHeads(own.weight.shape[1] // 2, 3) for _ in range(2)]
    write_voice_folds(tmp_path / "folds.safetensors", [(folds[0], ["her"]), (folds[1], ["him"])])
    without = read_voice_folds(tmp_path / "folds.safetensors")
    assert set(without) == {"her", "him"}
    plain = cache_features(*model, rows, tmp_path / "features")
    store = cache_features(*model, rows, tmp_path / "features", heads_without=without)
    for row, heads in zip(rows, (*folds, own), strict=True):
        told = store.features(row)["audio_features"]
        assert torch.equal(told[:, :-3], plain.features(row)["audio_features"][:, :-3])
        wanted = heads.beside(told[None, :, :-3], *plain.voice(row)[:, None])[0]
        torch.testing.assert_close(told, wanted)
    assert not torch.equal(
        store.features(rows[0])["audio_features"], plain.features(rows[0])["audio_features"]
    )


def test_another_file_is_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    for name in ("a", "none"):
        with pytest.raises(ConfigError, match=f"{name}.safetensors: wanted voice heads by fold"):
            read_voice_folds(tmp_path / f"{name}.safetensors")

"""The feature cache on real clips, with the small model and random weights."""

import json
import os

import numpy as np
import pytest
import torch

from emostream.errors import ConfigError
from emostream.media import load_clip
from emostream.model.presets import from_preset
from tests.training.clips import write_clip
from training.data.features import cache_features
from training.data.manifest import Row, clip_key


@pytest.fixture(scope="module")
def tiny():
    return from_preset("tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    made = []
    for i, (video, audio) in enumerate(((True, True), (True, False), (False, True), (True, True))):
        noise = 0.1 * rng.standard_normal(16_000).clip(-1, 1) if audio else None
        name = f"{i}.mp4" if video else f"{i}.wav"
        path = write_clip(
            folder / name, pcm=noise, video=video, audio=audio, brightness=20 + 40 * i
        )
        made.append(Row(path=path, label="sad", split="train"))
    return [*made, Row(path=made[0].path, label="sad", split="train", start_s=0.3, end_s=0.8)]


@pytest.fixture(scope="module")
def filled(tiny, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    seen = []
    store = cache_features(
        *tiny, rows, folder, batch_size=2, on_progress=lambda *at: seen.append(at)
    )
    return folder, store, seen


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


def direct(tiny, row):
    model, processor = tiny
    clip = load_clip(row.path, model.config.num_frames, row.start_s, row.end_s)
    inputs = processor(frames=clip.frames, audio=clip.audio)
    found = {}
    with torch.inference_mode():
        if "pixel_values_videos" in inputs:
            found["vision_features"] = model.model.vision(inputs["pixel_values_videos"])[0]
        if "input_features" in inputs:
            found["audio_features"] = model.model.audio(inputs["input_features"])[0]
    return found


def test_features_are_what_the_towers_give_and_an_absent_modality_is_absent(tiny, rows, filled):
    _, store, seen = filled
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    for row in rows:
        expected, found = direct(tiny, row), store.features(row)
        assert found.keys() == expected.keys()
        assert store.lengths(row) == {name: len(value) for name, value in expected.items()}
        for name, value in found.items():
            assert value.dtype == torch.float16
            torch.testing.assert_close(value.float(), expected[name], rtol=2e-3, atol=2e-3)
    assert store.features(rows[0])["vision_features"].shape[0] == tiny[0].config.num_frames


def test_cached_features_make_the_logits_that_the_clip_makes(tiny, rows, tmp_path):
    model, processor = tiny
    store = cache_features(model, processor, rows[:1], tmp_path, dtype="float32")
    clip = load_clip(rows[0].path, model.config.num_frames)
    inputs = processor(frames=clip.frames, audio=clip.audio)
    cached = {k: v for k, v in inputs.items() if k not in ("pixel_values_videos", "input_features")}
    cached |= {name: value[None] for name, value in store.features(rows[0]).items()}
    with torch.inference_mode():
        torch.testing.assert_close(model(**cached).logits, model(**inputs).logits)


def test_what_is_there_is_not_made_again(tiny, rows, filled):
    folder, store, _ = filled
    before, seen = files(folder), []
    again = cache_features(*tiny, rows, folder, on_progress=lambda *at: seen.append(at))
    assert (files(folder), seen, len(again)) == (before, [(5, 5)], 5)
    assert torch.equal(
        again.features(rows[0])["vision_features"], store.features(rows[0])["vision_features"]
    )


class Stop(Exception):
    pass


def test_an_interrupted_call_keeps_whole_shards_and_continues(tiny, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("training.data.features._SHARD_CLIPS", 2)

    def stop(done, total):
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        cache_features(*tiny, rows, tmp_path, batch_size=2, on_progress=stop)
    seen = []
    store = cache_features(*tiny, rows, tmp_path, on_progress=lambda *at: seen.append(at))
    assert seen[0][0] == 4
    assert store.usable(rows) == rows
    assert not list(tmp_path.rglob("*.part"))


def test_half_a_shard_is_not_there(tiny, rows, tmp_path):
    cache_features(*tiny, rows[:1], tmp_path)
    (index,) = (p for p in tmp_path.rglob("*.json") if p.name != "towers.json")
    index.unlink()
    seen = []
    cache_features(*tiny, rows[:1], tmp_path, on_progress=lambda *at: seen.append(at))
    assert seen == [(0, 1), (1, 1)]


def test_other_towers_miss_and_trained_language_models_do_not(tiny, rows, filled):
    folder = filled[0]
    model, processor = from_preset("tiny")
    torch.nn.init.ones_(model.model.audio_projector[0].bias)
    seen = []
    cache_features(model, processor, rows[:1], folder, on_progress=lambda *at: seen.append(at))
    assert seen == [(1, 1)]
    model, processor = from_preset("tiny", seed=1)
    seen.clear()
    store = cache_features(
        model, processor, rows[:1], folder, on_progress=lambda *at: seen.append(at)
    )
    assert seen == [(0, 1), (1, 1)]
    assert not torch.equal(
        store.features(rows[0])["audio_features"], filled[1].features(rows[0])["audio_features"]
    )


def test_a_file_that_changed_is_encoded_again(tiny, tmp_path):
    row = Row(path=write_clip(tmp_path / "a.mp4"), label="sad", split="train")
    before = cache_features(*tiny, [row], tmp_path / "features").features(row)
    write_clip(row.path, brightness=240, seconds=1.2)
    after = cache_features(*tiny, [row], tmp_path / "features").features(row)
    assert not torch.equal(before["vision_features"], after["vision_features"])


def test_a_clip_that_cannot_be_decoded_is_named_and_left_out(tiny, rows, tmp_path):
    broken = Row(path=tmp_path / "broken.mp4", label="sad", split="train")
    broken.path.write_bytes(b"not a film")
    store = cache_features(*tiny, [broken, rows[0]], tmp_path / "features")
    assert store.usable([broken, rows[0]]) == [rows[0]]
    assert "broken.mp4" in store.problem(broken)
    with pytest.raises(ConfigError, match=r"features: .*broken\.mp4 has none"):
        store.features(broken)
    stranger = Row(path=tmp_path / "x.mp4", label="sad", split="train")
    with pytest.raises(ConfigError, match="not in the store"):
        store.features(stranger)


def test_what_a_dtype_cannot_hold_is_refused(rows, tmp_path):
    model, processor = from_preset("tiny")
    norm = model.model.audio_tower.audio_tower["encoder"].layer_norm
    torch.nn.init.constant_(norm.bias, 1e6)
    with pytest.raises(ConfigError, match=r"audio tower gives 1e\+06 .* store float32"):
        cache_features(model, processor, rows[:1], tmp_path)
    store = cache_features(model, processor, rows[:1], tmp_path, dtype="float32")
    assert store.features(rows[0])["audio_features"].mean() > 1e5
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        cache_features(model, processor, rows[:1], tmp_path, dtype="int8")


def test_keys_are_absolute(rows, monkeypatch):
    monkeypatch.chdir(rows[0].path.parent)
    relative = Row(path=type(rows[0].path)(rows[0].path.name), label="sad", split="train")
    assert clip_key(relative) == clip_key(rows[0]) == (os.fspath(rows[0].path), 0.0, None)


@pytest.mark.parametrize("part", [".json", ".vision.npy", ".audio.npy"])
def test_features_that_were_cut_short_are_made_anew(tiny, rows, tmp_path, caplog, part):
    cache_features(*tiny, rows[:1], tmp_path)
    [index] = [p for p in tmp_path.rglob("*.json") if p.name != "towers.json"]
    damaged = index.with_suffix(part)
    damaged.write_bytes(damaged.read_bytes()[:150])
    store = cache_features(*tiny, rows[:1], tmp_path)
    assert f"{index}: features are cut short; these clips are encoded anew" in caplog.text
    assert set(store.features(rows[0])) == {"vision_features", "audio_features"}
    assert len(list(tmp_path.rglob("*.vision.npy"))) == 2


def test_long_clips_are_said_to_be_cut_on_every_call_and_old_features_of_them_are_not_found(
    tiny, tmp_path, caplog
):
    path = write_clip(tmp_path / "a.wav", pcm=np.full(5 * 16_000, 0.1), video=False)
    row = Row(path=path, label="sad", split="train")
    for _ in range(2):
        caplog.clear()
        cache_features(*tiny, [row], tmp_path / "f")
        assert "1 of 1 clips have more sound than the model hears" in caplog.text
    [index] = [p for p in (tmp_path / "f").rglob("*.json") if p.name != "towers.json"]
    [clip] = json.loads(index.read_text())
    del clip["cut_s"]  # as it was written when the oldest was kept
    index.write_text(json.dumps([clip]))
    cache_features(*tiny, [row], tmp_path / "f")
    assert len(list((tmp_path / "f").rglob("*.audio.npy"))) == 2

import numpy as np
import pytest
import torch
from torch import nn

from emostream import load_model, save_model
from emostream.errors import ConfigError, EmostreamError
from emostream.labels import DEFAULT_LABELS
from emostream.model.presets import from_preset
from emostream.model.towers import ConvStem
from training.recipe.loop import add_norms, fold_norms
from training.recipe.tower_augment import augment_mel, augment_pictures
from training.recipe.tower_data import (
    FRAMES,
    NO_LABEL,
    STEP_S,
    ShardPlan,
    batches,
    example,
    is_held_out,
    read_shards,
    write_shard,
)
from training.recipe.towers import train
from training.synth.acting import ACTION_UNITS, PROSODY
from training.synth.clip import action_units_at
from training.synth.script import write_script


@pytest.fixture(scope="module")
def processor():
    return from_preset("tiny")[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory, processor):
    """Sixteen training and eight held-out clips."""
    folder = tmp_path_factory.mktemp("towers")
    for name, first, clips, held_out in (("train", 0, 16, False), ("validation", 500, 8, True)):
        plan = ShardPlan(
            folder=folder / name / "000", seed=3, first=first, clips=clips, held_out=held_out
        )
        write_shard(plan, processor)
    return folder


class TestExample:
    def test_shapes(self, processor):
        clip = example(write_script(0, "train", 4), processor)
        assert {name: value.shape for name, value in clip.items()} == {
            "frames": (FRAMES, 128, 128, 3),
            "mel": (128, 400),
            "units": (FRAMES, len(ACTION_UNITS)),
            "unit_seen": (len(ACTION_UNITS),),
            "face": (),
            "voice": (),
            "label": (),
            "prosody": (len(PROSODY),),
            "tracks": (66, 3),
        }

    def test_is_a_function_of_the_script(self, processor):
        first, second = (example(write_script(0, "train", 9), processor) for _ in range(2))
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])

    def test_what_cannot_be_seen_or_heard_has_no_label(self, processor):
        scripts = [write_script(0, "train", index) for index in range(120)]
        hidden = next(s for s in scripts if s.acting.face.hidden)
        silent = next(s for s in scripts if s.acting.voice.state == "silent")
        assert example(hidden, processor)["face"] == NO_LABEL
        assert not example(hidden, processor)["unit_seen"].any()
        assert example(silent, processor)["voice"] == NO_LABEL
        plain = next(s for s in scripts if s.acting.face.state == s.acting.voice.state)
        acted = example(plain, processor)
        assert DEFAULT_LABELS[int(acted["face"])] == plain.acting.face.emotion
        assert DEFAULT_LABELS[int(acted["voice"])] == plain.acting.voice.emotion

    def test_units_are_those_of_the_frames(self, processor):
        script = write_script(0, "train", 2)
        units = example(script, processor)["units"]
        # The instants are the script's own draw; the first one is found again among fine steps.
        grid = np.arange(0.1, script.duration_s - STEP_S * (FRAMES - 1), 0.001)
        fits = np.abs(action_units_at(script, grid) - units[0]).max(1)
        at = grid[fits.argmin()] + STEP_S * np.arange(FRAMES)
        np.testing.assert_allclose(action_units_at(script, at), units, atol=0.02)


class TestShards:
    def test_held_out_actors_are_apart(self, data):
        train_clips, held_out = read_shards(data / "train"), read_shards(data / "validation")
        assert [len(shard["label"]) for shard in (*train_clips, *held_out)] == [16, 8]
        assert is_held_out("train-1100")
        assert not is_held_out("train-1099")
        assert not is_held_out(None)

    def test_a_whole_shard_is_not_rendered_again(self, data, processor):
        plan = ShardPlan(folder=data / "train" / "000", seed=3, first=0, clips=16, held_out=False)
        before = (plan.folder / "frames.npy").stat().st_mtime_ns
        write_shard(plan, processor)
        assert (plan.folder / "frames.npy").stat().st_mtime_ns == before

    def test_each_clip_once_an_epoch(self, data):
        shards = read_shards(data / "train")
        feed = batches(shards, 4, np.random.default_rng(0))
        seen = torch.cat([next(feed)["mel"].flatten(1) for _ in range(4)])
        assert len(torch.unique(seen, dim=0)) == 16

    def test_no_shards(self, tmp_path):
        with pytest.raises(ConfigError, match="found none"):
            read_shards(tmp_path)


class TestAugmentation:
    def test_pictures(self):
        torch.manual_seed(0)
        frames = torch.randint(0, 256, (6, 2, 32 * 4, 32 * 4, 3), dtype=torch.uint8)
        frames[:, 1] = frames[:, 0]
        out = augment_pictures(frames)
        assert out.shape == (6, 2, 3, 128, 128)
        # Alike for all frames of a clip, and other for each clip.
        torch.testing.assert_close(out[:, 0], out[:, 1])
        frames[:] = frames[0, 0]
        other = augment_pictures(frames)
        assert (other[0] - other[1]).abs().max() > 0.1

    def test_mel_masks(self):
        torch.manual_seed(0)
        mel = torch.rand(64, 128, 400) + 1
        out = augment_mel(mel)
        assert out.shape == mel.shape
        masked = (out < 0.99 + 0.06).float()
        assert 0.02 < masked.mean() < 0.5


class TestStem:
    @pytest.mark.parametrize("blocks", [(), (0, 1, 2)])
    def test_folding_changes_nothing(self, blocks):
        torch.manual_seed(0)
        stem = ConvStem((8, 16, 24), blocks)
        names = set(stem.state_dict())
        add_norms(stem)
        pixels = torch.rand(16, 3, 32, 32) * 2 - 1
        for _ in range(5):
            stem(pixels)
        stem.eval()
        normed = stem(pixels)
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in stem.modules())
        fold_norms(stem)
        torch.testing.assert_close(stem(pixels), normed, atol=1e-5, rtol=1e-4)
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in stem.modules())
        assert set(stem.state_dict()) == names

    def test_light_and_contrast_hardly_matter(self):
        torch.manual_seed(0)
        stem = ConvStem((8, 16))
        pixels = torch.rand(2, 3, 32, 32) - 0.5
        torch.testing.assert_close(stem(pixels), stem(pixels * 1.6 + 0.2), atol=0.05, rtol=0.1)


class TestTraining:
    @pytest.mark.parametrize("modality", ["video", "audio"])
    def test_learns_saves_and_leaves_the_rest(self, data, tmp_path, modality):
        model, processor = from_preset("tiny")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        log = tmp_path / "log.jsonl"
        scores = train(
            model,
            modality,
            data,
            steps=4,
            batch_size=8,
            learning_rate=1e-3,
            seed=0,
            log=log,
            say=lambda text: None,
        )
        assert set(scores) >= {"emotion_uar"}
        assert log.read_text().count("\n") == 1
        changed = {
            name.split(".")[1]
            for name, value in model.state_dict().items()
            if not torch.equal(value, before[name])
        }
        own = {
            "video": {"vision_tower", "mm_projector"},
            "audio": {"audio_tower", "audio_projector"},
        }
        assert changed == own[modality]
        save_model(model, processor, tmp_path / "out")
        again, _ = load_model(tmp_path / "out")
        pictures = torch.rand(2, 3, 128, 128)
        torch.testing.assert_close(again.model.vision(pictures), model.model.vision(pictures))

    def test_a_loss_that_is_no_number(self, data, tmp_path):
        model, _ = from_preset("tiny")
        model.model.audio_projector[0].weight.data.fill_(float("nan"))
        with pytest.raises(EmostreamError, match="audio tower: the loss is nan at step 1"):
            train(
                model,
                "audio",
                data,
                steps=2,
                batch_size=8,
                learning_rate=1e-3,
                seed=0,
                log=tmp_path / "log",
                say=lambda text: None,
            )

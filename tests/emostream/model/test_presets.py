"""The sizes that the project knows by name."""

import numpy as np
import pytest
import torch

from emostream import load_model, save_model
from emostream.errors import ConfigError
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import build_tokenizers, from_preset, preset_config


def test_tiny_is_what_it_promises():
    model, processor = from_preset("tiny")
    assert sum(p.numel() for p in model.parameters()) * 2 <= 16e6, "16 MB in fp16"
    assert model.config.patches_per_side % 2 == 0
    assert processor.max_context_s == 4.0
    assert len(processor.tokenizer) == model.config.vocab_size < 1024
    assert not model.training


def test_small_is_what_it_promises():
    model, processor = from_preset("small")
    assert sum(p.numel() for p in model.parameters()) * 2 <= 24e6, "24 MB in fp16"
    assert processor.pixels(np.zeros((1, 9, 9, 3), np.uint8)).shape == (1, 3, 64, 64)
    assert model.model.vision(torch.zeros(2, 3, 64, 64)).shape == (2, 16, 256)
    assert (model.config.frame_crop, model.config.crop_margin) == ("face", 1.1)
    convolutions = sum(
        p.numel() for n, p in model.model.vision_tower.named_parameters() if "patch_embedding" in n
    )
    assert convolutions > 0.9 * sum(p.numel() for p in model.model.vision_tower.parameters())


def test_a_standardised_tower_hears_no_gain_and_knows_a_person():
    tower = from_preset("small")[0].model.audio_tower
    mel = torch.rand(2, 128, 100)
    with torch.inference_mode():
        plain = tower(mel)
        torch.testing.assert_close(tower(mel + 0.4), plain, atol=1e-4, rtol=1e-3)
        raw = tower.encode(mel)
        mean, std = raw.mean(1, keepdim=True), raw.std(1, keepdim=True).clamp(min=1e-3)
        own = tower(mel, mean, std)
        torch.testing.assert_close(own.mean(1), torch.zeros(2, 169), atol=1e-4, rtol=0)
        tower.audio_tower["baseline"].mean.copy_(mean[0, 0])
        tower.audio_tower["baseline"].std.copy_(std[0, 0])
        torch.testing.assert_close(tower(mel)[0], own[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"num_mel_bins": 80},
            "prosody is given, but small-whisper has 80 mel bins, wanted a multiple of 32",
        ),
        ({"standardised": False}, "prosody or voice_heads is given, but .* not standardised"),
    ],
)
def test_prosody_that_cannot_be_is_named(changes, said):
    tower = {**preset_config("small").audio_config.to_dict(), **changes}
    with pytest.raises(ConfigError, match=said):
        preset_config("small", audio_config=tower)


def test_stem_blocks_that_fit_no_stem_are_named():
    tower = {**preset_config("small").vision_config.to_dict(), "stem_blocks": [1, 1]}
    with pytest.raises(ConfigError, match=r"stem_blocks of small-siglip names 2 convolutions"):
        preset_config("small", vision_config=tower)


@pytest.mark.parametrize(
    ("name", "millions", "visual_tokens", "patches"),
    [
        ("0.5b", 1371, 49, 14),
        # Qwen2-7B 7616, SigLIP without its head 413, Whisper 637, BERT 110, connector and projectors 790.
        ("7b", 9566, 196, 27),
    ],
)
def test_published_sizes(name, millions, visual_tokens, patches):
    config = preset_config(name)
    with torch.device("meta"):
        model = EmostreamForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    assert config.visual_tokens_per_frame == visual_tokens
    assert config.patches_per_side == patches
    assert config.audio_tokens(3000) == 500


def test_weights_follow_the_seed_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, _ = from_preset("tiny", seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    again, _ = from_preset("tiny", seed=3)
    other, _ = from_preset("tiny", seed=4)
    weights = [m.model.layers[0].mlp.up_proj.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_our_sizes_survive_saving(tmp_path, name):
    model, processor = from_preset(name)
    save_model(model, processor, tmp_path / name)
    again, processor_again = load_model(tmp_path / name)
    rng = np.random.default_rng(0)
    media = {
        "frames": rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8),
        "audio": rng.uniform(-1, 1, 64000).astype(np.float32),
    }
    before, after = processor(**media), processor_again(**media)
    assert set(before) == set(after)
    for key in before:
        assert torch.equal(before[key], after[key]), key
    with torch.inference_mode():
        assert torch.equal(model(**before).logits, again(**after).logits)


def test_tokenizers_spell_anything_and_their_domain_cheaply():
    tokenizer, gate_tokenizer = build_tokenizers(["The brows are raised. " * 3])
    for text in ("The brows are raised.", "Grüße, 世界 😀\n\t<think>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("The brows are raised.")) <= 5
    assert gate_tokenizer.unk_token_id not in gate_tokenizer("the brows are zoomed")["input_ids"]
    assert tokenizer.get_vocab() == build_tokenizers(["The brows are raised. " * 3])[0].get_vocab()


def test_an_unknown_preset_is_named():
    with pytest.raises(ConfigError, match=r"'3b' is no preset; there are tiny, 0\.5b, 7b"):
        preset_config("3b")

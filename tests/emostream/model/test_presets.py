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


def test_tiny_survives_saving(tmp_path):
    model, processor = from_preset("tiny")
    save_model(model, processor, tmp_path / "tiny")
    again, processor_again = load_model(tmp_path / "tiny")
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

"""Checkpoints and what is exported of them, made once for all tests that look at them."""

import numpy as np
import pytest
import torch

from emostream import save_model
from emostream.inference.streaming import MediaWindow
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.presets import (
    BASE_TEXT,
    PRESETS,
    build_tokenizers,
    preset_config,
    processor_for,
)
from export import cli

RNG = np.random.default_rng(4)
PICTURES = RNG.integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 16 * 8000).astype(np.float32)


def small_model(seed, name="tiny"):
    """A preset with one layer a tower at most: exporting takes time by the node."""
    tokenizer, gate_tokenizer = build_tokenizers(BASE_TEXT)
    preset = PRESETS[name]
    layers = min(1, preset["vision_config"]["num_hidden_layers"])
    config = preset_config(
        name,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_hidden_layers=1,
        vision_config=preset["vision_config"] | {"num_hidden_layers": layers},
        audio_config=preset["audio_config"] | {"encoder_layers": 1},
        gate_config=preset["gate_config"] | {"vocab_size": len(gate_tokenizer)},
    )
    torch.manual_seed(seed)
    model = EmostreamForCausalLM(config)
    return model.eval(), processor_for(config, tokenizer, gate_tokenizer)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_model(*small_model(6), tmp_path_factory.mktemp("model") / "small")


def built(checkpoint, out, *arguments):
    assert cli.main(["build", str(checkpoint), "--out", str(out), *arguments]) == 0
    return out


@pytest.fixture(scope="session")
def engines(checkpoint, tmp_path_factory):
    """Float32 graphs."""
    return built(checkpoint, tmp_path_factory.mktemp("export") / "engines")


@pytest.fixture(scope="session")
def int8_engines(checkpoint, tmp_path_factory):
    return built(checkpoint, tmp_path_factory.mktemp("int8") / "engines", "--precision", "int8")


@pytest.fixture(scope="session")
def window():
    """Window of a source that begins at a grid point."""

    def make(start, *, audio=True, source="s"):
        keys = tuple(range(start, start + 8))
        frames = tuple(PICTURES[key] for key in keys)
        pcm = PCM[start * 8000 :][:64000] if audio else None
        return MediaWindow(source=source, keys=keys, frames=frames, audio=pcm)

    return make

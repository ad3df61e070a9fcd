"""Checkpoints and what is exported of them, made once for all tests that look at them."""

import numpy as np
import pytest

from emostream import save_model
from emostream.presets import from_preset
from emostream.streaming import MediaWindow
from export import cli

RNG = np.random.default_rng(4)
PICTURES = RNG.integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 16 * 8000).astype(np.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return save_model(*from_preset("tiny", seed=6), folder)


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

"""Two processes that share a batch, or the weights as well, end where one ends that has it all."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from emostream import load_model
from emostream.media import SAMPLE_RATE_HZ
from tests.training import sft_worker
from tests.training.distributed import (
    SHARDED,
    TRAINED,
    Weights,
    farthest,
    farthest_from_start,
    sharding,
    share,
)

pytestmark = pytest.mark.slow


def loss(out: Path) -> float:
    with safe_open(out / TRAINED, "pt") as file:
        return float(file.metadata()["loss"])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """Folder and weights of a run of one process."""
    out = tmp_path_factory.mktemp("one")
    sft_worker.train(out)
    weights = load_file(out / TRAINED)
    assert farthest_from_start(weights) > 1e-4
    return out, weights


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of two processes, which share the batch first and then the weights as well."""
    out = tmp_path_factory.mktemp("two") / "out"
    share(sft_worker.__name__, out)
    return out


def test_two_processes_train_like_one(one, two):
    folder, weights = one
    assert farthest(weights, load_file(two / TRAINED)) < 1e-4 * farthest_from_start(weights)
    assert loss(two) == pytest.approx(loss(folder), rel=1e-5)


@sharding
def test_sharded_weights_train_alike_and_are_saved_whole(one, two):
    _, weights = one
    out = two / SHARDED
    whole = load_file(out / "model" / "model.safetensors")
    assert farthest(weights, whole) < 1e-4 * farthest_from_start(weights)
    again = load_file(out / "again" / "model" / "model.safetensors")
    assert farthest(whole, again) == 0  # from the checkpoint of the last step but one
    for folder in (out / "checkpoint-2", out / "model"):
        model, processor = load_model(folder)
        inputs = processor(frames=None, audio=np.zeros(SAMPLE_RATE_HZ, np.float32))
        assert model(**inputs).logits.isfinite().all()
    assert farthest(whole, model.state_dict()) == 0

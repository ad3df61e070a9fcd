"""The same model on a GPU: graphs replay what eager code computes, and both agree with the CPU."""

import numpy as np
import pytest
import torch

from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.model.presets import from_preset

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(11)
PICTURES = RNG.integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 40 * 8000).astype(np.float32)


def window(source, start, *, audio=True):
    keys = tuple(range(start, start + 8))
    return MediaWindow(
        source=source,
        keys=keys,
        frames=tuple(PICTURES[key] for key in keys),
        audio=PCM[start * 8000 :][:64000] if audio else None,
    )


@pytest.fixture(scope="module")
def models():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    out = {}
    for device in ("cpu", "cuda"):
        model, processor = from_preset("tiny", seed=2)
        head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        model.lm_head.weight = torch.nn.Parameter(head)
        with torch.no_grad():
            model.model.embed_tokens.weight.mul_(50)
        out[device] = model.to(device), processor
    return out


def test_labels_of_replayed_graphs_equal_the_cpu(models):
    recognizers = {device: Recognizer(*pair) for device, pair in models.items()}
    # Hops of one layout replay one graph; a batch and a lost modality take others.
    for start in range(6):
        windows = [window("a", start), window("b", start + 2, audio=start % 3 != 0)]
        results = {device: r.recognize(windows) for device, r in recognizers.items()}
        for cpu, cuda in zip(results["cpu"], results["cuda"], strict=True):
            assert cuda.scores == pytest.approx(cpu.scores, abs=1e-3)


def test_reasoning_of_replayed_graphs_equals_the_cpu(models):
    texts = {}
    for device, pair in models.items():
        recognizer = Recognizer(*pair, max_new_tokens=24, slots=4)
        results = recognizer.recognize([window(s, i) for i, s in enumerate("abc")])
        for result in results:
            recognizer.start_reasoning(result)
        recognizer.reason()
        recognizer.recognize([window("a", 9)])
        recognizer.stop_reasoning("b")
        last = {}
        while steps := recognizer.reason():
            last.update({step.key: step.text for step in steps})
        texts[device] = last
    assert texts["cuda"] == texts["cpu"]
    assert set(texts["cuda"]) == {"a", "c"}


def test_no_memory_grows_over_hops(models):
    recognizer = Recognizer(*models["cuda"])
    for start in range(3):
        recognizer.recognize([window("a", start)])
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for start in range(3, 30):
        recognizer.recognize([window("a", start)])
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before

"""Sampling of groups: what is drawn, and that nothing else has a part in it."""

import gc
import weakref

import pytest
import torch

from emostream.inference.cuda_graphs import GraphedFunction
from emostream.inference.kv_cache import PlacedCache
from tests.training.grpo_rig import MadeUpFeatures, policy, rows
from training.data.prompts import ClipPrompts
from training.grpo.rollout import pick, sample_completions, uniform_numbers

GENERATIONS, LIMIT = 4, 6


@pytest.fixture(scope="module")
def parts():
    model, processor = policy()
    return model.eval(), ClipPrompts(rows(6), MadeUpFeatures(processor), processor)


def batch(prompts, clips):
    ids = [prompts.ids(clip) for clip in clips]
    width = max(map(len, ids))
    return {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
        **prompts.media(clips, width),
    }


def sample(parts, clips, stops=(), temperature=1.0, static=False):
    model, prompts = parts
    uniform = uniform_numbers([(7, clip) for clip in clips], GENERATIONS, LIMIT)
    inputs = {name: value.to(model.device) for name, value in batch(prompts, clips).items()}
    drawn = sample_completions(
        model, inputs, uniform, stops=stops, temperature=temperature, static=static
    )
    return drawn, uniform


@torch.no_grad()
def replay(parts, clip, uniform_C, stops, temperature):
    """One completion token by token, each from a pass over the whole sequence."""
    model, prompts = parts
    ids = prompts.ids(clip)
    media, out = prompts.media([clip], len(ids)), []
    for number in uniform_C:
        logits = model(input_ids=torch.tensor([ids + out]), use_cache=False, **media).logits[0, -1]
        out.append(int(pick(logits, number, temperature)))
        if out[-1] in stops:
            break
    return out


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_completions_are_those_of_the_model_without_a_cache(parts, temperature, static):
    clips = [0, 1, 2]  # both modalities, no sound, no pictures: prompts of three lengths
    free, _ = sample(parts, clips, temperature=temperature)
    stops = [free[1][1], free[6][3], free[9][2]]  # so that completions end at different times
    drawn, uniform = sample(parts, clips, stops, temperature, static)
    expected = [
        replay(parts, clip, uniform[n, g], stops, temperature)
        for n, clip in enumerate(clips)
        for g in range(GENERATIONS)
    ]
    assert drawn == expected
    assert len({len(row) for row in drawn}) > 1
    assert len({tuple(row) for row in drawn}) >= GENERATIONS


def test_nothing_of_a_batch_outlives_it(parts, monkeypatch):
    caches = []

    class Watched(PlacedCache):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            caches.append(weakref.ref(self))

    monkeypatch.setattr("training.grpo.rollout.PlacedCache", Watched)
    gc.disable()
    try:
        sample(parts, [0, 1], static=True)
        assert [cache() for cache in caches] == [None]
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def on_gpu():
    model, processor = policy()
    return model.eval().to("cuda"), ClipPrompts(rows(6), MadeUpFeatures(processor), processor)


@pytest.mark.gpu
def test_a_gpu_samples_what_the_cpu_does(parts, on_gpu):
    clips = [0, 1, 2]
    free, _ = sample(parts, clips)
    stops = [free[1][1], free[6][3], free[9][2]]
    expected, _ = sample(parts, clips, stops)
    for static in (False, True, None):
        assert sample(on_gpu, clips, stops, static=static)[0] == expected


@pytest.mark.gpu
def test_a_replayed_graph_samples_what_plain_calls_do_under_autocast(on_gpu, monkeypatch):
    with torch.autocast("cuda", torch.bfloat16):
        replayed, _ = sample(on_gpu, [0, 1, 2], static=True)
        monkeypatch.setattr(
            GraphedFunction, "__call__", lambda self, _, *inputs: self._function(*inputs)
        )
        plain, _ = sample(on_gpu, [0, 1, 2], static=True)
    assert replayed == plain


@pytest.mark.parametrize("static", [False, True])
def test_a_completion_does_not_depend_on_its_company(parts, static):
    together, _ = sample(parts, [0, 1, 2, 3], static=static)
    alone = [row for clip in (0, 1, 2, 3) for row in sample(parts, [clip], static=static)[0]]
    assert together == alone


def test_an_end_token_ends_a_completion_and_belongs_to_it(parts):
    free, _ = sample(parts, [0])
    stop = free[0][0]
    drawn, _ = sample(parts, [0], [stop])
    assert drawn[0] == [stop]
    for before, after in zip(free, drawn, strict=True):
        end = before.index(stop) + 1 if stop in before else LIMIT
        assert after == before[:end]


def test_pick_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.5, 0.25, 0.0, 0.25]).log()
    numbers = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 0.9999999])
    picked = pick(logits.expand(6, 4), numbers, 1.0)
    assert picked.tolist() == [0, 0, 1, 1, 3, 3]


def test_a_low_temperature_picks_the_likeliest():
    logits = torch.tensor([0.1, 0.4, 0.3])
    assert pick(logits.expand(3, 3), torch.tensor([0.01, 0.5, 0.99]), 1e-3).tolist() == [1, 1, 1]


def test_sampling_follows_the_distribution():
    chances = torch.tensor([0.1, 0.2, 0.7])
    numbers = uniform_numbers([(1,)], 1, 20_000)[0, 0]
    picked = pick(chances.log().expand(20_000, 3), numbers, 1.0)
    shares = torch.bincount(picked, minlength=3) / 20_000
    assert torch.allclose(shares, chances, atol=0.01)

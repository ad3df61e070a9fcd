"""Streamed reasoning equals `generate`, however it is interleaved with labels and other answers."""

import numpy as np
import pytest
import torch

from emostream.errors import InputError
from emostream.inference.recognizer import Recognizer
from emostream.inference.streaming import MediaWindow
from emostream.model.presets import from_preset

RNG = np.random.default_rng(5)
PICTURES = RNG.integers(0, 256, (40, 24, 32, 3), dtype=np.uint8)
PCM = RNG.uniform(-0.5, 0.5, 40 * 8000).astype(np.float32)
TOKENS = 24


@pytest.fixture(scope="module")
def lively():
    """The tiny preset made to wander: with a tied head and small embeddings it would repeat one token."""
    model, processor = from_preset("tiny", seed=2)
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
    model.lm_head.weight = torch.nn.Parameter(head)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(50)
    return model, processor


def window(source, start, *, video=True, audio=True):
    keys = tuple(range(start, start + 8))
    return MediaWindow(
        source=source,
        keys=keys if video else (),
        frames=tuple(PICTURES[key] for key in keys) if video else (),
        audio=PCM[start * 8000 :][:64000] if audio else None,
    )


def generated(model, processor, win, tokens=TOKENS):
    inputs = processor(frames=np.stack(win.frames) if win.frames else None, audio=win.audio)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    # A character cut short by the length limit is held back by the stream and a replacement character here.
    return processor.tokenizer.decode(new, skip_special_tokens=True).rstrip("\ufffd"), len(new)


def finish(recognizer):
    last = {}
    while steps := recognizer.reason():
        for step in steps:
            assert step.key not in last or step.text == last[step.key].text + step.delta
            last[step.key] = step
    assert all(step.done for step in last.values())
    return last


def test_reasoning_equals_generate_and_survives_later_hops(lively):
    model, processor = lively
    recognizer = Recognizer(model, processor, max_new_tokens=TOKENS)
    first = window("a", 0)
    [result] = recognizer.recognize([first])
    recognizer.start_reasoning(result)
    for hop in range(1, 6):
        recognizer.reason()
        recognizer.recognize([window("a", hop)])
    steps = finish(recognizer)
    text, tokens = generated(model, processor, first)
    assert len(set(text)) > 5, "the reference text is too poor to compare with"
    assert steps["a"].text == text
    assert steps["a"].tokens == tokens
    assert steps["a"].truncated


@pytest.mark.parametrize("static_rows", [False, True])
def test_answers_of_several_sources_do_not_touch_each_other(lively, static_rows):
    model, processor = lively
    recognizer = Recognizer(model, processor, max_new_tokens=TOKENS, slots=4)
    # A GPU computes a fixed number of rows; the same code runs here.
    recognizer._reasoning.static_rows = static_rows
    windows = [
        window("av", 0),
        window("v", 3, audio=False),
        window("a", 6, video=False),
        window("late", 9),
    ]
    results = {r.source: r for r in recognizer.recognize(windows[:3])}
    for source in ("av", "v", "a"):
        recognizer.start_reasoning(results[source])
    for _ in range(5):
        recognizer.reason()
    recognizer.stop_reasoning("av")
    [late] = recognizer.recognize(windows[3:])
    recognizer.start_reasoning(late)
    assert recognizer.reasoning_sources == ["a", "v", "late"]
    steps = finish(recognizer)
    for win in windows[1:]:
        assert steps[win.source].text == generated(model, processor, win)[0]


def test_mixed_batches_score_as_single_windows_do(lively):
    model, processor = lively
    windows = [
        window("a", 0),
        window("b", 5, audio=False),
        window("c", 2),
        window("d", 7, video=False),
    ]
    together = Recognizer(model, processor).recognize(windows)
    for win, result in zip(windows, together, strict=True):
        [alone] = Recognizer(model, processor).recognize([win])
        assert result.source == win.source
        assert result.scores == pytest.approx(alone.scores, abs=1e-5)


def test_a_growing_batch_keeps_its_scores(lively):
    model, processor = lively
    recognizer = Recognizer(model, processor)
    [one] = recognizer.recognize([window("a", 0)])
    three = recognizer.recognize([window(source, 0) for source in "abc"])
    for result in three:
        assert result.scores == pytest.approx(one.scores, abs=1e-5)


def test_the_end_of_the_turn_ends_the_answer(lively):
    model, processor = lively
    first = window("a", 0)
    text, _ = generated(model, processor, first)
    inputs = processor(frames=np.stack(first.frames), audio=first.audio)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :].tolist()
    stop = next(token for token in new[4:] if new.index(token) >= 4)
    old, model.generation_config.eos_token_id = model.generation_config.eos_token_id, [stop]
    try:
        recognizer = Recognizer(model, processor, max_new_tokens=TOKENS)
        recognizer.start_reasoning(recognizer.recognize([first])[0])
        step = finish(recognizer)["a"]
    finally:
        model.generation_config.eos_token_id = old
    assert step.tokens == new.index(stop)
    assert not step.truncated
    assert text.startswith(step.text)


def test_a_stale_window_cannot_start_an_answer(lively):
    model, processor = lively
    recognizer = Recognizer(model, processor)
    [old] = recognizer.recognize([window("a", 0)])
    recognizer.recognize([window("a", 1)])
    with pytest.raises(InputError, match="no longer in the cache"):
        recognizer.start_reasoning(old)


def test_one_answer_a_source_and_a_bounded_number(lively):
    model, processor = lively
    recognizer = Recognizer(model, processor, slots=1)
    results = recognizer.recognize([window("a", 0), window("b", 0)])
    recognizer.start_reasoning(results[0])
    with pytest.raises(InputError, match="under way"):
        recognizer.start_reasoning(results[0])
    with pytest.raises(InputError, match="slots are taken"):
        recognizer.start_reasoning(results[1])
    recognizer.forget("a")
    recognizer.start_reasoning(results[1])
    assert recognizer.reasoning_sources == ["b"]


def test_ids_without_text_add_none(lively):
    """Vocabularies are padded: a model may write ids that its tokenizer does not know."""
    model, processor = lively
    recognizer = Recognizer(model, processor, max_new_tokens=3)
    recognizer.start_reasoning(recognizer.recognize([window("a", 0)])[0])
    recognizer._reasoning._answers[0].pending = len(processor.tokenizer) + 10
    step = _deliver(recognizer)
    assert step.delta == ""
    assert step.tokens == 1


def _deliver(recognizer):
    decoder = recognizer._reasoning
    return decoder._deliver(decoder._answers[0])


def test_characters_of_several_tokens_come_whole(lively):
    model, processor = lively
    recognizer = Recognizer(model, processor, max_new_tokens=64)
    recognizer.start_reasoning(recognizer.recognize([window("a", 0)])[0])
    decoder, deltas = recognizer._reasoning, []
    for token in processor.tokenizer.encode("naïve 😀 done"):
        decoder._answers[0].pending = token
        deltas.append(_deliver(recognizer).delta)
    assert "".join(deltas) == "naïve 😀 done"
    assert "�" not in "".join(deltas)
    assert "" in deltas


def test_recognizing_nothing_gives_nothing(lively):
    assert Recognizer(*lively).recognize([]) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_both_speeds(dtype):
    model, processor = from_preset("tiny")
    recognizer = Recognizer(model.to(dtype), processor, max_new_tokens=4)
    [result] = recognizer.recognize([window("a", 0)])
    assert sum(result.scores.values()) == pytest.approx(1, abs=1e-5)
    recognizer.start_reasoning(result)
    assert finish(recognizer)["a"].tokens <= 4

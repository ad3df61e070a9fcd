"""Label scores from the token tree equal scoring every candidate by itself."""

import math

import numpy as np
import pytest
import torch

from emostream.errors import ConfigError
from emostream.inference.recognizer import Recognizer
from emostream.inference.scoring import candidate_tree
from emostream.inference.streaming import MediaWindow
from emostream.labels import DEFAULT_LABELS
from emostream.model.presets import from_preset

RNG = np.random.default_rng(3)
PICTURES = tuple(RNG.integers(0, 256, (8, 24, 32, 3), dtype=np.uint8))
PCM = RNG.uniform(-0.5, 0.5, 64000).astype(np.float32)


@pytest.fixture(scope="module")
def lively():
    """The tiny preset with weights large enough that scores differ."""
    model, processor = from_preset("tiny", seed=1)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(8)
    return model, processor


def reference_scores(model, processor, labels, style, spellings=None):
    """Each candidate behind the prompt in a pass of its own, as the definition reads."""
    inputs = processor(frames=np.stack(PICTURES), audio=PCM)
    tokenizer, length = processor.tokenizer, inputs["input_ids"].shape[1]
    rows = []
    for label in labels:
        for spelling in (label, *(spellings or {}).get(label, ())):
            if style == "bare":
                ids = [*tokenizer.encode(spelling), tokenizer.eos_token_id]
            else:
                ids = tokenizer.encode(f"<think></think>\n<answer>{spelling}</answer>")
            full = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
            with torch.no_grad():
                logits = model(
                    **{**inputs, "input_ids": full, "attention_mask": torch.ones_like(full)}
                ).logits[0]
            log_probs = logits.log_softmax(-1)[length - 1 : -1]
            rows.append((label, ids, log_probs.gather(1, torch.tensor(ids)[:, None])[:, 0]))
    common = 0
    while len({tuple(ids[: common + 1]) for _, ids, _ in rows}) == 1 and common < min(
        len(ids) for _, ids, _ in rows
    ):
        common += 1
    mass = dict.fromkeys(labels, 0.0)
    best = max(float(lp[common:].sum()) for _, _, lp in rows)
    for label, _, log_probs in rows:
        mass[label] += math.exp(float(log_probs[common:].sum()) - best)
    return {label: value / sum(mass.values()) for label, value in mass.items()}


@pytest.mark.parametrize("style", ["reasoned", "bare"])
@pytest.mark.parametrize(
    "labels",
    [
        DEFAULT_LABELS,
        ("sad", "sadder", "saddest"),
        ("joy", "Überraschung", "calm down"),
        ("happy",),
    ],
)
def test_scores_equal_scoring_each_candidate_alone(lively, labels, style):
    model, processor = lively
    model.config.answer_style = style
    try:
        recognizer = Recognizer(model, processor, labels=labels)
        window = MediaWindow(source="s", keys=tuple(range(8)), frames=PICTURES, audio=PCM)
        [result] = recognizer.recognize([window])
    finally:
        model.config.answer_style = "reasoned"
    wanted = reference_scores(model, processor, labels, style)
    assert result.scores == pytest.approx(wanted, abs=1e-4)
    assert list(result.scores) == list(labels)
    assert sum(result.scores.values()) == pytest.approx(1, abs=1e-5)
    assert result.label == max(wanted, key=wanted.get)


def test_spellings_of_a_label_add_up(lively):
    model, processor = lively
    labels, spellings = ("happy", "angry"), {"happy": ("joy", "happiness"), "angry": ("anger",)}
    recognizer = Recognizer(model, processor, labels=labels, spellings=spellings)
    window = MediaWindow(source="s", keys=tuple(range(8)), frames=PICTURES, audio=PCM)
    [result] = recognizer.recognize([window])
    wanted = reference_scores(model, processor, labels, "reasoned", spellings)
    assert result.scores == pytest.approx(wanted, abs=1e-4)


class Letters:
    """A tokenizer of single characters: the tree can be worked out by hand."""

    eos_token_id = 0

    def encode(self, text, add_special_tokens=False):
        return [ord(letter) for letter in text]


def test_tree_by_hand():
    tree = candidate_tree(Letters(), ["ab", "ac", "b"], style="bare")
    # Read: a, ab, ac, b. Scored: the first letter (row 0, the prompt), the second, and the end of the turn.
    assert tree.token_ids_K.tolist() == [97, 98, 99, 98]
    assert tree.depth_K.tolist() == [0, 1, 1, 0]
    assert tree.ancestors_KK.int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert tree.rows_R.tolist() == [0, 1, 2, 3, 4]
    log_probs = torch.full((1, 5, 128), -50.0)
    for row, token, probability in [
        (0, 97, 0.5),
        (0, 98, 0.25),
        (1, 98, 0.5),
        (1, 99, 0.5),
        (2, 0, 1.0),
        (3, 0, 0.5),
        (4, 0, 1.0),
    ]:
        log_probs[0, row, token] = math.log(probability)
    # ab: .5*.5*1, ac: .5*.5*.5, b: .25*1
    wanted = torch.tensor([0.25, 0.125, 0.25]) / 0.625
    torch.testing.assert_close(tree.scores(log_probs)[0], wanted)
    cooler = wanted.sqrt() / wanted.sqrt().sum()
    torch.testing.assert_close(tree.scores(log_probs, temperature=2)[0], cooler)


def test_only_what_follows_the_common_prefix_is_scored():
    tree = candidate_tree(Letters(), ["xa", "xb"], style="bare")
    log_probs = torch.full((1, len(tree.rows_R), 128), -50.0)
    assert 0 not in tree.rows_R.tolist()
    log_probs[0, 0, 97], log_probs[0, 0, 98] = math.log(0.75), math.log(0.25)
    log_probs[0, 1:, 0] = 0.0
    torch.testing.assert_close(tree.scores(log_probs)[0], torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize("labels", [[], ["happy", "happy"], [" "], ["a<b"]])
def test_unusable_label_lists_are_refused(labels):
    with pytest.raises(ConfigError, match="labels"):
        candidate_tree(Letters(), labels)


def test_one_spelling_of_two_labels_is_refused():
    with pytest.raises(ConfigError, match="'glad' spells both"):
        candidate_tree(Letters(), ["happy", "sad"], spellings={"happy": ["glad"], "sad": ["glad"]})

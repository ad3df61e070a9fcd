"""From a synthetic clip's cues to text, claims, verdicts and rewards: the parts mean the same."""

import random

import pytest

from emostream.answers import compose_answer
from training.claims.claim import EXPRESSION, HIDDEN, PROSODY
from training.claims.evaluation_lexicon import extract_claims
from training.claims.verify import verify
from training.claims.wordings import SURFACE
from training.evaluation.metrics import faithfulness
from training.grpo.rewards import grounding
from training.synth.clip import clip_row
from training.synth.script import write_script


def describe(cues, rng):
    """Everything true and worth saying, in random order and wording."""
    keys = list(cues.salient())
    for modality, whole in (("face", EXPRESSION), ("voice", PROSODY)):
        if cues.hidden(modality):
            keys.append((modality, HIDDEN, 1))
        elif cues.at_rest(modality):
            keys.append((modality, whole, 0))
    rng.shuffle(keys)
    return " ".join(f"{rng.choice(SURFACE[key].clauses).capitalize()}." for key in keys)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    rows = [clip_row(write_script(3, "train", i)) for i in range(140)]
    return [(row, describe(row.cues, rng)) for row in rows]


def test_a_true_description_is_fully_supported_and_rewarded(texts):
    rewards = [grounding(compose_answer(text, row.label), row.cues) for row, text in texts]
    assert min(rewards) == 1.0
    claims = [(row.cues, extract_claims(text)) for row, text in texts]
    found = faithfulness((cues, said, verify(said, cues)) for cues, said in claims)
    assert (found.claim_support_rate, found.cue_recall, found.covered) == (1.0, 1.0, len(texts))


def test_another_clips_description_is_worth_next_to_nothing(texts):
    rewards = [
        grounding(compose_answer(text, row.label), texts[i - 1][0].cues)
        for i, (row, text) in enumerate(texts)
    ]
    assert sum(rewards) / len(rewards) < 0.1

"""Think texts from cues: true, paid in full, and read by both lexicons as what was meant."""

import numpy as np
import pytest

from emostream.answers import compose_answer
from emostream.model.presets import BASE_TEXT, build_tokenizers
from training.claims.evaluation_lexicon import extract_claims as read_by_evaluation
from training.claims.extract import extract_claims
from training.claims.naming import names_label
from training.claims.verify import verify
from training.data.cues import Cues, Informative
from training.grpo.rewards import grounding, is_degenerate
from training.sft.compose import LEAST_CLAIMS, MOST_CLAIMS, compose, corpus_texts
from training.synth.clip import clip_row
from training.synth.script import write_script

STRONG = Cues(
    {"AU4": 0.5, "AU7": 0.9, "AU9": 0.6, "AU10": 0.7, "AU15": 0.45},
    {"pitch": -1.0, "loudness": 1.2, "rate": 2.0, "tension": 1.9, "tremor": 1.8},
)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    rows = [
        clip_row(write_script(5, split, i))
        for split in ("train", "test", "ood")
        for i in range(210)
    ]
    return [(row, compose(row.cues, rng)) for row in rows]


def keys(claims):
    return {claim.key for claim in claims}


def test_texts_of_clips_are_paid_in_full(texts):
    rewards = [grounding(compose_answer(text, row.label), row.cues) for row, text in texts]
    assert np.mean(rewards) > 0.99
    assert min(rewards) > 0.8


def test_every_claim_holds_and_both_lexicons_read_the_same(texts):
    for row, text in texts:
        said = extract_claims(text)
        assert len(verify(said, row.cues).supported) == len(said), text
        assert keys(read_by_evaluation(text)) == keys(said), text
        assert min(LEAST_CLAIMS, row.cues.offered()) <= len(said) <= MOST_CLAIMS
        spoken = {claim.modality for claim in said}
        informative = row.cues.informative
        assert spoken >= {
            name
            for name, tells in (("face", informative.video), ("voice", informative.audio))
            if tells
        }


def test_no_label_is_named_and_nothing_said_twice(texts):
    for _, text in texts:
        assert not names_label(text)
        assert not is_degenerate(text)
        assert len(text.split()) <= 40


def test_wording_varies_and_what_is_said_does_not():
    rng = np.random.default_rng(1)
    several = [compose(STRONG, rng) for _ in range(60)]
    assert len(set(several)) > 50
    orders = {tuple(claim.key for claim in extract_claims(text)) for text in several}
    face = [
        ("face", cue, 1, False) for cue in ("eyes_narrowed", "nose_wrinkled", "upper_lip_raised")
    ]
    voice = [("voice", cue, 1, False) for cue in ("rate", "tension", "tremor")]
    assert orders == {(*face, *voice), (*voice, *face)}


def test_one_modality_has_more_room_where_the_other_has_little_to_say():
    cues = Cues({"AU12": 0.0}, STRONG.voice)
    claims = extract_claims(compose(cues, np.random.default_rng(0)))
    assert sorted(claim.cue for claim in claims) == sorted((*STRONG.voice, "expression"))


def test_slight_cues_fill_up_and_only_beside_salient_ones():
    cues = Cues({"AU12": 0.8, "AU6": 0.3, "AU25": 0.2}, {"pitch": 0.6})
    said = {
        frozenset(claim.cue for claim in extract_claims(compose(cues, np.random.default_rng(i))))
        for i in range(20)
    }
    plain = {"lip_corners_up", "prosody"}
    assert said == {frozenset(plain), frozenset({*plain, "cheeks_raised"})}


def test_a_missing_modality_is_not_spoken_of():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for given, modality in (({"video": False}, "voice"), ({"audio": False}, "face")):
            claims = extract_claims(compose(STRONG, rng, **given))
            assert {claim.modality for claim in claims} == {modality}
            assert len(claims) == 5


def test_a_hidden_modality_is_said_to_be_and_an_unrecorded_one_is_not_spoken_of():
    rng = np.random.default_rng(0)
    hidden = Cues({}, {"pitch": 2.0}, Informative(False, True))
    assert ("face", "hidden", 1, False) in keys(extract_claims(compose(hidden, rng)))
    unrecorded = Cues({}, {"pitch": 2.0})
    assert {c.modality for c in extract_claims(compose(unrecorded, rng))} == {"voice"}
    assert compose(Cues(), rng) == ""


def test_corpus_texts_make_every_wording_cheap():
    texts = list(corpus_texts())
    tokenizer, _ = build_tokenizers((*BASE_TEXT, *texts))
    lengths = [len(tokenizer.encode(text)) / len(text.split()) for text in texts]
    assert np.mean(lengths) < 1.5  # punctuation included
    assert len({claim.key for text in texts for claim in extract_claims(text)}) >= 36

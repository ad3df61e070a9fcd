"""Composed reasons read as sentences: one for the face, one for the voice, one on how they go together."""

import re

import numpy as np
import pytest

from training.claims.evaluation_lexicon import extract_claims as read_by_evaluation
from training.claims.extract import extract_claims
from training.claims.grammar import malformed, repeats
from training.data.cues import Cues, Informative
from training.sft.compose import compose
from training.sft.phrasing import (
    _AGREE,
    _ALONE,
    _AT_REST,
    _DIFFER,
    _UNSEEN,
    _WORDS,
    sentence,
    together,
)
from training.synth.clip import clip_row
from training.synth.script import write_script

SMILE = {"AU12": 0.8, "AU4": 0.0}
LOUD = {"loudness": 1.5, "pitch": 0.0}


def spoken(cues: Cues, seeds: int = 30) -> set[str]:
    return {compose(cues, np.random.default_rng(seed)) for seed in range(seeds)}


def test_a_sentence_each_and_one_for_both():
    rng = np.random.default_rng(2)
    for index in range(150):
        cues = clip_row(write_script(8, "train", index)).cues
        sentences = re.findall(r"[^.]+\.", compose(cues, rng))
        assert len(sentences) == 3
        about = [{c.modality for c in extract_claims(text)} for text in sentences]
        assert sorted(map(sorted, about[:2])) == [["face"], ["voice"]]
        assert about[2] == set()


@pytest.mark.parametrize(
    "text", [*_AGREE, *(t for several in (_DIFFER, _ALONE) for ts in several.values() for t in ts)]
)
def test_how_they_go_together_is_no_claim(text):
    assert extract_claims(text) == read_by_evaluation(text) == []


@pytest.mark.parametrize(
    ("cues", "wanted"),
    [
        (Cues(SMILE, LOUD), _AGREE),
        (Cues(SMILE, LOUD, Informative(True, False)), _DIFFER["face"]),
        (Cues(SMILE, LOUD, Informative(False, True)), _DIFFER["voice"]),
        (Cues({"AU12": 0.0}, LOUD, Informative(False, True)), _ALONE["voice"]),
        (Cues(SMILE, {}, Informative(True, False)), _ALONE["face"]),
        (Cues({"AU12": 0.0}, {}, Informative(False, False)), ("",)),
    ],
)
def test_what_is_said_of_both_follows_from_what_tells(cues, wanted):
    rng = np.random.default_rng(0)
    assert {together(cues, ["face", "voice"], rng) for _ in range(30)} == set(wanted)
    assert together(cues, ["voice"], rng) == ""


def test_one_thing_is_spoken_of_once():
    cues = Cues(
        {"AU12": 0.0}, {"pitch": 1.5, "pitch_range": 1.2, "breathiness": -1.0, "tension": 1.4}
    )
    for text in spoken(cues):
        assert text.count("pitch") == 1
        assert text.replace("voice agree", "").count("voice") == 1


def test_a_list_of_lists_keeps_its_verbs():
    for text in spoken(Cues({}, {"pitch": 1.5, "pitch_range": -1.2, "tension": -1.4})):
        assert "voice" in text
        assert ("pitch is" not in text) or ", and the voice is " in text


def test_two_actions_of_one_thing_are_one_clause():
    texts = list(spoken(Cues({"AU1": 0.9, "AU2": 0.9, "AU4": 0.6}, {})))
    assert any("brows are raised and drawn together" in text for text in texts)
    assert any("brows go up and are furrowed" in text for text in texts)
    assert not any(text.lower().count("the brows") > 1 for text in texts)


def test_actions_of_one_part_do_not_deny_each_other():
    both = Cues({"AU1": 0.9, "AU2": 0.9, "AU4": 0.6, "AU5": 0.8, "AU7": 0.7}, {})
    for text in spoken(both):
        assert "lowered brows" not in text
        assert "brows are lowered" not in text
        assert "narrowed" not in text


@pytest.mark.parametrize(("key", "words"), list(_WORDS.items()))
def test_each_adjective_is_read_as_its_dimension_by_both_lexicons(key, words):
    claim = ("voice", *key)
    expected = {(*claim, False)}
    for seed in range(12):
        text = sentence("voice", [claim], np.random.default_rng(seed))
        assert {c.key for c in extract_claims(text)} == expected, text
        assert {c.key for c in read_by_evaluation(text)} == expected, text
    assert words


def test_every_form_is_well_made():
    rng = np.random.default_rng(4)
    texts = [
        compose(clip_row(write_script(9, split, index)).cues, rng)
        for split in ("train", "ood")
        for index in range(200)
    ]
    assert [text for text in texts if repeats(text) or malformed(text)] == []
    begins = {" ".join(text.split()[:2]) for text in texts}
    assert {"The face", "We see", "We hear", "The pitch", "The speech"} <= begins
    for modality in ("face", "voice"):
        assert len({*_AT_REST[modality], *_UNSEEN[modality]}) >= 5

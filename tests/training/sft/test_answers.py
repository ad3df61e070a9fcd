from pathlib import Path

import numpy as np

from emostream.answers import parse_answer
from training.claims.extract import extract_claims
from training.data.cues import Cues
from training.data.manifest import Row
from training.sft.answers import AnswerWriter

CUES = Cues({"AU12": 0.8, "AU6": 0.7}, {"pitch": 1.5, "rate": 1.2})
ACTED = Row(path=Path("a.mp4"), label="happy", split="train", cues=CUES)
ON_FILE = Row(path=Path("a.mp4"), label=None, answer="glad", reason="They laugh.", split="train")
LABELLED = Row(path=Path("a.mp4"), label="sad", split="train")
FIRST = "<think></think>\n<answer>happy</answer>"


def write(writer, row=ACTED, seed=0, **given):
    return writer.write(row, np.random.default_rng(seed), **given)


def test_a_reasoned_answer_comes_from_the_cues_and_sometimes_the_label_first():
    writer = AnswerWriter(label_first=0.25)
    several = [write(writer, seed=seed) for seed in range(200)]
    assert len({texts[0] for texts in several}) > 20
    for first, *rest in several:
        answer = parse_answer(first)
        assert (answer.well_formed, answer.label, rest) in (
            (True, "happy", []),
            (True, "happy", [FIRST]),
        )
        assert len(extract_claims(answer.think)) == 4
    assert 30 <= sum(len(texts) == 2 for texts in several) <= 70
    assert len(write(AnswerWriter(label_first=0.0))) == 1


def test_several_wordings_of_one_clip_are_different():
    texts = write(AnswerWriter(label_first=1.0, wordings=3))
    assert len(set(texts)) == len(texts) == 4
    assert texts[-1] == FIRST


def test_a_text_speaks_of_what_is_given_only():
    (text,) = write(AnswerWriter(label_first=0.0), audio=False)
    assert {claim.modality for claim in extract_claims(text)} == {"face"}


def test_a_row_without_cues_gives_its_own_words_or_the_label_first():
    writer = AnswerWriter(label_first=0.0)
    assert write(writer, ON_FILE) == ["<think>They laugh.</think>\n<answer>glad</answer>"]
    assert write(writer, LABELLED) == ["<think></think>\n<answer>sad</answer>"]
    assert not writer.adapts(ON_FILE)
    assert writer.adapts(ACTED)
    assert writer.adapts(LABELLED)


def test_label_only_answers_have_the_form_that_is_scored():
    assert write(AnswerWriter("label")) == [FIRST]
    assert write(AnswerWriter("label", "bare")) == ["happy"]


def test_rows_that_give_no_answer_are_told():
    nothing = Row(path=Path("a.mp4"), label=None, reason="They laugh.", split="train")
    tagged = Row(path=Path("a.mp4"), label="sad", reason="a </think> b", split="train")
    writer = AnswerWriter()
    assert writer.problem(nothing) == "neither a label nor an answer"
    assert "</think>" in writer.problem(tagged)
    assert writer.problem(ACTED) is None

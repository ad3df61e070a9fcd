"""What is clear: told by classifiers that have not seen the clip, mentioned by composed texts, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emostream.errors import ConfigError
from tests.training.grpo_rig import policy
from tests.training.sft_rig import Store, rig, rows
from training.claims.extract import extract_claims
from training.data.cues import Cues
from training.data.manifest import Row, clip_key
from training.sft.answers import AnswerWriter
from training.sft.clarity import clear_cues, held_out_probabilities
from training.sft.compose import compose

SMILE = ("face", "lip_corners_up", 1)
LOUD = ("voice", "loudness", 1)
FAST = ("voice", "rate", 1)
STILL = ("face", "expression", 0)
EVEN = ("voice", "prosody", 0)
CUES = Cues({"AU12": 0.8, "AU6": 0.7}, {"loudness": 1.5, "rate": 1.2})


def said(text):
    return {(claim.modality, claim.cue, claim.direction) for claim in extract_claims(text)}


def test_a_statement_is_told_from_features_of_other_people_only():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(100), 20)
    features = np.concatenate([rng.normal(size=(2000, 10)), np.eye(100)[person]], 1)
    of_the_person = (rng.random(100) < 0.5)[person]
    holds = np.stack((features[:, 0] > 0, of_the_person), 1)
    told, guessed = held_out_probabilities(features, holds, [f"p{who}" for who in person]).T
    assert np.mean((told > 0.5) == holds[:, 0]) > 0.9
    assert np.mean((guessed > 0.5) == holds[:, 1]) < 0.65


def clips(count):
    """A smile is acted by the happy, whose features have something in common; who speaks fast, none of them tells."""
    rng = np.random.default_rng(0)

    def cues(happy):
        rate = 1.2 * float(rng.random() < 0.5)
        return Cues({"AU12": 0.8 * happy}, {"loudness": 1.5 * happy, "rate": rate})

    return [replace(row, cues=cues(row.label == "happy")) for row in rows(count)]


def test_what_features_tell_is_clear_and_of_the_rest_what_is_likelier_than_not():
    model, processor = policy(0)
    acted = clips(480)
    silent = replace(acted[0], path=Path("silent.mp4"), cues=None)
    clear = clear_cues(model, processor, Store(processor), [*acted, silent], 0.75)
    assert set(clear) == {clip_key(row) for row in acted}
    happy = [(row, clear[clip_key(row)]) for row in acted if row.label == "happy"]
    assert np.mean([SMILE in told for _, told in happy]) == 1
    assert np.mean([LOUD in told for _, told in happy]) > 0.8
    assert np.mean([FAST in told for row, told in happy if FAST in row.cues.salient()]) < 0.5
    others = [(row, clear[clip_key(row)]) for row in acted if row.label != "happy"]
    assert all(told <= {*row.cues.salient(), STILL, EVEN} for row, told in others)
    assert np.mean([STILL in told for _, told in others]) == 1
    fast = [told for row, told in others if FAST in row.cues.salient()]
    assert 0 < np.mean([FAST in told for told in fast]) < 1, "even odds"


def test_too_few_clips_are_refused():
    model, processor = policy(0)
    with pytest.raises(ConfigError, match="clear_from: 12 clips with cues are too few"):
        clear_cues(model, processor, Store(processor), clips(12), 0.5)
    of_three = [replace(row, actor=f"a{k % 3}") for k, row in enumerate(clips(120))]
    with pytest.raises(ConfigError, match="clear_from: clips of 3 people are too few"):
        clear_cues(model, processor, Store(processor), of_three, 0.5)


def test_a_text_mentions_what_is_clear_and_nothing_else():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert said(compose(CUES, rng, clear={SMILE, FAST})) == {SMILE, FAST}
        assert said(compose(CUES, rng, clear={SMILE, FAST}, video=False)) == {FAST}
        assert compose(CUES, rng, clear=set()) == ""
    rest = Cues({"AU12": 0.0}, {"loudness": 1.5})
    assert compose(rest, rng, clear=set()) == ""
    assert said(compose(rest, rng, clear={STILL})) == {STILL}
    assert said(compose(Cues({}, {"loudness": 1.5}), rng, clear=set())) == set()
    slight = Cues({"AU12": 0.8, "AU6": 0.3, "AU1": 0.3, "AU2": 0.3}, {"loudness": 1.5, "rate": 0.6})
    there = {SMILE, LOUD, FAST, ("face", "cheeks_raised", 1), ("face", "brows_raised", 1)}
    assert said(compose(slight, rng, clear=there)) == there
    assert said(compose(slight, rng, clear={FAST, ("face", "inner_brows_raised", 1)})) == {FAST}
    assert compose(Cues({"AU6": 0.3}), rng, clear=there) == "", "a face at rest"
    many = Cues({unit: 0.8 for unit in ("AU1", "AU2", "AU4", "AU5", "AU6", "AU9", "AU12", "AU17")})
    assert len(said(compose(many, rng, clear=many.salient()))) == len(many.salient()) == 7


def test_a_writer_knows_what_is_clear_of_which_clip():
    row = Row(path=Path("a.mp4"), label="happy", split="train", cues=CUES)
    writer = AnswerWriter(label_first=0.0, clear={clip_key(row): frozenset({SMILE})})
    rng = np.random.default_rng(0)
    (text,) = writer.write(row, rng)
    assert said(text) == {SMILE}
    (text,) = writer.write(replace(row, path=Path("b.mp4")), rng)
    assert len(said(text)) == 4


def test_training_and_validation_leave_out_what_is_not_clear(tmp_path):
    def texts(**changes):
        trainer = rig(tmp_path, clips=108, held_out=12, changes={"label_first": 0.0, **changes})
        batches = trainer.data_collator
        made = (batches(range(12)), batches.validation(range(12)))
        return [int((batch["shift_labels"] != -100).sum()) for batch in made]

    assert texts(clear_from=1.0) < texts()

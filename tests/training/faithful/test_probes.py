"""Statements: their pairs, what counts as right, and their scores by the tree as by the whole model."""

import numpy as np
import pytest
import torch

from emostream import load_model
from tests.training.clips import write_clip
from training.claims.wordings import SURFACE
from training.data.cues import Cues
from training.data.features import cache_features
from training.data.manifest import Row
from training.data.prompts import ClipPrompts
from training.faithful.probes import STATEMENTS, pairs, probe, statement_scores

CUES = Cues({"AU12": 0.8, "AU4": 0.0, "AU9": 0.2}, {"pitch": -1.5, "rate": 0.1})


def test_a_true_statement_stands_against_one_that_is_false_of_the_same_clip():
    made = list(pairs(CUES, np.random.default_rng(0)))
    assert made == [
        (("face", "lip_corners_up", 1), ("face", "brows_lowered", 1)),
        (("voice", "pitch", -1), ("voice", "pitch", 1)),
    ]


def test_what_a_statement_scores_on_all_clips_is_taken_off():
    low, high = (STATEMENTS.index(("voice", "pitch", sign)) for sign in (-1, 1))
    scores = np.full((2, len(STATEMENTS)), -5.0)
    scores[:, high] = [
        -1.0,
        0.0,
    ]  # a common statement, but commoner of the clip of which it is true
    scores[:, low] = [-2.0, -3.0]
    both = [Cues({}, {"pitch": -1.5}), Cues({}, {"pitch": 1.5})]
    found = probe(scores, both)["voice.pitch"]
    assert (found["pairs"], found["accuracy"], found["uncorrected"]) == (2, 1.0, 0.5)


def test_the_tree_gives_what_the_model_gives_statement_by_statement(tmp_path):
    model, processor = load_model("tiny")
    row = Row(path=write_clip(tmp_path / "a.mp4", seconds=2.0), label="sad", split="test")
    store = cache_features(model, processor, [row], tmp_path / "features", dtype="float32")
    found = statement_scores(model, processor, store, [row])[0]
    prompts = ClipPrompts([row], store, processor)
    ids = prompts.ids(0)
    chosen = [("voice", "loudness", 1), ("voice", "rate", -1)]
    sums = []
    for key in chosen:
        total = 0.0
        for clause in SURFACE[key].clauses:
            text = f"<think>{clause[0].upper()}{clause[1:]}"
            tokens = processor.tokenizer.encode(text, add_special_tokens=False)
            with torch.inference_mode():
                logits = model(
                    input_ids=torch.tensor([ids + tokens]), use_cache=False, **prompts.media([0], len(ids))
                ).logits[0, len(ids) - 1 : -1]  # fmt: skip
            total += float(logits.log_softmax(-1)[range(len(tokens)), tokens].sum().exp())
        sums.append(np.log(total))
    ours = [found[STATEMENTS.index(key)] for key in chosen]
    assert ours[0] - ours[1] == pytest.approx(sums[0] - sums[1], abs=1e-3)

"""A reader of reasons: from the reasoning text alone, which emotion is meant?

ERV (arXiv:2510.23506) asks a language model for the emotion that an explanation conveys and compares it with the truth
(explanation emotion accuracy), with the model's own prediction (explanation-prediction consistency), and counts where
all three agree (faithful consistency rate). Reasons here name no emotion and cannot be read off so; a small classifier
is trained on texts composed from the cues of training clips, and reads words and pairs of words. It shares no table
with the lexicon that rewards claims. What it makes of the texts composed from the test clips' own cues is the most that
can be asked of a model's.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from training.claims.evaluation_lexicon import extract_claims
from training.claims.wordings import SURFACE
from training.evaluation.bootstrap import Estimate, Ratio, draws, estimate
from training.faithful.pairs import figures_json
from training.sft.compose import compose
from training.synth.clip import clip_row
from training.synth.script import write_script

TEXTS: Final = 4000
SEED: Final = 2**31 - 1  # of a corpus that nobody trains or tests on


@cache
def train_reader(texts: int = TEXTS, seed: int = SEED) -> Pipeline:
    """A classifier of composed texts, trained once a process; nothing is rendered for it.

    Args:
        texts: How many clips' cues are put into words.
        seed: Of the corpus, of actors of `train`.
    """
    rng = np.random.default_rng(seed)
    read, labels = [], []
    for index in range(texts):
        row = clip_row(write_script(seed, "train", index))
        assert row.cues is not None
        text = compose(row.cues, rng)
        # The same in plain statements, as models were taught before: a reader knows both.
        keys = [(c.modality, c.cue, c.direction) for c in extract_claims(text)]
        plain = [_one(SURFACE[key].clauses, rng) for key in keys]
        read += [text, " ".join(f"{clause.capitalize()}." for clause in plain)]
        labels += [row.label] * 2
    words = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"[a-z]+", min_df=2)
    reader = make_pipeline(words, LogisticRegression(max_iter=2000, C=0.3))
    reader.fit(read, labels)
    return reader


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def consistency(
    reader: Pipeline,
    reasons: Sequence[str],
    answers: Sequence[str | None],
    truth: Sequence[str],
    composed: Sequence[str],
) -> dict[str, Any]:
    """How well reasons alone name the answer, with intervals over clips.

    Args:
        reader: From `train_reader`.
        reasons: What the model gives for its answers; those that are empty are left out.
        answers: Its answers.
        truth: The labels.
        composed: Texts composed from the same clips' cues, or empty texts.

    Returns:
        `accuracy` (the reader names the truth), `consistency` (the answer), `faithful` (reader, answer and truth
        agree), `shuffled` (the answer, from another clip's reasons: what chance gives) and `composed` (the truth, from
        the composed texts).
    """
    kept = [at for at, reason in enumerate(reasons) if reason]
    if not kept:
        return {"clips": 0}
    read = list(reader.predict([reasons[at] for at in kept]))
    moved = [read[(at + 1) % len(read)] for at in range(len(read))]
    said, wanted = [answers[at] for at in kept], [truth[at] for at in kept]
    told = [composed[at] for at in kept]
    by_text = dict(zip(told, reader.predict(told), strict=True)) if any(told) else {}
    drawn = draws(len(kept))

    def share(hits: Sequence[bool], of: Sequence[bool] | None = None) -> Estimate:
        below = np.ones((len(kept), 1)) if of is None else np.array(of, float)[:, None]
        above = np.array(hits, float)[:, None] * below
        return estimate([Ratio(above, below)], drawn) if below.any() else Estimate(None, None)

    found = {
        "accuracy": share([r == w for r, w in zip(read, wanted, strict=True)]),
        "consistency": share([r == s for r, s in zip(read, said, strict=True)]),
        "faithful": share([r == s == w for r, s, w in zip(read, said, wanted, strict=True)]),
        "shuffled": share([r == s for r, s in zip(moved, said, strict=True)]),
        "composed": share(
            [by_text.get(t) == w for t, w in zip(told, wanted, strict=True)],
            [bool(text) for text in told],
        ),
    }
    return {"clips": len(kept), **figures_json(found)}

"""Reasons that no careful writer would write are found, and those that are well made pass."""

import numpy as np
import pytest

from training.claims.grammar import malformed, repeats
from training.sft.compose import compose, corpus_texts
from training.synth.clip import clip_row
from training.synth.script import write_script


@pytest.mark.parametrize(
    ("text", "twice", "broken"),
    [
        ("The voice is shaky and the voice is shaky.", True, False),
        ("The pitch is varied and the intonation is lively.", True, False),
        ("We see raised brows. The voice is loud. We see raised brows.", True, False),
        ("The the voice is loud.", True, False),
        ("Furrowed brows are furrowed.", True, True),
        ("No voice is not heard.", False, True),
        ("The voice is wrinkled.", False, True),
        ("The brows are very loud.", False, True),
        ("The brows are raised and the voice is.", False, True),
        ("We see raised brows and.", False, True),
        ("The voice is loud and the voice is soft.", False, True),
        ("The chin is pushed up.", False, False),
        ("The brows are raised, but the lip corners are not pulled up.", False, False),
        ("The voice is not loud.", False, False),
        ("The person looks at the camera, and her voice is rather cold.", False, False),
        ("", False, False),
    ],
)
def test_what_is_found(text, twice, broken):
    assert (repeats(text), malformed(text)) == (twice, broken)


def test_composed_texts_are_well_made():
    rng = np.random.default_rng(0)
    rows = [clip_row(write_script(2, split, n)) for split in ("test", "ood") for n in range(150)]
    texts = [compose(row.cues, rng) for row in rows]
    assert [t for t in (*texts, *corpus_texts(200)) if repeats(t) or malformed(t)] == []

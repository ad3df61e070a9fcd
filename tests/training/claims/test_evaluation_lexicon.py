import ast
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.claims import evaluation_lexicon
from training.claims.claim import CLAIMABLE
from training.claims.evaluation_lexicon import extract_claims
from training.claims.extract import extract_claims as extract_as_trained
from training.claims.wordings import SURFACE


def short(claims):
    sign = {1: "+", -1: "-", 0: "="}
    return {("not " if c.negated else "") + c.cue + sign[c.direction] for c in claims}


def test_it_shares_no_table_with_training():
    tree = ast.parse(inspect.getsource(evaluation_lexicon))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.startswith("training")} == {
        "training.claims.claim",
        "training.data.cues",
    }


def test_tables_mean_only_what_can_be_claimed():
    senses = [
        (evaluation_lexicon.PARTS[part][0], sense)
        for part, table in evaluation_lexicon.SAID.items()
        for sense in table.values()
    ]
    senses += list(evaluation_lexicon._ALONE.values())
    assert all(cue in CLAIMABLE[modality] for modality, (cue, _) in senses)


@pytest.mark.parametrize(
    ("key", "phrase"),
    [
        (key, phrase)
        for key, surface in SURFACE.items()
        for phrase in (*surface.clauses, *(f"there is {noun}" for noun in surface.nouns))
    ],
)
def test_it_reads_the_wordings_that_training_composes_from(key, phrase):
    assert [claim.key for claim in extract_claims(phrase.capitalize() + ".")] == [(*key, False)]


TEXTS = [
    (
        "The man frowns slightly, the corners of his lips pulled downward, and speaks in a deep, "
        "slow voice with a low volume.",
        {"brows_lowered+", "lip_corners_down+", "pitch-", "rate-", "loudness-"},
    ),
    (
        "In the video, the man's brows are furrowed, his eyes are wide open and his mouth is "
        "slightly open. In the audio, his voice is loud, high-pitched, and fast.",
        {"brows_lowered+", "eyes_widened+", "lips_parted+", "loudness+", "pitch+", "rate+"},
    ),
    (
        "The corners of his mouth are turned down and he speaks slowly in a low, soft voice with "
        "long pauses.",
        {"lip_corners_down+", "rate-", "pitch-", "loudness-", "pauses+"},
    ),
    (
        "Furrowing her eyebrows and wrinkling her nose, she raises her upper lip.",
        {"brows_lowered+", "nose_wrinkled+", "upper_lip_raised+"},
    ),
    ("Brows furrowed, raising her voice, she speaks quickly.", {"brows_lowered+", "loudness+", "rate+"}),
    (
        "With the brows raised and a loud, sharp voice, the pitch swings.",
        {"brows_raised+", "loudness+", "tension+", "pitch_range+"},
    ),
    ("The pitch is low, volume is high, pace is moderate.", {"pitch-", "loudness+", "rate="}),
    ("Quivering lips and a loud voice.", {"loudness+"}),
    ("There is no smile.", {"not lip_corners_up+"}),
    ("No smile, raised brows.", {"not lip_corners_up+", "brows_raised+"}),
    ("The voice is neither loud nor fast.", {"not loudness+", "not rate+"}),
    ("The voice is not only loud but sharp.", {"loudness+"}),
    (
        "The brows aren't furrowed and the lips are not pressed together.",
        {"not brows_lowered+", "not lips_pressed+"},
    ),
    ("The face shows no expression, and the voice is ordinary.", {"expression=", "prosody="}),
    ("The face is not visible. Only noise.", {"hidden+"}),
    ("His head hangs down, gaze lowered.", {"head_down+", "gaze_down+"}),
    ("She feels strongly about the scene.", set()),
    ("", set()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "claims"), TEXTS)
def test_free_text(text, claims):
    assert short(extract_claims(text)) == claims


def test_the_two_readings_agree_where_a_text_is_plain():
    agree = [short(extract_claims(t)) == short(extract_as_trained(t)) for t, _ in TEXTS]
    assert sum(agree) >= len(TEXTS) - 1


@given(st.text())
def test_any_text_is_taken(text):
    for claim in extract_claims(text):
        assert 0 <= claim.span[0] < claim.span[1] <= len(text)

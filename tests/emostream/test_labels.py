import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import ConfigError
from emostream.labels import (
    ALIASES,
    CORPUS_LABELS,
    DEFAULT_LABELS,
    MAFW_LABELS,
    canonical_label,
    spellings,
    validate_labels,
)


def test_default_order_is_the_published_one():
    assert DEFAULT_LABELS == ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")
    assert MAFW_LABELS[7:] == ("contemptuous", "disappointed", "helpless", "anxious")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("happy", "happy"),
        ("  Happy. ", "happy"),
        ("HAPPINESS!", "happy"),
        ("**angry**", "angry"),
        ("anger", "angry"),
        ("Fearful", "fear"),
        ("scared", "fear"),
        ("surprised", "surprise"),
        ("disgusted,\n", "disgust"),
        ("“sadness”", "sad"),
    ],
)
def test_spellings_map_whatever_case_and_punctuation(text, label):
    assert canonical_label(text) == label


@pytest.mark.parametrize(
    "text",
    ["", "   ", "...", "unhappy", "sad and angry", "not angry", "hap", "calm", "contempt", "other"],
)
def test_nothing_is_guessed(text):
    assert canonical_label(text) is None


def test_a_label_set_decides_its_own_spelling():
    assert canonical_label("happy", ("Joy", "anger")) == "Joy"
    assert canonical_label("angry", ("Joy", "anger")) == "anger"
    assert canonical_label("calmness", (*DEFAULT_LABELS, "calm")) == "calm"
    assert canonical_label("contempt", MAFW_LABELS) == "contemptuous"
    assert canonical_label("Very  Bored", ("very bored",)) == "very bored"


@given(st.sampled_from(MAFW_LABELS), st.sampled_from(["", " ", ".", "!\n", '"']), st.booleans())
def test_every_spelling_maps_back(label, edge, upper):
    for spelling in spellings(label):
        text = edge + (spelling.upper() if upper else spelling) + edge
        assert canonical_label(text, MAFW_LABELS) == label


def test_spellings_start_with_the_label_itself_and_do_not_repeat():
    assert spellings("fear") == ("fear", "fearful", "afraid", "scared", "frightened")
    assert spellings("joy") == ("joy", "happy", "happiness", "joyful")
    assert spellings("bored") == ("bored",)


def test_no_alias_means_two_labels():
    words = [word for label, aliases in ALIASES.items() for word in (label, *aliases)]
    assert len(words) == len(set(words))


def test_every_corpus_code_is_a_known_label():
    known = {*MAFW_LABELS, "calm"}
    assert {name: set(codes.values()) - known for name, codes in CORPUS_LABELS.items()} == {
        "dfew": set(),
        "mafw": set(),
        "ravdess": set(),
        "crema-d": set(),
    }
    assert set(CORPUS_LABELS["dfew"].values()) == set(DEFAULT_LABELS)
    assert set(CORPUS_LABELS["mafw"].values()) == set(MAFW_LABELS)
    assert all(canonical_label(word, MAFW_LABELS) == v for word, v in CORPUS_LABELS["mafw"].items())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "at least one"),
        (["happy", ""], "not usable"),
        (["happy", " sad"], "not usable"),
        (["<b>"], "not usable"),
        (["happy", "Happy"], "mean the same"),
        (["fear", "scared"], "mean the same"),
    ],
)
def test_unusable_label_sets_are_refused(labels, said):
    with pytest.raises(ConfigError, match=said):
        validate_labels(labels)


def test_usable_label_sets_pass_unchanged():
    assert validate_labels(["happy", "bored", "at ease"]) == ("happy", "bored", "at ease")


def test_subscribers_can_import_it_without_torch_or_numpy():
    code = (
        "import sys, emostream.labels, emostream.answers\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.labels import MAFW_LABELS, spellings
from training.claims.claim import CLAIMABLE, Claim
from training.claims.extract import extract_claims
from training.claims.lexicon import PHRASES, PREDICATES, SUBJECTS
from training.claims.wordings import SURFACE
from training.data.cues import FACE_ACTIONS, VOICE_DIMENSIONS


def said(text):
    """Claims as short strings: modality initial, cue, direction, a leading "not"."""
    sign = {1: "+", -1: "-", 0: "="}
    return {
        ("not " if c.negated else "") + f"{c.modality[0]}:{c.cue}{sign[c.direction]}"
        for c in extract_claims(text)
    }


ALL_SURFACES = [
    (key, phrase)
    for key, surface in SURFACE.items()
    for phrase in (*surface.clauses, *(f"there is {noun}" for noun in surface.nouns))
]


@pytest.mark.parametrize(("key", "phrase"), ALL_SURFACES)
def test_every_wording_is_read_back_as_exactly_its_cue(key, phrase):
    assert [claim.key for claim in extract_claims(phrase.capitalize() + ".")] == [(*key, False)]


def test_every_cue_that_can_be_salient_has_wordings():
    wanted = {("face", action, 1) for action in FACE_ACTIONS}
    wanted |= {("voice", d, sign) for d in VOICE_DIMENSIONS for sign in (1, -1)}
    assert wanted - set(SURFACE) == {("voice", "tremor", -1)}


def test_wordings_name_no_emotion():
    words = {word for _, phrase in ALL_SURFACES for word in phrase.split()}
    assert not words & {s for label in (*MAFW_LABELS, "calm") for s in spellings(label)}


def test_tables_mean_only_what_can_be_claimed():
    meanings = [(m, meaning) for _, m, meaning in PHRASES]
    meanings += [(SUBJECTS[s][0], m) for _, table in PREDICATES for s, m in table.items()]
    assert all(meaning.cue in CLAIMABLE[modality] for modality, meaning in meanings)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        # Written in the manner of the published models.
        (
            "In the video, the man's brows are furrowed, his eyes are wide open and his mouth is "
            "slightly open. In the audio, his voice is loud, high-pitched, and fast.",
            {
                "f:brows_lowered+",
                "f:eyes_widened+",
                "f:lips_parted+",
                "v:loudness+",
                "v:pitch+",
                "v:rate+",
            },
        ),
        (
            "She smiles, with raised cheeks and narrowed eyes; her tone is lively.",
            {"f:lip_corners_up+", "f:cheeks_raised+", "f:eyes_narrowed+", "v:pitch_range+"},
        ),
        (
            "The corners of his mouth are turned down and he speaks slowly in a low, soft voice "
            "with long pauses.",
            {"f:lip_corners_down+", "v:rate-", "v:pitch-", "v:loudness-", "v:pauses+"},
        ),
        (
            "Furrowing her eyebrows and wrinkling her nose, she raises her upper lip.",
            {"f:brows_lowered+", "f:nose_wrinkled+", "f:upper_lip_raised+"},
        ),
        (
            "Eyes wide, brows raised, jaw dropped.",
            {"f:eyes_widened+", "f:brows_raised+", "f:jaw_dropped+"},
        ),
        (
            "The pitch is low, volume is high, pace is moderate.",
            {"v:pitch-", "v:loudness+", "v:rate="},
        ),
        # Joined subjects share a predicate; predicates share a subject.
        ("The brows and the cheeks are raised.", {"f:brows_raised+", "f:cheeks_raised+"}),
        ("The voice trembles and is breathy.", {"v:tremor+", "v:breathiness+"}),
        # A predicate does not go looking for a subject of the other modality.
        ("Quivering lips and a loud voice.", {"v:loudness+"}),
        ("The brows are tense, and the voice is flat.", {"v:pitch_range-"}),
        ("The lips tremble while she speaks.", set()),
        # Nor across a clause.
        ("The voice is heard. It was a loud place.", set()),
        ("The face is relaxed but the voice is sharp.", {"f:expression=", "v:tension+"}),
        ("The face is not visible; only noise.", {"f:hidden+", "v:hidden+"}),
        ("He laughs with tears in his eyes.", {"v:laughter+", "f:tears+"}),
        (
            "His facial expression appears furrowed and the mouth falls open. The tone is even, "
            "without much variation, slower than usual, with many hesitations.",
            {
                "f:brows_lowered+",
                "f:jaw_dropped+",
                "v:prosody=",
                "v:pitch_range-",
                "v:rate-",
                "v:pauses+",
            },
        ),
        ("Emotion is felt strongly in this scene.", set()),
        ("", set()),
    ],
)
def test_free_text(text, claims):
    assert said(text) == claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("The brows are not raised.", {"not f:brows_raised+"}),
        ("The brows aren’t raised.", {"not f:brows_raised+"}),
        ("There is no smile.", {"not f:lip_corners_up+"}),
        ("No smile, raised brows.", {"not f:lip_corners_up+", "f:brows_raised+"}),
        ("The voice is neither loud nor fast.", {"not v:loudness+", "not v:rate+"}),
        ("The voice is not loud or fast.", {"not v:loudness+", "not v:rate+"}),
        ("The voice is not loud and the pace is fast.", {"not v:loudness+", "v:rate+"}),
        ("The voice is not only loud but sharp in tone.", {"v:loudness+", "v:tension+"}),
        ("He speaks without raising his voice.", {"not v:loudness+"}),
        ("Raised brows are absent.", {"not f:brows_raised+"}),
        ("A smile is not seen.", {"not f:lip_corners_up+"}),
        ("The voice is steady.", {"not v:tremor+"}),
        ("The voice is not steady.", {"v:tremor+"}),
        ("The brow is smooth.", {"not f:brows_lowered+"}),
        ("She speaks without pauses.", {"v:pauses-"}),
        ("No voice is heard.", {"v:hidden+"}),
        ("No voice is not heard.", {"not v:hidden+"}),
        ("It is not that he is upset: the brows are raised.", {"f:brows_raised+"}),
    ],
)
def test_negation(text, claims):
    assert said(text) == claims


def test_each_meaning_counts_once_however_often_it_is_said():
    text = "The voice is loud. A strong, strong, booming voice; she shouts loudly in a loud voice."
    assert [c.key for c in extract_claims(text)] == [("voice", "loudness", 1, False)]


def test_saying_it_and_denying_it_are_two_claims():
    assert said("The voice is loud. The voice is not loud.") == {"v:loudness+", "not v:loudness+"}


def test_spans_cover_the_words():
    text = "First, the brows are raised. She smiles."
    assert [text[slice(*claim.span)] for claim in extract_claims(text)] == [
        "brows are raised",
        "smiles",
    ]


def test_a_claim_is_its_meaning_wherever_it_stands():
    assert Claim("face", "tears", 1, False, (0, 3)).key == Claim("face", "tears", 1).key


@given(st.lists(st.sampled_from(ALL_SURFACES), max_size=8))
def test_sentences_do_not_disturb_each_other(surfaces):
    text = " ".join(phrase.capitalize() + "." for _, phrase in surfaces)
    wanted = list(dict.fromkeys((*key, False) for key, _ in surfaces))
    assert [claim.key for claim in extract_claims(text)] == wanted


@given(st.text())
def test_any_text_is_taken(text):
    for claim in extract_claims(text):
        assert 0 <= claim.span[0] < claim.span[1] <= len(text)

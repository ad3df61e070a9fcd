import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.claims.claim import CLAIMABLE, Claim
from training.claims.extract import extract_claims
from training.claims.verify import Verdict, judge, verify
from training.data.cues import FACE_UNITS, VOICE_DIMENSIONS, Cues, Informative

YES, NO, UNKNOWN = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNVERIFIABLE
OPPOSITE = {YES: NO, NO: YES, UNKNOWN: UNKNOWN}


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.0, NO), (0.14, NO), (0.15, UNKNOWN), (0.24, UNKNOWN), (0.25, YES), (1.0, YES)],
)
def test_thresholds_of_the_face(value, verdict):
    claim = Claim("face", "nose_wrinkled", 1)
    assert judge(claim, Cues({"AU9": value})) is verdict
    denied = Claim("face", "nose_wrinkled", 1, negated=True)
    assert judge(denied, Cues({"AU9": value})) is OPPOSITE[verdict]


@pytest.mark.parametrize(
    ("deviation", "high", "low", "usual"),
    [
        (1.0, YES, NO, NO),
        (0.8, YES, NO, UNKNOWN),
        (0.5, YES, NO, YES),
        (0.3, UNKNOWN, NO, YES),
        (0.0, NO, NO, YES),
        (-0.3, NO, UNKNOWN, YES),
        (-0.6, NO, YES, UNKNOWN),
        (-2.0, NO, YES, NO),
    ],
)
def test_thresholds_of_the_voice(deviation, high, low, usual):
    cues = Cues({}, {"pitch": deviation})
    for direction, verdict in ((1, high), (-1, low), (0, usual)):
        assert judge(Claim("voice", "pitch", direction), cues) is verdict
        assert judge(Claim("voice", "pitch", direction, True), cues) is OPPOSITE[verdict]


def test_what_was_not_recorded_cannot_be_verified():
    cues = Cues({"AU1": 1.0}, {"pitch": 1.0})
    assert judge(Claim("face", "nose_wrinkled", 1), cues) is UNKNOWN
    assert judge(Claim("voice", "rate", 1, negated=True), cues) is UNKNOWN
    assert judge(Claim("face", "tears", 1), cues) is UNKNOWN
    assert judge(Claim("face", "expression", 0), Cues()) is UNKNOWN
    assert judge(Claim("voice", "hidden", 1), Cues()) is UNKNOWN


def test_of_a_hidden_face_only_that_it_is_hidden_is_true():
    cues = Cues({}, {"pitch": 1.0}, Informative(video=False, audio=True))
    assert judge(Claim("face", "hidden", 1), cues) is YES
    assert judge(Claim("face", "hidden", 1, negated=True), cues) is NO
    for cue in ("lip_corners_up", "tears", "expression"):
        for negated in (False, True):
            assert judge(Claim("face", cue, 1, negated), cues) is NO
    assert judge(Claim("voice", "hidden", 1), cues) is NO


def test_a_face_at_rest():
    claim = Claim("face", "expression", 0)
    assert judge(claim, Cues({"AU1": 0.0, "AU12": 0.3})) is YES
    assert judge(claim, Cues({"AU1": 0.0, "AU12": 0.4})) is NO
    assert judge(Claim("voice", "prosody", 0), Cues({}, {"pitch": 0.7, "rate": -0.7})) is YES
    assert judge(Claim("voice", "prosody", 0), Cues({}, {"pitch": 0.7, "rate": -0.8})) is NO


def test_a_text_against_a_clip():
    cues = Cues({"AU1": 0.6, "AU2": 0.6, "AU4": 0.0, "AU26": 0.7}, {"pitch": 1.4, "rate": -0.9})
    text = (
        "The brows are raised and not furrowed, the jaw drops. The lip corners go up. "
        "The pitch is high, and the speech is fast and loud."
    )
    found = verify(extract_claims(text), cues)
    assert [c.cue for c in found.supported] == [
        "brows_raised",
        "brows_lowered",
        "jaw_dropped",
        "pitch",
    ]
    assert [c.cue for c in found.contradicted] == ["rate"]
    assert [c.cue for c in found.unverifiable] == ["lip_corners_up", "loudness"]
    assert found.claims == 7


ANY_CUES = st.builds(
    Cues,
    st.dictionaries(st.sampled_from(list(FACE_UNITS)), st.floats(0, 1)),
    st.dictionaries(st.sampled_from(list(VOICE_DIMENSIONS)), st.floats(-3, 3)),
    st.builds(Informative, st.booleans(), st.booleans()),
)


@given(ANY_CUES)
def test_every_salient_cue_is_supported_when_it_is_claimed(cues):
    for modality, cue, direction in cues.salient():
        assert judge(Claim(modality, cue, direction), cues) is YES


@given(ANY_CUES, st.sampled_from(["face", "voice"]), st.sampled_from([-1, 0, 1]), st.data())
def test_a_claim_and_its_denial_are_never_both_supported(cues, modality, direction, data):
    cue = data.draw(st.sampled_from(CLAIMABLE[modality]))
    verdicts = {judge(Claim(modality, cue, direction, n), cues) for n in (False, True)}
    assert verdicts in ({YES, NO}, {UNKNOWN}, {NO})

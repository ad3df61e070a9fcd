import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import ConfigError
from training.data.cues import FACE_ACTIONS, FACE_UNITS, VOICE_DIMENSIONS, Cues, Informative

CUES = Cues(
    {"AU1": 0.7, "AU2": 0.0, "AU4": 0.5, "AU26": 0.6, "AU25": 0.9},
    {"pitch": -1.2, "rate": 0.8, "pauses": 0.79, "tremor": -2.0},
)


def test_every_action_is_made_of_known_units_and_every_unit_is_used():
    used = {unit for units in FACE_ACTIONS.values() for unit in units}
    assert used == set(FACE_UNITS)


def test_values_of_actions():
    assert CUES.face_value("inner_brows_raised") == 0.7
    assert CUES.face_value("brows_raised") == 0.0  # both ends of the brow, not the inner alone
    assert CUES.face_value("jaw_dropped") == 0.6  # either of its units
    assert CUES.face_value("nose_wrinkled") is None


def test_salient_cues_leave_out_what_is_weak_or_entailed():
    assert CUES.salient() == (
        ("face", "inner_brows_raised", 1),
        ("face", "brows_lowered", 1),
        ("face", "jaw_dropped", 1),
        ("voice", "pitch", -1),
        ("voice", "rate", 1),
    )
    surprised = Cues({"AU1": 0.8, "AU2": 0.8})
    assert surprised.salient() == (("face", "brows_raised", 1),)


def test_what_there_is_to_say():
    hidden = Cues({}, {"pitch": 0.0}, Informative(False, True))
    assert hidden.at_rest("voice")
    assert not hidden.at_rest("face")
    assert hidden.offered() == 2  # that the one is hidden, that the other is ordinary
    assert CUES.offered() == 5
    assert Cues().offered() == 0


def test_hidden_means_known_to_show_nothing():
    assert Cues({}, {"pitch": 0.0}, Informative(False, True)).hidden("face")
    assert not Cues({"AU1": 0.0}, {}, Informative(False, True)).hidden("face")  # a neutral face
    assert not Cues({}, {}).hidden("voice")  # nothing known


@given(
    st.dictionaries(st.sampled_from(list(FACE_UNITS)), st.floats(0, 1)),
    st.dictionaries(st.sampled_from(list(VOICE_DIMENSIONS)), st.floats(-5, 5)),
    st.booleans(),
    st.booleans(),
)
def test_json_round_trip(face, voice, video, audio):
    cues = Cues(face, voice, Informative(video, audio))
    assert Cues.from_json(json.loads(json.dumps(cues.to_json()))) == cues
    assert pickle.loads(pickle.dumps(cues)) == cues


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "wanted an object, found list"),
        ({"faces": {}}, "unknown key 'faces'"),
        ({"face": {"AU99": 0.1}}, "unknown face cue 'AU99'"),
        ({"face": {"AU1": 1.5}}, r"AU1 is 1.5; wanted a number in \[0, 1\]"),
        ({"face": {"AU1": True}}, "AU1 is True"),
        ({"face": [0.1]}, "wanted face as an object of numbers, found list"),
        ({"voice": {"pitch": float("nan")}}, "pitch is nan"),
        ({"voice": {"pitch": "high"}}, "pitch is 'high'"),
        ({"informative": {"video": 1, "audio": True}}, "wanted informative as"),
        ({"informative": True}, "wanted informative as"),
    ],
)
def test_wrong_cues_are_refused(value, said):
    with pytest.raises(ConfigError, match=said):
        Cues.from_json(value)

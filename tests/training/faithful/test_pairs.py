"""Claims that went and stayed, by hand-made answers."""

import pytest

from training.data.cues import Cues
from training.evaluation.results import Prediction
from training.faithful.edits import edits
from training.faithful.pairs import by_kind, edit_pair, twin_pair

SMILING = Cues({"AU12": 0.8, "AU4": 0.0}, {"loudness": 1.2, "pitch": 0.0})
NOT_SMILING = Cues({"AU12": 0.0, "AU4": 0.0}, {"loudness": 1.2, "pitch": 0.0})


def said(think: str, answer: str = "happy", happy: float = 0.9) -> Prediction:
    return Prediction(
        index=0,
        path="a.mp4",
        label="happy",
        scores={"both": {"happy": happy, "sad": 1 - happy}},
        text=f"<think>{think}</think>\n<answer>{answer}</answer>",
    )


def twin(before: Prediction, after: Prediction, clip: int = 0, told: str | None = None):
    change = "face.lip_corners_up"
    return twin_pair(clip, "face_cue", change, before, after, (SMILING, NOT_SMILING), told)


def test_a_claim_whose_cue_is_gone_should_go_and_the_others_stay():
    before = said("We see a smile and lowered brows. The voice is loud.")
    pair = twin(before, said("The voice is loud."))
    # The lowered brows never held, so that nobody asks what became of them.
    assert (pair.goes, pair.went, pair.stays, pair.stayed) == (1, 1, 1, 1)
    stubborn = twin(before, said("The lip corners are pulled up. The pitch is high.", happy=0.4))
    assert (stubborn.goes, stubborn.went, stubborn.stays, stubborn.stayed) == (1, 0, 1, 0)
    assert (stubborn.before, stubborn.after) == ("happy", "sad")
    assert stubborn.falls_by == pytest.approx(0.5)


def test_figures_are_shares_of_claims_with_intervals_over_clips():
    before = said("We see a smile. The voice is loud.")
    pairs = [
        twin(before, said("The voice is loud."), clip=0, told="sad"),
        twin(before, said("We see a smile."), clip=1, told="happy"),
    ]
    found = by_kind(pairs)["face_cue"]
    assert (found["pairs"], found["clips"]) == (2, 2)
    assert found["claims"] == {"should_go": 2, "should_stay": 2}
    assert found["sensitivity"] == found["specificity"] == 0.5
    assert found["label_kept"] == 1.0
    assert found["label_as_told"] == 0.5
    assert found["intervals"]["sensitivity"] == (0.0, 1.0)
    assert found["comes"] is None
    assert found["intervals"]["comes"] is None


def test_muting_takes_the_claims_of_the_voice_and_leaves_those_of_the_face():
    _, expected = edits([])["mute"]
    before = said("We see a smile. The voice is loud and the pitch is high.")
    pair = edit_pair(0, "mute", before, said("The brows are raised."), None, expected)
    assert (pair.goes, pair.went, pair.stays, pair.stayed) == (2, 2, 1, 0)
    # Where cues are known, the high pitch is left out: it never held.
    known = edit_pair(0, "mute", before, said("We see a smile."), SMILING, expected)
    assert (known.goes, known.went, known.stays, known.stayed) == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("after", "came"), [("The pitch is high.", True), ("The voice is loud.", False)]
)
def test_a_raised_pitch_should_be_said(after, came):
    _, expected = edits([])["pitch_up"]
    low = said("The voice is deep and we see a smile.")
    pair = edit_pair(0, "pitch_up", low, said(after), None, expected)
    assert (pair.came, pair.goes, pair.went, pair.stays) == (came, 1, 1, 1)
    already = edit_pair(0, "pitch_up", said("The pitch is high."), said(after), None, expected)
    assert already.came is None

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from emostream.errors import InputError
from emostream.labels import DEFAULT_LABELS
from training.claims.extract import extract_claims
from training.claims.verify import verify
from training.data.cues import Cues, Informative
from training.evaluation.metrics import (
    ReliabilityBin,
    agreement,
    confusion,
    ece,
    faithfulness,
    rate,
    recalls,
    reliability,
)
from training.evaluation.probe import uar

ABC = ("a", "b", "c")
PAIRS = st.lists(
    st.tuples(st.sampled_from(DEFAULT_LABELS), st.sampled_from(DEFAULT_LABELS)),
    min_size=1,
    max_size=60,
)


@given(PAIRS)
def test_they_agree_with_scikit_learn(pairs):
    truth, predicted = zip(*pairs, strict=True)
    counts = confusion(truth, predicted, DEFAULT_LABELS)
    present = sorted(set(truth))
    assert np.array_equal(
        counts[:, :-2], sk.confusion_matrix(truth, predicted, labels=DEFAULT_LABELS)
    )
    assert uar(truth, predicted) == pytest.approx(
        sk.recall_score(truth, predicted, labels=present, average="macro")
    )
    expected = dict(
        zip(
            present,
            sk.recall_score(truth, predicted, labels=present, average=None),
            strict=True,
        )
    )
    for label, found in zip(DEFAULT_LABELS, recalls(counts), strict=True):
        assert found == pytest.approx(expected.get(label, np.nan), nan_ok=True)


def test_by_hand_with_answers_that_are_none():
    truth = ["a", "a", "a", "a", "b", "b"]
    predicted = ["a", "a", "b", None, "other", "b"]
    counts = confusion(truth, predicted, ABC)
    assert counts.tolist() == [[2, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert recalls(counts)[:2].tolist() == [0.5, 0.5]
    assert np.isnan(recalls(counts)[2])
    assert (
        uar(truth, ["none" if p is None else p for p in predicted]) == 0.5
    )  # over the classes that occur


def test_a_label_called_other_is_a_label():
    counts = confusion(["other", "a"], ["other", "other"], ("a", "other"))
    assert counts.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize(
    ("truth", "predicted", "said"),
    [
        ([], [], "at least one"),
        (["a"], ["a", "b"], "found 2 and 1"),
        (["z"], ["a"], "unknown label 'z'"),
        (["a"], ["z"], "unknown prediction 'z'"),
    ],
)
def test_wrong_input_is_refused(truth, predicted, said):
    with pytest.raises(InputError, match=said):
        confusion(truth, predicted, ABC)


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.9, 0.85, 0.4, 0.0])
    correct = np.array([True, True, False, False, False])
    bins = reliability(confidence, correct, bins=5)
    assert bins == [
        ReliabilityBin(1, 0.0, 0.0),
        ReliabilityBin(1, 0.4, 0.0),
        ReliabilityBin(3, pytest.approx(0.9), pytest.approx(2 / 3)),
    ]
    assert ece(bins) == pytest.approx((0.4 + 3 * (0.9 - 2 / 3)) / 5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_calibration_counts_everything_once(pairs):
    confidence = np.array([c for c, _ in pairs])
    bins = reliability(confidence, np.array([r for _, r in pairs]))
    assert sum(b.count for b in bins) == len(pairs)
    assert 0 <= ece(bins) <= 1


def test_rates_of_nothing_are_none():
    assert rate([]) is None
    assert rate([True, False, False, True]) == 0.5
    assert agreement([], []) is None
    assert agreement(["a", "b", None, "c"], ["a", "c", None, None]) == 0.25


def test_faithfulness_by_hand():
    clip = Cues({"AU1": 0.8, "AU2": 0.7, "AU12": 0.0}, {"pitch": 1.5, "rate": -0.9})
    deaf = Cues({"AU12": 0.6}, {}, Informative(True, False))
    texts = [
        # salient: brows raised, pitch high, rate low
        (clip, "The brows are raised. The pitch is high, not low. She smiles. A tear."),
        (clip, "The brows are not raised."),
        (deaf, "A smile, raised cheeks and a loud voice."),
    ]
    clips = [(c, extract_claims(t), verify(extract_claims(t), c)) for c, t in texts]
    found = faithfulness(clips)
    assert (found.supported, found.contradicted, found.unverifiable) == (4, 3, 2)
    assert (found.salient, found.mentioned, found.clips) == (7, 3, 3)
    assert found.claim_support_rate == pytest.approx(4 / 9)
    assert found.hallucinated_claim_rate == pytest.approx(3 / 9)
    assert found.cue_recall == pytest.approx(3 / 7)
    assert found.claims_a_clip == 3
    assert found.covered == 2  # the second speaks of the face alone


def test_faithfulness_of_nothing():
    found = faithfulness([])
    assert (found.claim_support_rate, found.cue_recall, found.claims_a_clip) == (None, None, None)

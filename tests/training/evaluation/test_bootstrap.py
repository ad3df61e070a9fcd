import numpy as np
import pytest
from sklearn import metrics as sk

from training.evaluation.bootstrap import Estimate, Ratio, difference, draws, estimate
from training.evaluation.outcomes import Outcome, figures

LABELS = ("happy", "sad", "angry")


def mean_of(values):
    return Ratio(np.array(values, float)[:, None], np.ones((len(values), 1)))


def outcomes(seed, right, count=300):
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(99).integers(0, 3, count)
    said = np.where(rng.random(count) < right, truth, (truth + rng.integers(1, 3, count)) % 3)
    return [
        Outcome(index=i, label=LABELS[t], scored={"both": LABELS[s]})
        for i, (t, s) in enumerate(zip(truth, said, strict=True))
    ]


def test_a_ratio_by_hand():
    ratio = Ratio(
        np.array([[1, 0], [1, 3], [0, 1]], float), np.array([[2, 0], [2, 4], [0, 0]], float)
    )
    drawn = np.array([[1, 1, 1], [3, 0, 0], [0, 0, 3]], float)
    # Both groups; the first alone; neither has anything to divide by.
    assert ratio(drawn) == pytest.approx([(2 / 4 + 4 / 4) / 2, 1 / 2, np.nan], nan_ok=True)


def test_every_sample_draws_all_clips_again():
    drawn = draws(50, samples=20)
    assert drawn.shape == (20, 50)
    assert (drawn.sum(1) == 50).all()
    assert np.array_equal(drawn, draws(50, samples=20))
    assert not np.array_equal(drawn, draws(50, samples=20, seed=1))


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(size=400)
    found = estimate([mean_of(values)], draws(400, samples=4000))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.interval == pytest.approx((values.mean() - half, values.mean() + half), abs=0.012)


def test_a_paired_difference_is_narrower_than_its_parts():
    rng = np.random.default_rng(2)
    hard = rng.normal(size=400)  # clips differ much, the two runs little
    ours, theirs = mean_of(hard + 0.1), mean_of(hard + 0.05 * rng.normal(size=400))
    drawn = draws(400)
    found = difference([ours], [theirs], drawn)
    assert found.value == pytest.approx(0.1, abs=0.01)
    low, high = found.interval
    assert 0.05 < low < found.value < high < 0.15
    alone = estimate([ours], drawn).interval
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_seeds_widen_an_interval_by_how_far_they_differ():
    noise = np.random.default_rng(3).normal(size=(3, 400))
    drawn = draws(400)
    alike = estimate([mean_of(noise[0])] * 3, drawn).interval
    apart = estimate([mean_of(noise[0] + shift) for shift in (-0.5, 0.0, 0.5)], drawn)
    assert apart.value == pytest.approx(noise[0].mean())
    assert alike == pytest.approx(estimate([mean_of(noise[0])], drawn).interval)
    assert apart.interval[1] - apart.interval[0] > 3 * (alike[1] - alike[0])


def test_nothing_to_divide_by_has_no_value():
    nothing = Ratio(np.zeros((5, 1)), np.zeros((5, 1)))
    assert estimate([nothing], draws(5)) == Estimate(None, None)
    assert difference([mean_of([1, 0, 1, 0, 1])], [nothing], draws(5)) == Estimate(None, None)


def test_war_and_uar_of_every_sample_are_scikit_learns():
    ours = outcomes(0, 0.7)
    drawn = draws(len(ours), samples=30)
    found = figures(ours, LABELS)
    war, uar = found["war"](drawn), found["uar"](drawn)
    truth, said = [o.label for o in ours], [o.first for o in ours]
    for row, counts in enumerate(drawn):
        assert war[row] == pytest.approx(sk.accuracy_score(truth, said, sample_weight=counts))
        assert uar[row] == pytest.approx(
            sk.balanced_accuracy_score(truth, said, sample_weight=counts)
        )


def test_fusion_gain_is_over_the_better_modality_of_each_sample():
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 200)
    scored = {
        condition: np.where(rng.random(200) < right, truth, (truth + 1) % 3)
        for condition, right in (("both", 0.9), ("video", 0.6), ("audio", 0.6))
    }
    ours = [
        Outcome(
            index=i,
            label=LABELS[t],
            scored={condition: LABELS[said[i]] for condition, said in scored.items()},
        )
        for i, t in enumerate(truth)
    ]
    drawn = draws(200, samples=10)
    uar = {
        condition: [
            sk.balanced_accuracy_score(truth, said, sample_weight=counts) for counts in drawn
        ]
        for condition, said in scored.items()
    }
    expected = np.array(uar["both"]) - np.maximum(uar["video"], uar["audio"])
    assert figures(ours, LABELS)["fusion_gain"](drawn) == pytest.approx(expected)
    assert np.isnan(figures(outcomes(0, 0.5), LABELS)["fusion_gain"](draws(300, 5))).all()

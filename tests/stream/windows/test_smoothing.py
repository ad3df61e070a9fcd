import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.errors import ConfigError
from stream.pubsub.messages import Smoothed
from stream.windows.smoothing import Rolling

A, B = {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}


def test_a_step_is_followed_with_the_time_constant():
    rolling = Rolling(time_constant_s=2.0, hysteresis=0.0)
    rolling.update(0.0, A)
    after = rolling.update(2.0, B)
    assert after.scores["b"] == pytest.approx(1 - math.exp(-1))
    assert after.label == "b"


def test_the_result_depends_on_time_not_on_the_number_of_hops():
    coarse, fine = Rolling(1.0, 0.0), Rolling(1.0, 0.0)
    for rolling in (coarse, fine):
        rolling.update(0.0, A)
    for step in range(1, 9):
        last = fine.update(step / 8, B)
    assert coarse.update(1.0, B).scores["b"] == pytest.approx(last.scores["b"])


def test_a_label_is_held_until_another_leads_clearly():
    rolling = Rolling(time_constant_s=0.0, hysteresis=0.2)
    assert rolling.update(0.0, {"a": 0.6, "b": 0.4}).label == "a"
    assert rolling.update(0.5, {"a": 0.45, "b": 0.55}).label == "a"
    assert rolling.update(1.0, {"a": 0.35, "b": 0.65}).label == "b"
    assert rolling.update(1.5, {"a": 0.55, "b": 0.45}).label == "b"


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=30))
def test_smoothed_scores_stay_a_distribution(steps):
    rolling, time_s = Rolling(), 0.0
    for elapsed_s, p in steps:
        time_s += elapsed_s
        smoothed = rolling.update(time_s, {"a": p, "b": 1 - p})
        assert sum(smoothed.scores.values()) == pytest.approx(1)


@pytest.mark.parametrize(("time_constant_s", "hysteresis"), [(-1, 0.1), (1, 1.0), (1, -0.1)])
def test_unusable_settings_are_refused(time_constant_s, hysteresis):
    with pytest.raises(ConfigError, match="smoothing"):
        Rolling(time_constant_s, hysteresis)


def test_somebody_else_begins_anew():
    rolling = Rolling(time_constant_s=1.0, hysteresis=0.5)
    happy, sad = {"happy": 0.9, "sad": 0.1}, {"happy": 0.3, "sad": 0.7}
    assert rolling.update(0.5, happy).label == "happy"
    assert rolling.update(1.0, happy, whose=1).scores == happy
    assert rolling.update(1.5, sad).label == "happy"  # heard and not seen
    assert rolling.update(2.0, sad, whose=1).label == "happy"
    assert rolling.update(2.5, sad, whose=2) == Smoothed(label="sad", scores=sad)

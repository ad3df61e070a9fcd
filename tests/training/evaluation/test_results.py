import json

import numpy as np
import pytest

from emostream.answers import compose_answer
from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS
from training.data.cues import Cues
from training.evaluation.outcomes import CONDITIONS, Outcome, votes
from training.evaluation.results import Prediction, judge_all, summarise

AB = ("happy", "sad")


def clip(index, label, first, text=None, **more):
    scores = {"both": {name: 0.9 if name == first else 0.1 for name in AB}}
    return Prediction(
        index=index, path=f"{index}.mp4", label=label, scores=scores, text=text, **more
    )


def result(predictions, labels, cues, *, bare=False, samples=50):
    return summarise(
        predictions, judge_all(predictions, labels, cues, bare=bare), labels, samples=samples
    )


def say(label, think="The pitch is high."):
    return compose_answer(think, label)


def test_by_hand():
    predictions = [
        clip(0, "happy", "happy", say("happy")),
        clip(1, "happy", "sad", say("happy")),
        clip(2, "happy", "happy", say("happily ever after")),
        clip(3, "sad", "happy", say("sad", "The lips show sadness. The pitch is low.")),
        clip(4, "sad", "sad", "<think>no end", truncated=True),
        Prediction(index=5, path="5.mp4", label="sad", skipped="unreadable: no such file"),
    ]
    cues = {0: Cues({}, {"pitch": 1.5}), 3: Cues({}, {"pitch": 1.5, "rate": -1.0})}
    found = result(predictions, AB, cues)
    assert found["clips"] == 5
    assert found["skipped"] == {"unreadable": 1}
    assert found["answers"] == "reasoned"
    assert found["war"] == pytest.approx(3 / 5)
    assert found["uar"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["recall"] == {"happy": pytest.approx(2 / 3), "sad": 0.5}
    assert found["confusion"] == {
        "rows": ["happy", "sad"],
        "columns": ["happy", "sad", "other", "none"],
        "counts": [[2, 0, 1, 0], [0, 1, 0, 1]],
    }
    assert found["label_first"]["war"] == pytest.approx(3 / 5)
    assert found["label_first"]["confusion"]["counts"] == [[2, 1, 0, 0], [1, 1, 0, 0]]
    assert found["format_rate"] == pytest.approx(4 / 5)
    assert found["truncated_rate"] == pytest.approx(1 / 5)
    assert found["agreement"] == pytest.approx(1 / 5)
    # Clip 0 says the one salient thing; clip 3 says a wrong one and neither of its two.
    assert found["claim_support_rate"] == pytest.approx(1 / 2)
    assert found["hallucinated_claim_rate"] == pytest.approx(1 / 2)
    assert found["cue_recall"] == pytest.approx(1 / 3)
    assert found["label_named_rate"] == pytest.approx(1 / 5)
    assert found["ece"] == pytest.approx(0.3)
    assert found["ablation"] == {}
    json.dumps(found)


def test_without_reasoning_the_scores_are_the_answers():
    found = result([clip(0, "happy", "happy"), clip(1, "sad", "happy")], AB, {})
    assert found["answers"] == "label_first"
    assert found["war"] == found["label_first"]["war"] == 0.5
    for name in ("format_rate", "agreement", "claim_support_rate", "cue_recall"):
        assert found[name] is None


def test_bare_answers():
    predictions = [clip(0, "happy", "happy", "Happy"), clip(1, "sad", "sad", "")]
    found = result(predictions, AB, {}, bare=True)
    assert (found["war"], found["format_rate"], found["label_named_rate"]) == (0.5, 0.5, None)
    assert result(predictions, AB, {})["war"] == 0.0


def test_ablation_counts_clips_that_have_everything():
    def all_of(index, label, both, video, audio, shuffled):
        named = zip(CONDITIONS, (both, video, audio, shuffled), strict=True)
        return Prediction(
            index=index,
            path="",
            label=label,
            scores={
                c: {n: float(n == first) for n in AB} for c, first in named if first is not None
            },
        )

    found = result(
        [
            all_of(0, "happy", "happy", "happy", "sad", "happy"),
            all_of(1, "sad", "sad", "happy", "sad", "happy"),
            all_of(2, "happy", "happy", "happy", "happy", "sad"),
            all_of(3, "sad", "sad", "happy", None, None),  # without sound
        ],
        AB,
        {},
    )
    assert found["ablation"]["clips"] == 3
    assert {c: found["ablation"][c]["uar"] for c in CONDITIONS} == {
        "both": 1.0,
        "video": 0.5,
        "audio": 0.75,
        "shuffled_audio": 0.25,
    }
    assert found["fusion_gain"] == 0.25
    assert found["war"] == 1.0  # of all four


def test_a_clip_without_pictures_is_still_scored():
    only = Prediction(index=0, path="", label="sad", scores={"audio": {"happy": 0.2, "sad": 0.8}})
    assert result([only], AB, {})["war"] == 1.0


def test_nothing_usable_is_an_error():
    skipped = Prediction(index=0, path="a", label="sad", skipped="unreadable: no such file")
    with pytest.raises(ConfigError, match="none of 1 clips could be used: unreadable: no such"):
        result([skipped], AB, {})
    with pytest.raises(ConfigError, match="none of 0 clips could be used: no rows"):
        result([], AB, {})


def test_predictions_survive_json():
    one = clip(0, "happy", "sad", say("happy"), truncated=True)
    assert Prediction.from_json(json.loads(json.dumps(one.to_json()))) == one
    with pytest.raises(ConfigError, match="prediction: "):
        Prediction.from_json({"nonsense": 1})


def test_outcomes_survive_json_and_say_what_the_prediction_did():
    [one] = judge_all(
        [clip(0, "happy", "sad", say("happy"))], AB, {0: Cues({}, {"pitch": 1.5, "rate": -1.0})}
    )
    assert Outcome.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert (one.first, one.said, one.well_formed, one.label_named) == ("sad", "happy", True, False)
    assert (one.supported, one.contradicted, one.salient, one.mentioned) == (1, 0, 2, 1)
    assert one.covered is False  # one claim, and two things to say
    with pytest.raises(ConfigError, match="outcome: "):
        Outcome.from_json({"nonsense": 1})


def random_result(count=400, seed=0):
    """A believable result: right two times in three, reasoned, with cues."""
    rng = np.random.default_rng(seed)
    predictions, cues = [], {}
    for i in range(count):
        label = DEFAULT_LABELS[rng.integers(0, 6)]  # the last label never occurs
        scores = {}
        for condition, skill in zip(CONDITIONS, (2.5, 1.5, 1.2, 0.8), strict=True):
            logits = rng.normal(size=7) + skill * np.eye(7)[DEFAULT_LABELS.index(label)]
            share = np.exp(1.5 * logits) / np.exp(1.5 * logits).sum()
            scores[condition] = dict(zip(DEFAULT_LABELS, share.tolist(), strict=True))
        first = max(scores["both"], key=scores["both"].get)
        text = say(first if rng.random() > 0.05 else "bored", "The pitch is high. She smiles.")
        cues[i] = Cues({"AU12": rng.random()}, {"pitch": rng.normal(), "rate": rng.normal()})
        predictions.append(
            Prediction(index=i, path=f"{i}.mp4", label=label, scores=scores, text=text)
        )
    return result(predictions, DEFAULT_LABELS, cues, samples=100)


def test_a_whole_result_is_consistent():
    found = random_result()
    assert found["recall"]["fear"] is None
    assert found["intervals"]["uar"][0] < found["uar"] < found["intervals"]["uar"][1]
    assert found["agreement"] == pytest.approx(0.95, abs=0.03)
    assert sum(b["count"] for b in found["reliability"]) == 400
    assert 0 < found["fusion_gain"] < 1


def test_votes_of_single_modalities_beside_the_whole():
    def scored(label: str, both: str, video: str, audio: str) -> Outcome:
        return Outcome(index=0, label=label, scored={"both": both, "video": video, "audio": audio})

    found = votes(
        [
            scored("sad", "sad", "sad", "sad"),
            scored("sad", "sad", "sad", "fear"),
            scored("sad", "fear", "sad", "fear"),
            scored("sad", "angry", "sad", "fear"),
            Outcome(index=4, label="sad", scored={"both": "sad"}),
        ]
    )
    assert found["clips"] == 4
    assert (found["alike"], found["alike_kept"]) == (0.25, 1.0)
    third = pytest.approx(1 / 3)
    assert found["follows_video"] == found["follows_audio"] == found["follows_neither"] == third
    assert found["right_where_they_differ"] == {"both": third, "video": 1.0, "audio": 0.0}
    assert votes([])["alike"] is None

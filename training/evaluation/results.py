"""From predictions on single clips to `eval.json`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from emostream.errors import ConfigError
from emostream.labels import OTHER
from training.data.cues import Cues
from training.evaluation.bootstrap import SAMPLES, draws, estimate
from training.evaluation.metrics import NO_ANSWER, confusion, ece, recalls, reliability
from training.evaluation.outcomes import (
    FIGURES,
    Outcome,
    conditions_of,
    figures,
    judge,
    votes,
)

PREDICTIONS: Final = "predictions.jsonl"
OUTCOMES: Final = "clips.jsonl"
RESULT: Final = "eval.json"
RUN: Final = "run.json"
"""Files of an evaluation: what the model said, what came of it, the figures, and what was evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model made of one clip.

    Attributes:
        index: The row's number among the rows evaluated.
        path: The row's clip, for people.
        label: The true label.
        scores: Condition of `CONDITIONS` -> label -> probability, from label-first scoring. A
            condition that the clip cannot meet is absent.
        text: The reasoned completion; None where none was asked for.
        truncated: Whether it ended at the length limit.
        skipped: Why the clip could not be used; then scores and text are empty.
    """

    index: int
    path: str
    label: str
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text: str | None = None
    truncated: bool = False
    skipped: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a line of predictions.jsonl."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Prediction":
        """Read such an object; the inverse of `to_json`.

        Raises:
            ConfigError: It is not one.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(f"prediction: {error}") from error

    @property
    def first(self) -> str | None:
        """The label that scoring puts first on all that the clip has; None where it was not scored."""
        scores = self.scores.get("both")
        return max(scores, key=scores.__getitem__) if scores else None


def judge_all(
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    cues: Mapping[int, Cues],
    *,
    bare: bool = False,
) -> list[Outcome]:
    """Judge the predictions of all usable clips.

    Args:
        predictions: One for each clip.
        labels: The label set.
        cues: Index of a prediction -> the clip's cues, where there are any.
        bare: The model answers with labels alone.

    Raises:
        ConfigError: No clip was usable.
    """
    used = [p for p in predictions if p.skipped is None]
    if not used:
        reasons = "; ".join(sorted({str(p.skipped) for p in predictions})[:3])
        raise ConfigError(
            f"eval: none of {len(predictions)} clips could be used: {reasons or 'no rows'}"
        )
    return [
        judge(
            p.index,
            p.label,
            p.scores,
            p.text,
            truncated=p.truncated,
            labels=labels,
            cues=cues.get(p.index),
            bare=bare,
        )
        for p in used
    ]


def summarise(
    predictions: Sequence[Prediction],
    outcomes: Sequence[Outcome],
    labels: Sequence[str],
    *,
    samples: int = SAMPLES,
) -> dict[str, Any]:
    """Compute everything in eval.json that follows from predictions.

    WAR, UAR, recall and confusion are those of the reasoned answers where the model was asked for
    them (`answers` says so), else of label-first scoring, which is also given by itself. Rates of
    nothing are null.

    Args:
        predictions: One for each clip.
        outcomes: From `judge_all`.
        labels: The label set.
        samples: Bootstrap samples of the intervals.
    """
    skipped = [p for p in predictions if p.skipped is not None]
    truth = [o.label for o in outcomes]
    scored = [o.first for o in outcomes]
    reasoned = any(o.reasoned for o in outcomes)
    found = figures(outcomes, labels)
    drawn = draws(len(outcomes), samples)
    estimates = {name: estimate([found[name]], drawn) for name in FIGURES}
    label_first = {
        **_table(truth, scored, labels),
        **{name: estimates[f"label_first_{name}"].value for name in ("war", "uar")},
    }
    return {
        "clips": len(outcomes),
        "skipped": dict(Counter(str(p.skipped).partition(": ")[0] for p in skipped)),
        "skipped_clips": [{"path": p.path, "reason": p.skipped} for p in skipped],
        "labels": list(labels),
        "answers": "reasoned" if reasoned else "label_first",
        **{name: estimates[name].value for name in FIGURES},
        "intervals": {name: e.interval for name, e in estimates.items()},
        **_table(truth, [o.said for o in outcomes] if reasoned else scored, labels),
        "label_first": label_first,
        "clips_with_cues": sum(o.reasoned and o.salient is not None for o in outcomes),
        **_calibration([p for p in predictions if p.skipped is None]),
        "votes": votes(outcomes),
        "ablation": _ablation(outcomes, labels, samples),
    }


def _table(
    truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> dict[str, Any]:
    counts = confusion(truth, predicted, labels)
    return {
        "recall": {
            label: None if math.isnan(value) else float(value)
            for label, value in zip(labels, recalls(counts), strict=True)
        },
        "confusion": {
            "rows": list(labels),
            "columns": [*labels, OTHER, NO_ANSWER],
            "counts": counts.tolist(),
        },
    }


def _calibration(used: Sequence[Prediction]) -> dict[str, Any]:
    scored = [p for p in used if p.first is not None]
    if not scored:
        return {"ece": None, "reliability": []}
    confidence = np.array([max(p.scores["both"].values()) for p in scored])
    bins = reliability(confidence, np.array([p.first == p.label for p in scored]))
    return {"ece": ece(bins), "reliability": [asdict(b) for b in bins]}


def _ablation(outcomes: Sequence[Outcome], labels: Sequence[str], samples: int) -> dict[str, Any]:
    """Label-first accuracy under each condition, over the clips that can meet all of them."""
    conditions = conditions_of(outcomes)
    whole = [o for o in outcomes if all(c in o.scored for c in conditions)]
    if len(conditions) < 2 or not whole:
        return {}
    drawn = draws(len(whole), samples)
    found: dict[str, Any] = {"clips": len(whole)}
    for condition in conditions:
        seen = [
            Outcome(index=o.index, label=o.label, scored={condition: o.scored[condition]})
            for o in whole
        ]
        rates = figures(seen, labels)
        estimates = {name: estimate([rates[name]], drawn) for name in ("war", "uar")}
        recall = _table([o.label for o in seen], [o.first for o in seen], labels)["recall"]
        found[condition] = {
            **{name: e.value for name, e in estimates.items()},
            "intervals": {name: e.interval for name, e in estimates.items()},
            "recall": recall,
        }
    return found

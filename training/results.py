"""From predictions on single clips to `eval.json`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from emostream.labels import OTHER
from training.claims.evaluation_lexicon import extract_claims
from training.claims.verify import verify
from training.cues import Cues
from training.metrics import (
    NO_ANSWER,
    agreement,
    confusion,
    ece,
    faithfulness,
    intervals,
    rate,
    recalls,
    reliability,
    uar,
    war,
)
from training.rewards import names_label

CONDITIONS: Final = ("both", "video", "audio", "shuffled_audio")
"""What the model is shown: the clip, one modality of it, or its pictures with another clip's sound.
"""


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

    def first(self, condition: str = "both") -> str | None:
        """The label that scoring puts first under a condition; None where it was not scored."""
        scores = self.scores.get(condition)
        return max(scores, key=scores.__getitem__) if scores else None


def summarise(
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    cues: Mapping[int, Cues],
    *,
    bare: bool = False,
    samples: int = 1000,
) -> dict[str, Any]:
    """Compute everything in eval.json that follows from predictions.

    WAR, UAR, recall and confusion are those of the reasoned answers where the model was asked for
    them (`answers` says so), else of label-first scoring, which is also given by itself. Rates of
    nothing are null.

    Args:
        predictions: One for each clip.
        labels: The label set.
        cues: Index of a prediction -> the clip's cues, where there are any.
        bare: The model answers with labels alone.
        samples: Bootstrap samples of the intervals.

    Raises:
        ConfigError: No clip was usable.
    """
    used = [p for p in predictions if p.skipped is None]
    skipped = [p for p in predictions if p.skipped is not None]
    if not used:
        reasons = "; ".join(sorted({str(p.skipped) for p in skipped})[:3])
        raise ConfigError(
            f"eval: none of {len(predictions)} clips could be used: {reasons or 'no rows'}"
        )
    truth = [p.label for p in used]
    scored = [p.first() or next((p.first(c) for c in CONDITIONS if p.first(c)), None) for p in used]
    answers = [None if p.text is None else parse_answer(p.text, labels, bare=bare) for p in used]
    reasoned = any(answer is not None for answer in answers)
    said = [None if answer is None else answer.label for answer in answers]
    label_first = _accuracy(truth, scored, labels, samples)
    return {
        "clips": len(used),
        "skipped": dict(Counter(str(p.skipped).partition(": ")[0] for p in skipped)),
        "skipped_clips": [{"path": p.path, "reason": p.skipped} for p in skipped],
        "labels": list(labels),
        "answers": "reasoned" if reasoned else "label_first",
        **(_accuracy(truth, said, labels, samples) if reasoned else label_first),
        "label_first": label_first,
        "format_rate": rate(a.well_formed for a in answers if a is not None),
        "truncated_rate": rate(p.truncated for p in used if p.text is not None),
        "agreement": agreement(scored, said) if reasoned else None,
        **_reasoning(used, [a.think if a else None for a in answers], labels, cues),
        **_calibration(used),
        **_ablation(used, labels, samples),
    }


def _accuracy(
    truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str], samples: int
) -> dict[str, Any]:
    counts = confusion(truth, predicted, labels)
    found = recalls(counts)
    return {
        "war": war(counts),
        "uar": uar(counts),
        "intervals": {
            k: list(v) for k, v in intervals(truth, predicted, labels, samples=samples).items()
        },
        "recall": {
            label: None if math.isnan(value) else float(value)
            for label, value in zip(labels, found, strict=True)
        },
        "confusion": {
            "rows": list(labels),
            "columns": [*labels, OTHER, NO_ANSWER],
            "counts": counts.tolist(),
        },
    }


def _reasoning(
    used: Sequence[Prediction],
    thoughts: Sequence[str | None],
    labels: Sequence[str],
    cues: Mapping[int, Cues],
) -> dict[str, Any]:
    checked = []
    for prediction, think in zip(used, thoughts, strict=True):
        if think is not None and prediction.index in cues:
            claims = extract_claims(think)
            known = cues[prediction.index]
            checked.append((known, claims, verify(claims, known)))
    found = faithfulness(checked)
    written = [think for think in thoughts if think]
    return {
        "claim_support_rate": found.claim_support_rate,
        "hallucinated_claim_rate": found.hallucinated_claim_rate,
        "cue_recall": found.cue_recall,
        "claims_a_clip": found.claims_a_clip,
        "covered_rate": found.covered / found.clips if found.clips else None,
        "clips_with_cues": found.clips,
        "label_named_rate": rate(names_label(think, labels) for think in written),
    }


def _calibration(used: Sequence[Prediction]) -> dict[str, Any]:
    scored = [p for p in used if p.first() is not None]
    if not scored:
        return {"ece": None, "reliability": []}
    confidence = np.array([max(p.scores["both"].values()) for p in scored])
    bins = reliability(confidence, np.array([p.first() == p.label for p in scored]))
    return {"ece": ece(bins), "reliability": [asdict(b) for b in bins]}


def _ablation(used: Sequence[Prediction], labels: Sequence[str], samples: int) -> dict[str, Any]:
    """Label-first accuracy under each condition, over the clips that can meet all of them."""
    conditions = [c for c in CONDITIONS if any(c in p.scores for p in used)]
    whole = [p for p in used if all(c in p.scores for c in conditions)]
    if len(conditions) < 2 or not whole:
        return {"ablation": {}, "fusion_gain": None}
    truth = [p.label for p in whole]
    found = {}
    for condition in conditions:
        full = _accuracy(truth, [p.first(condition) for p in whole], labels, samples)
        found[condition] = {k: full[k] for k in ("war", "uar", "intervals", "recall")}
    gain = None
    if {"both", "video", "audio"} <= set(found):
        single = max(found["video"]["uar"], found["audio"]["uar"])
        gain = found["both"]["uar"] - single
    return {"ablation": {"clips": len(whole), **found}, "fusion_gain": gain}

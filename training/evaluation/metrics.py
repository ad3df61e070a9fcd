"""Metrics of evaluation: pure functions of labels, scores and verdicts.

A prediction may be a label, `"other"` (an answer outside the label set) or None (no answer at all);
the last two are wrong, never left out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from emostream.errors import InputError
from emostream.labels import OTHER
from training.claims.claim import Claim
from training.claims.verify import Verification
from training.data.cues import Cues

NO_ANSWER: Final = "none"
"""What None is called where predictions are listed."""
LEAST_CLAIMS: Final = 3
"""A reasoning that covers its clip makes so many, or as many as there are things to say, if these are fewer."""


def confusion(
    truth: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Count predictions: (L, L + 2), true label by predicted label, then `other`, then no answer.

    Raises:
        InputError: The lengths differ, nothing is there, or a label is not in `labels`.
    """
    if len(truth) != len(predicted) or not truth:
        raise InputError(
            f"metrics: wanted as many predictions as labels and at least one, found "
            f"{len(predicted)} and {len(truth)}"
        )
    rows = {label: i for i, label in enumerate(labels)}
    columns = _columns(labels)
    if unknown := sorted({t for t in truth if t not in rows}):
        raise InputError(
            f"metrics: unknown label {unknown[0]!r}; wanted one of {', '.join(labels)}"
        )
    if strange := sorted({p for p in predicted if p is not None and p not in columns}):
        raise InputError(
            f"metrics: unknown prediction {strange[0]!r}; wanted one of {', '.join(labels)}, "
            f"{OTHER} or None"
        )
    counts = np.zeros((len(labels), len(labels) + 2), np.int64)
    np.add.at(counts, ([rows[t] for t in truth], [columns[p] for p in predicted]), 1)
    return counts


def _columns(labels: Sequence[str]) -> dict[str | None, int]:
    columns: dict[str | None, int] = {OTHER: len(labels), None: len(labels) + 1}
    for i, label in enumerate(labels):
        columns[label] = i
    return columns


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class, (L,), of a `confusion`; NaN where the class never occurs."""
    support = counts.sum(1)
    hits = np.diagonal(counts).astype(np.float64)
    return np.divide(hits, support, out=np.full(len(support), np.nan), where=support > 0)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of like confidence: their number, mean confidence and accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = 15
) -> list[ReliabilityBin]:
    """Group predictions by confidence into bins of equal width over (0, 1]; empty ones are left out.

    Args:
        confidence: (N,) probability of the predicted label.
        correct: (N,) whether it was right.
        bins: Number of bins.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        ReliabilityBin(
            int(chosen.sum()), float(confidence[chosen].mean()), float(correct[chosen].mean())
        )
        for chosen in (index == i for i in range(bins))
        if chosen.any()
    ]


def ece(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error (Guo et al. 2017): gap of confidence and accuracy, by count."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total


def rate(flags: Iterable[bool]) -> float | None:
    """Share of true among flags; None of none, which is not the same as 0."""
    flags = list(flags)
    return sum(flags) / len(flags) if flags else None


def agreement(label_first: Sequence[str | None], reasoned: Sequence[str | None]) -> float | None:
    """How often the scored label is the reasoned answer; where there is no answer they disagree."""
    return rate(a is not None and a == b for a, b in zip(label_first, reasoned, strict=True))


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Claims and cues summed over clips.

    Attributes:
        clips: Clips with cues and a reasoning.
        supported, contradicted, unverifiable: Distinct claims by verdict.
        salient: Things that the descriptions should have mentioned.
        mentioned: How many of these they did.
        covered: Clips whose reasoning makes enough claims (`LEAST_CLAIMS`) and speaks of each
            informative modality.
    """

    clips: int
    supported: int
    contradicted: int
    unverifiable: int
    salient: int
    mentioned: int
    covered: int

    @property
    def claims(self) -> int:
        """Distinct claims."""
        return self.supported + self.contradicted + self.unverifiable

    @property
    def claim_support_rate(self) -> float | None:
        """Supported among all claims: what cannot be verified is not supported."""
        return self.supported / self.claims if self.claims else None

    @property
    def hallucinated_claim_rate(self) -> float | None:
        """Contradicted among all claims."""
        return self.contradicted / self.claims if self.claims else None

    @property
    def cue_recall(self) -> float | None:
        """Salient cues that were mentioned among all salient cues."""
        return self.mentioned / self.salient if self.salient else None

    @property
    def claims_a_clip(self) -> float | None:
        """Mean number of distinct claims of a clip's reasoning."""
        return self.claims / self.clips if self.clips else None


def faithfulness(clips: Iterable[tuple[Cues, Sequence[Claim], Verification]]) -> Faithfulness:
    """Sum up what reasonings say against what clips show.

    Args:
        clips: For each clip with a reasoning its cues, the claims made and their verdicts.
    """
    total = np.zeros(7, np.int64)
    for cues, claims, verdicts in clips:
        said = {(c.modality, c.cue, c.direction) for c in claims if not c.negated}
        salient = cues.salient()
        needed = {m for m, _, _ in salient if _informative(cues, m)}
        enough = len(claims) >= min(LEAST_CLAIMS, cues.offered())
        covered = enough and needed <= {c.modality for c in claims}
        total += [
            1,
            len(verdicts.supported),
            len(verdicts.contradicted),
            len(verdicts.unverifiable),
            len(salient),
            len(said & set(salient)),
            covered,
        ]
    return Faithfulness(*(int(n) for n in total))


def _informative(cues: Cues, modality: str) -> bool:
    return cues.informative.video if modality == "face" else cues.informative.audio

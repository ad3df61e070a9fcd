"""What came of each clip, judged against its label and cues, and the figures that follow from many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from training.claims.evaluation_lexicon import extract_claims
from training.claims.grammar import malformed, repeats
from training.claims.naming import names_label
from training.claims.verify import verify
from training.data.cues import Cues
from training.evaluation.bootstrap import Figure, Floats, Ratio
from training.evaluation.metrics import faithfulness

CONDITIONS: Final = ("both", "video", "audio", "shuffled_audio")
"""What the model is shown: the clip, one modality of it, or its pictures with another clip's sound.
"""

FIGURES: Final = (
    *("war", "uar", "label_first_war", "label_first_uar", "format_rate", "truncated_rate"),
    *("agreement", "claim_support_rate", "hallucinated_claim_rate", "claims_a_clip", "cue_recall"),
    *("covered_rate", "label_named_rate", "repetition_rate", "malformed_rate", "fusion_gain"),
)
"""What `figures` gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a model made of one clip, judged; a line of clips.jsonl.

    Attributes:
        index: The row's number among the rows evaluated.
        label: The true label.
        scored: Condition of `CONDITIONS` -> the label that scoring puts first.
        reasoned: Whether a reasoned answer was asked for; the fields below are about it.
        said: Its label; `other` for one outside the label set, None for no answer.
        well_formed: Whether it has the trained form.
        truncated: Whether it ended at the length limit.
        label_named: Whether the reasoning names a label; None where there is no reasoning.
        repeats: Whether it says a thing twice (`training.claims.grammar`); None likewise, as the next.
        malformed: Whether it has a statement that is none.
        supported: Claims that the cues bear out; None, as the next five, for a clip without cues.
        contradicted: Claims that they contradict.
        unverifiable: Claims on which they say nothing.
        salient: Things that a description should mention.
        mentioned: Those of them that the reasoning does.
        covered: Whether it makes enough claims and speaks of each informative modality.
    """

    index: int
    label: str
    scored: Mapping[str, str]
    reasoned: bool = False
    said: str | None = None
    well_formed: bool = False
    truncated: bool = False
    label_named: bool | None = None
    supported: int | None = None
    contradicted: int | None = None
    unverifiable: int | None = None
    salient: int | None = None
    mentioned: int | None = None
    covered: bool | None = None
    repeats: bool | None = None
    malformed: bool | None = None

    @property
    def first(self) -> str | None:
        """What scoring puts first on all that the clip has."""
        return next((self.scored[c] for c in CONDITIONS if c in self.scored), None)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a line of clips.jsonl."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Outcome":
        """Read such an object; the inverse of `to_json`.

        Raises:
            ConfigError: It is not one.
        """
        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(f"outcome: {error}") from error


def judge(
    index: int,
    label: str,
    scores: Mapping[str, Mapping[str, float]],
    text: str | None,
    *,
    truncated: bool,
    labels: Sequence[str],
    cues: Cues | None,
    bare: bool = False,
) -> Outcome:
    """Judge what a model made of a clip.

    Args:
        index: The row's number.
        label: The true label.
        scores: Condition -> label -> probability.
        text: The reasoned completion; None where none was asked for.
        truncated: Whether it ended at the length limit.
        labels: The label set.
        cues: What the clip shows, where that is recorded.
        bare: The model answers with labels alone.
    """
    scored = {condition: max(p, key=p.__getitem__) for condition, p in scores.items()}
    if text is None:
        return Outcome(index=index, label=label, scored=scored)
    answer = parse_answer(text, labels, bare=bare)
    checked: dict[str, Any] = {}
    if cues is not None:
        claims = extract_claims(answer.think)
        found = faithfulness([(cues, claims, verify(claims, cues))])
        checked = {**asdict(found), "covered": bool(found.covered)}
        del checked["clips"]
    return Outcome(
        index=index,
        label=label,
        scored=scored,
        reasoned=True,
        said=answer.label,
        well_formed=answer.well_formed,
        truncated=truncated,
        label_named=names_label(answer.think, labels) if answer.think else None,
        repeats=repeats(answer.think) if answer.think else None,
        malformed=malformed(answer.think) if answer.think else None,
        **checked,
    )


def figures(outcomes: Sequence[Outcome], labels: Sequence[str]) -> dict[str, Figure]:
    """Each of `FIGURES` as a function of how often each clip is drawn.

    WAR and UAR are those of the reasoned answers where the model was asked for them, else of label-first scoring. The
    modality figures are over the clips that can meet every condition.
    """
    truth = [o.label for o in outcomes]
    scored = [o.first for o in outcomes]
    said = [o.said for o in outcomes]
    reasoned = any(o.reasoned for o in outcomes)
    answered = said if reasoned else scored
    asked = [o.reasoned for o in outcomes]
    checked = [o.reasoned and o.salient is not None for o in outcomes]
    claims = [_claims(o) for o in outcomes]
    return {
        "war": _war(truth, answered),
        "uar": _uar(truth, answered, labels),
        "label_first_war": _war(truth, scored),
        "label_first_uar": _uar(truth, scored, labels),
        "format_rate": _ratio([o.well_formed for o in outcomes], asked),
        "truncated_rate": _ratio([o.truncated for o in outcomes], asked),
        "agreement": _ratio([o.first is not None and o.first == o.said for o in outcomes], asked),
        "claim_support_rate": _ratio([o.supported or 0 for o in outcomes], claims),
        "hallucinated_claim_rate": _ratio([o.contradicted or 0 for o in outcomes], claims),
        "claims_a_clip": _ratio(claims, checked),
        "cue_recall": _ratio(
            [o.mentioned or 0 for o in outcomes], [o.salient or 0 for o in outcomes]
        ),
        "covered_rate": _ratio([bool(o.covered) for o in outcomes], checked),
        "label_named_rate": _ratio(
            [bool(o.label_named) for o in outcomes], [o.label_named is not None for o in outcomes]
        ),
        "repetition_rate": _ratio(
            [bool(o.repeats) for o in outcomes], [o.repeats is not None for o in outcomes]
        ),
        "malformed_rate": _ratio(
            [bool(o.malformed) for o in outcomes], [o.malformed is not None for o in outcomes]
        ),
        "fusion_gain": _fusion_gain(outcomes, labels),
    }


def votes(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The label of the whole clip beside those of its pictures and of its sound alone, label-first.

    Args:
        outcomes: Those that were not scored on the clip and on each modality are left out.

    Returns:
        Shares, each null where there is nothing to divide by: of clips of which picture and sound say the same
        (`alike`), and the clip too (`alike_kept`, of those); where they differ, of clips that follow the one, the other
        or neither; and how often each of the three is right there (`right_where_they_differ`).
    """
    voted = [o for o in outcomes if {"both", "video", "audio"} <= set(o.scored)]
    differ = [o for o in voted if o.scored["video"] != o.scored["audio"]]
    alike = [o for o in voted if o.scored["video"] == o.scored["audio"]]

    def share(of: Sequence[Outcome], holds: Callable[[Outcome], bool]) -> float | None:
        return sum(map(holds, of)) / len(of) if of else None

    return {
        "clips": len(voted),
        "alike": share(voted, lambda o: o.scored["video"] == o.scored["audio"]),
        "alike_kept": share(alike, lambda o: o.scored["both"] == o.scored["video"]),
        "follows_video": share(differ, lambda o: o.scored["both"] == o.scored["video"]),
        "follows_audio": share(differ, lambda o: o.scored["both"] == o.scored["audio"]),
        "follows_neither": share(
            differ, lambda o: o.scored["both"] not in (o.scored["video"], o.scored["audio"])
        ),
        "right_where_they_differ": {
            condition: share(differ, lambda o, c=condition: o.scored[c] == o.label)  # type: ignore[misc]
            for condition in ("both", "video", "audio")
        },
    }


def conditions_of(outcomes: Sequence[Outcome]) -> list[str]:
    """The conditions that any clip was scored under."""
    return [c for c in CONDITIONS if any(c in o.scored for o in outcomes)]


def _claims(outcome: Outcome) -> int:
    return sum(n or 0 for n in (outcome.supported, outcome.contradicted, outcome.unverifiable))


def _column(values: Sequence[float | bool]) -> Floats:
    return np.array(values, float)[:, None]


def _ratio(above: Sequence[float | bool], below: Sequence[float | bool]) -> Ratio:
    return Ratio(_column(above), _column(below))


def _war(truth: Sequence[str], predicted: Sequence[str | None]) -> Ratio:
    hits = [t == p for t, p in zip(truth, predicted, strict=True)]
    return _ratio(hits, [True] * len(hits))


def _uar(
    truth: Sequence[str],
    predicted: Sequence[str | None],
    labels: Sequence[str],
    where: Floats | None = None,
) -> Ratio:
    of_NK = np.array([[t == label for label in labels] for t in truth], float)
    if where is not None:
        of_NK *= where
    hits = [t == p for t, p in zip(truth, predicted, strict=True)]
    return Ratio(of_NK * _column(hits), of_NK)


def _fusion_gain(outcomes: Sequence[Outcome], labels: Sequence[str]) -> Figure:
    """UAR on both modalities less that on the better single one, as each sample has it."""
    conditions = conditions_of(outcomes)
    whole_N1 = _column([all(c in o.scored for c in conditions) for o in outcomes])
    if not {"both", "video", "audio"} <= set(conditions):
        whole_N1 *= 0
    truth = [o.label for o in outcomes]
    both, video, audio = (
        _uar(truth, [o.scored.get(condition) for o in outcomes], labels, whole_N1)
        for condition in ("both", "video", "audio")
    )
    return lambda drawn: both(drawn) - np.fmax(video(drawn), audio(drawn))

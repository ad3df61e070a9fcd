"""A clip and the same clip changed: which claims went, which stayed, and where the label moved."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from emostream.answers import parse_answer
from training.claims.claim import Claim
from training.claims.evaluation_lexicon import extract_claims
from training.claims.verify import Verdict, judge
from training.data.cues import Cues
from training.evaluation.bootstrap import Estimate, Floats, Ratio, draws, estimate
from training.evaluation.results import Prediction
from training.faithful.edits import Expected

FIGURES: Final = (
    "sensitivity",
    "specificity",
    "comes",
    "label_kept",
    "label_as_told",
    "answer_falls_by",
)
"""Of each kind of change; `rates` has what they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What a model made of a clip and of its twin; a line of pairs.jsonl.

    Attributes:
        clip: The clip's number; intervals are over clips.
        kind: Of the change.
        change: Which.
        goes: Claims made of the clip that hold of it and should go.
        went: Those of them that are not made of the twin.
        stays: Claims that should stay.
        stayed: Those of them that are made of the twin.
        came: Whether the claim that should come did; None if none should, or it was made before.
        before, after: The label that scoring puts first.
        told: The label that the twin should get; None if nobody can say.
        falls_by: How much less probable the clip's answer is for the twin.
    """

    clip: int
    kind: str
    change: str
    goes: int
    went: int
    stays: int
    stayed: int
    came: bool | None = None
    before: str | None
    after: str | None
    told: str | None = None
    falls_by: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of a line."""
        return asdict(self)


def twin_pair(
    clip: int,
    kind: str,
    change: str,
    before: Prediction,
    after: Prediction,
    cues: tuple[Cues, Cues],
    told: str | None,
) -> Pair:
    """Compare a clip with a rendered twin, whose cues say which claims should go and which stay.

    Args:
        clip: The clip's number.
        kind: Of the change.
        change: Which.
        before: Of the clip.
        after: Of the twin.
        cues: The clip's and the twin's.
        told: The label that the twin should get.
    """
    own, changed = cues
    held = [claim for claim in _claims(before) if judge(claim, own) is Verdict.SUPPORTED]
    goes = [claim for claim in held if judge(claim, changed) is Verdict.CONTRADICTED]
    stays = [claim for claim in held if judge(claim, changed) is Verdict.SUPPORTED]
    return _pair(clip, kind, change, before, after, goes, stays, told=told)


def edit_pair(
    clip: int,
    kind: str,
    before: Prediction,
    after: Prediction,
    cues: Cues | None,
    expected: Expected,
) -> Pair:
    """Compare a clip with itself edited; where cues are known, claims that did not hold are left out."""
    made = [c for c in _claims(before) if cues is None or judge(c, cues) is Verdict.SUPPORTED]
    pair = _pair(
        clip,
        kind,
        kind,
        before,
        after,
        [claim for claim in made if expected.goes(claim)],
        [claim for claim in made if expected.stays(claim)],
        told=before.first if expected.same_label else None,
    )
    if expected.comes is None or expected.comes in {claim.key for claim in _claims(before)}:
        return pair
    came = expected.comes in {claim.key for claim in _claims(after)}
    return Pair(**{**pair.to_json(), "came": came})


def _pair(
    clip: int,
    kind: str,
    change: str,
    before: Prediction,
    after: Prediction,
    goes: Sequence[Claim],
    stays: Sequence[Claim],
    *,
    told: str | None,
) -> Pair:
    said = {claim.key for claim in _claims(after)}
    falls_by = None
    if before.first is not None and after.first is not None:
        falls_by = before.scores["both"][before.first] - after.scores["both"][before.first]
    return Pair(
        clip=clip,
        kind=kind,
        change=change,
        goes=len(goes),
        went=sum(claim.key not in said for claim in goes),
        stays=len(stays),
        stayed=sum(claim.key in said for claim in stays),
        before=before.first,
        after=after.first,
        told=told,
        falls_by=falls_by,
    )


def _claims(prediction: Prediction) -> list[Claim]:
    return extract_claims(parse_answer(prediction.text or "").think)


def by_kind(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Figures of each kind of change, and of each change of the kinds that have several, with intervals over clips."""
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)
    out = {}
    for kind, members in kinds.items():
        several: dict[str, list[Pair]] = defaultdict(list)
        for pair in members:
            several[pair.change].append(pair)
        out[kind] = rates(members)
        if len(several) > 1:
            out[kind]["changes"] = {name: rates(some) for name, some in sorted(several.items())}
    return out


def rates(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Figures of some pairs, each null where there is nothing to count.

    - `sensitivity`: of the claims that should go, the share that went.
    - `specificity`: of the claims that should stay, the share that stayed.
    - `comes`: how often a claim that should come did.
    - `label_kept`: how often the likeliest label is the clip's.
    - `label_as_told`: how often it is the one that the twin's acting tells.
    - `answer_falls_by`: how much less probable the clip's answer became, on average.
    """
    clips = sorted({pair.clip for pair in pairs})
    place = {clip: at for at, clip in enumerate(clips)}
    drawn = draws(len(clips))

    def share(above: Callable[[Pair], float], below: Callable[[Pair], float]) -> Estimate:
        up, low = np.zeros((len(clips), 1)), np.zeros((len(clips), 1))
        for pair in pairs:
            up[place[pair.clip]] += above(pair)
            low[place[pair.clip]] += below(pair)
        return _estimate(up, low, drawn)

    scored: Callable[[Pair], float] = lambda p: float(p.falls_by is not None)  # noqa: E731
    found = {
        "sensitivity": share(lambda p: p.went, lambda p: p.goes),
        "specificity": share(lambda p: p.stayed, lambda p: p.stays),
        "comes": share(lambda p: float(p.came or False), lambda p: float(p.came is not None)),
        "label_kept": share(lambda p: scored(p) * (p.before == p.after), scored),
        "label_as_told": share(
            lambda p: scored(p) * (p.told is not None and p.after == p.told),
            lambda p: scored(p) * (p.told is not None),
        ),
        "answer_falls_by": share(lambda p: p.falls_by or 0.0, scored),
    }
    assert tuple(found) == FIGURES
    return {
        "pairs": len(pairs),
        "clips": len(clips),
        "claims": {
            "should_go": sum(p.goes for p in pairs),
            "should_stay": sum(p.stays for p in pairs),
        },
        **figures_json(found),
    }


def figures_json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Values by name, and their intervals under `intervals`, as eval.json has them."""
    values: dict[str, Any] = {name: figure.value for name, figure in found.items()}
    return {**values, "intervals": {name: figure.interval for name, figure in found.items()}}


def _estimate(above: Floats, below: Floats, drawn: Floats) -> Estimate:
    return estimate([Ratio(above, below)], drawn) if below.any() else Estimate(None, None)

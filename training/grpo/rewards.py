"""Verifiable rewards of GRPO: accuracy, format, grounding. Pure functions of text and labels.

The paper's two (R1-Omni, arXiv:2503.05379) leave the reasoning free: it may say anything as long as
the answer is right. Grounding checks what it says against the clip's cues:

    score     = clip((paid - cost) / wanted, floor, 1), times coverage if above 0     in [floor, 1]
    grounding = score - 0.5 if the reasoning names a label, else score

- Claims are extracted once each (`training.claims`); saying a thing twice changes nothing.
- paid: 1 for a supported claim of a salient cue, and for the true statement that a face or voice
  is at rest or hidden; 0.5 for a supported claim of a cue that is there but slight; 0 for what is
  safe to say: a denial, a dimension that is as usual, a part of something already said.
- cost: `contradiction_cost` for a contradicted claim, half of it for one that cannot be verified. At 1, a
  claim pays from even odds on; a higher cost asks for surer claims.
- wanted: the number of salient things about the clip (a face or voice without any counts one), at
  most `wanted_claims`.
- coverage: the share of the informative modalities that earned something.
- Nothing is earned by a malformed completion, by fewer claims than `least_claims` (or than the clip
  has to offer), by repetition, or by padding: more than `words_a_claim` words for each claim.

At a `floor` of 0 an attempt never earns less than silence, and so a guess of what cannot be told costs nothing; at -1
it does.

Of an answer to a counterfactual twin (`training.synth.twins`), whose group answers the clip as well, `intervention`
takes a cost for each claim that stays though its cause is gone: the share of the clip's answers that make it, at most 1
in all. An answer that follows what is shown loses it with the cue; one that says what goes with the emotion does not.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from emostream.answers import parse_answer
from emostream.errors import ConfigError
from emostream.labels import DEFAULT_LABELS
from training.claims.claim import EXPRESSION, HIDDEN, PROSODY, Claim
from training.claims.extract import extract_claims
from training.claims.naming import names_label
from training.claims.verify import verify
from training.data.cues import ENTAILS, Cues, Modality

_PAPER_FORMAT: Final = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
_PAPER_ANSWER: Final = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_SAID_AGAIN: Final = re.compile(r"\b(\w+)(?:\s+|,\s*|,?\s+and\s+)\1\b", re.IGNORECASE)
_SAID_OF_ITSELF: Final = re.compile(
    r"\b(\w+)(?:\s+(?!(?:and|or)\b)\w+){1,3}\s+(?:is|are|was|were)\s+\1\b", re.IGNORECASE
)
_NAMING_PENALTY: Final = 0.5


@dataclass(frozen=True, slots=True)
class GroundingSettings:
    """What the grounding reward asks for; the module's docstring has the formula.

    Raises:
        ConfigError: A value is out of range.
    """

    wanted_claims: int = 6
    least_claims: int = 3
    words_a_claim: int = 16
    distinct_trigrams: float = 0.7
    contradiction_cost: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least_claims <= self.wanted_claims:
            raise ConfigError(
                f"grounding: wanted 1 <= least_claims <= wanted_claims, found {self.least_claims} "
                f"and {self.wanted_claims}"
            )
        if self.words_a_claim < 1 or not 0 <= self.distinct_trigrams <= 1:
            raise ConfigError(
                "grounding: words_a_claim must be positive, distinct_trigrams in 0..1"
            )
        if not 0 <= self.contradiction_cost < float("inf"):
            raise ConfigError(
                f"grounding: contradiction_cost is {self.contradiction_cost}; wanted 0 or more"
            )
        if not -1 <= self.floor <= 0:
            raise ConfigError(f"grounding: floor is {self.floor}; wanted -1 to 0")


def accuracy(completion: str, label: str, labels: Sequence[str] = DEFAULT_LABELS) -> float:
    """1 if the completion's one answer spells `label`, else 0; the format does not matter."""
    return float(parse_answer(completion, labels).label == label)


def well_formed(completion: str) -> float:
    """1 if the whole completion has the trained form, else 0."""
    return float(parse_answer(completion).well_formed)


def paper_accuracy(completion: str, label: str) -> float:
    """R1-Omni's: 1 if the text of the first answer is the label, letter for letter."""
    match = _PAPER_ANSWER.search(completion)
    return float(match is not None and match[1].strip() == label)


def paper_format(completion: str) -> float:
    """R1-Omni's: 1 if the whole completion is a think and an answer, whatever is inside them."""
    return float(_PAPER_FORMAT.fullmatch(completion) is not None)


def grounding(
    completion: str,
    cues: Cues,
    labels: Sequence[str] = DEFAULT_LABELS,
    settings: GroundingSettings | None = None,
) -> float:
    """Score the reasoning against what the clip shows, in [floor - 0.5, 1]."""
    settings = settings or GroundingSettings()
    answer = parse_answer(completion, labels)
    penalty = _NAMING_PENALTY if names_label(answer.think, labels) else 0.0
    if not answer.well_formed:
        return -penalty
    return _score(answer.think, cues, settings) - penalty


def intervention(
    completion: str, gone: Collection[tuple[str, str, int]], beside: Sequence[str]
) -> float:
    """What claims cost that stay though their cause is gone, in [-1, 0].

    Args:
        completion: An answer to the twin.
        gone: What is marked in the clip and not in the twin: modality, cue, direction.
        beside: The group's answers to the clip.
    """
    stay = _said(completion) & set(gone)
    clip = [_said(answer) for answer in beside]
    if not clip:
        return 0.0
    shares = (sum(claim in said for said in clip) / len(clip) for claim in stay)
    return -min(1.0, sum(shares))


def _said(completion: str) -> set[tuple[str, str, int]]:
    claims = extract_claims(parse_answer(completion).think)
    return {(claim.modality, claim.cue, claim.direction) for claim in claims if not claim.negated}


def is_degenerate(text: str, distinct_trigrams: float = 0.7) -> bool:
    """Whether a text repeats itself.

    That is "strong and strong", "furrowed brows are furrowed", a sentence twice, or too few trigrams.
    """
    if _SAID_AGAIN.search(text) or _SAID_OF_ITSELF.search(text):
        return True
    sentences = [" ".join(s.lower().split()) for s in re.split(r"[.!?;\n]+", text) if s.strip()]
    if len(set(sentences)) < len(sentences):
        return True
    words = _words(text)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return bool(trigrams) and len(set(trigrams)) < distinct_trigrams * len(trigrams)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def _score(think: str, cues: Cues, settings: GroundingSettings) -> float:
    claims = extract_claims(think)
    salient = set(cues.salient())
    wanted = max(1, min(settings.wanted_claims, cues.offered()))
    if (
        len(claims) < min(settings.least_claims, wanted)
        or len(_words(think)) > settings.words_a_claim * len(claims)
        or is_degenerate(think, settings.distinct_trigrams)
    ):
        return 0.0
    verdicts = verify(claims, cues)
    paid = {claim: _pay(claim, claims, salient) for claim in verdicts.supported}
    wrong = len(verdicts.contradicted) + 0.5 * len(verdicts.unverifiable)
    cost = settings.contradiction_cost * wrong
    score = (sum(paid.values()) - cost) / wanted
    return min(1.0, score) * _coverage(paid, cues) if score > 0 else max(settings.floor, score)


def _pay(claim: Claim, claims: list[Claim], salient: set[tuple[Modality, str, int]]) -> float:
    if claim.negated:
        return 0.0
    if (claim.modality, claim.cue, claim.direction) in salient:
        return 1.0
    if claim.cue in (EXPRESSION, PROSODY, HIDDEN):
        return 1.0
    if claim.direction == 0:
        return 0.0
    said = {(c.modality, c.cue) for c in claims if not c.negated}
    implied = any(ENTAILS.get(cue) == claim.cue for modality, cue in said if modality == "face")
    return 0.0 if implied else 0.5


def _coverage(paid: Mapping[Claim, float], cues: Cues) -> float:
    informative = {
        modality
        for modality, tells in (
            ("face", cues.informative.video),
            ("voice", cues.informative.audio),
        )
        if tells and cues.recorded(modality)  # type: ignore[arg-type]
    }
    if not informative:
        return 1.0
    earned = {claim.modality for claim, pay in paid.items() if pay > 0}
    return len(earned & informative) / len(informative)


class RewardFunction(Protocol):
    """What TRL's trainers call: a list of completions and the dataset's columns, by keyword.

    Returns one reward a completion; None where the reward does not apply to the row.
    """

    __name__: str

    def __call__(self, *, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Score a batch."""


def reward_functions(
    names: Sequence[str] = ("accuracy", "format", "grounding"),
    labels: Sequence[str] = DEFAULT_LABELS,
    settings: GroundingSettings | None = None,
) -> list[RewardFunction]:
    """Return TRL reward functions by name.

    Args:
        names: Of accuracy, format, grounding, intervention, paper_accuracy, paper_format.
        labels: The label set of the answers.
        settings: For grounding.

    The columns used are `label` and `cues` (JSON text or object of a manifest row). A row without
    the one or the other gets None from the rewards that need it. `intervention` uses `pair`, the number that a clip's
    row shares with its twin's, None without a twin, and `gone` (JSON text), None for the clip itself.

    Raises:
        ConfigError: A name is unknown.
    """
    scorers: dict[str, Callable[[str, Any, Any], float | None]] = {
        "accuracy": lambda text, label, _: None if label is None else accuracy(text, label, labels),
        "format": lambda text, _, __: well_formed(text),
        "grounding": lambda text, _, cues: (
            None if cues is None else grounding(text, cues, labels, settings)
        ),
        "paper_accuracy": lambda text, label, _: (
            None if label is None else paper_accuracy(text, label)
        ),
        "paper_format": lambda text, _, __: paper_format(text),
    }
    known = {name: _named(name, scorer) for name, scorer in scorers.items()}
    known["intervention"] = _intervention_reward
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"rewards: unknown {unknown[0]!r}; wanted some of {', '.join(known)}")
    return [known[name] for name in names]


def _intervention_reward(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
    texts = [_text(completion) for completion in completions]
    nothing = [None] * len(texts)
    pairs, gone = columns.get("pair", nothing), columns.get("gone", nothing)
    beside: dict[int, list[str]] = {}
    for text, pair, lost in zip(texts, pairs, gone, strict=True):
        if pair is not None and lost is None:
            beside.setdefault(pair, []).append(text)
    return [
        None
        if pair is None
        else 0.0
        if lost is None
        else intervention(text, [(m, c, d) for m, c, d in json.loads(lost)], beside.get(pair, []))
        for text, pair, lost in zip(texts, pairs, gone, strict=True)
    ]


_intervention_reward.__name__ = "intervention_reward"


def _named(name: str, scorer: Callable[[str, Any, Any], float | None]) -> RewardFunction:
    def reward(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        nothing = [None] * len(completions)
        texts = [_text(completion) for completion in completions]
        cues = [_cues(value) for value in columns.get("cues", nothing)]
        rows = zip(texts, columns.get("label", nothing), cues, strict=True)
        return [scorer(*row) for row in rows]

    reward.__name__ = f"{name}_reward"
    return reward


def _text(completion: Any) -> str:
    """The text of a completion, plain or as a list of chat messages."""
    if isinstance(completion, str):
        return completion
    return "".join(message["content"] for message in completion)


def _cues(value: Any) -> Cues | None:
    """Cues of a dataset column: JSON text, or an object into which Arrow may have put nulls."""
    if value is None or isinstance(value, Cues):
        return value
    record = json.loads(value) if isinstance(value, str) else value
    if record is None:
        return None
    return Cues.from_json(
        {
            key: {name: v for name, v in part.items() if v is not None}
            for key, part in record.items()
            if part is not None
        }
    )

"""Emotion labels: the default set, the spellings of each label, the codes of published corpora.

Mapping is by table only. A word that no table knows is not a label: nothing is matched by prefix,
substring or edit distance, because a guessed label would be counted as a right or wrong answer of
the model.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from emostream.errors import ConfigError

DEFAULT_LABELS: Final = ("happy", "surprise", "neutral", "angry", "disgust", "sad", "fear")
"""The seven labels of DFEW in the order of the published models' prompts and scores."""

MAFW_EXTRA_LABELS: Final = ("contemptuous", "disappointed", "helpless", "anxious")
MAFW_LABELS: Final = DEFAULT_LABELS + MAFW_EXTRA_LABELS

OTHER: Final = "other"
"""What an answer outside the label set (an open vocabulary) is called."""

ALIASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "happy": ("happiness", "joy", "joyful"),
        "surprise": ("surprised",),
        "neutral": (),
        "angry": ("anger",),
        "disgust": ("disgusted",),
        "sad": ("sadness",),
        "fear": ("fearful", "afraid", "scared", "frightened"),
        "contemptuous": ("contempt",),
        "disappointed": ("disappointment",),
        "helpless": ("helplessness",),
        "anxious": ("anxiety",),
        # RAVDESS keeps calm apart from neutral, and so do we: it maps only where `labels` has it.
        "calm": ("calmness",),
    }
)
"""Other spellings of each label: inflections, and the words that corpora print for it."""

CORPUS_LABELS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "dfew": MappingProxyType(
            {
                "1": "happy",
                "2": "sad",
                "3": "neutral",
                "4": "angry",
                "5": "surprise",
                "6": "disgust",
                "7": "fear",
            }
        ),
        "mafw": MappingProxyType(
            {
                "anger": "angry",
                "disgust": "disgust",
                "fear": "fear",
                "happiness": "happy",
                "neutral": "neutral",
                "sadness": "sad",
                "surprise": "surprise",
                "contempt": "contemptuous",
                "anxiety": "anxious",
                "helplessness": "helpless",
                "disappointment": "disappointed",
            }
        ),
        "ravdess": MappingProxyType(
            {
                "01": "neutral",
                "02": "calm",
                "03": "happy",
                "04": "sad",
                "05": "angry",
                "06": "fear",
                "07": "disgust",
                "08": "surprise",
            }
        ),
        "crema-d": MappingProxyType(
            {
                "ANG": "angry",
                "DIS": "disgust",
                "FEA": "fear",
                "HAP": "happy",
                "NEU": "neutral",
                "SAD": "sad",
            }
        ),
    }
)
"""Corpus -> the code or word that its files use -> our label."""

_CONCEPT: Final[Mapping[str, str]] = MappingProxyType(
    {word: label for label, aliases in ALIASES.items() for word in (label, *aliases)}
)
_EDGE_PUNCTUATION: Final = " \t\r\n.,;:!?\"'`*_()[]{}…。，！？“”‘’"


def normalise(text: str) -> str:
    """Fold case, strip punctuation and whitespace at the edges, and collapse inner whitespace."""
    return " ".join(text.strip(_EDGE_PUNCTUATION).casefold().split())


def canonical_label(text: str, labels: Sequence[str] = DEFAULT_LABELS) -> str | None:
    """Return the member of `labels` that `text` spells, or None if it spells none of them.

    Args:
        text: A label or an alias of one, in any case, with any punctuation or whitespace around it.
        labels: The label set; a member is returned exactly as it is written here.
    """
    word = normalise(text)
    for label in labels:
        if normalise(label) == word:
            return label
    concept = _CONCEPT.get(word)
    if concept is None:
        return None
    for label in labels:
        if _CONCEPT.get(normalise(label)) == concept:
            return label
    return None


def spellings(label: str) -> tuple[str, ...]:
    """Return every known spelling of a label, its own first; a label outside the tables has one."""
    concept = _CONCEPT.get(normalise(label))
    if concept is None:
        return (label,)
    return (label, *(s for s in (concept, *ALIASES[concept]) if s != normalise(label)))


def validate_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Check a label set, for example one given as `--labels happy,angry`, and return it as a tuple.

    Raises:
        ConfigError: The set is empty, or a label is empty, holds `<`, `>` or a line break (it could
            not stand between answer tags), repeats another, or means the same as another.
    """
    if not labels:
        raise ConfigError(
            "labels: wanted at least one label, found none; name some, e.g. happy,angry"
        )
    seen: dict[str, str] = {}
    for label in labels:
        word = normalise(label)
        if not word or label != label.strip() or set("<>\r\n") & set(label):
            raise ConfigError(
                f"labels: {label!r} is not usable as a label; wanted a word without "
                "surrounding spaces, line breaks, '<' or '>'"
            )
        meaning = _CONCEPT.get(word, word)
        if meaning in seen:
            raise ConfigError(
                f"labels: {seen[meaning]!r} and {label!r} mean the same; remove one of them"
            )
        seen[meaning] = label
    return tuple(labels)

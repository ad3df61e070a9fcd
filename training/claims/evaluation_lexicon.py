"""The evaluation's own reading of claims, written apart from the lexicon that trains.

A model that is rewarded through `training.claims.lexicon` learns what that lexicon takes for a
claim, its mistakes included. Evaluation therefore reads with other tables and another method, and
shares with training only the type of a claim. Where training binds predicates to the nearest
subject by patterns, this walks a sentence word by word and keeps the part of face or voice that is
being spoken of: an adjective goes to the noun that it stands before, or else to the part last
named.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from training.claims.claim import Claim, deduplicate
from training.data.cues import Modality

Sense = tuple[str, int]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOKEN: Final = re.compile(r"[a-z]+(?:['’-][a-z]+)*|[,;:.!?\n]", re.IGNORECASE)
_STOPS: Final = frozenset(".!?;:\n")
COPULAS: Final = _words(
    "is are was were be been being looks look looked seems seem sounds sound sounded appears appear "
    "stays stay remains remain becomes become gets grows turns has have"
)
DENIALS: Final = _words(
    "not no never without neither nor cannot lacks lack lacking non absent nothing hardly barely "
    "isn't aren't wasn't weren't doesn't don't didn't hasn't haven't can't won't"
)
DETERMINERS: Final = _words("a an the his her their with of")
_BREAKS: Final = _words("and but while whereas though although yet however , with")

# Part -> modality and the words that name it; a name of several words is tried first.
PARTS: Final[dict[str, tuple[Modality, tuple[str, ...]]]] = {
    "inner brow": ("face", ("inner brow", "inner brows", "inner eyebrow", "inner eyebrows")),
    "brow": ("face", ("brow", "brows", "eyebrow", "eyebrows", "forehead")),
    "lid": (
        "face",
        ("lid", "lids", "eyelid", "eyelids", "upper lid", "upper lids", "upper eyelids"),
    ),
    "eye": ("face", ("eye", "eyes")),
    "look": ("face", ("gaze", "stare")),
    "cheek": ("face", ("cheek", "cheeks")),
    "nose": ("face", ("nose",)),
    "upper lip": ("face", ("upper lip",)),
    "corner": (
        "face",
        tuple(
            phrase
            for end in ("corner", "corners")
            for phrase in (
                f"lip {end}",
                f"mouth {end}",
                *(
                    f"{end} of {owner}{part}"
                    for owner in ("", "the ", "his ", "her ", "their ")
                    for part in ("mouth", "lip", "lips")
                ),
            )
        ),
    ),
    "lips": ("face", ("lip", "lips")),
    "mouth": ("face", ("mouth",)),
    "chin": ("face", ("chin",)),
    "jaw": ("face", ("jaw",)),
    "head": ("face", ("head",)),
    "face": ("face", ("face", "expression", "features")),
    "pitch": ("voice", ("pitch", "intonation", "melody", "pitch range", "inflection")),
    "volume": ("voice", ("volume", "loudness")),
    "pace": ("voice", ("pace", "tempo", "speech rate", "speaking rate", "rate", "speed")),
    "pause": ("voice", ("pause", "pauses", "gaps")),
    "voice": (
        "voice",
        (
            *("voice", "speech", "tone", "tone of voice", "delivery", "words", "utterance"),
            *("speaks", "speaking", "speak", "spoken", "talks", "talking"),
        ),
    ),
}

# What may be said of a part. An entry matches a word that begins with it; "=" asks for the whole
# word; two words must follow each other.
SAID: Final[dict[str, dict[str, Sense]]] = {
    "inner brow": {
        **dict.fromkeys(
            ("rais", "lift", "=up", "upward", "ris", "obliqu"), ("inner_brows_raised", 1)
        ),
        **dict.fromkeys(("furrow", "=together", "knit"), ("brows_lowered", 1)),
    },
    "brow": {
        **dict.fromkeys(
            ("rais", "lift", "=up", "upward", "arch", "=high", "elevat", "ris", "shoot"),
            ("brows_raised", 1),
        ),
        **dict.fromkeys(
            ("lower", "furrow", "=together", "knit", "contract", "=low", "=down", "creas"),
            ("brows_lowered", 1),
        ),
    },
    "lid": {
        **dict.fromkeys(("rais", "=wide", "=up", "lift", "widen"), ("eyes_widened", 1)),
        **dict.fromkeys(("tight", "tens", "narrow"), ("eyes_narrowed", 1)),
        **dict.fromkeys(("close", "=shut"), ("eyes_closed", 1)),
    },
    "eye": {
        **dict.fromkeys(("wide open", "wide", "bulg", "enlarg"), ("eyes_widened", 1)),
        **dict.fromkeys(("narrow", "squint", "tight", "half-closed"), ("eyes_narrowed", 1)),
        **dict.fromkeys(("close", "=shut"), ("eyes_closed", 1)),
        **dict.fromkeys(("=down", "downcast", "lower", "downward"), ("gaze_down", 1)),
    },
    "look": dict.fromkeys(("lower", "=down", "downcast", "drop", "downward"), ("gaze_down", 1)),
    "cheek": dict.fromkeys(("rais", "lift", "=up", "push", "ris"), ("cheeks_raised", 1)),
    "nose": dict.fromkeys(("wrinkl", "scrunch", "crinkl"), ("nose_wrinkled", 1)),
    "upper lip": dict.fromkeys(
        ("rais", "lift", "=up", "curl", "upward", "ris"), ("upper_lip_raised", 1)
    ),
    "corner": {
        **dict.fromkeys(
            ("=up", "rais", "upward", "upturned", "lift", "ris"), ("lip_corners_up", 1)
        ),
        **dict.fromkeys(
            ("=down", "droop", "downward", "downturned", "lower", "sag", "drop", "depress"),
            ("lip_corners_down", 1),
        ),
        **dict.fromkeys(("tight", "tuck", "dimpl"), ("lip_corner_dimpled", 1)),
        **dict.fromkeys(("stretch", "=back", "sideways"), ("lips_stretched", 1)),
    },
    "lips": {
        **dict.fromkeys(("press", "tight", "thin", "purs", "compress"), ("lips_pressed", 1)),
        **dict.fromkeys(("stretch", "=back", "sideways"), ("lips_stretched", 1)),
        **dict.fromkeys(("part", "open", "apart"), ("lips_parted", 1)),
    },
    "mouth": {
        **dict.fromkeys(
            ("wide open", "open wide", "gap", "agape", "falls open", "hangs open"),
            ("jaw_dropped", 1),
        ),
        **dict.fromkeys(("open", "part", "ajar"), ("lips_parted", 1)),
        **dict.fromkeys(("downturned", "=down", "droop"), ("lip_corners_down", 1)),
        **dict.fromkeys(("press", "tight", "purs"), ("lips_pressed", 1)),
        **dict.fromkeys(("stretch",), ("lips_stretched", 1)),
    },
    "chin": dict.fromkeys(("rais", "push", "=up", "lift", "bunch"), ("chin_raised", 1)),
    "jaw": dict.fromkeys(("drop", "slack", "open", "=down", "falls", "lower"), ("jaw_dropped", 1)),
    "head": {
        **dict.fromkeys(("lower", "bow", "=down", "hang", "drop"), ("head_down", 1)),
    },
    "face": {
        **dict.fromkeys(
            ("relax", "=rest", "still", "blank", "impassiv", "unmov", "neutral", "motionless"),
            ("expression", 0),
        ),
        **dict.fromkeys(
            ("hidden", "cover", "obscur", "not visible", "not seen", "turned away", "conceal"),
            ("hidden", 1),
        ),
        **dict.fromkeys(("furrow",), ("brows_lowered", 1)),
    },
    "pitch": {
        **dict.fromkeys(("high", "rais", "ris", "climb", "elevat"), ("pitch", 1)),
        **dict.fromkeys(("low", "deep", "fall", "drop"), ("pitch", -1)),
        **dict.fromkeys(("var", "lively", "swing", "wide", "melod", "animat"), ("pitch_range", 1)),
        **dict.fromkeys(
            ("flat", "hardly moves", "barely moves", "monoton", "narrow", "uniform"),
            ("pitch_range", -1),
        ),
        **dict.fromkeys(("trembl", "waver", "shak", "quaver", "wobbl"), ("tremor", 1)),
        **dict.fromkeys(("average", "normal", "moderate", "ordinary"), ("pitch", 0)),
    },
    "volume": {
        **dict.fromkeys(("high", "loud", "rais", "strong", "ris"), ("loudness", 1)),
        **dict.fromkeys(("low", "soft", "quiet", "faint", "drop"), ("loudness", -1)),
        **dict.fromkeys(("average", "normal", "moderate", "ordinary"), ("loudness", 0)),
    },
    "pace": {
        **dict.fromkeys(("fast", "quick", "rapid", "high", "hurri", "brisk"), ("rate", 1)),
        **dict.fromkeys(("slow", "low", "sluggish", "unhurried"), ("rate", -1)),
        **dict.fromkeys(("average", "normal", "moderate", "ordinary"), ("rate", 0)),
    },
    "pause": {
        **dict.fromkeys(("long", "many", "frequent", "several"), ("pauses", 1)),
        **dict.fromkeys(("short", "few", "brief", "rare"), ("pauses", -1)),
    },
    "voice": {
        **dict.fromkeys(("high", "shrill", "squeak"), ("pitch", 1)),
        **dict.fromkeys(("=low", "=lower", "deep", "low-pitched"), ("pitch", -1)),
        **dict.fromkeys(
            ("loud", "rais", "strong", "powerful", "boom", "forceful"), ("loudness", 1)
        ),
        **dict.fromkeys(
            ("soft", "quiet", "faint", "hush", "weak", "subdued", "lowered"), ("loudness", -1)
        ),
        **dict.fromkeys(("fast", "quick", "rapid", "hurri", "rush", "brisk"), ("rate", 1)),
        **dict.fromkeys(("slow", "drawn out", "drawn-out", "sluggish", "unhurried"), ("rate", -1)),
        **dict.fromkeys(("lively", "varied", "animat", "melod", "expressive"), ("pitch_range", 1)),
        **dict.fromkeys(("flat", "monoton"), ("pitch_range", -1)),
        **dict.fromkeys(("halting", "hesita", "broken"), ("pauses", 1)),
        **dict.fromkeys(("fluent", "flow", "uninterrupted"), ("pauses", -1)),
        **dict.fromkeys(("breath", "airy", "whispery"), ("breathiness", 1)),
        **dict.fromkeys(("clear",), ("breathiness", -1)),
        **dict.fromkeys(
            ("tens", "sharp", "strain", "harsh", "tight", "bright", "strident", "hard"),
            ("tension", 1),
        ),
        **dict.fromkeys(("=lax", "dull", "mellow", "muffled", "relax"), ("tension", -1)),
        **dict.fromkeys(
            ("trembl", "shak", "quaver", "quiver", "waver", "unsteady", "wobbl"), ("tremor", 1)
        ),
        **dict.fromkeys(
            ("=even", "ordinary", "=usual", "normal", "neutral", "calm", "=level"), ("prosody", 0)
        ),
        **dict.fromkeys(("silent", "not heard", "inaudible", "not audible"), ("hidden", 1)),
    },
}

# What needs no part beside it.
_ALONE: Final[dict[str, tuple[Modality, Sense]]] = {
    **dict.fromkeys(("smil", "grin"), ("face", ("lip_corners_up", 1))),
    **dict.fromkeys(("frown", "scowl"), ("face", ("brows_lowered", 1))),
    **dict.fromkeys(("sneer",), ("face", ("upper_lip_raised", 1))),
    **dict.fromkeys(("smirk", "dimple"), ("face", ("lip_corner_dimpled", 1))),
    **dict.fromkeys(("=tears", "tearful"), ("face", ("tears", 1))),
    **dict.fromkeys(("wide-eyed",), ("face", ("eyes_widened", 1))),
    **dict.fromkeys(("high-pitched",), ("voice", ("pitch", 1))),
    **dict.fromkeys(("low-pitched", "deep-pitched"), ("voice", ("pitch", -1))),
    **dict.fromkeys(("shout", "yell", "scream"), ("voice", ("loudness", 1))),
    **dict.fromkeys(("whisper", "murmur", "mutter"), ("voice", ("loudness", -1))),
    **dict.fromkeys(("monoton",), ("voice", ("pitch_range", -1))),
    **dict.fromkeys(("laugh", "chuckl", "giggl"), ("voice", ("laughter", 1))),
    **dict.fromkeys(("=cries", "crying", "sob"), ("voice", ("crying", 1))),
    **dict.fromkeys(("sigh",), ("voice", ("sighing", 1))),
    **dict.fromkeys(
        ("only noise", "only silence", "no voice", "no speech", "just noise"),
        ("voice", ("hidden", 1)),
    ),
    **dict.fromkeys(("no face",), ("face", ("hidden", 1))),
    **dict.fromkeys(("no pauses", "without pauses"), ("voice", ("pauses", -1))),
    **dict.fromkeys(("expressionless", "no expression"), ("face", ("expression", 0))),
}


_NAMES = sorted(
    ((name.split(), part) for part, (_, names) in PARTS.items() for name in names),
    key=lambda item: -len(item[0]),
)
# "wide open" before "wide", "drawn out" before "drawn".
_SAID_LONGEST_FIRST = {
    part: sorted(entries, key=lambda e: -len(e)) for part, entries in SAID.items()
}


@dataclass(frozen=True, slots=True)
class Word:
    """A word or comma in lower case, and where it stands: characters [start, end)."""

    text: str
    start: int
    end: int


def extract_claims(text: str) -> list[Claim]:
    """Find what a text says of face and voice, each thing once, as `training.claims.extract` does.

    Args:
        text: Free text; case does not matter.

    Returns:
        Claims in text order, deduplicated by meaning; a span covers the describing words only.
    """
    return deduplicate(statements(text))


def statements(text: str) -> list[Claim]:
    """The same with what is said again, in text order."""
    return [claim for words in sentences(text) for claim in _read(words)]


def sentences(text: str) -> list[list[Word]]:
    """The words of each sentence, or part of one that stands against another."""
    words = [Word(m[0].lower().replace("’", "'"), *m.span()) for m in _TOKEN.finditer(text)]
    out: list[list[Word]] = [[]]
    for word in words:
        if word.text in _STOPS or word.text in ("but", "while", "whereas"):
            out.append([])
        else:
            out[-1].append(word)
    return [sentence for sentence in out if sentence]


def _read(words: list[Word]) -> list[Claim]:
    parts = name_parts(words)
    claims = []
    index = 0
    while index < len(words):
        index_next, found = index + 1, None
        if index not in parts:
            found = _standing_alone(words, index) or _said_of_part(words, parts, index)
        if found:
            modality, (cue, direction), length = found
            index_next = index + length
            last = words[index_next - 1]
            claims.append(
                Claim(
                    modality,
                    cue,
                    direction,
                    _denied(words, index),
                    (words[index].start, last.end),
                )
            )
        index = index_next
    return claims


def name_parts(words: list[Word]) -> dict[int, str]:
    """Map each word of a part's name to the part; the longest name at a place wins."""
    texts = [word.text for word in words]
    parts: dict[int, str] = {}
    for name, part in _NAMES:
        if name[0] not in texts:
            continue
        for i in range(len(words) - len(name) + 1):
            place = range(i, i + len(name))
            if texts[i : place.stop] == name and not parts.keys() & set(place):
                parts |= dict.fromkeys(place, part)
    return parts


def _standing_alone(words: list[Word], index: int) -> tuple[Modality, Sense, int] | None:
    for entry, (modality, sense) in _ALONE.items():
        if length := match_length(words, index, entry):
            return modality, sense, length
    return None


def _said_of_part(
    words: list[Word], parts: dict[int, str], index: int
) -> tuple[Modality, Sense, int] | None:
    for part in _topics(words, parts, index):
        for entry in _SAID_LONGEST_FIRST[part]:
            if length := match_length(words, index, entry):
                return PARTS[part][0], SAID[part][entry], length
    return None


def _topics(words: list[Word], parts: dict[int, str], index: int) -> list[str]:
    """Parts that the word at `index` may describe, likeliest first: none of another modality."""
    before = next((parts[i] for i in range(index - 1, -1, -1) if i in parts), None)
    after = None
    for i in range(index + 1, min(index + 5, len(words))):
        if i in parts:
            after = parts[i]
            break
        if words[i].text in COPULAS:
            break
    order = [after, before] if _attributive(words, parts, index) else [before, after]
    found = [part for part in order if part is not None]
    return [part for part in found if PARTS[part][0] == PARTS[found[0]][0]]


def _attributive(words: list[Word], parts: dict[int, str], index: int) -> bool:
    """Whether the word belongs to what follows: "tight lips", "a low, soft voice", "raising her …"."""
    if index + 1 in parts:
        return True
    if words[index].text.endswith("ing") and index + 2 in parts:
        return words[index + 1].text in DETERMINERS
    return index > 0 and words[index - 1].text in DETERMINERS


def match_length(words: list[Word], index: int, entry: str) -> int:
    """How many words the entry matches at `index`; 0 if it does not."""
    wanted = _split(entry)
    for at, pattern in enumerate(wanted, index):
        if at == len(words):
            return 0
        text = words[at].text
        if not (text == pattern[1:] if pattern[0] == "=" else text.startswith(pattern)):
            return 0
    return len(wanted)


@cache
def _split(entry: str) -> list[str]:
    return entry.split()


def _denied(words: list[Word], index: int) -> bool:
    """Whether a denial stands before the word with nothing but fillers or a list between them."""
    for i in range(index - 1, max(index - 7, -1), -1):
        text = words[i].text
        if text in DENIALS:
            return not (i + 1 < len(words) and words[i + 1].text in ("only", "just"))
        if text in _BREAKS:
            return False
    return False

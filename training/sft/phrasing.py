"""What a careful person would write: one sentence for a face, one for a voice, and how the two go together.

Claims keep their order, face from the brows down, voice from pitch to tremor, and each is read back by both lexicons.
What is said of one thing is said together ("the pitch is high and varied"), no word is used twice for different things
where another will do, and a verb that a list shares is not said again ("the brows are lowered, the eyes narrowed").
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from training.claims.claim import EXPRESSION, HIDDEN, PROSODY
from training.claims.wordings import SURFACE
from training.data.cues import Cues, Modality

Claimed = tuple[Modality, str, int]

#: Things that a voice is spoken of by, each with what is said of it, in the order of the dimensions.
_TOPICS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("pitch", ("pitch", "pitch_range")),
    ("speech", ("loudness", "rate", "pauses")),
    ("voice", ("breathiness", "tension", "tremor")),
)
_WORDS: Final[dict[tuple[str, int], tuple[str, ...]]] = {
    ("pitch", 1): ("high", "raised"),
    ("pitch", -1): ("low",),
    ("pitch_range", 1): ("varied", "lively"),
    ("pitch_range", -1): ("flat",),
    ("loudness", 1): ("loud",),
    ("loudness", -1): ("soft", "quiet"),
    ("rate", 1): ("fast", "quick"),
    ("rate", -1): ("slow", "unhurried"),
    ("pauses", 1): ("halting",),
    ("pauses", -1): ("fluent",),
    ("breathiness", 1): ("breathy", "airy"),
    ("breathiness", -1): ("clear",),
    ("tension", 1): ("tense", "sharp"),
    ("tension", -1): ("mellow", "dull"),
    ("tremor", 1): ("shaky", "unsteady"),
}
_AT_REST: Final[dict[Modality, tuple[str, ...]]] = {
    "face": ("The face is at rest", "The face is relaxed", "The face stays still"),
    "voice": ("The voice is even", "The voice stays level", "The voice is ordinary"),
}
_UNSEEN: Final[dict[Modality, tuple[str, ...]]] = {
    "face": ("The face is hidden", "The face is not visible"),
    "voice": ("No voice is heard", "The voice is not heard", "The voice is silent"),
}
#: Of two actions of one thing: the words for the first that would deny the second.
_BESIDE: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("brows_lowered", "brows_raised"): ("lowered",),
    ("eyes_narrowed", "eyes_widened"): ("narrowed",),
}
#: How face and voice go together. None of them is a claim about either.
_AGREE: Final = (
    "The two agree.",
    "Face and voice agree.",
    "Both say the same.",
    "Both point the same way.",
)
_DIFFER: Final = {
    "face": ("They do not agree; the face says more.", "The two differ, and the face says more."),
    "voice": ("They do not agree; the voice says more.", "The two differ, and the voice says more."),
}  # fmt: skip
_ALONE: Final = {
    "face": ("So it is the face that counts.", "What counts is the face."),
    "voice": ("So it is the voice that counts.", "What counts is the voice."),
}


def sentence(modality: Modality, claimed: Sequence[Claimed], rng: np.random.Generator) -> str:
    """One sentence that makes these claims, in their order.

    Args:
        modality: What they are about.
        claimed: One or more of `SURFACE`, in the order of the dimensions.
        rng: Chooses words.
    """
    cue = claimed[0][1]
    if cue in (EXPRESSION, PROSODY):
        return f"{_one(_AT_REST[modality], rng)}."
    if cue == HIDDEN:
        return f"{_one(_UNSEEN[modality], rng)}."
    words = _face(claimed, rng) if modality == "face" else _voice(claimed, rng)
    return f"{words[0].upper()}{words[1:]}."


def together(cues: Cues, spoken: Sequence[Modality], rng: np.random.Generator) -> str:
    """How face and voice go together; empty where only one is spoken of, or neither tells anything.

    Args:
        cues: Of the clip.
        spoken: What the sentences are about.
        rng: Chooses words.
    """
    if len(spoken) < 2:
        return ""
    tells = {"face": cues.informative.video, "voice": cues.informative.audio}
    if all(tells.values()):
        return _one(_AGREE, rng)
    if not any(tells.values()):
        return ""
    telling: Modality = "face" if tells["face"] else "voice"
    silent: Modality = "voice" if tells["face"] else "face"
    shows = any(modality == silent for modality, _, _ in cues.salient())
    return _one((_DIFFER if shows else _ALONE)[telling], rng)


def _face(claimed: Sequence[Claimed], rng: np.random.Generator) -> str:
    kind = int(rng.integers(3))
    if kind == 0:
        return _joined(_clauses(claimed, rng))
    nouns = _different(_options(claimed, "nouns"), rng)
    if kind == 1:
        return f"{_one(('the face shows', 'we see'), rng)} {_joined(nouns)}"
    if len(claimed) == 1:
        return f"there {'are' if _plural(nouns[0]) else 'is'} {nouns[0]} to be seen"
    most = _clauses(claimed[:-1], rng)
    used = set().union(*map(_content, most))
    last = min(_options(claimed, "nouns")[-1], key=lambda noun: len(_content(noun) & used))
    return f"{_joined(most)}, with {last}"


def _options(claimed: Sequence[Claimed], kind: str) -> list[list[str]]:
    """Wordings of each claim that leave the others true."""
    cues = {cue for _, cue, _ in claimed}
    out = []
    for key in claimed:
        no = [
            w for (cue, other), ws in _BESIDE.items() if cue == key[1] and other in cues for w in ws
        ]
        out.append(
            [text for text in getattr(SURFACE[key], kind) if not set(no) & set(text.split())]
        )
    return out


def _voice(claimed: Sequence[Claimed], rng: np.random.Generator) -> str:
    said = {cue: _one(_WORDS[cue, way], rng) for _, cue, way in claimed}
    about = [
        (topic, [said[cue] for cue in cues if cue in said])
        for topic, cues in _TOPICS
        if any(cue in said for cue in cues)
    ]
    # Three adjectives before a noun are a list, not a sentence.
    if rng.random() < 0.4 and max(len(words) for _, words in about) < 3:
        nouns = [
            f"{'' if topic == 'speech' else _article(words[0])}{_pair(words)} {topic}"
            for topic, words in about
        ]
        return f"we hear {_joined(nouns)}"
    shared = rng.random() < 0.5 and max(len(words) for _, words in about) == 1
    clauses = [
        f"the {topic} {'' if shared and place else 'is '}{_joined(words)}"
        for place, (topic, words) in enumerate(about)
    ]
    return _joined(clauses)


def _clauses(claimed: Sequence[Claimed], rng: np.random.Generator) -> list[str]:
    """A clause for each claim, or for two neighbours that are of one thing: "the brows are raised and furrowed".

    A verb that two neighbours share is left out of the second half of the time.
    """
    out: list[str] = []
    shared = rng.random() < 0.5
    verb = ""
    for clause in _different(_options(claimed, "clauses"), rng):
        own = next((v for v in (" are ", " is ") if v in clause), "")
        thing, _, rest = clause.partition(own or " ")
        if own and out and out[-1].startswith(f"{thing} ") and " and " not in out[-1]:
            out[-1] += f" and {rest}" if own == verb else f" and{own}{rest}"
        else:
            alike = shared and own and own == verb and " and " not in out[-1]
            out.append(f"{thing} {rest}" if alike else clause)
        verb = own
    return out


def _different(options: Sequence[Sequence[str]], rng: np.random.Generator) -> list[str]:
    """One of each, words of the others avoided where there is a choice."""
    out: list[str] = []
    used: set[str] = set()
    for several in options:
        order = [several[at] for at in rng.permutation(len(several))]
        chosen = min(order, key=lambda text: len(_content(text) & used))
        used |= _content(chosen)
        out.append(chosen)
    return out


def _content(text: str) -> set[str]:
    return {word for word in text.split() if word not in ("the", "a", "is", "are", "up", "down")}


def _one(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _joined(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    comma = "," if any(" and " in part for part in parts) else ""
    return f"{', '.join(parts[:-1])}{comma} and {parts[-1]}"


def _pair(words: Sequence[str]) -> str:
    """Adjectives before a noun: "high, varied"."""
    return ", ".join(words)


def _article(word: str) -> str:
    return "an " if word[0] in "aeiou" else "a "


def _plural(noun: str) -> bool:
    return not noun.startswith("a ")

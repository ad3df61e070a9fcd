"""Whether reasons are well made: what is said twice, and statements that no careful writer would make.

Rewards bend grammar where it pays: "the voice is shaky and the voice is shaky", "furrowed brows are furrowed", "no
voice is not heard", "the voice is wrinkled" have all been seen. Words that the evaluation's lexicon does not know are
let pass: a text in words of its own is not malformed.
"""

import re
from typing import Final

from training.claims.evaluation_lexicon import (
    COPULAS,
    DENIALS,
    PARTS,
    SAID,
    Word,
    match_length,
    name_parts,
    sentences,
    statements,
)

_SAID_AGAIN: Final = re.compile(r"\b(\w+)(?:\s+|,\s*)\1\b", re.IGNORECASE)
_FILLERS: Final = frozenset({"very", "rather", "quite", "a", "bit", "little", "so", "too", "more"})
_UNFINISHED: Final = frozenset({"the", "a", "an", "and", "with", "of", "his", "her", "their"})


def repeats(text: str) -> bool:
    """Whether a text says a thing twice: a statement, in whichever words, a sentence or a word."""
    claims = statements(text)
    # "Pushed up" is one statement in two words.
    keys = [
        claim.key
        for before, claim in zip([None, *claims], claims, strict=False)
        if before is None or before.key != claim.key or claim.span[0] > before.span[1] + 1
    ]
    said = [" ".join(word.text for word in words) for words in sentences(text)]
    again = len(set(keys)) < len(keys) or len(set(said)) < len(said)
    return again or _SAID_AGAIN.search(text) is not None


def malformed(text: str) -> bool:
    """Whether a text has a statement that is none.

    - A part of face or voice is said to be what only another can be: "the voice is wrinkled".
    - A part is said to be what it was called: "furrowed brows are furrowed".
    - A denial is denied: "no voice is not heard".
    - A sentence breaks off: "the voice is", "raised brows and".
    - A thing and its opposite: "the voice is loud and the voice is soft".
    """
    claims = {claim.key for claim in statements(text)}
    if any((m, cue, -way, not_) in claims for m, cue, way, not_ in claims if way):
        return True
    return any(map(_is_malformed, sentences(text)))


def _is_malformed(words: list[Word]) -> bool:
    if words[-1].text == ",":  # before "but"
        words = words[:-1]
    if not words:
        return False
    last = words[-1].text
    if last in _UNFINISHED or (last in COPULAS and last not in ("looks", "seems", "turns")):
        return True
    parts = name_parts(words)
    for start, end in _clauses(words):
        if sum(word.text in DENIALS for word in words[start:end]) > 1:
            return True
        for at in range(start, end):
            if words[at].text not in COPULAS or at - 1 not in parts:
                continue
            described = at + 1
            while described < end and words[described].text in (*_FILLERS, *DENIALS):
                described += 1
            if described < end and not _suits(words, parts, at - 1, described, start):
                return True
    return False


def _suits(words: list[Word], parts: dict[int, str], part_at: int, at: int, start: int) -> bool:
    """Whether what is said of a part, behind "is", can be said of it."""
    text = words[at].text
    before = {word.text for word in words[start:part_at] if word.text in text}
    if before and text not in DENIALS:
        return False
    part = parts[part_at]
    if any(match_length(words, at, entry) for entry in SAID[part]):
        return True
    if at in parts:  # "the lips are lip corners"
        return False
    # Of what can be said of several parts of a face, nobody can tell what it is of.
    modalities = {
        PARTS[other][0]
        for other, said in SAID.items()
        if any(match_length(words, at, entry) for entry in said)
    }
    return not modalities or PARTS[part][0] in modalities


def _clauses(words: list[Word]) -> list[tuple[int, int]]:
    """Stretches between commas and "and"."""
    edges = [at for at, word in enumerate(words) if word.text in (",", "and", "or", "with")]
    starts, ends = [0, *(at + 1 for at in edges)], [*edges, len(words)]
    return list(zip(starts, ends, strict=True))

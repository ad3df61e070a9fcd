"""Claims out of free text: subjects and predicates of the lexicon, bound within a clause."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from training.claims.claim import Claim, deduplicate
from training.claims.lexicon import PHRASES, PREDICATES, SUBJECTS, Meaning
from training.data.cues import Modality

# A statement does not reach across these; commas and "and" it may cross, at a price.
_CLAUSE_END: Final = re.compile(
    r"[.;:!?\n]+|\b(?:but|while|whereas|although|though|however|yet|because)\b", re.IGNORECASE
)
_WORD: Final = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|,")
_REACH: Final = 16
_PRICE: Final = {",": 3, "and": 2, "or": 2, "with": 2}
# Words that join subjects into one: "the brows and the cheeks are raised".
_LINK: Final = re.compile(
    r"\s*(?:,|,?\s*and|,?\s*or|&)\s*(?:(?:the|his|her|their|both)\s+)?", re.IGNORECASE
)
_NEGATOR: Final = re.compile(
    r"\b(?:not|never|no|without|neither|nor|cannot|lacks?|lacking|absence\s+of|\w+n['’]t|"
    r"rather\s+than|instead\s+of|fails?\s+to|nothing)\b(?!\s+(?:only|just|merely|simply)\b)",
    re.IGNORECASE,
)
# "raised brows are missing": said of what stands right before it.
_NEGATED_AFTER: Final = re.compile(
    r"\s+(?:is|are|was|were)\s+(?:absent|missing|lacking|"
    r"not\s+(?:seen|visible|heard|audible|present|there))\b",
    re.IGNORECASE,
)
_NEGATION_ENDS: Final = re.compile(r",(?!\s*(?:n?or)\b)|\band\b|\bwith\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Subject:
    name: str
    modality: Modality
    start: int
    end: int


def extract_claims(text: str) -> list[Claim]:
    """Find what a text says of face and voice, each thing once.

    Args:
        text: Free text; case does not matter.

    Returns:
        Claims in text order, deduplicated by meaning. A claim's span covers the words that say it,
        its negation not included.
    """
    claims: list[Claim] = []
    for start, end in _clauses(text):
        claims += _claims_of_clause(text, start, end)
    return deduplicate(claims)


def _clauses(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _CLAUSE_END.finditer(text):
        yield start, match.start()
        start = match.end()
    yield start, len(text)


def _claims_of_clause(text: str, start: int, end: int) -> Iterator[Claim]:
    taken: list[tuple[int, int]] = []
    for match, modality, meaning in _phrases(text, start, end):
        if not _overlaps(match.span(), taken):
            taken.append(match.span())
            yield _claim(text, start, end, modality, meaning, *match.span())
    subjects = [s for s in _subjects(text, start, end) if not _overlaps((s.start, s.end), taken)]
    spans = taken + [(s.start, s.end) for s in subjects]
    for match, meanings in _predicates(text, start, end):
        if _overlaps(match.span(), spans):
            continue
        # Of two predicates at one place the first match is the longest; it is the one that counts.
        spans.append(match.span())
        subject = _bind(text, subjects, meanings, *match.span())
        if subject is None:
            continue
        for member in _group(text, subjects, subject):
            if member.name in meanings:
                low = min(member.start, match.start())
                high = max(member.end, match.end())
                yield _claim(
                    text,
                    start,
                    end,
                    member.modality,
                    meanings[member.name],
                    low,
                    high,
                    said_at=match.span(),
                )


def _bind(
    text: str, subjects: list[_Subject], meanings: dict[str, Meaning], start: int, end: int
) -> _Subject | None:
    """Find the nearest subject that the predicate suits.

    There is none where one of the other modality is nearer: "quivering lips and a loud voice" must
    not make the voice quiver, nor may "tense" in "the brows are tense" go looking for a voice.
    """
    ranked = sorted(
        subjects, key=lambda s: (_distance(text, s, start, end), s.name not in meanings)
    )
    fitting = next((s for s in ranked if s.name in meanings), None)
    if fitting is None or _distance(text, fitting, start, end) > _REACH:
        return None
    nearest = ranked[0]
    return fitting if nearest.modality == fitting.modality else None


def _distance(text: str, subject: _Subject, start: int, end: int) -> int:
    between = text[subject.end : start] if subject.end <= start else text[end : subject.start]
    return sum(_PRICE.get(word.lower(), 1) for word in _WORD.findall(between))


def _group(text: str, subjects: list[_Subject], subject: _Subject) -> list[_Subject]:
    """Return the subjects that are joined to this one by nothing but "and", "or" or commas."""
    ordered = sorted(subjects, key=lambda s: s.start)
    index = ordered.index(subject)
    group = [subject]
    for i in range(index - 1, -1, -1):
        if not _LINK.fullmatch(text, ordered[i].end, ordered[i + 1].start):
            break
        group.insert(0, ordered[i])
    for i in range(index + 1, len(ordered)):
        if not _LINK.fullmatch(text, ordered[i - 1].end, ordered[i].start):
            break
        group.append(ordered[i])
    return group


def _claim(
    text: str,
    clause_start: int,
    clause_end: int,
    modality: Modality,
    meaning: Meaning,
    start: int,
    end: int,
    *,
    said_at: tuple[int, int] | None = None,
) -> Claim:
    said_start, said_end = said_at or (start, end)
    negated = _negated(text, clause_start, said_start) or bool(
        _NEGATED_AFTER.match(text, max(said_end, end), clause_end)
    )
    return Claim(modality, meaning.cue, meaning.direction, negated != meaning.negated, (start, end))


def _negated(text: str, clause_start: int, said_start: int) -> bool:
    """Whether a negator before the words still holds there."""
    last = None
    for last in _NEGATOR.finditer(text, clause_start, said_start):  # noqa: B007 - the last one counts
        pass
    if last is None:
        return False
    between = text[last.end() : said_start]
    return not _NEGATION_ENDS.search(between) and len(_WORD.findall(between)) <= 6


def _overlaps(span: tuple[int, int], others: list[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{pattern})(?!\w)", re.IGNORECASE)


def _phrases(text: str, start: int, end: int) -> Iterator[tuple[re.Match[str], Modality, Meaning]]:
    found = [
        (match, modality, meaning)
        for pattern, modality, meaning in PHRASES
        for match in _compiled(pattern).finditer(text, start, end)
    ]
    yield from sorted(found, key=lambda f: (f[0].start(), -f[0].end()))


def _predicates(
    text: str, start: int, end: int
) -> Iterator[tuple[re.Match[str], dict[str, Meaning]]]:
    """Yield predicates, longest first where they overlap, the meanings of equal spans together."""
    found: dict[tuple[int, int], tuple[re.Match[str], dict[str, Meaning]]] = {}
    for pattern, meanings in PREDICATES:
        for match in _compiled(pattern).finditer(text, start, end):
            known = found.get(match.span(), (match, {}))[1]
            found[match.span()] = (match, {**meanings, **known})
    yield from sorted(found.values(), key=lambda f: (f[0].start() - f[0].end(), f[0].start()))


def _subjects(text: str, start: int, end: int) -> list[_Subject]:
    found = [
        _Subject(name, modality, *match.span())
        for name, (modality, pattern) in SUBJECTS.items()
        for match in _compiled(pattern).finditer(text, start, end)
    ]
    subjects: list[_Subject] = []
    for subject in sorted(found, key=lambda s: (s.start - s.end, s.start)):
        if not _overlaps((subject.start, subject.end), [(s.start, s.end) for s in subjects]):
            subjects.append(subject)
    return sorted(subjects, key=lambda s: s.start)

r"""Writing and strictly reading an answer, `<think>…</think>\n<answer>…</answer>`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from emostream.errors import InputError
from emostream.labels import DEFAULT_LABELS, OTHER, canonical_label

_TAGS: Final = ("<think>", "</think>", "<answer>", "</answer>")
_TAG: Final = re.compile(r"</?(?:think|answer)>")
_NO_TAG: Final = r"(?:(?!</?(?:think|answer)>).)"
_WELL_FORMED: Final = re.compile(
    rf"<think>({_NO_TAG}*)</think>\n<answer>({_NO_TAG}*)</answer>", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a completion says.

    Attributes:
        think: The reasoning, stripped; what there is of it so far if its tag is not closed yet.
        answer: The text of the one closed answer, stripped; None if there is none, or more than
            one.
        label: A member of the label set, `"other"` for an answer outside it, None if there is no
            answer.
        well_formed: The whole text is one think and one non-empty answer in the trained form, and
            nothing else. For a bare answer: it is non-empty text without tags.
    """

    think: str
    answer: str | None
    label: str | None
    well_formed: bool


def compose_answer(think: str, answer: str) -> str:
    """Write a completion in the trained form; `parse_answer` inverts it up to outer whitespace.

    Raises:
        InputError: A part holds a tag, or the answer is empty: the result would not parse.
    """
    for name, part in (("think", think), ("answer", answer)):
        if found := _TAG.search(part):
            raise InputError(
                f"compose_answer: {name} holds the tag {found[0]}; wanted text without tags"
            )
    if not answer.strip():
        raise InputError("compose_answer: the answer is empty; wanted a label or a phrase")
    return f"<think>{think}</think>\n<answer>{answer}</answer>"


def parse_answer(
    text: str, labels: Sequence[str] = DEFAULT_LABELS, *, bare: bool = False
) -> Answer:
    """Read a completion, whole or still being written.

    Nothing is repaired: an answer counts only where both its tags are there, once. The caller
    decodes without special tokens; a partly written tag at the end of a stream is not shown as
    reasoning.

    Args:
        text: The completion.
        labels: The label set to map the answer into.
        bare: A text without any tag is the answer itself (label-only checkpoints).
    """
    if match := _WELL_FORMED.fullmatch(text):
        answer = match[2].strip() or None
        return Answer(match[1].strip(), answer, _label(answer, labels), answer is not None)
    if bare and not _TAG.search(text):
        answer = text.strip() or None
        return Answer("", answer, _label(answer, labels), answer is not None)
    answer = _single_answer(text)
    return Answer(_think_so_far(text), answer, _label(answer, labels), False)


def _label(answer: str | None, labels: Sequence[str]) -> str | None:
    if answer is None:
        return None
    return canonical_label(answer, labels) or OTHER


def _single_answer(text: str) -> str | None:
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    start, end = text.index("<answer>") + len("<answer>"), text.index("</answer>")
    inside = text[start:end]  # empty too when the closing tag comes first
    return None if _TAG.search(inside) else inside.strip() or None


def _think_so_far(text: str) -> str:
    _, opened, rest = text.partition("<think>")
    if not opened:
        return ""
    if end := _TAG.search(rest):
        return rest[: end.start()].strip()
    return _without_partial_tag(rest).strip()


def _without_partial_tag(text: str) -> str:
    start = text.rfind("<")
    if start >= 0 and any(tag.startswith(text[start:]) for tag in _TAGS):
        return text[:start]
    return text

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emostream.answers import Answer, compose_answer, parse_answer
from emostream.errors import InputError
from emostream.labels import MAFW_LABELS

GOOD = "<think>The brows are drawn together.</think>\n<answer>angry</answer>"


def test_a_well_formed_answer():
    assert parse_answer(GOOD) == Answer("The brows are drawn together.", "angry", "angry", True)


def test_an_empty_think_is_well_formed_and_an_empty_answer_is_not():
    assert parse_answer("<think></think>\n<answer>sad</answer>") == Answer("", "sad", "sad", True)
    assert parse_answer("<think>a</think>\n<answer> </answer>") == Answer("a", None, None, False)


def test_reasoning_may_span_lines_and_hold_other_markup():
    text = "<think>a < b\n<b>c</b></think>\n<answer>Fearful.</answer>"
    assert parse_answer(text) == Answer("a < b\n<b>c</b>", "Fearful.", "fear", True)


def test_an_answer_outside_the_label_set_is_other():
    text = "<think>x</think>\n<answer>contempt</answer>"
    assert parse_answer(text) == Answer("x", "contempt", "other", True)
    assert parse_answer(text, MAFW_LABELS) == Answer("x", "contempt", "contemptuous", True)


@pytest.mark.parametrize(
    ("text", "think", "answer"),
    [
        ("", "", None),
        ("angry", "", None),
        (GOOD + "\n", "The brows are drawn together.", "angry"),
        (" " + GOOD, "The brows are drawn together.", "angry"),
        (GOOD.replace("\n", ""), "The brows are drawn together.", "angry"),
        (GOOD.replace("\n", "\n\n"), "The brows are drawn together.", "angry"),
        (GOOD.upper(), "", None),
        ("<answer>sad</answer>", "", "sad"),
        ("<think>a</think>\n<answer>sad", "a", None),
        ("<think>a</think>\nsad</answer>", "a", None),
        ("</answer><answer>", "", None),
        ("<think>a</think>", "a", None),
        # Nested and repeated tags: what the answer is would be a guess.
        ("<think>a</think>\n<answer>sad</answer><answer>happy</answer>", "a", None),
        ("<think>a<answer>sad</answer></think>\n<answer>happy</answer>", "a", None),
        ("<think>a</think>\n<answer><answer>sad</answer></answer>", "a", None),
        ("<think>a</think>\n<answer><think>sad</think></answer>", "a", None),
        ("<think><think>a</think></think>\n<answer>sad</answer>", "", "sad"),
        ("<think>a</think><think>b</think>\n<answer>sad</answer>", "a", "sad"),
        ("<think>a <answer>sad</answer>", "a", "sad"),
    ],
)
def test_malformed_answers(text, think, answer):
    parsed = parse_answer(text)
    assert (parsed.think, parsed.answer, parsed.well_formed) == (think, answer, False)
    assert (parsed.label is None) == (answer is None)


def test_a_stream_never_shows_a_tag_and_only_grows():
    shown = [parse_answer(GOOD[:n]) for n in range(len(GOOD) + 1)]
    for before, after in itertools.pairwise(shown):
        assert after.think.startswith(before.think)
        assert "<" not in after.think
    assert [parsed.label for parsed in shown] == [None] * len(GOOD) + ["angry"]


def test_a_lone_less_than_sign_in_the_reasoning_is_kept_once_it_cannot_be_a_tag():
    assert parse_answer("<think>a <").think == "a"
    assert parse_answer("<think>a < b").think == "a < b"


def test_bare_answers_only_where_asked_for():
    assert parse_answer("Sad.\n", bare=True) == Answer("", "Sad.", "sad", True)
    assert parse_answer("gloomy", bare=True) == Answer("", "gloomy", "other", True)
    assert parse_answer(" \n", bare=True) == Answer("", None, None, False)
    assert parse_answer("Sad.").label is None
    assert parse_answer(GOOD, bare=True) == parse_answer(GOOD)
    assert parse_answer("<answer>sad", bare=True) == Answer("", None, None, False)


def test_composing_refuses_what_would_not_parse():
    with pytest.raises(InputError, match="think holds the tag </think>"):
        compose_answer("a</think>b", "sad")
    with pytest.raises(InputError, match="answer is empty"):
        compose_answer("a", " ")


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_parse_is_the_inverse_of_compose(think, answer):
    try:
        text = compose_answer(think, answer)
    except InputError:
        return
    parsed = parse_answer(text)
    assert (parsed.think, parsed.answer, parsed.well_formed) == (
        think.strip(),
        answer.strip(),
        True,
    )


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "sad", "\n"])))
def test_any_arrangement_of_tags_parses_without_guessing(parts):
    text = "".join(parts)
    parsed = parse_answer(text)
    if parsed.answer is not None:
        assert text.count("<answer>") == text.count("</answer>") == 1
    if parsed.well_formed:
        assert text == compose_answer(
            text.split("</think>")[0].removeprefix("<think>"),
            text.split("<answer>")[1].removesuffix("</answer>"),
        )

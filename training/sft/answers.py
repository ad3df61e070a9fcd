"""What a clip's answer should read: the completions that supervised fine-tuning trains."""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from emostream.answers import compose_answer
from emostream.errors import InputError
from emostream.model.configuration import AnswerStyle
from training.data.manifest import Key, Row, clip_key
from training.sft.compose import Claimed, compose

Answers = Literal["reasoned", "label"]


class AnswerWriter:
    r"""Completions of a row's prompt; there may be several, which are trained behind one copy of it.

    A reasoned answer is composed from the row's cues, in other words each time, or else takes the row's own reason.
    Label-first answers have an empty think, `<think></think>\n<answer>label</answer>`: the form that label scoring
    asks for.

    Args:
        answers: `reasoned`, or `label` for the label alone.
        style: `reasoned` or `bare`, in which label answers carry no tags.
        label_first: Share of clips that are asked for the label first as well.
        wordings: Reasoned answers of one clip, where they can be worded anew.
        clear: Clip -> its marked cues that can be told (`training.sft.clarity`); the reasons mention no others.
    """

    def __init__(
        self,
        answers: Answers = "reasoned",
        style: AnswerStyle = "reasoned",
        *,
        label_first: float = 0.25,
        wordings: int = 1,
        clear: Mapping[Key, Collection[Claimed]] | None = None,
    ):
        self._answers = answers
        self._style = style
        self._label_first = label_first
        self._wordings = wordings
        self._clear = clear or {}

    def problem(self, row: Row) -> str | None:
        """Why a row gives nothing to train on; None if it does."""
        if _answer(row) is None:
            return "neither a label nor an answer"
        try:
            self.write(row, np.random.default_rng(0))
        except InputError as error:
            return str(error)
        return None

    def adapts(self, row: Row) -> bool:
        """Whether the row's answers can be written for one modality alone: a reason on file speaks of both."""
        return self._answers == "label" or row.cues is not None or row.reason is None

    def write(
        self, row: Row, rng: np.random.Generator, *, video: bool = True, audio: bool = True
    ) -> list[str]:
        """One or more different completions, without the end of the turn.

        Args:
            row: The clip.
            rng: Chooses words, and whether the label is asked for first.
            video: Whether the model is shown pictures.
            audio: Whether it is given sound.
        """
        answer = _answer(row)
        assert answer is not None
        if self._style == "bare":
            return [answer]
        first = compose_answer("", answer)
        if self._answers == "label":
            return [first]
        asked_first = rng.random() < self._label_first
        thinks = self._thinks(row, rng, video=video, audio=audio)
        reasoned = [compose_answer(think, answer) for think in thinks]
        return [*reasoned, first] if asked_first or not reasoned else reasoned

    def _thinks(self, row: Row, rng: np.random.Generator, *, video: bool, audio: bool) -> list[str]:
        texts = []
        if row.cues is not None:
            clear = self._clear.get(clip_key(row))
            texts = [
                compose(row.cues, rng, video=video, audio=audio, clear=clear)
                for _ in range(self._wordings)
            ]
        texts = [text for text in dict.fromkeys(texts) if text]
        return texts or ([row.reason] if row.reason and row.cues is None else [])


def _answer(row: Row) -> str | None:
    """The label, or the corpus's own words where it has none."""
    return row.label or row.answer

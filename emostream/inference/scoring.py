r"""Label scores from one forward pass: every candidate answer is a path in one token tree.

Candidates share their beginning (`<think></think>\n<answer>`) and often more, so they are laid out as the common prefix
followed by a tree, each token seeing its own ancestors only. A whole label list then costs one pass over a few dozen
tokens behind the prompt, whatever its length, and leaves the prompt's KV as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emostream.answers import compose_answer
from emostream.errors import ConfigError
from emostream.labels import validate_labels
from emostream.model.configuration import AnswerStyle


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateTree:
    """The candidates of a label list behind a prompt.

    Shape suffixes: K tree tokens (the common prefix included), R rows whose logits are read, C candidates, D longest
    remainder of a candidate.

    Attributes:
        labels: The label list.
        token_ids_K: Tokens to run behind the prompt.
        depth_K: Position of each, counted from the end of the prompt.
        ancestors_KK: True where the row's token sees the column's: itself and what leads to it.
        rows_R: Positions whose logits score something: 0 is the prompt's last token, k + 1 the tree's k-th.
        reader_CD: Index into `rows_R` that predicts each scored token, 0 where padded.
        target_CD: The scored token, 0 where padded.
        valid_CD: False where padded.
        label_of_C: Index into `labels` of each candidate; spellings of a label share it.
    """

    labels: tuple[str, ...]
    token_ids_K: Tensor
    depth_K: Tensor
    ancestors_KK: Tensor
    rows_R: Tensor
    reader_CD: Tensor
    target_CD: Tensor
    valid_CD: Tensor
    label_of_C: Tensor

    def to(self, device: torch.device) -> "CandidateTree":
        """The same tree on another device."""
        moved = {
            name: getattr(self, name).to(device) for name in self.__slots__ if name != "labels"
        }
        return CandidateTree(labels=self.labels, **moved)

    def scores(self, log_probs_BRV: Tensor, temperature: float = 1.0) -> Tensor:
        """Probabilities of the labels.

        A candidate's score is the sum of its tokens' log-probabilities behind the prefix that all candidates share,
        closing tag included and without division by length; spellings of a label are added up as probabilities; the
        result is normalised over the labels. Above 1 the temperature makes scores less sure, and changes no label (Guo
        et al. 2017, arXiv:1706.04599).

        Args:
            log_probs_BRV: (B, R, V) log-probabilities of the token after each of `rows_R`.
            temperature: Log-probabilities of labels are divided by it.

        Returns:
            (B, labels), rows summing to one.
        """
        picked_BCD = log_probs_BRV[:, self.reader_CD, self.target_CD]
        score_BC = picked_BCD.masked_fill(~self.valid_CD, 0.0).sum(-1)
        same_LC = self.label_of_C == torch.arange(
            len(self.labels), device=self.label_of_C.device
        ).unsqueeze(1)
        score_BLC = score_BC[:, None].masked_fill(~same_LC, -torch.inf)
        return (score_BLC.logsumexp(-1) / temperature).softmax(-1)


def candidate_tree(
    tokenizer: object,
    labels: Sequence[str],
    *,
    style: AnswerStyle = "reasoned",
    spellings: Mapping[str, Sequence[str]] | None = None,
) -> CandidateTree:
    r"""Tokenize every candidate answer as one string and merge them into a tree.

    Args:
        tokenizer: The language model's.
        labels: Any label list.
        style: `reasoned` for `<think></think>\n<answer>…</answer>`, `bare` for the label and the end of the turn.
        spellings: Further spellings of a label; the label itself is always one.

    Raises:
        ConfigError: An empty or ambiguous label list, or two labels with a spelling in common.
    """
    labels = validate_labels(labels)
    owner: dict[tuple[int, ...], int] = {}
    for index, label in enumerate(labels):
        for spelling in dict.fromkeys((label, *(spellings or {}).get(label, ()))):
            tokens = tuple(_tokens(tokenizer, spelling, style))
            if owner.setdefault(tokens, index) != index:
                raise ConfigError(
                    f"labels: {spelling!r} spells both {labels[owner[tokens]]!r} and {label!r}; remove one."
                )
    return _merged(owner, labels)


def text_tree(tokenizer: object, texts: Mapping[str, Sequence[str]]) -> CandidateTree:
    """A tree of any texts behind a prompt, whose probabilities among one another are scored.

    Args:
        tokenizer: The language model's.
        texts: Name -> the texts that count as it; the names are the tree's labels.

    Raises:
        ConfigError: There are fewer than two, or two names have a text in common.
    """
    owner: dict[tuple[int, ...], int] = {}
    for index, (name, several) in enumerate(texts.items()):
        for text in several:
            tokens = tuple(tokenizer.encode(text, add_special_tokens=False))  # type: ignore[attr-defined]
            if owner.setdefault(tokens, index) != index:
                raise ConfigError(
                    f"text_tree: {text!r} counts as {name!r} and as another; remove one."
                )
    if len(owner) < 2:
        raise ConfigError(f"text_tree: wanted two texts or more, found {len(owner)}")
    return _merged(owner, tuple(texts))


def _merged(owner: Mapping[tuple[int, ...], int], labels: tuple[str, ...]) -> CandidateTree:
    candidates = list(owner)
    common = _common_prefix(candidates)
    # Row 0 is the prompt's last token; a candidate's last token is only predicted, never read.
    rows: dict[tuple[int, ...], int] = {(): 0}
    for tokens in candidates:
        for end in range(1, len(tokens)):
            rows.setdefault(tokens[:end], len(rows))
    paths = list(rows)[1:]
    scored = sorted({rows[t[:end]] for t in candidates for end in range(common, len(t))})
    index_of = {row: index for index, row in enumerate(scored)}
    longest = max(map(len, candidates)) - common
    reader = torch.zeros(len(candidates), longest, dtype=torch.long)
    target, valid = torch.zeros_like(reader), torch.zeros_like(reader, dtype=torch.bool)
    for row, tokens in enumerate(candidates):
        for column, end in enumerate(range(common, len(tokens))):
            reader[row, column] = index_of[rows[tokens[:end]]]
            target[row, column] = tokens[end]
            valid[row, column] = True
    return CandidateTree(
        labels=labels,
        token_ids_K=torch.tensor([path[-1] for path in paths], dtype=torch.long),
        depth_K=torch.tensor([len(path) - 1 for path in paths], dtype=torch.long),
        ancestors_KK=torch.tensor(
            [[path[: len(other)] == other for other in paths] for path in paths], dtype=torch.bool
        ).reshape(len(paths), len(paths)),
        rows_R=torch.tensor(scored or [0]),
        reader_CD=reader,
        target_CD=target,
        valid_CD=valid,
        label_of_C=torch.tensor(list(owner.values())),
    )


def _tokens(tokenizer: object, spelling: str, style: AnswerStyle) -> list[int]:
    encode = tokenizer.encode  # type: ignore[attr-defined]
    if style == "bare":
        return [*encode(spelling, add_special_tokens=False), tokenizer.eos_token_id]  # type: ignore[attr-defined]
    return list(encode(compose_answer("", spelling), add_special_tokens=False))


def _common_prefix(candidates: Sequence[tuple[int, ...]]) -> int:
    first, last = min(candidates), max(candidates)
    return next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )

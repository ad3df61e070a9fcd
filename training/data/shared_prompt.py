"""Completions of one prompt behind one copy of it: a group's forward pass computes its prompt once.

A group becomes one row: the prompt without its last token, then a segment for each completion. A segment starts with
the prompt's last token, so that every one of its positions predicts one token of its completion, and sees the prompt
and itself only. Positions go on from the prompt's in every segment, so a completion's log-probabilities are those that
it has alone behind the prompt.

Shape suffixes: B completions, N prompts, P prompt tokens, C completion tokens, S segment tokens of a group together,
X = P - 1 + S, M scored tokens of all completions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_NOWHERE, _PROMPT = -2, -1  # owners of padding and of prompt tokens; others are completions

#: Label of a position that predicts nothing that is scored.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Packed:
    """Groups of completions as rows.

    Attributes:
        input_ids: (N, X).
        position_ids: (N, X).
        visible: (N, 1, X, X) bool, query by key.
        targets: (N, X) token that each position predicts; `IGNORED` in the prompt and in padding.
        source: Row and column of each scored token in the packed rows, (M,) each.
        place: Row and column of it among the completions, (M,) each.
        completions: B.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    targets: Tensor
    source: tuple[Tensor, Tensor]
    place: tuple[Tensor, Tensor]
    completions: int

    def unpack(self, values_NX: Tensor, completion_tokens: int) -> Tensor:
        """(N, X) values of packed positions -> (B, C), 0 where nothing is scored; differentiable."""
        out_BC = values_NX.new_zeros(self.completions, completion_tokens)
        return out_BC.index_put(self.place, values_NX[self.source])


def visible_keys(query_owners_NQ: Tensor, key_owners_NK: Tensor) -> Tensor:
    """(N, Q, K): whether a query may look at a key, order left aside: all see the prompt, a completion itself."""
    prompt_N1K = (key_owners_NK == _PROMPT)[:, None]
    own_NQK = key_owners_NK[:, None] == query_owners_NQ[:, :, None]
    return prompt_N1K | (own_NQK & (key_owners_NK != _NOWHERE)[:, None])


def prompt_owners(prompt_mask_NP: Tensor) -> Tensor:
    """(N, P) owners of prompt tokens, padding owned by nobody."""
    return torch.where(prompt_mask_NP.bool(), _PROMPT, _NOWHERE)


def pack(
    prompt_ids_NP: Tensor,
    prompt_mask_NP: Tensor,
    completion_ids_BC: Tensor,
    completion_mask_BC: Tensor,
    prompt_B: Tensor,
) -> Packed:
    """Lay completions behind their prompts.

    Args:
        prompt_ids_NP: Prompts, padded on the left.
        prompt_mask_NP: 1 where a token is.
        completion_ids_BC: Completions, padded on the right.
        completion_mask_BC: 1 where a token is scored; a completion without any costs nothing.
        prompt_B: Row of each completion's prompt, ascending.
    """
    device = prompt_ids_NP.device
    prompts, length = prompt_ids_NP.shape
    scored_BC = completion_mask_BC.bool()
    completion_M, token_M = scored_BC.nonzero(as_tuple=True)
    row_M = prompt_B[completion_M]
    totals_N = torch.bincount(row_M, minlength=prompts)
    starts_N = totals_N.cumsum(0) - totals_N
    column_M = torch.arange(len(row_M), device=device) - starts_N[row_M] + length - 1
    width = length - 1 + max(1, int(totals_N.max()))

    inputs_BC = torch.cat((prompt_ids_NP[prompt_B, -1:], completion_ids_BC[:, :-1]), 1)
    input_ids = prompt_ids_NP.new_zeros(prompts, width)
    targets = torch.full_like(input_ids, IGNORED)
    owners = torch.full_like(input_ids, _NOWHERE)
    positions = torch.zeros_like(input_ids)
    input_ids[:, : length - 1] = prompt_ids_NP[:, :-1]
    owners[:, : length - 1] = prompt_owners(prompt_mask_NP[:, :-1])
    positions[:, : length - 1] = (prompt_mask_NP.cumsum(1) - 1).clamp(min=0)[:, :-1]
    source = (row_M, column_M)
    input_ids[source] = inputs_BC[completion_M, token_M]
    targets[source] = completion_ids_BC[completion_M, token_M]
    owners[source] = completion_M
    positions[source] = prompt_mask_NP.sum(1)[row_M] - 1 + token_M

    causal_XX = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    visible = visible_keys(owners, owners) & causal_XX
    # A row of attention that sees nothing is not a number; padding sees itself.
    visible |= torch.eye(width, dtype=torch.bool, device=device)
    return Packed(
        input_ids=input_ids,
        position_ids=positions,
        visible=visible[:, None],
        targets=targets,
        source=source,
        place=(completion_M, token_M),
        completions=len(prompt_B),
    )

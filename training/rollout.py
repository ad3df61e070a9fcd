"""Sampling groups of completions: each prompt is computed once and its completions share its keys and values.

A prompt and its G completions are one row of the cache. Every step gives each row one token of each completion that is
not done, side by side; the attention mask keeps completions apart. Randomness is handed in, so that a completion
depends on its own numbers alone: not on the batch, the number of processes, or what was sampled before.

Shape suffixes: N prompts, G completions of each, P prompt tokens, C tokens of a completion, W completions under way,
V vocabulary, K keys.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emostream.kv_cache import CACHE_ARGUMENT, BlockCache
from emostream.modeling import EmostreamForCausalLM
from training.shared_prompt import prompt_owners, visible_keys

_IDLE = -3  # owner of a query that belongs to no completion, and so is seen by none


@torch.no_grad()
def sample_completions(
    model: EmostreamForCausalLM,
    prompts: Mapping[str, Tensor],
    uniform_NGC: Tensor,
    *,
    stops: Sequence[int],
    temperature: float = 1.0,
) -> list[list[int]]:
    """Sample from the model's own distribution until an end token or C tokens.

    Args:
        model: In eval mode.
        prompts: `input_ids`, `attention_mask` (N, P), padded on the left, and the media keyword arguments.
        uniform_NGC: Numbers in [0, 1), one for each token that may be sampled.
        stops: Ids that end a completion; the last id of those that ended by themselves.
        temperature: Divides the logits.

    Returns:
        N * G completions, those of a prompt together.
    """
    device, backbone = model.device, model.model
    input_ids, prompt_mask = prompts["input_ids"], prompts["attention_mask"]
    rows, length = input_ids.shape
    _, generations, limit = uniform_NGC.shape
    uniform_NGC = uniform_NGC.to(device)
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else model.dtype
    cache = BlockCache(model.config, rows, length + generations * (limit - 1), device, dtype)
    cache.active = rows
    owners_NK = torch.full((rows, cache.capacity), _IDLE, device=device)
    owners_NK[:, :length] = prompt_owners(prompt_mask)

    prompt_NP = owners_NK[:, :length]
    visible = visible_keys(prompt_NP, prompt_NP)
    visible &= torch.ones(length, length, dtype=torch.bool, device=device).tril()
    visible |= torch.eye(length, dtype=torch.bool, device=device)
    media = {k: v for k, v in prompts.items() if k not in ("input_ids", "attention_mask")}
    out = backbone(
        input_ids=input_ids,
        position_ids=(prompt_mask.cumsum(1) - 1).clamp(min=0),
        attention_mask={"full_attention": visible[:, None]},
        **{CACHE_ARGUMENT: cache},
        use_cache=True,
        **media,
    )
    cache.start = length
    logits_NWV = model.lm_head(out.last_hidden_state[:, -1:]).expand(-1, generations, -1)
    owners_NW = torch.arange(generations, device=device).expand(rows, -1)
    ids_NGC = torch.zeros(rows, generations, limit, dtype=torch.long, device=device)
    lengths_NG = torch.zeros(rows, generations, dtype=torch.long, device=device)
    live_NG = torch.ones(rows, generations, dtype=torch.bool, device=device)
    stop_ids = torch.tensor(list(stops), device=device)
    for token in range(limit):
        # Idle queries stand for completions that are done, so what they sample is dropped.
        live_NW = live_NG.gather(1, owners_NW)
        picked_NW = pick(logits_NWV, uniform_NGC[:, :, token].gather(1, owners_NW), temperature)
        ids_NGC[:, :, token] = ids_NGC[:, :, token].scatter(1, owners_NW, picked_NW)
        lengths_NG += live_NG
        ended_NW = torch.isin(picked_NW, stop_ids)
        live_NG = live_NG.scatter(1, owners_NW, live_NW & ~ended_NW)
        width = int(live_NG.sum(1).max())
        if width == 0 or token == limit - 1:
            break
        owners_NW = live_NG.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        live_NW = live_NG.gather(1, owners_NW)
        start, end = cache.start, cache.start + width
        owners_NK[:, start:end] = torch.where(live_NW, owners_NW, _IDLE)
        visible = visible_keys(owners_NK[:, start:end], owners_NK[:, :end])
        out = backbone(
            input_ids=ids_NGC[:, :, token].gather(1, owners_NW),
            position_ids=(prompt_mask.sum(1, keepdim=True) + token).expand(-1, width),
            attention_mask={"full_attention": visible[:, None]},
            **{CACHE_ARGUMENT: cache},
            use_cache=True,
        )
        cache.start = end
        logits_NWV = model.lm_head(out.last_hidden_state)
    ids, lengths = ids_NGC.flatten(0, 1).tolist(), lengths_NG.flatten().tolist()
    return [row[:length] for row, length in zip(ids, lengths, strict=True)]


def pick(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Sample by inverting the cumulative distribution: (…, V) and (…) -> (…) ids."""
    cumulative = (logits.float() / temperature).softmax(-1).cumsum(-1)
    # Rounding may leave the last sum a little below 1.
    threshold = uniform[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative.contiguous(), threshold.contiguous(), right=True)[
        ..., 0
    ].clamp(max=logits.shape[-1] - 1)


def uniform_numbers(keys: Sequence[Sequence[int]], generations: int, limit: int) -> Tensor:
    """(N, G, C) numbers in [0, 1) on the CPU, each prompt's from its own key."""
    draws = [
        np.random.default_rng(list(key)).random((generations, limit), dtype=np.float32)
        for key in keys
    ]
    return torch.from_numpy(np.stack(draws))

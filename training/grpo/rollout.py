"""Sampling groups of completions: each prompt is computed once and its completions share its keys and values.

A prompt and its G completions are one row of the cache. Every step gives each row one token of each completion that is
not done, side by side; the attention mask keeps completions apart. Randomness is handed in, so that a completion
depends on its own numbers alone: not on the batch, the number of processes, or what was sampled before.

Shape suffixes: N prompts, G completions of each, P prompt tokens, C tokens of a completion, W completions under way,
V vocabulary, K keys.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from emostream.inference.cuda_graphs import GraphedFunction
from emostream.inference.kv_cache import CACHE_ARGUMENT, BlockCache, KVCache, PlacedCache
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from training.data.shared_prompt import prompt_owners, visible_keys

_IDLE = -3  # owner of a query that belongs to no completion, and so is seen by none


@torch.no_grad()
def sample_completions(
    model: EmostreamForCausalLM,
    prompts: Mapping[str, Tensor],
    uniform_NGC: Tensor,
    *,
    stops: Sequence[int],
    temperature: float = 1.0,
    static: bool | None = None,
) -> list[list[int]]:
    """Sample from the model's own distribution until an end token or C tokens.

    Args:
        model: In eval mode.
        prompts: `input_ids`, `attention_mask` (N, P), padded on the left, and the media keyword arguments.
        uniform_NGC: Numbers in [0, 1), one for each token that may be sampled.
        stops: Ids that end a completion; the last id of those that ended by themselves.
        temperature: Divides the logits.
        static: Compute completions that are done, too, so that all steps are one graph; None does so on a GPU.

    Returns:
        N * G completions, those of a prompt together.
    """
    _, generations, limit = uniform_NGC.shape
    static = model.device.type == "cuda" if static is None else static
    kind = _StaticSteps if static else _ShrinkingSteps
    with contextlib.closing(kind(model, prompts, generations, limit)) as steps:
        return _sample(steps, uniform_NGC.to(model.device), stops, temperature)


def _sample(
    steps: "_Steps", uniform_NGC: Tensor, stops: Sequence[int], temperature: float
) -> list[list[int]]:
    device = uniform_NGC.device
    rows, generations, limit = uniform_NGC.shape
    logits_NWV = steps.prefill()[:, None].expand(-1, generations, -1)
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
        width = steps.width(live_NG, token)
        if width == 0 or token == limit - 1:
            break
        if width < generations:
            owners_NW = live_NG.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        tokens_NW = ids_NGC[:, :, token].gather(1, owners_NW)
        logits_NWV = steps.logits(tokens_NW, owners_NW, live_NG.gather(1, owners_NW), token)
    ids, lengths = ids_NGC.flatten(0, 1).tolist(), lengths_NG.flatten().tolist()
    return [row[:length] for row, length in zip(ids, lengths, strict=True)]


class _Steps(ABC):
    """Passes of the language model over prompts, then over a token of each completion under way."""

    cache: KVCache

    def __init__(
        self,
        model: EmostreamForCausalLM,
        prompts: Mapping[str, Tensor],
        generations: int,
        limit: int,
    ):
        self._model, self._prompts, self.generations = model, prompts, generations
        self.mask_NP = prompts["attention_mask"]
        self.rows, self.length = self.mask_NP.shape
        self.capacity = self.length + generations * (limit - 1)
        self.owners_NK = torch.full((self.rows, self.capacity), _IDLE, device=model.device)
        self.owners_NK[:, : self.length] = prompt_owners(self.mask_NP)
        self._positions_N1 = self.mask_NP.sum(1, keepdim=True)

    def _shape(self) -> tuple[EmostreamConfig, int, int, torch.device, torch.dtype]:
        device = self._model.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else self._model.dtype
        return self._model.config, self.rows, self.capacity, device, dtype

    def prefill(self) -> Tensor:
        """(N, V) logits behind the prompts."""
        prompts, device = self._prompts, self._model.device
        owners_NP = self.owners_NK[:, : self.length]
        visible = visible_keys(owners_NP, owners_NP)
        visible &= torch.ones(self.length, self.length, dtype=torch.bool, device=device).tril()
        visible |= torch.eye(self.length, dtype=torch.bool, device=device)
        media = {k: v for k, v in prompts.items() if k not in ("input_ids", "attention_mask")}
        positions = (self.mask_NP.cumsum(1) - 1).clamp(min=0)
        hidden = self.run(prompts["input_ids"], positions, visible, **media)
        return self._model.lm_head(hidden[:, -1])

    def run(self, ids: Tensor, positions: Tensor, visible: Tensor, **media: Tensor) -> Tensor:
        """Last hidden states of tokens, (N, W) each way and (N, W, K) visible keys."""
        out = self._model.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask={"full_attention": visible[:, None]},
            **{CACHE_ARGUMENT: self.cache},
            use_cache=True,
            **media,
        )
        return out.last_hidden_state

    def close(self) -> None:
        """Give the memory back now, not when the garbage collector comes by: a graph holds this object in turn."""
        vars(self).clear()

    @abstractmethod
    def width(self, live_NG: Tensor, token: int) -> int:
        """W of the next step; 0 when all completions are done."""

    @abstractmethod
    def logits(self, tokens_NW: Tensor, owners_NW: Tensor, live_NW: Tensor, token: int) -> Tensor:
        """(N, W, V) logits behind token number `token` of each completion under way."""


class _ShrinkingSteps(_Steps):
    """As few tokens a step as completions are under way: the least arithmetic."""

    cache: BlockCache

    def prefill(self) -> Tensor:
        self.cache = BlockCache(*self._shape())
        self.cache.active = self.rows
        logits_NV = super().prefill()
        self.cache.start = self.length
        return logits_NV

    def width(self, live_NG: Tensor, token: int) -> int:
        return int(live_NG.sum(1).max())

    def logits(self, tokens_NW: Tensor, owners_NW: Tensor, live_NW: Tensor, token: int) -> Tensor:
        start, end = self.cache.start, self.cache.start + tokens_NW.shape[1]
        self.owners_NK[:, start:end] = torch.where(live_NW, owners_NW, _IDLE)
        visible = visible_keys(self.owners_NK[:, start:end], self.owners_NK[:, :end])
        positions = (self._positions_N1 + token).expand_as(tokens_NW)
        hidden_NWH = self.run(tokens_NW, positions, visible)
        self.cache.start = end
        return self._model.lm_head(hidden_NWH)


class _StaticSteps(_Steps):
    """A token of every completion a step, over the whole cache: on a GPU, launching kernels is what takes time."""

    cache: PlacedCache

    #: Asking the GPU whether all are done makes it wait, so it is asked every so many tokens.
    ASK_EVERY = 16

    def prefill(self) -> Tensor:
        device = self._model.device
        self._columns_K = torch.arange(self.capacity, device=device)
        self._completions_G = torch.arange(self.generations, device=device)
        self.owners_NK[:, self.length :] = (
            self._columns_K[: self.capacity - self.length] % self.generations
        )
        self._graphed = GraphedFunction(self._step, device)
        self.cache = PlacedCache(*self._shape())
        self.cache.places_Q = self._columns_K[: self.length]
        self.cache.visible = self.length
        logits_NV = super().prefill()
        self.cache.visible = self.capacity
        return logits_NV

    def width(self, live_NG: Tensor, token: int) -> int:
        done = token % self.ASK_EVERY == 0 and not live_NG.any()
        return 0 if done else self.generations

    def logits(self, tokens_NW: Tensor, owners_NW: Tensor, live_NW: Tensor, token: int) -> Tensor:
        return self._graphed("step", tokens_NW, torch.full((), token, device=tokens_NW.device))

    def _step(self, tokens_NG: Tensor, token: Tensor) -> Tensor:
        self.cache.places_Q = self.length + token * self.generations + self._completions_G
        owners_NG = self._completions_G.expand(self.rows, -1)
        visible = visible_keys(owners_NG, self.owners_NK)
        visible &= self._columns_K <= self.cache.places_Q[-1]
        positions = (self._positions_N1 + token).expand_as(tokens_NG)
        return self._model.lm_head(self.run(tokens_NG, positions, visible))


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

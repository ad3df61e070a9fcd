"""Preallocated key-value caches whose addresses never change, so that CUDA graphs can replay over them.

They stand in for transformers' `Cache` where Qwen2 attention calls `update`; positions and masks are the caller's.

Shape suffixes: B rows, G key-value heads, C capacity in tokens, Q new tokens, E head width.
"""

import inspect

import torch
from torch import Tensor
from transformers import Qwen2Model

from emostream.model.configuration import EmostreamConfig

#: What a model's forward calls its cache: transformers 5.24 renamed `past_key_values`.
CACHE_ARGUMENT = (
    "cache" if "cache" in inspect.signature(Qwen2Model.forward).parameters else "past_key_values"
)


class KVCache:
    """Keys and values of B rows with room for C tokens each.

    Attributes:
        keys: One (B, G, C, E) tensor a layer.
        values: Likewise.
    """

    def __init__(
        self,
        config: EmostreamConfig,
        rows: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
    ):
        width = config.hidden_size // config.num_attention_heads
        shape = (rows, config.num_key_value_heads, capacity, width)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]

    @property
    def rows(self) -> int:
        """B."""
        return self.keys[0].shape[0]

    @property
    def capacity(self) -> int:
        """C."""
        return self.keys[0].shape[2]

    def copy_row(self, row: int, source: "KVCache", source_row: int, length: int) -> None:
        """Copy the first `length` tokens of another cache's row into a row of this one."""
        for mine, theirs in zip(self.keys + self.values, source.keys + source.values, strict=True):
            mine[row, :, :length] = theirs[source_row, :, :length]


class BlockCache(KVCache):
    """Every row takes its new tokens at the same place: prefill of equally long prompts.

    Attributes:
        active: Rows in use, the first ones.
        start: Where the next block of tokens goes.
    """

    active: int = 0
    start: int = 0

    def update(
        self, keys_BGQE: Tensor, values_BGQE: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store a block and return everything up to its end."""
        end = self.start + keys_BGQE.shape[2]
        keys, values = self.keys[layer][: self.active], self.values[layer][: self.active]
        keys[:, :, self.start : end] = keys_BGQE
        values[:, :, self.start : end] = values_BGQE
        return keys[:, :, :end], values[:, :, :end]


class TokenCache(KVCache):
    """Every row takes one new token at a place of its own: decoding of unrelated answers.

    Attributes:
        positions_B: (B',) where each active row's token goes; B' rows are active, the first ones.
        visible: Tokens that attention looks at; positions behind a row's own are masked by the caller.
    """

    positions_B: Tensor
    visible: int

    def update(
        self, keys_BG1E: Tensor, values_BG1E: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store one token a row and return the visible part."""
        rows = self.positions_B.shape[0]
        index = self.positions_B[:, None, None, None].expand(-1, *keys_BG1E.shape[1:])
        keys, values = self.keys[layer][:rows], self.values[layer][:rows]
        keys.scatter_(2, index, keys_BG1E)
        values.scatter_(2, index, values_BG1E)
        return keys[:, :, : self.visible], values[:, :, : self.visible]


class PlacedCache(KVCache):
    """Every row takes its new tokens at the same places, which only the device knows: a graph replays over all tokens.

    Attributes:
        places_Q: (Q,) where each of the new tokens goes.
        visible: Tokens that attention looks at; those that are not there yet are masked by the caller.
    """

    places_Q: Tensor
    visible: int

    def update(
        self, keys_BGQE: Tensor, values_BGQE: Tensor, layer: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store the tokens and return the visible part."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.places_Q, keys_BGQE.to(keys.dtype))
        values.index_copy_(2, self.places_Q, values_BGQE.to(values.dtype))
        return keys[:, :, : self.visible], values[:, :, : self.visible]

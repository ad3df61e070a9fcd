"""One pass of the language model over a window: its prompt, and behind it the tree of candidate answers.

Windows of one layout (which modalities they have) differ in their media tokens only, so text embeddings, positions and
masks are laid out once. Media tokens shift through the window with every hop, hence only the text before the first of
them keeps its keys and values.

Shape suffixes: B windows, P text tokens before the media, X = prompt tokens, K tree tokens, Q = X - P + K tokens that a
pass runs, R rows read, V visual tokens, A audio tokens, H language width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from emostream.inference.cuda_graphs import GraphedFunction
from emostream.inference.kv_cache import CACHE_ARGUMENT, BlockCache
from emostream.inference.scoring import CandidateTree
from emostream.inference.streaming import MediaTokens
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.processor import EmostreamProcessor


@dataclass(frozen=True, slots=True)
class Layout:
    """Which modalities a prompt holds, by their number of tokens.

    Attributes:
        visual: V, 0 without video.
        audio: A, 0 without audio.
    """

    visual: int
    audio: int

    @classmethod
    def of(cls, tokens: MediaTokens) -> "Layout":
        """The layout that a window's tokens ask for."""
        return cls(*(0 if t is None else len(t) for t in (tokens.visual, tokens.audio)))


@dataclass(frozen=True, slots=True)
class Prefilled:
    """Where a window's prompt lies; valid until the next `WindowPrefill.run`.

    Attributes:
        cache: Holds the prompt's keys and values.
        row: The window's row in it.
        length: X, prompt tokens.
        last_H: (H,) final hidden state of the prompt's last token.
        serial: Number of the run that made it.
    """

    cache: BlockCache
    row: int
    length: int
    last_H: Tensor
    serial: int


class _LaidOut:
    """Everything about a layout that does not depend on the window."""

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        tree: CandidateTree,
        instruction: str,
        layout: Layout,
    ):
        self._model = model
        device, embed = model.device, model.model.embed_tokens
        ids, visual_start, audio_start = processor.prompt(instruction, layout.visual, layout.audio)
        self.length = len(ids)
        self.prefix = min(start for start in (visual_start, audio_start) if start >= 0)
        self.visual = slice(visual_start - self.prefix, visual_start - self.prefix + layout.visual)
        self.audio = slice(audio_start - self.prefix, audio_start - self.prefix + layout.audio)
        prompt_X = torch.tensor(ids, device=device)
        self.text_QH = embed(torch.cat((prompt_X[self.prefix :], tree.token_ids_K)))
        positions = torch.cat(
            (torch.arange(self.prefix, self.length, device=device), self.length + tree.depth_K)
        )
        self.positions_1Q = positions[None]
        # The last prompt token always comes first: reasoning starts from it.
        rows = torch.cat((tree.rows_R.new_zeros(1), tree.rows_R))
        self.rows = rows + self.length - self.prefix - 1
        self.mask_11QC = _mask(self.prefix, self.length, tree.ancestors_KK)[None, None]
        self.cache = BlockCache(model.config, 0, 0, device, model.dtype)
        self._prefix_ids = prompt_X[None, : self.prefix]

    def reserve(self, rows: int) -> bool:
        """Make room for so many windows; True if the cache moved."""
        if rows <= self.cache.rows:
            return False
        model, capacity = self._model, self.mask_11QC.shape[3]
        rows = 1 << (rows - 1).bit_length()
        self.cache = BlockCache(model.config, rows, capacity, model.device, model.dtype)
        self.cache.active = rows
        model.model(
            input_ids=self._prefix_ids.expand(rows, -1),
            position_ids=torch.arange(self.prefix, device=model.device)[None],
            attention_mask={"full_attention": _causal(self.prefix, model.device)[None, None]},
            use_cache=True,
            **{CACHE_ARGUMENT: self.cache},
        )
        self.cache.start = self.prefix
        return True

    def hidden(self, *media: Tensor) -> Tensor:
        """(B, V, H) and (B, A, H), those that the layout has -> (B, 1 + R, H)."""
        rows = media[0].shape[0]
        embeds_BQH = self.text_QH.expand(rows, -1, -1).clone()
        places = [place for place in (self.visual, self.audio) if place.stop > place.start]
        for place, tokens in zip(places, media, strict=True):
            embeds_BQH[:, place] = tokens
        self.cache.active = rows
        out = self._model.model(
            inputs_embeds=embeds_BQH,
            position_ids=self.positions_1Q,
            attention_mask={"full_attention": self.mask_11QC},
            use_cache=True,
            **{CACHE_ARGUMENT: self.cache},
        )
        return out.last_hidden_state[:, self.rows]


class WindowPrefill:
    """Runs windows through the language model, those of one layout together.

    Args:
        model: On its device, in eval mode.
        processor: Its processor.
        tree: Candidate answers, on the model's device.
        instruction: The prompt's question.
    """

    def __init__(
        self,
        model: EmostreamForCausalLM,
        processor: EmostreamProcessor,
        tree: CandidateTree,
        instruction: str,
    ):
        self._lay_out = partial(_LaidOut, model, processor, tree, instruction)
        self._device = model.device
        self._layouts: dict[Layout, tuple[_LaidOut, GraphedFunction]] = {}
        self._serial = 0

    @torch.inference_mode()
    def run(self, windows: Sequence[MediaTokens]) -> tuple[Tensor, list[Prefilled]]:
        """Hidden states of the rows that score candidates, and where each prompt's KV lies.

        Args:
            windows: Media tokens of each window.

        Returns:
            ((B, R, H), B entries), in the order of `windows`.
        """
        self._serial += 1
        groups: dict[Layout, list[int]] = {}
        for index, tokens in enumerate(windows):
            groups.setdefault(Layout.of(tokens), []).append(index)
        hidden: dict[int, Tensor] = {}
        placed: dict[int, Prefilled] = {}
        for layout, members in groups.items():
            laid_out, graphed = self._get(layout, len(members))
            media = [
                torch.stack([getattr(windows[index], name) for index in members])
                for name in ("visual", "audio")
                if getattr(layout, name)
            ]
            out_BRH = graphed(len(members), *media)
            for row, index in enumerate(members):
                hidden[index] = out_BRH[row, 1:]
                placed[index] = Prefilled(
                    laid_out.cache, row, laid_out.length, out_BRH[row, 0], self._serial
                )
        order = range(len(windows))
        return torch.stack([hidden[i] for i in order]), [placed[i] for i in order]

    def is_current(self, prefilled: Prefilled) -> bool:
        """Whether no later run has overwritten it."""
        return prefilled.serial == self._serial

    def _get(self, layout: Layout, rows: int) -> tuple[_LaidOut, GraphedFunction]:
        if layout not in self._layouts:
            laid_out = self._lay_out(layout)
            self._layouts[layout] = laid_out, GraphedFunction(laid_out.hidden, self._device)
        laid_out, graphed = self._layouts[layout]
        if laid_out.reserve(rows):
            graphed.clear()
        return laid_out, graphed


def _causal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def _mask(prefix: int, length: int, ancestors_KK: Tensor) -> Tensor:
    """(Q, X + K): the prompt is causal, tree tokens see the prompt and their own ancestors."""
    tree = len(ancestors_KK)
    mask = torch.zeros(length + tree, length + tree, dtype=torch.bool, device=ancestors_KK.device)
    mask[:length, :length] = _causal(length, mask.device)
    mask[length:, :length] = True
    mask[length:, length:] = ancestors_KK
    return mask[prefix:]

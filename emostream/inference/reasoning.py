"""Streamed reasoning: one token at a time, from the KV that a label was scored on, for several sources together.

An answer owns its keys and values from the start, so later windows neither cut nor restart it, and the caller decides
between any two tokens whether something more urgent comes first.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from emostream.answers import Answer, parse_answer
from emostream.errors import InputError
from emostream.inference.cuda_graphs import GraphedFunction, padded
from emostream.inference.kv_cache import CACHE_ARGUMENT, TokenCache
from emostream.inference.prefill import Prefilled
from emostream.model.modeling import EmostreamForCausalLM


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningStep:
    """What an answer says so far.

    Attributes:
        key: Whose answer it is, as given to `start`.
        delta: Text that this step added; may be empty while a character is incomplete.
        text: All of the text.
        answer: The text, parsed.
        tokens: Tokens decoded, the end of the turn not counted.
        done: Whether this was the last step.
        truncated: Whether it ended at `max_new_tokens` and not by itself.
    """

    key: Hashable
    delta: str
    text: str
    answer: Answer
    tokens: int
    done: bool
    truncated: bool


@dataclass(slots=True)
class _Answer:
    key: Hashable
    position: int  # of the next token
    pending: int  # token decoded but not yet delivered
    stream: DecodeStream
    text: str = ""
    tokens: int = 0


class ReasoningDecoder:
    """Greedy decoding of up to `slots` answers at once, each on its own prompt.

    Args:
        model: On its device, in eval mode.
        tokenizer: The language model's.
        labels: Label list that answers are read against.
        slots: Answers at once; more are refused.
        max_new_tokens: Longest answer.
        bare: Answers are labels alone, without tags.

    Attributes:
        static_rows: Compute a power of two of rows over the whole cache, as captured graphs need.
    """

    def __init__(
        self,
        model: EmostreamForCausalLM,
        tokenizer: object,
        labels: Sequence[str],
        *,
        slots: int = 8,
        max_new_tokens: int = 256,
        bare: bool = False,
    ):
        self._model = model
        self._tokenizer = tokenizer
        self._labels = tuple(labels)
        self._slots = slots
        self._max_new_tokens = max_new_tokens
        self._bare = bare
        self.static_rows = model.device.type == "cuda"
        self._stops = _eos_ids(model)
        self._answers: list[_Answer] = []  # the i-th owns row i of the cache
        self._cache = TokenCache(model.config, 0, 0, model.device, model.dtype)
        self._next_tokens = GraphedFunction(self._forward, model.device)

    @property
    def active(self) -> list[Hashable]:
        """Keys of the answers being written."""
        return [answer.key for answer in self._answers]

    @torch.inference_mode()
    def start(self, key: Hashable, prompt: Prefilled) -> None:
        """Begin an answer on a prefilled prompt; its KV is copied, so the prompt may then be overwritten.

        Raises:
            InputError: `key` has an answer already, or all slots are taken.
        """
        if key in self.active:
            raise InputError(f"reasoning: {key!r} has an answer under way; stop it first.")
        if len(self._answers) == self._slots:
            raise InputError(f"reasoning: all {self._slots} slots are taken; wait for one.")
        self._reserve(prompt.length + self._max_new_tokens)
        self._cache.copy_row(len(self._answers), prompt.cache, prompt.row, prompt.length)
        token = int(self._model.lm_head(prompt.last_H).argmax())
        stream = DecodeStream(skip_special_tokens=True)
        self._answers.append(_Answer(key, prompt.length, token, stream))

    @torch.inference_mode()
    def step(self) -> list[ReasoningStep]:
        """Deliver one token of every answer under way and decode the next."""
        steps = [self._deliver(answer) for answer in self._answers]
        for step in steps:
            if step.done:
                self.stop(step.key)
        if self._answers:
            tokens = self._decode()
            for answer, token in zip(self._answers, tokens, strict=True):
                answer.pending = token
                answer.position += 1
        return steps

    @torch.inference_mode()
    def stop(self, key: Hashable) -> None:
        """End an answer; its slot is free at once. Unknown keys are ignored."""
        row = next((i for i, answer in enumerate(self._answers) if answer.key == key), None)
        if row is None:
            return
        last = self._answers.pop()
        if row < len(self._answers):
            # Active rows stay the first ones, so that only they are computed.
            self._answers[row] = last
            self._cache.copy_row(row, self._cache, len(self._answers), last.position)

    def _deliver(self, answer: _Answer) -> ReasoningStep:
        ended, delta = answer.pending in self._stops, ""
        if not ended:
            answer.tokens += 1
            backend = self._tokenizer.backend_tokenizer  # type: ignore[attr-defined]
            # Ids beyond the tokenizer's (vocabularies are padded) have no text.
            if backend.id_to_token(answer.pending) is not None:
                delta = answer.stream.step(backend, answer.pending) or ""
            answer.text += delta
        truncated = not ended and answer.tokens == self._max_new_tokens
        return ReasoningStep(
            key=answer.key,
            delta=delta,
            text=answer.text,
            answer=parse_answer(answer.text, self._labels, bare=self._bare),
            tokens=answer.tokens,
            done=ended or truncated,
            truncated=truncated,
        )

    def _decode(self) -> list[int]:
        rows, device = len(self._answers), self._model.device
        tokens = [answer.pending for answer in self._answers]
        positions = [answer.position for answer in self._answers]
        if self.static_rows:
            # Idle rows rewrite the start of a free slot.
            bucket = padded(rows, self._slots)
            tokens += [0] * (bucket - rows)
            positions += [0] * (bucket - rows)
            self._cache.visible = self._cache.capacity
        else:
            self._cache.visible = max(positions) + 1
        inputs = torch.tensor([tokens, positions], device=device)
        return self._next_tokens(len(tokens), *inputs)[:rows].tolist()

    def _forward(self, tokens_B: Tensor, positions_B: Tensor) -> Tensor:
        self._cache.positions_B = positions_B
        columns = torch.arange(self._cache.visible, device=positions_B.device)
        mask_B11C = (columns <= positions_B[:, None])[:, None, None]
        out = self._model.model(
            input_ids=tokens_B[:, None],
            position_ids=positions_B[:, None],
            attention_mask={"full_attention": mask_B11C},
            use_cache=True,
            **{CACHE_ARGUMENT: self._cache},
        )
        return self._model.lm_head(out.last_hidden_state[:, -1]).argmax(-1)

    def _reserve(self, capacity: int) -> None:
        if capacity <= self._cache.capacity:
            return
        model, old = self._model, self._cache
        self._cache = TokenCache(model.config, self._slots, capacity, model.device, model.dtype)
        for row, answer in enumerate(self._answers):
            self._cache.copy_row(row, old, row, answer.position)
        self._next_tokens.clear()


def _eos_ids(model: EmostreamForCausalLM) -> frozenset[int]:
    ids = model.generation_config.eos_token_id
    ids = model.config.eos_token_id if ids is None else ids
    return frozenset(ids if isinstance(ids, list | tuple) else [ids])

"""Batches for supervised fine-tuning: prompts with features, and behind each the answers that it should get.

The answers of a clip share one copy of its prompt (`training.data.shared_prompt`). Every epoch words them anew and
hides other modalities; what an epoch holds depends on its number and the seed alone, so a resumed run sees the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.data.features import FeatureStore
from training.data.manifest import Row
from training.data.prompts import ClipPrompts
from training.data.shared_prompt import pack
from training.sft.answers import AnswerWriter

_VALIDATION = -1  # in place of an epoch's number


class SftBatches:
    """A collator of row numbers.

    Args:
        rows: The clips.
        store: Their features.
        prompts: Their prompts.
        writer: Their answers.
        tokenizer: The language model's.
        gate: (3,) weights of the connector's branches, if they are not trained; else BERT runs in every step.
        seed: Of wording and hiding.
        drop_video: Share of clips with both modalities whose pictures are hidden.
        drop_audio: Share whose sound is.

    Attributes:
        epoch: Number of the epoch.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        store: FeatureStore,
        prompts: ClipPrompts,
        writer: AnswerWriter,
        tokenizer: Any,
        *,
        gate: Tensor | None = None,
        seed: int = 0,
        drop_video: float = 0.0,
        drop_audio: float = 0.0,
    ):
        self.rows = rows
        self.store = store
        self._prompts = prompts
        self._writer = writer
        self._tokenizer = tokenizer
        self._gate = gate
        self._seed = seed
        self._drop_video, self._drop_audio = drop_video, drop_audio
        self.epoch = 0

    def prompt_lengths(self) -> list[int]:
        """Tokens of each clip's prompt with nothing hidden."""
        return [self._prompts.length(index) for index in range(len(self.rows))]

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Keyword arguments of the model, and the targets `shift_labels` of its last positions."""
        return self._batch(indices, self.epoch)

    def validation(self, indices: Sequence[int]) -> dict[str, Any]:
        """The same in a wording that never changes, with nothing hidden."""
        return self._batch(indices, _VALIDATION)

    def _batch(self, indices: Sequence[int], epoch: int) -> dict[str, Any]:
        clips, texts, owner = [], [], []
        for place, index in enumerate(indices):
            rng = np.random.default_rng((self._seed, epoch + 1, index))
            clip = self._prompts.clip(index)
            if epoch != _VALIDATION:
                clip = self._hide(clip, self.rows[index], rng)
            written = self._writer.write(
                self.rows[index],
                rng,
                video="vision_features" in clip,
                audio="audio_features" in clip,
            )
            clips.append(clip)
            texts += written
            owner += [place] * len(written)
        tokenized = self._tokenizer(texts, add_special_tokens=False)["input_ids"]
        answers = [[*ids, self._tokenizer.eos_token_id] for ids in tokenized]
        prompts = [self._prompts.ids_of(clip) for clip in clips]
        length = max(map(len, prompts))
        packed = pack(
            *_padded([[*[None] * (length - len(ids)), *ids] for ids in prompts]),
            *_padded(answers),
            torch.tensor(owner),
        )
        media = self._prompts.media_of(clips, length)
        if self._gate is not None and "vision_features" in media:
            del media["gate_input_ids"], media["gate_attention_mask"]
            media["gate"] = self._gate.expand(len(clips), -1)
        targets = packed.targets[:, length - 1 :]
        return {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "attention_mask": {"full_attention": packed.visible},
            **media,
            # The trainer counts targets where there are labels.
            "labels": targets,
            "shift_labels": targets,
        }

    def _hide(
        self, clip: dict[str, Tensor], row: Row, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        draw = rng.random()
        if len(clip) < 2 or not self._writer.adapts(row):
            return clip
        if draw < self._drop_video:
            return {"audio_features": clip["audio_features"]}
        if draw < self._drop_video + self._drop_audio:
            return {"vision_features": clip["vision_features"]}
        return clip


def _padded(rows: Sequence[Sequence[int | None]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the right; None is padding too."""
    width = max(map(len, rows))
    filled = [[*row, *[None] * (width - len(row))] for row in rows]
    ids = torch.tensor([[token or 0 for token in row] for row in filled])
    return ids, torch.tensor([[int(token is not None) for token in row] for row in filled])

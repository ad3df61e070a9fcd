"""Prompts of a corpus, for SFT and GRPO alike: token ids with placeholders, and the features that replace them.

A modality here is `vision` or `audio`, by which tower encoded it; in cues and claims it is `face` or `voice`, by where
a sign of emotion shows.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from emostream.errors import ConfigError
from emostream.model.processor import EmostreamProcessor
from training.data.manifest import Row


class Features(Protocol):
    """What a clip looks and sounds like to the frozen towers; `training.data.features.FeatureStore` is one."""

    def features(self, row: Row) -> dict[str, Tensor]:
        """`vision_features` (T, L, D) and `audio_features` (A, E), each where the clip has it."""

    def lengths(self, row: Row) -> dict[str, int]:
        """T and A by the same names, without reading any."""


class ClipPrompts:
    """The prompts of a manifest's rows, by index.

    Args:
        rows: The clips.
        features: Their tower features.
        processor: The model's.
        instruction: Question of the prompt; the processor's if None.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        features: Features,
        processor: EmostreamProcessor,
        instruction: str | None = None,
    ):
        self.rows = rows
        self._features = features
        self._processor = processor
        self._instruction = processor.instruction if instruction is None else instruction
        self._gate = processor.gate_inputs(self._instruction)

    def ids(self, index: int) -> list[int]:
        """Token ids of a clip's prompt, placeholders included."""
        return self.ids_of(self.clip(index))

    def length(self, index: int) -> int:
        """Tokens of a clip's prompt, by what is known of its features without reading them."""
        return len(self._prompt(self._features.lengths(self.rows[index]))[0])

    def ids_of(self, clip: dict[str, Tensor]) -> list[int]:
        """Token ids of the prompt for these features."""
        return list(self._prompt(_lengths(clip))[0])

    def media(self, indices: Sequence[int], length: int) -> dict[str, Tensor]:
        """Media keyword arguments of `model` for prompts that are padded on the left to `length` tokens.

        Raises:
            ConfigError: Clips differ in what the towers give for them.
        """
        return self.media_of([self.clip(index) for index in indices], length)

    def media_of(self, clips: Sequence[dict[str, Tensor]], length: int) -> dict[str, Tensor]:
        """As `media`, for these features."""
        starts = []
        for clip in clips:
            ids, visual, audio = self._prompt(_lengths(clip))
            shift = length - len(ids)
            starts.append([start + shift if start >= 0 else -1 for start in (visual, audio)])
        visual_start, audio_start = torch.tensor(starts).unbind(1)
        out = {"visual_start": visual_start, "audio_start": audio_start}
        vision = [clip.get("vision_features") for clip in clips]
        if any(v is not None for v in vision):
            out["vision_features"] = _stack(vision)
            out["num_video_frames"] = torch.tensor([0 if v is None else len(v) for v in vision])
            out["gate_input_ids"], out["gate_attention_mask"] = (
                part.expand(len(clips), -1) for part in self._gate
            )
        heard = [clip.get("audio_features") for clip in clips]
        if any(a is not None for a in heard):
            if len({len(a) for a in heard if a is not None}) > 1:
                raise ConfigError(
                    "training: clips have different numbers of audio tokens; cache all features with one audio context."
                )
            out["audio_features"] = _stack(heard)
        return out

    def clip(self, index: int) -> dict[str, Tensor]:
        """Features of a clip, at least of one modality."""
        clip = self._features.features(self.rows[index])
        if not clip:
            raise ConfigError(
                f"{self.rows[index].path}: neither pictures nor sound; take it out of the manifest."
            )
        return clip

    def _prompt(self, lengths: dict[str, int]) -> tuple[tuple[int, ...], int, int]:
        return self._processor.prompt(
            self._instruction,
            lengths.get("vision_features", 0) * self._processor.config.visual_tokens_per_frame,
            lengths.get("audio_features", 0),
        )


def _lengths(clip: dict[str, Tensor]) -> dict[str, int]:
    return {name: len(features) for name, features in clip.items()}


def _stack(clips: Sequence[Tensor | None]) -> Tensor:
    """One batch, zeros behind shorter clips and for absent ones."""
    like = max((clip for clip in clips if clip is not None), key=len)
    out = like.new_zeros((len(clips), *like.shape))
    for row, clip in zip(out, clips, strict=True):
        if clip is not None:
            row[: len(clip)] = clip
    return out

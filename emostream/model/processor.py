"""Raw frames and audio to model inputs, exactly as the published checkpoints were fed."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchFeature, WhisperFeatureExtractor
from transformers.processing_utils import ProcessorMixin

from emostream.checkpoint.parts import folder_name
from emostream.checkpoint.resolve import find_checkpoint
from emostream.checkpoint.tokenizers import write_tokenizer
from emostream.errors import InputError
from emostream.model.configuration import EmostreamConfig
from emostream.model.front_ends import read_front_ends
from emostream.model.prompt import DEFAULT_INSTRUCTION, prompt_pieces
from emostream.model.towers import AUDIO_POOL
from emostream.sampling import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

MEL_FRAME_S = 0.01

#: Audio that makes one token: two mel frames a step of the encoder, three steps pooled.
MIN_CONTEXT_S = 2 * AUDIO_POOL * MEL_FRAME_S

#: Samples of at most this magnitude pass for PCM in [-1, 1]: resampling and float recorders overshoot, int16 is not.
PCM_LIMIT = 8.0

Frames = NDArray[np.uint8]
Audio = NDArray[np.float32]


class EmostreamProcessor(ProcessorMixin):
    """Frames, audio and an instruction to a prompt with media placeholders and the tensors that fill them.

    Args:
        image_processor: SigLIP's, on Pillow.
        feature_extractor: Whisper's log-mel front end.
        tokenizer: The language model's.
        gate_tokenizer: BERT's, for the instruction gate.
        config: The model's configuration, for token counts.

    Attributes:
        audio_context_s: Seconds to which audio is padded. None pads to the tower's whole context (30 s in the published
            checkpoints), as in training; less is cheaper and changes the features.
        instruction: The question asked when a call names none.
    """

    def __init__(
        self,
        image_processor: Any,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: Any,
        gate_tokenizer: Any,
        *,
        config: EmostreamConfig,
    ):
        super().__init__(image_processor, feature_extractor, tokenizer, gate_tokenizer)
        self.config = config
        self.audio_context_s: float | None = None
        self.instruction = DEFAULT_INSTRUCTION
        self.placeholder_id = _placeholder_id(tokenizer)

    @property
    def max_context_s(self) -> float:
        """Seconds of audio that the audio tower was trained on."""
        return float(2 * self.config.audio_config.max_source_positions * MEL_FRAME_S)

    def pixels(self, frames: Frames) -> Tensor:
        """(T, H, W, 3) uint8 RGB -> (T, 3, S, S) float32 in [-1, 1]: bicubic to a square, aspect not kept."""
        out = self.image_processor(
            images=list(frames), return_tensors="pt", input_data_format="channels_last"
        )
        return out["pixel_values"]

    def context_samples(self, context_s: float | None = None) -> int:
        """Samples to which `mel` pads or cuts its audio.

        Args:
            context_s: Overrides `audio_context_s`.

        Raises:
            InputError: The context is longer than the tower's.
        """
        choices = (context_s, self.audio_context_s, self.max_context_s)
        context_s = next(choice for choice in choices if choice is not None)
        if not MIN_CONTEXT_S <= context_s <= self.max_context_s:
            raise InputError(
                f"audio_context_s is {context_s:g}; this model's audio tower takes {MIN_CONTEXT_S:g} to "
                f"{self.max_context_s:g} s."
            )
        # Two mel frames make one encoder step.
        return round(context_s / (2 * MEL_FRAME_S)) * int(2 * MEL_FRAME_S * SAMPLE_RATE_HZ)

    def mel(self, audio: Audio, context_s: float | None = None) -> Tensor:
        """(S,) float32 PCM at 16 kHz -> (F, M) log-mel, zero-padded to the context; M is even.

        Of audio that is longer than the context, the newest is kept: what was said last is what is asked about.

        Args:
            audio: Mono samples in [-1, 1].
            context_s: Overrides `audio_context_s`.

        Raises:
            InputError: The context is longer than the tower's.
        """
        samples = self.context_samples(context_s)
        if len(audio) > samples:
            logger.warning(
                "audio of %.2f s is cut to its last %.2f s, the audio context",
                len(audio) / SAMPLE_RATE_HZ,
                samples / SAMPLE_RATE_HZ,
            )
            audio = audio[-samples:]
        out = self.feature_extractor(
            audio,
            sampling_rate=SAMPLE_RATE_HZ,
            padding="max_length",
            max_length=samples,
            return_tensors="pt",
        )
        return out["input_features"][0]

    @functools.lru_cache(maxsize=64)  # noqa: B019 - prompts are few and a processor lives as long as its model
    def prompt(
        self, instruction: str, visual_tokens: int, audio_tokens: int
    ) -> tuple[tuple[int, ...], int, int]:
        """Token ids with placeholders in place, and where each modality starts (-1 if it is absent).

        Args:
            instruction: The user's question.
            visual_tokens: Number of visual placeholders, 0 for none.
            audio_tokens: Number of audio placeholders, 0 for none.

        Returns:
            (ids, visual_start, audio_start).
        """
        pieces = prompt_pieces(instruction, video=visual_tokens > 0, audio=audio_tokens > 0)
        ids, starts = list(self._ids(pieces[0])), {"visual": -1, "audio": -1}
        present = [
            (name, n) for name, n in (("visual", visual_tokens), ("audio", audio_tokens)) if n
        ]
        for (name, count), piece in zip(present, pieces[1:], strict=True):
            starts[name] = len(ids)
            ids += [self.placeholder_id] * count + self._ids(piece)
        return tuple(ids), starts["visual"], starts["audio"]

    def gate_inputs(self, instruction: str) -> tuple[Tensor, Tensor]:
        """(1, I) BERT ids and attention mask of the instruction."""
        out = self.gate_tokenizer(
            instruction,
            truncation=True,
            max_length=self.config.gate_config.max_position_embeddings,
            return_tensors="pt",
        )
        return out["input_ids"], out["attention_mask"]

    def __call__(
        self,
        frames: Frames | Sequence[Frames | None] | None = None,
        audio: Audio | Sequence[Audio | None] | None = None,
        instruction: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """One clip, or lists of clips that may differ in length and in the modalities that they have.

        Args:
            frames: (T, H, W, 3) uint8 RGB, oldest first, or None without video.
            audio: (S,) float32 mono PCM at 16 kHz in [-1, 1], or None without audio.
            instruction: Question; `self.instruction` if None.
            **kwargs: `audio_context_s`, overriding the attribute for this call.

        Returns:
            Tensors for `model(**inputs)` and `model.generate(**inputs)`, prompts left-padded.

        Raises:
            InputError: Wrong shape, dtype or values, or neither modality.
        """
        context_s = kwargs.pop("audio_context_s", None)
        if kwargs:
            raise TypeError(
                f"{type(self).__name__} takes frames, audio, instruction; got {', '.join(kwargs)}"
            )
        given = (frames, audio, instruction)
        lengths = {len(column) for column in given if isinstance(column, list | tuple)}
        if not lengths:
            return self._one(frames, audio, instruction, context_s)  # type: ignore[arg-type]
        if len(lengths) > 1 or lengths == {0}:
            raise InputError(
                "processor: wanted lists of one length, at least 1, found "
                f"{[len(c) if isinstance(c, list | tuple) else 'no list' for c in given]} (frames, audio, instruction)."
            )
        columns = [c if isinstance(c, list | tuple) else [c] * min(lengths) for c in given]
        rows = zip(*columns, strict=True)
        return self.collate([self._one(f, a, i, context_s) for f, a, i in rows])

    def collate(self, features: Sequence[BatchFeature]) -> BatchFeature:
        """Stack single-clip features into a batch: prompts padded on the left, clips at the end.

        Args:
            features: What calls for single clips returned; modalities may be absent in some.

        Raises:
            InputError: Audio contexts differ.
        """
        mel_widths = {r["input_features"].shape[2] for r in features if "input_features" in r}
        if len(mel_widths) > 1:
            raise InputError(
                "processor: wanted one audio_context_s for all clips of a batch, found "
                f"{sorted(width * MEL_FRAME_S for width in mel_widths)}."
            )
        width = max(row["input_ids"].shape[1] for row in features)
        shifts = [width - row["input_ids"].shape[1] for row in features]
        pad_id = self.tokenizer.pad_token_id
        out = {
            "input_ids": torch.cat([_pad_left(r["input_ids"], width, pad_id) for r in features]),
            "attention_mask": torch.cat([_pad_left(r["attention_mask"], width) for r in features]),
        }
        for start in ("visual_start", "audio_start"):
            moved = [
                r[start] + shift if r[start] >= 0 else r[start]
                for r, shift in zip(features, shifts, strict=True)
            ]
            out[start] = torch.cat(moved)
        for key, length in (("pixel_values_videos", 1), ("input_features", 2)):
            if any(key in row for row in features):
                out[key] = _stack_padded([row.get(key) for row in features], length)
        if "pixel_values_videos" in out:
            out["num_video_frames"] = torch.tensor(
                [
                    row["pixel_values_videos"].shape[1] if "pixel_values_videos" in row else 0
                    for row in features
                ]
            )
        gate_width = max(row["gate_input_ids"].shape[1] for row in features)
        for key in ("gate_input_ids", "gate_attention_mask"):
            out[key] = torch.cat(
                [
                    torch.nn.functional.pad(r[key], (0, gate_width - r[key].shape[1]))
                    for r in features
                ]
            )
        return BatchFeature(out)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the tokenizer beside the checkpoint and each front end into its tower's folder."""
        root, config = Path(save_directory), self.config
        write_tokenizer(self.tokenizer, root)
        write_tokenizer(self.gate_tokenizer, root / folder_name(config.gate_tower))
        for part, owner in (
            (self.image_processor, config.mm_vision_tower),
            (self.feature_extractor, config.mm_audio_tower),
        ):
            part.save_pretrained(root / folder_name(owner))

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> "EmostreamProcessor":
        """The processor of a checkpoint folder or hub id, without its weights; raises as `load_model`."""
        checkpoint = find_checkpoint(path, weights=False)
        config = EmostreamConfig.from_dict(
            dict(checkpoint.published), parts=checkpoint.parts, name_or_path=str(checkpoint.root)
        )
        return cls(*read_front_ends(checkpoint, config), config=config)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _one(
        self,
        frames: Frames | None,
        audio: Audio | None,
        instruction: str | None,
        context_s: float | None,
    ) -> BatchFeature:
        instruction = self.instruction if instruction is None else instruction
        frames, audio = _check(frames, audio)
        data: dict[str, Tensor] = {}
        if frames is not None:
            data["pixel_values_videos"] = self.pixels(frames)[None]
        if audio is not None:
            data["input_features"] = self.mel(audio, context_s)[None]
        ids, visual_start, audio_start = self.prompt(
            instruction,
            0 if frames is None else len(frames) * self.config.visual_tokens_per_frame,
            0 if audio is None else self.config.audio_tokens(data["input_features"].shape[2]),
        )
        data["input_ids"] = torch.tensor([ids])
        data["attention_mask"] = torch.ones_like(data["input_ids"])
        data["visual_start"] = torch.tensor([visual_start])
        data["audio_start"] = torch.tensor([audio_start])
        data["gate_input_ids"], data["gate_attention_mask"] = self.gate_inputs(instruction)
        return BatchFeature(data)


def _placeholder_id(tokenizer: Any) -> int:
    """A token that never stands in text; its embedding is overwritten wherever the prompt puts it."""
    vocabulary = tokenizer.get_vocab()
    for token in ("<|video_pad|>", "<|image_pad|>", "<|im_start|>"):
        if token in vocabulary:
            return int(vocabulary[token])
    return int(tokenizer.eos_token_id)


def _check(frames: Any, audio: Any) -> tuple[Frames | None, Audio | None]:
    """Both as arrays, or the reason why they cannot be used."""
    if frames is None and audio is None:
        raise InputError("processor: neither frames nor audio given; give at least one.")
    if frames is not None:
        frames = np.asarray(frames)
        rgb = frames.ndim == 4 and frames.shape[-1] == 3 and frames.size > 0
        if frames.dtype != np.uint8 or not rgb:
            raise InputError(
                f"frames: wanted (T, H, W, 3) uint8 RGB with T > 0, found {frames.shape} {frames.dtype}. "
                "Decode the clip with emostream.media, or reorder and scale its axes."
            )
    if audio is not None:
        audio = np.asarray(audio)
        if audio.dtype != np.float32 or audio.ndim != 1 or not audio.size:
            raise InputError(
                f"audio: wanted (S,) float32 mono at 16 kHz with S > 0, found {audio.shape} {audio.dtype}. "
                "Mix it down and divide integer samples by their full scale; pass None for no audio."
            )
        peak = float(np.abs(audio).max())
        if not peak <= PCM_LIMIT:  # NaN included
            raise InputError(
                f"audio: wanted samples in [-1, 1], found a magnitude of {peak:g}. "
                "Divide integer samples by their full scale."
            )
    return frames, audio


def _pad_left(row: Tensor, width: int, value: int = 0) -> Tensor:
    return torch.nn.functional.pad(row, (width - row.shape[1], 0), value=value)


def _stack_padded(rows: Sequence[Tensor | None], axis: int) -> Tensor:
    """(1, …) tensors to one batch, zero-padded along `axis`; absent rows are all zeros."""
    like = max((row for row in rows if row is not None), key=lambda row: row.shape[axis])
    out = like.new_zeros((len(rows), *like.shape[1:]))
    for index, row in enumerate(rows):
        if row is not None:
            out[index].narrow(axis - 1, 0, row.shape[axis]).copy_(row[0])
    return out

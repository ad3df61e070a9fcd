"""The seam between the streaming path and whatever runs the encoders: torch here, engines in `export`."""

from typing import Protocol

import torch
from torch import Tensor

from emostream.inference.cuda_graphs import GraphedRows
from emostream.model.connector import FrameFeatures
from emostream.model.modeling import EmostreamForCausalLM


class Encoders(Protocol):
    """Encoders and connector of one checkpoint.

    Inputs may lie on any device and are float32; outputs lie on `device` in the language model's dtype.

    Shape suffixes: N frames, S pixels a side, H language width, P patches and Q visual tokens a side, B clips,
    F mel bands, M mel frames, A audio tokens.

    Attributes:
        device: Where outputs lie.
        description: What really runs the networks, for people: package, version, provider, precision.
    """

    device: torch.device
    description: str

    def vision(self, pixels_N3SS: Tensor) -> FrameFeatures:
        """SigLIP and the per-frame connector stage of N frames."""
        ...

    def join(self, previous: FrameFeatures, current: FrameFeatures, gate_3: Tensor) -> Tensor:
        """(N, Q*Q, H) visual tokens of N frames, each with the frame before it (zero maps for none)."""
        ...

    def audio(self, mel_BFM: Tensor) -> Tensor:
        """(B, F, M) log-mel -> (B, A, H) audio tokens.

        Of a tower that is standardised, what its encoder gives, (B, S, D): the rest depends on who speaks, see
        `inference.voices`.
        """
        ...


class TorchEncoders:
    """The checkpoint's own modules; on a GPU as CUDA graphs, one for each power of two of frames and of clips."""

    def __init__(self, model: EmostreamForCausalLM):
        self._backbone = model.model
        self.device = model.device
        self.dtype = model.dtype
        name = str(self.dtype).removeprefix("torch.")
        self.description = f"torch {torch.__version__} {self.device} {name}"
        self._vision = GraphedRows(self._encode_frames, self.device)
        self._join = GraphedRows(self._join_frames, self.device)
        self._audio = GraphedRows(self._encode_audio, self.device)

    @torch.inference_mode()
    def vision(self, pixels_N3SS: Tensor) -> FrameFeatures:
        """See `Encoders.vision`."""
        return FrameFeatures(*self._vision([self._placed(pixels_N3SS)]))

    @torch.inference_mode()
    def join(self, previous: FrameFeatures, current: FrameFeatures, gate_3: Tensor) -> Tensor:
        """See `Encoders.join`."""
        return self._join([previous.maps, *current], gate_3)[0]

    @torch.inference_mode()
    def audio(self, mel_BFM: Tensor) -> Tensor:
        """See `Encoders.audio`."""
        return self._audio([self._placed(mel_BFM)])[0]

    def _placed(self, inputs: Tensor) -> Tensor:
        return inputs.to(self.device, self.dtype, non_blocking=True)

    def _encode_frames(self, pixels_N3SS: Tensor) -> tuple[Tensor, ...]:
        return self._backbone.mm_projector.frame(self._backbone.vision_tower(pixels_N3SS))

    def _join_frames(
        self, before_N2HPP: Tensor, maps_N2HPP: Tensor, face_NQH: Tensor, gate_3: Tensor
    ) -> tuple[Tensor, ...]:
        before, now = (FrameFeatures(maps, face_NQH) for maps in (before_N2HPP, maps_N2HPP))
        return (self._backbone.mm_projector.join(before, now, gate_3),)

    def _encode_audio(self, mel_BFM: Tensor) -> tuple[Tensor, ...]:
        if self._backbone.audio_tower.standardised:
            return (self._backbone.audio_tower.encode(mel_BFM),)
        return (self._backbone.audio_projector(self._backbone.audio(mel_BFM)),)

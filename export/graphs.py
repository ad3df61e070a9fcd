"""The three graphs that the streaming encoder needs, as modules that export to ONNX.

Inputs and outputs are float32 whatever the precision inside; the batch is dynamic, and of `audio` the length too.

Shape suffixes: N frames, S pixels a side, P patches and Q tokens a side, H language width, B clips, F mel bands,
M mel frames, A audio tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from emostream.configuration import EmostreamConfig
from emostream.connector import FrameFeatures
from emostream.modeling import EmostreamForCausalLM

OPSET = 20  # of 23's Attention, TensorRT 11 builds none in float32


class VisionGraph(nn.Module):
    """SigLIP to the selected layer and the connector's per-frame stage."""

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.tower, self.connector = model.model.vision_tower, model.model.mm_projector

    def forward(self, pixels_N3SS: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) -> maps (N, 2, H, P, P), face (N, Q*Q, H)."""
        maps, face = self.connector.frame(self.tower(pixels_N3SS))
        return maps.float(), face.float()


class JoinGraph(nn.Module):
    """The connector's temporal stage and readout."""

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.connector, self.dtype = model.model.mm_projector, model.dtype

    def forward(self, previous: Tensor, maps: Tensor, face: Tensor, gate_3: Tensor) -> Tensor:
        """Maps of the frames before, maps and face of the frames, (3,) gate -> (N, Q*Q, H)."""
        before = FrameFeatures(previous.to(self.dtype), face.to(self.dtype))
        now = FrameFeatures(maps.to(self.dtype), face.to(self.dtype))
        tokens: Tensor = self.connector.join(before, now, gate_3)
        return tokens.float()


class AudioGraph(nn.Module):
    """Whisper's encoder, pooling and projector."""

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.backbone = model.model

    def forward(self, mel_BFM: Tensor) -> Tensor:
        """(B, F, M) -> (B, A, H)."""
        tokens: Tensor = self.backbone.audio_projector(self.backbone.audio(mel_BFM))
        return tokens.float()


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """One graph of an export directory.

    Attributes:
        name: Of the file, without suffix.
        module: Makes the module.
        inputs: Input names.
        outputs: Output names.
        example: Random inputs for a batch size.
        dynamic: Dynamic dimensions of each input.
        batches: Batch sizes at which `verify` compares: least, usual, most.
    """

    name: str
    module: Callable[[EmostreamForCausalLM], nn.Module]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[EmostreamConfig, int], tuple[Tensor, ...]]
    dynamic: Callable[[EmostreamConfig], tuple[Any, ...]]
    batches: tuple[int, ...]


def _pixels(config: EmostreamConfig, batch: int) -> tuple[Tensor, ...]:
    side = config.vision_config.image_size
    return (torch.rand(batch, 3, side, side) * 2 - 1,)


def _frames(config: EmostreamConfig, batch: int) -> tuple[Tensor, ...]:
    side, width = config.patches_per_side, config.hidden_size
    maps = torch.randn(2, batch, 2, width, side, side)
    face = torch.randn(batch, ((side + 1) // 2) ** 2, width)
    return maps[0], maps[1], face, torch.tensor([0.3, 0.3, 0.4])


def _mel(config: EmostreamConfig, batch: int) -> tuple[Tensor, ...]:
    audio = config.audio_config
    # The longest context for the largest batch, a shorter one for the others: both are served.
    frames = 2 * audio.max_source_positions
    return (torch.randn(batch, audio.num_mel_bins, frames if batch == 1 else frames // 4 * 2),)


N = Dim("n", min=1, max=512)
GRAPHS = (
    Graph(
        name="vision",
        module=VisionGraph,
        inputs=("pixels",),
        outputs=("maps", "face"),
        example=_pixels,
        dynamic=lambda config: ({0: N},),
        batches=(1, 8, 16),
    ),
    Graph(
        name="join",
        module=JoinGraph,
        inputs=("previous", "maps", "face", "gate"),
        outputs=("tokens",),
        example=_frames,
        dynamic=lambda config: ({0: N}, {0: N}, {0: N}, {}),
        batches=(1, 2, 16),
    ),
    Graph(
        name="audio",
        module=AudioGraph,
        inputs=("mel",),
        outputs=("tokens",),
        example=_mel,
        dynamic=lambda config: (
            {0: N, 2: 2 * Dim("steps", min=8, max=config.audio_config.max_source_positions)},
        ),
        batches=(1, 2, 4),
    ),
)

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

from emostream.model.configuration import EmostreamConfig
from emostream.model.connector import FrameFeatures
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.towers import pool_audio

OPSET = 20  # of 23's Attention, TensorRT 11 builds none in float32
SMALLEST_CONTEXT = 16  # mel frames


class VisionGraph(nn.Module):
    """SigLIP to the selected layer and the connector's per-frame stage."""

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.tower, self.connector = model.model.vision_tower, model.model.mm_projector

    def forward(self, pixels_N3SS: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) -> maps (N, 2, H, P, P), face (N, Q*Q, H)."""
        dtype = _dtype(self.connector)
        maps, face = self.connector.frame(self.tower(pixels_N3SS.to(dtype)))
        return maps.float(), face.float()


class JoinGraph(nn.Module):
    """The connector's temporal stage and readout."""

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.connector = model.model.mm_projector

    def forward(self, previous: Tensor, maps: Tensor, face: Tensor, gate_3: Tensor) -> Tensor:
        """Maps of the frames before, maps and face of the frames, (3,) gate -> (N, Q*Q, H)."""
        dtype = _dtype(self.connector)
        before = FrameFeatures(previous.to(dtype), face.to(dtype))
        now = FrameFeatures(maps.to(dtype), face.to(dtype))
        tokens: Tensor = self.connector.join(before, now, gate_3)
        return tokens.float()


class AudioGraph(nn.Module):
    """Whisper's encoder, pooling and projector; of a tower that is standardised, the encoder alone.

    What is behind it depends on who speaks, and is small: torch runs it (`emostream.inference.voices`).
    """

    def __init__(self, model: EmostreamForCausalLM):
        super().__init__()
        self.tower, self.projector = model.model.audio_tower, model.model.audio_projector

    def forward(self, mel_BFM: Tensor) -> Tensor:
        """(B, F, M) -> (B, A, H), or (B, S, D)."""
        if self.tower.standardised:
            return self.tower.encode(mel_BFM).float()
        tokens: Tensor = self.projector(pool_audio(self.tower(mel_BFM)))
        return tokens.float()


def _dtype(module: nn.Module) -> torch.dtype:
    """Of its parameters: float32 of the model, or what a copy of it was cast to."""
    return next(module.parameters()).dtype


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A size at which a graph is compared and measured.

    Attributes:
        name: `min`, `opt` or `max`.
        batch: Frames, pairs or clips.
        short: Whether audio has a short context (a sixth of the longest) instead of the longest.
    """

    name: str
    batch: int
    short: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """One graph of an export directory.

    Attributes:
        name: Of the file, without suffix.
        module: Makes the module.
        outputs: Output names.
        shapes: Shapes of the inputs, by name, for a batch size and a number of mel frames.
        dynamic: Dynamic dimensions of each input.
        cases: Sizes at which `verify` compares: least, usual, most.
    """

    name: str
    module: Callable[[EmostreamForCausalLM], nn.Module]
    outputs: tuple[str, ...]
    shapes: Callable[[EmostreamConfig, int, int], Shapes]
    dynamic: Callable[[EmostreamConfig], tuple[Any, ...]]
    cases: tuple[Case, ...]

    def inputs(self, config: EmostreamConfig) -> tuple[str, ...]:
        """Input names, in order."""
        return tuple(self.shapes(config, 1, SMALLEST_CONTEXT))

    def case_shapes(self, config: EmostreamConfig, case: Case) -> Shapes:
        """Shapes of the inputs of a case."""
        return self.shapes(config, case.batch, context_frames(config, short=case.short))

    def example(self, config: EmostreamConfig, case: Case) -> tuple[Tensor, ...]:
        """Random inputs in the range of real ones, the same each time."""
        generator = torch.Generator().manual_seed(case.batch)
        out = []
        for name, shape in self.case_shapes(config, case).items():
            if name == "gate":
                out.append(torch.tensor([0.3, 0.3, 0.4]))
            elif name == "pixels":
                out.append(torch.rand(shape, generator=generator) * 2 - 1)
            else:
                out.append(torch.randn(shape, generator=generator))
        return tuple(out)


def context_frames(config: EmostreamConfig, *, short: bool) -> int:
    """Mel frames of the longest audio context, or of a short one: 5 s of Whisper's 30."""
    positions = config.audio_config.max_source_positions
    return max(SMALLEST_CONTEXT, positions // 6 * 2) if short else 2 * positions


def _vision(config: EmostreamConfig, batch: int, mel_frames: int) -> Shapes:
    del mel_frames
    side = config.vision_config.image_size
    return {"pixels": (batch, 3, side, side)}


def _join(config: EmostreamConfig, batch: int, mel_frames: int) -> Shapes:
    del mel_frames
    side, width = config.patches_per_side, config.hidden_size
    maps = (batch, 2, width, side, side)
    face = (batch, ((side + 1) // 2) ** 2, width)
    return {"previous": maps, "maps": maps, "face": face, "gate": (3,)}


def _audio(config: EmostreamConfig, batch: int, mel_frames: int) -> Shapes:
    return {"mel": (batch, config.audio_config.num_mel_bins, mel_frames)}


N = Dim("n", min=1, max=512)
GRAPHS = (
    Graph(
        name="vision",
        module=VisionGraph,
        outputs=("maps", "face"),
        shapes=_vision,
        dynamic=lambda config: ({0: N},),
        cases=(Case(name="min", batch=1), Case(name="opt", batch=8), Case(name="max", batch=16)),
    ),
    Graph(
        name="join",
        module=JoinGraph,
        outputs=("tokens",),
        shapes=_join,
        dynamic=lambda config: ({0: N}, {0: N}, {0: N}, {}),
        cases=(Case(name="min", batch=1), Case(name="opt", batch=2), Case(name="max", batch=16)),
    ),
    Graph(
        name="audio",
        module=AudioGraph,
        outputs=("tokens",),
        shapes=_audio,
        dynamic=lambda config: (
            {
                0: N,
                2: 2
                * Dim(
                    "steps",
                    min=SMALLEST_CONTEXT // 2,
                    max=config.audio_config.max_source_positions,
                ),
            },
        ),
        cases=(
            Case(name="min", batch=1, short=True),
            Case(name="opt", batch=1),
            Case(name="max", batch=2),
        ),
    ),
)

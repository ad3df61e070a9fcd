"""A graph on buffers that stay where they are, one set for each set of shapes, so that CUDA graphs can replay it.

The batch is padded to a power of two: few sets are met, whatever number of frames a hop brings. Rows do not see one
another, so what the padding holds does not matter.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emostream.inference.cuda_graphs import padded

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Buffers:
    """One set of shapes.

    Attributes:
        inputs: Float32, in order; a run reads them.
        outputs: Float32, in order; a run fills them.
        replay: A run.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    replay: Callable[[], None]


class BufferedGraph(ABC):
    """Torch tensors in and out, without a copy through the host.

    Args:
        batched: Of each input, whether its first dimension is the batch.
        largest: Rows at once; a larger batch is run in parts.
        device: Of the buffers.
        stream: CUDA stream that everything runs on; None on the CPU.
    """

    def __init__(
        self,
        batched: Sequence[bool],
        largest: int,
        device: torch.device,
        stream: "torch.cuda.Stream | None",
    ):
        self._batched, self._largest = batched, largest
        self._device, self._stream = device, stream
        self._buffers: dict[tuple[Shape, ...], Buffers] = {}

    @abstractmethod
    def _make(self, shapes: tuple[Shape, ...]) -> Buffers:
        """Buffers for inputs of these shapes, on the graph's stream."""

    @property
    def shapes(self) -> int:
        """How many sets of shapes have buffers (and on a GPU a CUDA graph) of their own."""
        return len(self._buffers)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs in float32, one row for each row of the batch."""
        rows = self._rows(inputs)
        parts = [
            self._run(
                [
                    value[start : start + self._largest] if batched else value
                    for value, batched in zip(inputs, self._batched, strict=True)
                ]
            )
            for start in range(0, rows, self._largest)
        ]
        return (
            parts[0] if len(parts) == 1 else [torch.cat(part) for part in zip(*parts, strict=True)]
        )

    def _rows(self, inputs: Sequence[Tensor]) -> int:
        return next(len(v) for v, batched in zip(inputs, self._batched, strict=True) if batched)

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        rows = self._rows(inputs)
        with contextlib.ExitStack() as stack:
            if self._stream is not None:
                caller = torch.cuda.current_stream(self._device)
                self._stream.wait_stream(caller)
                stack.enter_context(torch.cuda.stream(self._stream))
            buffers = self._buffers_for(inputs)
            for buffer, value, batched in zip(buffers.inputs, inputs, self._batched, strict=True):
                (buffer[:rows] if batched else buffer).copy_(value)
                if self._stream is not None and value.is_cuda:
                    value.record_stream(self._stream)
            buffers.replay()
            found = [output[:rows].clone() for output in buffers.outputs]
        if self._stream is not None:
            caller.wait_stream(self._stream)
            for tensor in found:
                tensor.record_stream(caller)
        return found

    def _buffers_for(self, inputs: Sequence[Tensor]) -> Buffers:
        rows = padded(self._rows(inputs), self._largest)
        shapes = tuple(
            (rows, *value.shape[1:]) if batched else tuple(value.shape)
            for value, batched in zip(inputs, self._batched, strict=True)
        )
        if shapes not in self._buffers:
            self._buffers[shapes] = self._make(shapes)
        return self._buffers[shapes]

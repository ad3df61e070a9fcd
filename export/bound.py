"""An ONNX Runtime session with buffers that stay where they are, so that CUDA graphs can replay it.

The batch is padded to a power of two: few graphs are captured, whatever number of frames a hop brings. Rows do not
see one another, so what the padding holds does not matter.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LARGEST_BATCH = 32


@dataclass(slots=True)
class _Bucket:
    inputs: list[Tensor]
    outputs: list[Tensor]
    binding: Any
    options: Any


class BoundGraph:
    """One graph; torch tensors in and out, without a copy through the host.

    Args:
        onnxruntime: The module.
        session: On the provider of `device`.
        device: Of the buffers.
        stream: The CUDA stream that the session was given; None on the CPU.
    """

    def __init__(
        self,
        onnxruntime: Any,
        session: Any,
        device: torch.device,
        stream: "torch.cuda.Stream | None" = None,
    ):
        self._onnxruntime, self._session = onnxruntime, session
        self._device, self._stream = device, stream
        self._names = [value.name for value in session.get_inputs()]
        self._outputs = [value.name for value in session.get_outputs()]
        self._batched = [isinstance(value.shape[0], str) for value in session.get_inputs()]
        self._buckets: dict[tuple[tuple[int, ...], ...], _Bucket] = {}

    @property
    def shapes(self) -> int:
        """How many sets of shapes have buffers (and on a GPU a CUDA graph) of their own."""
        return len(self._buckets)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs in float32, one row for each row of the batch."""
        rows = next(len(t) for t, batched in zip(inputs, self._batched, strict=True) if batched)
        parts = [
            self._run(
                [
                    t[start : start + LARGEST_BATCH] if batched else t
                    for t, batched in zip(inputs, self._batched, strict=True)
                ]
            )
            for start in range(0, rows, LARGEST_BATCH)
        ]
        return (
            parts[0] if len(parts) == 1 else [torch.cat(part) for part in zip(*parts, strict=True)]
        )

    def _run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        rows = next(len(t) for t, batched in zip(inputs, self._batched, strict=True) if batched)
        with contextlib.ExitStack() as stack:
            if self._stream is not None:
                caller = torch.cuda.current_stream(self._device)
                self._stream.wait_stream(caller)
                stack.enter_context(torch.cuda.stream(self._stream))
            bucket = self._bucket(inputs)
            for buffer, value, batched in zip(bucket.inputs, inputs, self._batched, strict=True):
                (buffer[: len(value)] if batched else buffer).copy_(value)
            self._session.run_with_iobinding(bucket.binding, bucket.options)
            found = [output[:rows].clone() for output in bucket.outputs]
        if self._stream is not None:
            caller.wait_stream(self._stream)
            for tensor in found:
                tensor.record_stream(caller)
        return found

    def _bucket(self, inputs: Sequence[Tensor]) -> _Bucket:
        shapes = tuple(
            (padded(value.shape[0]), *value.shape[1:]) if batched else tuple(value.shape)
            for value, batched in zip(inputs, self._batched, strict=True)
        )
        if shapes not in self._buckets:
            self._buckets[shapes] = self._allocate(shapes, len(self._buckets))
        return self._buckets[shapes]

    def _allocate(self, shapes: tuple[tuple[int, ...], ...], number: int) -> _Bucket:
        """Buffers for these shapes; those of the outputs are learnt from a run that captures nothing."""
        buffers = [torch.zeros(shape, device=self._device) for shape in shapes]
        binding = self._bind(buffers)
        for name in self._outputs:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        self._session.run_with_iobinding(binding, self._options(-1))
        outputs = [
            torch.empty(value.shape(), device=self._device) for value in binding.get_outputs()
        ]
        binding = self._bind(buffers)
        for name, buffer in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, *self._place(buffer))
        return _Bucket(buffers, outputs, binding, self._options(number + 1))

    def _bind(self, buffers: Sequence[Tensor]) -> Any:
        binding = self._session.io_binding()
        for name, buffer in zip(self._names, buffers, strict=True):
            binding.bind_input(name, *self._place(buffer))
        return binding

    def _place(self, buffer: Tensor) -> tuple[str, int, Any, tuple[int, ...], int]:
        device, shape = self._device, tuple(buffer.shape)
        return device.type, device.index or 0, np.float32, shape, buffer.data_ptr()

    def _options(self, graph_id: int) -> Any:
        """ONNX Runtime keeps a CUDA graph for each id; with -1 it captures none."""
        options = self._onnxruntime.RunOptions()
        if self._device.type == "cuda":
            options.add_run_config_entry("gpu_graph_id", str(graph_id))
        return options


def padded(rows: int) -> int:
    """The next power of two."""
    return 1 << (rows - 1).bit_length()

"""An ONNX Runtime session with its inputs and outputs bound to buffers that stay where they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.buffered import BufferedGraph, Buffers, Shape

LARGEST_BATCH = 32


class BoundGraph(BufferedGraph):
    """One graph.

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
        inputs = session.get_inputs()
        super().__init__(
            [isinstance(value.shape[0], str) for value in inputs], LARGEST_BATCH, device, stream
        )
        self._onnxruntime, self._session = onnxruntime, session
        self._names = [value.name for value in inputs]
        self._outputs = [value.name for value in session.get_outputs()]

    def _make(self, shapes: tuple[Shape, ...]) -> Buffers:
        """Those of the outputs are learnt from a run that captures nothing."""
        inputs = [torch.zeros(shape, device=self._device) for shape in shapes]
        binding = self._bind(inputs)
        for name in self._outputs:
            binding.bind_output(name, self._device.type, self._device.index or 0)
        self._session.run_with_iobinding(binding, self._options(-1))
        outputs = [
            torch.empty(value.shape(), device=self._device) for value in binding.get_outputs()
        ]
        bound = self._bind(inputs)
        for name, buffer in zip(self._outputs, outputs, strict=True):
            bound.bind_output(name, *self._place(buffer))
        options = self._options(self.shapes + 1)
        return Buffers(inputs, outputs, lambda: self._session.run_with_iobinding(bound, options))

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

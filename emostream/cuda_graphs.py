"""Replay of fixed-shape computations on a GPU, where launching kernels one by one would cost more than running them."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

#: Eager runs before a capture: lazy initialisation and autotuning must not be recorded.
WARM_UP_RUNS = 3


class GraphedFunction:
    """A function of tensors, captured once for each key and replayed from then on; plain calls off the GPU.

    The function must keep to fixed shapes for one key, write only to memory that outlives it, give the same result when
    run again on the same inputs, and never look at a tensor's value from the host.

    Args:
        function: Takes tensors, returns one tensor.
        device: Graphs are used if it is a CUDA device.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device):
        self._function = function
        self._enabled = device.type == "cuda"
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, key: Hashable, *inputs: Tensor) -> Tensor:
        """Run on `inputs`; on a GPU the result is overwritten by the next call with the same key."""
        if not self._enabled:
            return self._function(*inputs)
        if key not in self._graphs:
            self._graphs[key] = self._capture(inputs)
        graph, buffers, output = self._graphs[key]
        for buffer, value in zip(buffers, inputs, strict=True):
            buffer.copy_(value, non_blocking=True)
        graph.replay()
        return output

    def clear(self) -> None:
        """Forget all captures; needed when memory that the function writes to has moved."""
        self._graphs.clear()

    def _capture(
        self, inputs: tuple[Tensor, ...]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        buffers = [value.clone() for value in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._function(*buffers)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._function(*buffers)
        return graph, buffers, output

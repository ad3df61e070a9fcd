"""Replay of fixed-shape computations on a GPU, where launching kernels one by one would cost more than running them."""

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

#: Eager runs before a capture: lazy initialisation and autotuning must not be recorded.
WARM_UP_RUNS = 3
#: A larger batch takes so long that launching kernels no longer matters.
MOST_GRAPHED_ROWS = 64

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])


class GraphedFunction(Generic[Output]):
    """A function of tensors, captured once for each key and replayed from then on; plain calls off the GPU.

    The function must keep to fixed shapes for one key, write only to memory that outlives it, give the same result when
    run again on the same inputs, and never look at a tensor's value from the host.

    Args:
        function: Takes tensors, returns a tensor or several.
        device: Graphs are used if it is a CUDA device.
    """

    def __init__(self, function: Callable[..., Output], device: torch.device):
        self._function: Callable[..., Output] = function
        self._enabled = device.type == "cuda"
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, list[Tensor], Output]] = {}

    def __call__(self, key: Hashable, *inputs: Tensor) -> Output:
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
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Output]:
        buffers = [value.clone() for value in inputs]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._function(*buffers)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with _no_collection(), torch.cuda.graph(graph):
            output = self._function(*buffers)
        return graph, buffers, output


@contextmanager
def _no_collection() -> Iterator[None]:
    """Graphs that the garbage collector frees while another is captured spoil it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class GraphedRows:
    """A function of rows that do not see one another, replayed at batch sizes of powers of two; plain off the GPU.

    Args:
        function: Takes tensors, returns several, of which each holds a row for each row of the batch.
        device: Graphs are used if it is a CUDA device.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], device: torch.device):
        self._function = function
        self._graphed = GraphedFunction(function, device) if device.type == "cuda" else None

    def __call__(self, batch: Sequence[Tensor], *shared: Tensor) -> tuple[Tensor, ...]:
        """Run on tensors of B rows each, and tensors that all rows share; the results are the caller's."""
        rows = len(batch[0])
        if self._graphed is None or rows > MOST_GRAPHED_ROWS:
            return self._function(*batch, *shared)
        missing = padded(rows, MOST_GRAPHED_ROWS) - rows
        whole = [F.pad(x, [0] * (2 * x.ndim - 1) + [missing]) if missing else x for x in batch]
        out = self._graphed(tuple(x.shape for x in whole), *whole, *shared)
        return tuple(x[:rows].clone() for x in out)


def padded(rows: int, largest: int) -> int:
    """The next power of two, `largest` at most."""
    return min(1 << (rows - 1).bit_length(), largest)

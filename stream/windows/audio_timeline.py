"""Sound by its place on the sample raster of the source clock, with its gaps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1600  # samples; 100 ms
NO_GAP = slice(0, 0)


def gap_of(pcm: NDArray[np.float32], gap: int) -> slice:
    """Where in a chunk, float32 (S,), its `gap` lacking samples are: at its quieter end."""
    if gap == 0:
        return NO_GAP
    size = pcm.size
    head, tail = np.abs(pcm[:gap]).sum(), np.abs(pcm[size - gap :]).sum()
    return slice(size - gap, size) if tail <= head else slice(0, gap)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What is known of a stretch of sound.

    Attributes:
        pcm: float32 (S,), zeros where nothing was captured.
        gap: samples of `pcm` that were not captured.
        end: index after the newest captured sample in the stretch, None if all is a gap.
    """

    pcm: NDArray[np.float32]
    gap: int
    end: int | None


class AudioTimeline:
    """Samples by absolute index, written in any order; what is written twice counts once, and the later value stays.

    Memory is in proportion to what was written and not yet forgotten, however far apart it lies.

    Attributes:
        end: index after the newest sample ever written, None before the first.
    """

    def __init__(self) -> None:
        self.end: int | None = None
        self._blocks: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}

    def write(self, start: int, pcm: NDArray[np.float32], gap: slice = NO_GAP) -> None:
        """Store float32 (S,) samples, the first of which has index `start`.

        Those within `gap` stand for sound that the medium lacks: they are kept, but do not count as captured.
        """
        if pcm.size == 0:
            return
        stop = start + pcm.size
        self.end = stop if self.end is None else max(self.end, stop)
        captured = np.ones(pcm.size, np.bool_)
        captured[gap] = False
        for number in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            samples, known = self._blocks.get(number) or self._new_block(number)
            first = number * _BLOCK
            low, high = max(start, first), min(stop, first + _BLOCK)
            here, there = slice(low - first, high - first), slice(low - start, high - start)
            write = captured[there] | ~known[here]  # a gap never hides what was captured
            np.copyto(samples[here], pcm[there], where=write)
            known[here] |= captured[there]

    def read(self, start: int, stop: int) -> Stretch:
        """Samples `start` to `stop` - 1."""
        pcm = np.zeros(stop - start, np.float32)
        captured = 0
        end = None
        for number in range(start // _BLOCK, (stop - 1) // _BLOCK + 1):
            block = self._blocks.get(number)
            if block is None:
                continue
            first = number * _BLOCK
            low, high = max(start, first), min(stop, first + _BLOCK)
            pcm[low - start : high - start] = block[0][low - first : high - first]
            known = np.flatnonzero(block[1][low - first : high - first])
            captured += known.size
            if known.size:
                end = low + int(known[-1]) + 1
        return Stretch(pcm, stop - start - captured, end)

    def forget(self, before: int) -> None:
        """Release what lies wholly before index `before`."""
        for number in [n for n in self._blocks if (n + 1) * _BLOCK <= before]:
            del self._blocks[number]

    def _new_block(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        block = (np.zeros(_BLOCK, np.float32), np.zeros(_BLOCK, np.bool_))
        self._blocks[number] = block
        return block

"""Bootstrap intervals (Efron & Tibshirani 1993) of figures over clips, of several seeds, and of differences.

Every figure here is a ratio of sums over clips, or made of such ratios, so it is a function of how often each clip was
drawn. Runs that saw the same clips are resampled together: their differences are paired, which is what makes them
narrow. Several seeds of one recipe are resampled too, crossed with the clips, since they were all tested on the same.

Shape suffixes: S samples, N clips, K classes or whatever else is averaged over, R runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLES: Final = 1000
LEVEL: Final = 0.95

Floats = NDArray[np.float64]
Figure = Callable[[Floats], Floats]
"""(S, N) how often each clip was drawn -> (S,) values; NaN where there is nothing to divide by."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The mean, over K groups, of a ratio of sums over clips; a group that was not drawn is left out.

    Attributes:
        above_NK: What each clip adds to the numerators.
        below_NK: What it adds to the denominators.
    """

    above_NK: Floats
    below_NK: Floats

    def __call__(self, drawn_SN: Floats) -> Floats:
        """See `Figure`."""
        above_SK, below_SK = drawn_SN @ self.above_NK, drawn_SN @ self.below_NK
        there_SK = below_SK > 0
        ratio_SK = np.divide(above_SK, below_SK, out=np.zeros_like(above_SK), where=there_SK)
        groups_S = there_SK.sum(1)
        out = np.full(len(groups_S), np.nan)
        return np.divide(ratio_SK.sum(1), groups_S, out=out, where=groups_S > 0)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: The figure, its mean over the runs; None if there is nothing to divide by.
        interval: Lower and upper bound; None likewise.
    """

    value: float | None
    interval: tuple[float, float] | None


def draws(clips: int, samples: int = SAMPLES, seed: int = 0) -> Floats:
    """(S, N) how often each clip is drawn when N are drawn with replacement; the same for the same arguments."""
    generator = np.random.default_rng([seed, clips])
    return generator.multinomial(clips, np.full(clips, 1 / clips), size=samples).astype(float)


def estimate(runs: Sequence[Figure], drawn_SN: Floats) -> Estimate:
    """The mean of a figure over runs, with an interval over clips and, if there are several, runs.

    Args:
        runs: The figure of each run, all on the same clips.
        drawn_SN: From `draws`.
    """
    value, values_S = _resampled(runs, drawn_SN, np.random.default_rng([0, 1]))
    return Estimate(value, _interval(values_S)) if np.isfinite(value) else Estimate(None, None)


def difference(ours: Sequence[Figure], theirs: Sequence[Figure], drawn_SN: Floats) -> Estimate:
    """How much greater a figure is in our runs than in theirs, all on the same clips: see `estimate`."""
    generator = np.random.default_rng([0, 2])
    (mine, mine_S), (other, other_S) = (
        _resampled(runs, drawn_SN, generator) for runs in (ours, theirs)
    )
    value = mine - other
    if not np.isfinite(value):
        return Estimate(None, None)
    return Estimate(float(value), _interval(mine_S - other_S))


def _resampled(
    runs: Sequence[Figure], drawn_SN: Floats, generator: np.random.Generator
) -> tuple[float, Floats]:
    """The mean over runs on all clips, and on each sample of clips and runs."""
    whole_1N = np.ones((1, drawn_SN.shape[1]))
    value = float(np.mean([run(whole_1N)[0] for run in runs]))
    values_RS = np.stack([run(drawn_SN) for run in runs])
    picked_RS = generator.integers(len(runs), size=values_RS.shape)
    return value, np.take_along_axis(values_RS, picked_RS, 0).mean(0)


def _interval(values_S: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(values_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

"""The Liljencrants-Fant model of the glottal flow derivative, in Fant's (1995) one-parameter form.

Fant, Liljencrants & Lin (1985), "A four-parameter model of glottal flow", STL-QPSR; Fant (1995), "The LF-model
revisited", STL-QPSR: Rd fixes Ra, Rk and Rg by regression.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

RD_MIN, RD_MAX = 0.4, 2.7
_RD_STEPS = 24
PHASES = 512


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    rising = f(high) > f(low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (f(middle) > 0) == rising:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


def lf_pulse(rd: float, phases: int = PHASES) -> NDArray[np.float64]:
    """One period of flow derivative for shape `rd`, (phases,), negative peak -1, zero net flow."""
    ra = max((-1 + 4.8 * rd) / 100, 1e-3)
    rk = (22.4 + 11.8 * rd) / 100
    rg = 1 / (4 * ((0.11 * rd / (0.5 + 1.2 * rk)) - ra) / rk)
    tp = 1 / (2 * rg)
    te = min(tp * (1 + rk), 0.95)
    tb = 1 - te
    omega = np.pi / tp
    # The return phase decays to zero exactly at the end of the period.
    epsilon = _bisect(lambda e: e * ra - (1 - np.exp(-e * tb)), 0.1 / ra, 2 / ra)
    back = -((1 - np.exp(-epsilon * tb)) / epsilon - tb * np.exp(-epsilon * tb)) / (epsilon * ra)

    def net_flow(alpha: float) -> float:
        """Area of the open phase (closed form, E0 set so that E(te) = -1) plus the return's."""
        e0 = -1 / (np.exp(alpha * te) * np.sin(omega * te))
        area = (
            np.exp(alpha * te) * (alpha * np.sin(omega * te) - omega * np.cos(omega * te)) + omega
        )
        return float(e0 * area / (alpha**2 + omega**2) + back)

    alpha = _bisect(net_flow, -40.0, 60.0)
    t = np.arange(phases) / phases
    e0 = -1 / (np.exp(alpha * te) * np.sin(omega * te))
    opening = e0 * np.exp(alpha * t) * np.sin(omega * t)
    closing = -(np.exp(-epsilon * (t - te)) - np.exp(-epsilon * tb)) / (epsilon * ra)
    pulse = np.where(t < te, opening, closing)
    return np.asarray(pulse - pulse.mean())


@cache
def lf_table() -> NDArray[np.float32]:
    """(24, PHASES + 1) pulses for Rd from `RD_MIN` to `RD_MAX`; the last column repeats the first."""
    rows = [lf_pulse(rd) for rd in np.linspace(RD_MIN, RD_MAX, _RD_STEPS)]
    table = np.asarray(rows, dtype=np.float32)
    return np.concatenate([table, table[:, :1]], axis=1)


def glottal_source(phase: NDArray[np.float64], rd: NDArray[np.float64]) -> NDArray[np.float32]:
    """Flow derivative at each sample, (S,).

    Args:
        phase: (S,) glottal phase in cycles, increasing.
        rd: (S,) shape.
    """
    table = lf_table()
    column = (phase - np.floor(phase)) * PHASES
    row = np.clip((rd - RD_MIN) / (RD_MAX - RD_MIN), 0, 1) * (_RD_STEPS - 1)
    i = np.minimum(column.astype(np.int32), PHASES - 1)
    j = np.rint(row).astype(np.int32)
    flat = table.ravel()
    at = j * (PHASES + 1) + i
    weight = (column - i).astype(np.float32)
    return np.asarray(flat[at] * (1 - weight) + flat[at + 1] * weight)

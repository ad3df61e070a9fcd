"""Random draws that are kept, and made again with other arguments: a changed clip keeps what was not changed."""

from collections import defaultdict
from typing import Any, Final, cast

import numpy as np

#: Place of the size among the arguments of a generator's method, where it may be given by place.
_SIZE_AT: Final = {
    "random": 0,
    "standard_normal": 0,
    "uniform": 2,
    "normal": 2,
    "choice": 1,
    "integers": 2,
}

Kept = dict[tuple[Any, ...], list[Any]]
"""What is drawn (method and arguments, the size aside) -> the results, in order."""


class _Recorder:
    def __init__(self, generator: np.random.Generator, kept: Kept):
        self._generator, self._kept = generator, kept

    def __getattr__(self, name: str) -> Any:
        draw = getattr(self._generator, name)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            out = draw(*args, **kwargs)
            self._kept.setdefault(_meaning(name, args, out), []).append(out)
            return out

        return recorded


class _Repeater:
    def __init__(self, generator: np.random.Generator, kept: Kept):
        self._generator, self._kept = generator, kept
        self._asked: dict[tuple[Any, ...], int] = defaultdict(int)

    def __getattr__(self, name: str) -> Any:
        draw = getattr(self._generator, name)

        def repeated(*args: Any, **kwargs: Any) -> Any:
            out = draw(*args, **kwargs)
            meaning = _meaning(name, args, out)
            number = self._asked[meaning]
            self._asked[meaning] += 1
            before = self._kept.get(meaning, [])
            if number >= len(before):
                return out
            if np.shape(before[number]) == np.shape(out):
                return before[number]
            if name == "dirichlet":  # shares of a whole: other parts are another draw
                return out
            same = min(len(before[number]), len(out))
            out[:same] = before[number][:same]
            return out

        return repeated


def recording(generator: np.random.Generator, kept: Kept) -> np.random.Generator:
    """A generator like the one given, whose draws are added to `kept`."""
    return cast(np.random.Generator, _Recorder(generator, kept))


def repeating(kept: Kept, more: np.random.Generator) -> np.random.Generator:
    """A generator that gives the draws of `kept` again.

    The n-th draw of a kind is the n-th one kept of that kind, whatever else was drawn in between; where more is asked
    for than was kept, the rest comes from `more`.
    """
    return cast(np.random.Generator, _Repeater(more, kept))


def _meaning(name: str, args: tuple[Any, ...], out: Any) -> tuple[Any, ...]:
    at = _SIZE_AT.get(name)
    fixed = [arg for place, arg in enumerate(args) if place != at]
    if name == "dirichlet":
        fixed = [float(fixed[0][0])]
    return (name, np.ndim(out) > 0, *map(str, fixed))

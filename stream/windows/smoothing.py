"""The rolling label: exponential smoothing in time, and a label that does not flicker."""

import math
from collections.abc import Mapping

from emostream.errors import ConfigError
from stream.pubsub.messages import Smoothed


class Rolling:
    """Smooths label scores of one source.

    Scores are averaged with weight 1 - exp(-dt / time_constant_s), so the result depends on elapsed time and not on how
    many hops it took. The label changes only when another one leads the held one by `hysteresis`.

    Args:
        time_constant_s: Seconds after which a step has been followed to 63 %; 0 for no smoothing.
        hysteresis: Lead in smoothed probability that a new label needs.
    """

    def __init__(self, time_constant_s: float = 1.0, hysteresis: float = 0.1):
        if time_constant_s < 0 or not 0 <= hysteresis < 1:
            raise ConfigError(
                f"smoothing: time constant {time_constant_s} s and hysteresis {hysteresis}; wanted >= 0 and in [0, 1)."
            )
        self._time_constant_s = time_constant_s
        self._hysteresis = hysteresis
        self._scores: dict[str, float] = {}
        self._label = ""
        self._time_s = 0.0
        self._whose: int | None = None

    def update(
        self, time_s: float, scores: Mapping[str, float], whose: int | None = None
    ) -> Smoothed:
        """Take the scores of a window.

        Args:
            time_s: Its end, source clock.
            scores: Of its labels.
            whose: Number of the person whose they are, None if unknown; with another person it begins anew.

        Returns:
            The rolling state.
        """
        if whose is not None:
            if self._whose not in (None, whose):
                self._scores = {}
            self._whose = whose
        if not self._scores:
            self._scores = dict(scores)
            self._label = max(scores, key=scores.__getitem__)
        else:
            elapsed_s = max(0.0, time_s - self._time_s)
            weight = 1.0
            if self._time_constant_s > 0:
                weight = 1 - math.exp(-elapsed_s / self._time_constant_s)
            self._scores = {
                label: old + weight * (scores[label] - old) for label, old in self._scores.items()
            }
            leader = max(self._scores, key=self._scores.__getitem__)
            if self._scores[leader] - self._scores[self._label] > self._hysteresis:
                self._label = leader
        self._time_s = time_s
        # Averaging rounds: a probability must not leave [0, 1] by it.
        return Smoothed(
            label=self._label,
            scores={label: min(1.0, max(0.0, p)) for label, p in self._scores.items()},
        )

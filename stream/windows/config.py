"""What the command line decides about windows and answers; light to import, so that mistakes are found at once."""

from dataclasses import dataclass

from emostream.checkpoint.shipped import DEFAULT_MODEL
from emostream.errors import ConfigError
from emostream.people.limits import MOST_PEOPLE


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceConfig:
    """How windows are cut and answers are given.

    Attributes:
        window_s: Length of a window.
        num_frames: Frames in it.
        hop_steps: Grid steps from one window to the next.
        reason_every_s: Seconds of source time between reasonings; 0 for none. A change of the smoothed label starts
            one too.
        smoothing_s: Time constant of the rolling label.
        hysteresis: Lead in probability that a new rolling label needs.
        people: How many people are looked for, `MOST_PEOPLE` at most: 1 is the one in front. What nobody is in is left
            out of a window. 0: every window is judged as it is.
        model_name: As published in every label.
    """

    window_s: float = 4.0
    num_frames: int = 8
    hop_steps: int = 1
    reason_every_s: float = 5.0
    smoothing_s: float = 1.0
    hysteresis: float = 0.1
    people: int = 0
    model_name: str = DEFAULT_MODEL

    def __post_init__(self) -> None:
        if not self.window_s > 0 or self.num_frames < 1 or self.hop_steps < 1:
            raise ConfigError(
                f"run: window of {self.window_s} s, {self.num_frames} frames, hop of {self.hop_steps} steps; "
                "all must be above 0."
            )
        if not 0 <= self.people <= MOST_PEOPLE:
            raise ConfigError(
                f"run: --people is {self.people}; wanted 1 to {MOST_PEOPLE}, all for as many, or 0 to look for nobody."
            )
        if self.reason_every_s < 0:
            raise ConfigError(
                f"run: --reason-every-s is {self.reason_every_s}; wanted 0 (off) or more."
            )

    @property
    def step_s(self) -> float:
        """Seconds between grid points."""
        return self.window_s / self.num_frames

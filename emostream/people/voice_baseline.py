"""One person's baseline: running statistics of a voice, by which the audio tower's features are standardised.

A voice says how somebody feels by how it differs from how he usually sounds. What he usually sounds like is learned
from his speech; until there is some, everybody's statistics stand in for it.

B clips, F mel bands, M mel frames of 10 ms, S = M/2 encoder steps of 20 ms, D tower width.
"""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

STEP_S: Final = 0.02
STEP_SAMPLES: Final = 320
#: Speech of a person that weighs as much as what is known of everybody.
PRIOR_S: Final = 8.0
#: Speech that a baseline rests on at most: what was heard longer ago fades. Long enough that a mood which lasts minutes
#: is not taken for the person; short enough to follow another microphone, another room, a voice that tires.
KEPT_S: Final = 300.0
#: Louder than the loudest frame less this much, in Whisper's units of four decades, is speech.
SPEECH_BELOW: Final = 0.8
LEAST_STD: Final = 1e-3


def speech_steps(mel_BFM: Tensor) -> Tensor:
    """(B, S) 1.0 where an encoder step hears speech, by level alone.

    Args:
        mel_BFM: (B, F, M) log-mel as Whisper's front end gives it.
    """
    level_BM = mel_BFM.amax(1)
    loud_BM = (level_BM > level_BM.amax(1, keepdim=True) - SPEECH_BELOW).float()
    return F.max_pool1d(loud_BM[:, None], 2)[:, 0]


def spoken_steps(spoken: Sequence[tuple[int, int]], start: int, steps: int) -> Tensor:
    """(S,) 1.0 where the middle of an encoder step lies in a stretch of speech.

    Args:
        spoken: Sample numbers, the second one behind the stretch: `Listener.spoken`.
        start: Number of the first step's first sample, on the same clock.
        steps: S.
    """
    middle_S = start + STEP_SAMPLES // 2 + STEP_SAMPLES * torch.arange(steps)
    inside_S = torch.zeros(steps, dtype=torch.bool)
    for begin, end in spoken:
        inside_S |= (middle_S >= begin) & (middle_S < end)
    return inside_S.float()


def speech_of(mel_FM: Tensor, spoken: Sequence[tuple[int, int]] | None, start: int = 0) -> Tensor:
    """(S,) 1.0 where a window's encoder steps hear speech: loud enough and, where somebody listened, told to be so.

    Args:
        mel_FM: (F, M) log-mel of the window.
        spoken: Of a `Listener`; None if nobody listened.
        start: Number of the window's first sample on the listener's clock.
    """
    speech_S = speech_steps(mel_FM[None])[0]
    return speech_S if spoken is None else speech_S * spoken_steps(spoken, start, len(speech_S))


def moments(x_BSD: Tensor, weight_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (D,) over weighted steps of all clips; zeros where no step has weight.

    Args:
        x_BSD: (B, S, D) features.
        weight_BS: (B, S), 0 to 1.
    """
    total = weight_BS.sum().clamp(min=1)
    mean = (x_BSD * weight_BS[..., None]).sum((0, 1)) / total
    variance = (((x_BSD - mean) ** 2) * weight_BS[..., None]).sum((0, 1)) / total
    return mean, variance


class VoiceBaseline:
    """Statistics of one person's speech in some units of features: of `AudioTower.encode`, as a rule.

    Of two stretches of a and b seconds with means m, n and variances v, w, the mean is (a m + b n) / (a + b) and the
    variance (a v + b w) / (a + b) + a b (m - n)² / (a + b)²: as if both had been heard at once. Before a stretch of b
    seconds is added, a is cut to `KEPT_S` - b.

    Attributes:
        mean: (D,) float32; empty as long as nothing was heard.
        variance: (D,) float32; likewise.
        heard_s: Seconds of speech that they are of, up to `KEPT_S`.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the person."""
        self.mean, self.variance = torch.zeros(0), torch.zeros(0)
        self.heard_s = 0.0

    def hear(self, x_SD: Tensor, weight_S: Tensor) -> None:
        """Add a stretch of sound.

        Args:
            x_SD: (S, D) features.
            weight_S: (S,) how much of each step is speech of this person, 0 to 1, in the host's memory.
        """
        if not x_SD.isfinite().all():
            return
        mean, variance = moments(x_SD.float()[None], weight_S.to(x_SD.device)[None])
        self.add(mean, variance, float(weight_S.sum()) * STEP_S)

    def add(self, mean: Tensor, variance: Tensor, seconds: float) -> None:
        """Add what is known of a stretch of speech.

        Args:
            mean: (D,).
            variance: (D,).
            seconds: Of speech; nothing is added for 0.
        """
        if seconds <= 0:
            return
        kept_s = min(self.heard_s, max(0.0, KEPT_S - seconds))
        if kept_s:
            part = seconds / (kept_s + seconds)
            apart = part * (1 - part) * (mean - self.mean) ** 2
            mean, variance = (
                torch.lerp(self.mean, mean, part),
                torch.lerp(self.variance, variance, part) + apart,
            )
        self.mean, self.variance = mean, variance
        self.heard_s = min(KEPT_S, kept_s + seconds)

    def blended(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """What to standardise by: everybody's at first, the person's the longer he was heard.

        The person's mean and variance weigh `heard_s` / (`heard_s` + `PRIOR_S`).

        Args:
            mean: (D,) everybody's.
            std: (D,) everybody's standard deviation.

        Returns:
            Mean and standard deviation (D,).
        """
        if not self.heard_s:
            return mean, std
        weight = self.heard_s / (self.heard_s + PRIOR_S)
        variance = torch.lerp(std.float() ** 2, self.variance, weight)
        return (
            torch.lerp(mean.float(), self.mean, weight),
            variance.sqrt().clamp(min=LEAST_STD),
        )

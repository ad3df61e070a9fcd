"""One person's baseline: running statistics of a voice, by which the audio tower's features are standardised.

A voice says how somebody feels by how it differs from how he usually sounds. What he usually sounds like is learned
from his speech; until there is some, everybody's statistics stand in for it.

B clips, F mel bands, M mel frames of 10 ms, S = M/2 encoder steps of 20 ms, D tower width.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
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
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, Tensor, float]
        self.reset()

    def reset(self) -> None:
        """Forget the person."""
        self._known = torch.zeros(0), torch.zeros(0), 0.0

    @property
    def mean(self) -> Tensor:
        """(D,) float32; empty as long as nothing was heard."""
        return self._known[0]

    @property
    def variance(self) -> Tensor:
        """(D,) float32; likewise."""
        return self._known[1]

    @property
    def heard_s(self) -> float:
        """Seconds of speech that they are of, up to `KEPT_S`."""
        return self._known[2]

    def add(self, mean: Tensor, variance: Tensor, seconds: float) -> None:
        """Add what is known of a stretch of speech, unless there is something in it that is no number.

        Args:
            mean: (D,) float32, as `moments` gives it.
            variance: (D,) float32.
            seconds: Of speech; nothing is added for 0.
        """
        if seconds <= 0 or not (mean + variance).isfinite().all():
            return
        kept_s = min(self.heard_s, max(0.0, KEPT_S - seconds))
        if kept_s:
            part = seconds / (kept_s + seconds)
            before, spread = self.mean.to(mean.device), self.variance.to(mean.device)
            variance = torch.lerp(spread, variance, part) + part * (1 - part) * (mean - before) ** 2
            mean = torch.lerp(before, mean, part)
        self._known = mean, variance, min(KEPT_S, kept_s + seconds)

    def blended(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """What to standardise by: everybody's at first, the person's the longer he was heard.

        The person's mean and variance weigh `heard_s` / (`heard_s` + `PRIOR_S`).

        Args:
            mean: (D,) everybody's.
            std: (D,) everybody's standard deviation.

        Returns:
            Mean and standard deviation (D,), float32.
        """
        mean, std = mean.float(), std.float()
        if not self.heard_s:
            return mean, std
        weight = self.heard_s / (self.heard_s + PRIOR_S)
        variance = torch.lerp(std**2, self.variance.to(std.device), weight)
        return (
            torch.lerp(mean, self.mean.to(mean.device), weight),
            variance.sqrt().clamp(min=LEAST_STD),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiceStretch:
    """Whose voice a window holds, and where in time.

    Attributes:
        start: Number of the window's first sample, 16 kHz, on a clock that runs through all windows of its source.
        samples: How many it has; 0 without sound.
        spoken: Where somebody speaks, on that clock; None where nobody listened.
        person: Number of who is judged; None if unknown.
        theirs: Whether the voice is theirs.
    """

    start: int
    samples: int
    spoken: tuple[tuple[int, int], ...] | None = None
    person: int | None = None
    theirs: bool = True


class HeardVoice:
    """Follows the person of one source from window to window; windows move forward.

    A window is standardised by what was heard in windows that ended before it began: by itself, what it shows would be
    taken for how the person usually sounds. Of a window all speech counts, each step weighed by the part of the window
    that was new, so that each stretch of sound counts once while it passes through. The newest steps alone would not
    do: what an encoder gives depends on where in a window a step stands.

    Args:
        baseline: What is known already, of the one person whom this source ever shows; None: whoever comes is a
            stranger, and so is the next.
    """

    def __init__(self, baseline: VoiceBaseline | None = None) -> None:
        self._stays = baseline is not None
        self.baseline = VoiceBaseline() if baseline is None else baseline
        self._whose: int | None = None
        self._heard_to: float = -math.inf  # sample behind what was learned, or is not to be
        self._since: float = -math.inf  # what is before may be somebody else's
        self._waiting: deque[tuple[int, Tensor, Tensor, float]] = deque()  # end, moments, seconds
        self._last: tuple[tuple[int, int], tuple[Tensor, Tensor, float]] | None = None

    def take(
        self, x_SD: Tensor, speech_S: Tensor, voice: VoiceStretch, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """What to standardise a window's sound by; once it is past, it is learned from.

        The same window once more is standardised as before, and teaches nothing.

        Args:
            x_SD: (S, D) what `AudioTower.encode` gives of it.
            speech_S: (S,) which steps are speech: `speech_of`.
            voice: Whose it is.
            mean: (D,) everybody's.
            std: (D,) everybody's standard deviation.

        Returns:
            Mean and standard deviation (D,), and seconds of this person's speech behind them.
        """
        place = voice.start, voice.start + voice.samples
        if self._last is not None and self._last[0] == place:
            return self._last[1]
        heard_s = self.turn_to(voice)
        found = (*self.baseline.blended(mean, std), heard_s)
        self._last = place, found
        new = place[1] - max(place[0], self._heard_to)
        if voice.theirs and place[0] >= self._since and new > 0:
            weight_S = speech_S * (new / voice.samples)
            seconds = float(weight_S.sum()) * STEP_S
            found_D = moments(x_SD.float()[None], weight_S.to(x_SD.device)[None])
            self._waiting.append((place[1], *found_D, seconds))
            self._heard_to = place[1]
        if not voice.theirs:
            self._heard_to = self._since = place[1]
        return found

    def turn_to(self, voice: VoiceStretch) -> float:
        """Begin anew if somebody else is there; seconds of the speech of whoever is there now."""
        stop = voice.start + voice.samples
        if stop < self._heard_to:  # another clock
            self.finish()
            self._heard_to = self._since = -math.inf
        if voice.person is not None:
            if self._whose not in (None, voice.person) and not self._stays:
                self.baseline.reset()
                self._waiting.clear()
                self._heard_to = self._since = stop
            self._whose = voice.person
        self._learn(voice.start)
        return self.baseline.heard_s

    def finish(self) -> None:
        """Learn from the last windows too; none is to come."""
        self._learn(math.inf)

    def _learn(self, stop: float) -> None:
        while self._waiting and self._waiting[0][0] <= stop:
            self.baseline.add(*self._waiting.popleft()[1:])

"""Voice activity: Silero VAD 6.2 for 16 kHz, with its published weights.

C chunks of 512 samples (32 ms).
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from emostream.errors import InputError
from emostream.people.weights import SPEECH

CHUNK = 512
#: Samples before its own that a chunk is heard with.
CONTEXT = 64
#: Probability from which a chunk is speech, the model's published default.
SPEECH_FROM = 0.5

State = tuple[Tensor, Tensor]


class SileroVad(nn.Module):
    """A short-time spectrum and four convolutions of each chunk, an LSTM over chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.convolutions = nn.ModuleList(
            (
                nn.Conv1d(129, 128, 3, padding=1),
                nn.Conv1d(128, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 64, 3, stride=2, padding=1),
                nn.Conv1d(64, 128, 3, padding=1),
            )
        )
        self.lstm = nn.LSTM(128, 128)
        self.out = nn.Linear(128, 1)

    def forward(self, chunks: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Hear consecutive chunks.

        Args:
            chunks: (C, 64 + 512) float32 samples, the last 64 before each chunk in front of it.
            state: Of the LSTM behind the chunk before; None at the beginning.

        Returns:
            (C,) probabilities of speech, and the state behind the last chunk.
        """
        x = nn.functional.pad(chunks, (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft(x[:, None]).chunk(2, 1)
        x = torch.hypot(real, imaginary)
        for convolution in self.convolutions:
            x = convolution(x).relu()
        hidden, state = self.lstm(x[..., 0], state)
        return self.out(hidden.relu()).sigmoid()[:, 0], state


@cache
def _network() -> SileroVad:
    network = SileroVad().eval()
    network.load_state_dict(load(SPEECH.read()))
    return network


class Listener:
    """Tells how much of each window is speech; hears each sample once, whatever windows share it.

    Windows of the same sound give the same answers however it is cut, as long as none begins behind the end of the
    one before: then it listens anew.
    """

    def __init__(self) -> None:
        self._network = _network()
        self._heard = 0  # sample number behind the last chunk
        self._context = np.zeros(CONTEXT, np.float32)
        self._state: State | None = None
        self._probabilities = np.zeros(0, np.float32)  # of the chunks up to `_heard`

    @torch.inference_mode()
    def hear(self, start: int, pcm: NDArray[np.float32]) -> float:
        """The share of a window in which somebody speaks, in [0, 1], to 32 ms.

        Args:
            start: Number of the window's first sample on a clock that runs through all windows; none begins before
                the one before it.
            pcm: (S,) float32, mono, 16 kHz, in [-1, 1], S ≥ 512.

        Raises:
            InputError: `pcm` has another shape or dtype, or is shorter than a chunk.
        """
        if pcm.ndim != 1 or pcm.dtype != np.float32 or pcm.size < CHUNK:
            raise InputError(
                f"Listener: wanted (S,) float32 samples at 16 kHz, {CHUNK} at least, found {pcm.shape} {pcm.dtype}."
            )
        if self._state is None or start > self._heard:
            self._heard, self._state = start, None
            self._context = np.zeros(CONTEXT, np.float32)
            self._probabilities = np.zeros(0, np.float32)
        new = pcm[self._heard - start :]
        count = new.size // CHUNK
        if count:
            samples = np.concatenate((self._context, new[: count * CHUNK]))
            chunks = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + CHUNK)[::CHUNK]
            found, self._state = self._network(torch.from_numpy(chunks.copy()), self._state)
            self._context = samples[-CONTEXT:]
            self._heard += count * CHUNK
            self._probabilities = np.concatenate((self._probabilities, found.numpy()))
        within = (self._heard - start) // CHUNK
        self._probabilities = self._probabilities[-within:]
        return float((self._probabilities >= SPEECH_FROM).mean())

    @property
    def spoken(self) -> list[tuple[int, int]]:
        """Where somebody speaks in the newest window: sample numbers, the second one behind the stretch."""
        found = np.flatnonzero(self._probabilities >= SPEECH_FROM)
        begun = self._heard - CHUNK * self._probabilities.size
        runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
        return [
            (begun + CHUNK * int(run[0]), begun + CHUNK * (int(run[-1]) + 1))
            for run in runs
            if run.size
        ]


def speech_ratio(pcm: NDArray[np.float32]) -> float:
    """The share of a sound in which somebody speaks; as a `Listener` that hears nothing else.

    Args:
        pcm: (S,) float32, mono, 16 kHz, in [-1, 1], S ≥ 512.

    Raises:
        InputError: `pcm` has another shape or dtype, or is shorter than a chunk.
    """
    return Listener().hear(0, pcm)

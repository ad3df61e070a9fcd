"""Incremental encoding of overlapping windows: each frame is seen by SigLIP once, each pair is joined once.

The connector's output at step t depends on frames t-1 and t only, and step 0 of a window sees zeros before it. So a
window that moved on by n frames costs n frames of vision and n + 1 joins, and its tokens equal those of encoding it
whole. Audio is encoded whole each time: Whisper is bidirectional and its features are normalised over the clip.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emostream.errors import InputError
from emostream.inference.encoders import Encoders
from emostream.inference.voices import Voices
from emostream.model.connector import FrameFeatures
from emostream.model.processor import EmostreamProcessor
from emostream.people.voice_baseline import VoiceStretch


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaWindow:
    """One source's window, as far as the model looks at it.

    Attributes:
        source: Whose it is; caches are kept by source.
        keys: T identities of the frames, oldest first; equal keys of one source mean equal pixels, so a repeated frame
            costs nothing. Empty without video.
        frames: T arrays (H, W, 3) uint8 RGB.
        audio: (S,) float32 mono PCM at 16 kHz in [-1, 1], or None without audio.
        voice: Whose voice it is, for a model that gets to know voices; None: a stranger's.
    """

    source: str
    keys: tuple[Hashable, ...] = ()
    frames: tuple[NDArray[np.uint8], ...] = ()
    audio: NDArray[np.float32] | None = None
    voice: VoiceStretch | None = None

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.frames):
            raise InputError(
                f"window of {self.source}: {len(self.keys)} keys for {len(self.frames)} frames; wanted one each."
            )
        if not self.keys and self.audio is None:
            raise InputError(f"window of {self.source}: neither frames nor audio; nothing to see.")


@dataclass(frozen=True, slots=True)
class MediaTokens:
    """A window in the language model's space.

    Attributes:
        visual: (T * Q*Q, H), or None without video.
        audio: (A, H), or None without audio.
        baseline_s: Seconds of the person's speech that the sound is standardised by; None where nobody is followed.
    """

    visual: Tensor | None
    audio: Tensor | None
    baseline_s: float | None = None


@dataclass(slots=True)
class _Cache:
    frames: dict[Hashable, FrameFeatures] = field(default_factory=dict)
    joined: dict[tuple[Hashable | None, Hashable], Tensor] = field(default_factory=dict)


class StreamingEncoder:
    """Encodes windows of any number of sources, remembering of each what its last window held.

    Args:
        encoders: What runs the networks.
        processor: Prepares pixels and mel frames.
        gate: (3,) branch weights of the prompt's instruction.
        voices: Of a model whose audio tower is standardised; None for others.

    Attributes:
        frames_encoded: Frames that went through the vision tower so far.
        pairs_joined: Steps that went through the temporal stage so far.
    """

    def __init__(
        self,
        encoders: Encoders,
        processor: EmostreamProcessor,
        gate: Tensor,
        voices: Voices | None = None,
    ):
        self._encoders = encoders
        self._processor = processor
        self._gate = gate
        self._voices = voices
        self._caches: dict[str, _Cache] = {}
        self.frames_encoded = 0
        self.pairs_joined = 0

    def encode(self, windows: Sequence[MediaWindow]) -> list[MediaTokens]:
        """Tokens of each window; all networks run once, on what is new in any of them.

        Args:
            windows: Of any sources; several of one source oldest first.
        """
        self._encode_frames(windows)
        self._join_pairs(windows)
        audio = self._encode_audio(windows)
        out = []
        for window, (audio_tokens, baseline_s) in zip(windows, audio, strict=True):
            visual = None
            if window.keys:
                joined = self._caches[window.source].joined
                visual = torch.cat([joined[pair] for pair in _pairs(window)])
            out.append(MediaTokens(visual, audio_tokens, baseline_s))
        for window in {window.source: window for window in windows}.values():
            self._trim(window)
        return out

    def forget(self, source: str) -> None:
        """Drop a source's cache and person; needed when its keys start anew or it went away."""
        self._caches.pop(source, None)
        if self._voices is not None:
            self._voices.forget(source)

    def _encode_frames(self, windows: Sequence[MediaWindow]) -> None:
        new: dict[tuple[str, Hashable], NDArray[np.uint8]] = {}
        for window in windows:
            cache = self._caches.setdefault(window.source, _Cache())
            for key, rgb in zip(window.keys, window.frames, strict=True):
                if key not in cache.frames:
                    new[window.source, key] = rgb
        if not new:
            return
        # Frames of different cameras differ in size until the processor has squared them.
        pixels_N3SS = torch.cat([self._processor.pixels(rgb[None]) for rgb in new.values()])
        features = self._encoders.vision(pixels_N3SS)
        for index, (source, key) in enumerate(new):
            own = FrameFeatures(features.maps[index : index + 1], features.face[index : index + 1])
            self._caches[source].frames[key] = own
        self.frames_encoded += len(new)

    def _join_pairs(self, windows: Sequence[MediaWindow]) -> None:
        new = [
            (source, pair)
            for source, pair in dict.fromkeys(
                (w.source, pair) for w in windows for pair in _pairs(w)
            )
            if pair not in self._caches[source].joined
        ]
        if not new:
            return
        previous, current = [], []
        for source, (before, key) in new:
            frames = self._caches[source].frames
            current.append(frames[key])
            previous.append(_blank(frames[key]) if before is None else frames[before])
        tokens = self._encoders.join(_stack(previous), _stack(current), self._gate)
        for (source, pair), token in zip(new, tokens, strict=True):
            self._caches[source].joined[pair] = token
        self.pairs_joined += len(new)

    def _encode_audio(
        self, windows: Sequence[MediaWindow]
    ) -> list[tuple[Tensor | None, float | None]]:
        """Tokens of each window's sound, and how much of each person was heard before."""
        heard = [window for window in windows if window.audio is not None]
        found: Iterator[tuple[Tensor, float | None]] = iter(())
        if heard:
            mel_BFM = torch.stack(
                [self._processor.mel(w.audio) for w in heard if w.audio is not None]
            )
            tokens = self._encoders.audio(mel_BFM)
            baselines: list[float | None] = [None] * len(heard)
            if self._voices is not None:
                tokens, baselines = self._voices.tokens(
                    [w.source for w in heard], [w.voice for w in heard], mel_BFM, tokens
                )
            found = iter(zip(tokens, baselines, strict=True))
        return [
            (None, self._heard_s(window)) if window.audio is None else next(found)
            for window in windows
        ]

    def _heard_s(self, window: MediaWindow) -> float | None:
        if self._voices is None:
            return None
        return self._voices.heard_s(window.source, window.voice)

    def _trim(self, window: MediaWindow) -> None:
        """Keep what the next window can use: windows move forward only."""
        cache, pairs = self._caches[window.source], set(_pairs(window))
        cache.frames = {key: cache.frames[key] for key in dict.fromkeys(window.keys)}
        cache.joined = {
            pair: tokens
            for pair, tokens in cache.joined.items()
            if pair in pairs and pair[0] is not None
        }


def _pairs(window: MediaWindow) -> list[tuple[Hashable | None, Hashable]]:
    """(predecessor, frame) of each step; None before the first."""
    return list(zip((None, *window.keys), window.keys, strict=False))


def _blank(like: FrameFeatures) -> FrameFeatures:
    return FrameFeatures(torch.zeros_like(like.maps), like.face)


def _stack(frames: Sequence[FrameFeatures]) -> FrameFeatures:
    return FrameFeatures(
        torch.cat([frame.maps for frame in frames]), torch.cat([frame.face for frame in frames])
    )

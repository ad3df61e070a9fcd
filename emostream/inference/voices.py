"""Audio tokens of a tower that is standardised: by what was heard of each source's person, up to each window."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from emostream.errors import ConfigError
from emostream.model.configuration import EmostreamConfig
from emostream.model.modeling import EmostreamForCausalLM
from emostream.model.towers import Standardiser
from emostream.people.baseline_file import load_baseline, save_baseline
from emostream.people.voice_baseline import HeardVoice, VoiceBaseline, VoiceStretch, speech_of

SAVED_EVERY_S: Final = 60.0


class Voices:
    """What is behind the encoder of a standardised audio tower, and what it has heard of everybody so far.

    Shape suffixes: B windows, S encoder steps, D tower width, F mel bands, M mel frames, A audio tokens, H language
    width.

    Args:
        model: Whose audio tower is standardised; its encoder is not needed.
        follow: Whether people are got to know; else everybody is a stranger, always.
        file: Where the baseline of the one person whom all windows show is kept: read now if it is there.

    Attributes:
        keeps: Source whose person that is; None: any source's.

    Raises:
        ConfigError: The file is of something else.
    """

    def __init__(
        self, model: EmostreamForCausalLM, *, follow: bool = True, file: str | Path | None = None
    ) -> None:
        backbone: Any = model.model
        self._backbone = backbone
        self._standardiser: Standardiser = backbone.audio_tower.audio_tower["baseline"]
        self._follow, self._file = follow, file
        self.keeps: str | None = None
        self._kept: VoiceBaseline | None = None
        if follow and file is not None:
            self._kept = load_baseline(file, self._standardiser.mean, self._standardiser.std)
        self._saved_at_s = time.monotonic()
        self._heard: dict[str, HeardVoice] = {}

    def tokens(
        self,
        sources: Sequence[str],
        voices: Sequence[VoiceStretch | None],
        mel_BFM: Tensor,
        x_BSD: Tensor,
    ) -> tuple[Tensor, list[float | None]]:
        """(B, A, H) audio tokens of features standardised, and seconds of each person's speech behind that.

        None for whoever is not followed.

        Args:
            sources: Whose each window is; several of one source oldest first.
            voices: What is known of each window's voice; None: nothing, as of a stranger.
            mel_BFM: Log-mel, in the host's memory.
            x_BSD: What the encoder gives.
        """
        mean, std = self._standardiser.mean, self._standardiser.std
        speech_BS = torch.stack(
            [
                speech_of(mel_FM, *((voice.spoken, voice.start) if voice else (None,)))
                for voice, mel_FM in zip(voices, mel_BFM, strict=True)
            ]
        )
        found: list[tuple[Tensor, Tensor, float | None]] = [
            (mean.float(), std.float(), None)
            if voice is None or not self._follow
            else self._of(source).take(x_SD, speech_S, voice, mean, std)
            for source, voice, speech_S, x_SD in zip(sources, voices, speech_BS, x_BSD, strict=True)
        ]
        means, stds = (torch.stack([f[i] for f in found])[:, None] for i in (0, 1))  # type: ignore[misc]
        features = self._backbone.audio_tokens(
            self._standardiser(x_BSD, means, stds), mel_BFM, speech_BS
        )
        out: Tensor = self._backbone.audio_projector(features.to(x_BSD.dtype))
        return out, [f[2] for f in found]

    def heard_s(self, source: str, voice: VoiceStretch | None) -> float | None:
        """Seconds of the speech of whoever a window without sound shows; None if they are not followed."""
        return None if voice is None or not self._follow else self._of(source).turn_to(voice)

    def _of(self, source: str) -> HeardVoice:
        if source not in self._heard:
            theirs = self.keeps in (None, source)
            self._heard[source] = HeardVoice(self._kept if theirs else None)
        return self._heard[source]

    def forget(self, source: str) -> None:
        """Forget a source's person, unless a file keeps him."""
        if (gone := self._heard.pop(source, None)) is not None:
            gone.finish()

    def save(self, *, due: bool = False) -> None:
        """Write the file, if there is one.

        Args:
            due: Only if it was not for `SAVED_EVERY_S`; else no window is to come, and the last are learned from too.

        Raises:
            ConfigError: It cannot be written.
        """
        now_s = time.monotonic()
        if self._kept is None or self._file is None:
            return
        if due and now_s - self._saved_at_s < SAVED_EVERY_S:
            return
        if not due:
            for voice in self._heard.values():
                voice.finish()
        self._saved_at_s = now_s
        save_baseline(self._file, self._kept, self._standardiser.mean, self._standardiser.std)


def voices_of(
    model: EmostreamForCausalLM, *, follow: bool = True, file: str | Path | None = None
) -> Voices | None:
    """As `Voices`; None for a model that standardises no voices.

    Raises:
        ConfigError: There is nothing that a file could keep of such a model.
    """
    check_baseline(model.config, file)
    return Voices(model, follow=follow, file=file) if model.config.standardises_voices else None


def check_baseline(config: EmostreamConfig, file: str | Path | None) -> None:
    """Refuse to keep a person's baseline for a model that has none.

    Raises:
        ConfigError: The model's audio tower is not standardised.
    """
    if file is not None and not config.standardises_voices:
        raise ConfigError(
            f"--baseline {file}: this model's audio tower is not standardised by who speaks, so there is nothing to "
            "keep. Leave --baseline out."
        )

"""Pitch and voicing read off a trained audio tower: ridge regression of Praat's on the encoder's features.

Behind the tower's training, on the speech that it was trained on: what a tower of a few layers hears of a voice holds
its pitch to little more than a semitone (docs/LOG.md), for the price of one multiplication.

S encoder steps of 20 ms, D tower width.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from sklearn.linear_model import Ridge

from emostream.model.towers import AudioTower
from emostream.people.voice_baseline import moments, speech_steps
from training.recipe.people_voices import FRAMES
from training.recipe.voice_data import Voices, whisper_scale

UTTERANCES: Final = 2000


@torch.inference_mode()
def fit_pitch(tower: AudioTower, voices: Voices, chosen: Sequence[int], seed: int = 0) -> float:
    """Fit a tower's pitch and voicing in place, and everybody's statistics of all that it gives.

    Args:
        tower: With `prosody`, otherwise trained.
        voices: Utterances with their pitch.
        chosen: Which of them to learn from; a part is drawn, and of each as much as a live window has.
        seed: Of the draw.

    Returns:
        The mean error of the pitch on them, in semitones.
    """
    inner: Any = tower.audio_tower
    layer, width = inner["prosody"].pitch, inner["prosody"].pitch.in_features
    drawn = np.random.default_rng(seed).permutation(chosen)[:UTTERANCES]
    mels, features, octaves, voiced = [], [], [], []
    for index in drawn:
        part = voices.of(int(index))
        frames = min(FRAMES[1], (part.stop - part.start) // 2 * 2)
        part = slice(part.start, part.start + frames)
        mels.append(whisper_scale(torch.from_numpy(voices.mel[part].astype(np.float32)).T[None]))
        features.append(tower.encode(mels[-1])[0, :, :width].float().numpy())
        pitch_S22 = voices.pitch[part].astype(np.float32).reshape(-1, 2, 2)
        voiced.append(pitch_S22[..., 1].max(1))
        octaves.append(pitch_S22[..., 0].sum(1) / pitch_S22[..., 1].sum(1).clip(1))
    x_SD, octaves_S, voiced_S = (np.concatenate(parts) for parts in (features, octaves, voiced))
    has = voiced_S > 0
    pitch, voicing = Ridge().fit(x_SD[has], octaves_S[has]), Ridge().fit(x_SD, voiced_S)
    layer.weight.copy_(torch.from_numpy(np.stack([pitch.coef_, voicing.coef_])))
    layer.bias.copy_(torch.tensor([pitch.intercept_, voicing.intercept_]))
    given = torch.cat([tower.encode(mel)[0].float() for mel in mels])
    speech = torch.cat([speech_steps(mel)[0] for mel in mels])
    mean, variance = moments(given[None], speech[None])
    inner["baseline"].mean.copy_(mean)
    inner["baseline"].std.copy_(variance.sqrt().clamp(min=1e-3))
    return 12 * float(np.abs(pitch.predict(x_SD[has]) - octaves_S[has]).mean())

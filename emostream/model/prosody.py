"""Loudness, pitch, voicing and colour of a voice, step by step: what linear classifiers of acted speech go by.

A choice in the spirit of the low-level descriptors of eGeMAPS (Eyben et al. 2016, IEEE Trans. Affective Computing 7),
of a log-mel alone, so that nothing but Whisper's own input is needed and all of it runs inside the audio tower.

B clips, F mel bands, M mel frames (10 ms each), S = M/2 steps, D tower width, K bands, Q cepstral coefficients.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS: Final = 32
COEFFICIENTS: Final = 8
#: E, how many numbers a step has: loudness and pitch with their rise and fall, voicing and its change, the change of
#: the spectrum, cepstral coefficients and their change.
PROSODY_WIDTH: Final = 9 + 2 * COEFFICIENTS
#: Of Whisper's log-mel: decades of power in one unit.
DECADES: Final = 4.0
#: Estimates of voicing by which a step counts as unvoiced, and as voiced; between them it counts in part.
VOICING: Final = (0.25, 0.75)


class Prosody(nn.Module):
    """The numbers of a step beside what the encoder gives of it.

    Pitch and voicing are linear in the encoder's features, fitted to Praat's (`training.recipe.voice_pitch`). Where
    there is no voice, the pitch is the window's middle one: it neither rises nor falls there.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        super().__init__()
        self.pitch = nn.Linear(width, 2)

    def forward(self, hidden_BSD: Tensor, mel_BFM: Tensor) -> Tensor:
        """(B, S, E), in this order.

        Loudness, of `DECADES`, its rise and fall from step to step; pitch in octaves, its rise and fall; voicing, 0 to
        1, and its change; the change of the spectrum; `COEFFICIENTS` cepstral coefficients, from the second, and their
        change.

        Args:
            hidden_BSD: The encoder's features.
            mel_BFM: Whisper's log-mel, its loudest at 1.
        """
        level_BSK = F.avg_pool2d(mel_BFM.float()[:, None], (mel_BFM.shape[1] // BANDS, 2))
        level_BSK = level_BSK[:, 0].transpose(1, 2)
        unit = DECADES * math.log(10)
        loudness_BS = torch.logsumexp(unit * level_BSK, -1) / unit
        pitch_BS, voiced_BS = self.pitch(hidden_BSD).float().unbind(-1)
        least, most = VOICING
        voiced_BS = ((voiced_BS - least) / (most - least)).clamp(0, 1)
        middle_B1 = (pitch_BS * voiced_BS).sum(1, keepdim=True) / (
            voiced_BS.sum(1, keepdim=True) + 1e-3
        )
        pitch_BS = middle_B1 + voiced_BS * (pitch_BS - middle_B1)
        place_K1 = torch.arange(BANDS, device=level_BSK.device)[:, None] + 0.5
        wave_Q = torch.arange(1, COEFFICIENTS + 1, device=level_BSK.device)
        cepstrum_BSQ = level_BSK @ torch.cos(math.pi / BANDS * place_K1 * wave_Q) / BANDS
        louder_BS, higher_BS = _change(loudness_BS[..., None]), _change(pitch_BS[..., None])
        spectral_BS = (_change(level_BSK) ** 2).mean(-1, keepdim=True).sqrt()
        return torch.cat(
            [
                *(loudness_BS[..., None], louder_BS.relu(), (-louder_BS).relu()),
                *(pitch_BS[..., None], higher_BS.relu(), (-higher_BS).relu()),
                *(voiced_BS[..., None], _change(voiced_BS[..., None]).abs()),
                *(spectral_BS, cepstrum_BSQ, _change(cepstrum_BSQ).abs()),
            ],
            -1,
        ).to(hidden_BSD.dtype)


def _change(x_BSE: Tensor) -> Tensor:
    """From the step before; 0 for the first."""
    return F.pad(x_BSE[:, 1:] - x_BSE[:, :-1], (0, 0, 1, 0))

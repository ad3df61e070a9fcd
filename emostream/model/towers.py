"""SigLIP and Whisper as the checkpoint names them, run only as far as the model reads them.

Shape suffixes: N frames, B clips, S pixels a side, L = P*P patches, D tower width, F mel bands, M mel frames (10 ms
each); for audio S = M/2 encoder steps, A = S//3 pooled steps.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from emostream.errors import InputError
from emostream.model.configuration import audio_width
from emostream.model.prosody import Prosody

AUDIO_POOL = 3


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside what they are given (He et al. 2016, arXiv:1512.03385), without norms.

    Norms belong to training and are folded into the convolutions when it ends.

    Args:
        width: Channels, the same in and out.
    """

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return F.relu(x + self.conv2(F.relu(self.conv1(x))))


class ConvStem(nn.Sequential):
    """Patch embedding by 3x3 convolutions of stride 2, for towers too small to learn from one large one.

    Stands where SigLIP has its patch convolution (Xiao et al. 2021, "Early convolutions help transformers see better",
    arXiv:2106.14881); a tower has it where its config.json gives `stem_widths`. Each frame is standardised first, so
    that light and palette matter less.

    Args:
        widths: Channels behind each convolution, the tower's own width last.
        blocks: Residual blocks behind each convolution (`stem_blocks`), which make a network of its own of the stem;
            none at all if empty.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int] = ()):
        layers: list[nn.Module] = []
        for place, (width_in, width) in enumerate(itertools.pairwise((3, *widths))):
            layers += [nn.Conv2d(width_in, width, 3, stride=2, padding=1), nn.ReLU()]
            layers += [ResidualBlock(width) for _ in range(blocks[place] if blocks else 0)]
        super().__init__(*(layers if isinstance(layers[-1], ResidualBlock) else layers[:-1]))

    @property
    def weight(self) -> Tensor:
        """The first convolution's, of which SigLIP reads the dtype."""
        return self[0].weight  # type: ignore[return-value]

    def forward(self, pixels_N3SS: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, D, P, P)."""
        mean = pixels_N3SS.mean((1, 2, 3), keepdim=True)
        centred = pixels_N3SS - mean
        spread = (centred * centred).mean((1, 2, 3), keepdim=True).sqrt()
        out: Tensor = super().forward(centred / (spread + 0.05))
        return out


class VisionTower(nn.Module):
    """SigLIP's patch embedding and its first `layers` encoder layers; the rest is never run.

    The pooling head is not built: the model reads patch tokens, and checkpoints that store a head keep it untouched.
    """

    def __init__(self, config: SiglipVisionConfig, layers: int):
        super().__init__()
        headless = copy.deepcopy(config)  # the checkpoint's own goes back to its folder as it came
        headless.vision_use_head = False
        self.layers = layers
        siglip = SiglipVisionModel(headless)
        if widths := getattr(config, "stem_widths", None):
            siglip.embeddings.patch_embedding = ConvStem(
                (*widths, config.hidden_size), getattr(config, "stem_blocks", ())
            )
        self.vision_tower = nn.ModuleDict({"vision_model": siglip})

    def forward(self, pixels_N3SS: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> (N, L, D), equal to SigLIP's `hidden_states[select_layer]`."""
        siglip: Any = self.vision_tower["vision_model"]
        hidden_NLD = siglip.embeddings(pixels_N3SS)
        for layer in siglip.encoder.layers[: self.layers]:
            hidden_NLD = layer(hidden_NLD, None)
        return hidden_NLD


class Standardiser(nn.Module):
    """Features in standard deviations from their mean over people's speech, or over one person's.

    Args:
        width: D.

    Attributes:
        mean: (D,) over the speech that the tower was trained on.
        std: (D,) its standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(
        self, x_BSD: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """Standardise features.

        Args:
            x_BSD: (B, S, D).
            mean: (B, 1, D) or (D,), a person's; the population's if None.
            std: Likewise.
        """
        mean = self.mean if mean is None else mean
        std = self.std if std is None else std
        return (x_BSD - mean) / std


class AudioTower(nn.Module):
    """Whisper's encoder on any even number of mel frames up to its trained context.

    Departs from transformers' `WhisperEncoder.forward` in one point: a shorter context takes the leading positions
    instead of being refused. Where config.json gives `standardised`, it departs in two more: the level of the window
    is taken out, so that no microphone's gain is heard, and what the encoder gives is standardised, over all people or
    over one person's speech so far. With `prosody`, what `Prosody` gives of each step stands beside what the encoder
    gives: what pitch, loudness and colour of a voice tell need not be learned from the little speech of which the
    emotion is known.
    """

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.audio_tower = nn.ModuleDict({"encoder": WhisperEncoder(config)})
        if getattr(config, "standardised", False):
            self.audio_tower["baseline"] = Standardiser(audio_width(config))
        if getattr(config, "prosody", False):
            self.audio_tower["prosody"] = Prosody(int(config.d_model))

    @property
    def standardised(self) -> bool:
        """Whether what the encoder gives is standardised."""
        return "baseline" in self.audio_tower

    def forward(
        self, mel_BFM: Tensor, mean: Tensor | None = None, std: Tensor | None = None
    ) -> Tensor:
        """(B, F, M) log-mel -> (B, S, D).

        Args:
            mel_BFM: Log-mel of the processor.
            mean: (B, 1, D) or (D,), the mean of `encode` over a person's speech; everybody's if None. Only for a tower
                that is `standardised`.
            std: Likewise, its standard deviation.

        Raises:
            InputError: M is odd, or longer than twice the encoder's positions.
        """
        hidden_BSD = self.encode(mel_BFM)
        if self.standardised:
            hidden_BSD = self.audio_tower["baseline"](hidden_BSD, mean, std)
        return hidden_BSD

    def encode(self, mel_BFM: Tensor) -> Tensor:
        """As `forward`, before anything is standardised: what a person's statistics are taken of."""
        encoder: Any = self.audio_tower["encoder"]
        frames, limit = mel_BFM.shape[-1], 2 * encoder.max_source_positions
        if frames % 2 or frames > limit:
            raise InputError(
                f"audio tower: wanted an even number of mel frames up to {limit}, found {frames}. "
                f"Shorten audio_context_s to at most {limit / 100:g} s."
            )
        mel_BFM = mel_BFM.to(encoder.conv1.weight.dtype)
        if self.standardised:
            mel_BFM = mel_BFM - mel_BFM.amax((1, 2), keepdim=True) + 1
        hidden_BDS = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel_BFM))))
        hidden_BSD = hidden_BDS.transpose(1, 2) + encoder.embed_positions.weight[: frames // 2]
        for layer in encoder.layers:
            hidden_BSD = layer(hidden_BSD, None)
        hidden_BSD = encoder.layer_norm(hidden_BSD)
        if "prosody" not in self.audio_tower:
            return hidden_BSD
        return torch.cat([hidden_BSD, self.audio_tower["prosody"](hidden_BSD, mel_BFM)], -1)


class VoiceHeads(nn.Linear):
    """What a window's speech as a whole expresses and does: linear in mean and spread of its standardised features.

    Statistics over time are what linear classifiers of voices go by (statistics pooling, Snyder et al. 2018; eGeMAPS,
    Eyben et al. 2016), and what a language model cannot take of tokens by itself. The weights are fitted to optimality
    before it is trained (`training.recipe.voice_heads`).

    Args:
        width: E, of the features.
        heads: K, logits of each corpus' own classifier and of one for all, and measures of what the voice does.
    """

    def __init__(self, width: int, heads: int):
        super().__init__(2 * width, heads)

    def beside(self, tokens_BAE: Tensor, mean_BE: Tensor, variance_BE: Tensor) -> Tensor:
        """(B, A, E + K): every token with the logits of its window beside it; zeros where nobody speaks.

        Args:
            tokens_BAE: (B, A, E) pooled features.
            mean_BE: (B, E) of the window's speech, standardised.
            variance_BE: Likewise; zeros if it has none.
        """
        statistics = window_statistics(mean_BE.float(), variance_BE.float())
        weight, bias = self.weight.to(statistics), self.bias.to(statistics)
        logits_BK = F.linear(statistics, weight, bias) * (variance_BE > 0).any(-1, keepdim=True)
        told_BAK = logits_BK[:, None].expand(-1, tokens_BAE.shape[1], -1)
        return torch.cat([tokens_BAE, told_BAK.to(tokens_BAE.dtype)], -1)


def window_statistics(mean_BE: Tensor, variance_BE: Tensor) -> Tensor:
    """(B, 2 E): mean, and logarithm of the standard deviation."""
    return torch.cat([mean_BE, 0.5 * (variance_BE + 1e-3).log()], -1)


def pool_audio(features_BSD: Tensor) -> Tensor:
    """Average over three steps: (B, S, D) -> (B, S // 3, D)."""
    return F.avg_pool1d(features_BSD.transpose(1, 2), AUDIO_POOL).transpose(1, 2)

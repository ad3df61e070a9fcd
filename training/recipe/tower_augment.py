"""Random changes of pictures and spectra that leave what is acted as it is.

Shape suffixes: B clips, T frames, S pixels a side, F mel bands, M mel frames.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment_pictures(frames_BTSS3: Tensor) -> Tensor:
    """Geometry, light, palette, sharpness, noise, a patch in the way; alike for all frames of a clip.

    Args:
        frames_BTSS3: uint8 RGB.

    Returns:
        (B, T, 3, S, S) float32, about [-1, 1].
    """
    batch, steps = frames_BTSS3.shape[:2]
    x = frames_BTSS3.permute(0, 1, 4, 2, 3).flatten(0, 1).float() / 127.5 - 1
    x = warp(x, steps, degrees=12, scales=(0.85, 1.15), shift=0.05).unflatten(0, (batch, steps))
    gain_B33, bias_B3 = _palette(batch)
    x = torch.einsum("bdc,btchw->btdhw", gain_B33, x) + bias_B3[:, None, :, None, None]
    chosen = torch.rand(batch) < 0.3
    x[chosen] = F.avg_pool2d(x[chosen].flatten(0, 1), 3, 1, 1).unflatten(0, (-1, steps))
    # One field of noise a batch: drawing as many numbers as there are pixels costs more than the tower.
    noise_3SS = torch.randn(3, *x.shape[-2:])
    x += noise_3SS * (torch.rand(batch) * 0.1)[:, None, None, None, None]
    for index in torch.nonzero(torch.rand(batch) < 0.2)[:, 0].tolist():
        rows, columns = stretch(x.shape[-2], 12, 41), stretch(x.shape[-1], 12, 41)
        x[index, :, :, rows, columns] = torch.rand(1, 3, 1, 1) * 2 - 1
    return x


def augment_mel(mel_BFM: Tensor) -> Tensor:
    """SpecAugment's masks (Park et al. 2019, arXiv:1904.08779) and a small change of level."""
    batch, bands, frames = mel_BFM.shape
    # Whisper's log-mel spans 8 decades of power in 2 units.
    mel_BFM = mel_BFM + (torch.rand(batch, 1, 1) - 0.5) * 0.1
    floor = mel_BFM.amin((1, 2), keepdim=True)
    for size, longest, dim in ((frames, 30, 2), (bands, 16, 1)):
        for _ in range(2):
            width = torch.rand(batch, 1) * longest
            start = torch.rand(batch, 1) * (size - width)
            at = torch.arange(size)[None]
            inside = (at >= start) & (at < start + width)
            mel_BFM = torch.where(
                inside[:, None] if dim == 2 else inside[..., None], floor, mel_BFM
            )
    return mel_BFM


def _palette(batch: int) -> tuple[Tensor, Tensor]:
    """Colour matrices (B, 3, 3) and offsets (B, 3): gains, and now and then grey or exchanged channels."""
    matrix_B33 = torch.eye(3).repeat(batch, 1, 1)
    matrix_B33[torch.rand(batch) < 0.2] = 1 / 3
    swapped = torch.rand(batch) < 0.15
    matrix_B33[swapped] = matrix_B33[swapped][:, torch.randperm(3)]
    gain_B3 = (0.6 + 0.8 * torch.rand(batch, 1)) * (0.85 + 0.3 * torch.rand(batch, 3))
    return matrix_B33 * gain_B3[:, :, None], (torch.rand(batch, 3) - 0.5) * 0.5


def stretch(side: int, least: int, below: int) -> slice:
    """Some pixels somewhere along a side, at least `least`, fewer than `below`."""
    width = int(torch.randint(least, below, ()))
    start = int(torch.randint(side - width, ()))
    return slice(start, start + width)


def warp(
    x_NCSS: Tensor,
    steps: int = 1,
    *,
    degrees: float,
    scales: tuple[float, float],
    shift: float,
    aspect: float = 0.0,
) -> Tensor:
    """Mirror, turn, scale and shift, one draw for each clip.

    Args:
        x_NCSS: Float pictures, `steps` of each clip one behind the other.
        steps: T.
        degrees: Farthest turn.
        scales: How many sides of the picture a side of the result may show.
        shift: Farthest shift, in sides.
        aspect: How much wider than high the part that is shown may be, as a share, or higher than wide.
    """
    batch = len(x_NCSS) // steps
    angle = (torch.rand(batch) - 0.5) * math.radians(2 * degrees)
    scale = scales[0] + (scales[1] - scales[0]) * torch.rand(batch)
    mirror = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    wide = 1 + (torch.rand(batch) - 0.5) * aspect * 2 if aspect else torch.ones(batch)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * scale * wide * angle.cos(), -scale * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * scale * wide * angle.sin(), scale * angle.cos()
    theta[:, :, 2] = (torch.rand(batch, 2) - 0.5) * 4 * shift
    grid = F.affine_grid(theta.repeat_interleave(steps, 0), list(x_NCSS.shape), align_corners=False)
    return F.grid_sample(x_NCSS, grid, padding_mode="reflection", align_corners=False)

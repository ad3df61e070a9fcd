"""The three-branch connector between SigLIP and the language model, split where streaming needs it split.

Shape suffixes: N frames (any batching of them), T time steps, P patches a side, Q = visual tokens a side,
D vision width, H language width.

The published connector is a per-frame stage, a temporal convolution over two frames, and a per-frame readout. Norms,
depthwise convolutions and squeeze-excitation all act inside a frame, so the first part depends on one frame (`frame`)
and the rest on a frame and its predecessor (`join`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Branches with a temporal convolution, by their index in the gate; the face branch is the third.
BRANCHES = ((0, "video"), (1, "body"))


class FrameFeatures(NamedTuple):
    """What the connector needs of each frame; all that is cached of a frame while it stays in the window.

    Attributes:
        maps: (N, 2, H, P, P) video and body branches after their per-frame stage.
        face: (N, Q*Q, H) face-branch tokens.
    """

    maps: Tensor
    face: Tensor


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (N, C, P, P)."""

    def forward(self, x_NCPP: Tensor) -> Tensor:
        """(N, C, P, P) -> (N, C, P, P)."""
        return super().forward(x_NCPP.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """Convolution without bias, channel norm, optional SiLU."""

    def __init__(self, width_in: int, width: int, kernel: int, groups: int = 1, act: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(
            width_in, width, kernel, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = ChannelNorm(width, eps=1e-5)
        self.act = act

    def forward(self, x_NCPP: Tensor) -> Tensor:
        """(N, C_in, P, P) -> (N, C, P, P)."""
        x_NCPP = self.bn(self.conv(x_NCPP))
        return F.silu(x_NCPP) if self.act else x_NCPP


class SqueezeExcite(nn.Module):
    """Channel attention from the spatial mean (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, width: int, reduced: int):
        super().__init__()
        self.fc1 = nn.Conv2d(width, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, width, 1)

    def forward(self, x_NCPP: Tensor) -> Tensor:
        """(N, C, P, P) -> (N, C, P, P)."""
        scale = x_NCPP.mean((2, 3), keepdim=True)
        return x_NCPP * self.fc2(F.silu(self.fc1(scale))).sigmoid()


class Bottleneck(nn.Module):
    """RegNetY block (Radosavovic et al. 2020, arXiv:2003.13678) with depthwise 3x3 and layer norm for batch norm."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv1 = ConvNorm(width_in, width, 1)
        self.conv2 = ConvNorm(width, width, 3, groups=width)
        self.se = SqueezeExcite(width, round(width_in / 4))
        self.conv3 = ConvNorm(width, width, 1, act=False)
        self.downsample = ConvNorm(width_in, width, 1, act=False) if width_in != width else None

    def forward(self, x_NCPP: Tensor) -> Tensor:
        """(N, C_in, P, P) -> (N, C, P, P)."""
        skip = x_NCPP if self.downsample is None else self.downsample(x_NCPP)
        return F.silu(self.conv3(self.se(self.conv2(self.conv1(x_NCPP)))) + skip)


class Stage(nn.Module):
    """Blocks named b1, b2, … as in the published checkpoints."""

    def __init__(self, blocks: int, width_in: int, width: int):
        super().__init__()
        for index in range(1, blocks + 1):
            self.add_module(f"b{index}", Bottleneck(width_in if index == 1 else width, width))

    def forward(self, x_NCPP: Tensor) -> Tensor:
        """(N, C_in, P, P) -> (N, C, P, P)."""
        for block in self.children():
            x_NCPP = block(x_NCPP)
        return x_NCPP


def _mlp(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width))


class Connector(nn.Module):
    """`all_in_one` connectors: video, body and face branches, mixed by the instruction gate.

    Args:
        width_in: D, of the vision tower.
        width: H, of the language model.
        blocks: Residual blocks a stage (2 in the 0.5B, 4 in the 7B).
        padding: Spatial padding of the temporal convolution (0 in the 0.5B, 1 in the 7B).
    """

    def __init__(self, width_in: int, width: int, blocks: int, padding: int):
        super().__init__()
        for _, branch in BRANCHES:
            self.add_module(f"s1_{branch}", Stage(blocks, width_in, width))
            # Padded by one step in time with the last output dropped: step t sees frames t-1 and t.
            sampler = nn.Conv3d(width, width, 2, stride=(1, 2, 2), padding=(1, padding, padding))
            self.add_module(f"sampler_{branch}", nn.Sequential(sampler, nn.SiLU()))
            self.add_module(f"s2_{branch}", Stage(blocks, width, width))
            self.add_module(f"readout_{branch}", _mlp(width, width))
        self.mlp_2xgelu_face = _mlp(width_in, width)

    def frame(self, features_NLD: Tensor) -> FrameFeatures:
        """The part that depends on one frame alone.

        Args:
            features_NLD: (N, P*P, D) patch features.
        """
        side = round(features_NLD.shape[1] ** 0.5)
        maps_NDPP = features_NLD.transpose(1, 2).unflatten(2, (side, side))
        maps_N2HPP = torch.stack(
            [getattr(self, f"s1_{name}")(maps_NDPP) for _, name in BRANCHES], 1
        )
        face_NHPP = self.mlp_2xgelu_face(features_NLD).transpose(1, 2).unflatten(2, (side, side))
        half = (side + 1) // 2
        face_NHQQ = F.interpolate(face_NHPP, size=(half, half), mode="bilinear")
        return FrameFeatures(maps_N2HPP, face_NHQQ.flatten(2).transpose(1, 2))

    def join(self, previous: FrameFeatures, current: FrameFeatures, gate_N3: Tensor) -> Tensor:
        """Visual tokens of N frames, each given with its predecessor (zero maps for the first of a window).

        Args:
            previous: Features of the frame before each; only `maps` is read.
            current: Features of the frames themselves.
            gate_N3: (N, 3) or (3,) weights of the video, body and face branches.

        Returns:
            (N, Q*Q, H).
        """
        pairs_N2H2PP = torch.stack((previous.maps, current.maps), 3)
        return self._readout(
            # The pair is the whole temporal extent, so the convolution's own padding in time must not apply.
            [self._sample(branch, pairs_N2H2PP[:, i], pad_time=False) for i, branch in BRANCHES],
            current.face,
            gate_N3,
        )

    def forward(self, features_BTLD: Tensor, gate_B3: Tensor) -> Tensor:
        """Whole windows at once, in the published order of operations.

        Args:
            features_BTLD: (B, T, P*P, D).
            gate_B3: (B, 3).

        Returns:
            (B, T, Q*Q, H).
        """
        batch, steps = features_BTLD.shape[:2]
        frames = self.frame(features_BTLD.flatten(0, 1))
        maps_B2HTPP = frames.maps.unflatten(0, (batch, steps)).permute(0, 2, 3, 1, 4, 5)
        sampled = [self._sample(name, maps_B2HTPP[:, i], pad_time=True) for i, name in BRANCHES]
        tokens = self._readout(sampled, frames.face, gate_B3.repeat_interleave(steps, 0))
        return tokens.unflatten(0, (batch, steps))

    def _sample(self, branch: str, maps_BHTPP: Tensor, pad_time: bool) -> Tensor:
        """Temporal convolution: (B, H, T, P, P) -> (B*T, H, Q, Q), T outputs with `pad_time` and T-1 without."""
        conv, act = getattr(self, f"sampler_{branch}")
        padding = conv.padding if pad_time else (0, *conv.padding[1:])
        out_BHTQQ = act(F.conv3d(maps_BHTPP, conv.weight, conv.bias, conv.stride, padding))
        if pad_time:
            out_BHTQQ = out_BHTQQ[:, :, :-1]
        return out_BHTQQ.transpose(1, 2).flatten(0, 1)

    def _readout(self, sampled: list[Tensor], face_NQH: Tensor, gate_N3: Tensor) -> Tensor:
        """(N, Q*Q, H): the branches, each (N, H, Q, Q) or face tokens, mixed by the gate."""
        gate_N311 = gate_N3.to(face_NQH.dtype)[..., None, None]
        gate_3N11 = gate_N311.movedim(-3, 0)  # without N where one gate serves all frames
        mixed_NQH = gate_3N11[2] * face_NQH
        for index, branch in BRANCHES:
            maps_NHQQ = getattr(self, f"s2_{branch}")(sampled[index])
            tokens_NQH = getattr(self, f"readout_{branch}")(maps_NHQQ.flatten(2).transpose(1, 2))
            mixed_NQH = mixed_NQH + gate_3N11[index] * tokens_NQH
        return mixed_NQH

"""Partial convolutions and the inpainting U-Net that is made of them (Liu et al. 2018, "Image Inpainting for Irregular
Holes Using Partial Convolutions"), as Major et al. (2020, section 2) use it.

Orientation: `validity` V is 1 where a pixel is known, `holes` S = 1 - V. Both may lie anywhere in [0,1]: all sums are
differentiable, so that a mask can be optimised through the network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # keeps the ratio finite where nothing is known; the result is 0 there
PUBLISHED_KERNELS = (7, 5, 5)  # of the encoder's first blocks; 3 in all others


class PartialConv2d(nn.Module):
    """x' = (W * (x V)) * window / sum(V) + b, and 0 where sum(V) = 0 (Liu et al. equation 1; Major et al. leave out the
    window's size, which makes a fully known window an ordinary convolution). V' = min(sum(V), 1).

    `groups` are channel counts: maps that were concatenated bring a validity each. Padding counts as unknown.
    """

    channels: Tensor  # (G,)

    def __init__(self, groups: Sequence[int], outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(sum(groups), outputs, kernel, stride, kernel // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.kernel, self.stride, self.window = kernel, stride, float(kernel * kernel * sum(groups))
        self.register_buffer("channels", torch.tensor(groups), persistent=False)
        nn.init.kaiming_normal_(self.convolution.weight)

    def forward(self, x: Tensor, validity: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B,C,H,W) and validities (B,G,H,W) in [0,1] -> maps (B,outputs,h,w), validity (B,1,h,w)."""
        weighted = (validity * self.channels[:, None, None]).sum(dim=1, keepdim=True)  # (B,G,H,W) -> (B,1,H,W)
        known = F.avg_pool2d(weighted, self.kernel, self.stride, self.kernel // 2,
                             divisor_override=1)  # sum over the window, (B,1,h,w)
        updated = known.clamp(0, 1)
        result = self.convolution(x * validity.repeat_interleave(self.channels, dim=1)) * (
            self.window / (known + EPSILON))
        return (result + self.bias[:, None, None]) * updated, updated


class EncoderBlock(nn.Module):
    """Half the size, rounded up: partial convolution of stride 2, batch norm (not in the first block), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: bool):
        super().__init__()
        self.convolution = PartialConv2d([inputs], outputs, kernel, stride=2)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()

    def forward(self, x: Tensor, validity: Tensor) -> tuple[Tensor, Tensor]:
        x, validity = self.convolution(x, validity)
        return F.relu(self.norm(x)), validity


class DecoderBlock(nn.Module):
    """Twice the size by nearest neighbours, cut to the encoder's map, which is joined; partial convolution, batch norm,
    leaky ReLU (0.2). The last block has neither norm nor activation."""

    def __init__(self, inputs: int, skipped: int, outputs: int, last: bool):
        super().__init__()
        self.convolution = PartialConv2d([inputs, skipped], outputs, 3)
        self.norm = nn.Identity() if last else nn.BatchNorm2d(outputs)
        self.last = last

    def forward(self, x: Tensor, validity: Tensor, skip: Tensor, skip_validity: Tensor) -> tuple[Tensor, Tensor]:
        x, validity = (doubled(each, skip) for each in (x, validity))
        x, validity = self.convolution(torch.cat([x, skip], dim=1), torch.cat([validity, skip_validity], dim=1))
        return (x if self.last else F.leaky_relu(self.norm(x), 0.2)), validity


def doubled(maps: Tensor, like: Tensor) -> Tensor:
    """Maps (B,C,h,w) at twice the size, without the last row or column where `like` (B,*,H,W) has odd sides."""
    return F.interpolate(maps, scale_factor=2, mode="nearest")[..., : like.shape[2], : like.shape[3]]


class InpaintingUNet(nn.Module):
    """The inpainter pi: images (B,C,H,W) in [-1,1] with validity (B,1,H,W) in [0,1] -> images (B,C,H,W), unbounded.

    One block of encoder and decoder for each of `channels` (published: eight), any image size whose sides are longer
    than 2 ** blocks.
    """

    def __init__(self, channels: Sequence[int], image_channels: int = 1):
        super().__init__()
        inputs = [image_channels, *channels[:-1]]
        kernels = [*PUBLISHED_KERNELS, *[3] * len(channels)][: len(channels)]
        self.encoder = nn.ModuleList(EncoderBlock(i, o, kernel, norm=number > 0) for number, (i, o, kernel)
                                     in enumerate(zip(inputs, channels, kernels, strict=True)))
        # What each block of the decoder gives: as much as the encoder's block beside it.
        outputs = [*channels[-2::-1], image_channels]
        self.decoder = nn.ModuleList(
            DecoderBlock(i, skipped, o, last=number == len(channels) - 1) for number, (i, skipped, o)
            in enumerate(zip([channels[-1], *outputs[:-1]], inputs[::-1], outputs, strict=True)))

    def forward(self, images: Tensor, validity: Tensor) -> Tensor:
        if min(images.shape[2:]) <= 2 ** len(self.encoder):
            raise ValueError(f"images of {tuple(images.shape[2:])} are too small to be halved {len(self.encoder)} "
                             f"times: raise image_size above {2 ** len(self.encoder)} or shorten "
                             "generators.impact.channels")
        maps = [(images, validity)]
        for block in self.encoder:
            maps.append(block(*maps[-1]))
        x, known = maps.pop()
        for block in self.decoder:
            x, known = block(x, known, *maps.pop())
        return x

    def inpaint(self, images: Tensor, holes: Tensor) -> Tensor:
        """Composite V x + S pi(V x, V) of images (B,C,H,W) and holes S (B,1,H,W) in [0,1], V = 1 - S; in [-1,1].

        The clamp is straight-through: a pixel that left the range keeps its gradient.
        """
        composite = images + holes * (self(images, 1 - holes).float() - images)
        return composite + (composite.clamp(-1, 1) - composite).detach()

    def freeze_encoder_norms(self) -> None:
        """The second training phase (Liu et al. section 4.1): the encoder's batch norms are constants from here on.

        Holes bias the statistics of a batch, so those of the first phase are kept. The decoder's norms learn on. Call
        it after `train()`.
        """
        for block in self.encoder:
            assert isinstance(block, EncoderBlock)
            block.norm.eval()
            block.norm.requires_grad_(False)

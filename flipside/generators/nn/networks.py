"""The network that COIN, Singla* and COIN-Aligned share, and the parameters that size it and its discriminator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from flipside.core.params import Params
from flipside.generators.base.generator import Fuse, fused
from flipside.generators.nn.blocks import Decoder, Encoder, SpectralSigma


class NetworkParams(Params):
    """Sizes of a perturbation network and its discriminator."""

    channels: list[int]
    """Channels of encoder and decoder, one block (factor 2 in size) each."""
    discriminator_channels: list[int]
    """Channels of the discriminator, one block (factor 2 in size) each."""
    discriminator_last_block: bool
    """One more discriminator block, without pooling (the authors' configuration for synthetic anomalies)."""
    skips: int
    """How many encoder maps are joined into the decoder, counted up from the bottleneck."""
    fuse: Fuse
    """How image x and perturbation G are joined. tanh: tanh(x + G), COIN's code. clamp: x + G clamped to [-1,1], its
    paper's sum, which leaves x exactly where G = 0. none: tanh(G)."""
    upsampling: Literal["nearest", "bilinear"]
    """How the decoder doubles the size."""
    spectral_norm: bool
    """Spectral norm on the 1x1 shortcuts of encoder and decoder; the discriminator has it everywhere."""
    spectral_sigma: SpectralSigma
    """Whether gradients pass through the spectral norm's sigma, in both networks; COIN's code: detached."""


class PerturbationNetwork(nn.Module):
    """E(x, c) = fuse(x, G(encoder(x), c)): images (B,C,H,W) in [-1,1] in and out.

    `norm` makes the decoder's conditional normalisation of a number of channels; the condition is what that takes.
    Without a condition it is 0 for every image, the one for "healthy".
    """

    def __init__(self, channels: list[int], skips: int, fuse: Fuse, upsampling: str, spectral_norm: bool,
                 spectral_sigma: SpectralSigma, norm: Callable[[int], nn.Module], image_channels: int = 1):
        super().__init__()
        self.fuse = fuse
        sigma = spectral_sigma if spectral_norm else None
        self.encoder = Encoder(channels, sigma, image_channels)
        self.decoder = Decoder(channels, skips, norm, upsampling, sigma, image_channels)

    def total(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """The sum x + G, or G alone with `fuse: none`, before it is brought into the range: (B,C,H,W), unbounded.

        Raises ValueError for images whose size the encoder's blocks can't halve.
        """
        factor = 2 ** len(self.encoder.blocks)
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(f"images of {tuple(images.shape[2:])} can't be halved {len(self.encoder.blocks)} times: "
                             f"make image_size a multiple of {factor} or shorten the generator's `channels`")
        if condition is None:
            condition = torch.zeros(len(images), dtype=torch.long, device=images.device)
        perturbation = self.decoder(self.encoder(images), condition)
        return perturbation if self.fuse == "none" else images + perturbation

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return fused(self.total(images, condition), self.fuse)

"""StylEx's network: z or a slice -> w, with the classifier's answer -> styles -> image."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from flipside.generators.codes.styles import Styles
from flipside.generators.nn.stylegan_layers import ResidualTrunk
from flipside.generators.nn.stylegan_synthesis import Mapping, Synthesis

CONDITION = 2  # numbers of the classifier's answer


class StyleNetwork(nn.Module):
    """StyleGAN2 conditioned on the classifier's answer, with an encoder; images (B,C,side,side), unbounded."""

    path_length: Tensor  # running mean, for the path length penalty

    def __init__(self, latent: int, width: int, mapping_layers: int, size_in: int, channels: list[int],
                 encoder_channels: list[int], image_channels: int = 1):
        super().__init__()
        self.latent = latent
        self.mapping = Mapping(latent, width, mapping_layers)
        self.synthesis = Synthesis(size_in, channels, width + CONDITION, image_channels)
        self.encoder = ResidualTrunk(self.synthesis.side, encoder_channels, width, False, image_channels)
        self.register_buffer("path_length", torch.zeros(()))

    def codes(self, w: Tensor) -> Tensor:
        """w (B,width) for every place that takes one: (B,codes,width)."""
        return w[:, None].expand(-1, self.synthesis.codes, -1)

    def styles(self, codes: Tensor, probability: Tensor) -> Styles:
        """Of codes (B,codes,width) under the classifier's probability of abnormal (B,)."""
        answer = torch.stack([1 - probability, probability], dim=1).to(codes.dtype)  # (B,2)
        return self.synthesis.styles(torch.cat([codes, answer[:, None].expand(-1, codes.shape[1], -1)], dim=2))

    def encoded(self, images: Tensor, probability: Tensor) -> Styles:
        """Styles of images (B,C,side,side), of which the classifier says `probability` (B,)."""
        return self.styles(self.codes(self.encoder(images)), probability)

    def sampled(self, z: Tensor, probability: Tensor) -> Styles:
        """Styles of z (B,latent)."""
        return self.styles(self.codes(self.mapping(z)), probability)

    def render(self, styles: Styles, noise: Generator | None = None) -> Tensor:
        """Images (B,C,side,side), with fixed noise unless a source of noise is given."""
        return self.synthesis(styles, noise)

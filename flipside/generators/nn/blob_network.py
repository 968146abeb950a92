"""BlobGAN's network: z -> h -> blobs -> image, and the encoder that may be trained with it, image -> h."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from flipside.generators.codes.blobs import AREA, Layout
from flipside.generators.nn.blob_encoder import build_encoder
from flipside.generators.nn.blob_renderer import LayoutNetwork, Renderer
from flipside.generators.nn.stylegan_layers import ResidualTrunk


class BlobNetwork(nn.Module):
    """z (B,latent) -> h (B,layout_width) -> blobs -> images (B,C,H,W); with `joint` also an encoder, image -> h."""

    encoder: ResidualTrunk | None

    def __init__(self, blobs: int, latent: int, layout_width: int, layout_layers: int, feat: int, style: int,
                 size_in: int, channels: list[int], encoder_channels: list[int], joint: bool, image_channels: int = 1,
                 blob_area: float = AREA):  # absent: from before it could be chosen
        super().__init__()
        self.latent, self.blob_area = latent, blob_area
        self.layout_network = LayoutNetwork(latent, layout_width, layout_layers, blobs, feat, style, blob_area)
        self.renderer = Renderer(size_in, channels, feat, style, image_channels)
        sizes = {"size_in": size_in, "channels": channels, "encoder_channels": encoder_channels,
                 "layout_width": layout_width, "image_channels": image_channels}
        self.encoder = build_encoder(sizes) if joint else None

    def layout(self, z: Tensor) -> Tensor:
        """h (B,layout_width) of z (B,latent)."""
        return self.layout_network(z)

    def decode(self, h: Tensor) -> Layout:
        """Blobs of h (B,layout_width)."""
        return self.layout_network.decode(h)

    def encode(self, images: Tensor) -> Tensor:
        """h (B,layout_width) of images (B,C,H,W), for a network with an encoder."""
        if self.encoder is None:
            raise ValueError("this BlobGAN was trained without an encoder: set `training: joint`")
        return self.encoder(images)

    def shares(self, layout: Layout) -> Tensor:
        """How much of background and blobs is visible in each pixel, (B,K+1,H,W); sums to one."""
        return self.renderer.shares(layout)

    def render(self, layout: Layout, noise: Generator | None = None, shares: Tensor | None = None) -> Tensor:
        """Images (B,C,H,W) of a layout, with fixed noise unless a source of noise is given."""
        return self.renderer(layout, noise, shares)

    def forward(self, z: Tensor) -> Tensor:
        return self.render(self.decode(self.layout(z)))

"""BlobGAN's two networks: z -> blobs, and blobs -> image by convolutions that are modulated in space (section 3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flipside.generators.codes.blobs import AREA, Layout, opacity_logits, pyramid, splat, visible_shares
from flipside.generators.nn.stylegan_layers import SQRT2, EqualLinear, blur, draw_noise, pixel_norm

LR_MUL = 0.01  # of the layout network
NOISE_SEED = 20


class LayoutNetwork(nn.Module):
    """z (B,latent) -> h (B,width), what enters the last layer -> the blobs that this decodes."""

    def __init__(self, latent: int, width: int, layers: int, blobs: int, feat: int, style: int, area: float = AREA):
        super().__init__()
        self.blobs, self.feat, self.style, self.width, self.area = blobs, feat, style, width, area
        inputs = [latent] + [width] * (layers - 2)
        self.hidden = nn.Sequential(*(EqualLinear(i, width, LR_MUL, activate=True) for i in inputs))
        outputs = (blobs + 1) * (1 + feat + style) + blobs * (2 + 4)
        self.last = EqualLinear(width, outputs, LR_MUL)

    def forward(self, z: Tensor) -> Tensor:
        return self.hidden(pixel_norm(z, dim=1))

    def decode(self, h: Tensor) -> Layout:
        """The blobs of h (B,width)."""
        with torch.autocast(h.device.type, enabled=False):  # positions in bfloat16 would be off by pixels
            values, count, blobs = self.last(h.float()), len(h), self.blobs
        widths = [blobs + 1, (blobs + 1) * self.feat, (blobs + 1) * self.style, blobs * 2, blobs * 4]
        size, feat, style, xy, shape = values.split(widths, dim=1)
        return Layout(
            torch.sigmoid(xy.view(count, blobs, 2)), size, shape.view(count, blobs, 4),
            pixel_norm(feat.view(count, blobs + 1, self.feat), dim=2),
            pixel_norm(style.view(count, blobs + 1, self.style), dim=2), values.new_empty(count, 0), self.area)


class SpatialConv(nn.Module):
    """Convolution of maps that are scaled, pixel by pixel, as the styles of the blobs visible there say.

    `demodulate`: the scales have unit root mean square at each pixel, and each filter unit length whatever the style.
    `up`: twice the size. Noise, bias and activation follow unless `to_image`.
    """

    noise: Tensor  # (1,1,h,w), the fixed one

    def __init__(self, inputs: int, outputs: int, kernel: int, style: int, side: int, up: bool = False,
                 to_image: bool = False):
        super().__init__()
        self.side, self.up, self.to_image, self.kernel = side, up, to_image, kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = EqualLinear(style, inputs, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(outputs))
        if not to_image:
            self.noise_strength = nn.Parameter(torch.zeros(()))
            output_side = side * 2 if up else side
            fixed = torch.randn(1, 1, output_side, output_side,
                                generator=Generator().manual_seed(NOISE_SEED + 2 * output_side + up))
            self.register_buffer("noise", fixed)

    def forward(self, x: Tensor, styles: Tensor, levels: dict[int, Tensor], noise: Generator | None,
                added: Tensor | None = None) -> Tensor:
        """Maps (B,Cin,side,side), styles (B,K+1,S), shares by side -> (B,Cout,h,w). `noise`: None for the fixed one;
        `added` (B,1,h,w): to it, in units of the maps."""
        scale = splat(levels[self.side], self.affine(styles))  # (B,Cin,side,side)
        weight = self.weight / math.sqrt(self.weight[0].numel())
        if not self.to_image:
            scale = pixel_norm(scale, dim=1, eps=1e-8)
            weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
            weight = weight * SQRT2  # the activation's gain, taken early: maps are larger than weights
        x = x * scale
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B,Cout,2*side+1,2*side+1)
            x = blur(x, padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=self.kernel // 2)
        if self.to_image:
            return x + self.bias.view(1, -1, 1, 1)
        drawn = self.noise if noise is None else draw_noise(x, noise)
        drawn = self.noise_strength * drawn
        offset = SQRT2 * ((drawn if added is None else drawn + added) + self.bias.view(1, -1, 1, 1))
        return F.leaky_relu(x + offset, 0.2, inplace=True)


class Renderer(nn.Module):
    """Blobs -> images (B,C,side,side), side = `size_in` * 2^(len(channels)-1); unbounded, in [-1,1] once trained."""

    def __init__(self, size_in: int, channels: list[int], feat: int, style: int, image_channels: int = 1):
        super().__init__()
        self.size_in, self.side = size_in, size_in * 2 ** (len(channels) - 1)
        self.noise_sides = [size_in] + [size_in * 2**depth for depth in range(1, len(channels)) for _ in range(2)]
        self.first = SpatialConv(feat, channels[0], 3, style, size_in)
        self.first_image = SpatialConv(channels[0], image_channels, 1, style, size_in, to_image=True)
        self.ups, self.convs, self.images = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for depth, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
            side = size_in * 2**depth
            self.ups.append(SpatialConv(inputs, outputs, 3, style, side, up=True))
            self.convs.append(SpatialConv(outputs, outputs, 3, style, side * 2))
            self.images.append(SpatialConv(outputs, image_channels, 1, style, side * 2, to_image=True))

    def noise_numbers(self, largest: int) -> int:
        """N of a layout's noise that has all maps up to this side."""
        return sum(side**2 for side in self.noise_sides if side <= largest)

    def noise_maps(self, noise: Tensor) -> list[Tensor | None]:
        """For each convolution its map (B,1,h,w) of a layout's noise (B,N), the first first; None where N ends."""
        maps, begin = [], 0
        for side in self.noise_sides:
            part = noise[:, begin : begin + side**2]
            maps.append(part.view(-1, 1, side, side) if part.shape[1] else None)
            begin += side**2
        return maps

    def shares(self, layout: Layout) -> Tensor:
        """What is seen of background and blobs in each pixel of the image: (B,K+1,side,side), sums to one."""
        return visible_shares(opacity_logits(layout, self.side))

    def forward(self, layout: Layout, noise: Generator | None = None, shares: Tensor | None = None) -> Tensor:
        """Images of the layout; `shares` where they are known already."""
        with torch.autocast(layout.xy.device.type, enabled=False):
            levels = pyramid(self.shares(layout) if shares is None else shares, self.size_in)
        added = iter(self.noise_maps(layout.noise))
        x = self.first(splat(levels[self.size_in], layout.feat), layout.style, levels, noise, next(added))
        image = self.first_image(x, layout.style, levels, noise).float()  # sums in bfloat16 would be off by grey levels
        for up, conv, to_image in zip(self.ups, self.convs, self.images, strict=True):
            x = up(x, layout.style, levels, noise, next(added))
            x = conv(x, layout.style, levels, noise, next(added))
            image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            image = image + to_image(x, layout.style, levels, noise).float()
        return image

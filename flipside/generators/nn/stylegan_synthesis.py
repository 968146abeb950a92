"""StyleGAN2's generator (Karras et al. 2020) with access to its StyleSpace: styles, and synthesis layer by layer.

A layer is a 3x3 convolution; layer 0 is at the smallest size, 2r - 1 doubles the size and 2r follows at size r. What
scales the maps that enter the layers is the StyleSpace (Wu et al. 2021); the scales of the convolutions that make the
image don't belong to it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flipside.generators.codes.styles import State, Styles
from flipside.generators.nn.stylegan_layers import EqualLinear, activated, blur, draw_noise, pixel_norm

LR_MUL = 0.01  # of the mapping network
NOISE_SEED = 20


class Mapping(nn.Module):
    """z (B,latent) -> w (B,width)."""

    def __init__(self, latent: int, width: int, layers: int):
        super().__init__()
        inputs = [latent] + [width] * (layers - 1)
        self.layers = nn.Sequential(*(EqualLinear(i, width, LR_MUL, activate=True) for i in inputs))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(pixel_norm(z, dim=1))


class ModulatedConv(nn.Module):
    """3x3 convolution of scaled maps whose results are brought back to unit deviation; noise, bias, activation.

    Scaling the maps by the style and the results by 1/norm is the same as scaling the weights, without a convolution
    for each image. `up`: twice the size.
    """

    noise: Tensor  # (1,1,side,side), the fixed one

    def __init__(self, inputs: int, outputs: int, side: int, up: bool = False):
        super().__init__()
        self.inputs, self.up = inputs, up
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        fixed = torch.randn(1, 1, side, side, generator=Generator().manual_seed(NOISE_SEED + 2 * side + up))
        self.register_buffer("noise", fixed)

    def forward(self, x: Tensor, style: Tensor, noise: Generator | None) -> Tensor:
        """Maps (B,Cin,h,w), style (B,Cin) -> (B,Cout,side,side). `noise`: None for the fixed one."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        with torch.autocast(x.device.type, enabled=False):
            squares = weight.float().square().sum(dim=(2, 3))  # (Cout,Cin)
            norm = torch.rsqrt(style.float().square() @ squares.T + 1e-8)  # (B,Cout)
        x = x * style[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B,Cout,2h+1,2w+1)
            x = blur(x, padding=1, gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        drawn = self.noise if noise is None else draw_noise(x, noise)
        return activated(x * norm[:, :, None, None] + self.noise_strength * drawn + self.bias[:, None, None])


class ToImage(nn.Module):
    """1x1 convolution of scaled maps, not normalised: (B,F,h,w), (B,F) -> (B,C,h,w)."""

    def __init__(self, inputs: int, image_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(image_channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight.shape[1])
        return F.conv2d(x * style[:, :, None, None], weight, self.bias)


class Synthesis(nn.Module):
    """Codes -> styles -> images (B,C,side,side), side = `size_in` * 2^(len(channels)-1); unbounded.

    `code`: numbers in what is mapped to a layer's style. An image has `codes` of these, one after the other for the
    layers and, as in StyleGAN2, that of the next layer for the image of each size.
    """

    def __init__(self, size_in: int, channels: list[int], code: int, image_channels: int = 1):
        super().__init__()
        self.side, self.codes = size_in * 2 ** (len(channels) - 1), 2 * len(channels)
        self.constant = nn.Parameter(torch.randn(1, channels[0], size_in, size_in))
        layers = [ModulatedConv(channels[0], channels[0], size_in)]
        for depth, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False), start=1):
            side = size_in * 2**depth
            layers += [ModulatedConv(inputs, outputs, side, up=True), ModulatedConv(outputs, outputs, side)]
        self.layers, self.to_image = nn.ModuleList(layers), nn.ModuleList(
            ToImage(count, image_channels) for count in channels)
        self.affines = nn.ModuleList(EqualLinear(code, layer.inputs, bias=1.0) for layer in layers)
        self.image_affines = nn.ModuleList(EqualLinear(code, count, bias=1.0) for count in channels)

    def styles(self, codes: Tensor) -> Styles:
        """Of codes (B,codes,code)."""
        return Styles([affine(codes[:, layer]) for layer, affine in enumerate(self.affines)],
                      [affine(codes[:, 2 * size + 1]) for size, affine in enumerate(self.image_affines)])

    def begin(self, count: int) -> State:
        """`count` images before layer 0."""
        return State(self.constant.expand(count, -1, -1, -1), None)

    def advance(self, state: State, styles: Styles, layer: int, noise: Generator | None = None) -> State:
        """Images before `layer` -> the same behind it."""
        maps, image = self.layers[layer](state.maps, styles.space[layer], noise), state.image
        if layer % 2 == 0:  # the last layer of its size
            made = self.to_image[layer // 2](maps, styles.images[layer // 2]).float()  # sums in bfloat16 lose greys
            if image is not None:
                made = made + F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            image = made
        return State(maps, image)

    def finish(self, state: State, styles: Styles, first: int, noise: Generator | None = None) -> Tensor:
        """Images (B,C,side,side) of images before layer `first`."""
        for layer in range(first, len(self.layers)):
            state = self.advance(state, styles, layer, noise)
        assert state.image is not None, "the last layer makes the image"
        return state.image

    def forward(self, styles: Styles, noise: Generator | None = None) -> Tensor:
        return self.finish(self.begin(len(styles.space[0])), styles, 0, noise)

"""Building blocks of the SNGAN-like networks of COIN and Singla et al.: residual down- and up-blocks, conditional norm.

Sources: Shvetsov et al. 2024 (COIN) section 3.2, Singla et al. 2021, Miyato et al. 2018 (SNGAN, projection).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

SpectralSigma = Literal["differentiable", "detached"]


def conv3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, without bias."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


def conv1(inputs: int, outputs: int, sigma: SpectralSigma | None) -> nn.Module:
    """A 1x1 convolution without bias, with spectral norm where `sigma` says how."""
    layer = nn.Conv2d(inputs, outputs, 1, bias=False)
    return spectral_norm(layer, sigma) if sigma else layer


def spectral_norm(layer: nn.Conv2d | nn.Linear, sigma: SpectralSigma) -> nn.Module:
    """The layer with its weight divided by sigma, the greatest singular value (Miyato et al. 2018).

    `differentiable`: gradients pass through sigma, its estimate is fixed in eval mode. `detached`: as in COIN's code.
    """
    if sigma == "differentiable":
        return parametrizations.spectral_norm(layer)
    return parametrize.register_parametrization(layer, "weight", DetachedSpectralNorm(layer.weight))


class DetachedSpectralNorm(nn.Module):
    """Spectral norm as COIN's code has it: sigma is a constant to the gradient, and every forward improves its
    estimate by one power iteration, in eval mode too, so that an answer depends on how many came before it."""

    u: Tensor  # (out,) the estimate of the left singular vector

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(len(weight)), dim=0))

    @torch.no_grad()
    def sigma(self, weight: Tensor) -> Tensor:
        matrix = weight.flatten(1)  # (out,in,h,w) -> (out,in*h*w)
        v = F.normalize(matrix.T @ self.u, dim=0)
        self.u.copy_(F.normalize(matrix @ v, dim=0))
        return self.u @ matrix @ v

    def forward(self, weight: Tensor) -> Tensor:
        return weight / self.sigma(weight)


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift are looked up by condition: (B,C,h,w), (B,) integers -> (B,C,h,w)."""

    def __init__(self, channels: int, conditions: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(conditions, channels)
        self.shift = nn.Embedding(conditions, channels)
        nn.init.normal_(self.scale.weight, 1.0, 0.02)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale(condition), self.shift(condition)  # (B,C)
        return self.norm(x) * scale[:, :, None, None] + shift[:, :, None, None]


class FeatureBatchNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a feature vector: (B,C,h,w), (B,F) -> (B,C,h,w).

    COIN-Aligned, section 3.8. `initial_scale` one: the scale starts about 1; default: about 0, as the linear layer has
    it in the published code, which at first lets next to nothing of the maps through.
    """

    def __init__(self, channels: int, features: int, initial_scale: Literal["one", "default"]):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.linear = nn.Linear(features, 2 * channels)
        if initial_scale == "one":
            nn.init.ones_(self.linear.bias[:channels])

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        scale, shift = self.linear(features).chunk(2, dim=1)  # (B,2C) -> (B,C) each
        return self.norm(x) * scale[:, :, None, None] + shift[:, :, None, None]


class DownBlock(nn.Module):
    """Encoder block, half the size: shortcut pool-conv1; main BN-ReLU-pool-conv3-BN-ReLU-conv3."""

    def __init__(self, inputs: int, outputs: int, spectral_shortcut: SpectralSigma | None):
        super().__init__()
        self.shortcut = conv1(inputs, outputs, spectral_shortcut)
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv3(inputs, outputs)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), conv3(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.avg_pool2d(F.relu(self.norm1(x)), 2))
        return self.conv2(F.relu(self.norm2(y))) + self.shortcut(F.avg_pool2d(x, 2))


class UpBlock(nn.Module):
    """Decoder block, twice the size: shortcut up-conv1; main CBN-ReLU-up-conv3-CBN-ReLU-conv3."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module], upsampling: str,
                 spectral_shortcut: SpectralSigma | None):
        super().__init__()
        self.upsampling = upsampling
        self.shortcut = conv1(inputs, outputs, spectral_shortcut)
        self.norm1, self.conv1 = norm(inputs), conv3(inputs, outputs)
        self.norm2, self.conv2 = norm(outputs), conv3(outputs, outputs)

    def up(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode=self.upsampling)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(self.up(F.relu(self.norm1(x, condition))))
        # A 1x1 convolution and upsampling commute: convolving first is the same at a quarter of the cost.
        return self.conv2(F.relu(self.norm2(y, condition))) + self.up(self.shortcut(x))


class Encoder(nn.Module):
    """Images (B,C,H,W) -> one map per block, at H/2, H/4, ...; the last one is the bottleneck z."""

    def __init__(self, channels: list[int], spectral_shortcut: SpectralSigma | None, image_channels: int = 1):
        super().__init__()
        self.stem, self.norm = conv3(image_channels, channels[0]), nn.BatchNorm2d(channels[0])
        inputs = [channels[0], *channels[:-1]]
        self.blocks = nn.ModuleList(DownBlock(i, o, spectral_shortcut) for i, o in zip(inputs, channels, strict=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.norm(F.relu(self.stem(images)))  # ReLU before BN, as the authors' stem has it
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Encoder maps and a condition, (B,) or (B,F) as the norms made by `norm` take it -> an image (B,C,H,W), unbounded.

    `skips` = how many encoder maps, counted up from the bottleneck, are joined before the blocks 2, 3, ...
    """

    def __init__(self, channels: list[int], skips: int, norm: Callable[[int], nn.Module], upsampling: str,
                 spectral_shortcut: SpectralSigma | None, image_channels: int = 1):
        super().__init__()
        if not 0 <= skips < len(channels):
            raise ValueError(f"generators: `skips` is {skips}; {len(channels)} blocks allow 0 to {len(channels) - 1}")
        self.skips = skips
        outputs = channels[::-1]
        inputs = [outputs[0], *outputs[:-1]]
        for block in range(1, skips + 1):
            inputs[block] += outputs[block]
        self.blocks = nn.ModuleList(
            UpBlock(i, o, norm, upsampling, spectral_shortcut) for i, o in zip(inputs, outputs, strict=True)
        )
        self.norm, self.head = nn.BatchNorm2d(outputs[-1]), conv3(outputs[-1], image_channels)

    def forward(self, maps: list[Tensor], condition: Tensor) -> Tensor:
        x = maps[-1]
        for number, block in enumerate(self.blocks):
            if 1 <= number <= self.skips:
                x = torch.cat([x, maps[-1 - number]], dim=1)
            x = block(x, condition)
        return self.head(F.relu(self.norm(x)))


class DiscriminatorBlock(nn.Module):
    """Spectrally normalised residual block; a net's first has no ReLU in front, an added last one keeps the size."""

    def __init__(self, inputs: int, outputs: int, sigma: SpectralSigma, first: bool = False, pool: bool = True):
        super().__init__()
        self.first, self.pool = first, pool
        self.conv1 = spectral_norm(nn.Conv2d(inputs, outputs, 3, padding=1), sigma)
        self.conv2 = spectral_norm(nn.Conv2d(outputs, outputs, 3, padding=1), sigma)
        self.shortcut = nn.Identity() if inputs == outputs else spectral_norm(nn.Conv2d(inputs, outputs, 1), sigma)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.relu(x))
        y = self.conv2(F.relu(y))
        if not self.pool:
            return y + self.shortcut(x)
        if self.first:  # pooling before the 1x1 convolution: the same result at a quarter of the cost
            return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return F.avg_pool2d(y, 2) + F.avg_pool2d(self.shortcut(x), 2)


class ProjectionDiscriminator(nn.Module):
    """Images (B,C,H,W), condition (B,) integers or None -> realness logits (B,) (Miyato & Koyama 2018, equation 6).

    Global sum pool; linear output plus <embedding(condition), h>. Without a condition the embedding is left out.
    `ordinal`: a condition's embedding is the sum of the vectors 1 to condition, so that neighbours share most of it and
    0 has none (Singla et al. 2021, section 3.2).
    """

    def __init__(self, channels: list[int], conditions: int, last_block: bool, sigma: SpectralSigma,
                 ordinal: bool = False, image_channels: int = 1):
        super().__init__()
        self.ordinal = ordinal
        inputs = [image_channels, *channels[:-1]]
        blocks = [DiscriminatorBlock(i, o, sigma, first=n == 0)
                  for n, (i, o) in enumerate(zip(inputs, channels, strict=True))]
        if last_block:
            blocks.append(DiscriminatorBlock(channels[-1], channels[-1], sigma, pool=False))
        self.blocks = nn.Sequential(*blocks)
        self.linear = spectral_norm(nn.Linear(channels[-1], 1), sigma)
        self.embedding = nn.Embedding(conditions, channels[-1])
        initialise_discriminator(self)

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        h = F.relu(self.blocks(images)).sum(dim=(2, 3))  # (B,C)
        logits = self.linear(h).squeeze(1)
        if condition is None:
            return logits
        return logits + (self.embed(condition) * h).sum(dim=1)

    def embed(self, condition: Tensor) -> Tensor:
        """Conditions (B,) -> (B,C)."""
        if not self.ordinal:
            return self.embedding(condition)
        thresholds = torch.arange(1, self.embedding.num_embeddings, device=condition.device)
        passed = (condition[:, None] >= thresholds).to(self.embedding.weight.dtype)  # (B,conditions-1)
        return passed @ self.embedding.weight[1:]


def initialise_discriminator(discriminator: nn.Module) -> None:
    """Xavier initialisation: gain 1 on shortcuts, sqrt(2) on the main branches, before spectral normalisation."""
    for name, module in discriminator.named_modules():
        if isinstance(module, nn.Conv2d):
            gain = 1.0 if "shortcut" in name else 2**0.5
            nn.init.xavier_uniform_(module.get_parameter("parametrizations.weight.original"), gain)
            nn.init.zeros_(module.get_parameter("bias"))

"""Networks of CX-GAN (Zia et al. 2023, as in their code), used for VA-GAN too: U-Net, PatchGAN, image replay."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flipside.core import ranks


class InstanceUNet(nn.Module):
    """Images (B,C,H,W) -> a map (B,C,H,W), unbounded.

    Encoder blocks conv4 of stride 2, leaky ReLU (0.2), instance norm; decoder nearest x 2, conv4, ReLU, instance norm,
    joined with the encoder's map; a last nearest x 2 and conv4.
    """

    def __init__(self, channels: list[int], image_channels: int = 1):
        super().__init__()
        self.encoder = nn.ModuleList(nn.Conv2d(i, o, 4, stride=2, padding=1)
                                     for i, o in zip([image_channels, *channels[:-1]], channels, strict=True))
        outputs = channels[-2::-1]
        inputs = [channels[-1], *(2 * each for each in outputs)]  # joined from the second on
        self.decoder = nn.ModuleList(same_conv4(i, o) for i, o in zip(inputs, [*outputs, image_channels], strict=True))

    def forward(self, images: Tensor) -> Tensor:
        factor = 2 ** len(self.encoder)
        if images.shape[2] % factor or images.shape[3] % factor or min(images.shape[2:]) < 2 * factor:
            raise ValueError(f"images of {tuple(images.shape[2:])} can't be halved {len(self.encoder)} times to at "
                             f"least 2 pixels: make image_size a multiple of {factor}, {2 * factor} at the least, or "
                             "shorten the generator's `channels`")
        maps, x = [], images
        for convolution in self.encoder:
            x = F.instance_norm(F.leaky_relu(convolution(x), 0.2))
            maps.append(x)
        maps.pop()
        for convolution in self.decoder[:-1]:
            x = F.instance_norm(F.relu(convolution(doubled(x))))
            x = torch.cat([x, maps.pop()], dim=1)
        return self.decoder[-1](doubled(x))


def same_conv4(inputs: int, outputs: int) -> nn.Module:
    """A 4 x 4 convolution that keeps the size: one row and column more of padding below and to the right."""
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(inputs, outputs, 4))


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class PatchDiscriminator(nn.Module):
    """Images (B,C,H,W) -> realness of patches (B,1,h,w).

    Blocks of conv4 of stride 2, leaky ReLU (0.2) and, with `norm` and but in the first, instance norm; a last conv4.
    """

    def __init__(self, channels: list[int], norm: bool = True, image_channels: int = 1):
        super().__init__()
        layers: list[nn.Module] = []
        for number, (i, o) in enumerate(zip([image_channels, *channels[:-1]], channels, strict=True)):
            layers += [nn.Conv2d(i, o, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.InstanceNorm2d(o)] if norm and number else []
        self.layers = nn.Sequential(*layers, same_conv4(channels[-1], 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class ReplayPool(nn.Module):
    """Keeps up to `size` generated images; what goes in comes out again now or later (Shrivastava et al. 2017).

    Once it is full, half of the images are exchanged for a random one that was kept. The kept images are part of the
    module's state: a training that was killed goes on with them.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.kept: Tensor | None = None  # (n,C,H,W), n <= size

    def forward(self, images: Tensor, uniform: Tensor) -> Tensor:
        """Images (B,C,H,W), some of them exchanged as `uniform` (B,) in [0,1) says. Every rank keeps the same ones, of
        the whole batch."""
        if self.size == 0:
            return images
        images, uniform = ranks.gathered(images), ranks.gathered(uniform)
        shown, images = images.clone(), images.detach()
        for number, u in enumerate(uniform.tolist()):
            image = images[number : number + 1]
            if self.kept is None or len(self.kept) < self.size:
                self.kept = image.clone() if self.kept is None else torch.cat([self.kept.to(image.device), image])
            elif u < 0.5:
                place = int(2 * u * self.size)
                self.kept = self.kept.to(image.device)
                shown[number] = self.kept[place]
                self.kept[place] = image[0]
        return ranks.share(shown)

    def get_extra_state(self) -> dict[str, Tensor]:
        return {} if self.kept is None else {"kept": self.kept}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        self.kept = state.get("kept")

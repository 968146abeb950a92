"""VGG16's features for perceptual and style losses (Gatys et al. 2016; Johnson et al. 2016), from torch hub's cache."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import imagenet_weights
from flipside.classifiers.networks.perceptual import as_rgb

POOLS = (5, 10, 17)  # layers of `vgg16().features` up to which pool1, pool2 and pool3 reach
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """Slices (B,C,H,W) in [-1,1] -> the maps after pool1, pool2 and pool3 of VGG16, of the channels as `as_rgb` gives
    them; frozen.

    Raises FileNotFoundError where the weights are not in torch hub's cache; nothing is downloaded.
    """

    mean: Tensor  # (1,3,1,1)
    deviation: Tensor  # (1,3,1,1)

    def __init__(self) -> None:
        import torchvision  # slow to import

        super().__init__()
        layers = torchvision.models.vgg16(weights=None).features
        state = imagenet_weights("vgg16", "generators.impact.perceptual_features: none")
        prefix = "features."
        layers.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()
                                if name.startswith(prefix)})
        starts = (0, *POOLS[:-1])
        self.parts = nn.ModuleList(layers[start:stop] for start, stop in zip(starts, POOLS, strict=True))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = (as_rgb((images + 1) / 2) - self.mean) / self.deviation  # (B,C,H,W) -> (B*P,3,H,W)
        maps = []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps


def gram(maps: Tensor) -> Tensor:
    """Gram matrices (B,C,C) of maps (B,C,h,w), over C h w (Liu et al. 2018, equations 4 and 5).

    In full precision also under autocast: the sums over h w pixels are large, their differences small.
    """
    with torch.autocast(maps.device.type, enabled=False):
        flat = maps.flatten(2).float()  # (B,C,h,w) -> (B,C,h*w)
        return flat @ flat.transpose(1, 2) / (maps.shape[1] * flat.shape[2])

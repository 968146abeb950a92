"""Classifiers with one logit: torchvision's backbones and a small residual net for 64 x 64.

Every classifier offers, besides `forward`, what methods and losses need: `view` (its feature maps at several depths,
penultimate features and logits in one pass), `features` (the last convolutional maps), `penultimate` and
`classifying_weights` (the linear weights behind a global average pool). One that the user brought offers what its
network allows (`foreign.py`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flipside.classifiers.networks.view import View, maps_by_size
from flipside.core.checkpoint import load_weights, read_description
from flipside.core.runtime import Runtime
from flipside.core.store import as_channels

RGB = 3  # channels that torchvision's backbones take
ARCHITECTURES = ("resnet18", "densenet121", "efficientnet_v2_s", "mobilenet_v2")  # torchvision's, by its names


class Classifier(nn.Module):
    """`features` -> global average pool -> dropout -> linear: the form that all backbones here share.

    Images (B,C,H,W) in [-1,1], C = `image_channels`, -> logits (B,), positive means abnormal. Images of another number
    of channels are refused. `channels`: of the trunk's last maps.
    """

    def __init__(self, trunk: nn.Module, channels: int, dropout: float = 0.0, image_channels: int = 1):
        super().__init__()
        self.trunk = trunk
        self.image_channels = image_channels
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, 1)

    def features(self, images: Tensor) -> Tensor:
        """Last convolutional maps (B,C,h,w), after the activation."""
        check_channels(images.shape[1], self.image_channels)
        return self.trunk(images)

    def head(self, features: Tensor) -> Tensor:
        """Logits (B,) of feature maps (B,C,h,w)."""
        return self.linear(self.dropout(self.pooled(features))).squeeze(1)

    def pooled(self, features: Tensor) -> Tensor:
        """Global average pool: (B,C,h,w) -> (B,C), the penultimate features."""
        return features.mean(dim=(2, 3))

    def classifying_weights(self) -> Tensor:
        """Weights (C,) from the pooled features to the logit (CAM's weights)."""
        return self.linear.weight.squeeze(0)

    def view(self, images: Tensor) -> View:
        """Maps at several depths, penultimate features and logits, in one pass."""
        check_channels(images.shape[1], self.image_channels)
        maps = maps_by_size(self.trunk, images)
        return View(maps, self.pooled(maps[-1]), self.head(maps[-1]))

    def penultimate(self, images: Tensor) -> Tensor:
        """Penultimate features (B,F)."""
        return self.pooled(self.features(images))

    @property
    def feature_count(self) -> int:
        """F of the penultimate features."""
        return self.linear.in_features

    @property
    def has_maps(self) -> bool:
        """Whether the network shows its feature maps."""
        return True

    def last_layer(self) -> nn.Module | None:
        """The linear layer that gives the logit; None where there is no telling."""
        return self.linear

    def input_height(self, images: Tensor) -> int:
        """Rows of the image that the network itself gets, which strides are counted from."""
        return images.shape[-2]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def check_channels(found: int, expected: int) -> None:
    """Refuse images of another number of channels than a classifier was trained on."""
    if found != expected:
        raise ValueError(f"the classifier was trained on slices with {expected} channel{'s' * (expected > 1)}, these "
                         f"have {found}: train it on them (`dvc repro`), or choose a data set whose slices have as "
                         "many channels as those it was trained on")


class ResidualBlock(nn.Module):
    """Half the size: average pool, then conv3-BN-ReLU-conv3-BN with a 1x1 shortcut.

    Pooled, not strided: a stride keeps every other pixel's place and so shifts the maps against the image by half a
    cell per block, which would shift every class activation map that is drawn from them.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def small_resnet_trunk(width: int, image_channels: int = 1) -> tuple[nn.Module, int]:
    """A stem and three residual stages of 1, 2 and 4 times `width` channels that end at 1/8 of the size."""
    stem = [nn.Conv2d(image_channels, width // 2, 3, 1, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU()]
    channels = [width // 2, width, 2 * width, 4 * width]
    stages = [ResidualBlock(i, o) for i, o in zip(channels, channels[1:], strict=False)]
    return nn.Sequential(*stem, *stages), channels[-1]


def build_classifier(architecture: str, width: int, pretrained: bool, image_channels: int = 1) -> Classifier:
    """A classifier by name, for images of so many channels. `width` sizes the small net alone; `pretrained` starts from
    ImageNet weights."""
    if architecture == "small_resnet":
        if pretrained:
            raise ValueError("classifiers: small_resnet has no ImageNet weights; set `pretrained: false`")
        return Classifier(*small_resnet_trunk(width, image_channels), image_channels=image_channels)
    if architecture not in ARCHITECTURES:
        raise ValueError(f"classifiers: unknown architecture {architecture!r}; known are: small_resnet, "
                         f"{', '.join(ARCHITECTURES)}")
    import torchvision  # slow to import

    network = torchvision.models.get_model(architecture, weights=None)
    if pretrained:
        network.load_state_dict(imagenet_weights(architecture))
    if architecture == "resnet18":
        layers = [network.conv1, network.bn1, network.relu, network.maxpool]
        trunk = nn.Sequential(*layers, network.layer1, network.layer2, network.layer3, network.layer4)
        channels, dropout = network.fc.in_features, 0.0
    elif architecture == "densenet121":
        trunk = nn.Sequential(network.features, nn.ReLU())
        channels, dropout = network.classifier.in_features, 0.0
    else:
        trunk = network.features
        dropout, linear = network.classifier
        channels, dropout = linear.in_features, dropout.p
    if image_channels != RGB:
        _adapt_stem(trunk, image_channels)
    return Classifier(trunk, channels, dropout, image_channels)


def _adapt_stem(trunk: nn.Module, image_channels: int) -> None:
    """Replace the first convolution by one with so many input channels, its weights made of those for RGB.

    That is their sum for a single channel (as timm's `adapt_input_conv` has it), and for C channels their sum / C in
    each, so that grey in all of them gives the maps that it gives in red, green and blue.
    """
    for parent in trunk.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                (height, width), (down, across), padding = child.kernel_size, child.stride, child.padding
                assert not isinstance(padding, str)
                stem = nn.Conv2d(image_channels, child.out_channels, (height, width), (down, across),
                                 (padding[0], padding[1]), bias=child.bias is not None)
                grey = child.weight.data.sum(dim=1, keepdim=True)  # (outputs,3,h,w) -> (outputs,1,h,w)
                stem.weight.data = grey.repeat(1, image_channels, 1, 1) / image_channels
                if stem.bias is not None and child.bias is not None:
                    stem.bias.data = child.bias.data
                setattr(parent, name, stem)
                return


def imagenet_weights(architecture: str, otherwise: str = "pretrained: false") -> dict[str, Tensor]:
    """torchvision's ImageNet weights from torch hub's cache. Nothing is downloaded.

    Raises FileNotFoundError with the file's name, where it is looked for, where it comes from and the parameter that
    does without (`otherwise`).
    """
    import torchvision  # slow to import

    weights = torchvision.models.get_model_weights(architecture).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(weights.url)
    if not file.is_file():
        raise FileNotFoundError(
            f"ImageNet weights for {architecture} not found at {file}. Put {weights.url} there, set TORCH_HOME to the "
            f"folder that has hub/checkpoints, or set `{otherwise}`"
        )
    state = torch.load(file, map_location="cpu", weights_only=True)
    if architecture == "densenet121":
        # torchvision's file names DenseNet's inner layers `norm.1`, the module `norm1`.
        state = {_densenet_name(name): value for name, value in state.items()}
    return state


def _densenet_name(name: str) -> str:
    for layer in ("norm", "relu", "conv"):
        name = name.replace(f".{layer}.1.", f".{layer}1.").replace(f".{layer}.2.", f".{layer}2.")
    return name


def load_classifier(path: Path | str, runtime: Runtime, image_channels: int) -> Classifier:
    """A trained or imported classifier from its folder: frozen, in eval mode, on the runtime's device.

    Raises ValueError where the images that it is to be asked about have another number of channels than those that it
    was trained on.
    """
    arguments: dict[str, Any] = read_description(path)["architecture"]
    check_channels(image_channels, arguments.get("image_channels", 1))  # absent: from before there were several
    if "source" in arguments:
        from flipside.classifiers.networks.foreign import load_foreign  # which imports this file

        return runtime.place(load_foreign(path, arguments))
    return runtime.place(load_weights(path, build_classifier(**arguments, pretrained=False)))


@torch.no_grad()
def predict_logits(classifier: Classifier, images: Any, runtime: Runtime, batch_size: int = 256) -> Tensor:
    """Logits (N,) on the CPU of slices (N,H,W) or (N,C,H,W) in [-1,1]; the classifier must be in eval mode."""
    logits = []
    for start in range(0, len(images), batch_size):
        batch = as_channels(torch.as_tensor(images[start : start + batch_size], device=runtime.device).float())
        logits.append(classifier(batch).float().cpu())  # (B,C,H,W) -> (B,)
    return torch.cat(logits)


@torch.no_grad()
def predict_features(classifier: Classifier, images: Any, runtime: Runtime, batch_size: int = 256) -> Tensor:
    """Penultimate features (N,F) on the CPU of slices (N,H,W) or (N,C,H,W) in [-1,1], as `predict_logits`."""
    features = []
    for start in range(0, len(images), batch_size):
        batch = as_channels(torch.as_tensor(images[start : start + batch_size], device=runtime.device).float())
        features.append(classifier.penultimate(batch).float().cpu())  # (B,C,H,W) -> (B,F)
    return torch.cat(features)


def predict_probabilities(classifier: Classifier, images: Any, runtime: Runtime) -> np.ndarray:
    """Probability of abnormal (N,) of slices (N,H,W) or (N,C,H,W) in [-1,1]."""
    return torch.sigmoid(predict_logits(classifier, images, runtime)).numpy()

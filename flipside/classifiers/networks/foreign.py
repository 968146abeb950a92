"""A classifier that was trained elsewhere: timm's, torchvision's, a TorchScript file or a Python module of the user's.

The wrapper resizes, repeats a single channel, normalises, and makes one logit of the network's answers, so that all
else sees a `Classifier` of images in [-1,1]. What is inside is read by hooks on the layers that the import found.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import RGB, Classifier, check_channels
from flipside.classifiers.networks.hooks import watching
from flipside.classifiers.networks.view import View
from flipside.core.checkpoint import load_weights

Source = Literal["timm", "torchvision", "torchscript", "python"]
MODULE, SCRIPT = "module.py", "module.ts"  # in a model's folder: the user's Python file, the TorchScript archive


@dataclass(frozen=True)
class Form:
    """What `model.json` keeps of it: how the network is built, what it gets, what its answers mean, where to look."""

    source: Source
    architecture: str  # timm's or torchvision's name; the function of a Python module; torchscript: any text
    options: dict[str, Any]  # further arguments of the architecture
    classes: int  # K answers
    class_index: int | Literal["binary"]
    class_is: Literal["abnormal", "healthy"]
    channels: int  # of the network; slices may have one where it has three
    input_size: list[int] | None  # rows and columns that slices are resized to; None: as they are
    mean: list[float]  # of images in [0,1], one for each channel or one for all
    std: list[float]
    image_channels: int = 1  # of the slices
    layers: tuple[str, ...] | list[str] = ()  # of falling sizes, the last is the one that CAM methods take
    head: str | None = None  # the last linear layer
    head_takes_means: bool = False  # its input is the plain mean of the last layer's maps
    feature_count: int = 1


class ForeignClassifier(Classifier):
    """A frozen network of the user's with the interface of `Classifier`, as far as it allows."""

    mean: Tensor  # (1,C,1,1)
    std: Tensor

    def __init__(self, network: nn.Module, form: Form):
        nn.Module.__init__(self)  # it has no trunk and linear layer of its own
        self.network, self.form, self.image_channels = network, form, form.image_channels
        for name in ("mean", "std"):
            values = torch.tensor(getattr(form, name)).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def input_size(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the image that the network itself gets."""
        height, width = self.form.input_size or images.shape[-2:]
        return height, width

    def input_height(self, images: Tensor) -> int:
        return self.input_size(images)[0]

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B,C,H,W) in [-1,1] as the network wants them: resized, in its channels, normalised."""
        check_channels(images.shape[1], self.image_channels)
        images, size = (images + 1) / 2, self.input_size(images)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False,
                                   antialias=images.shape[-2] > size[0])
        if images.shape[1] == 1 and self.form.channels == RGB:
            images = images.expand(-1, RGB, -1, -1)
        return (images - self.mean) / self.std

    def answers(self, images: Tensor) -> Tensor:
        """The network's own answers (B,K) to images (B,C,H,W) in [-1,1]."""
        found = self.network(self.prepare(images))
        return found.unsqueeze(1) if found.ndim == 1 else found

    def logit(self, answers: Tensor) -> Tensor:
        """Logit (B,) of abnormal: the class against the rest, z_k - log(sum of exp z over the others), for (B,K)."""
        return self.one_against_rest(answers, self.form.class_index, self.form.class_is)

    @staticmethod
    def one_against_rest(answers: Tensor, index: int | Literal["binary"],
                         meaning: Literal["abnormal", "healthy"]) -> Tensor:
        """The logit (B,) of one class of (B,K), or the single one; with its sign turned where the class is healthy."""
        if index == "binary":
            logit = answers[:, 0]
        else:
            others = [k for k in range(answers.shape[1]) if k != index]
            logit = answers[:, index] - answers[:, others].logsumexp(dim=1)
        return logit if meaning == "abnormal" else -logit

    def forward(self, images: Tensor) -> Tensor:
        return self.logit(self.answers(images))

    def view(self, images: Tensor) -> View:
        """One pass. Without layers to look at there are no maps; without them and a linear layer to look at, the
        penultimate features are the answers (B,K) themselves."""
        form = self.form
        with watching(self.network, list(form.layers), form.head, self.input_size(images)) as seen:
            answers = self.answers(images)
        maps = [seen[name] for name in form.layers]
        if form.head is not None:
            features = seen[""].mean(dim=(2, 3)) if seen[""].ndim == 4 else seen[""]  # (B,F,h,w) -> (B,F)
        else:
            features = maps[-1].mean(dim=(2, 3)) if maps else answers
        return View(maps, features, self.logit(answers))

    def features(self, images: Tensor) -> Tensor:
        """Maps (B,C,h,w) of the layer that CAM methods take."""
        if not self.has_maps:
            raise ValueError(f"this classifier shows no feature maps: {self.blind_because()}")
        return self.view(images).maps[-1]

    def penultimate(self, images: Tensor) -> Tensor:
        return self.view(images).features

    @property
    def feature_count(self) -> int:
        return self.form.feature_count

    @property
    def has_maps(self) -> bool:
        return bool(self.form.layers)

    def blind_because(self) -> str:
        """Why there are no feature maps."""
        if self.form.source == "torchscript":
            return "a TorchScript file lets nobody look at its layers; import it with `source: python` to have them"
        return "no layer gives a map of more than one cell that the answer depends on"

    def last_layer(self) -> nn.Module | None:
        return None if self.form.head is None else self.network.get_submodule(self.form.head)

    def classifying_weights(self) -> Tensor:
        """Weights (C,) from the mean of the last maps to the answer (CAM's weights).

        Of two classes their difference, which is the logit's; of more those of the class alone, as Zhou et al. (2016)
        take them. Raises ValueError where the head isn't one linear layer right behind a global average pool.
        """
        layer = self.last_layer()
        if layer is None or not self.form.head_takes_means:
            raise ValueError("CAM needs one linear layer right behind the average of the last feature maps, which "
                             f"this classifier ({self.form.architecture}) hasn't: take `cam` out of `methods` in "
                             "params.yaml; `grad_cam` weights the maps of any network")
        weights, index = layer.get_parameter("weight"), self.form.class_index  # (K,C)
        if index == "binary":
            chosen = weights[0]
        else:
            chosen = weights[index] - weights[1 - index] if len(weights) == 2 else weights[index]
        return chosen if self.form.class_is == "abnormal" else -chosen


def build_network(form: Form, file: Path | None) -> nn.Module:
    """The network with its first weights. file: the Python module or the TorchScript archive, where the source is one.

    Raises ValueError, naming the key, for an architecture that isn't known or an archive that is none.
    """
    if form.source == "torchscript":
        assert file is not None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch calls its scripts deprecated
                return torch.jit.load(file, map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"`checkpoint` {file} is no TorchScript archive ({_first_line(error)}): write it with "
                             "torch.jit.save, or choose another `source`") from None
    try:
        if form.source == "python":
            assert file is not None
            network = _function(file, form.architecture)(**form.options)
        elif form.source == "timm":
            import timm  # slow to import

            network = timm.create_model(form.architecture, pretrained=False, num_classes=form.classes,
                                        in_chans=form.channels, **form.options)
        else:
            import torchvision  # slow to import

            network = torchvision.models.get_model(form.architecture, weights=None, num_classes=form.classes,
                                                   **form.options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"`architecture` {form.architecture!r} with `options` {form.options} can't be built from "
                         f"{form.source if file is None else file}: {_first_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise ValueError(f"`architecture` {form.architecture!r} of {file} gives a {type(network).__name__}, expected a "
                         "torch.nn.Module: name a function that returns the network")
    return network


def _function(file: Path, name: str) -> Any:
    """A function of a Python file, which is run."""
    spec = importlib.util.spec_from_file_location(f"flipside_foreign_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)  # leaves no __pycache__ beside the file
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"it has no function {name!r}, but {', '.join(known) or 'none'}")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_foreign(path: Path | str, arguments: dict[str, Any]) -> ForeignClassifier:
    """An imported classifier from its folder: frozen, in eval mode. It runs a Python module of the user's."""
    form, name = Form(**arguments), {"python": MODULE, "torchscript": SCRIPT}.get(arguments["source"])
    network = load_weights(path, build_network(form, None if name is None else Path(path) / name))
    return ForeignClassifier(network, form).eval().requires_grad_(False)

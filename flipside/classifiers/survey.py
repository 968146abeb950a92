"""Where an imported network can be looked into: its last linear layer, and of each size the layer whose maps decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from flipside.classifiers.networks.foreign import ForeignClassifier
from flipside.classifiers.networks.hooks import as_grid, watching

SAME = 1e-4  # relative difference up to which two answers are the same


@dataclass
class Survey:
    """Layers in the order in which they finished, over one pass of all layers."""

    grids: dict[str, Tensor] = field(default_factory=dict)  # layer -> (B,C,h,w)
    tokens: set[str] = field(default_factory=set)  # layers whose output is a row of tokens
    passes: dict[str, int] = field(default_factory=dict)  # times that a layer was called
    head: str | None = None


def survey(classifier: ForeignClassifier, images: Tensor, layer: str | None) -> ForeignClassifier:
    """The classifier with the layers that its feature maps are taken of, found on images (B,C,H,W), B >= 2.

    Of each size the last layer on which the whole answer rests: with its output of another image the network gives
    that image's answer. Where tokens go on to the end it is the last normalisation of them on which the answer still
    depends (a class token alone is read behind the last block). `layer` names the one that ends the list; None: the
    last of these. Raises ValueError for a layer that isn't there or has no such maps.
    """
    if classifier.form.source == "torchscript":
        if layer is not None:
            raise ValueError(f"`layer` is {layer!r}, but {classifier.blind_because()}: leave it out")
        return ForeignClassifier(classifier.network, replace(classifier.form, feature_count=classifier.form.classes))
    network = classifier.network
    modules = dict(network.named_modules())
    if layer is not None and layer not in modules:
        raise ValueError(f"`layer` is {layer!r}, which the network hasn't; its layers are: {_some(list(modules)[1:])}")
    found = observe(classifier, images)
    names = [name for name in found.grids if name not in found.tokens or "norm" in type(modules[name]).__name__.lower()]
    names = names or list(found.grids)
    if layer is not None:
        if layer not in found.grids:
            raise ValueError(f"`layer` {layer!r} gives no map of more than one cell that the answer depends on; these "
                             f"do: {_some(names)}")
        before = list(found.grids)[: list(found.grids).index(layer)]
        names = [name for name in before if name in names] + [layer]
    layers: list[str] = []
    for group in by_size(names, found.grids):
        one_called = [name for name in group if found.passes[name] == 1]
        if layer is not None and layer in group:
            layers.append(layer)
        elif not one_called or one_called[-1] in found.tokens:
            layers.append(group[-1])
        else:
            layers.append(next((name for name in reversed(one_called) if decides(classifier, name, images)),
                               one_called[-1]))
    form = replace(classifier.form, layers=tuple(layers), head=found.head)
    with torch.no_grad():
        looked = ForeignClassifier(network, form).to(images.device)
        view = looked.view(images)
    means = view.maps[-1].mean(dim=(2, 3)) if view.maps else None
    takes_means = (means is not None and found.head is not None and means.shape == view.features.shape
                   and isinstance(modules[found.head], nn.Linear) and _same(means, view.features))
    return ForeignClassifier(network, replace(form, head_takes_means=takes_means, feature_count=view.features.shape[1]))


def observe(classifier: ForeignClassifier, images: Tensor) -> Survey:
    """Every layer that gives a grid on which the logit depends, and the last linear layer with K answers."""
    found, network, size = Survey(), classifier.network, classifier.input_size(images)
    handles = []

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found.passes[name] = found.passes.get(name, 0) + 1
            if _gives_answers(module, classifier.form.classes) and inputs[0].ndim in (2, 4):
                found.head = name
            grid = as_grid(output, size)
            if grid is not None and output.requires_grad and len(output) == len(images):  # else windows of images
                tokens = [each.shape[-2:].numel() for token, each in found.grids.items() if token in found.tokens]
                if tokens and output.ndim == 4 and grid[0].shape[-2:].numel() > tokens[0]:
                    return  # weights of attention between tokens
                raw.pop(name, None)
                raw[name] = output
                found.grids.pop(name, None)
                found.grids[name] = grid[0]
                found.tokens |= {name} if output.ndim == 3 else set()
        return hook

    raw: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if name:
            handles.append(module.register_forward_hook(keep(name)))
    try:
        with torch.enable_grad():
            logit = classifier(images.detach().requires_grad_()).sum()
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(logit, list(raw.values()), allow_unused=True)
    for name, gradient in zip(raw, gradients, strict=True):
        grid = None if gradient is None else as_grid(gradient, size)
        if grid is None or not grid[0].any():  # a side branch, or patches behind the last look at them
            del found.grids[name]
    found.grids = {name: grid.detach() for name, grid in found.grids.items()}
    return found


def by_size(names: list[str], grids: dict[str, Tensor]) -> Iterator[list[str]]:
    """Layers of one size at a time, sizes falling to that of the last layer."""
    sizes = {name: grids[name].shape[-2] * grids[name].shape[-1] for name in names}
    for cells in sorted(set(sizes.values()), reverse=True):
        if cells >= sizes[names[-1]]:
            yield [name for name in names if sizes[name] == cells]


@torch.no_grad()
def decides(classifier: ForeignClassifier, name: str, images: Tensor) -> bool:
    """Whether the answer rests on a layer alone: images with the layer's output of the images in reverse order."""
    size, swapped = classifier.input_size(images), images.flip(0)
    with watching(classifier.network, [name], None, size) as seen:
        expected = classifier.answers(images)
    kept = seen[name].clone()

    def put(module: nn.Module, inputs: Any, output: Any) -> Any:
        grid = as_grid(output, size)
        return output if grid is None else grid[1](kept)

    handle = classifier.network.get_submodule(name).register_forward_hook(put)
    try:
        return _same(classifier.answers(swapped), expected)
    finally:
        handle.remove()


def _gives_answers(module: nn.Module, classes: int) -> bool:
    if isinstance(module, nn.Linear):
        return module.out_features == classes
    return isinstance(module, nn.Conv2d) and module.out_channels == classes


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= SAME * other.abs().max())


def _some(names: list[str], most: int = 12) -> str:
    """The last of many names."""
    return ", ".join(names) if len(names) <= most else "..., " + ", ".join(names[-most:])

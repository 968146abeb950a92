"""AttFind (Lang et al. 2021, "Explaining in Style", algorithm 1): the coordinates of StyleSpace that sway a classifier.

A coordinate is one map's scale in one layer. It is moved to the least and to the greatest value that it has over the
training slices, every one alone, in every image; what the classifier's logit falls by is the move's effect. Then moves
are chosen one after the other, each for the images that those before it don't explain.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import pandas as pd
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from safetensors.torch import load_file, save_file
from torch import Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.core.checkpoint import MODEL_FILES, Scratch
from flipside.core.files import atomic_folder
from flipside.core.params import Params
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, now
from flipside.core.store import as_channels
from flipside.generators.codes.styles import State, Styles

FILE = "attributes.safetensors"
DIRECTIONS = ("least", "greatest")
SAVE_EVERY_SECONDS = 60.0


class StyleSynthesis(Protocol):
    """A style generator's layers, computed one by one (`flipside/generators/nn/stylegan_synthesis.py`)."""

    def begin(self, count: int) -> State: ...
    def advance(self, state: State, styles: Styles, layer: int) -> State: ...
    def finish(self, state: State, styles: Styles, first: int) -> Tensor: ...


class StyleGenerator(Protocol):
    """What is called of a generator that draws images (B,C,H,W) from `Styles` and finds those of given images."""

    synthesis: StyleSynthesis

    def encoded(self, images: Tensor, probability: Tensor) -> Styles: ...
    def render(self, styles: Styles) -> Tensor: ...


class AttributeParams(Params):
    """Section `attributes.<generator>`."""

    images: PositiveInt
    """Training slices called abnormal on which the moves are tried, at most."""
    count: int = Field(ge=1, le=8)
    """Attributes that are chosen, at most."""
    shift: float = Field(gt=0)
    """How far a coordinate is moved, as a share of the way to its extreme value."""
    explained_at: Literal["flip"] | NonNegativeFloat
    """Sum of the chosen moves' effects at which an image counts as explained; flip: its own logit."""
    unstable_effect: float = Field(ge=0)
    """Change of the logit above which a move counts for `unstable_share`."""
    unstable_share: float = Field(gt=0, le=1)
    """Share of all moves: an image that more of them change by `unstable_effect` is left out."""
    batch_size: PositiveInt
    """Images that are generated at once."""


class AttributesParams(Params):
    """Section `attributes`: one block per generator whose attributes are found."""

    stylegan: AttributeParams
    """Attributes in the style space of StyleGAN."""


@dataclass(frozen=True)
class Attributes:
    """K moves, the best first."""

    layer: Tensor  # (K,) of the coordinate
    channel: Tensor  # (K,)
    extreme: Tensor  # (K,) the value that it is moved toward
    shift: Tensor  # () share of the way

    def __len__(self) -> int:
        return len(self.layer)

    def apply(self, styles: Styles, chosen: Tensor) -> Styles:
        """Styles of B images after the moves that are chosen for each, (B,K) bool."""
        for number, (layer, channel) in enumerate(zip(self.layer.tolist(), self.channel.tolist(), strict=True)):
            values = styles.space[layer].clone()  # (B,C)
            own = values[:, channel]
            moved = own + self.shift * (self.extreme[number] - own)
            values[:, channel] = torch.where(chosen[:, number], moved, own)
            styles = styles.with_layer(layer, values)
        return styles

    @classmethod
    def open(cls, path: Path | str, device: torch.device) -> Attributes:
        """From their folder; FileNotFoundError says which stage finds them."""
        path = Path(path)
        if not (path / FILE).is_file():
            raise FileNotFoundError(f"{path}/{FILE} not found: run `dvc repro find_attributes@{path.name}`")
        return cls(**{name: value.to(device) for name, value in load_file(path / FILE).items()})

    def write(self, path: Path | str, generator: Path | str) -> None:
        """Write them, with the two files of the generator whose coordinates these are."""
        with atomic_folder(path) as folder:
            tensors = {name: value.cpu().contiguous().clone() for name, value in vars(self).items()}
            save_file(tensors, folder / FILE)
            for name in MODEL_FILES:
                shutil.copy(Path(generator) / name, folder / name)


@dataclass(frozen=True)
class Extremes:
    """Least and greatest value of each coordinate, layer by layer, (C,2) each."""

    layers: list[Tensor]

    @classmethod
    def of(cls, styles: Styles) -> Extremes:
        """Over the images of these styles."""
        return cls([torch.stack([each.amin(dim=0), each.amax(dim=0)], dim=1) for each in styles.space])

    def attributes(self, chosen: list[tuple[int, int]], shift: float) -> Attributes:
        """The moves (coordinate, direction), coordinates counted through all layers."""
        layers = torch.cat([torch.full((len(values),), layer) for layer, values in enumerate(self.layers)])
        channels = torch.cat([torch.arange(len(values)) for values in self.layers])
        coordinates, directions = (torch.tensor(each) for each in zip(*chosen, strict=True))  # (K,) each
        values = torch.cat(self.layers)  # (C of all layers, 2)
        device = values.device
        return Attributes(layers[coordinates].to(device), channels[coordinates].to(device),
                          values[coordinates.to(device), directions.to(device)], torch.tensor(shift, device=device))


def choose_slices(logits: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, int]:
    """Positions of up to `count` slices with logits (N,) in which the moves are tried, and how many of them are called
    abnormal: all, or none where no slice is called so and those nearest to it are taken."""
    called = np.random.default_rng(seed % 2**32).permutation(np.flatnonzero(logits >= 0))[:count]
    if len(called):
        return called, len(called)
    return np.argsort(-logits, kind="stable")[:count], 0


@torch.no_grad()
def encode_slices(generator: StyleGenerator, images: np.ndarray, logits: Tensor, batch_size: int,
                  runtime: Runtime) -> Styles:
    """Styles of slices (N,H,W) or (N,C,H,W) in [-1,1], whose logits (N,) are the classifier's."""
    parts = []
    for start in range(0, len(images), batch_size):
        part = as_channels(torch.as_tensor(images[start : start + batch_size], device=runtime.device).float())
        own = logits[start : start + batch_size].to(runtime.device)
        parts.append(generator.encoded(part, torch.sigmoid(own)))  # (B,C,H,W), (B,)
    return Styles.joined(parts)


@torch.no_grad()
def measure_effects(synthesis: StyleSynthesis, classifier: Classifier, styles: Styles, extremes: Extremes,
                    shift: float, batch_size: int) -> tuple[Tensor, Tensor]:
    """Of one image's styles: by how much each move lowers the logit, (C of all layers, 2); and the logit itself, ().

    What comes before a moved coordinate's layer is the same for all moves in that layer and computed once.
    """
    state, moved_logits = synthesis.begin(1), []
    for layer, values in enumerate(styles.space):  # (1,C)
        own = values.T  # (C,1)
        moved = (own + shift * (extremes.layers[layer] - own)).flatten()  # (C,2) -> (2C,)
        moves = torch.arange(len(moved), device=moved.device)
        candidates = values.repeat(len(moved), 1)  # (2C,C)
        candidates[moves, moves // 2] = moved
        for part in candidates.split(batch_size):
            changed = styles.expanded(len(part)).with_layer(layer, part)
            images = synthesis.finish(state.expanded(len(part)), changed, layer)
            moved_logits.append(classifier(images.clamp(-1, 1)).float())
        state = synthesis.advance(state, styles, layer)
    assert state.image is not None  # there is one behind the first layer
    logit = classifier(state.image.clamp(-1, 1)).float().squeeze(0)
    return (logit - torch.cat(moved_logits)).view(-1, 2), logit


def measure_all_effects(generator: StyleGenerator, classifier: Classifier, styles: Styles, extremes: Extremes,
                        params: AttributeParams, scratch: Scratch, runtime: Runtime) -> tuple[Tensor, Tensor, float]:
    """Effects (N,C,2) and logits (N,) of the images with these styles, on the CPU, and the seconds of an interrupted
    run that this one continues. `scratch` keeps whole images."""
    count, found, logits, seconds = len(styles.space[0]), [], [], 0.0
    if state := scratch.load():
        found, logits, seconds = list(state["effects"]), list(state["logits"]), state["seconds"]
    ticker, started = Ticker(f"find {scratch.folder.name}", count, len(found)), now(runtime)
    saved = time.monotonic()
    while len(found) < count:
        one = styles.rows(torch.tensor([len(found)], device=runtime.device))
        moved, logit = measure_effects(generator.synthesis, classifier, one, extremes, params.shift, params.batch_size)
        found.append(moved.cpu())
        logits.append(logit.cpu())
        ticker.tick(len(found), greatest=float(moved.max()))
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            scratch.save({"effects": torch.stack(found), "logits": torch.stack(logits), "step": len(found),
                          "seconds": seconds + now(runtime) - started})
            saved = time.monotonic()
    return torch.stack(found), torch.stack(logits), seconds


def select_moves(found: Tensor, logits: Tensor, params: AttributeParams) -> tuple[list[tuple[int, int]], Tensor]:
    """The moves (coordinate, direction) chosen by their effects (N,C,2) in images with logits (N,), and which images
    are stable (N,) bool.

    Each is the one with the greatest mean effect over the images not yet explained by those before it, whose effects
    are added up, or over all images where nothing helps those; an effect to the other side counts 0. A coordinate is
    moved in one direction only. Raises ValueError where no move has an effect.
    """
    stable = (found.abs() > params.unstable_effect).float().mean(dim=(1, 2)) <= params.unstable_share  # (N,)
    if not stable.any():
        raise ValueError(f"attributes: in each of the {len(found)} images more than {params.unstable_share:g} of all "
                         f"moves change the logit by more than {params.unstable_effect:g}, so none is left: raise "
                         "`unstable_effect` or `unstable_share`")
    gains = found[stable].clamp(min=0)  # (M,C,2)
    needed = logits[stable] if params.explained_at == "flip" else torch.full((len(gains),), params.explained_at)
    gained = torch.zeros(len(gains))
    chosen: list[tuple[int, int]] = []
    while len(chosen) < params.count:
        unexplained = gained < needed
        total = gains[unexplained].sum(dim=0)  # (C,2)
        if total.max() <= 0:  # all are explained, or no move helps those that aren't: what helps the others most
            total = gains.sum(dim=0)
        coordinate, direction = divmod(int(total.argmax()), 2)
        if total[coordinate, direction] <= 0:
            break
        chosen.append((coordinate, direction))
        gained = gained + gains[:, coordinate, direction]
        gains[:, coordinate] = 0
    if not chosen:
        raise ValueError("attributes: no coordinate's move makes the classifier less sure of any image: the generator "
                         "doesn't draw what the classifier looks at. Train it longer, or raise its `lambda_classifier`")
    return chosen, stable


@torch.no_grad()
def picture_attributes(generator: StyleGenerator, attributes: Attributes, styles: Styles, found: Tensor,
                       logits: Tensor, chosen: list[tuple[int, int]],
                       batch_size: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A row for each attribute, and its pictures (K,3,H,W) or (K,3,C,H,W) float16: the image in which it has the
    greatest effect as encoded and with the attribute, both in [-1,1], and the mean change over all images.

    Of N images' styles, the moves' effects (N,C,2) and logits (N,), and the moves that are chosen. `example` in the
    table is the image's position.
    """
    before = render_slices(generator, styles, batch_size)
    rows, strip = [], []
    for number, (coordinate, direction) in enumerate(chosen):
        own = found[:, coordinate, direction]  # (N,)
        only = torch.zeros(len(own), len(chosen), dtype=torch.bool, device=styles.space[0].device)
        only[:, number] = True
        after, example = render_slices(generator, attributes.apply(styles, only), batch_size), int(own.argmax())
        strip.append(np.stack([before[example], after[example], (after - before).mean(axis=0)]))
        rows.append({"attribute": number + 1, "layer": int(attributes.layer[number]),
                     "channel": int(attributes.channel[number]), "toward": DIRECTIONS[direction],
                     "mean_effect": float(own.mean()), "lowers": float((own > 0).float().mean()), "example": example,
                     "logit_before": float(logits[example]), "logit_after": float(logits[example] - own[example])})
    return pd.DataFrame(rows), np.stack(strip).astype(np.float16)


def render_slices(generator: StyleGenerator, styles: Styles, batch_size: int) -> np.ndarray:
    """Images (N,H,W), of several channels (N,C,H,W), in [-1,1] of styles."""
    device = styles.space[0].device
    return np.concatenate([
        generator.render(styles.rows(part.to(device))).clamp(-1, 1).squeeze(1).cpu().numpy()
        for part in torch.arange(len(styles.space[0])).split(batch_size)])

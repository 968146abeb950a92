"""A classifier that was trained elsewhere: its block in params.yaml, its weights, and what is checked before any work.

Every refusal is a sentence that names the key of `classifiers.<role>` to change.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import RGB
from flipside.classifiers.networks.foreign import MODULE, SCRIPT, ForeignClassifier, Form, Source, build_network
from flipside.classifiers.networks.view import by_stride
from flipside.classifiers.survey import survey
from flipside.core.params import Params
from flipside.core.runtime import Runtime
from flipside.core.store import as_channels

NEAR_CHANCE = 0.6  # AUC below which a classifier is called close to chance
CLEARLY_BETTER = 0.05  # of AUC, from which on another class is named
NESTED = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the weights
SURVEYED = 4  # slices on which the layers are found


class ForeignParams(Params):
    """One of the section `classifiers` that is imported instead of trained."""

    source: Source
    """Where the network's code is: a model of timm or torchvision, a TorchScript file, or a Python file of yours."""
    pretraining: str
    """Folder with checkpoint and module, which DVC watches: a change in it runs the import again."""
    checkpoint: str
    """File in this folder: weights as safetensors, a state dict saved by torch, or (torchscript) the archive."""
    architecture: str = "torchscript"
    """timm's or torchvision's name of the network; python: the function of `module` that returns it."""
    module: str | None = None
    """python: file in the folder that is run to build the network. It is copied and must not import others of yours."""
    options: dict[str, Any] = {}
    """Further arguments of the architecture, such as `img_size` of timm's transformers."""
    classes: PositiveInt
    """Answers of the network, K; 1 with `class_index: binary`."""
    class_index: NonNegativeInt | Literal["binary"]
    """The class that is explained against all others, from 0; binary: the network gives one logit."""
    class_is: Literal["abnormal", "healthy"] = "abnormal"
    """What this class (or a high logit) means."""
    channels: Literal[1, 3]
    """Of the images that the network takes; slices with one channel are repeated to three."""
    input_size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Pixels, or [rows, columns], that slices are resized to inside the classifier; null: as they are."""
    mean: list[float] = Field(min_length=1)
    """Subtracted from images in [0,1] inside the classifier: one number per channel, or one for all."""
    std: list[float] = Field(min_length=1)
    """Divided by, after that. A network of images in [-1,1] has mean [0.5] and std [0.5]."""
    layer: str | None = None
    """Layer whose maps the CAM family takes as the last; null: found by what the answer rests on."""

    @model_validator(mode="after")
    def _go_together(self) -> ForeignParams:
        if (self.class_index == "binary") != (self.classes == 1):
            raise ValueError(f"`class_index: {self.class_index}` doesn't go with `classes: {self.classes}`: a network "
                             "with one answer is `binary`, one with several has an index")
        if self.class_index != "binary" and self.class_index >= self.classes:
            raise ValueError(f"`class_index: {self.class_index}` is beyond `classes: {self.classes}`, it counts from 0")
        if self.source != "torchscript" and "architecture" not in self.model_fields_set:
            raise ValueError(f"`source: {self.source}` needs `architecture`: "
                             + ("the function of `module`" if self.source == "python" else "the network's name there"))
        if (self.source == "python") != (self.module is not None):
            raise ValueError("`module` names the Python file of `source: python`, and no other source has one")
        if self.source == "torchvision" and self.channels != RGB:
            raise ValueError("torchvision's networks take 3 `channels`; one with another stem is `source: python`")
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ValueError(f"`{name}` has {len(getattr(self, name))} numbers for {self.channels} `channels`")
        if min(self.std) <= 0:
            raise ValueError(f"`std` is {self.std}, expected numbers > 0")
        return self

    def form(self, image_channels: int) -> Form:
        """What `model.json` keeps, before anything is known of the network's inside."""
        size = self.input_size if not isinstance(self.input_size, int) else (self.input_size, self.input_size)
        return Form(self.source, self.architecture, self.options, self.classes, self.class_index, self.class_is,
                    self.channels, None if size is None else list(size), self.mean, self.std, image_channels)

    @property
    def code(self) -> tuple[str, Path] | None:
        """Name in the model's folder and origin of what builds the network, beside the weights."""
        if self.source == "python":
            return MODULE, Path(self.pretraining) / str(self.module)
        return (SCRIPT, Path(self.pretraining) / self.checkpoint) if self.source == "torchscript" else None


def import_classifier(role: str, params: ForeignParams, images: Any, runtime: Runtime) -> ForeignClassifier:
    """The user's network as a classifier of slices (N,H,W) or (N,C,H,W) in [-1,1]: frozen, in eval mode, placed.

    Its layers are found on some of the slices. Raises ValueError and FileNotFoundError with the key at fault.
    """
    try:
        channels = as_channels(images).shape[1]
        if channels not in (1, params.channels):
            raise ValueError(f"`channels` is {params.channels}, the slices have {channels}: choose a data set whose "
                             "slices have 1 or as many")
        classifier = ForeignClassifier(read_network(params, channels), params.form(channels))
        classifier = runtime.place(classifier.eval().requires_grad_(False))
        few = as_channels(torch.as_tensor(images[:SURVEYED], device=runtime.device).float())  # (B,C,H,W)
        check_form(classifier, few)
        found = runtime.place(survey(classifier, few, params.layer))
        return found.eval().requires_grad_(False)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"params.yaml: classifiers.{role}: {error}") from None


def read_network(params: ForeignParams, image_channels: int) -> nn.Module:
    """The network with the user's weights."""
    folder = Path(params.pretraining)
    for key in ("checkpoint", "module"):
        name = getattr(params, key)
        if name is not None and not (folder / name).is_file():
            raise FileNotFoundError(f"`{key}` {folder / name} not found: put it into the folder `pretraining`")
    network = build_network(params.form(image_channels), None if params.code is None else params.code[1])
    if params.source != "torchscript":
        load_checkpoint(network, folder / params.checkpoint)
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"`checkpoint` {folder / params.checkpoint}: {name} holds NaN or infinity")
    return network


def load_checkpoint(network: nn.Module, file: Path) -> None:
    """Load a file's weights into a network, all of them and no others."""
    state, wanted = read_state(file), network.state_dict()
    prefix = next(iter(state), "").partition(".")[0] + "."  # as DataParallel and Lightning leave one
    if all(name.startswith(prefix) for name in state) and not any(name.startswith(prefix) for name in wanted):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    advice = "are `architecture`, `options`, `classes` and `channels` those that it was trained with?"
    if missing := [name for name in wanted if name not in state]:
        raise ValueError(f"`checkpoint` {file} lacks {missing[0]}{_more(missing)} of the {len(wanted)} tensors of the "
                         f"network: {advice}")
    if unknown := [name for name in state if name not in wanted]:
        raise ValueError(f"`checkpoint` {file} has {unknown[0]}{_more(unknown)}, which the network hasn't: {advice}")
    for name, tensor in state.items():
        found, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        if found != expected:
            raise ValueError(f"`checkpoint` {file}: {name} has the shape {found}, the network's has {expected}: "
                             f"{advice}")
    network.load_state_dict(state)


def read_state(file: Path) -> dict[str, Tensor]:
    """{name: tensor} of a safetensors file or one saved by torch; nothing but tensors is unpickled."""
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"`checkpoint` {file} holds no plain weights ({str(error).strip().splitlines()[0]}): save "
                         "them with torch.save(network.state_dict(), file), or as safetensors") from None
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"`checkpoint` {file} holds no mapping of names to tensors, but a {type(content).__name__}: "
                         "save the network's state_dict()")
    return dict(content)


@torch.no_grad()
def check_form(classifier: ForeignClassifier, images: Tensor) -> None:
    """Refuse a network that can't be asked about images (B,C,H,W), or whose answers aren't (B,K)."""
    form = classifier.form
    try:
        answers = classifier.network(classifier.prepare(images))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the network fails on images of {form.channels} x {classifier.input_size(images)} pixels "
                         f"({str(error).strip().splitlines()[-1]}): set `input_size` and `channels` to those that it "
                         "was trained with") from None
    if not isinstance(answers, Tensor):
        raise ValueError(f"the network gives a {type(answers).__name__}, expected a tensor of logits: wrap it "
                         "(`source: python`)")
    expected = [(len(images), form.classes)] + [(len(images),)] * (form.classes == 1)
    if tuple(answers.shape) not in expected:
        raise ValueError(f"`classes` is {form.classes}, but the network's answer to {len(images)} images has the shape "
                         f"{tuple(answers.shape)}, expected {expected[0]}")


@torch.no_grad()
def ask(classifier: ForeignClassifier, images: Any, runtime: Runtime, batch_size: int = 256) -> Tensor:
    """The network's own answers (N,K) on the CPU to slices (N,H,W) or (N,C,H,W) in [-1,1]."""
    parts = [classifier.answers(as_channels(torch.as_tensor(images[start : start + batch_size],
                                                            device=runtime.device).float())).float().cpu()
             for start in range(0, len(images), batch_size)]
    return torch.cat(parts)


def check_answers(role: str, classifier: ForeignClassifier, answers: Tensor, labels: Tensor) -> list[str]:
    """Warnings on the answers (N,K) to slices labelled (N,) in {0,1}.

    Raises ValueError for answers that are no logits of anything, and for a class that is the wrong way round.
    """
    where, form, logits = f"params.yaml: classifiers.{role}: ", classifier.form, classifier.logit(answers)
    if not torch.isfinite(answers).all():
        raise ValueError(f"{where}the network answers NaN or infinity to {int((~answers.isfinite()).any(1).sum())} of "
                         f"{len(answers)} slices: check `mean` and `std`")
    if float(logits.max() - logits.min()) <= 1e-6 * max(1.0, float(logits.abs().max())):
        raise ValueError(f"{where}the network gives the same answer ({float(logits[0]):.4g}) to all {len(answers)} "
                         "slices: check `checkpoint`, `mean` and `std`")
    sums = answers.sum(dim=1)
    if answers.min() >= 0 and answers.max() <= 1 and (form.classes == 1 or torch.allclose(sums, torch.ones_like(sums),
                                                                                            atol=1e-3)):
        raise ValueError(f"{where}all answers are between 0 and 1{' and sum to 1' * (form.classes > 1)}, so they are "
                         "probabilities; the logits before the last sigmoid or softmax are needed: leave it out "
                         "(`source: python`)")
    from sklearn.metrics import roc_auc_score  # slow to import; ranks the logits as they are, however large

    auc = {choice: float(roc_auc_score(labels, classifier.one_against_rest(answers, *choice)))
           for choice in choices(form)}
    chosen, best = (form.class_index, form.class_is), max(auc, key=lambda choice: auc[choice])
    index, meaning = best
    other = f"`class_index: {index}` with `class_is: {meaning}` would have {auc[best]:.3f}"
    said = f"AUC {auc[chosen]:.3f} on {len(labels)} slices of the splits val and test"
    if auc[chosen] < 0.5:
        raise ValueError(f"{where}{said}: the network ranks healthy slices above abnormal ones; {other}")
    warnings = []
    if auc[chosen] < NEAR_CHANCE:
        warnings.append(f"{said}, close to chance: check `class_index`, `mean`, `std`, and the window of the slices")
    if auc[best] > auc[chosen] + CLEARLY_BETTER:
        warnings.append(f"{said}; {other}")
    called = int((logits >= 0).sum())
    if called in (0, len(logits)):
        warnings.append(f"it calls {'all' if called else 'none'} of {len(logits)} slices abnormal, though it tells "
                        "them apart: methods have nothing to flip, or to compare with")
    return [f"WARNING: classifiers.{role}: {warning}" for warning in warnings]


def choices(form: Form) -> list[tuple[Any, Any]]:
    """All meanings that the answers could have: (class_index, class_is)."""
    indices: list[Any] = ["binary"] if form.classes == 1 else list(range(form.classes))
    return [(index, meaning) for index in indices for meaning in ("abnormal", "healthy")]


def check_methods(role: str, classifier: ForeignClassifier, images: Any, runtime: Runtime,
                  methods: Mapping[str, Mapping[str, Any]]) -> str:
    """What the network shows of its inside, in words.

    images: slices (N,H,W) or (N,C,H,W). Raises ValueError with all blocks under `methods` that this classifier can't be
    explained with: that is known now, not after the trainings.
    """
    batch = as_channels(torch.as_tensor(images[:1], device=runtime.device).float())
    with torch.no_grad():
        maps = classifier.view(batch).maps
    found = by_stride(maps, classifier.input_height(batch))
    layer_of = {id(each): layer for each, layer in zip(maps, classifier.form.layers, strict=True)}
    no_means = "no linear layer stands right behind the average of the last maps"
    of_maps = {name: block.get("strides") for name, block in methods.items() if "strides" in block or name == "cam"}
    refused = []
    if of_maps and not found:
        refused.append(f"{', '.join(of_maps)}: take out, as it shows no feature maps: {classifier.blind_because()}")
    elif "cam" in of_maps and not classifier.form.head_takes_means:
        refused.append(f"cam: take it out, as {no_means}")
    for name, strides in of_maps.items() if found else ():
        if isinstance(strides, list) and (absent := [stride for stride in strides if stride not in found]):
            refused.append(f"{name}.strides: it has no feature maps of stride {', '.join(map(str, absent))}, but of "
                           f"{', '.join(map(str, found))}: choose of these, or `last`")
    if refused:
        raise ValueError("\n".join([f"params.yaml: `methods` has what can't explain classifiers.{role}:",
                                    *(f"  {each}" for each in refused)]))
    if not found:
        return (f"{role}: no feature maps: {classifier.blind_because()}. CAM methods refuse it, perceptual terms "
                "compare pixels, distances in the classifier's features are left out, and where features are wanted "
                f"its {classifier.form.classes} answers stand in")
    layers = ", ".join(f"1/{stride} ({layer_of[id(each)]})" for stride, each in found.items())
    cam = "" if classifier.form.head_takes_means else f"; `cam` refuses it, as {no_means}"
    return (f"{role}: feature maps at {layers}, the last of them `last`; {classifier.feature_count} penultimate "
            f"features{cam}")


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""

"""Training of a classifier on image-level labels: BCE on the logit, class balance, schedule, early stopping."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flipside.classifiers.augmentation import AnyTransform, augment
from flipside.classifiers.networks.backbones import Classifier, predict_logits
from flipside.classifiers.scores import HEIGHT_BINS, height_bins
from flipside.core import ranks
from flipside.core.checkpoint import Scratch, check_finite
from flipside.core.params import Params
from flipside.core.progress import Ticker
from flipside.core.runtime import Runtime, draw_rows, generator_for
from flipside.core.store import as_channels

LEAST_HEALTHY = 0.25  # of the healthy slices' own share of a height


class ClassifierParams(Params):
    """One of the section `classifiers` that is trained here."""

    source: Literal["trained"] = "trained"
    """trained: here, on image-level labels. timm, torchvision, torchscript, python: your own is imported instead, see
    [Explain your own classifier](../how-to/own-classifier.md)."""
    architecture: Literal["small_resnet", "resnet18", "densenet121", "efficientnet_v2_s", "mobilenet_v2"]
    """The network: a small residual net for 64 x 64 pixels, or one of torchvision's. A judge of another architecture
    than the classifier is the stronger evidence; the report says where both share one."""
    width: int
    """Channels of small_resnet's first stage; the other architectures have their own widths."""
    pretrained: bool
    """Start from ImageNet weights in torch hub's cache; not for small_resnet."""
    pretraining: Literal["data/slices", "data/patches"]
    """data/slices: image-level labels only. data/patches: first on patches cut with masks, STRONG SUPERVISION."""
    seed_offset: int
    """Added to `seed`, so that the judge's random numbers differ from the classifier's."""
    epochs: int
    """Most epochs; training may stop earlier, see `patience`."""
    steps_per_epoch: int
    """Training steps in an epoch; 0: as many as the training split fills."""
    batch_size: int
    """Slices in a training step."""
    learning_rate: float
    """AdamW's learning rate; with one_cycle its peak."""
    weight_decay: float
    """AdamW's weight decay."""
    schedule: Literal["plateau", "one_cycle"]
    """Of the learning rate. plateau: halved after `patience` / 3 epochs without a better validation loss. one_cycle: up
    and down once over all epochs."""
    patience: int
    """Epochs without a better validation loss before training stops."""
    balance: Literal["sampler", "height", "none"]
    """sampler: healthy and abnormal slices equally often. height: also at each height in the scan that abnormal slices
    come from, so that the height alone doesn't tell them apart. none: every slice equally often."""
    augmentation: list[AnyTransform]
    """Random transforms of each training image, one after the other; []: none."""


def train(classifier: Classifier, params: ClassifierParams, seed: int, train_set: tuple[Tensor, Tensor],
          val_set: tuple[Tensor, Tensor], runtime: Runtime, scratch: Scratch,
          heights: Tensor | None = None) -> dict[str, Any]:
    """Train in place until `epochs` or early stopping and leave the weights with the lowest validation loss.

    `train_set`, `val_set`: images (N,H,W) or (N,C,H,W) float16 in [-1,1] and labels (N,) float on the CPU; they move to
    the device. `heights` (N,): relative heights of the training slices, for `balance: height`.
    Returns `history` (one row per epoch) and `best` (the row of the weights kept).
    """
    images, labels = train_set[0].to(runtime.device), train_set[1]
    weights = None
    if params.balance == "height":
        assert heights is not None, "balance by height needs heights"
        weights = height_weights(labels, heights)
    val_images, val_labels = val_set[0].to(runtime.device), val_set[1]
    ranks.over_whole_batches(classifier)
    steps = params.steps_per_epoch or max(1, len(labels) // params.batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters(), params.learning_rate, (0.9, 0.999),
                                  weight_decay=params.weight_decay)
    scheduler = make_scheduler(optimizer, params, steps)
    history: list[dict[str, float]] = []
    best_state, first_epoch = None, 0
    if state := scratch.load():
        classifier.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        history, best_state, first_epoch = state["history"], state["best"], state["step"]

    ticker = Ticker(f"train {scratch.folder.name}", params.epochs, first_epoch)
    for epoch in range(first_epoch, params.epochs):
        if stopped_early(history, params.patience):
            break
        started = time.monotonic()
        losses = train_epoch(classifier, params, seed, epoch, steps, images, labels, weights, optimizer, scheduler,
                             runtime)
        for step, loss in enumerate(losses, start=epoch * steps + 1):
            check_finite({"bce": loss}, step, scratch)
        classifier.eval()
        val_loss = ranks.from_writer(F.binary_cross_entropy_with_logits(
            predict_logits(classifier, val_images, runtime), val_labels))
        check_finite({"validation bce": val_loss}, (epoch + 1) * steps, scratch)
        if params.schedule == "plateau":
            scheduler.step(val_loss)
        history.append({"epoch": epoch + 1, "train_loss": float(losses.mean()), "val_loss": float(val_loss),
                        "learning_rate": optimizer.param_groups[0]["lr"]})
        if best_row(history) is history[-1]:
            best_state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
        scratch.save({"model": classifier.state_dict(), "optimizer": optimizer.state_dict(),
                      "scheduler": scheduler.state_dict(), "history": history, "best": best_state, "step": epoch + 1})
        ticker.tick(epoch + 1, train_loss=history[-1]["train_loss"], val_loss=history[-1]["val_loss"],
                    images_per_s=steps * params.batch_size / (time.monotonic() - started))
    assert best_state is not None, "the first epoch is always the best so far"
    classifier.load_state_dict(best_state)
    classifier.eval().requires_grad_(False)
    return {"history": history, "best": best_row(history)}


def train_epoch(classifier: Classifier, params: ClassifierParams, seed: int, epoch: int, steps: int, images: Tensor,
                labels: Tensor, weights: Tensor | None, optimizer: torch.optim.Optimizer, scheduler: Any,
                runtime: Runtime) -> Tensor:
    """One epoch; returns its batch losses (steps,). Each epoch's draws depend on the seed and its number alone.

    `weights` (N,): how often slices are drawn, where `balance` is height.
    """
    classifier.train()
    generator = generator_for(seed, epoch)
    torch.manual_seed(seed * 10_007 + epoch)  # dropout
    losses = []
    for _ in range(steps):
        if params.balance == "height":
            assert weights is not None
            rows = torch.multinomial(weights, params.batch_size, replacement=True, generator=generator)
        else:
            rows = draw_rows(labels, params.batch_size, params.balance, generator)
        batch = as_channels(images[rows.to(images.device)].float())  # (B,C,H,W)
        with runtime.autocast():
            logits = classifier(ranks.share(augment(batch, params.augmentation, generator)))
        loss = F.binary_cross_entropy_with_logits(logits.float(), ranks.share(labels[rows]).to(runtime.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(optimizer)
        optimizer.step()
        if params.schedule == "one_cycle":
            scheduler.step()
        losses.append(loss.detach())
    return ranks.mean(torch.stack(losses)).cpu()


def height_weights(labels: Tensor, heights: Tensor) -> Tensor:
    """How often to draw slices with labels (N,) 0/1 and relative heights (N,) in [0,1], (N,) float.

    Abnormal slices all equally often. In each of HEIGHT_BINS ranges of height healthy ones as often as abnormal ones;
    where those are rarer than a quarter of what healthy ones are, a quarter, so that no height is left out.
    """
    bins = height_bins(heights)
    abnormal = labels > 0
    share = [torch.bincount(bins[kind], minlength=HEIGHT_BINS) / kind.sum().clamp(min=1)
             for kind in (abnormal, ~abnormal)]
    wanted = torch.maximum(share[0], LEAST_HEALTHY * share[1])
    healthy = (wanted / share[1].clamp(min=1e-9))[bins] / (~abnormal).sum().clamp(min=1)
    return torch.where(abnormal, 1 / abnormal.sum().clamp(min=1), healthy)


def make_scheduler(optimizer: torch.optim.Optimizer, params: ClassifierParams, steps: int) -> Any:
    """The scheduler that `schedule` names; one_cycle is stepped at every step, plateau at every epoch."""
    if params.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, params.learning_rate, params.epochs * steps)
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=max(1, params.patience // 3))


def best_row(history: list[dict[str, float]]) -> dict[str, float]:
    """The first epoch with the lowest validation loss."""
    return min(history, key=lambda row: row["val_loss"])


def stopped_early(history: list[dict[str, float]], patience: int) -> bool:
    """Whether the validation loss hasn't improved for `patience` epochs."""
    return bool(history) and history[-1]["epoch"] - best_row(history)["epoch"] >= patience

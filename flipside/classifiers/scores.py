"""How good a classifier is: AUC, accuracy, F1 and calibration error with counts, ROC and confusion for DVC's plots."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_calibration_error,
    binary_f1_score,
    binary_roc,
)

HEIGHT_BINS = 20


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics at the decision threshold 0.5 of logits (N,) against labels (N,) in {0,1}.

    `ece`: expected calibration error over 15 equal bins of the probability. AUC needs both classes.
    """
    probabilities, target = torch.sigmoid(logits), labels.int()
    abnormal = int(target.sum())
    if not 0 < abnormal < len(target):
        raise ValueError(f"the classifier is scored on {len(target)} slices of which {abnormal} are abnormal; "
                         "both classes must be in every split")
    return {
        "auc": float(binary_auroc(probabilities, target)),
        "accuracy": float(binary_accuracy(probabilities, target)),
        "f1": float(binary_f1_score(probabilities, target)),
        "ece": float(binary_calibration_error(probabilities, target, n_bins=15)),
        "n": len(target),
        "n_abnormal": abnormal,
        "n_healthy": len(target) - abnormal,
    }


def height_auc(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """AUC that the height in the scan has alone: a shortcut that a classifier may take.

    `train`, `test`: labels (N,) in {0,1} and relative heights (N,) in [0,1]. A test slice's score is the share of
    abnormal ones among the training slices in its twentieth of the scan, of all where none is.
    """
    bins = [height_bins(heights) for _, heights in (train, test)]
    slices, abnormal = (torch.bincount(bins[0], weights, minlength=HEIGHT_BINS)
                        for weights in (torch.ones(len(bins[0])), train[0].float()))
    share = torch.where(slices > 0, abnormal / slices.clamp(min=1), train[0].float().mean())  # (HEIGHT_BINS,)
    return float(binary_auroc(share[bins[1]], test[0].int()))


def height_bins(heights: Tensor) -> Tensor:
    """In which twentieth of the scan slices at relative heights (N,) in [0,1] lie, (N,) int."""
    return (heights * HEIGHT_BINS).long().clamp(max=HEIGHT_BINS - 1)


def roc_table(logits: Tensor, labels: Tensor) -> pd.DataFrame:
    """Columns fpr, tpr: the ROC curve."""
    false_positive_rate, true_positive_rate, _ = binary_roc(torch.sigmoid(logits), labels.int())
    return pd.DataFrame({"fpr": false_positive_rate.numpy(), "tpr": true_positive_rate.numpy()})


def confusion_table(logits: Tensor, labels: Tensor) -> pd.DataFrame:
    """Columns actual, predicted: one row per slice, as DVC's confusion template wants it."""
    names = ["healthy", "abnormal"]
    return pd.DataFrame({
        "actual": [names[int(label)] for label in labels],
        "predicted": [names[int(logit >= 0)] for logit in logits],
    })

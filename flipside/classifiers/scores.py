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

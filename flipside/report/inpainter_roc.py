"""Does inpainting matter to the classifier where a lesion was, and nowhere else? (Major et al. 2020, figure 2)"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flipside.artifacts.probes import ProbeParams, Probes

ARMS = {"original": "as they are", "healthy": "healthy tissue inpainted", "lesion": "lesion inpainted"}
COLOURS = {"original": "#2e8540", "healthy": "#2563a8", "lesion": "#b3541e"}


def lesion_shares(holes: pd.DataFrame, lesions: dict[str, np.ndarray]) -> np.ndarray:
    """Share (K,) of its slice's lesion that each square covers; 0 in a slice without lesion.

    holes: as in `Probes`; lesions: {slice_id: (H,W) 0/1}.
    """
    shares = np.zeros(len(holes))
    for number, hole in enumerate(holes.itertuples()):
        lesion = lesions[hole.slice_id]
        inside = lesion[hole.top : hole.top + hole.side, hole.left : hole.left + hole.side]
        shares[number] = inside.sum() / max(lesion.sum(), 1)
    return shares


def draw_arms(probes: Probes, labels: dict[str, int], lesions: dict[str, np.ndarray], params: ProbeParams,
              seed: int) -> pd.DataFrame:
    """Columns draw, slice_id, label, original, healthy, lesion: logits of one random hole of each kind per slice.

    healthy: of a square that touches no lesion; lesion: of one that covers it to `covered`, in abnormal slices; slices
    labelled healthy stay as they are there. A slice that lacks a square of a kind it needs is left out of all arms, as
    is one labelled abnormal whose lesion has no pixel.
    """
    rng = np.random.default_rng(seed % 2**32)
    shares = lesion_shares(probes.holes, lesions)
    by_slice = {slice_id: table for slice_id, table in probes.holes.assign(share=shares).groupby("slice_id")}
    rows = []
    for slice_id, original in zip(probes.slices["slice_id"], probes.slices["logit"], strict=True):
        table, label = by_slice[slice_id], labels[slice_id]
        if label == 1 and not lesions[slice_id].any():
            continue
        free = table.loc[table["share"] == 0, "logit"].to_numpy()
        on_lesion = table.loc[table["share"] >= params.covered, "logit"].to_numpy() if label else np.array([original])
        if len(free) and len(on_lesion):
            rows += [{"draw": draw, "slice_id": slice_id, "label": label, "original": original,
                      "healthy": rng.choice(free), "lesion": rng.choice(on_lesion)} for draw in range(params.draws)]
    return pd.DataFrame(rows, columns=["draw", "slice_id", "label", *ARMS])


def inpainting_metrics(arms: pd.DataFrame, n_slices: int) -> dict[str, float]:
    """AUC of each arm (mean over draws) and by how much inpainting moves the mean logit of abnormal slices.

    logit_shift_ratio: |shift by healthy tissue| / |shift by the lesion|. Where a class is missing: counts alone.
    """
    from sklearn.metrics import roc_auc_score  # slow to import

    slices = arms.drop_duplicates("slice_id")
    abnormal = arms[arms["label"] == 1]
    metrics: dict[str, float] = {
        "n_abnormal": int((slices["label"] == 1).sum()), "n_healthy": int((slices["label"] == 0).sum()),
        "n_left_out": n_slices - len(slices)}
    if not (metrics["n_abnormal"] and metrics["n_healthy"]):
        return metrics
    for arm in ARMS:
        of_draws = [roc_auc_score(table["label"], table[arm]) for _, table in arms.groupby("draw")]
        metrics[f"auc_{arm}"] = float(np.mean(of_draws))
    shifts = {arm: float((abnormal[arm] - abnormal["original"]).mean()) for arm in ("healthy", "lesion")}
    metrics |= {f"logit_shift_{arm}": shift for arm, shift in shifts.items()}
    if shifts["lesion"] != 0:
        metrics["logit_shift_ratio"] = abs(shifts["healthy"]) / abs(shifts["lesion"])
    return metrics


def roc_curves(arms: pd.DataFrame) -> pd.DataFrame:
    """Columns arm, draw, fpr, tpr: the ROC curve of every arm and draw; the originals' once."""
    from sklearn.metrics import roc_curve  # slow to import

    curves = []
    for draw, table in arms.groupby("draw"):
        for arm in ARMS:
            if arm != "original" or draw == 0:
                fpr, tpr, _ = roc_curve(table["label"], table[arm])
                curves.append(pd.DataFrame({"arm": arm, "draw": draw, "fpr": fpr, "tpr": tpr}))
    return pd.concat(curves)


def draw_roc(curves: pd.DataFrame, metrics: dict[str, float]) -> Figure:
    """The paper's figure 2: each arm's mean ROC curve, shaded between the least and the greatest of the draws."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    grid = np.linspace(0, 1, 201)
    for arm, meaning in ARMS.items():
        tables = [table for _, table in curves[curves["arm"] == arm].groupby("draw")]
        rates = np.stack([np.interp(grid, table["fpr"], table["tpr"]) for table in tables])  # (draws,201)
        axes.fill_between(grid, rates.min(axis=0), rates.max(axis=0), color=COLOURS[arm], alpha=0.2, linewidth=0)
        axes.plot(grid, rates.mean(axis=0), color=COLOURS[arm], label=f"{meaning}, AUC {metrics[f'auc_{arm}']:.3f}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title(f"{metrics['n_abnormal']} abnormal, {metrics['n_healthy']} healthy test slices", fontsize=9)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return figure

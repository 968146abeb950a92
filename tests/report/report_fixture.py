"""A finished run's artifacts with made-up methods, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import write_explanations
from flipside.artifacts.truth import write_truth
from flipside.core.packed_masks import write_packed
from flipside.core.params import SECTIONS
from flipside.core.store import write_store
from flipside.metrics import populations
from flipside.metrics import subgroups as size_subgroups
from flipside.metrics.families.bounded_flips import flips_by_bound
from flipside.metrics.families.lost_iou import LostIou, divide_lost_iou
from tests.parameters import write_parameters

METHODS = {"coin": 0.8, "rise": 0.3, "random": 0.05}  # how much of the lesion each fake method finds
REPORT = {"title": "Flipside <b>& co</b>", "policy": "label_free", "rank_by": "iou_label_free",
          "rank_by_without_masks": "bounded_flip_rate", "controls": ["random"], "gallery_cases": 3, "healthy_cases": 2}
REALISM = {"metrics": {}, "missing": {name: f"weights {name[:3]}.pth not found" for name in
                                      ("fid_64", "fid_768", "fid_64_coin", "lpips")},
           "cautions": {"fd_clf": "5 counterfactuals for 96 features", "fd_clf_unchanged": "the same"}}

# What is recorded of a method that explains with a generator, and of one that draws a map.
GENERATED = {"parameters": {"needs": "models/generators/coin"},
             "randomisation": {"reason": "it explains with a trained generator"}}
MAPPED = {"parameters": {"needs": "models/classifiers/classifier"}, "randomisation": {"changed": True}}


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file's content in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def size_groups(method: str, cases: pd.DataFrame) -> list[tuple]:
    """Rows of reports/subgroups.csv: the smaller and the larger half of the lesions, and a group without a case."""
    lesion = cases[cases["label"] == 1].sort_values("lesion_px")
    half, rows = len(lesion) // 2, []
    for name, part in (("small", lesion.iloc[:half]), ("large", lesion.iloc[half:])):
        mean = part["iou_label_free"].mean()
        rows.append((method, name, part["lesion_px"].min(), part["lesion_px"].max(), len(part),
                     part["patient_id"].nunique(), mean, 0.9 * mean, 1.1 * mean, mean))
    return [*rows, (method, "giant", 900.0, 900.0, 0, 0, *[np.nan] * 4)]


def build_project(root: Path, images: np.ndarray, methods: dict[str, float], counterfactual: tuple[str, ...],
                  controls: tuple[str, ...]) -> None:
    """A finished run's artifacts with made-up methods on images (N,H,W) in [-1,1]; every other slice has a lesion."""
    rng = np.random.default_rng(0)
    count, size = len(images), images.shape[-1]
    rows, columns = np.mgrid[:size, :size]
    lesion = np.zeros(images.shape, np.uint8)
    for i in range(0, count, 2):
        centre = rng.uniform(0.35, 0.65, 2) * size
        lesion[i] = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(0.05, 0.14) * size
    images = np.clip(images + 0.6 * lesion, -1, 1).astype(np.float16)
    labels = np.arange(count) % 2 == 0
    index = pd.DataFrame({
        "slice_id": [f"scan{i // 4:02d}<&>_{i:03d}" for i in range(count)],
        "scan_id": [f"scan{i // 4:02d}" for i in range(count)], "patient_id": [f"p{i // 4:02d}" for i in range(count)],
        "z": range(count), "relative_height": 0.5, "spacing_row_mm": 1.0, "spacing_col_mm": 1.0, "spacing_z_mm": 3.0,
        "native_rows": 128, "native_cols": 128, "label": labels.astype(int), "split": "test", "organ_px": 900,
        "source_file": "a.nii.gz",
    })
    index = index.assign(source_slice_id=index["slice_id"], draw=0)
    write_store(root / "data/slices", images, np.ones_like(lesion), index)
    write_truth(root / "data/truth", lesion)
    metrics, cases, curves, subgroups = {}, [], [], []
    for name, skill in methods.items():
        maps = skill * lesion * rng.uniform(0.4, 1, (count, 1, 1)) + 0.25 * rng.random(images.shape) ** 3
        maps = np.clip(np.stack([(m + np.roll(m, 1, 0) + np.roll(m, 1, 1)) / 3 for m in maps]), 0, 1)
        makes = name in counterfactual
        changed = np.clip(images - maps * 0.9, -1, 1) if makes else None
        f_x = np.where(labels, 0.9, 0.1)
        write_explanations(root / f"data/explanations/{name}", maps, changed, pd.DataFrame({
            "slice_id": index["slice_id"], "f_x": f_x, "f_x_cf": 0.1 if makes else np.nan, "steps": np.nan}),
            {"seconds": 2.0, "images": count, "seconds_per_image": 2.0 / count, "device": "CPU, 1 threads",
             "peak_memory_gb": 0.5}, records=GENERATED if makes else MAPPED)
        masks = (maps > 0.2).astype(np.uint8)
        folder = root / f"data/masks/{name}"
        folder.mkdir(parents=True)
        write_packed(folder / "label_free.npy", masks)
        (folder / "parameters.json").write_text("{}")
        (folder / "thresholds.json").write_text(json.dumps({
            "label_free": {"rule": "share_of_maximum", "background": "median", "smooth_px": 1, "share": 0.5},
            "fixed": 0.25, "otsu": 0.3, "val": 0.2, "oracle": 0.22}))
        index[["slice_id", "split"]].to_csv(folder / "index.csv", index=False)
        union = np.maximum((masks | lesion).sum((1, 2)), 1)
        iou = np.where(labels, (masks & lesion).sum((1, 2)) / union, np.nan)
        cases.append(pd.DataFrame({
            "method": name, **{key: index[key] for key in ("slice_id", "scan_id", "patient_id", "label")},
            "organ_px": 900, "lesion_px": lesion.sum((1, 2)),
            "iou_label_free": iou, "dice_label_free": 2 * iou / (1 + iou),
            "fp_area": np.where(labels, np.nan, masks.mean((1, 2))), "f_x": f_x,
            "f_x_cf": 0.1 if makes else np.nan, "judge_x": np.where(labels, 0.8, 0.2) if makes else np.nan,
            "judge_x_cf": 0.25 if makes else np.nan,
            "change_to_blur": np.linspace(0.1, 0.6, count) if makes else np.nan,
        }))
        mean = float(np.nanmean(iou))
        counts = (part.sum((1, 2))[labels] for part in (masks & lesion, masks & ~lesion & 1, lesion & ~masks & 1))
        lost = divide_lost_iou(*counts, f_x[labels] < 0.5).mean(axis=0)
        metrics[name] = {
            **dict(zip(LostIou.columns, map(float, lost), strict=True)),
            "iou_label_free": mean, "iou_label_free_ci_low": mean * 0.9, "iou_label_free_ci_high": mean * 1.1,
            "iou_val": mean, "iou_fixed": mean * 0.8, "iou_otsu": mean * 0.7, "iou_oracle": mean * 1.05,
            "dice_label_free": mean * 1.2, "pixel_ap": mean,
            "per_fixed": 0.1, "fp_area_healthy": float(np.nanmean(cases[-1]["fp_area"])),
            "seconds_per_image": 2.0 / count, "n_cases": int(labels.sum()),
            "n_healthy": int((~labels).sum()), "n_patients": int(index["patient_id"][labels].nunique()),
        }
        if makes:
            metrics[name] |= {"n_success_rate": 5, "success_rate": 0.8, "n_cv": 5, "cv": 0.8, "n_judge_flip_rate": 4,
                              "judge_flip_rate": 0.75, "bounded_flip_rate": 0.5, "n_bounded_flip_rate": 6,
                              "flips_beyond_bound": 0.5, "n_flips_beyond_bound": 6, "l1": 0.02, "ssim": 0.95,
                              "perceptual_clf": 0.125, "fd_clf": 1.5, "fd_clf_unchanged": 44.25, "n_realism": 5}
            (root / "data/realism").mkdir(exist_ok=True)
            (root / f"data/realism/{name}.json").write_text(json.dumps(REALISM))
        subgroups += size_groups(name, cases[-1])
        threshold = np.linspace(0, 1, 21)
        curves.append(pd.DataFrame({"method": name, "threshold": threshold,
                                    "iou": mean * np.exp(-((threshold - 0.22) ** 2) / 0.03)}))
    reports = root / "reports"
    (reports / "curves").mkdir(parents=True)
    (reports / "metrics.json").write_text(json.dumps(metrics))
    pd.concat(cases).to_csv(reports / "cases.csv", index=False)
    flips_by_bound(dict(zip(methods, cases, strict=True))).to_csv(reports / "flips_by_bound.csv", index=False)
    pd.concat(curves).to_csv(reports / "curves/thresholds.csv", index=False)
    pd.DataFrame(subgroups, columns=size_subgroups.COLUMNS).to_csv(reports / "subgroups.csv", index=False)
    half = count // 2
    pd.DataFrame([("test", "all slices of the test split", count, count // 4, 0, ""),
                  ("lesion", "a lesion left & scored", half, count // 4, 2, "the lesion vanished in the resize"),
                  ("healthy", "labelled healthy", count - half, count // 4, 0, "")],
                 columns=populations.COLUMNS).to_csv(reports / "populations.csv", index=False)
    for role in ("classifier", "judge"):
        (reports / f"{role}.json").write_text(json.dumps(
            {"auc": 0.97, "accuracy": 0.93, "f1": 0.92, "ece": 0.04, "n": count, "n_abnormal": int(labels.sum())}))
    for model in ("classifier", "judge", "coin"):
        plots = reports / "training" / model / "plots/metrics/train"
        plots.mkdir(parents=True)
        (reports / "training" / model / "parameters.json").write_text(json.dumps(
            {"width": 8, "architecture": "small_resnet" if model == "classifier" else "resnet18"}))
        steps = np.arange(1000)
        for value in ("loss", "auc"):
            pd.DataFrame({"step": steps, value: np.exp(-steps / 200) + 0.02 * rng.random(1000)}).to_csv(
                plots / f"{value}.tsv", sep="\t", index=False)
    calls = np.where(labels, "abnormal", "healthy")
    for role in ("classifier", "judge"):
        pd.DataFrame({"actual": calls, "predicted": np.roll(calls, 1 if role == "judge" else 0)}).to_csv(
            reports / f"training/{role}/confusion.csv", index=False)
    pd.DataFrame({"fpr": [0, 0.1, 1], "tpr": [0, 0.9, 1]}).to_csv(reports / "training/classifier/roc.csv", index=False)
    manifest = {"counts": {"slices": count, "scans": 3},
                "left_out": [{"file": "<bad>.nii.gz", "reason": "truncated & odd"}],
                "grouped": [["a", "b"], ["c", "d"]], "nothing": []}
    for folder in ("extracted", "filtered", "slices"):
        (root / "data" / folder).mkdir(parents=True, exist_ok=True)
        (root / f"data/{folder}/manifest.json").write_text(json.dumps(manifest))
    parameters = dict.fromkeys(SECTIONS, {}) | {
        "profile": "cpu", "dataset": "phantom", "seed": 0, "image_size": size, "generators": {"coin": {"width": 8}},
        "evaluate": {"confidence": 0.95, "change_bound": 0.4, "reference_method": next(iter(methods))},
        "datasets": {"phantom": {"root": "data/raw/phantom"}, "kits23": {"root": "UNUSED_BLOCK"}},
        "runtime": {"device": "auto"}, "report": REPORT | {"controls": list(controls)},
    }
    write_parameters(root, parameters)

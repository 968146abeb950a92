"""A project of two methods, `good` and `blind`, and the stages' own mains that run it from maps to reports."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from flipside.artifacts.clean import write_clean
from flipside.artifacts.explanations import write_explanations
from flipside.artifacts.truth import write_truth
from flipside.core.files import write_json
from flipside.core.store import INDEX_COLUMNS, write_store
from stages import evaluate, extract_masks

SIZE, METHODS = 32, ("good", "blind")
GOOD_RECORDS = {"randomisation": {"reason": "it explains with a generator"}}
POLICIES = ("label_free", "fixed", "otsu", "val", "oracle")
SECTIONS = {
    "seed": 3, "strong_supervision": [],
    "methods": {"good": {"needs": "models/generators/good"}, "blind": {"needs": "models/classifiers/classifier"}},
    "masks": {"label_free": {"rule": "share_of_maximum", "background": "median", "share": 0.5, "window": 0.1,
                             "quantile": 0.99, "smooth_px": 1},
              "gate": True, "inside_organ": False, "fixed": 0.25, "sweep_step": 0.01,
              "morphology": ["open", "close", "largest_component"]},
    "foreign_maps": {},
    "segment_scans": {"method": "good", "policy": "label_free", "volumes": {
        "vote_slices": 1, "fill_holes": False, "components": "all", "least_mm3": 0.0}},
    "evaluate": {"cv_tau": 0.8, "change_bound": 0.4, "bootstrap_samples": 300, "confidence": 0.95,
                 "reference_method": "good"},
}


def slices() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Images with a bright square in three slices of four, the squares, and the index: 2 train, 3 val, 4 test scans."""
    generator = np.random.default_rng(0)
    index = pd.DataFrame({"slice_id": [f"scan{n // 8}:{n % 8}" for n in range(72)]})
    patient = np.arange(72) // 8
    index = index.assign(
        source_slice_id=index["slice_id"], draw=0,
        scan_id=[f"scan{p}" for p in patient], patient_id=[f"{p:03d}" for p in patient], z=np.arange(72) % 8,
        relative_height=0.5, spacing_row_mm=1.0, spacing_col_mm=1.0, spacing_z_mm=1.0, native_rows=SIZE,
        native_cols=SIZE, label=(np.arange(72) % 4 > 0).astype(int), split=np.array(["train"] * 2 + ["val"] * 3
                                                                                    + ["test"] * 4)[patient],
        organ_px=500, source_file="x.nii.gz")
    images = generator.uniform(-0.5, 0, (72, SIZE, SIZE))
    lesion = np.zeros(images.shape, np.uint8)
    for row in np.flatnonzero(index["label"]):
        top, left = generator.integers(2, SIZE - 10, 2)
        lesion[row, top:top + 7, left:left + 6] = 1
    return (images + 0.5 * lesion).astype(np.float16), lesion, index[INDEX_COLUMNS]


def write_project(masks: bool = True):
    Path("params.yaml").write_text(yaml.safe_dump(SECTIONS, sort_keys=False))
    images, lesion, index = slices()
    write_store("data/slices", images, np.ones_like(lesion), index)
    write_truth("data/truth", lesion if masks else np.zeros_like(lesion))
    write_clean("data/clean", [], [], lesion.shape[1:])
    rows = np.flatnonzero(index["split"] != "train")
    generator = np.random.default_rng(1)
    counterfactual = images[rows] - 0.45 * lesion[rows]
    f_x = np.where(index["label"].iloc[rows] == 1, 0.95, 0.05)
    table = pd.DataFrame({"slice_id": index["slice_id"].iloc[rows], "f_x": f_x, "f_x_cf": 0.1, "steps": np.nan})
    timing = {"seconds": 1.0, "images": len(rows), "seconds_per_image": 1 / len(rows), "device": "CPU",
              "peak_memory_gb": 0.1}
    good = np.clip(0.6 * lesion[rows] + 0.3 * generator.random(counterfactual.shape) ** 3, 0, 1)
    write_explanations("data/explanations/good", good, counterfactual.astype(np.float16), table, timing,
                       records=GOOD_RECORDS)
    backwards = np.arange(len(rows))[::-1]  # the order of an explanation's slices is its own
    write_explanations("data/explanations/blind", generator.random(good.shape), None,
                       table.iloc[backwards].assign(f_x_cf=np.nan), timing, records={"randomisation": {
                           "changed": False, "spearman_all": 0.97, "ssim_all": 0.96, "spearman_head": 0.98,
                           "ssim_head": 0.99, "threshold": 0.8, "draws": 2, "n_slices": 16, "n_patients": 4}})
    judgements = table[["slice_id"]].assign(judge_x=f_x, judge_x_cf=np.where(np.arange(len(rows)) % 2, 0.9, 0.1))
    Path("data/judgements").mkdir(exist_ok=True)
    judgements.sample(frac=1, random_state=0).to_csv("data/judgements/good.csv", index=False)
    Path("data/realism").mkdir(exist_ok=True)
    distances = table[["slice_id"]].assign(perceptual_clf=np.arange(len(rows)) / 100, lpips=np.nan)
    distances.sample(frac=1, random_state=1).to_csv("data/realism/good.csv", index=False)
    Path("data/realism/good.json").write_text(json.dumps(
        {"metrics": {"fd_clf": 1.25, "n_realism": 24}, "missing": {"lpips": "no weights"}, "cautions": {}}))
    write_json("reports/training/good/timing.json", {"seconds": 12.5, "steps": 10, "device": "CPU"})


def run(stage, *arguments):
    sys.argv = [stage.__name__, *arguments]
    stage.main()


def run_all() -> dict:
    for method in METHODS:
        run(extract_masks, "--method", method)
    run(evaluate)
    return json.loads(Path("reports/metrics.json").read_text())


def rewrite_index(folder, change):
    file = Path(folder) / "index.csv"
    change(pd.read_csv(file)).to_csv(file, index=False)

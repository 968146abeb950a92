"""A tiny finished run in a folder of its own, with untrained models, and new scans beside it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flipside.classifiers.networks.backbones import build_classifier
from flipside.core.checkpoint import save_model
from flipside.generators.coin import Coin
from tests.parameters import project_parameters, write_parameters
from tests.scans.scans_fixture import write_nifti

SIDE = 32
WINDOW = [-100.0, 300.0]
METHODS = ("coin", "gradient", "intensity", "octet")
METRICS = {"coin": {"iou_val": 0.6, "iou_val_ci_low": 0.5, "iou_val_ci_high": 0.7, "n_cases": 40, "n_patients": 5},
           "gradient": {"iou_val": 0.3}, "intensity": {"iou_val": 0.8}, "octet": {"iou_val": 0.9}}
NIFTI = {"layout": "nifti_cases", "root": "data/raw/mine", "modality": "ct", "image": "{case}/scan.nii.gz",
         "page": "https://example.org/mine"}
COS, SIN = np.cos(0.2), np.sin(0.2)
CT_AFFINE = np.array([[-0.9 * COS, 0, 2.5 * SIN, 40], [0, 0.8, 0, -60], [0.9 * SIN, 0, 2.5 * COS, 10], [0, 0, 0, 1]])


def write_json(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_run(folder: Path, block=NIFTI, window=WINDOW, channels=("image",), size=SIDE, batch_size=4, **changes
              ) -> Path:
    """What `flipside predict` reads of a finished run. changes: keys of `segment_scans`."""
    folder.mkdir(parents=True)
    params = project_parameters()
    params |= {"dataset": "mine", "image_size": size, "datasets": {"mine": block},
               "runtime": {"device": "cpu", "precision": "float32", "threads": 1, "workers": 1}}
    params["methods"] = {name: params["methods"][name] for name in METHODS}
    params["explain"]["batch_size"] = batch_size
    params["segment_scans"] |= {"policy": "val"} | changes
    params["report"] |= {"rank_by": "iou_val"}
    params["masks"] |= {"morphology": [], "gate": False}
    write_parameters(folder, params)
    torch.manual_seed(0)
    architecture = {"architecture": "small_resnet", "width": 8, "image_channels": len(channels)}
    classifier = build_classifier(**architecture, pretrained=False)
    save_model(folder / "models/classifiers/classifier", classifier, {"architecture": architecture})
    arguments = {"channels": [8, 16], "skips": 1, "fuse": "clamp", "upsampling": "nearest", "spectral_norm": True,
                 "spectral_sigma": "differentiable", "image_channels": len(channels)}
    save_model(folder / "models/generators/coin", Coin.build(arguments), {"architecture": arguments})
    for method in METHODS:
        write_json(folder / f"data/masks/{method}/thresholds.json", {"val": 0.7, "val_raw": 0.7})
    write_json(folder / "data/filtered/manifest.json", {
        "dataset": "mine", "anomalies": False, "window": window, "channels": list(channels), "windows_by_scan": {},
        "counts": {part: {"patients": 5, "scans": 5, "slices": 40, "healthy": 20, "abnormal": 20}
                   for part in ("train", "val", "test")}})
    write_json(folder / "reports/metrics.json", METRICS)
    write_json(folder / "reports/classifier.json", {"auc": 0.9, "n": 40})
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def body(shape=(40, 36, 10), seed=0) -> np.ndarray:
    """(X,Y,Z) int16 HU: air, soft tissue, and a bright rod through all slices that leans to one side."""
    volume = np.full(shape, -1000, np.int16)
    volume[4:-4, 4:-4] = 40
    volume += np.random.default_rng(seed).integers(-15, 15, shape).astype(np.int16)
    x, y, z = np.indices(shape)
    volume[(x - 16 - z) ** 2 + (y - 14) ** 2 <= 36] = 290
    return volume


@pytest.fixture
def scans(tmp_path):
    """Three NIfTI volumes on an oblique, left-handed grid, of other sizes."""
    folder = tmp_path / "new scans"
    for number, shape in enumerate([(40, 36, 10), (30, 44, 7), (52, 52, 12)]):
        write_nifti(folder / f"case{number}.nii.gz", body(shape, number), CT_AFFINE)
    return folder

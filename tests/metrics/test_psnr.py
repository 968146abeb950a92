"""PSNR against the slice before its synthetic anomaly or effect."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import peak_signal_noise_ratio

from flipside.artifacts.clean import read_clean
from flipside.artifacts.truth import open_truth
from flipside.cli import profile
from flipside.core.store import SliceStore
from flipside.metrics.psnr import HIGHEST_DB, clean_metrics, psnr
from flipside.scans.readers import ReadError
from stages import draw_anomalies, extract_slices, simulate_effects, split_patients

ROOT = Path(__file__).parents[2]


def test_psnr_is_scikit_images_and_finite():
    rng = np.random.default_rng(0)
    images, clean = rng.uniform(-1, 1, (2, 3, 6, 7))
    expected = [peak_signal_noise_ratio(*pair, data_range=2) for pair in zip(clean, images, strict=True)]
    np.testing.assert_allclose(psnr(images, clean), expected)
    assert psnr(clean, clean) == pytest.approx([HIGHEST_DB] * 3)


def test_images_without_their_effect_lie_as_the_slices_do(tmp_path, monkeypatch):
    """Simulated, read, resized and windowed by the stages: a healthy image is its own clean one."""
    for name in ("params.yaml", "datasets.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(profile, "PROFILES", ROOT / "profiles")
    profile.apply_profile("synthetic_effect", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stage"])
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("images: 5000", "images: 60"))
    for stage in (simulate_effects, extract_slices, split_patients, draw_anomalies):
        stage.main()
    store = SliceStore.open("data/slices")
    tests = store.rows("test")
    images = store.images[tests].astype(float)
    clean = read_clean("data/clean", store.index["slice_id"].iloc[tests]).astype(float)
    healthy = (store.index["label"].iloc[tests] == 0).to_numpy()
    assert 0 < healthy.sum() < len(tests) and np.array_equal(images[healthy], clean[healthy])
    truth = open_truth("data/truth", store.organ.shape)[tests][~healthy] > 0
    change = (images - clean)[~healthy]
    assert change[truth].mean() > 0.15 and change[~truth].mean() < 0  # effect; stretched background
    Path("data/raw/synthetic_effect/clean/00000.png").unlink()
    with pytest.raises(ReadError, match=r"images/00000.png: 0 label files match .*clean/00000.png, expected one"):
        extract_slices.main()


def test_means_are_over_lesion_slices_called_abnormal():
    cases = pd.DataFrame({"label": [1, 1, 1, 0], "lesion_px": [4, 5, 6, 0], "f_x": [0.9, 0.8, 0.1, 0.9],
                          "psnr_clean": [40.0, 30.0, 10.0, 5.0], "psnr_clean_unchanged": [20.0, 22.0, 1.0, 1.0]})
    assert clean_metrics(cases) == {"n_psnr_clean": 2, "psnr_clean": 35.0, "psnr_clean_unchanged": 21.0}
    assert clean_metrics(cases.assign(psnr_clean=np.nan)) == {}

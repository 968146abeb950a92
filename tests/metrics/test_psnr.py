"""PSNR against the slice before its synthetic anomaly or effect."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.metrics import peak_signal_noise_ratio

from flipside.cli import profile
from flipside.core.files import write_json
from flipside.core.store import INDEX_COLUMNS, SliceStore, write_store
from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.psnr import HIGHEST_DB, clean_metrics, open_clean, psnr
from stages import draw_anomalies, extract_slices, simulate_effects, split_patients

ROOT = Path(__file__).parents[2]


@pytest.fixture
def filtered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = pd.DataFrame({column: [0] * 3 for column in INDEX_COLUMNS}).assign(slice_id=["s:1", "s:2", "s:3"])
    images = np.arange(3)[:, None, None] / 4 + np.zeros((3, 4, 4))
    write_store("data/filtered", images.astype(np.float16), np.ones((3, 4, 4), np.uint8), index)
    write_json("data/slices/manifest.json", {"dataset": "phantom", "anomalies": {"drawn": True}})


def test_psnr_is_scikit_images_and_finite():
    rng = np.random.default_rng(0)
    images, clean = rng.uniform(-1, 1, (2, 3, 6, 7))
    expected = [peak_signal_noise_ratio(*pair, data_range=2) for pair in zip(clean, images, strict=True)]
    np.testing.assert_allclose(psnr(images, clean), expected)
    assert psnr(clean, clean) == pytest.approx([HIGHEST_DB] * 3)


def test_every_draw_of_a_slice_has_its_clean_one(filtered):
    found = open_clean(pd.Series(["s:3:d1", "s:1:d0", "s:2"]))
    assert found[:, 0, 0].tolist() == [0.5, 0.0, 0.25]
    with pytest.raises(EvaluationError, match="lacks 1 of the 2 test slices.*s:9"):
        open_clean(pd.Series(["s:1", "s:9:d0"]))


def test_real_lesions_have_no_clean_image(filtered):
    write_json("data/slices/manifest.json", {"dataset": "kits", "anomalies": {"drawn": False}})
    assert open_clean(pd.Series(["s:1"])) is None


def test_images_without_their_effect_lie_as_the_slices_do(tmp_path, monkeypatch):
    """Simulated, read, resized and windowed by the stages: a healthy image is its own clean one."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setattr(profile, "PROFILES", ROOT / "profiles")
    profile.apply_profile("synthetic_effect", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("images: 5000", "images: 60"))
    for stage in (simulate_effects, extract_slices, split_patients, draw_anomalies):
        stage.main()
    store = SliceStore.open("data/slices")
    images, clean = store.images.astype(float), open_clean(store.index["slice_id"]).astype(float)
    healthy = (store.index["label"] == 0).to_numpy()
    assert healthy.sum() == 30 and np.array_equal(images[healthy], clean[healthy])
    truth = np.load("data/truth/lesion.npy")[~healthy] > 0
    change = (images - clean)[~healthy]
    assert change[truth].mean() > 0.15 and change[~truth].mean() < 0  # effect; stretched background
    Path("data/raw/synthetic_effect/clean/00000.png").unlink()
    with pytest.raises(EvaluationError, match=r"00000.png not found \(and 0 more\): run `dvc repro simulate_effects`"):
        open_clean(store.index["slice_id"])


def test_means_are_over_lesion_slices_called_abnormal():
    cases = pd.DataFrame({"label": [1, 1, 1, 0], "lesion_px": [4, 5, 6, 0], "f_x": [0.9, 0.8, 0.1, 0.9],
                          "psnr_clean": [40.0, 30.0, 10.0, 5.0], "psnr_clean_unchanged": [20.0, 22.0, 1.0, 1.0]})
    assert clean_metrics(cases) == {"n_psnr_clean": 2, "psnr_clean": 35.0, "psnr_clean_unchanged": 21.0}
    assert clean_metrics(cases.assign(psnr_clean=np.nan)) == {}

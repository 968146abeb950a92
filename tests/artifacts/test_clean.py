"""Test slices without what was simulated on them: whole, found by name, or said to be none."""

import numpy as np
import pytest

from flipside.artifacts.clean import read_clean, write_clean
from flipside.core.store import StoreError


def test_clean_images_are_found_by_the_slices_names(tmp_path):
    images = np.arange(3)[:, None, None] / 4 + np.zeros((3, 4, 4))
    write_clean(tmp_path / "clean", ["s:1", "s:2:d0", "s:2:d1"], images, (4, 4))
    found = read_clean(tmp_path / "clean", ["s:2:d1", "s:1"])
    assert found.dtype == np.float16 and found[:, 0, 0].tolist() == [0.5, 0.0]
    with pytest.raises(StoreError, match="lacks 1 of the 2 test slices.*s:9.*dvc repro draw_anomalies"):
        read_clean(tmp_path / "clean", ["s:1", "s:9"])


def test_a_data_set_without_clean_images_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="clean/index.csv not found.*dvc repro draw_anomalies"):
        read_clean(tmp_path / "clean", ["s:1"])
    write_clean(tmp_path / "clean", [], [], (4, 4))
    assert read_clean(tmp_path / "clean", ["s:1"]) is None


def test_names_and_images_must_agree(tmp_path):
    with pytest.raises(ValueError):
        write_clean(tmp_path / "clean", ["s:1", "s:2"], np.zeros((1, 4, 4)), (4, 4))
    assert not (tmp_path / "clean").exists()

"""The comparison of label-free rules reads the validation split alone."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import label_free
from flipside.artifacts.truth import write_truth
from flipside.core.packed_masks import PackedMasks
from flipside.core.store import write_store
from tests.stages.project_of_two import SECTIONS, SIZE, rewrite_index, slices, write_project

HALF = "share_of_maximum median 0.5"


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(label_free, "candidates", lambda: [rule for rule in ALL if rule.smooth_px == 1])
    write_project()
    images, lesion, index = slices()
    write_store("data/filtered", images - 0.5 * lesion, np.ones_like(lesion), index)
    Path("params.yaml").write_text(yaml.safe_dump(SECTIONS | {"report": {"controls": ["blind"]}}))
    # The classifier misses the first lesion slice of the validation split.
    for method in ("good", "blind"):
        rewrite_index(f"data/explanations/{method}", lambda table: table.assign(f_x=table["f_x"].where(
            table["slice_id"] != "scan2:1", 0.2)))
    return tmp_path


ALL = label_free.candidates()


def test_a_rule_is_scored_on_gated_cleaned_masks_of_validation_slices(finished):
    data = label_free.read_validation(finished, "good")
    assert data.maps.shape[0] == 24 and data.scored.sum() == 18 and data.healthy.sum() == 6
    assert data.empty.sum() == 7
    ious, areas = label_free.compare(finished)
    assert ious.loc[HALF, "good"] == pytest.approx(17 / 18, abs=0.03)  # near perfect but for the missed slice
    assert ious.loc[HALF, "clean slice"] == pytest.approx(17 / 18) and "clean slice" not in areas
    assert areas.loc[HALF, "good"] == 0  # healthy slices are called so
    assert (ious.loc["best single threshold"] >= ious.loc["fixed 0.25"]).all()
    score = label_free.summarise(ious, ["blind"])  # nor is the clean slice a method
    assert score[HALF] == pytest.approx(ious.loc[HALF, "good"] / ious.loc["best single threshold", "good"])


def test_nothing_of_the_test_split_is_read(finished, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["label_free", "--runs", str(finished)])
    label_free.main()
    before = capsys.readouterr().out
    index = pd.read_csv("data/slices/index.csv")
    test = (index["split"] == "test").to_numpy()
    lesion = PackedMasks.open("data/truth/lesion.npy", SIZE)[:]
    lesion[test] = 1 - lesion[test]
    write_truth("data/truth", lesion)
    for method in ("good", "blind"):
        of_test = pd.read_csv(f"data/explanations/{method}/index.csv")["slice_id"].isin(index["slice_id"][test])
        maps = np.load(f"data/explanations/{method}/attribution.npy")
        maps[of_test.to_numpy()] = np.nan
        np.save(f"data/explanations/{method}/attribution.npy", maps)
    label_free.main()
    assert capsys.readouterr().out == before and "chosen: " in before

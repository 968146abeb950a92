"""A folder of maps takes part as a method, from files to metrics and report."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.methods.foreign.reading import ForeignMapError
from flipside.metrics.families.foreign import FILES
from flipside.report.badges import badge
from flipside.report.tables import markdown_table, plain_table
from flipside.scans.geometry import Geometry, from_slices
from stages import evaluate, extract_masks, read_foreign_maps
from tests.stages.project_of_two import METHODS, SECTIONS, SIZE, run, slices

GRID = Geometry.of_volume((SIZE, 8, SIZE), np.array([[0, 0, -1.0, 9], [1, 0, 0, 3], [0, -2, 0, 5], [0, 0, 0, 1]]))


@pytest.fixture
def foreign(project_of_two, monkeypatch):
    """Perfect maps of all scans as NIfTI files, stored with other axes than slices have."""
    Path("params.yaml").write_text(yaml.safe_dump(SECTIONS | {
        "runtime": {"device": "cpu", "precision": "float32", "threads": 1},
        "explain": {"batch_size": 4, "splits": ["val", "test"]},
        "foreign_maps": {"mine": {"pattern": "{case}_map.nii.gz", "values": "any"}}}))
    _, lesion, index = slices()
    Path("data/extracted").mkdir()
    scans = index["scan_id"].unique()
    pd.DataFrame({"scan_id": scans, "geometry": GRID.to_json()}).to_csv("data/extracted/scans.csv", index=False)
    folder = Path("data/foreign/mine")
    folder.mkdir(parents=True)
    for scan in scans:
        values = 40 * lesion[(index["scan_id"] == scan).to_numpy()].astype(np.float32) - 7  # (Z,R,C)
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(from_slices(values, GRID)), GRID.affine),
                     folder / f"{scan}_map.nii.gz")
    monkeypatch.setattr(read_foreign_maps, "load_classifier", lambda *_: None)
    answers = index.set_index("slice_id")["label"]
    rows = index["split"] != "train"
    monkeypatch.setattr(read_foreign_maps, "predict_probabilities",
                        lambda *_: np.where(answers[index["slice_id"][rows]] == 1, 0.95, 0.05))
    return folder


def test_files_become_masks_metrics_and_a_marked_row(foreign):
    run(read_foreign_maps, "--method", "mine")
    maps = np.load("data/explanations/mine/attribution.npy")
    _, lesion, index = slices()
    np.testing.assert_array_equal(maps, lesion[(index["split"] != "train").to_numpy()])
    for method in (*METHODS, "mine"):
        run(extract_masks, "--method", method)
    run(evaluate)
    metrics = json.loads(Path("reports/metrics.json").read_text())
    mine = metrics["mine"]
    assert set(metrics) == {*METHODS, "mine"}
    assert mine["iou_label_free"] == mine["iou_val"] == mine["pixel_ap"] == mine["lesion_dice_3d"] == 1
    assert mine["from_files"] == 1 and "from_files" not in metrics["good"]
    assert mine["iou_label_free_difference"] == 0  # on the reference's slices, and as good
    assert not {"seconds_per_image", "success_rate", "sanity_randomisation_passed"} & set(mine)
    markdown, plain = (table(metrics, "iou_label_free", [], *note) for table, note in (
        (markdown_table, ["note"]), (plain_table, [])))
    assert "| 2 | mine *(files)* |" in markdown and f"mine: {FILES}" in markdown and "2  mine (files)" in plain
    assert badge("good", metrics["good"], ["good"], "{}") == "control"


def test_a_missing_file_stops_the_stage_by_name(foreign):
    (foreign / "scan7_map.nii.gz").rename(foreign / "scan_7.nii.gz")
    with pytest.raises(ForeignMapError, match=r"lacks 1 of 7 files: scan7_map\.nii\.gz\..* there: .*scan_7\.nii\.gz"):
        run(read_foreign_maps, "--method", "mine")
    assert not Path("data/explanations/mine").exists()
    shutil.rmtree(foreign)
    with pytest.raises(ForeignMapError, match="data/foreign/mine not found"):
        run(read_foreign_maps, "--method", "mine")

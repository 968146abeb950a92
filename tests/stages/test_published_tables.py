"""The table of D, H, A and O: its numbers, its tests, and what it says where it can't be made."""

import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.artifacts.explanations import write_explanations
from flipside.metrics.families.saliency import PERCENTILES
from flipside.metrics.families.supervision import STRONG
from stages import published_tables

COUNT = 24
PARAMS = {"strong_supervision": []}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Lesion slices in which impact's distances are 10 less than CAM's and 30 less than the gradient's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["stage"])
    rng = np.random.default_rng(0)
    base = rng.normal(size=COUNT)
    base += 50.4 - base.mean()
    tables, slice_ids = [], [f"s{n}" for n in range(COUNT)]
    for method, further, area in (("impact", 0, 0.02), ("cam", 10, 0.2), ("gradient", 30, 0.2)):
        table = pd.DataFrame({"method": method, "slice_id": slice_ids,
                              "patient_id": [f"p{n // 3}" for n in range(COUNT)]})
        for percentile in PERCENTILES:
            table[f"centre_distance_mm_p{percentile}"] = table[f"hausdorff_mm_p{percentile}"] = base + further
            table[f"area_to_organ_p{percentile}"] = area
        if method == "impact":
            table.loc[0, "area_to_organ_p50"] = 0  # marks nothing in one slice
            table[["centre_distance_mm_p90", "hausdorff_mm_p90"]] = 999  # its masks are not cut at another percentile
        healthy = pd.DataFrame({"method": method, "slice_id": ["h"], "patient_id": ["p0"]})  # has no distances
        tables.append(pd.concat([table, healthy]))
        maps = np.zeros((COUNT + 1, 8, 8))
        maps[:, 2:4, 2:4] = 0.9
        if method == "gradient":
            maps = maps[:, ::-1]  # elsewhere
        write_explanations(f"data/explanations/{method}", maps, None, pd.DataFrame(
            {"slice_id": [*slice_ids, "h"], "f_x": 0.9, "f_x_cf": np.nan, "steps": np.nan}), {})
    (tmp_path / "reports").mkdir()
    pd.concat(tables).to_csv("reports/cases.csv", index=False)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def rows(folder):
    lines = (folder / "reports/impact.md").read_text().splitlines()
    return {(cells[1].split()[0], cells[2]): cells[3:-1] for line in lines if line.startswith("| ")
            and (cells := [cell.strip() for cell in line.split("|")])[1][:1] in "DHAO" and cells[1]}


def test_numbers_stand_beside_the_published_ones_with_their_tests(folder):
    published_tables.main()
    table = rows(folder)
    assert set(table) == {(name, str(percentile)) for name in "DHAO" for percentile in PERCENTILES}
    ours, cam, p_cam, gradient, p_gradient = table["D", "90"]
    assert ours.startswith("50") and "(137.1)" in ours
    assert cam.startswith("60") and "(144.1)" in cam and gradient.startswith("80") and "(166.3)" in gradient
    of_slices, of_patients = map(float, p_cam.split(" / "))
    assert of_slices < 1e-4 < of_patients < 0.2  # 24 slices, of only 8 patients, 18 tests
    assert table["D", "75"][0] == ours  # its one mask in every row
    assert table["A", "50"][0].startswith("0.019") and table["A", "50"][1].startswith("0.2")
    assert table["O", "50"][0] == "–"
    assert table["O", "50"][1].startswith("1 ± 0 (0.6)") and table["O", "50"][3].startswith("0 ± 0 (0.86)")
    text = (folder / "reports/impact.md").read_text()
    assert STRONG not in text
    assert "24 lesion slices of 8 patients" in text and "nothing is marked: impact 1, cam 0, gradient 0." in text


def test_without_the_method_the_file_says_why_there_is_no_table(folder):
    cases = pd.read_csv("reports/cases.csv")
    cases[cases["method"] != "impact"].to_csv("reports/cases.csv", index=False)
    published_tables.main()
    assert "No table" in (folder / "reports/impact.md").read_text() and rows(folder) == {}


def test_a_run_whose_classifier_saw_lesion_masks_says_so(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"strong_supervision": ["mass_patches"]}))
    published_tables.main()
    assert STRONG in (folder / "reports/impact.md").read_text() and len(rows(folder)) == 12

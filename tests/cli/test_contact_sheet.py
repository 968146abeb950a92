"""The contact sheet shows slices of each part with their lesions, and says what to look at."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flipside.artifacts.truth import write_truth
from flipside.cli.contact_sheet.page import write_contact_sheet
from flipside.cli.contact_sheet.sheet import PAGE, PICTURE, read_contact_sheet
from flipside.core.files import write_json
from flipside.core.store import INDEX_COLUMNS, write_store
from flipside.report.pictures import TRUE_POSITIVE, outlined

SPLITS = ("train",) * 40 + ("val",) * 4 + ("test",) * 20


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes a store of 64 slices, its truth and manifests."""
    monkeypatch.chdir(tmp_path)

    def write(value: float = 0.2, patients: int = 16, sites: list[str] | None = None, **manifest):
        count = len(SPLITS)
        images = np.full((count, 32, 24), value, np.float16)
        images[:, :4] = -1
        lesion = np.zeros(images.shape, np.uint8)
        index = pd.DataFrame({name: 1.0 for name in INDEX_COLUMNS}, index=range(count)).assign(
            slice_id=[f"scan<{n}>" for n in range(count)], scan_id=[f"scan<{n}>" for n in range(count)],
            patient_id=[f"p{n % patients}" if patients < count else f"scan<{n}>" for n in range(count)],
            label=np.arange(count) % 2, split=SPLITS, native_rows=64, native_cols=48)
        lesion[index["label"] == 1, 8:12, 8:12] = 1
        lesion[1] = 0
        write_store(Path("data/slices"), images, np.ones(images.shape, np.uint8), index)
        write_truth("data/truth", lesion)
        write_json(Path("data/slices/manifest.json"), {"dataset": "toy", "window": [0, 255], "warnings": ["too few"]})
        write_json(Path("data/filtered/manifest.json"), {
            "window": [0, 255], "warnings": ["too few"], "dropped": [], "channels": ["image"],
            "saturation": {"black": 0.01, "white": 0.2}})
        write_json(Path("data/extracted/manifest.json"), {
            "modality": "mr", "left_out": [{"file": name, "reason": "is torn"} for name in ("a.png", "b.png")],
            "without_organ": [], "planes": {"axial": count},
            "counts": {"scans": count, "found": count + 2, "patients": patients, "slices": count}}
            | manifest)
        pd.DataFrame({"scan_id": index["scan_id"], "site": sites or [""] * count}).to_csv(
            "data/extracted/scans.csv", index=False)
        return read_contact_sheet(seed=3)

    return write


def test_each_part_and_class_has_its_row(project):
    sheet = project()
    assert [(row.part, row.kind, row.slices) for row in sheet.rows] == [
        ("train", "healthy", 20), ("train", "abnormal", 20), ("val", "healthy", 2), ("val", "abnormal", 2),
        ("test", "healthy", 10), ("test", "abnormal", 10)]
    assert [len(row.shown) for row in sheet.rows] == [8, 8, 2, 2, 8, 8]
    assert sheet.facts["own sizes"] == "48 x 64 (64)" and sheet.facts["slices"].startswith("64 of 24 x 32 pixels")
    assert sheet.facts["pixels"].startswith("of 1 mm") and "20.0% above" in sheet.facts["window"]
    for row in sheet.rows:
        has_outline = [(shown.picture == TRUE_POSITIVE).all(axis=-1).any() for shown in row.shown
                       if shown.name != "scan<1>"]
        assert set(has_outline) == {row.kind == "abnormal"}


def test_it_says_what_to_look_at(project):
    told = "\n".join(project().warnings)
    for text in ("too few", "2 scans left out: is torn (a.png and others)", "val part has only 2 healthy slices",
                 "1 of 32 abnormal slices have no lesion"):
        assert text in told
    assert told.count("too few") == 1 and "names no patients" not in told and "black" not in told
    assert "the slices are black" in "\n".join(project(value=-0.9).warnings)
    assert "names no patients" in "\n".join(project(patients=64).warnings)


def test_a_site_with_one_class_is_a_warning(project):
    assert "sites" not in project().facts
    sites = ["A", "B"] * 32  # as the classes
    sheet = project(sites=sites)
    assert sheet.facts["sites"] == "A (32 healthy, 0 abnormal), B (0 healthy, 32 abnormal)"
    assert any("2 of 2 sites have slices of one class only (first: A)" in warning for warning in sheet.warnings)
    mixed = project(sites=[*sites[:-1], "A"])
    assert any("1 of 2 sites" in warning for warning in mixed.warnings)


def test_an_outline_is_the_border_of_the_enlarged_mask():
    mask = np.zeros((32, 32), np.uint8)
    mask[10:13, 10:13] = 1
    edge = (outlined(np.zeros((32, 32)), mask) == TRUE_POSITIVE).all(axis=-1)
    assert edge.shape == (128, 128) and edge.sum() == 4 * 12 - 4 and edge[40:52, 40].all() and not edge[42, 42]


def test_files_are_whole_and_equal_for_equal_slices(project):
    files = (PICTURE, PAGE)
    contents = []
    for _ in range(2):
        write_contact_sheet(project(), *files)
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    page = files[1].read_text()
    assert page.count("scan&lt;") == 2 * 36 and "scan<" not in page  # names of files are the user's
    assert "http" not in page and page.count("data:image/png") == 36
    assert Image.open(files[0]).width > 1000
    assert "is torn" in page

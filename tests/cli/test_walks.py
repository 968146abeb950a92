"""The four walks of docs/how-to/own-scans.md on real files: `init`, the preparation, and back onto the scans' grids."""

import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from flipside.cli.check import show
from flipside.cli.profile import apply_profile
from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.core.params import value_at
from flipside.masks.placing import write_segmentation
from flipside.scans.geometry import Geometry
from flipside.scans.layouts import DatasetParams
from stages import draw_anomalies, extract_slices, split_patients
from tests.cli.test_init import init
from tests.masks.volumes_fixture import AS_IT_IS
from tests.scans.scans_fixture import DATA, EXTRACT, needs_data, write_slice

pytestmark = needs_data


def extracted(name: str, size: int, **changes) -> Extracted:
    """The data set that `init` wrote, extracted at this many pixels a side."""
    block = value_at(yaml.safe_load(Path("datasets.yaml").read_text()), f"datasets.{name}")
    folder = Path("data/extracted")
    folder.mkdir(parents=True, exist_ok=True)
    extract(name, DatasetParams.model_validate(block | changes).root, ExtractParams(**EXTRACT), size, folder)
    return Extracted.open(folder)


def placed(got: Extracted, scan_id: str) -> np.ndarray:
    """The lesion masks of a scan in a NIfTI file on the scan's own grid, as the file has them."""
    geometry = Geometry.from_json(got.scans.set_index("scan_id")["geometry"][scan_id])
    rows = got.index["scan_id"] == scan_id
    write_segmentation(Path("back.nii.gz"), got.lesion[rows], got.index["z"][rows].to_numpy(), geometry, AS_IT_IS)
    written = nib.load("back.nii.gz")
    np.testing.assert_allclose(written.affine, geometry.affine, atol=1e-4)
    return np.asanyarray(written.dataobj)


def test_a_dicom_studies_and_a_table(project, tmp_path):
    pacs = tmp_path / "pacs"
    (pacs / "studies/A1").mkdir(parents=True)
    for file in (DATA / "ircad17/dicom").iterdir():
        (pacs / "studies/A1" / file.name).symlink_to(file)
    tumours = [f"ircad17_livertumor{number}.nii.gz" for number in (1, 2)]
    for tumour in tumours:
        (pacs / tumour).symlink_to(DATA / "ircad17" / tumour)
    for z in range(3):
        write_slice(pacs / f"studies/B2/{z}", np.full((16, 16), 500, np.int16), (0, 0, 3 * z), series="1.2.9")
    (pacs / "labels.csv").write_text(f"study,abnormal,patient,lesion mask\nA1,1,p1,{';'.join(tumours)}\nB2,0,p2,\n")
    output, block = init(pacs, "--table", "labels.csv")
    assert block["path_pattern"] == "studies/{path}" and block["modality"] == "ct"
    assert "1 healthy, 1 abnormal" in output and "512 x 512 x 119" in output
    got = extracted("mine", 512)
    assert got.index.groupby("scan_id").size().to_dict() == {"A1": 119, "B2": 3}
    truth = sum(int((np.asanyarray(nib.load(DATA / "ircad17" / tumour).dataobj) > 0).sum()) for tumour in tumours)
    assert placed(got, "A1").sum() == truth > 0
    assert placed(got, "B2").sum() == 0


def test_b_four_contrasts_as_channels(project, tmp_path):
    names = ("t1c", "t1n", "t2f", "t2w", "segmentation_by_algorithm")
    (tmp_path / "brats/case_1").mkdir(parents=True)
    for name in names:
        (tmp_path / f"brats/case_1/{name}.nii.gz").symlink_to(DATA / f"brats_case/{name}.nii.gz")
    output, block = init(tmp_path / "brats")
    assert block["image"] == [f"{{case}}/{name}.nii.gz" for name in names[:4]] and block["modality"] == "mr"
    assert "4 channels" in output
    assert block["organ"] == "nonzero"  # skull-stripped
    got = extracted("mine", 240)
    assert got.images.shape[1:] == (4, 240, 240) and got.manifest["channels"] == list(names[:4])
    np.testing.assert_array_equal(placed(got, "case_1") > 0,
                                  np.asanyarray(nib.load(DATA / f"brats_case/{names[4]}.nii.gz").dataobj) > 0)


def test_c_pictures_in_folders_of_classes(project, tmp_path, monkeypatch):
    for part, kind in ((part, kind) for part in ("train", "test") for kind in ("no_tumour", "meningioma")):
        (tmp_path / "mri" / part / kind).mkdir(parents=True)
        for file in sorted((DATA / "brain_mri" / part / kind).iterdir())[5:15]:
            shutil.copy(file, tmp_path / "mri" / part / kind)
    init(tmp_path / "mri")
    apply_profile("mine")
    Path("reports").mkdir()
    monkeypatch.setattr(sys, "argv", ["stage"])
    for stage in (extract_slices, split_patients, draw_anomalies):
        stage.main()
    show(1)
    assert "contact sheet of mine" in Path("reports/contact_sheet.html").read_text().lower()
    index, scans = pd.read_csv("data/slices/index.csv"), pd.read_csv("data/extracted/scans.csv").set_index("scan_id")
    assert set(index["split"]) == {"train", "val", "test"} and set(index["label"]) == {0, 1}
    for row in index[index["split"] == "test"].itertuples():
        geometry = Geometry.from_json(scans["geometry"][row.scan_id])
        write_segmentation(Path("back.png"), np.ones((1, 64, 64), np.uint8), np.array([0]), geometry, AS_IT_IS)
        assert Image.open("back.png").size == Image.open(tmp_path / "mri" / row.source_file).size


@pytest.mark.parametrize("plane", ["sagittal", "coronal"])
def test_d_volumes_in_another_plane(project, tmp_path, plane):
    (tmp_path / "spine").mkdir()
    for name, file in (("s1_ct", "example_ct"), ("s1_seg", "example_seg_fast_force_split")):
        (tmp_path / f"spine/{name}.nii.gz").symlink_to(DATA / f"totalsegmentator/{file}.nii.gz")
    _, block = init(tmp_path / "spine")
    assert block["image"] == "{case}_ct.nii.gz" and block["modality"] == "ct"
    lesion = {"files": ["{case}_seg.nii.gz"], "values": [2, 3]}
    got = extracted("mine", 122, plane=plane, lesion=lesion)
    labels = np.asanyarray(nib.load(DATA / "totalsegmentator/example_seg_fast_force_split.nii.gz").dataobj)
    assert len(got.index) == labels.shape[0 if plane == "sagittal" else 1]
    np.testing.assert_array_equal(placed(got, "s1") > 0, np.isin(labels, (2, 3)))

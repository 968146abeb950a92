"""A folder as a PACS exports it, to slices, and a mask from the slices back onto the grid of the series."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.masks.placing import write_segmentation
from flipside.scans.geometry import Geometry
from flipside.scans.layouts import DatasetParams
from tests.masks.volumes_fixture import AS_IT_IS
from tests.scans.scans_fixture import DATA, EXTRACT, needs_data, write_slice

COUNT = 14  # slices of the real series that are exported


def export(root) -> None:
    """Two patients, three series in numbered folders: two of images, one of them spread over two folders, with a
    localizer, a report and a directory in between."""
    series = sorted((DATA / "ircad17/dicom").iterdir(), key=lambda file: int(file.name.split("_")[1]))[:COUNT]
    for number, file in enumerate(series):
        target = root / f"DICOM/ST000000/SE00000{number % 2}/IM{number:06d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    rng = np.random.default_rng(0)
    for number, height in enumerate((0.0, 3.0, 6.0)):
        write_slice(root / f"DICOM/ST000001/SE000000/IM{number:06d}", rng.integers(0, 900, (8, 6)), (0, 0, height),
                    "1.2.5")
        write_slice(root / f"DICOM/ST000001/SE000000/IN{number:06d}.DCM", rng.integers(0, 900, (8, 6)),
                    (0, 0, height), "1.2.6")
    write_slice(root / "DICOM/ST000001/SE000001/IM000000", rng.integers(0, 900, (8, 6)), (0, 0, 0), "1.2.7",
                ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(root / "DICOM/ST000001/SE000002/IM000000", rng.integers(0, 900, (8, 6)), (0, 0, 0), "1.2.8",
                Modality="SR", PixelData=None, Rows=None)
    (root / "DICOMDIR").write_bytes((DATA / "odd_dicom/dicomdirtests/DICOMDIR").read_bytes())
    (root / "README.TXT").write_text("written by the archive")


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_studies_of_an_archive_go_to_slices_and_back(tmp_path):
    export(tmp_path / "raw")
    layout = DatasetParams.model_validate({"layout": "dicom_series", "root": str(tmp_path / "raw"), "modality": "ct"})
    extract("pacs", layout.root, ExtractParams.model_validate(EXTRACT), 512, tmp_path)
    got = Extracted.open(tmp_path)
    assert got.manifest["counts"]["scans"] == 3 and got.manifest["counts"]["patients"] == 2
    assert len(got.index) == COUNT + 3 + 3
    left_out = {entry["file"]: entry["reason"] for entry in got.manifest["left_out"]}
    assert left_out == {"DICOM/ST000001/SE000001/IM000000": "is a localizer (ImageType LOCALIZER)",
                        "DICOM/ST000001/SE000002/IM000000": "holds SR, not a scan",
                        "DICOMDIR": "holds no image (Media Storage Directory Storage)"}
    text = json.dumps(got.manifest) + got.scans.to_csv() + got.index.to_csv()
    assert not any(word in text.lower() for word in ("doe", "4711", "ircad", "liver_17"))

    # The series that is spread over two folders: its slices are the files' pixels, and go back where they came from.
    name = got.index["scan_id"].value_counts().index[0]
    rows = got.index["scan_id"] == name
    assert rows.sum() == COUNT and name.startswith("DICOM_ST000000_")
    mask = (got.images[rows] > 150).astype(np.uint8)
    geometry = Geometry.from_json(got.scans.set_index("scan_id")["geometry"][name])
    write_segmentation(tmp_path / "bone.nii.gz", mask, got.index["z"][rows].to_numpy(), geometry, AS_IT_IS)
    reference = sitk.ReadImage([str(DATA / f"ircad17/dicom/image_{number}") for number in range(COUNT)])
    written = sitk.ReadImage(str(tmp_path / "bone.nii.gz"))
    assert written.GetSize() == reference.GetSize()
    np.testing.assert_allclose(written.GetOrigin(), reference.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(np.array(written.GetDirection()), reference.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(written.GetSpacing(), reference.GetSpacing(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(reference) > 150)
    assert nib.load(tmp_path / "bone.nii.gz").get_data_dtype() == np.uint8

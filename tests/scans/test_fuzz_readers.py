"""Damaged files never hang or crash the interpreter, and never pass as another image: they are refused by name.

Each test runs in a process of its own with little memory; one that hangs or crashes fails with the file's last name.
"""

import pytest

from tests.apart import run_apart
from tests.scans import mutations
from tests.scans.scans_fixture import DATA, needs_data

REAL = ["odd_dicom/MR_small_RLE.dcm", "odd_dicom/MR_small_implicit.dcm", "odd_dicom/MR_small_bigendian.dcm",
        "odd_dicom/MR_small_jp2klossless.dcm", "odd_dicom/MR_small_jpeg_ls_lossless.dcm", "odd_dicom/JPGExtended.dcm",
        "odd_dicom/image_dfl.dcm", "odd_nifti/standard.nii.gz", "odd_nifti/reoriented_anat_moved.nii"]


@pytest.mark.parametrize(("fuzz", "amount"), [
    (mutations.odd_nifti_headers, 300), (mutations.odd_dicom_tags, 300)], ids=["nifti", "dicom"])
def test_headers_that_say_anything(tmp_path, fuzz, amount):
    ended = run_apart(fuzz, tmp_path, amount)
    assert ended.status == 0, ended.output[-3000:]


def test_damaged_bytes(tmp_path):
    ended = run_apart(mutations.damage_bytes, tmp_path, [], 60)
    assert ended.status == 0, ended.output[-3000:]


@needs_data
def test_damaged_bytes_of_real_files(tmp_path):
    ended = run_apart(mutations.damage_bytes, tmp_path, [DATA / name for name in REAL], 30)
    assert ended.status == 0, ended.output[-3000:]


def test_a_hang_or_a_crash_would_be_noticed():
    with pytest.raises(TimeoutError, match="hung for 0.5 s"):
        run_apart(mutations.hang, timeout=0.5)
    assert run_apart(mutations.crash).status == -11

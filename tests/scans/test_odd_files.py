"""Every file of the odd DICOM and NIfTI collections has its line here: read right, or refused for which reason.

A file without a line fails. Values of files that are read are compared with the bytes as they stand in the file, with
Pillow's decoder, with the same image in another coding or with nibabel; `TABLE` holds what they must come to.
"""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from flipside.cohort.slicing import slice_scan
from flipside.scans.dicom import read_dicom_image, read_dicom_series
from flipside.scans.geometry import from_slices
from flipside.scans.readers import ReadError, Volume, read_nifti
from flipside.scans.scan import Scan
from tests.scans.scans_fixture import DATA, needs_data

FAULTS = Path(__file__).parents[2] / "docs/explanation/faults.md"
FOLDERS = ("odd_dicom", "odd_nifti")
NO_DICOM, COLOUR, NO_IMAGE, DAMAGED = "is not a DICOM file", "is a colour image", "holds no image", "can't be decoded"
NO_PLACE = "has no ImageOrientationPatient"  # reasons why an image is no volume
NO_SPACING = "has no PixelSpacing"
MOSAIC = "is a mosaic of many slices"


@dataclass(frozen=True)
class Right:
    """Read right: (Z,R,C), lowest, highest and mean value in the file's units; spacing (row, column, slice) and
    orientation of the volume, or for a DICOM image why it is none (`no_volume`)."""

    shape: tuple[int, int, int]
    low: float
    high: float
    mean: float
    spacing: tuple[float, float, float] = (0, 0, 0)
    orientation: str = "LPS"
    no_volume: str = ""


MR = Right((1, 64, 64), 127, 2145, 518.881, (0.3125, 0.3125, 0.8))
TABLE: dict[str, Right | str] = {
    # DICOM: codings of grey images
    "odd_dicom/CT_small.dcm": Right((1, 128, 128), -896, 1167, -119.074, (0.661468, 0.661468, 5)),
    **{f"odd_dicom/MR_small{coding}.dcm": MR for coding in (
        "", "_RLE", "_bigendian", "_expb", "_implicit", "_jp2klossless", "_jpeg_ls_lossless", "_padded")},
    "odd_dicom/693_J2KI.dcm": Right((1, 512, 512), -3995, 1812, -1034.153, (0.478516, 0.478516, 20)),
    "odd_dicom/J2K_pixelrep_mismatch.dcm": Right((1, 512, 512), -2000, 1896, -658.437, (0.431005, 0.431, 5.000062)),
    "odd_dicom/JPEG2000.dcm": Right((1, 1024, 256), -30, 245, 13.458, no_volume=NO_PLACE),
    "odd_dicom/JPGExtended.dcm": Right((1, 1024, 256), 0, 264, 14.383, no_volume=NO_PLACE),
    "odd_dicom/JPEGLSNearLossless_08.dcm": Right((1, 45, 10), 0, 255, 55.556, no_volume=NO_SPACING),
    "odd_dicom/JPEGLSNearLossless_16.dcm": Right((1, 50, 10), 0, 65535, 12014.5, no_volume=NO_SPACING),
    "odd_dicom/image_dfl.dcm": Right((1, 512, 512), 0, 255, 127.116, no_volume=NO_SPACING),
    "odd_dicom/examples_overlay.dcm": Right((1, 300, 484), 0, 1123, 191.688, (0.723140, 0.723140, 4)),
    "odd_dicom/nicom/0.dcm": Right((1, 256, 256), 0, 4095, 2047.5, no_volume=MOSAIC),
    "odd_dicom/nicom/1.dcm": Right((1, 256, 256), 0, 4095, 2047.5, no_volume=MOSAIC),
    "odd_dicom/nicom/decimal_rescale.dcm": Right((1, 96, 128), -4096, -4096, -4096, (1.125, 1.125, 5)),
    "odd_dicom/nicom/slicethickness_empty_string.dcm": Right((1, 384, 384), 0, 594, 31.374,
                                                             no_volume="is a single slice without SliceThickness"),
    # DICOM: a small archive; the folders as series stand in SERIES
    "odd_dicom/dicomdirtests/77654033/CR1/6154": Right((1, 16, 16), 1084.412, 1637.084, 1274.706, no_volume=NO_PLACE),
    "odd_dicom/dicomdirtests/77654033/CR2/6247": Right((1, 16, 16), 1723.268, 2179.496, 1932.356, no_volume=NO_PLACE),
    "odd_dicom/dicomdirtests/77654033/CR3/6278": Right((1, 16, 16), 1061.156, 1578.944, 1362.728, no_volume=NO_PLACE),
    **{f"odd_dicom/dicomdirtests/77654033/CT2/{name}": Right((1, 16, 16), *values, (0.488281, 0.488281, 1.25))
       for name, values in {"17106": (-981, 77, -618.730), "17136": (77, 1360, 547.625), "17166": (991, 1489, 1410.117),
                            "17196": (498, 1399, 892.375)}.items()},
    **{f"odd_dicom/dicomdirtests/98892001/CT2N/{name}": Right((1, 16, 16), *values, no_volume="is a localizer")
       for name, values in {"6293": (218, 292, 266.488), "6924": (65, 243, 120.648)}.items()},
    **{f"odd_dicom/dicomdirtests/98892001/CT5N/{name}": Right((1, 16, 16), *values, (0.488281, 0.488281, 2.5))
       for name, values in {"2062": (-888, 44, -354.285), "2392": (-859, 85, -188.922), "2693": (-666, 75, -42.828),
                            "3023": (-151, 50, -37.895), "3353": (-156, 44, -68.727)}.items()},
    **{f"odd_dicom/dicomdirtests/98892003/MR1/{name}": Right((16, 16, 1), *values, (1.367188, 10, 1.367188), "PIR")
       for name, values in {"15820": (224, 840, 549.727), "4919": (442, 826, 715.785),
                            "5641": (280, 800, 609.934)}.items()},
    "odd_dicom/dicomdirtests/98892003/MR2/15970": Right((16, 16, 1), 79, 358, 233.715, (1.367188, 10, 1.367188), "PIR"),
    **{f"odd_dicom/dicomdirtests/98892003/MR2/{name}": Right((1, 16, 16), *values, (1.171875, 1.171875, 10))
       for name, values in {"4981": (509, 755, 693.910), "6273": (427, 692, 631.996)}.items()},
    **{f"odd_dicom/dicomdirtests/98892003/MR2/{name}": Right((16, 1, 16), *values, (10, 1.171875, 1.171875), "LIP")
       for name, values in {"4950": (405, 742, 670.695), "6935": (429, 729, 610.859)}.items()},
    **{f"odd_dicom/dicomdirtests/98892003/MR2/{name}": Right((16, 16, 1), *values, (1.171875, 10, 1.171875), "PIR")
       for name, values in {"5011": (403, 846, 646.672), "6605": (414, 685, 583.098)}.items()},
    **{f"odd_dicom/dicomdirtests/98892003/MR700/{name}": Right((16, 1, 16), *values, (1.20003, 0.390626, 0.390633),
                                                               "LIP")
       for name, values in {"4528": (47, 333, 81.160), "4558": (55, 339, 152.059), "4588": (49, 104, 63.203)}.items()},
    **{f"odd_dicom/dicomdirtests/98892003/MR700/{name}": Right((16, 16, 1), *values, (0.390631, 1.20004, 0.390633),
                                                               "PIR")
       for name, values in {"4467": (48, 80, 61.383), "4618": (19, 81, 59.398), "4648": (0, 87, 28.215),
                            "4678": (0, 90, 29.852)}.items()},
    # DICOM: no grey image
    **{f"odd_dicom/{name}.dcm": COLOUR for name in (
        "ExplVR_BigEnd", "GDCMJ2K_TextGBR", "SC_jpeg_no_color_transform", "SC_jpeg_no_color_transform_2",
        "SC_rgb_dcmtk_+eb+cr", "SC_rgb_dcmtk_+eb+cy+n1", "SC_rgb_dcmtk_+eb+cy+n2", "SC_rgb_dcmtk_+eb+cy+np",
        "SC_rgb_dcmtk_+eb+cy+s2", "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_gdcm_KY", "SC_rgb_jls_lossy_line",
        "SC_rgb_jls_lossy_sample", "SC_rgb_jpeg", "SC_rgb_jpeg_app14_dcmd", "SC_rgb_jpeg_dcmd", "SC_rgb_jpeg_dcmtk",
        "SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_lossy_gdcm", "SC_rgb_rle", "SC_rgb_rle_16bit", "SC_rgb_rle_32bit",
        "SC_rgb_small_odd", "SC_rgb_small_odd_big_endian", "SC_rgb_small_odd_jpeg", "SC_ybr_full_422_uncompressed",
        "examples_jpeg2k", "examples_palette", "examples_rgb_color")},
    **{f"odd_dicom/SC_rgb_rle{depth}_2frame.dcm": COLOUR for depth in ("", "_16bit", "_32bit")},
    "odd_dicom/examples_ybr_color.dcm": COLOUR,
    **{f"odd_dicom/{name}.dcm": "holds SEG, not a scan" for name in ("liver_1frame", "liver_expb_1frame")},
    **{f"odd_dicom/{name}.dcm": "holds RTDOSE, not a scan" for name in (
        "badVR", "rtdose", "rtdose_1frame", "rtdose_expb", "rtdose_expb_1frame", "rtdose_rle", "rtdose_rle_1frame")},
    **{f"odd_dicom/{name}.dcm": "holds RTPLAN, not a scan" for name in ("rtplan", "rtplan_truncated")},
    **{f"odd_dicom/{name}.dcm": "holds SR, not a scan" for name in (
        "reportsi", "reportsi_with_empty_number_tags", "test-SR")},
    "odd_dicom/waveform_ecg.dcm": "holds ECG, not a scan",
    **{f"odd_dicom/{name}.dcm": NO_IMAGE for name in (
        "UN_sequence", "empty_charset_LEI", "meta_missing_tsyntax", "nested_priv_SQ", "no_meta_group_length", "priv_SQ",
        "dicomdirtests/DICOMDIR-empty")},
    **{f"odd_dicom/dicomdirtests/{name}": NO_IMAGE for name in (
        "DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-nooffset", "DICOMDIR-nopatient",
        "DICOMDIR-reordered", "TINY_ALPHA/DICOMDIR")},
    **{f"odd_dicom/dicomdirtests/TINY_ALPHA/PT000000/ST000000/SE000000/IM0000{np.base_repr(number, 36):0>2}": NO_IMAGE
       for number in range(50)},
    # DICOM: damaged, or something else
    **{f"odd_dicom/{name}.dcm": DAMAGED for name in (
        "MR_truncated", "JPEG-lossy", "JPEG2000-embedded-sequence-delimiter", "nicom/csa_slice_norm")},
    **{f"odd_dicom/{name}.dcm": NO_DICOM for name in (
        "ExplVR_BigEndNoMeta", "ExplVR_LitEndNoMeta", "no_meta", "rtstruct")},
    **{f"odd_dicom/{name}": NO_DICOM for name in (
        "LICENSE", "README.txt", "crayons.icc", "dicomdirtests/README.txt", "dicomdirtests/TINY_ALPHA/README",
        "nicom/ascconv_sample.txt", "nicom/csa2_b0.bin", "nicom/csa2_b1000.bin", "nicom/csa2_zero_len.bin.gz",
        "nicom/csa_str_1001n_items.bin", "nicom/csa_str_valid.bin", "nicom/philips_mprage.dcm.gz",
        "nicom/siemens_dwi_0.dcm.gz", "nicom/siemens_dwi_1000.dcm.gz", "rtplan.dump", "rtstruct.dump", "test1.json",
        "test_PN.json", "zipMR.gz")},
    # NIfTI
    "odd_nifti/anatomical.nii": Right((25, 41, 33), -610, 30393, 8401.066, (2, 2, 2), "LAS"),
    "odd_nifti/reoriented_anat_moved.nii": Right((22, 26, 21), 0, 21199.936, 2725.588, (4, 4, 4), "RAS"),
    "odd_nifti/standard.nii.gz": Right((7, 5, 4), 0, 255, 54.643, (3, 1, 2), "RAS"),
    "odd_nifti/resampled_anat_moved.nii": "slice 0 holds NaN or infinite values",
    "odd_nifti/example4d.nii.gz": "has shape (128, 96, 24, 2), expected three dimensions",
    "odd_nifti/example_nifti2.nii.gz": "has shape (32, 20, 12, 2), expected three dimensions",
    "odd_nifti/functional.nii": "has shape (17, 21, 3, 20), expected three dimensions",
    **{f"odd_nifti/{name}": DAMAGED for name in ("nifti1.hdr", "nifti2.hdr", "COPYING", "README.rst")},
    "odd_nifti/analyze.hdr": "is Spm2AnalyzeImage, not a NIfTI volume",
    "odd_nifti/row_major.dconn.nii": "is Cifti2Image, not a NIfTI volume",
}
SERIES: dict[str, Right | str] = {  # folders of odd_dicom/dicomdirtests, each as one series
    "77654033/CT2": "gap in the series: 202.500 mm to the next slice, elsewhere 1.250 mm",
    "98892001/CT2N": "is a localizer",
    "98892001/CT5N": Right((5, 16, 16), -888, 85, -138.531, (0.488281, 0.488281, 2.5)),
    "98892003/MR1": "of several series",
    "98892003/MR2": "of several series",
    "98892003/MR700": "of several orientations",
}
RIGHT = {name: line for name, line in TABLE.items() if isinstance(line, Right)}


def whole(volume: Volume) -> np.ndarray:
    """All slices in the scan's units, (Z,R,C)."""
    return np.stack([volume.slice(z) for z in range(len(volume.stored))])


def taken(volume: Volume, file: Path) -> Volume:
    """The volume, if the extraction takes it: that refuses what a reader can't see before it has read every slice."""
    slice_scan(Scan("scan", "patient", str(file), (volume,), (1.0, 1.0, 1.0)), "other", 8, 10)
    return volume


def check(volume: Volume, line: Right) -> None:
    values = whole(volume)
    assert values.shape == line.shape
    assert (values.min(), values.max(), values.mean()) == pytest.approx((line.low, line.high, line.mean), abs=1e-3)
    if not volume.geometry.is_image:
        assert volume.geometry.slice_spacing_mm == pytest.approx(line.spacing, abs=2e-5)
        assert volume.geometry.orientation == line.orientation


@needs_data
def test_every_file_has_its_line():
    there = {path.relative_to(DATA).as_posix() for name in FOLDERS for path in (DATA / name).rglob("*")
             if path.is_file()}
    assert set(TABLE) == there


@needs_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("odd_dicom")])
def test_dicom_file(name):
    line, path = TABLE[name], DATA / name
    if isinstance(line, str):
        for read in (lambda: read_dicom_image(path), lambda: read_dicom_series([path])):
            with pytest.raises(ReadError) as caught:
                read()
            assert line in caught.value.reason or DAMAGED == line and (
                "has no" in caught.value.reason or MOSAIC in caught.value.reason)
            assert caught.value.file == str(path) and caught.value.remedy
        return
    image, _ = read_dicom_image(path)
    rows_columns = [length for length in line.shape if length > 1]  # of a sagittal file, not its slices
    check(taken(image, path), Right((1, *rows_columns), line.low, line.high, line.mean))
    if line.no_volume:
        with pytest.raises(ReadError) as caught:
            read_dicom_series([path])
        assert line.no_volume in caught.value.reason
    else:
        check(read_dicom_series([path])[0], line)
    stored = by_hand(path)
    if stored is not None:
        shown = stored != -2000 if path.name == "693_J2KI.dcm" else np.ones_like(stored, bool)  # its PixelPaddingValue
        expected = np.where(shown, stored, stored[shown].min()) * image.slope + image.intercept
        np.testing.assert_allclose(image.slice(0), expected.astype(np.float32), rtol=1e-6)


def by_hand(path: Path) -> np.ndarray | None:
    """Stored values (R,C) without pydicom's decoders: straight from the bytes, or JPEG 2000 through Pillow; of MR_small
    in other codings those of the plain file. None where there is no second opinion."""
    if path.name.startswith("MR_small_"):
        return by_hand(path.with_name("MR_small.dcm"))
    dataset = pydicom.dcmread(path)
    syntax, shape = dataset.file_meta.TransferSyntaxUID, (dataset.Rows, dataset.Columns)
    if not syntax.is_compressed:
        kind = f"{'<' if syntax.is_little_endian else '>'}{'ui'[dataset.PixelRepresentation]}"
        size = dataset.BitsAllocated // 8
        stored = np.frombuffer(dataset.PixelData, f"{kind}{size}", shape[0] * shape[1]).reshape(shape).astype(int)
        return 2 ** dataset.BitsStored - 1 - stored if dataset.PhotometricInterpretation == "MONOCHROME1" else stored
    if path.name in ("693_J2KI.dcm", "JPEG2000.dcm"):  # Pillow shows signed samples from the middle of 16 bits on
        return np.asarray(Image.open(io.BytesIO(next(generate_frames(dataset.PixelData))))).astype(int) - 2**15
    return None


@needs_data
@pytest.mark.filterwarnings("ignore")
def test_most_values_have_a_second_opinion():
    assert len([name for name in RIGHT if "dicom" in name and by_hand(DATA / name) is not None]) >= 40


@needs_data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", SERIES)
def test_dicom_folder_as_a_series(folder):
    files, line = sorted((DATA / "odd_dicom/dicomdirtests" / folder).iterdir()), SERIES[folder]
    if isinstance(line, Right):
        volume, _ = read_dicom_series(files)
        check(taken(volume, files[0]), line)
        heights = {float(pydicom.dcmread(file).ImagePositionPatient[2]): by_hand(file) for file in files}
        expected = np.stack([heights[height] for height in sorted(heights)]) - 1024  # lowest first
        np.testing.assert_array_equal(whole(volume), expected)
        return
    with pytest.raises(ReadError) as caught:
        read_dicom_series(files)
    assert line in caught.value.reason


@needs_data
@pytest.mark.parametrize("name", [name for name in TABLE if name.startswith("odd_nifti")])
def test_nifti_file(name):
    line, path = TABLE[name], DATA / name
    if isinstance(line, str):
        with pytest.raises(ReadError) as caught:
            taken(read_nifti(path), path)
        assert line in caught.value.reason and caught.value.file == str(path) and caught.value.remedy
        return
    volume = taken(read_nifti(path), path)
    check(volume, line)
    np.testing.assert_allclose(from_slices(whole(volume), volume.geometry), nib.load(path).get_fdata(), rtol=1e-6)


def test_the_page_on_faults_counts_these_files():
    text = " ".join(FAULTS.read_text().split())
    for folder, kind in (("odd_dicom", "DICOM"), ("odd_nifti", "NIfTI")):
        lines = Counter(name in RIGHT for name in TABLE if name.startswith(folder))
        assert f"{lines.total()} odd {kind} files: {lines[True]} read right, {lines[False]} refused" in text
    lines = Counter(isinstance(line, Right) for line in SERIES.values())
    assert f"{lines.total()} odd series: {lines[True]} read right, {lines[False]} refused" in text

"""Every file is read right or refused with its name, the reason and a remedy."""

import gzip
import pickle

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from flipside.scans.dicom import read_dicom_image, read_dicom_series
from flipside.scans.geometry import Geometry, from_slices, grids_agree
from flipside.scans.pictures import read_image, read_image_labels
from flipside.scans.readers import ReadError, read_nifti, read_nifti_labels
from tests.scans.scans_fixture import DATA, needs_data, write_nifti, write_series, write_slice

AFFINE = np.diag([-0.8, -0.9, 3.0, 1.0])


@needs_data
def test_a_real_series_lies_on_the_grid_of_its_nifti_masks():
    volume, _ = read_dicom_series(sorted((DATA / "ircad17/dicom").iterdir()))
    for name in ("ircad17_liver", "ircad17_livertumor1", "ircad17_livertumor2"):
        mask = read_nifti(DATA / f"ircad17/{name}.nii.gz")
        assert mask.geometry.canonical_shape == volume.geometry.canonical_shape == (512, 512, 119)
        np.testing.assert_allclose(mask.geometry.canonical_affine, volume.geometry.canonical_affine, atol=1e-4)
        assert grids_agree(mask.geometry, volume.geometry)
    liver = read_nifti(DATA / "ircad17/ircad17_liver.nii.gz").stored > 0
    inside = np.concatenate([volume.slice(z)[liver[z]] for z in range(20, 100, 10)])
    assert 60 < np.median(inside) < 180 and inside.std() < 60  # enhanced liver tissue, not air, fat or bone


@pytest.mark.parametrize("dtype", ["i2", "f4", "u1"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_values_and_places(tmp_path, dtype, suffix):
    array = np.arange(60).reshape(3, 4, 5).astype(dtype)
    volume = read_nifti(write_nifti(tmp_path / f"a{suffix}", array, AFFINE))
    assert volume.stored.dtype == np.dtype(dtype) and volume.slice(2).dtype == np.float32
    # LPS: the first voxel is the patient's right front, which is shown top left.
    np.testing.assert_array_equal(volume.slice(2), array[:, :, 2].T)
    assert volume.geometry.slice_spacing_mm == pytest.approx((0.9, 0.8, 3.0))


def test_an_error_of_a_worker_reaches_the_stage_as_it_is():
    error = pickle.loads(pickle.dumps(ReadError("a.nii", "is torn", "Get it again")))
    assert str(error) == "a.nii: is torn. Get it again" and (error.file, error.reason) == ("a.nii", "is torn")


def test_scaled_integers_get_their_units(tmp_path):
    image = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), AFFINE)
    image.header.set_slope_inter(0.5, -1024)
    image.dataobj[...] = 100  # stored
    path = tmp_path / "scaled.nii"
    with open(path, "wb") as file:
        image.header["magic"], image.header["vox_offset"] = b"n+1", 352
        image.header["sform_code"] = 1
        image.header.set_sform(AFFINE, code=1)
        file.write(image.header.binaryblock + b"\0" * 4 + image.dataobj.tobytes(order="F"))
    volume = read_nifti(path)
    assert volume.stored.dtype == np.int16 and (volume.slice(0) == -974).all()


def test_an_orientation_with_scattered_slices_is_gathered(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(5, 3, 4)
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)  # stored as SRA
    volume = read_nifti(write_nifti(tmp_path / "a.nii", array, affine))
    np.testing.assert_array_equal(volume.slice(2), array[2, ::-1, ::-1].T)
    np.testing.assert_array_equal(from_slices(volume.stored, volume.geometry), array)


def bad_nifti(tmp_path, kind):
    path = write_nifti(tmp_path / "bad.nii.gz", np.ones((20, 20, 20), np.int16), AFFINE)
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-20])
        case "short data":
            path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
        case "text":
            path.write_text("this is no scan")
        case "no orientation":
            image = nib.Nifti1Image(np.ones((2, 2, 2), np.int16), None)
            nib.save(image, path)
        case "colour":
            rgb = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
            write_nifti(path, rgb, AFFINE)
        case "metres":
            image = nib.Nifti1Image(np.ones((2, 2, 2), np.int16), AFFINE)
            image.header.set_xyzt_units("meter")
            nib.save(image, path)
        case "missing":
            path.unlink()
    return path


@pytest.mark.parametrize(("kind", "reason"), [
    ("empty", "can't be decoded"), ("truncated", "can't be decoded"), ("short data", "can't be decoded"),
    ("text", "can't be decoded"), ("missing", "can't be decoded"), ("no orientation", "no orientation"),
    ("colour", "colour"), ("metres", "measures in meter"),
])
def test_bad_nifti_is_refused(tmp_path, kind, reason):
    path = bad_nifti(tmp_path, kind)
    with pytest.raises(ReadError, match=reason) as caught:
        read_nifti(path)
    assert caught.value.file == str(path) and caught.value.remedy


def test_labels_must_lie_on_the_image_grid(tmp_path):
    geometry = Geometry.of_volume((4, 4, 3), AFFINE)
    for shape, affine in (((4, 4, 2), AFFINE), ((4, 4, 3), AFFINE + np.diag([0, 0, 0.5, 0]))):
        path = write_nifti(tmp_path / "labels.nii.gz", np.zeros(shape, np.uint8), affine)
        with pytest.raises(ReadError, match=r"labels of shape \(4, 4, \d\).*affine.*shape \(4, 4, 3\) with affine"):
            read_nifti_labels(path, geometry, "image.nii.gz")


def test_labels_stored_in_another_orientation_are_turned(tmp_path):
    labels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    turned = nib.Nifti1Image(labels, AFFINE).as_reoriented([[2, 1], [0, -1], [1, 1]])
    path = write_nifti(tmp_path / "labels.nii.gz", np.asanyarray(turned.dataobj), turned.affine)
    read = read_nifti_labels(path, Geometry.of_volume((4, 4, 3), AFFINE), "image")
    np.testing.assert_array_equal(read, read_nifti(write_nifti(tmp_path / "plain.nii", labels, AFFINE)).stored)


def test_labels_as_floats_are_whole_numbers_or_refused(tmp_path):
    geometry = Geometry.of_volume((2, 2, 2), AFFINE)
    whole = write_nifti(tmp_path / "whole.nii", np.full((2, 2, 2), 2.0), AFFINE)
    assert (read_nifti_labels(whole, geometry, "image") == 2).all()
    blurred = write_nifti(tmp_path / "blurred.nii", np.full((2, 2, 2), 0.5), AFFINE)
    with pytest.raises(ReadError, match="fractions"):
        read_nifti_labels(blurred, geometry, "image")


def test_series_is_sorted_scaled_and_placed(tmp_path):
    pixels = write_series(tmp_path)
    volume, header = read_dicom_series(sorted(tmp_path.iterdir()))
    assert volume.stored.dtype == np.int16 and header.patient == "HOSP-4711"
    for k in range(4):
        np.testing.assert_array_equal(volume.slice(k), pixels[k] * 2.0 - 1000)
    # LPS (10, 20, -30) is RAS (-10, -20, -30); columns are 0.75 mm apart and run to the left, rows 0.5 mm to the back.
    expected = [[-0.75, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, -30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.geometry.affine, expected)
    assert volume.geometry.shape == (6, 8, 4) and volume.geometry.orientation == "LPS"


def test_oblique_series_keeps_its_tilt(tmp_path):
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(0.3), np.sin(0.3)])
    normal = np.cross(row, column)
    for k in range(3):
        write_slice(tmp_path / str(k), np.full((4, 4), k), tuple(5 + normal * 2 * (2 - k)),
                    ImageOrientationPatient=[*row, *column])
    volume, _ = read_dicom_series(sorted(tmp_path.iterdir()))
    np.testing.assert_allclose(volume.geometry.affine[:3, 2], np.array([-1, -1, 1]) * normal * 2, atol=1e-6)
    assert volume.slice(0)[0, 0] == 2 * 2 - 1000


def test_slices_scaled_one_by_one_get_one_unit(tmp_path):
    for k, slope in enumerate((1, 3)):
        write_slice(tmp_path / str(k), np.full((4, 4), 10), (0, 0, k), RescaleSlope=slope, RescaleIntercept=k)
    volume, _ = read_dicom_series(sorted(tmp_path.iterdir()))
    assert volume.slice(0).max() == 10 and volume.slice(1).max() == 31


def test_monochrome1_is_shown_the_right_way(tmp_path):
    pixels = np.array([[0, 4095], [100, 1000]])
    path = write_slice(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11,
                       PixelRepresentation=0, RescaleSlope=1, RescaleIntercept=0, Modality="MG")
    np.testing.assert_array_equal(read_dicom_image(path)[0].slice(0), 4095 - pixels)


def test_monochrome1_leaves_hounsfield_units_alone(tmp_path):
    for k in range(2):
        write_slice(tmp_path / str(k), np.array([[0, 500], [100, 1000]]), (0, 0, k),
                    PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_dicom_series(sorted(tmp_path.iterdir()))[0].slice(0), [[-1000, 0], [-800, 1000]])


@pytest.mark.parametrize(("changes", "reason"), [
    ({"PixelSpacing": None}, "has no PixelSpacing"),
    ({"PixelSpacing": [0, 0]}, "pixel spacing"),
    ({"ImageOrientationPatient": None}, "has no ImageOrientationPatient"),
    ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
    ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
    ({"series": "9.9.9"}, "several series"),
    ({"PixelSpacing": [1, 1]}, "several pixel spacings"),
    ({"NumberOfFrames": 2}, "2 frames"),
    ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colour"),
    ({"PixelData": b"\0\0"}, "can't be decoded"),
    ({"PixelData": None}, "can't be decoded"),
    ({"position": (10.0, 20.0, -21.0)}, "same position"),
    ({"position": (10.0, 20.0, 0.0)}, "gap in the series: 21.000 mm"),
    ({"position": (15.0, 20.0, -18.0)}, "off the series' line"),
])
def test_bad_series_are_refused(tmp_path, changes, reason):
    write_series(tmp_path)
    changes = {"position": (10.0, 20.0, -18.0)} | changes
    bad = write_slice(tmp_path / "the_fifth", np.zeros((8, 6)), **changes)
    with pytest.raises(ReadError, match=reason) as caught:
        read_dicom_series(sorted(tmp_path.iterdir()))
    assert caught.value.remedy and str(bad.parent) in caught.value.file
    assert "Doe" not in str(caught.value) and "4711" not in str(caught.value)


def test_a_slice_of_another_size_is_refused(tmp_path):
    write_series(tmp_path)
    write_slice(tmp_path / "z", np.zeros((4, 4)), (10.0, 20.0, -18.0))
    with pytest.raises(ReadError, match="several sizes"):
        read_dicom_series(sorted(tmp_path.iterdir()))


def test_pictures_of_every_depth(tmp_path):
    deep = np.array([[0, 4095], [65535, 7]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png").slice(0), deep)
    grey = np.array([[0, 200], [255, 7]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([grey] * 3 + [np.full_like(grey, 255)], -1)).save(tmp_path / "rgba.png")
    for name in ("grey", "rgb", "rgba"):
        np.testing.assert_array_equal(read_image(tmp_path / f"{name}.png").slice(0), grey)
    Image.fromarray(np.array([[[255, 0, 0]]], np.uint8)).save(tmp_path / "red.png")
    assert read_image(tmp_path / "red.png").slice(0) == 76  # 0.299 * 255


def test_bad_pictures_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "glass.png")
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    frames[0].save(tmp_path / "film.tiff", save_all=True, append_images=frames[1:])
    for name, reason in {"cut.png": "decoded", "empty.png": "decoded", "text.png": "decoded", "none.png": "decoded",
                         "glass.png": "transparent", "film.tiff": "2 frames"}.items():
        with pytest.raises(ReadError, match=reason):
            read_image(tmp_path / name)


def test_mask_pictures(tmp_path):
    geometry = Geometry.of_image(2, 3)
    colours = np.array([[[255, 255, 0], [250, 240, 10], [255, 0, 255]], [[0, 0, 0], [255, 255, 255], [255, 100, 0]]])
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "c.png")
    yellow = [((200, 255), (200, 255), (0, 60))]
    read = read_image_labels(tmp_path / "c.png", geometry, "image", yellow)
    np.testing.assert_array_equal(read, [[[1, 1, 0], [0, 0, 0]]])
    with pytest.raises(ReadError, match="colour mask"):
        read_image_labels(tmp_path / "c.png", geometry, "image", None)
    with pytest.raises(ReadError, match="2x3 pixels.*20x30"):
        read_image_labels(tmp_path / "c.png", Geometry.of_image(20, 30), "image", yellow)


@needs_data
def test_real_pictures_keep_their_depth():
    volume = read_image(DATA / "gmic/images/0_L-CC.png")
    assert volume.stored.dtype == np.uint16 and volume.stored.max() == 4095 and volume.stored.shape == (1, 2023, 801)
    with pytest.raises(ReadError, match="2944x1920.*2144x801"):
        read_image_labels(DATA / "gmic/segmentation/0_R-CC_benign.png", Geometry.of_image(2144, 801), "image", None)


def test_pixels_that_are_not_square_need_a_spacing(tmp_path):
    pixels = np.arange(80, dtype=np.int16).reshape(8, 10)
    bare = {"Modality": "US", "PixelSpacing": None, "ImageOrientationPatient": None, "ImagePositionPatient": None}
    read_dicom_image(write_slice(tmp_path / "square.dcm", pixels, PixelAspectRatio=[1, 1], **bare))
    with pytest.raises(ReadError, match="pixels of 2 to 1 .PixelAspectRatio. and no PixelSpacing.*square pixels"):
        read_dicom_image(write_slice(tmp_path / "tall.dcm", pixels, PixelAspectRatio=[2, 1], **bare))

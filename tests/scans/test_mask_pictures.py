"""Mask pictures: their values as stored, their colours as shown, never scaled, blurred or mixed up with the images."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from flipside.scans.geometry import Geometry
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import DatasetParams
from flipside.scans.pictures import read_image_labels
from flipside.scans.readers import ReadError
from tests.scans.test_pictures import write_png

LABELS = np.array([[0, 1, 1, 0, 0], [0, 2, 3, 0, 1], [3, 0, 0, 0, 0]])  # (R,C)
GRID = Geometry.of_image(*LABELS.shape)


def read(path, colours=None):
    return read_image_labels(path, GRID, "image", colours)[0]


def layout(root, **keys):
    return DatasetParams.model_validate({"root": str(root), **keys}).root


def picture(path, value=7, side=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side), value, np.uint8)).save(path)


@pytest.mark.parametrize(("bits", "channels"), [(2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)])
def test_labels_in_png_of_any_depth_are_their_values(tmp_path, bits, channels):
    write_png(tmp_path / "m.png", LABELS if channels == 1 else np.repeat(LABELS[..., None], 3, -1), bits)
    np.testing.assert_array_equal(read(tmp_path / "m.png"), LABELS)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_labels_in_tiff_of_any_depth_are_their_values(tmp_path, dtype, compression):
    tifffile.imwrite(tmp_path / "m.tif", LABELS.astype(dtype), compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "m.tif"), LABELS)


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax_codings_lose_nothing(tmp_path, compression):
    Image.fromarray(LABELS > 0).save(tmp_path / "m.tif", compression=compression)
    np.testing.assert_array_equal(read(tmp_path / "m.tif") != 0, LABELS > 0)


def test_two_values_whichever_way_they_are_stored(tmp_path):
    """One bit, white at zero, palettes of black and white in both orders: white is the structure."""
    mask = LABELS > 0
    Image.fromarray(mask).save(tmp_path / "bit.png")
    write_png(tmp_path / "forth.png", mask.astype(int), 1, palette=[(0, 0, 0), (255, 255, 255)])
    write_png(tmp_path / "back.png", (~mask).astype(int), 1, palette=[(255, 255, 255), (0, 0, 0)])
    tifffile.imwrite(tmp_path / "bit.tif", mask, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", ~mask, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "white8.tif", np.where(mask, 0, 255).astype(np.uint8), photometric="miniswhite")
    for name in ("bit.png", "forth.png", "back.png", "bit.tif", "white.tif", "white8.tif"):
        np.testing.assert_array_equal(read(tmp_path / name) != 0, mask, err_msg=name)


def test_a_coloured_palette_counts_by_its_colours(tmp_path):
    write_png(tmp_path / "m.png", LABELS, 8, palette=[(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)])
    with pytest.raises(ReadError, match=r"colour mask \(for example \[128, 0, 0\]\), but `values` are grey.*`colours`"):
        read(tmp_path / "m.png")
    np.testing.assert_array_equal(read(tmp_path / "m.png", [((128, 128), (0, 0), (0, 0))]), LABELS == 1)


def test_masks_that_say_something_elsewhere_are_refused(tmp_path):
    grey = LABELS.astype(np.uint8)
    Image.fromarray(grey * 80).save(tmp_path / "m.jpg")
    Image.fromarray(grey * 80).save(tmp_path / "m.webp")
    tifffile.imwrite(tmp_path / "jpeg.tif", np.zeros((16, 16), np.uint8), compression="jpeg")
    Image.fromarray(np.stack([grey * 0] * 3 + [grey * 80], -1)).save(tmp_path / "alpha.png")
    tifffile.imwrite(tmp_path / "half.tif", grey / 2)
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((*grey.shape, 3), np.uint16), photometric="rgb")
    for name, colours, reason in (
            ("m.jpg", None, "mask in JPEG, which blurs.*PNG"), ("m.webp", None, "mask in WebP"),
            ("jpeg.tif", None, "mask in JPEG"), ("alpha.png", None, "partly transparent"),
            ("half.tif", None, "fractions"), ("deep.tif", [((0, 9), (0, 9), (0, 9))], "16 bits per channel")):
        with pytest.raises(ReadError, match=f"{name}: .*{reason}"):
            read(tmp_path / name, colours)


def test_several_masks_of_a_picture_are_joined_where_the_block_says_so(tmp_path):
    """As BUSI has them, masks beside the images, which are then no images."""
    images = {"benign (1)", "benign (2)", "benign [x] 3"}
    for name in images:
        picture(tmp_path / f"{name}.png")
        picture(tmp_path / f"{name}_mask.png", 0)
    mask = np.zeros((4, 4), np.uint8)
    for row, name in enumerate(("benign (1)_mask.png", "benign (1)_mask_1.png")):
        mask[:] = 0
        mask[row, :2] = 255
        Image.fromarray(mask).save(tmp_path / name)
    block = {"layout": "image_mask", "image": "{case}.png", "lesion": {
        "files": ["{case}_mask*.png"], "values": [255], "several": True}}
    found = layout(tmp_path, **block).find_scans("x")
    assert {scan.name for scan in found} == images
    lesions = {scan.name: layout(tmp_path, **block).read_scan(scan, "").lesion.slice(0).sum() for scan in found}
    assert lesions == {"benign (1)": 4, "benign (2)": 0, "benign [x] 3": 0}
    block["lesion"] |= {"several": False}
    with pytest.raises(ReadError, match="2 label files match.*expected one.*several: true"):
        layout(tmp_path, **block).read_scan(found[0], "")


def test_masks_among_the_images_of_classes_are_named(tmp_path):
    for name in ("healthy/1", "ill/2", "ill/2_mask", "ill/3", "ill/3-GT"):
        picture(tmp_path / f"{name}.png")
    block = {"layout": "class_folders", "image": "{class}/{case}.png", "classes": {"healthy": 0, "ill": 1}}
    with pytest.raises(DatasetError, match="2 of 5 files .* seem to be masks, not images: ill/2_mask.png beside ill/2.p"
                                           ".*datasets.x.leave_out"):
        layout(tmp_path, **block).find_scans("x")
    found = layout(tmp_path, **block, leave_out=["{class}/{case}_mask.png", "*/*-GT.png"]).find_scans("x")
    assert [scan.name for scan in found] == ["healthy_1", "ill_2", "ill_3"]


def test_capitals_in_an_ending_match_and_other_endings_are_named(tmp_path, capsys):
    for name in ("1.png", "2.PNG", "3.jpeg", "1.jpg", "notes.txt"):
        picture(tmp_path / name) if name != "notes.txt" else (tmp_path / name).touch()
    block = {"layout": "image_mask", "image": "{case}.png"}
    assert [scan.name for scan in layout(tmp_path, **block).find_scans("x")] == ["1", "2"]
    assert "1 files match but for their ending, the first is 3.jpeg" in capsys.readouterr().out
    with pytest.raises(DatasetError, match=r"nothing that matches '\{case\}.bmp' \(4 files match but for their ending"):
        layout(tmp_path, layout="image_mask", image="{case}.bmp").find_scans("x")


def test_names_in_another_unicode_form_are_one_name(tmp_path):
    composed, decomposed = "M\u00fcller", "Mu\u0308ller"
    picture(tmp_path / f"images/{decomposed}_1.png")
    picture(tmp_path / f"images/{composed}_2.png")
    picture(tmp_path / "images/b_1.png")
    for name in (f"{composed}_1", f"{decomposed}_2", "b_1"):
        picture(tmp_path / f"masks/{name}.png", 1)
    block = layout(tmp_path, layout="image_mask", image="images/{case}.png", patient="^(.*)_",
                   lesion={"files": ["masks/{case}.png"], "values": [1]})
    scans = [block.read_scan(found, "") for found in block.find_scans("x")]
    assert sorted((scan.scan_id, scan.patient_id) for scan in scans) == [
        ("M\u00fcller_1", "M\u00fcller"), ("M\u00fcller_2", "M\u00fcller"), ("b_1", "b")]
    assert all(scan.lesion.slice(0).all() for scan in scans)


@pytest.mark.parametrize(("names", "message"), [
    (["x_1", "x_2", "x_3"], "datasets.x.patient gives one patient for all 3 scans"),
    (["123_1", "123.0_2", "5_1"], "123.0 and 123 are most likely one patient")])
def test_patients_that_are_no_patients_are_named(tmp_path, names, message):
    for name in names:
        picture(tmp_path / f"{name}.png")
    with pytest.raises(DatasetError, match=message):
        layout(tmp_path, layout="image_mask", image="{case}.png", patient="^(.*)_").find_scans("x")

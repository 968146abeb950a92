"""Maps from files land where the scan's own voxels land."""

import nibabel
import numpy as np
import pandas as pd
import pydantic
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from flipside.cohort.slicing import slice_scan
from flipside.methods.foreign.reading import ForeignMapError, ForeignMaps, ForeignMapsParams, read_maps
from flipside.scans.geometry import Geometry
from flipside.scans.labels import Mask
from flipside.scans.readers import ReadError, read_nifti
from flipside.scans.scan import Scan

SIDES = (16, 16)
# Axes swapped and flipped, oblique, slices of another spacing, rows and columns of unlike number.
OBLIQUE = np.array([[0.1, -1.2, 0.3, 40], [-0.9, 0.1, 0.2, -15], [0, -0.3, -2.9, 70], [0, 0, 0, 1]], float)
SHAPE = (20, 30, 5)


def volume(file, voxels, affine=OBLIQUE):
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    return file


def stored_otherwise(file, voxels, affine, codes):
    """The same voxels in space, written in another orientation."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = nibabel.orientations.apply_orientation(voxels, turn)
    return volume(file, np.ascontiguousarray(turned), affine @ inv_ornt_aff(turn, voxels.shape))


def index(scan_id, z, draw=0):
    return pd.DataFrame({"scan_id": scan_id, "slice_id": [f"{scan_id}_z{number:04d}" for number in z], "z": z,
                         "draw": draw})


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "mine"
    path.mkdir()
    return path


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
@pytest.mark.parametrize("codes", [None, "RAS", "PIR"])
def test_an_oblique_flipped_volume_lands_on_the_voxels_of_an_extracted_image(tmp_path, folder, plane, codes):
    voxels = np.random.default_rng(0).random(SHAPE, np.float32)
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[3:9, 8:20, 1:4] = 1
    image = read_nifti(volume(tmp_path / "scan.nii.gz", voxels))
    mask = read_nifti(volume(tmp_path / "lesion.nii.gz", lesion))
    scan = Scan("case/1", "p", "scan.nii.gz", (image,), image.geometry.slice_spacing_mm,
                lesion=Mask(((mask.stored, None),))).in_plane(plane)
    slices = slice_scan(scan, "other", SIDES[0], 10)
    rows = pd.DataFrame(slices.index)[["scan_id", "slice_id", "z"]].assign(draw=0).iloc[::-1]
    geometries = {"case/1": Geometry.from_json(slices.scan["geometry"])}
    for file, written in (("case_1_map.nii.gz", voxels), ("case_1_mask.nii.gz", lesion)):
        if codes is None:
            volume(folder / file, written)
        else:
            stored_otherwise(folder / file, written, OBLIQUE, codes)
    box = geometries["case/1"].content_box(SIDES)
    found = read_maps(folder, ForeignMaps(pattern="{case}_map.nii.gz", values="probability"), rows, geometries, SIDES)
    assert found.dtype == np.float16 and found.shape == (len(rows), *SIDES)
    np.testing.assert_allclose(found[::-1][:, box[0], box[1]], slices.images[:, 0][:, box[0], box[1]]
                               if slices.images.ndim == 4 else slices.images[:, box[0], box[1]], atol=1e-3)
    outside = np.ones(SIDES, bool)
    outside[box] = False
    assert outside.any() and not found[:, outside].any()
    masks = read_maps(folder, ForeignMaps(pattern="{case}_mask.nii.gz", values="mask"), rows, geometries, SIDES)
    assert slices.lesion.any()
    np.testing.assert_array_equal(masks[::-1], slices.lesion)
    scaled = read_maps(folder, ForeignMaps(pattern="{case}_map.nii.gz", values="any"), rows, geometries, SIDES)
    assert (scaled.max(axis=(1, 2)) == 1).all() and (scaled.min(axis=(1, 2)) == 0).all()
    one, other = scaled[0][box].astype(float).ravel(), found[0][box].astype(float).ravel()
    assert np.corrcoef(one, other)[0, 1] > 0.9999


def test_a_volume_on_another_grid_is_refused_with_both(folder):
    geometry = Geometry.of_volume(SHAPE, OBLIQUE)
    moved = OBLIQUE.copy()
    moved[0, 3] += 1
    volume(folder / "a.nii.gz", np.zeros(SHAPE, np.float32), moved)
    with pytest.raises(ReadError, match=r"a\.nii\.gz: has shape .*41\.0.*its scan has .*40\.0.*Resample"):
        read_maps(folder, ForeignMaps(pattern="{case}.nii.gz", values="any"), index("a", [0]), {"a": geometry}, SIDES)


@pytest.mark.parametrize(("values", "dtype", "top"), [("probability", np.uint8, 255), ("probability", np.uint16, 65535),
                                                      ("any", np.uint8, 200), ("mask", np.uint8, 1)])
def test_pictures_in_their_own_size_and_in_the_stores(folder, values, dtype, top):
    picture = np.zeros((32, 64), dtype)
    picture[8:16, 16:32] = top
    Image.fromarray(picture).save(folder / "p_1.png")
    small = np.zeros(SIDES, dtype)
    small[6:8, 4:8] = top  # the same place: the picture is as wide as the slice, with padding above and below
    Image.fromarray(small).save(folder / "p_2.png")
    rows = pd.DataFrame({"scan_id": ["p:1", "p:2"], "slice_id": ["p:1", "p:2"], "z": 0, "draw": 0})
    geometries = dict.fromkeys(["p:1", "p:2"], Geometry.of_image(32, 64))
    native, stored = read_maps(folder, ForeignMaps(pattern="{slice}.png", values=values), rows, geometries, SIDES)
    assert stored[6:8, 4:8].min() == 1 and stored.sum() == 8
    if values == "mask":
        np.testing.assert_array_equal(native, stored)
    else:  # a border of one pixel is mixed
        assert native[6, 5] > 0.5 and not native[:5].any() and not native[9:].any()


def test_slices_of_a_volume_by_picture(folder):
    geometry = Geometry.of_volume((16, 16, 3), np.diag([-1.0, -1, 2, 1]))
    for z in (0, 2):
        Image.fromarray(np.eye(16, dtype=np.uint8) * np.uint8(z + 1)).save(folder / f"a_z{z:04d}.png")
    found = read_maps(folder, ForeignMaps(pattern="{slice}.png", values="mask"), index("a", [2, 0]), {"a": geometry},
                      SIDES)
    np.testing.assert_array_equal(found, np.stack([np.eye(16)] * 2))
    (folder / "a_z0000.png").rename(folder / "a.png")
    with pytest.raises(ReadError, match=r"a\.png: is a picture, but its case is a volume of 3 slices"):
        read_maps(folder, ForeignMaps(pattern="{case}.png", values="mask"), index("a", [0]), {"a": geometry}, SIDES)


def test_missing_files_are_named_with_those_there_are(folder):
    (folder / "other.nii.gz").touch()
    rows = pd.concat([index(f"case{n}", [1, 2]) for n in range(7)])
    with pytest.raises(ForeignMapError, match=r"lacks 7 of 7 files: case0\.nii\.gz, .*case4\.nii\.gz and 2 more\. .*"
                                              r"Other files there: other\.nii\.gz"):
        read_maps(folder, ForeignMaps(pattern="{case}.nii.gz", values="any"), rows, {}, SIDES)
    with pytest.raises(ForeignMapError, match="nowhere not found"):
        read_maps(folder / "nowhere", ForeignMaps(pattern="{case}.nii.gz", values="any"), rows, {}, SIDES)


def test_a_file_for_two_scans_or_two_draws_is_refused(folder):
    params = ForeignMaps(pattern="{case}.nii.gz", values="any")
    with pytest.raises(ForeignMapError, match=r"a_1\.nii\.gz would be the file of the scans a:1 and a/1"):
        read_maps(folder, params, pd.concat([index("a:1", [0]), index("a/1", [0])]), {}, SIDES)
    with pytest.raises(ForeignMapError, match=r"other draws of the same slice: name one file per slice with \{slice\}"):
        read_maps(folder, params, pd.concat([index("a", [0]), index("a", [0], draw=1)]), {}, SIDES)


@pytest.mark.parametrize(("values", "pixels", "message"), [
    ("any", np.full((16, 16, 3), np.nan, np.float32), "NaN or infinite"),
    ("probability", np.full((16, 16, 3), 1.5, np.float32), "values from 1.5 to 1.5, expected probabilities")])
def test_values_that_mean_nothing_are_refused(folder, values, pixels, message):
    affine = np.diag([1.0, 1, 2, 1])
    volume(folder / "a.nii.gz", pixels, affine)
    with pytest.raises(ReadError, match=message):
        read_maps(folder, ForeignMaps(pattern="{case}.nii.gz", values=values), index("a", [1]),
                  {"a": Geometry.of_volume(pixels.shape, affine)}, SIDES)


def test_colours_and_other_sizes_are_refused(folder):
    params, geometries = ForeignMaps(pattern="{case}.png", values="any"), {"a": Geometry.of_image(20, 20)}
    rows = pd.DataFrame({"scan_id": ["a"], "slice_id": ["a"], "z": [0], "draw": [0]})
    blue = np.zeros((20, 20, 3), np.uint8)
    blue[..., 2] = 1
    Image.fromarray(blue).save(folder / "a.png")
    with pytest.raises(ReadError, match="is in colour, and colours have no order"):
        read_maps(folder, params, rows, geometries, SIDES)
    Image.fromarray(np.zeros((20, 21), np.uint8)).save(folder / "a.png")
    with pytest.raises(ReadError, match=r"has 20 x 21 pixels, its slice has 20 x 20 \(16 x 16 in data/slices\)"):
        read_maps(folder, params, rows, geometries, SIDES)


@pytest.mark.parametrize("pattern", ["maps.nii.gz", "{case}_{slice}.png", "{slice}.nii.gz", "{case}.jpg"])
def test_patterns_that_name_no_file_are_refused(pattern):
    with pytest.raises(pydantic.ValidationError, match="expected a name with"):
        ForeignMaps(pattern=pattern, values="any")


def test_a_name_that_is_no_name_is_refused():
    block = {"pattern": "{case}.nii.gz", "values": "any"}
    assert list(ForeignMapsParams({"mine_2": block}).root) == ["mine_2"]
    with pytest.raises(pydantic.ValidationError, match="'a.b' is no name of a method"):
        ForeignMapsParams({"a.b": block})

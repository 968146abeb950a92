"""Real volumes through the preparation and back onto their own grids; they are no part of the repository.

One scan can't be split by patient, so the filter's and the anomalies' own functions are asked instead of the stages.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy import ndimage

from flipside.cohort import anomalies
from flipside.cohort.extracted import Extracted, SelectionError
from flipside.cohort.extraction import ExtractParams, extract
from flipside.cohort.selection import keep_by_organ
from flipside.cohort.windowing import fingerprint_window
from flipside.core.store import apply_window
from flipside.masks.placing import write_segmentation
from flipside.scans.geometry import Geometry, to_slices
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import read_nifti
from tests.masks.volumes_fixture import AS_IT_IS
from tests.scans.scans_fixture import CT, DATA, EXTRACT, NIFTI, needs_data

pytestmark = needs_data
SIZE = 64
ROOT = Path(__file__).parents[1]


def extracted(folder, content: dict, size: int) -> Extracted:
    folder.mkdir(exist_ok=True)
    extract("real", DatasetParams.model_validate(content).root, ExtractParams(**EXTRACT), size, folder)
    return Extracted.open(folder)


def kidneys(folder, size: int) -> Extracted:
    """TotalSegmentator's example CT; 2 and 3 are the kidneys."""
    return extracted(folder, NIFTI | {
        "root": str(DATA / "totalsegmentator"), "image": "example_c{case}.nii.gz", "ignored": "any", "lesion": None,
        "organ": {"files": ["example_seg_fast_force_split.nii.gz"], "values": [2, 3]}, "anomalies": True}, size)


@pytest.fixture(scope="module")
def ct(tmp_path_factory):
    return kidneys(tmp_path_factory.mktemp("ct") / "extracted", SIZE)


@pytest.fixture(scope="module")
def parameters():
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_kidney_slices_are_counted_on_the_scans_own_grid(ct):
    labels = np.asanyarray(nib.load(DATA / "totalsegmentator/example_seg_fast_force_split.nii.gz").dataobj)
    areas = np.isin(labels, (2, 3)).sum(axis=(0, 1))  # (Z,), the file is RAS
    assert len(ct.index) == 39
    np.testing.assert_array_equal(ct.index["z"], np.flatnonzero(areas))
    np.testing.assert_array_equal(ct.index["organ_px"], areas[areas > 0])
    for threshold in (32, 100, 200):
        assert keep_by_organ(ct.index, threshold).sum() == (areas > threshold).sum()
    assert 0 < (areas > 100).sum() < 39  # the threshold does something on this scan
    with pytest.raises(SelectionError, match=f"largest organ area {areas.max()}"):
        keep_by_organ(ct.index, int(areas.max()))


def test_window_in_hounsfield_units(ct, parameters):
    low, high = parameters["filter"]["ct_window"]
    shown = apply_window(ct.images, (low, high)).astype(np.float32)  # (N,H,W)
    assert shown.min() == -1 and shown.max() == 1  # air and bone are cut off
    between = (ct.images > low) & (ct.images < high)
    back = (shown[between] + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(back, ct.images[between], atol=0.3)  # float16 keeps a quarter of a unit
    inside = ndimage.binary_erosion(ct.organ, np.ones((1, 3, 3)))
    assert 0 < np.median(ct.images[inside > 0]) < 250  # kidney, and not air, fat or bone
    with np.load(ct.folder / "foreground.npz") as foreground:
        window = fingerprint_window(foreground, ["t"], tuple(parameters["filter"]["fingerprint_percentiles"]))
    assert -300 < window[0] < np.median(ct.images[inside > 0]) < window[1] < 1000


def test_anomalies_are_bright_blobs_in_the_kidneys(ct, parameters):
    params = anomalies.AnomalyParams(**parameters["anomalies"] | {"draws_per_slice": 3})
    images = apply_window(ct.images, tuple(parameters["filter"]["ct_window"]))
    plan, outcomes = anomalies.plan_anomalies(ct.organ, list(ct.index["slice_id"]), params, parameters["seed"])
    assert len(plan) == 3 * 39 and sum(outcomes.values()) == len(plan)
    drawn = [(position // 3, one) for position, one in enumerate(plan) if one is not None]
    assert 0.3 * len(plan) < len(drawn) == outcomes["anomaly"] < 0.9 * len(plan)
    for position, anomaly in drawn:
        assert ct.organ[position][anomaly.row, anomaly.column] == 1
        changed, mask = anomalies.add_anomaly(images[position], anomaly, params)
        difference = changed.astype(np.float32) - images[position]
        reach = params.template_fraction * SIZE * params.scale_range[1] * (1 + params.distortion)
        rows, columns = np.nonzero(mask)
        assert mask.any() and np.hypot(rows - anomaly.row, columns - anomaly.column).max() <= reach / 2 + 1
        assert difference.min() >= 0 and (difference[mask == 1] > 0).mean() > 0.9
        assert difference[mask == 1].mean() > difference[mask == 0].max() / 2


def test_mask_of_a_ct_goes_back_onto_its_affine_voxel_for_voxel(tmp_path):
    """A store no smaller than the scan's slices keeps every voxel on the way there and back."""
    path = DATA / "totalsegmentator/example_seg_fast_force_split.nii.gz"
    original = nib.load(path)
    geometry = read_nifti(DATA / "totalsegmentator/example_ct.nii.gz").geometry
    _, rows, columns = to_slices(np.zeros(geometry.shape, bool), geometry).shape
    got = kidneys(tmp_path / "extracted", max(rows, columns))
    written = written_back(tmp_path / "kidneys.nii.gz", got.organ[:], got)
    truth = np.isin(np.asanyarray(original.dataobj), (2, 3))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), truth)
    np.testing.assert_allclose(written.affine, original.affine, atol=1e-4)


def test_liver_tumours_of_a_dicom_series_go_back_exactly(tmp_path):
    """Extracted at 512, the slices' own size, from DICOM; the masks are NIfTI in an orientation of their own."""
    tumours = [DATA / f"ircad17/ircad17_livertumor{number}.nii.gz" for number in (1, 2)]
    got = extracted(tmp_path / "extracted", CT | {
        "layout": "dicom_series", "root": str(DATA), "series": "{case}/dicom", "files": "*", "ignored": [],
        "organ": {"files": ["{case}/{case}_liver.nii.gz"], "values": None},
        "lesion": {"files": [f"{{case}}/{{case}}_livertumor{number}.nii.gz" for number in (1, 2)], "values": None},
    }, 512)
    written = written_back(tmp_path / "tumours.nii.gz", got.lesion[:], got)
    volume = np.asanyarray(written.dataobj)
    assert volume.sum() == got.index["lesion_px"].sum() > 0
    # Compared in space, not by index: the written file has the series' affine, the originals may have another.
    truth = np.zeros(volume.shape, bool)
    for tumour in tumours:
        image = nib.load(tumour)
        voxels = np.argwhere(np.asanyarray(image.dataobj) > 0)  # (V,3)
        there = nib.affines.apply_affine(np.linalg.inv(written.affine) @ image.affine, voxels)
        np.testing.assert_allclose(there, np.rint(there), atol=0.01)
        truth[tuple(np.rint(there).astype(int).T)] = True
    np.testing.assert_array_equal(volume == 1, truth)


def written_back(file, masks: np.ndarray, got: Extracted) -> nib.Nifti1Image:
    whole = write_segmentation(file, masks, got.index["z"].to_numpy(), Geometry.from_json(got.scans["geometry"][0]),
                       AS_IT_IS)
    written = nib.load(file)
    assert written.get_data_dtype() == np.uint8 and set(np.unique(whole)) == {0, 1}
    return written

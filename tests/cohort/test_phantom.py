"""The phantom scanner: the same scans each time, anatomy on the right sides in world coordinates, honest affines."""

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy.ndimage import label

from flipside.cohort.phantom.phantom import PhantomParams, simulate_scan, write_scans
from flipside.core.params import ParamsError
from stages import simulate_scans

SMALL = PhantomParams(patients=4, slices_per_patient=(10, 14), rows_cols=48, noise_hu=10.0)
USUAL = PhantomParams(patients=60, slices_per_patient=(26, 34), rows_cols=128, noise_hu=13.0)
SEED = 17


@pytest.fixture(scope="module")
def scans():
    """Eight scans: every orientation twice."""
    return [simulate_scan(USUAL, SEED, number) for number in range(1, 9)]


def world(scan, mask):
    """RAS+ mm (n,3) of the voxels of a mask on the stored grid."""
    return nib.affines.apply_affine(scan.affine, np.argwhere(mask))


def body(scan):
    """The patient without the table: the largest connected part above -250 HU."""
    parts, _ = label(scan.volume > -250)
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


def test_a_scan_depends_on_seed_and_number_alone():
    first = simulate_scan(SMALL, SEED, 3)
    again = simulate_scan(SMALL.model_copy(update={"patients": 40}), SEED, 3)
    assert np.array_equal(first.volume, again.volume) and np.array_equal(first.kidney, again.kidney)
    assert np.array_equal(first.affine, again.affine)
    others = simulate_scan(SMALL, SEED + 1, 3), simulate_scan(SMALL, SEED, 7)
    assert all(other.volume.shape != first.volume.shape or (other.volume != first.volume).any() for other in others)


def test_values_are_hounsfield_units_of_an_abdomen(scans):
    for scan in scans:
        assert scan.volume.dtype == np.int16 and scan.kidney.dtype == np.uint8
        assert set(np.unique(scan.kidney)) == {0, 1} and scan.kidney.shape == scan.volume.shape
        assert -1024 <= scan.volume.min() < -950
        assert 400 < scan.volume.max() <= 3071
        values = scan.volume[scan.volume > -250]
        assert np.mean((values > -150) & (values < -60)) > 0.1  # fat
        assert np.mean((values > 0) & (values < 200)) > 0.3  # soft tissue
        assert 15 < np.median(scan.volume[scan.kidney > 0]) < 230


def test_kidneys_lie_on_both_sides_of_the_spine_and_behind_the_middle(scans):
    for scan in scans:
        trunk = world(scan, body(scan))
        kidney = world(scan, scan.kidney > 0)
        bone = world(scan, (scan.volume > 350) & body(scan))
        middle, front_to_back = np.median(trunk[:, 0]), np.ptp(trunk[:, 1])
        right, left = kidney[kidney[:, 0] > middle], kidney[kidney[:, 0] < middle]
        assert min(len(right), len(left)) > 0.3 * len(kidney)
        assert 45 < right[:, 0].mean() - middle < 100 and 45 < middle - left[:, 0].mean() < 100
        assert kidney[:, 1].mean() < trunk[:, 1].mean()  # +y is the front
        spine = bone[np.abs(bone[:, 0] - middle) < 30]
        assert spine[:, 1].mean() < trunk[:, 1].mean() - 0.1 * front_to_back


def test_liver_is_on_the_right_in_the_upper_slices(scans):
    for scan in scans:
        trunk = world(scan, body(scan))
        low, high = trunk.min(0), trunk.max(0)
        middle = np.median(trunk[:, 0])
        soft = world(scan, (scan.volume > 20) & (scan.volume < 230) & (scan.kidney == 0))
        # The front half of the top fifth: liver against stomach.
        chosen = soft[(soft[:, 2] > high[2] - 0.2 * (high[2] - low[2])) & (soft[:, 1] > (low[1] + high[1]) / 2)]
        assert (chosen[:, 0] > middle).sum() > 1.3 * (chosen[:, 0] < middle).sum()


def test_most_slices_hold_kidney_and_the_poles_lie_within_the_scan(scans):
    counts = []
    for scan in scans:
        canonical = nib.as_closest_canonical(nib.Nifti1Image(scan.kidney, scan.affine))
        area = np.asarray(canonical.dataobj).sum((0, 1)).astype(int)  # (Z,)
        assert area[0] == area[-1] == 0
        assert (np.diff(np.flatnonzero(area)) == 1).all()
        assert area.max() > 0.025 * 128 * 128
        assert np.abs(np.diff(area)).max() < 0.4 * area.max()  # organs change smoothly from slice to slice
        counts.append((area > 0).sum())
        assert 2.8 <= canonical.header.get_zooms()[2] <= 5.5
    assert 22 <= np.mean(counts) <= 28


def test_orientations_vary_and_the_stored_files_read_back_alike(tmp_path):
    write_scans(SMALL, SEED, tmp_path / "phantom", range(1, 5))
    codes = set()
    for number in range(1, 5):
        folder = tmp_path / "phantom" / "cases" / f"case_{number:04d}"
        image, labels = nib.load(folder / "imaging.nii.gz"), nib.load(folder / "segmentation.nii.gz")
        scan = simulate_scan(SMALL, SEED, number)
        assert image.get_data_dtype() == np.int16 and labels.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(image.dataobj), scan.volume)
        assert np.array_equal(np.asarray(labels.dataobj), scan.kidney)
        assert np.allclose(image.affine, scan.affine, atol=1e-4) and np.array_equal(image.affine, labels.affine)
        assert np.abs(image.affine[:3, 3]).min() > 0
        codes.add("".join(nib.aff2axcodes(image.affine)))
        canonical = nib.as_closest_canonical(image)
        assert canonical.shape[:2] == (48, 48) and 10 <= canonical.shape[2] <= 14
    assert codes == {"RAS", "LPS", "LAS", "IPL"}


def test_a_failing_write_leaves_the_earlier_scans_alone(tmp_path):
    write_scans(SMALL, SEED, tmp_path / "phantom", [1])

    def interrupted():
        yield 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scans(SMALL, SEED, tmp_path / "phantom", interrupted())
    assert [entry.name for entry in tmp_path.iterdir()] == ["phantom"]
    assert [entry.name for entry in (tmp_path / "phantom" / "cases").iterdir()] == ["case_0001"]


def test_noise_has_the_asked_strength_and_no_flat_spectrum():
    loud, silent = (simulate_scan(USUAL.model_copy(update={"noise_hu": level}), SEED, 2) for level in (20.0, 0.0))
    noise = (loud.volume.astype(float) - silent.volume)[silent.kidney > 0]
    assert 10 < noise.std() < 30
    plane = np.moveaxis(loud.volume.astype(float) - silent.volume, np.abs(loud.affine[2, :3]).argmax(), 0)
    middle = plane[:, 44:84, 44:84] - plane[:, 44:84, 44:84].mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(middle)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(40)[:, None], np.fft.fftfreq(40)[None])
    lowest, band, highest = (power[(radius > a) & (radius <= b)].mean()
                             for a, b in ((0, 0.05), (0.1, 0.25), (0.45, 0.5)))
    assert band > 1.5 * lowest and band > 3 * highest


@pytest.mark.parametrize("wrong", [{"slices_per_patient": [20, 10]}, {"rows_cols": 4}, {"noise_hu": -1},
                                   {"patients": 0}])
def test_parameters_that_make_no_scan_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PhantomParams.model_validate({**SMALL.model_dump(), **wrong})


def test_the_stage_writes_every_patient(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": 3, "phantom": SMALL.model_dump(mode="json")}))
    monkeypatch.setattr(simulate_scans, "check_all", lambda: None)  # the other sections are tested elsewhere
    simulate_scans.main()
    cases = sorted(entry.name for entry in (tmp_path / "data/raw/phantom/cases").iterdir())
    assert cases == ["case_0001", "case_0002", "case_0003", "case_0004"]
    assert "rows_cols: 48" in capsys.readouterr().out


def test_the_stage_refuses_a_wrong_file_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sections = {"seed": 3, "phantom": SMALL.model_dump(mode="json"), "fantom": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    with pytest.raises(ParamsError, match="fantom"):
        simulate_scans.main()
    assert not (tmp_path / "data").exists()

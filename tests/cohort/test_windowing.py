"""Windows by modality, per scan and per channel, and what they cut off."""

from pathlib import Path

import numpy as np
import pytest

from flipside.cohort.extracted import Extracted, SelectionError
from flipside.cohort.extraction import ExtractParams, extract
from flipside.cohort.selection import FilterParams
from flipside.cohort.windowing import (
    PER_SCAN,
    Windows,
    choose_windows,
    measure_saturation,
    scan_window,
    window_slices,
    window_text,
)
from flipside.scans.layouts import DatasetParams
from tests.cohort.extracted_fixture import FILTER
from tests.parameters import project_parameters
from tests.scans.scans_fixture import CT, DATA, EXTRACT, IMAGES, NIFTI, needs_data, write_nifti

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
TWO = NIFTI | {"image": ["{case}/a.nii.gz", "{case}/b.nii.gz"], "organ": None, "lesion": None, "modality": "mr"}


def filters(**changes) -> FilterParams:
    return FilterParams(**project_parameters()["filter"] | changes)


def extracted(folder: Path, content: dict, size=16, samples: int = 2000) -> Extracted:
    (folder / "out").mkdir()
    block = DatasetParams.model_validate({"root": str(folder / "raw")} | content).root
    extract("toy", block, ExtractParams(**EXTRACT | {"foreground_samples": samples}), size, folder / "out")
    return Extracted.open(folder / "out")


def windowed(got: Extracted, params: FilterParams) -> tuple[np.ndarray, Windows]:
    """All slices in [-1,1] and their windows; every scan counts as training."""
    windows = choose_windows(params, got, got.index.assign(split="train"))
    masks = np.empty((2, len(got.index), *got.images.shape[-2:]), np.uint8)
    images = np.empty(got.images.shape, np.float16)
    window_slices(got, np.arange(len(got.index)), windows, (images, *masks))
    return images, windows


def write_two(folder: Path, scans: int = 2, shape=(8, 8, 3)) -> dict[str, np.ndarray]:
    """Scans of two registered volumes each, in units of their own; {scan: (2,X,Y,Z)}."""
    rng = np.random.default_rng(0)
    volumes = {}
    for n in range(scans):
        volumes[f"s{n}"] = np.stack([rng.integers(1, 100, shape) * (n + 1), rng.integers(1, 100, shape) * 20 + 500])
        for name, volume in zip("ab", volumes[f"s{n}"], strict=True):
            write_nifti(folder / f"raw/s{n}/{name}.nii.gz", volume.astype(np.int16), AFFINE)
    return volumes


@pytest.mark.parametrize(("modality", "described"), [
    ("ct", [-160.0, 350.0]), ("mr", PER_SCAN), ("xray", PER_SCAN), ("mammography", PER_SCAN), ("ultrasound", PER_SCAN),
    ("other", PER_SCAN)])
def test_the_window_that_each_modality_gets_unless_told_otherwise(tmp_path, modality, described):
    write_two(tmp_path)
    got = extracted(tmp_path, TWO | {"image": "{case}/a.nii.gz", "modality": modality})
    params = filters()
    assert params.window == "auto"
    assert choose_windows(params, got, got.index.assign(split="train")).described == described


def test_each_scan_and_channel_has_its_own_percentiles(tmp_path):
    volumes = write_two(tmp_path)
    got = extracted(tmp_path, TWO, size=[12, 8])
    assert got.images.shape == (6, 2, 12, 8) and got.manifest["channels"] == ["a", "b"]
    images, windows = windowed(got, filters(scan_percentiles=[5, 95]))
    for scan, volume in volumes.items():
        foreground = np.concatenate([volume[:, volume[0, :, :, z] > volume[0, :, :, z].min(), z] for z in range(3)], 1)
        np.testing.assert_allclose(windows.by_scan[scan], np.percentile(foreground, (5, 95), axis=1).T)
    assert windows.told == {scan: window.tolist() for scan, window in windows.by_scan.items()}
    # 8 x 8 mm in 12 x 8 pixels: two rows of padding above and below, the darkest there is.
    assert (images[:, :, [0, 1, 10, 11]] == -1).all() and not got.organ[:][:, [0, 1, 10, 11]].any()
    assert (images[:, :, 2:10] > -1).mean() > 0.8 and got.organ[:][:, 2:10].all()


def test_fixed_and_fingerprint_windows_of_several_channels(tmp_path):
    volumes = write_two(tmp_path)
    got = extracted(tmp_path, TWO)
    assert windowed(got, filters(window=[0, 50], saturation_limit=1))[1].described == [0, 50]
    images, windows = windowed(got, filters(window=[[0, 200], [500, 2500]]))
    assert windows.described == [[0, 200], [500, 2500]] and windows.told == {}
    assert images.min() > -1.01 and 0 < images[:, 1].max() < 1
    windows = windowed(got, filters(window="fingerprint", fingerprint_percentiles=[0, 100]))[1]
    for channel, (low, high) in enumerate(windows.described):
        values = np.concatenate([volume[channel].ravel() for volume in volumes.values()])
        assert values.min() <= low < np.median(values) < high == values.max()
    with pytest.raises(SelectionError, match=r"lists 3 windows, expected one or 2.*\['a', 'b'\]"):
        windowed(got, filters(window=[[0, 1], [0, 1], [0, 1]]))


def test_neighbouring_slices_share_their_volumes_window(tmp_path):
    write_two(tmp_path)
    got = extracted(tmp_path, TWO | {"context": 1})
    assert got.manifest["channels"] == ["a-1", "b-1", "a", "b", "a+1", "b+1"] and got.images.shape[1] == 6
    first = got.images[:3]  # of the first scan, z = 0, 1, 2; beyond the ends the border slice is repeated
    np.testing.assert_array_equal(first[0, :2], first[0, 2:4])
    np.testing.assert_array_equal(first[1, :2], first[0, 2:4])
    np.testing.assert_array_equal(first[1, 4:], first[2, 2:4])
    np.testing.assert_array_equal(first[2, 4:], first[2, 2:4])
    window = windowed(got, filters())[1].by_scan["s0"]
    np.testing.assert_array_equal(window[:2], window[2:4])
    assert not np.array_equal(window[0], window[1])


def test_lesion_masks_change_no_window(tmp_path):
    windows = []
    for name, lesion in (("without", None), ("with", {"files": ["{case}/seg.nii.gz"], "values": [2]})):
        write_two(tmp_path / name)
        for n in range(2):
            labels = np.ones((8, 8, 3), np.uint8)
            labels[2:5, 2:5] = 2
            write_nifti(tmp_path / name / f"raw/s{n}/seg.nii.gz", labels, AFFINE)
        got = extracted(tmp_path / name, TWO | {"lesion": lesion, "ignored": "any"})
        windows.append(windowed(got, filters())[1].told)
    assert windows[0] == windows[1]


def test_a_scan_without_contrast_is_named():
    with pytest.raises(SelectionError, match="scan x has no foreground.*blank"):
        scan_window("x", np.empty((0, 1)), (1, 99))
    with pytest.raises(SelectionError, match="scan x has no window of its own: .*both 7"):
        scan_window("x", np.full((9, 1), 7.0), (1, 99))


@pytest.mark.parametrize(("window", "outcome"), [([0, 200], None), ([20, 200], "warned"), ([90, 200], "refused")])
def test_what_a_window_cuts_off_is_measured_warned_about_and_refused(tmp_path, window, outcome):
    write_two(tmp_path)
    got = extracted(tmp_path, TWO | {"image": "{case}/a.nii.gz"})
    params = filters(window=window)
    windows = choose_windows(params, got, got.index.assign(split="train"))
    if outcome == "refused":
        with pytest.raises(SelectionError, match=r"window \[90, 200\] turns .*% into plain black, expected at most 50%"
                                                 r".*per_scan, or to \["):
            measure_saturation(params, got, windows)
        return
    found, warnings = measure_saturation(params, got, windows)
    assert len(warnings) == (outcome == "warned")
    with np.load(got.folder / "foreground.npz") as foreground:
        black = np.mean([(foreground[scan] < window[0]).mean() for scan in ("s0", "s1")])
    assert found["black"] == pytest.approx(black) and found["white"] == 0.0
    assert found["scans"] == []


def test_a_manifests_window_in_words():
    assert window_text([-160.0, 350.0]) == "-160 to 350" and window_text([[0, 1], [2, 3.5]]) == "0 to 1, 2 to 3.5"
    assert "own" in window_text(PER_SCAN)


def test_filter_fixture_names_every_key():
    assert set(FILTER) == set(FilterParams.model_fields)


def pictures(folder: Path, source: str, every: int, modality: str, size: int) -> Extracted:
    """Every n-th picture of a folder of real images."""
    (folder / "raw/images").mkdir(parents=True)
    for file in sorted((DATA / source).iterdir())[::every]:
        (folder / "raw/images" / file.name).symlink_to(file)
    return extracted(folder, IMAGES | {"organ": None, "lesion": None, "modality": modality, "spacing_mm": [1, 1]}, size)


@needs_data
@pytest.mark.parametrize(("source", "every", "modality", "grey"), [
    ("gmic/images", 1, "mammography", (0.2, 0.7)), ("lgg/images", 150, "mr", (0.05, 0.6)),
    ("busi/images", 60, "ultrasound", (0.2, 0.7))])
def test_real_pictures_come_out_right_without_a_flag(tmp_path, source, every, modality, grey):
    """At most a hundredth of the foreground is cut off; what is not black is grey in the mean (0 black, 1 white)."""
    got = pictures(tmp_path, source, every, modality, 128)
    images, windows = windowed(got, filters())
    found, warnings = measure_saturation(filters(), got, windows)
    assert found["black"] + found["white"] <= 0.0105 and found["scans"] == warnings == []
    for scan, image in zip(got.index["scan_id"], images, strict=True):
        inside = (image[got.boxes[scan]].astype(float) + 1) / 2
        assert (inside >= 1).mean() < 0.02 and grey[0] < inside[inside > 0].mean() < grey[1], scan


@needs_data
def test_a_16_bit_mammogram_in_a_ct_window_is_refused(tmp_path):
    got = pictures(tmp_path, "gmic/images", 2, "mammography", 64)
    for window in ([-160, 350], [0, 255]):
        params = filters(window=window)
        windows = choose_windows(params, got, got.index.assign(split="train"))
        with pytest.raises(SelectionError, match=r"turns (7|8|9)\d% of what the scans show into plain white"):
            measure_saturation(params, got, windows)


@needs_data
def test_kidneys_of_a_real_ct_fit_the_ct_window(tmp_path):
    (tmp_path / "raw").symlink_to(DATA / "totalsegmentator")
    got = extracted(tmp_path, CT | {
        "layout": "nifti_cases", "image": "example_c{case}.nii.gz", "ignored": "any",
        "organ": {"files": ["example_seg_fast_force_split.nii.gz"], "values": [2, 3]}}, 64)
    windows = choose_windows(filters(), got, got.index.assign(split="train"))
    found, warnings = measure_saturation(filters(), got, windows)
    assert windows.described == [-160, 350] and not warnings and found["black"] + found["white"] < 0.05


def test_a_blank_scan_is_named(tmp_path):
    for name in "ab":
        write_nifti(tmp_path / f"raw/{name}/a.nii.gz", np.zeros((6, 6, 2), np.int16), AFFINE)
    got = extracted(tmp_path, TWO | {"image": "{case}/a.nii.gz"})
    with pytest.raises(SelectionError, match="scan a has no foreground to choose a window by: it is blank"):
        choose_windows(filters(), got, got.index.assign(split="train"))

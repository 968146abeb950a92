"""Properties of DICOM files made at random: 25 archives are grouped, 60 volumes rescaled, 100 images padded."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from flipside.scans.dicom import read_dicom_image, read_dicom_series
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import SERIES, write_slice

PLAIN = {"derandomize": True, "deadline": None, "database": None,
         "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
PLACES = ("a", "a/b", "c d", "é/ü")
ENDINGS = ("", ".dcm", ".DCM", ".IMA", ".1", ".img")


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """A new folder for each example; pytest's own is one for all of them."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def volumes_of(root: Path) -> dict[str, np.ndarray]:
    """{name: values (Z,R,C)} of every scan that the layout finds without patterns."""
    layout = DatasetParams.model_validate(SERIES | {"root": str(root), "series": None}).root
    scans = {found.name: layout.read_scan(found, "salt").volume for found in layout.find_scans("x")}
    return {name: np.stack([volume.slice(z) for z in range(len(volume.stored))]) for name, volume in scans.items()}


class_of_series = st.fixed_dictionaries({
    "slices": st.integers(2, 5), "volumes": st.integers(1, 3), "half_step": st.booleans(),
    "separator": st.sampled_from(["AcquisitionNumber", "TemporalPositionIdentifier", "EchoTime"]),
    "patient": st.sampled_from(["A", "B"])})


@settings(max_examples=25, **PLAIN)
@given(wanted=st.lists(class_of_series, min_size=1, max_size=3), one_folder=st.booleans(), seed=st.integers(0, 99))
def test_files_are_grouped_wherever_they_lie(wanted, one_folder, seed):
    """Volumes interleaved or at the same positions, told apart by a number; files in any folder, order and ending."""
    with empty_folder() as root:
        _archive_is_grouped(root, np.random.default_rng(seed), wanted, one_folder)


def _archive_is_grouped(root: Path, rng: np.random.Generator, wanted: list[dict], one_folder: bool) -> None:
    expected, jobs = [], []
    for number, each in enumerate(wanted):
        for part in range(each["volumes"]):
            pixels = rng.integers(0, 1000, (each["slices"], 3, 4)).astype(np.int16)
            expected.append(pixels * 2.0 - 1000)
            shift = part / each["volumes"] if each["half_step"] else 0.0
            jobs += [(pixels[k], (0, 0, 3 * (k + shift)), f"1.2.{number}",
                      {each["separator"]: part + 1, "PatientID": each["patient"]}) for k in range(each["slices"])]
    for number, job in enumerate(rng.permutation(len(jobs))):
        pixels, position, series, changes = jobs[job]
        place = PLACES[0 if one_folder else rng.integers(len(PLACES))]
        write_slice(root / place / f"{number}{rng.choice(ENDINGS)}", pixels, position, series, **changes)
    found = volumes_of(root)
    assert len(found) == len(expected)
    assert {values.tobytes() for values in found.values()} == {
        values.astype(np.float32).tobytes() for values in expected}
    assert volumes_of(root).keys() == found.keys()


@settings(max_examples=60, **PLAIN)
@given(slopes=st.lists(st.sampled_from([None, 1.0, 2.5, -1.0]), min_size=2, max_size=5),
       intercepts=st.lists(st.sampled_from([0.0, -1024.0, 7.5]), min_size=5, max_size=5), signed=st.booleans())
def test_every_slice_is_rescaled_or_none(slopes, intercepts, signed):
    with empty_folder() as folder:
        _slices_are_rescaled(folder, slopes, intercepts, signed)


def _slices_are_rescaled(folder: Path, slopes: list[float | None], intercepts: list[float], signed: bool) -> None:
    rng, expected = np.random.default_rng(0), []
    for k, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=False)):
        pixels = rng.integers(0, 1000, (3, 4))
        write_slice(folder / str(k), pixels, (0, 0, k), PixelRepresentation=int(signed), RescaleSlope=slope,
                    RescaleIntercept=None if slope is None else intercept)
        expected.append(pixels if slope is None else pixels * slope + intercept)
    if len({slope is None for slope in slopes}) == 2:
        with pytest.raises(ReadError, match="has no RescaleSlope and RescaleIntercept, unlike"):
            read_dicom_series(sorted(folder.iterdir()))
        return
    volume, _ = read_dicom_series(sorted(folder.iterdir()))
    for k, values in enumerate(expected):
        np.testing.assert_allclose(volume.slice(k), values, rtol=1e-6)


@settings(max_examples=100, **PLAIN)
@given(turned=st.booleans(), signed=st.booleans(), modality=st.sampled_from(["CT", "MG", "MR"]),
       slope=st.sampled_from([1.0, -2.0]), padding=st.sampled_from([0, 5, 4095, -2000]),
       limit=st.sampled_from([None, 0, 9, -1990]), seed=st.integers(0, 99))
def test_padding_is_the_darkest_and_hounsfield_units_stay(turned, signed, modality, slope, padding, limit, seed):
    """Whatever the sign, the scale and the photometric interpretation; the header's padding may have another sign."""
    rng = np.random.default_rng(seed)
    lowest = -2048 if signed else 0
    stored = rng.integers(max(lowest, 10), 4000, (5, 6))
    ends = sorted([padding, padding if limit is None else limit])
    if not signed and ends[0] < 0:
        ends = [end % 65536 for end in ends]
        stored[0, 0] = ends[0] if ends[0] == ends[-1] else 60000
    shown = rng.random(stored.shape) < 0.7
    shown[0, 1], stored[~shown] = True, padding if signed or padding >= 0 else padding % 65536
    shown &= ~((stored >= min(ends)) & (stored <= max(ends)))
    if not shown.any():
        return
    with empty_folder() as folder:
        path = write_slice(
            folder / "a", stored.astype("<i2") if signed else stored.astype("<u2").view("<i2"), Modality=modality,
            PixelRepresentation=int(signed), PhotometricInterpretation="MONOCHROME1" if turned else "MONOCHROME2",
            BitsStored=16, RescaleSlope=slope, RescaleIntercept=3)
        dataset = dcmread(path)
        for keyword, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
            if value is not None:
                dataset.add_new(keyword, "SS" if value < 0 or signed else "US", value)
        dataset.save_as(path)
        values = read_dicom_image(path)[0].slice(0)
    inverted = turned and modality != "CT"
    brightest = -1 if signed else 65535
    expected = (brightest - stored if inverted else stored) * slope + 3
    np.testing.assert_allclose(values[shown], expected[shown])
    darkest = expected[shown].min()
    np.testing.assert_allclose(values[~shown], darkest)

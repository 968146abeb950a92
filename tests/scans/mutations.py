"""Files damaged at random, and what the readers make of them. Run by test_fuzz_readers.py in processes of its own."""

from __future__ import annotations

import gzip
import io
import os
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from flipside.cohort.slicing import slice_scan
from flipside.scans.dicom import read_dicom_image, read_dicom_series
from flipside.scans.geometry import SIDE_MM, slices_shape
from flipside.scans.pictures import read_image
from flipside.scans.readers import ReadError, Volume, read_nifti
from flipside.scans.scan import Scan
from tests.scans.scans_fixture import write_nifti, write_series, write_slice

ROOM = 1 << 30  # bytes that a reader of a small file may allocate beyond what the process has
AFFINE = np.array([[-0.8, 0.05, 0, 9], [0.05, -0.9, 0, 5], [0, 0, 3, -20], [0, 0, 0, 1]])
Read = Callable[[Path], Volume]


def read_series_of_one(path: Path) -> Volume:
    return read_dicom_series([path])[0]


def read_dicom(path: Path) -> Volume:
    return read_dicom_image(path)[0]


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def outcome(read: Read, path: Path, size: int | None) -> str:
    """'read' or 'refused'; an AssertionError or any other exception is a finding.

    `size`: how many values the file holds, where a reader can see that its header says fewer or more.
    """
    try:
        volume = read(path)
        spacing = (1.0, 1.0, 1.0) if volume.geometry.is_image else volume.geometry.slice_spacing_mm
        slices = slice_scan(Scan("s", "p", str(path), (volume,), spacing), "other", 8, 10)
    except ReadError as error:
        assert error.reason and error.remedy and error.file == str(path), error
        assert "MemoryError" not in error.reason, f"allocated before it refused: {error}"
        return "refused"
    geometry = volume.geometry
    assert volume.stored.shape == slices_shape(geometry), (volume.stored.shape, geometry)
    assert min(volume.stored.shape) >= 1
    assert np.isfinite(slices.images).all()
    if not geometry.is_image:
        assert np.isfinite(geometry.affine).all() and np.abs(geometry.affine[:3, 3]).max() <= 1e5
        assert all(SIDE_MM[0] <= side <= SIDE_MM[1] for side in spacing), spacing
        assert len(geometry.orientation) == 3
    assert size is None or volume.stored.size == size, f"{volume.stored.shape} of {size} values"
    return "read"


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few bits flipped, overwritten, cut off, or torn out; every other time near their beginning."""
    data = bytearray(content)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 512)
    at = int(rng.integers(reach))
    kind = rng.choice(["bits", "bits", "bytes", "number", "cut", "zeros", "hole"])
    if kind == "bits":
        for place in rng.integers(reach, size=rng.integers(1, 6)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == "bytes":
        data[at:at + 8] = rng.bytes(8)
    elif kind == "number":
        number = int(rng.choice([0, 1, -1, 32767, -32768]))
        data[at:at + 2] = number.to_bytes(2, rng.choice(["little", "big"]), signed=True)
    elif kind == "cut":
        del data[at:]
    elif kind == "zeros":
        data[at:at + 64] = bytes(len(data[at:at + 64]))
    else:
        del data[at:at + int(rng.integers(1, 64))]
    return bytes(data)


def seeds(folder: Path, extra: list[Path]) -> list[tuple[Path, Read, int | None, bool]]:
    """Valid files: path, reader, number of values where a reader can count them, and whether a checksum guards them."""
    rng = np.random.default_rng(3)
    volume = rng.integers(1, 1000, (7, 6, 5)).astype(np.int16)
    found = [(write_nifti(folder / "plain.nii", volume, AFFINE), read_nifti, volume.size, False),
             (write_nifti(folder / "packed.nii.gz", volume, AFFINE), read_nifti, volume.size, True),
             (write_nifti(folder / "float.nii", volume.astype(np.float32), AFFINE), read_nifti, volume.size, False)]
    pair = nib.Nifti1Pair(volume, AFFINE)
    pair.set_sform(AFFINE, code=1)
    nib.save(pair, folder / "pair.hdr")
    found.append((folder / "pair.hdr", read_nifti, volume.size, False))
    write_series(folder / "dicom", 1)
    found += [(folder / "dicom/file_0", read, 48, False) for read in (read_dicom, read_series_of_one)]
    grey = rng.integers(0, 255, (9, 11), np.uint8)
    pictures = {"deep.png": grey.astype(np.uint16) * 200, "rgb.png": np.stack([grey] * 3, -1)}
    for name in (*pictures, "grey.png", "grey.jpg", "grey.tiff", "grey.bmp"):
        Image.fromarray(pictures.get(name, grey)).save(folder / name)
        found.append((folder / name, read_image, None, name.endswith("png")))
    for path in extra:
        read = read_nifti if ".nii" in path.name else read_dicom
        found.append((path, read, read(path).stored.size, path.suffix == ".gz"))
    return found


def damage_bytes(folder: Path, extra: list[Path], times: int) -> None:
    """Every seed `times` times; a name is printed before each read, so that a crash or hang is known by it."""
    warnings.simplefilter("ignore")
    limit_memory()
    rng = np.random.default_rng(777)
    counts: Counter[str] = Counter()
    for path, read, size, guarded in seeds(folder, extra):
        content = path.read_bytes()
        original = read(path).stored.copy()
        target = folder / f"mutant{''.join(path.suffixes[-2:])}"
        if path.suffix == ".hdr":
            target.with_suffix(".img").write_bytes(path.with_suffix(".img").read_bytes())
        for number in range(times):
            mutant = mutated(content, rng)
            print(f"{path.name} by {read.__name__}, mutation {number}", flush=True)
            target.write_bytes(mutant)
            answer = outcome(read, target, size)
            counts[answer] += 1
            if answer == "read" and guarded:
                np.testing.assert_array_equal(read(target).stored, original)
    assert min(counts.values()) > times, counts  # both happen, or nothing was tried
    print(f"{counts['read']} read, {counts['refused']} refused")


PLAIN = {"derandomize": True, "deadline": None, "database": None,
         "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}
SHORTS = st.integers(-2**15, 2**15 - 1)
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1.0, 1e-30, 1e30, float("nan"), float("inf")]))
FIELDS = {
    "dim": st.one_of(st.lists(st.sampled_from([-1, 0, 1, 2, 3, 5, 6, 7, 32767]), min_size=8, max_size=8),
                     st.just([3, 32767, 32767, 32767, 1, 1, 1, 1]), st.just([3, 14, 3, 5, 1, 1, 1, 1])),
    "datatype": st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304, 9]),
    "bitpix": SHORTS, "pixdim": st.lists(FLOATS, min_size=8, max_size=8), "vox_offset": FLOATS, "scl_slope": FLOATS,
    "scl_inter": FLOATS, "sform_code": SHORTS, "qform_code": SHORTS, "xyzt_units": st.integers(0, 255),
    "srow_x": st.lists(FLOATS, min_size=4, max_size=4), "srow_z": st.lists(FLOATS, min_size=4, max_size=4),
    "quatern_b": FLOATS, "sizeof_hdr": st.integers(-2**31, 2**31 - 1), "magic": st.binary(min_size=4, max_size=4),
}


def some_of(values: dict[str, st.SearchStrategy]) -> st.SearchStrategy[dict]:
    """One to three of the keys, each with a value of its own."""
    return st.sets(st.sampled_from(sorted(values)), min_size=1, max_size=3).flatmap(
        lambda keys: st.fixed_dictionaries({key: values[key] for key in sorted(keys)}))


def odd_nifti_headers(folder: Path, examples: int) -> None:
    """Header fields of a NIfTI file set to anything."""
    warnings.simplefilter("ignore")
    limit_memory()
    volume = np.arange(1, 211, dtype=np.int16).reshape(7, 6, 5)
    content = write_nifti(folder / "whole.nii", volume, AFFINE).read_bytes()

    @settings(max_examples=examples, **PLAIN)
    @given(some_of(FIELDS), st.booleans())
    def try_one(changes: dict, packed: bool) -> None:
        header = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
        for key, value in changes.items():
            header.structarr[key] = value
        mutant = header.binaryblock + content[348:]
        path = folder / ("mutant.nii.gz" if packed else "mutant.nii")
        path.write_bytes(gzip.compress(mutant, 1) if packed else mutant)
        if outcome(read_nifti, path, None) == "read":
            read = read_nifti(path).stored
            assert read.size * read.dtype.itemsize == volume.nbytes, (read.shape, read.dtype)

    try_one()


TAGS = {
    **dict.fromkeys(["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
                     "SamplesPerPixel"], st.sampled_from([None, 0, 1, 2, 7, 8, 12, 16, 32, 64, 65535])),
    **dict.fromkeys(["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
                     "RescaleIntercept", "SliceThickness", "NumberOfFrames", "SpacingBetweenSlices"], st.sampled_from(
                         [None, "", "0", "-1", "nan", "inf", "1e30", "1e-30", "x", r"1\2\3", r"0\0", r"1\1",
                          r"0.5\1e9", r"1\0\0\1\0\0", r"1\0\0\0\nan\0", "9\\" * 9])),
    **dict.fromkeys(["PhotometricInterpretation", "Modality", "SeriesInstanceUID", "PatientID"],
                    st.sampled_from([None, "", "MONOCHROME1", "RGB", "SEG", r"a\b", "\0" * 70])),
}


def odd_dicom_tags(folder: Path, examples: int) -> None:
    """Elements of a DICOM file set to anything that can be written, or taken out."""
    warnings.simplefilter("ignore")
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    limit_memory()
    path = write_slice(folder / "whole.dcm", np.arange(48).reshape(8, 6), (1.0, 2.0, 3.0))
    content = path.read_bytes()

    @settings(max_examples=examples, **PLAIN)
    @given(some_of(TAGS))
    def try_one(changes: dict) -> None:
        dataset = pydicom.dcmread(io.BytesIO(content))
        for keyword, value in changes.items():
            if value is None:
                dataset.pop(keyword, None)
            elif isinstance(value, int):
                setattr(dataset, keyword, value)
            else:  # as bytes: pydicom would refuse to make numbers of some
                tag, vr = pydicom.tag.Tag(keyword), pydicom.datadict.dictionary_VR(keyword)
                raw = value.encode() + b" " * (len(value) % 2)
                dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
        mutant = folder / "mutant.dcm"
        dataset.save_as(mutant)
        for read in (read_dicom, read_series_of_one):
            if outcome(read, mutant, None) == "read":
                stored = read(mutant).stored
                assert stored.size * dataset.BitsAllocated // 8 in (95, 96), stored.shape

    try_one()


def hang() -> None:
    time.sleep(60)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)

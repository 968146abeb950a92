"""The phantom CT scanner: anatomically plausible abdominal scans at kidney level, so that no data need be fetched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import pydantic
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.ndimage import gaussian_filter

from flipside.cohort.phantom.anatomy import draw_patient
from flipside.cohort.phantom.canvas import Canvas
from flipside.cohort.phantom.patient import Patient
from flipside.core.files import atomic_folder
from flipside.core.params import Params

# How the scanners of the world store their volumes; scan k takes the k-th, so that few scans already hold them all.
ORIENTATIONS = ("LPS", "RAS", "LAS", "IPL")
FIELD_OF_VIEW_MM = (317.0, 486.0)  # 0.62 to 0.95 mm per pixel on the usual grid of 512

PositiveInt = Annotated[int, pydantic.Field(ge=1)]


class PhantomParams(Params):
    """Section `phantom`."""

    patients: PositiveInt
    """Number of patients, with one scan each."""
    slices_per_patient: tuple[int, int]
    """Fewest and most slices of a scan; it always reaches past both kidneys, so fewer slices are thicker."""
    rows_cols: Annotated[int, pydantic.Field(ge=32, le=512)]
    """Rows and columns of a slice."""
    noise_hu: Annotated[float, pydantic.Field(ge=0, le=100)]
    """Standard deviation of the noise in the middle of a patient, in HU."""

    @pydantic.field_validator("slices_per_patient")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 4 <= value[0] <= value[1] <= 400:
            raise ValueError("expected [fewest, most] with 4 <= fewest <= most <= 400")
        return value


@dataclass(frozen=True)
class Scan:
    """One simulated scan on its stored grid."""

    volume: np.ndarray  # int16 HU, three axes in the affine's order
    kidney: np.ndarray  # uint8, 1 = kidney (cortex, medulla, pelvis and the sinus between them), same grid
    affine: np.ndarray  # (4,4) voxel index -> RAS+ mm


def simulate_scan(params: PhantomParams, seed: int, number: int) -> Scan:
    """Scan `number` (from 1) of the series `seed`: the same scan however many patients the series has.

    HU in [-1024, 3071] with noise; both kidneys lie within the scan; the patient's right and front are where the
    affine says, whatever the storage order (`ORIENTATIONS`).
    """
    rng = np.random.default_rng([seed, number])
    slices = int(rng.integers(params.slices_per_patient[0], params.slices_per_patient[1] + 1))
    patient = Patient.draw(rng)
    z_mm = _slice_heights(rng, patient, slices)
    field_of_view = float(np.clip(2 * patient.body_half_width * rng.uniform(1.03, 1.18), *FIELD_OF_VIEW_MM))
    pixel_mm = field_of_view / params.rows_cols
    slack = (field_of_view / 2 - patient.body_half_width) / 2
    offset = float(np.clip(rng.normal(0, 5), -slack, slack)), float(rng.normal(4, 6))
    canvas = Canvas(rng, z_mm, params.rows_cols, pixel_mm, turn=np.radians(rng.normal(0, 2.0)), offset_mm=offset)
    kidney = draw_patient(canvas, patient, rng)  # (Z,H,W) bool

    hu = gaussian_filter(canvas.hu, (0, 0.45, 0.45))  # the detector's blur on top of the painted partial volume
    hu += params.noise_hu * patient.noise_factor * _ct_noise(rng, canvas, patient)
    volume = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    spacing = np.array([pixel_mm, pixel_mm, z_mm[1] - z_mm[0]])
    return _stored(volume, kidney.astype(np.uint8), spacing, rng.normal(0, 60, 3), ORIENTATIONS[number % 4])


def write_scan(scan: Scan, folder: Path) -> None:
    """`imaging.nii.gz` (int16 HU) and `segmentation.nii.gz` (uint8) in a new folder, both with the scan's affine."""
    folder.mkdir(parents=True)
    for name, data in (("imaging", scan.volume), ("segmentation", scan.kidney)):
        image = nib.Nifti1Image(data, scan.affine)
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"{name}.nii.gz")


def write_scans(params: PhantomParams, seed: int, path: Path | str, numbers: Iterable[int]) -> None:
    """Scans as `path`/cases/case_0001 …, the whole folder or nothing; `numbers` runs over 1 … `params.patients`."""
    with atomic_folder(path) as folder:
        for number in numbers:
            write_scan(simulate_scan(params, seed, number), folder / "cases" / f"case_{number:04d}")


def _slice_heights(rng: np.random.Generator, patient: Patient, slices: int) -> np.ndarray:
    """Heights in mm of a scan that reaches past both kidneys, with a few slices above and below."""
    low, high = patient.kidney_span()
    spacing = (high - low) / (slices * rng.uniform(0.80, 0.90))
    spare = slices * spacing - (high - low)
    start = low - spare * rng.uniform(0.25, 0.6) + spacing / 2
    return start + spacing * np.arange(slices)


def _ct_noise(rng: np.random.Generator, canvas: Canvas, patient: Patient) -> np.ndarray:
    """Noise (Z,H,W) of unit spread in the middle, with CT's correlation: the reconstruction's ramp under a smooth
    kernel (noise power spectrum of filtered backprojection, Riederer et al. 1978), weaker towards the skin."""
    white = rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(canvas.grid)[:, None], np.fft.rfftfreq(canvas.grid)[None])  # cycles per pixel
    transfer = np.sqrt(frequency) * np.exp(-((frequency / 0.33) ** 2))
    noise = np.fft.irfft2(np.fft.rfft2(white) * transfer, s=white.shape[1:]).astype(np.float32)
    distance = np.hypot(canvas.x / patient.body_half_width, canvas.y / patient.body_half_depth)
    weight = 0.55 + 0.45 * np.exp(-((distance / 0.75) ** 2))  # (H,W)
    return noise / noise.std() * weight.astype(np.float32)


def _stored(volume: np.ndarray, kidney: np.ndarray, spacing: np.ndarray, centre_mm: np.ndarray,
            orientation: str) -> Scan:
    """Turn (slice, row, column) arrays into a scan stored in the given orientation, centred on a point in mm."""
    # Rows run to the back and columns to the patient's left; RAS runs the other way on both.
    ras = [array[:, ::-1, ::-1].transpose(2, 1, 0) for array in (volume, kidney)]  # (X,Y,Z)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre_mm - spacing * (np.array(ras[0].shape) - 1) / 2
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = affine @ inv_ornt_aff(turn, ras[0].shape)
    stored = [np.ascontiguousarray(apply_orientation(array, turn)) for array in ras]
    return Scan(stored[0], stored[1], affine)

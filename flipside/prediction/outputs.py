"""What is written of one scan: mask, attribution and counterfactual on its own grid, its slices, its row."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import tifffile
from PIL import Image

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.files import naming_a_full_disk, write_json
from flipside.core.row_batches import row_batches
from flipside.core.store import RGB, apply_window
from flipside.masks.extraction.thresholds import Cut
from flipside.masks.placing import mask_on_own_grid, on_own_grid, safe_name, save_nifti, voxel_mm3
from flipside.masks.volumes import clean_volume, largest_component_voxels
from flipside.prediction.marking import heights_and_thresholds
from flipside.prediction.prepared import PreparedScan
from flipside.prediction.trained import TrainedRun
from flipside.report.pictures import outlined
from flipside.scans.geometry import Geometry, from_slices, slices_shape
from flipside.scans.pixels import resize_bilinear, resize_nearest
from flipside.scans.readers import Volume

DONE, ABNORMAL = "done", "abnormal"
ROW, SLICES, THUMBNAIL = "prediction.json", "slices.csv", "thumbnail.jpg"
PARTIAL = ".partial"  # how the name of a folder in the making ends
SHARED = ".parts"  # in the folder of predictions: by which workers say what they have done
FULL = 65535  # the number that stands for an attribution of 1
THUMBNAIL_SIDE, THUMBNAIL_QUALITY = 224, 80


@dataclass(frozen=True)
class OnOwnGrid:
    """A scan's results as slices on their native grid."""

    mask: np.ndarray  # (Z,R,C) uint8 0/1
    attribution: np.ndarray  # (Z,R,C) uint16, FULL is 1
    counterfactual: list[Volume]  # of each volume of the scan; [] where the method makes none


MoreFiles = Callable[[Path, PreparedScan, OnOwnGrid], list[str]]  # writes into a scan's folder and names the files


def write_prediction(out: Path, done: PreparedScan, run: TrainedRun, cut: Cut, more: MoreFiles | None) -> None:
    """An explained scan's folder in `out`, whole or not at all.

    more: writes further files; what it raises becomes a warning, as the scan's other files are right without them.
    Raises DiskFullError.
    """
    geometry, whole = done.scan.volume.geometry, place(done, run, cut)
    names = [""] if run.volumes == 1 else [f"_{safe_name(name)}" for name in run.block.volume_names(run.volumes)]
    with _whole_folder(out / done.new.name) as folder:
        files = (write_images(folder, whole, geometry) if geometry.is_image
                 else write_volumes(folder, whole, geometry, names))
        if more is not None:
            try:
                files += more(folder, done, whole)
            except (ValueError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
                # What pydicom and highdicom raise for headers that lack something or contradict themselves.
                told = done.new.without_names(str(error), run.extract.patient_salt)
                done.warnings.append(f"no DICOM objects: {told}")
        slices = pd.DataFrame({
            "z": done.z, "probability": done.probability, "called": [called(p) for p in done.probability],
            "marked_px": np.count_nonzero(whole.mask[done.z], axis=(1, 2))})
        slices.to_csv(folder / SLICES, index=False, float_format="%.6g")
        worst = slices.sort_values(["probability", "marked_px"], ascending=False, kind="stable").index[0]
        draw_thumbnail(done, int(worst), whole.mask[done.z[worst]]).save(folder / THUMBNAIL, quality=THUMBNAIL_QUALITY)
        row = {"scan": done.new.name, "file": done.new.file, "status": DONE} | measured(slices, whole, geometry)
        write_json(folder / ROW, {"source": done.new.source, "files": files, "row": row | {
            "worst_z": int(done.z[worst]), "warnings": "; ".join(done.warnings)}})


@contextlib.contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes a scan's when the block succeeds, unless another process has done the scan
    meanwhile. Each process has its own, as several may work in one folder of predictions."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with naming_a_full_disk(path):
            temporary.mkdir(parents=True)
            yield temporary
        if not (path / ROW).is_file():
            shutil.rmtree(path, ignore_errors=True)  # what stands there is no prediction
            try:
                os.rename(temporary, path)
            except OSError:
                if not (path / ROW).is_file():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """What workers left, and what killed processes left half-written of scans that are done since."""
    shutil.rmtree(out / SHARED, ignore_errors=True)
    for leftover in out.glob(f".*{PARTIAL}"):
        name = leftover.name[1:].removesuffix(PARTIAL).rpartition(".")[0]
        if name and (out / name / ROW).is_file():
            shutil.rmtree(leftover, ignore_errors=True)


def finished(out: Path) -> list[Path]:
    """The folders of the scans that are done, sorted; what a killed run left half-written isn't among them."""
    return sorted(file.parent for file in out.glob(f"*/{ROW}") if not file.parent.name.startswith("."))


def measured(slices: pd.DataFrame, whole: OnOwnGrid, geometry: Geometry) -> dict[str, Any]:
    """The numbers of a scan's row, of the table of its slices and its mask."""
    size, unit = voxel_mm3(geometry), "px" if geometry.is_image else "mm3"
    probability = float(slices["probability"].max())
    return {
        "probability": probability, "called": called(probability),
        f"lesion_{unit}": float(np.count_nonzero(whole.mask) * size),
        f"largest_component_{unit}": float(largest_component_voxels(whole.mask) * size),
        "slices": len(slices), "slices_called": int((slices["probability"] >= CALLED_ABNORMAL).sum()),
        "slices_marked": int((slices["marked_px"] > 0).sum())}


def called(probability: float) -> str:
    """What the classifier calls a slice, or a scan by its highest probability."""
    return ABNORMAL if probability >= CALLED_ABNORMAL else "healthy"


def place(done: PreparedScan, run: TrainedRun, cut: Cut) -> OnOwnGrid:
    """Interpolate a scan's maps onto its own grid, cut them there, and clean the mask of a volume."""
    geometry, attribution, change = done.scan.volume.geometry, done.attribution, done.change
    shape = slices_shape(geometry)
    mask, levels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint16)
    heights, thresholds = heights_and_thresholds(attribution, done.organ, done.probability, cut, run.masks)
    for part in row_batches((len(done.z), *shape[1:])):
        z = done.z[part]
        mask[z] = mask_on_own_grid(heights[part], thresholds[part], run.masks.morphology, geometry)
        levels[z] = np.rint(on_own_grid(attribution[part], geometry).clip(0, 1) * FULL)
    if not geometry.is_image:
        mask = clean_volume(mask, done.z, voxel_mm3(geometry), run.segmentation.volumes)
    counterfactual = [] if change is None else [
        changed(volume, change[:, v], done.z, done.window[v]) for v, volume in enumerate(done.scan.channels)]
    return OnOwnGrid(mask, levels, counterfactual)


def changed(volume: Volume, change: np.ndarray, z: np.ndarray, window: np.ndarray) -> Volume:
    """The scan with the change (K,H,W) of some slices z (K,) interpolated onto its grid and added, in its own units.

    So it keeps all detail that the models don't see, and is equal to the scan where nothing changed. The change is in
    the models' range, of which 2 is the width of the window (2,).
    """
    stored = volume.stored.astype(volume.stored.dtype.newbyteorder("="))  # a copy
    whole, scale = np.issubdtype(stored.dtype, np.integer), (window[1] - window[0]) / 2 / volume.slope
    limits = np.iinfo(stored.dtype) if whole else np.finfo(stored.dtype)
    for part in row_batches((len(z), *stored.shape[1:])):
        added = on_own_grid(change[part], volume.geometry) * np.float32(scale)  # (K,R,C)
        values = stored[z[part]] + (np.rint(added) if whole else added)
        stored[z[part]] = np.clip(values, limits.min, limits.max)
    return Volume(stored, volume.slope, volume.intercept, volume.geometry)


def write_volumes(folder: Path, whole: OnOwnGrid, geometry: Geometry, names: list[str]) -> list[str]:
    """NIfTI with the scan's affine: mask.nii.gz (1: lesion), attribution.nii.gz (0 to 1), counterfactual.nii.gz in the
    scan's units, one for each of its volumes, named as these."""
    def save(name: str, slices: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> str:
        file = f"{name}.nii.gz"
        save_nifti(folder / file, np.ascontiguousarray(from_slices(slices, geometry)), geometry, slope, intercept)
        return file

    return [save("mask", whole.mask), save("attribution", whole.attribution, 1 / FULL),
            *(save(f"counterfactual{name}", volume.stored, volume.slope, volume.intercept)
              for name, volume in zip(names, whole.counterfactual, strict=bool(whole.counterfactual)))]


def write_images(folder: Path, whole: OnOwnGrid, geometry: Geometry) -> list[str]:
    """PNG of the picture's size: mask.png (255: lesion), attribution.png (16 bits, 65535: 1), counterfactual.png in the
    picture's own numbers; these as TIFF where PNG can't hold them."""
    _write_png(folder / "mask.png", whole.mask[0] * np.uint8(255))
    _write_png(folder / "attribution.png", whole.attribution[0])
    files = ["mask.png", "attribution.png"]
    if whole.counterfactual:
        planes = [volume.stored[0] for volume in whole.counterfactual]
        picture = planes[0] if len(planes) == 1 else np.stack(planes, axis=-1)  # (R,C) or (R,C,3)
        as_png = picture.dtype in (np.uint8, np.uint16) and picture.shape[2:] in ((), (len(RGB),))
        files.append(f"counterfactual.{'png' if as_png else 'tif'}")
        if as_png:
            _write_png(folder / files[-1], picture)
        else:
            tifffile.imwrite(folder / files[-1], picture, metadata=None)
    return files


def _write_png(file: Path, picture: np.ndarray) -> None:
    file.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(picture)))


def draw_thumbnail(done: PreparedScan, k: int, mask: np.ndarray) -> Image.Image:
    """Slice k in its window with the outline of its mask (R,C), small."""
    native = done.scan.image_slice(int(done.z[k]))  # (V,R,C)
    shown = np.stack([apply_window(plane, (low, high)) for plane, (low, high) in zip(
        native, done.window.tolist(), strict=True)])
    shown = shown if len(shown) == len(RGB) and done.scan.volume.geometry.is_image else shown[:1]
    row_mm, column_mm, _ = done.scan.spacing_mm
    sides = mask.shape[0] * row_mm, mask.shape[1] * column_mm
    rows, columns = (max(1, round(THUMBNAIL_SIDE * side / max(sides))) for side in sides)
    small = np.stack([resize_bilinear(plane.astype(np.float32), rows, columns) for plane in shown])
    small = small if len(small) == len(RGB) else small[0]
    return Image.fromarray(outlined(small, resize_nearest(mask, rows, columns)))

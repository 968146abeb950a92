"""A tiny data/extracted and the parameters of the stages that read it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from flipside.core.packed_masks import write_packed
from flipside.scans.geometry import Geometry

FILTER = {
    "min_organ_px": 40, "window": "fingerprint", "ct_window": [-160, 350], "scan_percentiles": [0.5, 99.5],
    "fingerprint_percentiles": [0.5, 99.5], "saturation_warning": 0.1, "saturation_limit": 0.5, "val_fraction": 0.2,
    "test_fraction": 0.2, "use_given_split": False, "duplicate_distance": 16,
}
ANOMALIES = {
    "probability": 0.65, "draws_per_slice": 1, "template_fraction": 0.2, "sigma": 0.4, "gt_threshold": 0.25,
    "amplitude": 0.9, "scale_range": [0.75, 1.0], "distortion": 0.2, "distortion_probability": 0.5,
    "rotation_degrees": 90.0, "rotation_probability": 0.5, "min_organ_bbox_fraction": 0.0015, "bbox_margin": 0.05,
}
AUGMENTATION = {
    "enabled": False, "transforms": ["flip", "rotation", "translation"], "rotation_degrees": 10.0,
    "translation_fraction": 0.05,
}


def write_params(root: Path, seed: int = 7, **changes: dict) -> None:
    """params.yaml with the stages' sections; `filter={...}` and the like change single values."""
    sections = {"filter": FILTER, "anomalies": ANOMALIES, "offline_augmentation": AUGMENTATION}
    merged = {name: section | changes.get(name, {}) for name, section in sections.items()}
    (root / "params.yaml").write_text(yaml.safe_dump({"seed": seed, **merged}))


def write_extracted(root: Path, patients: int = 10, slices: int = 4, size: int = 32, anomalies: bool = True,
                    lesions: tuple[int, ...] = (), given: dict[int, str] | None = None) -> pd.DataFrame:
    """Random smooth images of `patients` scans with two square organs; `lesions`: patients with a lesion in each slice.

    Slice 0 of each scan has exactly 40 native organ pixels, the others 200. Returns the index as written.
    """
    generator = np.random.default_rng(0)
    count = patients * slices
    coarse = generator.normal(size=(count, 8, 8)).astype(np.float32)
    images = np.kron(coarse, np.ones((1, size // 8, size // 8), np.float32)) * 30
    organ = np.zeros((count, size, size), np.uint8)
    organ[:, 8:18, 4:14] = 1
    organ[:, 8:18, 18:28] = 1
    images[organ == 1] = images[organ == 1] * 0.2 + 40
    lesion = np.zeros_like(organ)
    patient = np.repeat(np.arange(patients), slices)
    for position in np.flatnonzero(np.isin(patient, lesions)):
        lesion[position, 10:13, 6:10] = 1
    z = np.tile(np.arange(slices), patients)
    names = [f"p{number:02d}" for number in patient]
    index = pd.DataFrame({
        "slice_id": [f"{name}_z{height}" for name, height in zip(names, z, strict=True)],
        "scan_id": [f"scan_{name}" for name in names], "patient_id": names, "z": z, "spacing_row_mm": 1.5,
        "spacing_col_mm": 1.5, "spacing_z_mm": 3.0, "native_rows": 64, "native_cols": 64,
        "organ_px": np.where(z == 0, 40, 200), "source_file": [f"{name}.nii.gz" for name in names],
        "lesion_px": lesion.sum(axis=(1, 2)) * 4, "sha256": [f"{number:064x}" for number in range(count)],
        "class_label": -1, "slice_number": np.nan,
    })
    folder = root / "data/extracted"
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    for name, masks in (("organ", organ), ("lesion", lesion)):
        write_packed(folder / f"{name}.npy", masks)
    scans = index.groupby("scan_id", as_index=False).agg(patient_id=("patient_id", "first"), px=("lesion_px", "sum"),
                                                         source_file=("source_file", "first"))
    scans["lesion_volume_mm3"] = scans.pop("px") * 3.0 * (1 + np.arange(patients))
    scans["geometry"] = Geometry.of_image(size, size).to_json()
    scans["given_split"] = [(given or {}).get(number, "") for number in range(patients)]
    write_tables(root, index, scans)
    foreground = {f"scan_p{number:02d}": generator.normal(40, 10 + number, 500).astype(np.float32)
                  for number in range(patients)}
    np.savez(folder / "foreground.npz", **foreground)
    manifest = {"dataset": "toy", "anomalies": anomalies, "lesion_threshold_px": 10, "modality": "other",
                "channels": ["image"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return index


def write_tables(root: Path, index: pd.DataFrame, scans: pd.DataFrame) -> None:
    index.to_csv(root / "data/extracted/index.csv", index=False)
    scans.to_csv(root / "data/extracted/scans.csv", index=False)

"""Stage: one method's masks of the test slices -> segmentations of whole scans on their original grids."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.core import paths
from flipside.core.files import atomic_folder
from flipside.core.packed_masks import Stack
from flipside.core.params import ParamsError, announce, load_section, read_params, stage_main, value_at
from flipside.core.progress import progress
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import MaskError
from flipside.masks.method_masks import open_masks
from flipside.masks.placing import SegmentScansParams, file_name, read_geometries, voxel_mm3, write_segmentation


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, masks of the test slices, original grids.
    params = load_section("segment_scans", SegmentScansParams)
    methods = value_at(read_params(), "methods") | value_at(read_params(), "foreign_maps")
    if params.method not in methods:
        raise ParamsError(f"params.yaml: `segment_scans.method` is {params.method!r}, which has no block under "
                          f"`methods` or `foreign_maps`; there are: {', '.join(methods)}")
    announce("segment_scans", segment_scans=params)
    store = SliceStore.open("data/slices")
    masks, table = test_masks(store, params)
    geometries = read_geometries(table["scan_id"])
    names = {scan_id: file_name(scan_id, geometry) for scan_id, geometry in geometries.items()}
    if len(set(names.values())) < len(names):
        raise MaskError("two scans would get the same file name: "
                        "scan ids must differ in letters, digits, underscores, dots or dashes")

    # Outputs, a scan at a time.
    with atomic_folder("data/segmentations") as folder:
        rows = []
        for scan_id, own in progress(table.groupby("scan_id"), "segmentations", total=len(names)):
            geometry = geometries[scan_id]
            own_masks = masks[own["mask_row"].to_numpy()]  # (K,H,W)
            whole = write_segmentation(folder / names[scan_id], own_masks, own["z"].to_numpy(), geometry,
                                       params.volumes)
            marked = int(np.count_nonzero(whole))
            volume = np.nan if geometry.is_image else marked * voxel_mm3(geometry)
            rows.append({"scan_id": scan_id, "file": names[scan_id], "slices": len(own), "marked_voxels": marked,
                         "marked_mm3": volume})
        pd.DataFrame(rows).to_csv(folder / "index.csv", index=False, float_format="%.6g")
    print(f"data/segmentations: {len(rows)} test scans, {len(table)} slices; {params.method}, policy {params.policy}")


def test_masks(store: SliceStore, params: SegmentScansParams) -> tuple[Stack, pd.DataFrame]:
    """Masks (M,H,W) of a method, and for each test slice that is placed scan_id, z and mask_row (its row in them)."""
    explanations = Explanations.open(paths.explanations(params.method))
    masks = open_masks(params.method, params.policy, explanations, store)  # (M,H,W)
    table = store.index.iloc[store.rows("test")]
    placed = table[table["draw"] == 0]
    if len(placed) < len(table):
        print("several anomalies were drawn for each slice: draw 0 is placed, "
              f"{len(table) - len(placed)} others are left out")
    table = placed.assign(mask_row=pd.Index(explanations.index["slice_id"]).get_indexer(placed["slice_id"]))
    if len(table) == 0 or (table["mask_row"] < 0).any():
        raise MaskError(f"{paths.masks(params.method)} holds masks of {(table['mask_row'] >= 0).sum()} of the "
                        f"{len(table)} test slices of data/slices: run `dvc repro extract_masks@{params.method}`")
    return masks, table[["scan_id", "z", "mask_row"]]


if __name__ == "__main__":
    stage_main(main)

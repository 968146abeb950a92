"""Lesions of whole scans in 3D: which are found, how many are false, how well each is covered, and their volume."""

from __future__ import annotations

import pandas as pd

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.masks.volumes import clean_volume
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import mean_with_interval
from flipside.metrics.volumes import find_stacks, score_volume

STACKED = f"policy {HEADLINE}, the scan's slices stacked and cleaned as `segment_scans.volumes` says"


class LesionVolumes(Family):
    """Of scans with several test slices; none where anomalies were drawn on each slice anew.

    A scan's columns stand in the row of its lowest slice. Slices that the store lacks are empty, in mask and truth
    alike. Components that reach a slice whose lesion vanished in the resize are not counted as false.
    """

    place = 32
    theme = "Lesions of whole scans, in 3D"
    needs = ("lesions",)
    absent = "the data set has no scans of several slices, or its anomalies were drawn on each slice anew"
    metrics = {
        "lesion_dice_3d": Metric(
            "lesion-wise Dice 3D", "mean over lesions and false components of the Dice of each lesion with all that "
            "touches it, 0 for those missed and false, as in BraTS 2023 but without its dilation; per scan with a "
            f"lesion, mean; {STACKED}", True, "n_volumes_with_lesion", interval=True),
        "lesion_sensitivity_3d": Metric(
            "lesions found 3D", "share of the 26-connected lesions of all scans that one 26-connected marked component "
            f"covers with an IoU of at least 0.1; {STACKED}", True, "n_lesions_3d"),
        "false_lesions_per_scan": Metric(
            "false lesions 3D", f"26-connected marked components per scan that touch no lesion; {STACKED}", False,
            "n_volumes", interval=True),
        "volume_error_ml": Metric(
            "volume error ml", "difference of marked and true volume in ml, its size without the sign, per scan, mean; "
            f"of the slices that are in the store; {STACKED}", False, "n_volumes", interval=True),
    }
    counts = {"n_volumes": "scans with several test slices",
              "n_volumes_with_lesion": "of these, scans with a lesion",
              "n_volumes_with_gaps": "of these, scans that lack slices between the lowest and the highest: a lesion on "
                                     "both sides of a gap counts as two",
              "n_lesions_3d": "26-connected lesions of these scans"}
    columns = ("lesions_3d", "lesions_detected_3d", "false_lesions_3d", "lesion_dice_3d", "true_ml", "marked_ml",
               "has_gaps")  # 1: the scan lacks slices between its lowest and its highest

    def applies_to(self, artifacts: MethodArtifacts) -> bool:
        return super().applies_to(artifacts) and any(True for _ in find_stacks(artifacts.test))

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        test, masks = artifacts.test, artifacts.masks(HEADLINE)
        vanished = ((cases["label"] == 1) & (cases["lesion_px"] == 0)).to_numpy()  # (N,)
        for stack in find_stacks(test):
            marked = clean_volume(stack.fill(masks), stack.places, stack.voxel_mm3, artifacts.volumes)  # (Z,H,W)
            score = score_volume(marked, stack.fill(test.lesion), stack.fill(vanished), stack.voxel_mm3)
            cases.loc[stack.rows[0], list(self.columns)] = [
                score.lesions, score.detected, score.false, score.dice, score.true_ml, score.marked_ml,
                float(stack.has_gaps)]

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        scans = cases[cases["lesions_3d"].notna()].assign(
            false_lesions_per_scan=lambda scans: scans["false_lesions_3d"],
            volume_error_ml=lambda scans: (scans["marked_ml"] - scans["true_ml"]).abs())
        ill = scans[scans["lesions_3d"] > 0]
        found = {"n_volumes": len(scans), "n_volumes_with_lesion": len(ill),
                 "n_volumes_with_gaps": int(scans["has_gaps"].sum()),
                 "n_lesions_3d": int(ill["lesions_3d"].sum()),
                 **mean_with_interval(scans, "false_lesions_per_scan", params, seed),
                 **mean_with_interval(scans, "volume_error_ml", params, seed)}
        if len(ill):
            found |= {"lesion_sensitivity_3d": ill["lesions_detected_3d"].sum() / ill["lesions_3d"].sum(),
                      **mean_with_interval(ill, "lesion_dice_3d", params, seed)}
        return found

"""Stage: the classifier's answers to inpainted squares -> ROC curves without inpainting, and with healthy tissue or
lesions inpainted (Major et al. 2020, figure 2)."""

from __future__ import annotations

import argparse

from flipside.artifacts.probes import ProbeParams, Probes
from flipside.artifacts.truth import open_truth
from flipside.core.files import atomic_folder, write_metrics
from flipside.core.params import announce, load_section, load_value, stage_main
from flipside.core.store import SliceStore
from flipside.report.inpainter_roc import draw_arms, draw_roc, inpainting_metrics, roc_curves


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters, answers, truth.
    params = load_section("probe", ProbeParams)
    seed = load_value("seed", int)
    announce("check_inpainter", seed=seed, probe=params)
    probes = Probes.open()
    store = SliceStore.open("data/slices")
    truth = open_truth("data/truth", store.organ.shape)
    rows = store.rows("test")
    slice_ids = store.index["slice_id"].to_numpy()[rows]
    if set(slice_ids) != set(probes.slices["slice_id"]):
        raise ValueError("data/probes and data/slices are of different runs: run `dvc repro probe_inpainter`")
    labels = dict(zip(slice_ids, store.index["label"].to_numpy()[rows], strict=True))
    lesions = dict(zip(slice_ids, truth[rows], strict=True))

    # One random hole of each kind per slice and draw.
    arms = draw_arms(probes, labels, lesions, params, seed)
    metrics = inpainting_metrics(arms, len(rows))

    # Outputs.
    with atomic_folder("reports/inpainter") as folder:
        arms.to_csv(folder / "draws.csv", index=False, float_format="%.6g")
        if "auc_lesion" in metrics:
            curves = roc_curves(arms)
            curves.to_csv(folder / "roc.csv", index=False, float_format="%.6g")
            draw_roc(curves, metrics).savefig(folder / "roc.png", dpi=120, metadata={"Software": None})
    write_metrics("reports/inpainter.json", metrics)
    if "auc_lesion" not in metrics:
        print(f"no curves: {metrics['n_abnormal']} abnormal and {metrics['n_healthy']} healthy test slices have holes "
              "both on a lesion and off it; the check needs lesion masks and holes that cover them (`probe`)")
    else:
        print("AUC as they are {auc_original:.3f}, healthy tissue inpainted {auc_healthy:.3f}, lesion inpainted "
              "{auc_lesion:.3f}; mean logit of abnormal slices moves by {logit_shift_healthy:+.2f} and "
              "{logit_shift_lesion:+.2f}; {n_left_out} slices left out".format(**metrics))


if __name__ == "__main__":
    stage_main(main)

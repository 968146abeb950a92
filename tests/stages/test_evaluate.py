"""Two methods' maps become masks and numbers, by the stages' own mains."""

import gc
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import ndimage
from skimage import measure

from flipside.artifacts.explanations import Explanations
from flipside.artifacts.truth import write_truth
from flipside.core.packed_masks import write_packed
from flipside.core.store import SliceStore
from flipside.masks.extraction.thresholds import MaskError, read_cuts
from flipside.masks.method_masks import open_masks
from flipside.metrics import method_artifacts, registry
from stages import evaluate, extract_masks
from tests.stages.project_of_two import (
    METHODS,
    POLICIES,
    SECTIONS,
    SIZE,
    rewrite_index,
    run,
    run_all,
    slices,
    write_project,
)


def masks_of(method, name):
    return open_masks(method, name, Explanations.open(f"data/explanations/{method}"), SliceStore.open("data/slices"))[:]


def test_masks_are_the_maps_above_the_chosen_thresholds(project_of_two):
    run(extract_masks, "--method", "good")
    maps = np.load("data/explanations/good/attribution.npy").astype(np.float32)
    empty = pd.read_csv("data/explanations/good/index.csv")["f_x"].to_numpy() < 0.5  # what the classifier calls healthy
    chosen = json.loads(Path("data/masks/good/thresholds.json").read_text())
    assert chosen["label_free"] == chosen["label_free_raw"] == {
        "rule": "share_of_maximum", "background": "median", "smooth_px": 1, "share": 0.5}
    base, top = np.median(maps, axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    threshold = {**chosen, "label_free": base + (top - base) / 2, "label_free_raw": base + (top - base) / 2}
    index = pd.read_csv("data/masks/good/index.csv")
    assert list(index) == ["slice_id", "split"] and set(index["split"]) == {"val", "test"}
    for policy in POLICIES:
        masks, raw = (masks_of("good", f"{policy}{suffix}") for suffix in ("", "_raw"))
        assert masks.dtype == raw.dtype == np.uint8 and masks.shape == raw.shape == maps.shape
        assert empty.any() and not raw[empty].any()
        np.testing.assert_array_equal(raw[~empty], (maps > np.float32(threshold[f"{policy}_raw"]))[~empty])
        cut = (maps > np.float32(threshold[policy])) & ~empty[:, None, None]
        opened = ndimage.grey_opening(cut.astype(np.uint8), size=(1, 3, 3), mode="nearest")
        closed = ndimage.grey_closing(opened, size=(1, 3, 3), mode="nearest")
        for mask, candidate in zip(masks, closed, strict=True):
            sizes = [region.area for region in measure.regionprops(measure.label(candidate, connectivity=2))]
            assert mask.sum() == max(sizes, default=0) and (mask <= candidate).all()
    sweep = pd.read_csv("data/masks/good/sweep.csv")
    assert list(sweep) == ["threshold", "iou_val", "iou_val_raw", "iou_test", "iou_test_raw"]
    assert chosen["val"] == pytest.approx(sweep["threshold"][sweep["iou_val"].idxmax()])


def test_masks_keep_to_the_organ_and_have_no_gate_where_the_parameters_say_so(project_of_two):
    organ = SliceStore.open("data/slices").organ[:]
    organ[:, :, SIZE // 2:] = 0
    write_packed("data/slices/organ.npy", organ)
    Path("params.yaml").write_text(yaml.safe_dump(
        SECTIONS | {"masks": SECTIONS["masks"] | {"inside_organ": True, "gate": False}}))
    run(extract_masks, "--method", "blind")
    for policy in POLICIES:
        masks = masks_of("blind", f"{policy}_raw")
        assert masks[:, :, : SIZE // 2].any(axis=(1, 2)).all() and not masks[:, :, SIZE // 2:].any(), policy


def test_the_project_is_scored_from_maps_to_metrics(project_of_two):
    metrics = run_all()
    good, blind = (metrics[method] for method in METHODS)
    assert good["n_cases"] == blind["n_cases"] == 24 and good["n_healthy"] == 8 and good["n_patients"] == 4
    for policy in POLICIES:
        assert good[f"iou_{policy}"] > 0.8 > 0.3 > blind[f"iou_{policy}"]
        for name in (f"dice_{policy}", f"iou_{policy}_raw", f"iou_pooled_{policy}", f"iou_pooled_{policy}_raw"):
            assert good[name] > blind[name]
        if policy != "label_free":  # the oracle has one threshold for all maps
            assert good[f"iou_{policy}"] <= good["iou_oracle"] and blind[f"iou_{policy}"] <= blind["iou_oracle"]
    assert good["n_val_lesions"] == 18
    assert good["pixel_ap"] > 0.95 and blind["pixel_ap"] < 0.2
    assert good["iou_val_ci_low"] <= good["iou_val"] <= good["iou_val_ci_high"]
    assert (good["success_rate"], good["n_success_rate"], good["cv"]) == (1, 24, 1)
    judged = pd.read_csv("data/judgements/good.csv").merge(slices()[2][["slice_id", "split"]], on="slice_id")
    judged = judged[(judged["split"] == "test") & (judged["judge_x"] > 0.5)]
    assert good["n_judge_flip_rate"] == len(judged) == 24
    assert good["judge_flip_rate"] == pytest.approx((judged["judge_x_cf"] < 0.5).mean())
    assert good["n_bounded_flip_rate"] == 24
    assert good["bounded_flip_rate"] == pytest.approx((judged["judge_x_cf"] < 0.5).mean())  # 42 pixels of 1024 change
    assert good["flips_beyond_bound"] == 0
    sweep = pd.read_csv("reports/flips_by_bound.csv")
    assert set(sweep["method"]) == {"good"} and sweep["bounded_flip_rate"].iloc[-1] == pytest.approx(
        good["bounded_flip_rate"])
    assert 0 < good["l1"] < 0.1 and 0 < good["ssim"] < 1
    cases = pd.read_csv("reports/cases.csv")
    called = cases[(cases["method"] == "good") & (cases["f_x"] > 0.5)]
    assert called["slice_id"].iloc[-1] == "scan8:7" and called["perceptual_clf"].iloc[-1] == 0.55
    assert good["perceptual_clf"] == pytest.approx(called["perceptual_clf"].mean())
    assert (good["fd_clf"], good["n_realism"]) == (1.25, 24)
    assert blind["wilcoxon_p_holm"] < 0.001 and blind["iou_label_free_difference"] < -0.5
    assert (blind["sanity_randomisation_passed"], blind["randomisation_similarity"]) == (0, 0.97)
    assert (blind["randomisation_ssim"], blind["n_randomisation"]) == (0.96, 16)
    assert good["seconds_training"] == 12.5
    # What a method can't have is absent.
    assert not {"success_rate", "cv", "judge_flip_rate", "l1", "ssim", "n_cv", "fd_clf", "perceptual_clf",
                "seconds_training"} & set(blind)
    assert "lpips" not in good
    assert not {"wilcoxon_p_holm", "sanity_randomisation_passed", "randomisation_similarity"} & set(good)


def test_methods_are_compared_with_the_reference_on_the_same_cases(project_of_two):
    blind = run_all()["blind"]
    cases = pd.read_csv("reports/cases.csv", dtype={"patient_id": str}).dropna(subset="iou_label_free")
    ious = cases.pivot(index=["slice_id", "patient_id"], columns="method", values="iou_label_free")
    difference = ious["blind"] - ious["good"]
    assert blind["iou_label_free_difference"] == pytest.approx(difference.mean(), abs=1e-5)
    assert (blind["iou_label_free_difference_ci_low"] <= blind["iou_label_free_difference"]
            <= blind["iou_label_free_difference_ci_high"])
    assert blind["rank_biserial"] == pytest.approx(-1)  # worse in every case
    # Every one of 4 patients speaks for the reference: over patients that is no more than two sides of a coin, 4 times.
    assert blind["wilcoxon_patients_p_holm"] == pytest.approx(2 / 2**4)


def test_populations_are_counted_with_what_is_left_out(project_of_two):
    _, lesion, index = slices()
    lesion[index.index[index["split"] == "test"][1]] = 0  # as if it had vanished in the resize
    write_truth("data/truth", lesion)
    metrics = run_all()
    table = pd.read_csv("reports/populations.csv").set_index("population")
    assert list(table.columns) == ["meaning", "n_slices", "n_patients", "dropped", "reason"]
    assert (table["n_patients"] == 4).all()
    counts = table[["n_slices", "dropped"]].to_dict("index")
    assert counts == {
        "test": {"n_slices": 32, "dropped": 0}, "lesion": {"n_slices": 23, "dropped": 1},
        "healthy": {"n_slices": 8, "dropped": 0}, "called_abnormal": {"n_slices": 24, "dropped": 8},
        "validity": {"n_slices": 24, "dropped": 8}, "judged": {"n_slices": 24, "dropped": 0}}
    assert table["reason"].isna().tolist() == [dropped == 0 for dropped in table["dropped"]]
    good = metrics["good"]
    assert (good["n_cases"], good["n_healthy"], good["n_success_rate"], good["n_cv"], good["n_judge_flip_rate"]) == (
        23, 8, 24, 24, 24)


def test_methods_that_heard_another_classifier_are_refused(project_of_two):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/explanations/blind", lambda table: table.assign(f_x=table["f_x"].where(
        table["slice_id"] != "scan8:7", 0.4)))
    with pytest.raises(ValueError, match="method blind: f_x of slice scan8:7 is not that of good.*explain@blind"):
        run(evaluate)


def test_distances_detection_and_change_tell_the_good_method_from_the_blind_one(project_of_two):
    metrics = run_all()
    good, blind = (metrics[method] for method in METHODS)
    for name in ("hd95_mm_label_free", "asd_mm_label_free", "hd95_mm_val", "asd_mm_val", "per_fixed_raw"):
        assert good[name] < blind[name], name
    assert good["lesion_fp_per_slice"] == 0
    assert (good["lesion_sensitivity"], good["n_lesions"], good["n_missed_val"]) == (1, 24, 0)
    assert blind["lesion_sensitivity"] < 0.5 and good["n_lesion_fp_per_slice"] == 32
    # Every scan has the same number of lesion slices here, so patients and cases weigh the same.
    for name in ("iou_label_free", "dice_label_free", "pixel_ap", "hd95_mm_val", "asd_mm_label_free"):
        assert good[f"{name}_per_patient"] == pytest.approx(good[name])
    # The counterfactual takes 0.45 of 2 off the lesion and nothing else; the organ is the whole image.
    assert good["change_inside"] == pytest.approx(0.225, rel=1e-3)
    assert good["change_outside"] == good["change_organ"] == 0 and good["change_inside_share"] == 1
    assert good["ncc_change"] == pytest.approx(1, abs=1e-3)
    assert good["n_change_inside"] == 24 and good["n_change_background"] == 0 and "change_background" not in good
    # Of the blind maps, which are noise, 50, 25 and 10 percent are marked: that share of the organ, and of any mask.
    for p, share in ((50, 0.5), (75, 0.25), (90, 0.1)):
        assert blind[f"area_to_organ_p{p}"] == pytest.approx(share, abs=0.01)
        assert blind[f"overlap_reference_p{p}"] == pytest.approx(share, abs=0.05)
        assert f"overlap_reference_p{p}" not in good
    assert not [name for name in blind if name.startswith(("change", "n_change"))]


def test_every_metric_is_explained(project_of_two):
    metrics = run_all()
    for values in metrics.values():
        unknown = {name for name in values if not name.startswith("n_") and "_ci_" not in name} - set(registry.METRICS)
        assert unknown <= {"iou_label_free_difference", "wilcoxon_p_holm"}
        for name in set(values) & set(registry.METRICS) - {"seconds_per_image", "seconds_training"}:
            assert registry.count(values, name) == values[registry.METRICS[name].n] > 0


def test_the_published_ious_are_pooled_with_and_without_morphology_and_per_image_without(project_of_two):
    metrics = run_all()
    _, lesion, index = slices()
    index = index.assign(row=np.arange(len(index))).set_index("slice_id")
    for method in METHODS:
        order = pd.read_csv(f"data/masks/{method}/index.csv")
        rows = index.loc[order["slice_id"]]
        chosen = ((order["split"] == "test").to_numpy() & (rows["label"] == 1).to_numpy())
        truth = lesion[rows["row"]][chosen] > 0
        maps = np.load(f"data/explanations/{method}/attribution.npy").astype(np.float32)[chosen]
        cut = maps > 0.25
        np.testing.assert_array_equal(cut, masks_of(method, "fixed_raw")[chosen] > 0)  # none is gated
        cleaned = masks_of(method, "fixed")[chosen] > 0
        values = metrics[method]
        assert values["iou_pooled_fixed"] == pytest.approx((cleaned & truth).sum() / (cleaned | truth).sum())
        assert values["iou_pooled_fixed_raw"] == pytest.approx((cut & truth).sum() / (cut | truth).sum())
        each = (cut & truth).sum(axis=(1, 2)) / (cut | truth).sum(axis=(1, 2))
        assert values["iou_fixed_raw"] == pytest.approx(each.mean())
        assert values["per_fixed_raw"] == pytest.approx((cut != truth).mean())


def test_lesions_of_zero_change_and_blank_maps_score_the_worst_and_never_break(project_of_two):
    maps = np.load("data/explanations/blind/attribution.npy")
    np.save("data/explanations/blind/attribution.npy", np.zeros_like(maps))
    blind = run_all()["blind"]
    diagonal = pytest.approx(np.hypot(SIZE, SIZE))
    for name in ("hd95_mm_val", "asd_mm_val", *(f"{kind}_mm_p{p}" for kind in ("centre_distance", "hausdorff")
                                               for p in (50, 75, 90))):
        assert blind[name] == diagonal
    assert blind["n_missed_val"] == 24 and blind["lesion_sensitivity"] == blind["lesion_fp_per_slice"] == 0
    assert blind["area_to_organ_p50"] == blind["overlap_reference_p50"] == 0


def test_the_reference_methods_maps_are_met_slice_by_slice_whatever_their_order(project_of_two):
    good = np.load("data/explanations/good/attribution.npy")
    np.save("data/explanations/blind/attribution.npy", good[::-1])  # blind's index is backwards too
    metrics = run_all()
    for p in (50, 75, 90):
        assert metrics["blind"][f"overlap_reference_p{p}"] == 1
        assert metrics["blind"][f"hausdorff_mm_p{p}"] == metrics["good"][f"hausdorff_mm_p{p}"]
    assert metrics["blind"]["hd95_mm_val"] == metrics["good"]["hd95_mm_val"]


def test_where_the_lesion_vanished_nothing_is_scored_and_no_component_is_false(project_of_two):
    lesion = slices()[1]
    lesion[-1] = 0  # scan8:7, labelled abnormal
    write_truth("data/truth", lesion)
    good = run_all()["good"]
    assert (good["n_cases"], good["n_lesion_vanished"], good["n_lesions"]) == (23, 1, 23)
    assert (good["n_lesion_fp_per_slice"], good["n_change_inside"]) == (31, 23)
    cases = pd.read_csv("reports/cases.csv")
    case = cases[(cases["method"] == "good") & (cases["slice_id"] == "scan8:7")].iloc[0]
    assert case[["hd95_mm_val", "lesions", "fp_components", "hausdorff_mm_p50", "change_inside"]].isna().all()


def test_distances_are_in_mm(project_of_two):
    before = run_all()["blind"]
    rewrite_index("data/slices", lambda table: table.assign(spacing_row_mm=2.5, spacing_col_mm=2.5))
    after = run_all()["blind"]
    for name in ("hd95_mm_val", "asd_mm_val", "centre_distance_mm_p90", "hausdorff_mm_p50"):
        assert after[name] == pytest.approx(2.5 * before[name]) and after[name] > 0
    assert {name for name in before if before[name] != pytest.approx(after[name])} == {
        name for name in before if "_mm_" in name or "_ml" in name}
    assert after["volume_error_ml"] == pytest.approx(2.5**2 * before["volume_error_ml"])


def test_cases_hold_what_the_metrics_average(project_of_two):
    metrics = run_all()
    cases = pd.read_csv("reports/cases.csv", dtype={"patient_id": str})
    assert len(cases) == 2 * 32 and not cases.duplicated(["method", "slice_id"]).any()
    assert cases["patient_id"].str.len().eq(3).all()  # 005 stays 005
    _, lesion, index = slices()
    row_of = {slice_id: row for row, slice_id in enumerate(index["slice_id"])}
    for method in METHODS:
        own = cases[cases["method"] == method]
        masks = masks_of(method, "label_free")
        order = pd.read_csv(f"data/masks/{method}/index.csv")["slice_id"]
        ious = []
        for case in own.itertuples():
            mask, true = masks[order[order == case.slice_id].index[0]], lesion[row_of[case.slice_id]]
            assert case.lesion_px == true.sum()
            assert case.f_x == (0.95 if case.label else 0.05)
            assert case.fp_area == pytest.approx((mask & (1 - true)).mean(), rel=1e-4)
            if case.label:
                ious.append((mask & true).sum() / (mask | true).sum())
                assert case.iou_label_free == pytest.approx(ious[-1], rel=1e-4)
            else:
                assert np.isnan(case.iou_label_free)
        assert metrics[method]["iou_label_free"] == pytest.approx(np.mean(ious))
        lesion_cases, healthy = own[own["label"] == 1], own[own["label"] == 0]
        for name in ("hd95_mm_val", "asd_mm_val", "centre_distance_mm_p90", "hausdorff_mm_p75", "area_to_organ_p50"):
            assert metrics[method][name] == pytest.approx(lesion_cases[name].mean(), rel=1e-4)
            assert healthy[name].isna().all()
        assert metrics[method]["lesion_fp_per_slice"] == pytest.approx(own["fp_components"].mean(), rel=1e-4)
    shares = pd.read_csv("reports/curves/shares.csv")
    half = shares[np.isclose(shares["share"], 0.5)].set_index("method")["iou"]
    for method in METHODS:
        assert half[method] == pytest.approx(metrics[method]["iou_label_free"], abs=0.02)
    curves = pd.read_csv("reports/curves/thresholds.csv")
    assert list(curves) == ["method", "threshold", "iou", "iou_raw"] and set(curves["method"]) == set(METHODS)
    assert curves[curves["method"] == "good"]["iou"].max() == pytest.approx(metrics["good"]["iou_oracle"])


def test_subgroups_part_the_cases_by_the_lesions_area_in_mm2(project_of_two):
    rewrite_index("data/slices", lambda table: table.assign(spacing_row_mm=2.0, spacing_col_mm=0.5 + table["z"] / 4))
    metrics = run_all()
    groups = pd.read_csv("reports/subgroups.csv")
    assert groups["method"].tolist() == ["good"] * 3 + ["blind"] * 3
    cases = pd.read_csv("reports/cases.csv")
    for group in groups.itertuples():
        own = cases[(cases["method"] == group.method) & cases["iou_label_free"].notna()]
        least = own["lesion_mm2"].min() - 1 if group.size_group == "small" else group.low_mm2
        own = own[(own["lesion_mm2"] > least) & (own["lesion_mm2"] <= group.high_mm2)]
        assert group.n_cases == len(own) > 0 and group.n_patients == 4
        assert group.iou == pytest.approx(own["iou_label_free"].mean(), rel=1e-4)
        assert group.iou_ci_low <= group.iou <= group.iou_ci_high
    assert groups.groupby("method")["n_cases"].sum().tolist() == [24, 24]
    areas = {z: 42 * 2 * (0.5 + z / 4) for z in range(8)}
    assert set(cases["lesion_mm2"]) == {0, *(areas[z] for z in (1, 2, 3, 5, 6, 7))}
    np.testing.assert_allclose(np.average(groups["iou"][:3], weights=groups["n_cases"][:3]),
                               metrics["good"]["iou_label_free"], rtol=1e-4)


def test_the_same_seed_gives_the_same_bytes(project_of_two):
    run_all()
    first = {file: Path(file).read_bytes() for file in (
        "reports/metrics.json", "reports/cases.csv", "reports/subgroups.csv", "reports/flips_by_bound.csv")}
    run_all()
    assert first == {file: Path(file).read_bytes() for file in first}


def test_a_data_set_without_lesion_masks_is_scored_on_its_counterfactuals(project_of_two, capsys):
    write_project(masks=False)
    metrics = run_all()
    assert set(read_cuts(Path("data/masks/good/thresholds.json"))) == {
        f"{policy}{suffix}" for policy in ("label_free", "fixed", "otsu") for suffix in ("", "_raw")}
    with pytest.raises(MaskError, match="no threshold of the policy val; there are: fixed, label_free, otsu"):
        masks_of("good", "val")
    assert metrics["good"]["success_rate"] == 1 and "iou_val" not in metrics["good"]
    assert "no segmentation metrics" in capsys.readouterr().out
    assert len(pd.read_csv("reports/subgroups.csv")) == 0


def test_lesions_of_whole_scans_are_those_of_the_stacked_masks(project_of_two):
    metrics = run_all()
    good, blind = (metrics[method] for method in METHODS)
    assert (good["n_volumes"], good["n_volumes_with_lesion"], good["n_volumes_with_gaps"]) == (4, 4, 0)
    _, lesion, index = slices()
    scans = [(index["scan_id"] == f"scan{n}").to_numpy() for n in range(5, 9)]
    assert good["n_lesions_3d"] == sum(ndimage.label(lesion[scan], np.ones((3, 3, 3)))[1] for scan in scans)
    masks = masks_of("blind", "label_free")
    order = pd.read_csv("data/masks/blind/index.csv")["slice_id"].str.split(":").str[0]
    errors = [abs(int(masks[(order == f"scan{n}").to_numpy()].sum()) - int(lesion[scan].sum())) / 1000
              for n, scan in zip(range(5, 9), scans, strict=True)]
    assert blind["volume_error_ml"] == pytest.approx(np.mean(errors)) and max(errors) > 0
    assert good["lesion_dice_3d"] > 0.9 > blind["lesion_dice_3d"] and good["false_lesions_per_scan"] == 0
    cases = pd.read_csv("reports/cases.csv")
    filled = cases[(cases["method"] == "good") & cases["lesions_3d"].notna()]
    assert list(filled["slice_id"]) == [f"scan{n}:0" for n in range(5, 9)]


@pytest.mark.parametrize("scans_apart", [False, True])
def test_measured_part_by_part_the_results_are_the_same_to_the_byte(project_of_two, monkeypatch, scans_apart):
    if scans_apart:  # slices of one scan don't stand together, and some scans are all healthy
        rewrite_index("data/slices", lambda table: table.assign(
            scan_id=[f"scan{(row % 7) + 10 * label}" for row, label in enumerate(table["label"])], z=range(len(table))))
    files = [Path(name) for name in ("reports/metrics.json", "reports/cases.csv", "reports/subgroups.csv")]
    run_all()
    whole = [file.read_bytes() for file in files]
    monkeypatch.setattr(method_artifacts, "PART_PIXELS", 1)  # each scan is a part
    run(evaluate)
    assert [file.read_bytes() for file in files] == whole
    assert len(method_artifacts.TestSplit.open().parts()) > 2


def test_no_part_holds_more_slices_than_fit_into_memory_but_for_a_scan_that_has_more(project_of_two, monkeypatch):
    rewrite_index("data/slices", lambda table: table.assign(
        scan_id=["large" if row % 3 else f"small{row}" for row in range(len(table))]))
    monkeypatch.setattr(method_artifacts, "PART_PIXELS", 2 * SIZE * SIZE)
    test = method_artifacts.TestSplit.open()
    scans = test.store.index["scan_id"].to_numpy()[test.rows]
    parts = test.parts()
    assert sorted(np.concatenate(parts)) == list(range(len(test.rows)))
    for places in parts:
        assert len(places) <= 2 or set(scans[places]) == {"large"}
        np.testing.assert_array_equal(test.part(places).lesion, test.lesion[places])


def test_a_part_is_forgotten_before_the_next_one_is_measured(project_of_two, monkeypatch):
    run_all()
    monkeypatch.setattr(method_artifacts, "PART_PIXELS", 1)
    loaded, of_part = [], method_artifacts.MethodArtifacts.of_part

    def counted(self, part):
        gc.collect()
        loaded.append(sum("lesion" in vars(split) for split in gc.get_objects()
                          if isinstance(split, method_artifacts.TestSplit)))
        return of_part(self, part)

    monkeypatch.setattr(method_artifacts.MethodArtifacts, "of_part", counted)
    run(evaluate)
    assert len(loaded) > 4 and max(loaded) == 1

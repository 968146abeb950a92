"""A project of two methods, run from maps to reports by the stages' own mains."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import ndimage
from skimage import measure

from stages.common.explanations import Explanations, write_explanations
from stages.common.files import write_json
from stages.common.store import INDEX_COLUMNS, write_store
from stages.common.truth import write_truth
from stages.evaluate import evaluate, glossary
from stages.segment import extract_masks

SIZE, METHODS = 32, ("good", "blind")
POLICIES = ("fixed", "otsu", "val", "oracle")
SECTIONS = {
    "seed": 3, "strong_supervision": [],
    "methods": {"good": {"needs": "models/generators/good"}, "blind": {"needs": "models/classifiers/classifier"}},
    "masks": {"fixed": 0.25, "sweep_step": 0.01, "morphology": ["open", "close", "largest_component"]},
    "evaluate": {"cv_tau": 0.8, "bootstrap_samples": 300, "confidence": 0.95, "reference_method": "good"},
}


def slices() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Images with a bright square in three slices of four, the squares, and the index: 2 train, 3 val, 4 test scans."""
    generator = np.random.default_rng(0)
    index = pd.DataFrame({"slice_id": [f"scan{n // 8}:{n % 8}" for n in range(72)]})
    patient = np.arange(72) // 8
    index = index.assign(
        scan_id=[f"scan{p}" for p in patient], patient_id=[f"{p:03d}" for p in patient], z=np.arange(72) % 8,
        relative_height=0.5, spacing_row_mm=1.0, spacing_col_mm=1.0, spacing_z_mm=1.0, native_rows=SIZE,
        native_cols=SIZE, label=(np.arange(72) % 4 > 0).astype(int), split=np.array(["train"] * 2 + ["val"] * 3
                                                                                    + ["test"] * 4)[patient],
        organ_px=500, source_file="x.nii.gz")
    images = generator.uniform(-0.5, 0, (72, SIZE, SIZE))
    lesion = np.zeros(images.shape, np.uint8)
    for row in np.flatnonzero(index["label"]):
        top, left = generator.integers(2, SIZE - 10, 2)
        lesion[row, top:top + 7, left:left + 6] = 1
    return (images + 0.5 * lesion).astype(np.float16), lesion, index[INDEX_COLUMNS]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project()
    return tmp_path


def write_project(masks: bool = True):
    Path("params.yaml").write_text(yaml.safe_dump(SECTIONS, sort_keys=False))
    images, lesion, index = slices()
    write_store("data/slices", images, np.ones_like(lesion), index)
    write_truth("data/truth", lesion if masks else np.zeros_like(lesion))
    rows = np.flatnonzero(index["split"] != "train")
    generator = np.random.default_rng(1)
    counterfactual = images[rows] - 0.45 * lesion[rows]
    f_x = np.where(index["label"].iloc[rows] == 1, 0.95, 0.05)
    table = pd.DataFrame({"slice_id": index["slice_id"].iloc[rows], "f_x": f_x, "f_x_cf": 0.1, "steps": np.nan})
    timing = {"seconds": 1.0, "images": len(rows), "seconds_per_image": 1 / len(rows), "device": "CPU",
              "peak_memory_gb": 0.1}
    good = np.clip(0.6 * lesion[rows] + 0.3 * generator.random(counterfactual.shape) ** 3, 0, 1)
    write_explanations("data/explanations/good", good, counterfactual.astype(np.float16), table, timing)
    backwards = np.arange(len(rows))[::-1]  # the order of an explanation's slices is its own
    write_explanations("data/explanations/blind", generator.random(good.shape), None,
                       table.iloc[backwards].assign(f_x_cf=np.nan), timing)
    judgements = table[["slice_id"]].assign(judge_x=f_x, judge_x_cf=np.where(np.arange(len(rows)) % 2, 0.9, 0.1))
    Path("data/judgements").mkdir(exist_ok=True)
    judgements.sample(frac=1, random_state=0).to_csv("data/judgements/good.csv", index=False)
    Path("data/realism").mkdir(exist_ok=True)
    distances = table[["slice_id"]].assign(perceptual_clf=np.arange(len(rows)) / 100, lpips=np.nan)
    distances.sample(frac=1, random_state=1).to_csv("data/realism/good.csv", index=False)
    Path("data/realism/good.json").write_text(json.dumps(
        {"metrics": {"fd_clf": 1.25, "n_realism": 24}, "missing": {"lpips": "no weights"}, "cautions": {}}))
    write_json("reports/training/good/timing.json", {"seconds": 12.5, "steps": 10, "device": "CPU"})
    write_json("data/sanity/good.json", {"reason": "it explains with a generator"})
    write_json("data/sanity/blind.json", {
        "changed": False, "spearman_all": 0.97, "ssim_all": 0.96, "spearman_head": 0.98, "ssim_head": 0.99,
        "threshold": 0.8, "draws": 2, "n_slices": 16, "n_patients": 4})


def run(stage, *arguments):
    sys.argv = [stage.__name__, *arguments]
    stage.main()


def run_all() -> dict:
    for method in METHODS:
        run(extract_masks, "--method", method)
    run(evaluate)
    return json.loads(Path("reports/metrics.json").read_text())


def test_masks_are_the_maps_above_the_chosen_thresholds(project):
    run(extract_masks, "--method", "good")
    maps = np.load("data/explanations/good/attribution.npy").astype(np.float32)
    chosen = json.loads(Path("data/masks/good/thresholds.json").read_text())
    index = pd.read_csv("data/masks/good/index.csv")
    assert list(index) == ["slice_id", "split"] and set(index["split"]) == {"val", "test"}
    for policy in POLICIES:
        masks, raw = (np.load(f"data/masks/good/{policy}{suffix}.npy") for suffix in ("", "_raw"))
        assert masks.dtype == raw.dtype == np.uint8 and masks.shape == raw.shape == maps.shape
        np.testing.assert_array_equal(raw, maps > np.float32(chosen[f"{policy}_raw"]))
        cut = maps > np.float32(chosen[policy])
        opened = ndimage.grey_opening(cut.astype(np.uint8), size=(1, 3, 3), mode="nearest")
        closed = ndimage.grey_closing(opened, size=(1, 3, 3), mode="nearest")
        for mask, candidate in zip(masks, closed, strict=True):
            sizes = [region.area for region in measure.regionprops(measure.label(candidate, connectivity=2))]
            assert mask.sum() == max(sizes, default=0) and (mask <= candidate).all()
    sweep = pd.read_csv("data/masks/good/sweep.csv")
    assert list(sweep) == ["threshold", "iou_val", "iou_val_raw", "iou_test", "iou_test_raw"]
    assert chosen["val"] == pytest.approx(sweep["threshold"][sweep["iou_val"].idxmax()])


def test_the_project_is_scored_from_maps_to_metrics(project):
    metrics = run_all()
    good, blind = (metrics[method] for method in METHODS)
    assert good["n_cases"] == blind["n_cases"] == 24 and good["n_healthy"] == 8 and good["n_patients"] == 4
    for policy in POLICIES:
        assert good[f"iou_{policy}"] > 0.8 > 0.3 > blind[f"iou_{policy}"]
        for name in (f"dice_{policy}", f"iou_{policy}_raw", f"iou_pooled_{policy}", f"iou_pooled_{policy}_raw"):
            assert good[name] > blind[name]
        assert good[f"iou_{policy}"] <= good["iou_oracle"] and blind[f"iou_{policy}"] <= blind["iou_oracle"]
    assert good["pixel_ap"] > 0.95 and blind["pixel_ap"] < 0.2
    assert good["iou_val_ci_low"] <= good["iou_val"] <= good["iou_val_ci_high"]
    assert (good["success_rate"], good["n_success_rate"], good["cv"]) == (1, 24, 1)
    judged = pd.read_csv("data/judgements/good.csv").merge(slices()[2][["slice_id", "split"]], on="slice_id")
    judged = judged[(judged["split"] == "test") & (judged["judge_x"] > 0.5)]
    assert good["n_judge_flip_rate"] == len(judged) == 24
    assert good["judge_flip_rate"] == pytest.approx((judged["judge_x_cf"] < 0.5).mean())
    assert 0 < good["l1"] < 0.1 and 0 < good["ssim"] < 1
    cases = pd.read_csv("reports/cases.csv")
    called = cases[(cases["method"] == "good") & (cases["f_x"] > 0.5)]
    assert called["slice_id"].iloc[-1] == "scan8:7" and called["perceptual_clf"].iloc[-1] == 0.55
    assert good["perceptual_clf"] == pytest.approx(called["perceptual_clf"].mean())
    assert (good["fd_clf"], good["n_realism"]) == (1.25, 24)
    assert blind["wilcoxon_p_holm"] < 0.001 and blind["iou_val_difference"] < -0.5
    assert (blind["sanity_randomisation_passed"], blind["randomisation_similarity"]) == (0, 0.97)
    assert (blind["randomisation_ssim"], blind["n_randomisation"]) == (0.96, 16)
    assert good["seconds_training"] == 12.5
    # What a method can't have is absent.
    assert not {"success_rate", "cv", "judge_flip_rate", "l1", "ssim", "n_cv", "fd_clf", "perceptual_clf",
                "seconds_training"} & set(blind)
    assert "lpips" not in good
    assert not {"wilcoxon_p_holm", "sanity_randomisation_passed", "randomisation_similarity"} & set(good)


def test_methods_are_compared_with_the_reference_on_the_same_cases(project):
    blind = run_all()["blind"]
    cases = pd.read_csv("reports/cases.csv", dtype={"patient_id": str}).dropna(subset="iou_val")
    ious = cases.pivot(index=["slice_id", "patient_id"], columns="method", values="iou_val")
    difference = ious["blind"] - ious["good"]
    assert blind["iou_val_difference"] == pytest.approx(difference.mean(), abs=1e-5)
    assert blind["iou_val_difference_ci_low"] <= blind["iou_val_difference"] <= blind["iou_val_difference_ci_high"]
    assert blind["rank_biserial"] == pytest.approx(-1)  # worse in every case
    # Every one of 4 patients speaks for the reference: over patients that is no more than two sides of a coin, 4 times.
    assert blind["wilcoxon_patients_p_holm"] == pytest.approx(2 / 2**4)


def test_populations_are_counted_with_what_is_left_out(project):
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


def test_methods_that_heard_another_classifier_are_refused(project):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/explanations/blind", lambda table: table.assign(f_x=table["f_x"].where(
        table["slice_id"] != "scan8:7", 0.4)))
    with pytest.raises(ValueError, match="method blind: f_x of slice scan8:7 is not that of good.*explain@blind"):
        run(evaluate)


def test_distances_detection_and_change_tell_the_good_method_from_the_blind_one(project):
    metrics = run_all()
    good, blind = (metrics[method] for method in METHODS)
    for name in ("hd95_mm_val", "asd_mm_val", "per_fixed_raw", "lesion_fp_per_slice"):
        assert good[name] < blind[name], name
    assert (good["lesion_sensitivity"], good["n_lesions"], good["n_missed_val"]) == (1, 24, 0)
    assert blind["lesion_sensitivity"] < 0.5 and good["n_lesion_fp_per_slice"] == 32
    # Every scan has the same number of lesion slices here, so patients and cases weigh the same.
    for name in ("iou_val", "dice_val", "pixel_ap", "hd95_mm_val", "asd_mm_val"):
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


def test_every_metric_is_explained(project):
    metrics = run_all()
    for values in metrics.values():
        unknown = {name for name in values if not name.startswith("n_") and "_ci_" not in name} - set(glossary.METRICS)
        assert unknown <= {"iou_val_difference", "wilcoxon_p_holm"}
        for name in set(values) & set(glossary.METRICS) - {"seconds_per_image", "seconds_training"}:
            assert glossary.count(values, name) == values[glossary.METRICS[name].n] > 0


def test_the_published_ious_are_pooled_with_and_without_morphology_and_per_image_without(project):
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
        np.testing.assert_array_equal(cut, np.load(f"data/masks/{method}/fixed_raw.npy")[chosen] > 0)
        cleaned = np.load(f"data/masks/{method}/fixed.npy")[chosen] > 0
        values = metrics[method]
        assert values["iou_pooled_fixed"] == pytest.approx((cleaned & truth).sum() / (cleaned | truth).sum())
        assert values["iou_pooled_fixed_raw"] == pytest.approx((cut & truth).sum() / (cut | truth).sum())
        each = (cut & truth).sum(axis=(1, 2)) / (cut | truth).sum(axis=(1, 2))
        assert values["iou_fixed_raw"] == pytest.approx(each.mean())
        assert values["per_fixed_raw"] == pytest.approx((cut != truth).mean())


def test_lesions_of_zero_change_and_blank_maps_score_the_worst_and_never_break(project):
    maps = np.load("data/explanations/blind/attribution.npy")
    np.save("data/explanations/blind/attribution.npy", np.zeros_like(maps))
    blind = run_all()["blind"]
    diagonal = pytest.approx(np.hypot(SIZE, SIZE))
    for name in ("hd95_mm_val", "asd_mm_val", *(f"{kind}_mm_p{p}" for kind in ("centre_distance", "hausdorff")
                                               for p in (50, 75, 90))):
        assert blind[name] == diagonal
    assert blind["n_missed_val"] == 24 and blind["lesion_sensitivity"] == blind["lesion_fp_per_slice"] == 0
    assert blind["area_to_organ_p50"] == blind["overlap_reference_p50"] == 0


def test_the_reference_methods_maps_are_met_slice_by_slice_whatever_their_order(project):
    good = np.load("data/explanations/good/attribution.npy")
    np.save("data/explanations/blind/attribution.npy", good[::-1])  # blind's index is backwards too
    metrics = run_all()
    for p in (50, 75, 90):
        assert metrics["blind"][f"overlap_reference_p{p}"] == 1
        assert metrics["blind"][f"hausdorff_mm_p{p}"] == metrics["good"][f"hausdorff_mm_p{p}"]
    assert metrics["blind"]["hd95_mm_val"] == metrics["good"]["hd95_mm_val"]


def test_where_the_lesion_vanished_nothing_is_scored_and_no_component_is_false(project):
    lesion = np.load("data/truth/lesion.npy")
    lesion[-1] = 0  # scan8:7, labelled abnormal
    write_truth("data/truth", lesion)
    good = run_all()["good"]
    assert (good["n_cases"], good["n_lesion_vanished"], good["n_lesions"]) == (23, 1, 23)
    assert (good["n_lesion_fp_per_slice"], good["n_change_inside"]) == (31, 23)
    cases = pd.read_csv("reports/cases.csv")
    case = cases[(cases["method"] == "good") & (cases["slice_id"] == "scan8:7")].iloc[0]
    assert case[["hd95_mm_val", "lesions", "fp_components", "hausdorff_mm_p50", "change_inside"]].isna().all()


def test_distances_are_in_mm(project):
    before = run_all()["blind"]
    rewrite_index("data/slices", lambda table: table.assign(spacing_row_mm=2.5, spacing_col_mm=2.5))
    after = run_all()["blind"]
    for name in ("hd95_mm_val", "asd_mm_val", "centre_distance_mm_p90", "hausdorff_mm_p50"):
        assert after[name] == pytest.approx(2.5 * before[name]) and after[name] > 0
    assert {name for name in before if before[name] != pytest.approx(after[name])} == {
        name for name in before if "_mm_" in name}


def test_cases_hold_what_the_metrics_average(project):
    metrics = run_all()
    cases = pd.read_csv("reports/cases.csv", dtype={"patient_id": str})
    assert len(cases) == 2 * 32 and not cases.duplicated(["method", "slice_id"]).any()
    assert cases["patient_id"].str.len().eq(3).all()  # 005 stays 005
    _, lesion, index = slices()
    row_of = {slice_id: row for row, slice_id in enumerate(index["slice_id"])}
    for method in METHODS:
        own = cases[cases["method"] == method]
        masks = np.load(f"data/masks/{method}/val.npy")
        order = pd.read_csv(f"data/masks/{method}/index.csv")["slice_id"]
        ious = []
        for case in own.itertuples():
            mask, true = masks[order[order == case.slice_id].index[0]], lesion[row_of[case.slice_id]]
            assert case.lesion_px == true.sum()
            assert case.f_x == (0.95 if case.label else 0.05)
            assert case.fp_area == pytest.approx((mask & (1 - true)).mean(), rel=1e-4)
            if case.label:
                ious.append((mask & true).sum() / (mask | true).sum())
                assert case.iou_val == pytest.approx(ious[-1], rel=1e-4)
            else:
                assert np.isnan(case.iou_val)
        assert metrics[method]["iou_val"] == pytest.approx(np.mean(ious))
        lesion_cases, healthy = own[own["label"] == 1], own[own["label"] == 0]
        for name in ("hd95_mm_val", "asd_mm_val", "centre_distance_mm_p90", "hausdorff_mm_p75", "area_to_organ_p50"):
            assert metrics[method][name] == pytest.approx(lesion_cases[name].mean(), rel=1e-4)
            assert healthy[name].isna().all()
        assert metrics[method]["lesion_fp_per_slice"] == pytest.approx(own["fp_components"].mean(), rel=1e-4)
    curves = pd.read_csv("reports/curves/thresholds.csv")
    assert list(curves) == ["method", "threshold", "iou", "iou_raw"] and set(curves["method"]) == set(METHODS)
    assert curves[curves["method"] == "good"]["iou"].max() == pytest.approx(metrics["good"]["iou_oracle"])


def test_subgroups_part_the_cases_by_the_lesions_area_in_mm2(project):
    rewrite_index("data/slices", lambda table: table.assign(spacing_row_mm=2.0, spacing_col_mm=0.5 + table["z"] / 4))
    metrics = run_all()
    groups = pd.read_csv("reports/subgroups.csv")
    assert groups["method"].tolist() == ["good"] * 3 + ["blind"] * 3
    cases = pd.read_csv("reports/cases.csv")
    for group in groups.itertuples():
        own = cases[(cases["method"] == group.method) & cases["iou_val"].notna()]
        least = own["lesion_mm2"].min() - 1 if group.size_group == "small" else group.low_mm2
        own = own[(own["lesion_mm2"] > least) & (own["lesion_mm2"] <= group.high_mm2)]
        assert group.n_cases == len(own) > 0 and group.n_patients == 4
        assert group.iou_val == pytest.approx(own["iou_val"].mean(), rel=1e-4)
        assert group.iou_val_ci_low <= group.iou_val <= group.iou_val_ci_high
    assert groups.groupby("method")["n_cases"].sum().tolist() == [24, 24]
    areas = {z: 42 * 2 * (0.5 + z / 4) for z in range(8)}
    assert set(cases["lesion_mm2"]) == {0, *(areas[z] for z in (1, 2, 3, 5, 6, 7))}
    np.testing.assert_allclose(np.average(groups["iou_val"][:3], weights=groups["n_cases"][:3]),
                               metrics["good"]["iou_val"], rtol=1e-4)


@pytest.mark.parametrize("spacing", [0.0, -1.0, np.nan])
def test_a_spacing_that_cannot_be_is_refused_by_name(project, spacing):
    rewrite_index("data/slices", lambda table: table.assign(
        spacing_col_mm=table["spacing_col_mm"].where(table["slice_id"] != "scan8:7", spacing)))
    with pytest.raises(ValueError, match="spacing_col_mm of scan8:7.*extract_slices"):
        run_all()


def test_the_same_seed_gives_the_same_bytes(project):
    run_all()
    first = {file: Path(file).read_bytes() for file in (
        "reports/metrics.json", "reports/cases.csv", "reports/subgroups.csv")}
    run_all()
    assert first == {file: Path(file).read_bytes() for file in first}


def test_a_data_set_without_lesion_masks_is_scored_on_its_counterfactuals(project, capsys):
    write_project(masks=False)
    metrics = run_all()
    assert sorted(file.name for file in Path("data/masks/good").glob("*.npy")) == [
        "fixed.npy", "fixed_raw.npy", "otsu.npy", "otsu_raw.npy"]
    assert metrics["good"]["success_rate"] == 1 and "iou_val" not in metrics["good"]
    assert "no segmentation metrics" in capsys.readouterr().out
    assert len(pd.read_csv("reports/subgroups.csv")) == 0


def write_left_organ():
    """The left half of every slice is the organ."""
    images, _, index = slices()
    organ = np.zeros(images.shape, np.uint8)
    organ[:, :, : SIZE // 2] = 1
    write_store("data/slices", images, organ, index)


def write_badly_remade():
    """Let `good` make every image anew and get the right half wrong."""
    written = Explanations.open("data/explanations/good")
    healthy = np.array(written.counterfactual)
    healthy[:, :, SIZE // 2:] += 0.4
    write_explanations("data/explanations/good", np.array(written.attribution), healthy, written.index, written.timing)


def write_abnormal(missing=0, unjudged=0):
    """Let `good` also make images abnormal: they differ from its healthy ones in a square, left or right in turn.

    Of the healthy slices all but the first are called abnormal then; the judge agrees on every other one. `missing`,
    `unjudged`: so many slices lack their f and their judgement.
    """
    _, _, index = slices()
    written = Explanations.open("data/explanations/good")
    rows = index.set_index("slice_id").index.get_indexer(written.index["slice_id"])
    healthy = np.array(written.counterfactual)
    abnormal = healthy.copy()
    abnormal[0::8, 4:8, 4:8] += 0.25
    abnormal[4::8, 4:8, -8:-4] -= 0.25
    f_ab = np.where(np.arange(len(rows)) % 4 == 0, 0.9, 0.05)
    f_ab[np.flatnonzero(index["split"].iloc[rows] == "test")[0]] = 0.1
    f_ab[len(rows) - missing :] = np.nan
    write_explanations("data/explanations/good", np.array(written.attribution), healthy,
                       written.index.assign(f_x_ab=f_ab), written.timing, abnormal)
    judge = pd.Series(np.where(np.arange(len(rows)) % 8 == 0, 0.7, 0.3), written.index["slice_id"])
    judge.iloc[len(rows) - unjudged :] = np.nan
    judgements = pd.read_csv("data/judgements/good.csv")
    judgements.assign(judge_x_ab=judgements["slice_id"].map(judge)).to_csv("data/judgements/good.csv", index=False)


def test_images_made_abnormal_are_measured_where_a_method_makes_them(project):
    write_left_organ()
    write_badly_remade()
    before = run_all()
    write_abnormal()
    after = run_all()
    assert after["blind"] == before["blind"]
    added = {name: value for name, value in after["good"].items() if name not in before["good"]}
    assert {name: value for name, value in after["good"].items() if name in before["good"]} == before["good"]
    assert {name for name in added if not name.startswith("n_") and "_ci_" not in name} <= set(glossary.METRICS)
    # 8 healthy test slices, every other one with a square in the organ, beginning with the one that doesn't convince
    assert added["n_success_rate_to_abnormal"] == added["n_cv_to_abnormal"] == 8
    assert added["success_rate_to_abnormal"] == added["cv_to_abnormal"] == 7 / 8
    assert (added["n_judge_flip_rate_to_abnormal"], added["judge_flip_rate_to_abnormal"]) == (8, 4 / 8)
    assert added["n_added_in_organ"] == added["n_added_peak_in_organ"] == 7
    assert added["added_in_organ"] == added["added_peak_in_organ"] == 3 / 7 and added["added_in_organ_chance"] == 0.5
    cases = pd.read_csv("reports/cases.csv")
    assert cases[cases["method"] == "good"][["f_x_ab", "judge_x_ab"]].notna().all(axis=None)
    assert cases[cases["method"] == "blind"][["f_x_ab", "judge_x_ab", "added_in_organ"]].isna().all(axis=None)


def test_images_made_abnormal_without_their_probability_are_refused(project):
    run_all()
    write_abnormal(missing=2)
    with pytest.raises(ValueError, match="lacks f_x_ab of 2 test slices.*explain@good"):
        run(evaluate)


def test_images_made_abnormal_that_the_judge_has_not_seen_are_refused(project):
    run_all()
    write_abnormal(unjudged=3)
    with pytest.raises(ValueError, match="lacks judge_x_ab of 3 test slices.*judge_counterfactuals"):
        run(evaluate)


def rewrite_index(folder, change):
    file = Path(folder) / "index.csv"
    change(pd.read_csv(file)).to_csv(file, index=False)


def test_a_method_with_other_cases_is_named(project):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/explanations/blind", lambda table: table.assign(slice_id=table["slice_id"].replace(
        "scan8:7", "scan99:0")))
    with pytest.raises(ValueError, match="method blind: .*31 of the 32 test slices.*scan8:7"):
        run(evaluate)


def test_masks_of_another_order_are_refused(project):
    for method in METHODS:
        run(extract_masks, "--method", method)
    rewrite_index("data/masks/good", lambda table: table.iloc[::-1])
    with pytest.raises(ValueError, match="method good: .*extract_masks@good"):
        run(evaluate)


@pytest.mark.parametrize(("instead", "message"), [
    ("scan99:0", "not in data/slices.*scan99:0"),  # unknown
    ("scan8:6", "twice.*scan8:6"),
    ("scan0:0", "lacks 1 val and test.*scan8:7"),  # a training slice
])
def test_explanations_of_other_slices_are_refused_before_masks_are_made(project, instead, message):
    rewrite_index("data/explanations/good",
                  lambda table: table.assign(slice_id=table["slice_id"].replace("scan8:7", instead)))
    with pytest.raises(ValueError, match=message):
        run(extract_masks, "--method", "good")
    assert not Path("data/masks/good").exists()


@pytest.mark.parametrize(("gone", "remedy"), [
    ("data/explanations/blind", "dvc repro explain@blind"), ("data/masks/blind", "dvc repro extract_masks@blind"),
    ("reports/training", "dvc repro train_generator@good"),
    ("data/judgements", "dvc repro judge_counterfactuals"), ("data/realism", "dvc repro measure_realism"),
    ("data/sanity", "dvc repro explain@good"),
])
def test_a_missing_folder_is_named_with_the_stage_that_writes_it(project, gone, remedy):
    for method in METHODS:
        run(extract_masks, "--method", method)
    Path(gone).rename("elsewhere")
    with pytest.raises(ValueError, match=remedy):
        run(evaluate)
    assert not Path("reports/metrics.json").exists()


def test_a_reference_that_is_no_method_is_refused_before_any_work(project):
    sections = SECTIONS | {"evaluate": SECTIONS["evaluate"] | {"reference_method": "coin"}}
    Path("params.yaml").write_text(yaml.safe_dump(sections, sort_keys=False))
    with pytest.raises(ValueError, match="evaluate.reference_method` is 'coin'.*good, blind"):
        run(evaluate)


def test_distances_of_some_cases_alone_are_refused(project):
    for method in METHODS:
        run(extract_masks, "--method", method)
    file = Path("data/realism/good.csv")
    table = pd.read_csv(file).assign(lpips=0.5)
    table.loc[table["slice_id"] == "scan8:7", "lpips"] = np.nan
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match="realism/good.csv lacks distances.*measure_realism"):
        run(evaluate)

"""Every metric's glossary: what it is called, what it means, which way is better, on how many cases it rests."""

from __future__ import annotations

from dataclasses import dataclass

POLICIES = {
    "fixed": "one threshold set beforehand",
    "otsu": "Otsu's threshold, no labels",
    "val": "best threshold on the validation split",
    "oracle": "best threshold on the test split itself: an upper bound, not a result",
}

PERCENTILES = (50, 75, 90)  # of the attribution maps, see saliency.py


@dataclass(frozen=True)
class Metric:
    """How one metric is called, read, sorted and counted."""

    label: str
    meaning: str
    higher_is_better: bool
    n: str = "n_cases"  # the metric that says on how many test slices (lesions, patients) this one rests
    needs_counterfactual: bool = False


# Distances between populations (flipside/methods/checks/realism.py): metric -> its label and meaning.
DISTANCES = {
    "fd_clf": ("FD clf", "Fréchet distance in the explained classifier's pooled features, which a change that only "
                         "fools it makes small too; not FID"),
    "kid_clf": ("KD clf", "kernel distance in the explained classifier's pooled features, may be below 0; not KID"),
    **{f"fid_{dims}": (f"FID {dims}", f"Fréchet Inception distance in {dims} features; compares with no other number "
                                      "of features") for dims in (64, 768, 2048)},
    "kid": ("KID", "kernel Inception distance in 2048 features, may be below 0"),
}
# Suffix of their names -> addition to the label, between what they are measured, count of images.
POPULATIONS = {
    "": ("", "counterfactuals of slices called abnormal, from real healthy slices", "n_realism"),
    "_unchanged": (" unchanged", "slices called abnormal as they are, from real healthy slices: what changing nothing "
                                  "gets", "n_realism"),
    "_coin": (" (all slices)", "counterfactuals of all slices, from all slices, as COIN's code measures it: "
                              "near-copies make it small", "n_realism_coin"),
    "_both_directions": (" (both directions)", "counterfactuals to the other side of the decision, from their slices, "
                         "f(x) above evaluate.cv_tau or below 1 minus it; at 0.8 what COIN's code measures of Singla*",
                         "n_realism_both_directions"),
}
METRICS: dict[str, Metric] = {
    **{f"iou_{name}": Metric(f"IoU {name}", f"IoU per image, mean; {text}", True) for name, text in POLICIES.items()},
    **{f"dice_{name}": Metric(f"Dice {name}", f"Dice per image, mean; {text}", True)
       for name, text in POLICIES.items()},
    "pixel_ap": Metric("pixel AP", "pixel average precision, free of any threshold", True),
    "ncc": Metric("NCC", "zero-mean normalised cross-correlation of map and lesion mask, per image, mean; "
                  "the map is a change's size, without its sign; on `synthetic_effect`, whose effect is one constant, "
                  "that with the true effect map", True),
    "per_fixed": Metric("PER", "pixel error rate at the fixed threshold", False),
    "per_fixed_raw": Metric("PER raw", "pixel error rate at the fixed threshold, without morphology; at 0.25 the PER "
                            "of the COIN-Aligned thesis", False),
    **{f"iou_{name}_raw": Metric(f"IoU {name} raw", f"IoU per image, mean, without morphology; {text}", True)
       for name, text in POLICIES.items()},
    **{f"iou_pooled_{name}": Metric(f"IoU pooled {name}", f"IoU of all lesion slices' pixels together; {text}", True)
       for name, text in POLICIES.items()},
    **{f"iou_pooled_{name}_raw": Metric(
        f"IoU pooled {name} raw", f"IoU of all lesion slices' pixels together, without morphology; {text}", True)
       for name, text in POLICIES.items()},
    "iou_fixed_raw": Metric("IoU fixed raw", "IoU per image, mean, without morphology, fixed threshold; at 0.25 the "
                            "IoU of the COIN-Aligned thesis", True),
    "iou_pooled_fixed": Metric("IoU pooled fixed", "IoU of all lesion slices' pixels together, fixed threshold; at "
                               "0.25 the IoU of COIN (Shvetsov et al., 2024) as its code computes it with "
                               "post-processing", True),
    "iou_pooled_fixed_raw": Metric("IoU pooled fixed raw", "IoU of all lesion slices' pixels together, without "
                                   "morphology, fixed threshold; at 0.25 the IoU of COIN as its code computes it "
                                   "without post-processing, which is all that it has for dual-condition models", True),
    **{f"{name}_per_patient": Metric(f"{text} per patient", f"{text}: mean over each patient's cases, then over "
                                     "patients", up, "n_patients")
       for name, text, up in (("iou_val", "IoU val", True), ("dice_val", "Dice val", True),
                              ("pixel_ap", "pixel AP", True), ("hd95_mm_val", "HD95 mm", False),
                              ("asd_mm_val", "ASD mm", False))},
    "hd95_mm_val": Metric("HD95 mm", "95th percentile of the distance between the borders of mask and lesion, policy "
                          "val; an empty mask scores the image's diagonal", False),
    "asd_mm_val": Metric("ASD mm", "average symmetric distance between the borders of mask and lesion, policy val; an "
                         "empty mask scores the image's diagonal", False),
    "lesion_sensitivity": Metric("lesions found", "share of single lesions (not slices) that one marked component "
                                 "covers with an IoU of at least 0.1, policy val; where masks are cleaned to their "
                                 "largest component, there is one per slice at most", True, "n_lesions"),
    "lesion_fp_per_slice": Metric("false components", "marked components per lesion or healthy slice that touch no "
                                  "lesion, policy val", False, "n_lesion_fp_per_slice"),
    **{f"centre_distance_mm_p{p}": Metric(
        f"D p{p}", "D of Major et al. (2020), there in pixels: distance between the centres of marked components and "
        f"lesions, median per image; map cut at its {p}th percentile", False) for p in PERCENTILES},
    **{f"hausdorff_mm_p{p}": Metric(
        f"H p{p}", "H of Major et al. (2020), there in pixels: Hausdorff distance between marked area and lesion; map "
        f"cut at its {p}th percentile", False) for p in PERCENTILES},
    **{f"area_to_organ_p{p}": Metric(
        f"A p{p}", "A of Major et al. (2020): marked area / area of the organ, above 1 where more is marked than the "
        f"organ covers; map cut at its {p}th percentile", False) for p in PERCENTILES},
    **{f"overlap_reference_p{p}": Metric(
        f"O p{p}", "O of Major et al. (2020): overlap coefficient with the map of evaluate.reference_method, likeness "
        f"and not quality; both cut at their {p}th percentile", True) for p in PERCENTILES},
    "fp_area_healthy": Metric("FP healthy", "share of a healthy slice that is marked, where nothing should be", False,
                              "n_healthy"),
    "success_rate": Metric("flipped", "of the slices called abnormal, share whose counterfactual is called healthy",
                           True, "n_success_rate", True),
    "cv": Metric("CV", "counterfactual validity: share whose probability moves by more than evaluate.cv_tau", True,
                 "n_cv", True),
    "judge_flip_rate": Metric("judge flipped", "share that a second, independent classifier calls healthy too", True,
                              "n_judge_flip_rate", True),
    "success_rate_to_abnormal": Metric(
        "flipped to abnormal", "of the slices called healthy, share that the method makes the classifier call abnormal",
        True, "n_success_rate_to_abnormal", True),
    "cv_to_abnormal": Metric("CV to abnormal", "counterfactual validity of the slices made abnormal", True,
                             "n_cv_to_abnormal", True),
    "judge_flip_rate_to_abnormal": Metric(
        "judge flipped to abnormal", "of the slices that the classifier and a second, independent one both call "
        "healthy, share that the second calls abnormal once they are made so", True, "n_judge_flip_rate_to_abnormal",
        True),
    "cv_both_directions": Metric("CV both directions", "counterfactual validity of the slices called abnormal and of "
                                 "those called healthy together; at a cv_tau of 0.8 the CV that COIN (Shvetsov et al., "
                                 "2024) gives for Singla*", True, "n_cv_both_directions", True),
    "added_in_organ": Metric("added in organ", "share of |x_ab - x_cf| in the organ, mean over the slices called "
                             "healthy that the method makes abnormal: where the same slice made abnormal differs from "
                             "itself made healthy, so without what the generator fails to reconstruct in both", True,
                             "n_added_in_organ", True),
    "added_in_organ_chance": Metric("in organ by chance", "the organ's share of those slices: what `added in organ` "
                                    "would be if the difference fell anywhere", True, "n_added_in_organ", True),
    "added_peak_in_organ": Metric("peak in organ", "share of those slices whose largest |x_ab - x_cf| is in the organ, "
                                  "where several pixels tie all of them", True, "n_added_peak_in_organ", True),
    "l1": Metric("L1", "mean absolute change of the image, scale 0 to 1", False, "n_success_rate", True),
    "ssim": Metric("SSIM", "structural similarity of scan and counterfactual", True, "n_success_rate", True),
    "perceptual_clf": Metric("perceptual clf", "distance of scan and counterfactual in the explained classifier's "
                             "maps; not LPIPS", False, "n_success_rate", True),
    "lpips": Metric("LPIPS", "learned perceptual distance of scan and counterfactual (AlexNet, version 0.1)", False,
                    "n_success_rate", True),
    **{name + suffix: Metric(label + short, f"{meaning}; {populations}", False, n, True)
       for name, (label, meaning) in DISTANCES.items() for suffix, (short, populations, n) in POPULATIONS.items()
       if suffix in ("", "_unchanged") or name.startswith("fid_")},
    **{f"change_{name}": Metric(
        f"change {name}", f"mean |x - x_cf| {text}, scale 0 to 1; lesion slices called abnormal", name == "inside",
        f"n_change_{name}", True)
       for name, text in (("inside", "inside the lesion"), ("outside", "outside the lesion"),
                          ("organ", "in the organ, outside the lesion"), ("background", "outside organ and lesion"))},
    "change_inside_share": Metric("share inside", "change summed inside the lesion / summed over the slice, 0 where "
                                  "nothing changes; lesion slices called abnormal", True, "n_change_inside_share",
                                  True),
    "ncc_change": Metric("NCC of x - x_cf", "zero-mean normalised cross-correlation of lesion mask and change with its "
                         "sign, what the counterfactual takes away: for lesions brighter than healthy tissue, as those "
                         "of `synthetic_effect`; lesion slices called abnormal", True, "n_ncc_change", True),
    "inversion_error": Metric("inversion error", "mean |x - G(x)| of the scans that the method starts from as its "
                              "generator makes them, scale -1 to 1; all test slices", False, "n_inversion", True),
    "inversion_decision_kept": Metric("inversion keeps decision", "share of the test slices that the classifier calls "
                                      "the same as the generator makes them", True, "n_inversion", True),
    "change_inside_to_outside": Metric(
        "inside / outside", "change inside the lesion / change outside of it, of the two means: how much less a "
        "counterfactual resembles its scan where the lesion is than elsewhere", True, "n_change_inside", True),
    "cycle_l1": Metric("cycle L1", "mean absolute difference of a scan and what the method makes of its counterfactual "
                       "on the way back, scale 0 to 1", False, "n_success_rate", True),
    "psnr_clean": Metric("PSNR clean", "dB, of the counterfactual against the slice before its synthetic anomaly or "
                         "effect; lesion slices called abnormal", True, "n_psnr_clean", True),
    "psnr_clean_unchanged": Metric("PSNR clean, unchanged", "the same of the scan as it is: what changing nothing gets",
                                   True, "n_psnr_clean", True),
    "seconds_per_image": Metric("s/image", "seconds for one explanation", False, "images"),
    "seconds_training": Metric("training s", "seconds for which the method's own generator was trained, with its "
                               "encoder or the search for its attributes where it has these, on the device of the run",
                               False, "images"),
    "iou_val_difference": Metric("IoU val, difference", "mean difference to evaluate.reference_method on the same "
                                 "slices, above 0 where this method is better; interval over patients", True),
    "rank_biserial": Metric("rank-biserial", "effect size of the IoU's differences to the reference over slices: 1 "
                            "where this method is better in every pair, -1 where it is worse", True),
    "wilcoxon_patients_p_holm": Metric("p, patients", "Wilcoxon's paired test against the reference on the patients' "
                                       "mean differences of the IoU, each patient once, Holm's correction; fewer than "
                                       "6 patients cannot get below 0.05", False, "n_patients"),
    "wilcoxon_p_holm": Metric("p, slices", "the same test over slices as if those of one patient were independent: "
                              "they are not, so it is too small", False),
    "strongly_supervised": Metric("lesion masks seen", "1: a classifier was pre-trained on patches cut with lesion "
                                  "masks (strong_supervision), so the run is no weakly supervised one", False),
    "sanity_randomisation_passed": Metric("weights matter", "1: the map changes when the classifier's weights are "
                                          "shuffled; 0: it does not depend on them, so it explains nothing", True,
                                          "n_randomisation"),
    "randomisation_similarity": Metric("rank corr., shuffled", "|Spearman's rho| of the maps under trained and under "
                                       "shuffled weights of all layers", False, "n_randomisation"),
    "randomisation_ssim": Metric("SSIM, shuffled", "SSIM of the maps under trained and under shuffled weights of all "
                                 "layers", False, "n_randomisation"),
    "randomisation_similarity_head": Metric("rank corr., head shuffled", "|Spearman's rho| of the maps where only the "
                                            "classifier's last, linear layer is shuffled", False, "n_randomisation"),
}
# Metrics beyond the list above (distances, rates of error, p values): a smaller number is the better one.
LOWER_PREFIXES = ("per_", "fp_", "hd95", "assd", "asd", "surface", "l1", "lpips", "fid", "kid", "fd_", "kid_",
                  "perceptual", "inversion_error", "seconds", "ece", "p_", "wilcoxon", "peak_memory", "change_outside")


def label(metric: str) -> str:
    """A metric's short name for a column."""
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def meaning(metric: str) -> str:
    """What a metric measures, in a few words; its name where this file doesn't know it."""
    return METRICS[metric].meaning if metric in METRICS else metric


def higher_is_better(metric: str) -> bool:
    """The direction in which a metric is sorted."""
    return METRICS[metric].higher_is_better if metric in METRICS else not metric.startswith(LOWER_PREFIXES)


def why_missing(metric: str, has_counterfactual: bool, reasons: dict[str, str]) -> str:
    """Why a method has no such number, for the reader who wonders; `reasons` are those of the stage that measures."""
    known = METRICS.get(metric)
    if known and known.needs_counterfactual and not has_counterfactual:
        return "needs a counterfactual image; this method gives an attribution map only"
    if metric in reasons:
        return f"not measured: {reasons[metric]}"
    if metric.endswith(("_to_abnormal", "_both_directions")) or metric.startswith("added_"):
        return "this method makes no slice abnormal, or no test slice qualifies"
    if metric.startswith("inversion_"):
        return "this method inverts no slice"
    if metric == "cycle_l1":
        return "this method has no way back from the counterfactual to the scan"
    if metric.startswith("psnr_clean"):
        return "the slice without its lesion is known only where anomalies or effects are synthetic"
    if metric == "seconds_training":
        return "this method trains nothing of its own"
    if metric.startswith("overlap_reference"):
        return "this is the method that the others' maps are compared with"
    return "not computed for this method in reports/metrics.json"


def count(values: dict[str, float], metric: str) -> int | None:
    """On how many test slices a metric of one method rests, if the evaluation says so."""
    known = METRICS.get(metric)
    n = values.get(known.n if known else f"n_{metric}", values.get("n_cases"))
    return None if n is None or metric.startswith("seconds") else int(n)

"""The ranked table in its three dresses (terminal, Markdown, HTML) and the sentence that answers the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Metrics = dict[str, dict[str, float]]  # {method: {metric: value}}, the content of reports/metrics.json
MISSING = "–"
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


# Distances between populations (stages/explain/realism.py): metric -> its label and meaning.
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
}
METRICS: dict[str, Metric] = {
    **{f"iou_{name}": Metric(f"IoU {name}", f"IoU per image, mean; {text}", True) for name, text in POLICIES.items()},
    **{f"dice_{name}": Metric(f"Dice {name}", f"Dice per image, mean; {text}", True)
       for name, text in POLICIES.items()},
    "pixel_ap": Metric("pixel AP", "pixel average precision, free of any threshold", True),
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
    "l1": Metric("L1", "mean absolute change of the image, scale 0 to 1", False, "n_success_rate", True),
    "ssim": Metric("SSIM", "structural similarity of scan and counterfactual", True, "n_success_rate", True),
    "perceptual_clf": Metric("perceptual clf", "distance of scan and counterfactual in the explained classifier's "
                             "maps; not LPIPS", False, "n_success_rate", True),
    "lpips": Metric("LPIPS", "learned perceptual distance of scan and counterfactual (AlexNet, version 0.1)", False,
                    "n_success_rate", True),
    **{name + suffix: Metric(label + short, f"{meaning}; {populations}", False, n, True)
       for name, (label, meaning) in DISTANCES.items() for suffix, (short, populations, n) in POPULATIONS.items()
       if suffix != "_coin" or name.startswith("fid_")},
    **{f"change_{name}": Metric(
        f"change {name}", f"mean |x - x_cf| {text}, scale 0 to 1; lesion slices called abnormal", name == "inside",
        f"n_change_{name}", True)
       for name, text in (("inside", "inside the lesion"), ("outside", "outside the lesion"),
                          ("organ", "in the organ, outside the lesion"), ("background", "outside organ and lesion"))},
    "change_inside_share": Metric("share inside", "change summed inside the lesion / summed over the slice, 0 where "
                                  "nothing changes; lesion slices called abnormal", True, "n_change_inside_share",
                                  True),
    "seconds_per_image": Metric("s/image", "seconds for one explanation", False, "images"),
}
# Metrics beyond the list above (distances, rates of error, p values): a smaller number is the better one.
LOWER_PREFIXES = ("per_", "fp_", "hd95", "assd", "asd", "surface", "l1", "lpips", "fid", "kid", "fd_", "kid_",
                  "perceptual", "seconds", "ece", "p_", "wilcoxon", "peak_memory", "change_outside")
TABLE = ["iou_fixed", "iou_otsu", "iou_val", "iou_oracle", "dice_val", "pixel_ap", "per_fixed", "fp_area_healthy",
         "success_rate", "cv", "judge_flip_rate", "l1", "ssim", "seconds_per_image"]
TERMINAL = ["iou_fixed", "iou_otsu", "iou_oracle", "dice_val", "pixel_ap", "fp_area_healthy", "success_rate",
            "judge_flip_rate", "seconds_per_image"]


def label(metric: str) -> str:
    """A metric's short name for a column."""
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def meaning(metric: str) -> str:
    """What a metric measures, in a few words; its name where this file doesn't know it."""
    return METRICS[metric].meaning if metric in METRICS else metric


def higher_is_better(metric: str) -> bool:
    """The direction in which a metric is sorted."""
    return METRICS[metric].higher_is_better if metric in METRICS else not metric.startswith(LOWER_PREFIXES)


def ranking(metrics: Metrics, rank_by: str) -> list[str]:
    """Methods, best first by `rank_by` in its own direction, ties by name; methods without the metric come last.

    Raises ValueError, naming what there is, when no method has it.
    """
    if not any(rank_by in values for values in metrics.values()):
        known = sorted({name for values in metrics.values() for name in values})
        raise ValueError(f"`report.rank_by` is {rank_by!r}, which no method in reports/metrics.json has; "
                         f"choose one of: {', '.join(known)}")
    sign = -1 if higher_is_better(rank_by) else 1

    def key(method: str) -> tuple:
        value = metrics[method].get(rank_by)
        return (value is None, 0.0 if value is None else sign * value, method)

    return sorted(metrics, key=key)


def columns(rank_by: str, of: list[str]) -> list[str]:
    """The metric that ranks first, then the other columns in their order."""
    return [rank_by, *(name for name in of if name != rank_by)]


def number(value: float | None) -> str:
    """Three decimals, or 1.4e-35 where they would all be 0; whole numbers without; an en dash for what is missing."""
    if value is None:
        return MISSING
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def interval(values: dict[str, float], metric: str) -> tuple[float, float] | None:
    """The bootstrap interval that stands beside a metric, if any."""
    low, high = values.get(f"{metric}_ci_low"), values.get(f"{metric}_ci_high")
    return None if low is None or high is None else (low, high)


def why_missing(metric: str, has_counterfactual: bool, reasons: dict[str, str]) -> str:
    """Why a method has no such number, for the reader who wonders; `reasons` are those of the stage that measures."""
    known = METRICS.get(metric)
    if known and known.needs_counterfactual and not has_counterfactual:
        return "needs a counterfactual image; this method gives an attribution map only"
    if metric in reasons:
        return f"not measured: {reasons[metric]}"
    if metric.startswith("overlap_reference"):
        return "this is the method that the others' maps are compared with"
    return "not computed for this method in reports/metrics.json"


def markdown_table(metrics: Metrics, rank_by: str, controls: list[str], note: str) -> str:
    """reports/metrics.md: one line on what was run, the ranked table, its legend. The same input, the same bytes."""
    names = columns(rank_by, TABLE)
    header = ["#", "method", *(f"{label(name)} {'↑' if higher_is_better(name) else '↓'}" for name in names), "n"]
    lines = ["# Ranking", "", note, "", _row(header), _row(["---:", "---", *["---:"] * (len(names) + 1)])]
    for place, method in enumerate(ranking(metrics, rank_by), start=1):
        values = metrics[method]
        first = number(values.get(rank_by))
        if bounds := interval(values, rank_by):
            first += f" ({bounds[0]:.3f} to {bounds[1]:.3f})"
        name = method.replace("|", "\\|") + (" *(control)*" if method in controls else "")
        lines.append(_row([str(place), name, first, *(number(values.get(metric)) for metric in names[1:]),
                           _counted(values, rank_by)]))
    lines += ["", f"Ranked by {label(rank_by)}, with its interval; n: test slices that it rests on. ↑ more is better, "
              "↓ less is better. `oracle` picks the threshold on the test split itself: an upper bound. "
              f"{MISSING}: the method has no such number.", ""]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def count(values: dict[str, float], metric: str) -> int | None:
    """On how many test slices a metric of one method rests, if the evaluation says so."""
    known = METRICS.get(metric)
    n = values.get(known.n if known else f"n_{metric}", values.get("n_cases"))
    return None if n is None or metric == "seconds_per_image" else int(n)


def _counted(values: dict[str, float], rank_by: str) -> str:
    n = count(values, rank_by)
    return MISSING if n is None else str(n)


def plain_table(metrics: Metrics, rank_by: str, controls: list[str]) -> str:
    """The ranked table for a terminal, fixed width."""
    names = [name for name in columns(rank_by, TERMINAL) if any(name in values for values in metrics.values())]
    rows = [["#", "method", label(names[0]), "interval", *map(label, names[1:]), "n"]]
    for place, method in enumerate(ranking(metrics, rank_by), start=1):
        values = metrics[method]
        bounds = interval(values, rank_by)
        rows.append([
            str(place), method + (" (control)" if method in controls else ""), number(values.get(rank_by)),
            f"{bounds[0]:.3f}..{bounds[1]:.3f}" if bounds else MISSING,
            *(number(values.get(name)) for name in names[1:]), _counted(values, rank_by),
        ])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) if i == 1 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def leader(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """Who is first of the methods that are no controls, or that none beats the controls, and who comes next."""
    order = _ranked(metrics, rank_by)
    methods = [method for method in order if method not in controls]
    if not methods:
        return [f"No method besides the controls has {label(rank_by)}."]
    sentences = [f"{methods[0]} is first of {len(methods)} methods by {label(rank_by)}: "
                 f"{_stated(metrics[methods[0]], rank_by)}."]
    if order[0] in controls:
        sentences = [f"No method beats the controls by {label(rank_by)}.",
                     f"The best method is {methods[0]}: {_stated(metrics[methods[0]], rank_by)}."]
    if len(methods) > 1:
        sentences.append(f"Next is {methods[1]}, {number(metrics[methods[1]][rank_by])}: "
                         + _apart(metrics[methods[0]], metrics[methods[1]], rank_by))
    return sentences


def against_control(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """The best control beside the best method."""
    order = _ranked(metrics, rank_by)
    best = next((method for method in order if method not in controls), None)
    control = next((method for method in order if method in controls), None)
    if control is None:
        return ["No control was run beside it."]
    sentences = [f"The best control, {control}, reaches {_stated(metrics[control], rank_by)}"]
    if best is None:
        return [sentences[0] + "."]
    return [f"{sentences[0]}: {_apart(metrics[best], metrics[control], rank_by)}"]


def answer(metrics: Metrics, rank_by: str, controls: list[str]) -> list[str]:
    """What came out, in a few sentences: who is first, who comes next, the best control, how sure that is."""
    return [*leader(metrics, rank_by, controls), *against_control(metrics, rank_by, controls)]


def _ranked(metrics: Metrics, rank_by: str) -> list[str]:
    return [method for method in ranking(metrics, rank_by) if rank_by in metrics[method]]


def _apart(ours: dict[str, float], others: dict[str, float], metric: str) -> str:
    """Whether two intervals overlap, as the end of a sentence."""
    first, second = interval(ours, metric), interval(others, metric)
    if not first or not second:
        return "no intervals to compare."
    if first[0] > second[1] or second[0] > first[1]:
        return "the intervals do not overlap."
    return "the intervals overlap, the difference may be chance."


def _stated(values: dict[str, float], metric: str) -> str:
    bounds = interval(values, metric)
    details = [f"interval {bounds[0]:.3f} to {bounds[1]:.3f}"] if bounds else []
    details += [f"n = {n}"] if (n := count(values, metric)) is not None else []
    return number(values[metric]) + (f" ({', '.join(details)})" if details else "")


def known_metrics(metrics: Metrics) -> list[str]:
    """Every metric of any method: those of the table first, then the rest by name."""
    found: dict[str, Any] = {name: None for values in metrics.values() for name in values}
    return [*(name for name in METRICS if name in found), *sorted(name for name in found if name not in METRICS)]

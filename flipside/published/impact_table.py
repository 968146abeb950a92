"""D, H, A and O of `impact`, `cam` and `gradient` side by side, with paired tests, as Major et al. (2020) have
them in their tables 1 and 2 -> reports/impact.md."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import Explanations
from flipside.core.index_tables import read_index
from flipside.metrics.families.saliency import PERCENTILES, overlap_coefficient, percentile_masks
from flipside.metrics.families.supervision import STRONG
from flipside.metrics.statistics import cluster_means, holm, paired_p

OURS, OTHERS = "impact", ("cam", "gradient")
MEASURES = {"D": "centre_distance_mm", "H": "hausdorff_mm", "A": "area_to_organ"}
UNITS = {"D": " (mm)", "H": " (mm)", "A": "", "O": ""}
CUT = 50  # percentile that leaves the masks of `impact` as they are: its maps are 0 below its threshold
# Tables 1 and 2: measure, percentile -> impact, CAM, input gradient; D and H in pixels of 576 x 448.
PUBLISHED = {
    ("D", 50): (137.1, 200.1, 164.2), ("D", 75): (137.1, 182.1, 162.9), ("D", 90): (137.1, 144.1, 166.3),
    ("H", 50): (227.1, 359.3, 371.3), ("H", 75): (227.1, 308.5, 350.3), ("H", 90): (227.1, 232.2, 328.9),
    ("A", 50): (0.02, 0.43, 0.50), ("A", 75): (0.02, 0.24, 0.25), ("A", 90): (0.02, 0.10, 0.10),
    ("O", 50): (None, 0.60, 0.86), ("O", 75): (None, 0.44, 0.64), ("O", 90): (None, 0.23, 0.39),
}


def impact_table(strongly_supervised: bool) -> str:
    """reports/impact.md of those of its methods that were measured, from reports/cases.csv and their maps."""
    cases = read_index("reports/cases.csv")
    methods = [name for name in (OURS, *OTHERS) if name in set(cases["method"])]
    cases = cases[cases["method"].isin(methods)].dropna(subset=["hausdorff_mm_p50"])  # lesion slices
    if OURS in methods and len(methods) > 1 and len(cases):
        text = markdown(cases, overlaps(cases, methods[1:]), methods)
    else:
        text = (f"# Impact\n\nNo table: it needs `{OURS}`, one of {', '.join(OTHERS)}, and lesion slices in the test "
                "split.\n")
    return text + (f"\n**{STRONG}**\n" if strongly_supervised else "")


def overlaps(cases: pd.DataFrame, others: list[str]) -> dict[tuple[str, int], np.ndarray]:
    """O: (method, percentile) -> overlap coefficients (N,) of its masks with those of `impact`, lesion slices.

    Those of `impact` are cut at CUT whatever the percentile of the other method.
    """
    masks = {}
    for method in (OURS, *others):
        explanations = Explanations.open(f"data/explanations/{method}")
        at = pd.Index(explanations.index["slice_id"]).get_indexer(cases.loc[cases["method"] == method, "slice_id"])
        masks[method] = percentile_masks(explanations.attribution[at])
    return {(method, percentile): overlap_coefficient(masks[method][percentile], masks[OURS][CUT])
            for method in others for percentile in PERCENTILES}


def markdown(cases: pd.DataFrame, overlap: dict[tuple[str, int], np.ndarray], methods: list[str]) -> str:
    """The table: a row per measure and percentile, mean and standard deviation over slices, tests against `impact`.

    The maps of `impact` are cut at CUT in every row, as the paper has the same masks in all of them, the others' at the
    row's percentile. p: Wilcoxon's signed-rank test of the slices' differences, as published, and of the patients' mean
    differences, each with Holm's correction over all tests of its kind.
    """
    by_method = {method: cases[cases["method"] == method].reset_index(drop=True) for method in methods}
    patients = by_method[OURS]["patient_id"].to_numpy()
    keys = [(name, percentile, method) for name in MEASURES for percentile in PERCENTILES for method in methods[1:]]
    differences = [(by_method[method][f"{MEASURES[name]}_p{percentile}"]
                    - by_method[OURS][f"{MEASURES[name]}_p{CUT}"]).to_numpy() for name, percentile, method in keys]
    p_slices = dict(zip(keys, holm(np.array([paired_p(each) for each in differences])), strict=True))
    p_patients = dict(zip(keys, holm(np.array([paired_p(cluster_means(each, patients)) for each in differences])),
                          strict=True))
    lines = ["# Impact", "", f"D, H, A and O of Major et al. (2020) over {len(patients)} lesion slices of "
             f"{len(set(patients))} patients: mean ± standard deviation. Maps are cut at a percentile of their own "
             f"pixels; those of `impact`, which are 0 below its threshold, at the {CUT}th in every row: that leaves "
             "its masks as they are, unless one covers more than half of its slice. (…): published, D and H in pixels "
             "of 576 x 448 mammograms, which compare in their order alone. p: Wilcoxon's signed-rank test against "
             "`impact`, over slices as published (too small: slices of one patient are not independent) / over "
             "patients' means; Holm's correction (published: p < 2e-12). H: Hausdorff distance, there an average one. "
             "O: overlap coefficient with the map of `impact`, likeness and not quality.", "",
             f"{empty(by_method)} Such a mask scores the slice's diagonal in D and H, but 0 in A and O.", "",
             f"| | percentile | {' | '.join(f'{method} | p' if method != OURS else method for method in methods)} |",
             f"| --- | ---: | ---: |{' ---: | ---: |' * (len(methods) - 1)}"]
    for name in (*MEASURES, "O"):
        for percentile in PERCENTILES:
            cells = []
            for method in methods:
                if name == "O" and method == OURS:
                    cells.append("–")
                    continue
                cut = CUT if method == OURS else percentile
                values = (overlap[method, percentile] if name == "O" else
                          by_method[method][f"{MEASURES[name]}_p{cut}"].to_numpy())
                published = PUBLISHED[name, percentile][(OURS, *OTHERS).index(method)]
                cells.append(f"{values.mean():.3g} ± {values.std():.2g} ({published:g})")
                if method != OURS:
                    key = (name, percentile, method)
                    cells.append("–" if name == "O" else f"{p_slices[key]:.1e} / {p_patients[key]:.1e}")
            lines.append(f"| {name}{UNITS[name]} | {percentile} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def empty(by_method: dict[str, pd.DataFrame]) -> str:
    """A sentence on how many slices a method marks nothing in: a small A is no merit there."""
    counts = {method: int((table[f"{MEASURES['A']}_p{CUT}"] == 0).sum()) for method, table in by_method.items()}
    return "Slices in which nothing is marked: " + ", ".join(f"{method} {n}" for method, n in counts.items()) + "."


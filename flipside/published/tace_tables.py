"""TACE's tables 2 and 3 with our numbers beside the published ones, as Markdown.

The data sets differ, so the published numbers are no target; notes below a table say where ours are measured otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.index_tables import read_index
from flipside.core.params import ParamsError, read_params, value_at
from flipside.metrics.evaluation import EvaluationError
from flipside.metrics.statistics import paired_p, wilson_interval
from flipside.published.markdown import markdown_rows

METHODS = {"stylex": "StylEx", "octet": "OCTET", "tace": "TACE"}
LATENTS = Path("data/latents/blobgan/index.csv")
# Success rate in %, FID, LPIPS (Table 2); hours for 250 counterfactuals (Table 3, one V100).
PUBLISHED = {
    "brain MRI": {"stylex": (42.67, 0.76, 0.33), "octet": (94.66, 0.72, 0.26), "tace": (84.49, 0.54, 0.13)},
    "mammograms": {"stylex": (74.67, 0.88, 0.74), "octet": (99.33, 0.80, 0.33), "tace": (82.65, 0.78, 0.20)},
}
PUBLISHED_HOURS = {"stylex": 30.5, "octet": 2.5, "tace": 2.5}
COUNTERFACTUALS = 250
# Column of ours -> its heading, and the count of slices that it is of where that isn't the table's N. A metric whose
# weights were absent has no column.
DISTANCES = {"fid_64": ("FID, dims 64", "n_realism_real"), "fid_2048": ("FID, dims 2048", "n_realism_real"),
             "kid": ("KID", "n_realism_real"), "fd_clf": ("FD, classifier", "n_realism_real"), "lpips": ("LPIPS", None),
             "perceptual_clf": ("perceptual, classifier", None), "l1": ("L1", None),
             "change_outside": ("change outside lesion", "n_change_outside"),
             "judge_flip_rate": ("judge's flips", "n_judge_flip_rate")}
PAIRED = {"perceptual_clf": "perceptual distance", "l1": "mean absolute change",
          "change_outside": "change outside the lesion"}


def tace_table(number: int) -> str:
    """Table 2 or 3 as Markdown, of what the finished run in this folder left in reports/ and data/.

    Raises ParamsError where none of the compared methods is in params.yaml, EvaluationError where the classifier calls
    no test slice abnormal.
    """
    methods = [name for name in METHODS if name in value_at(read_params(), "methods")]
    if not methods:
        raise ParamsError(f"params.yaml: `methods` has none of {', '.join(METHODS)}, which TACE's tables compare")
    cases = read_index(paths.CASES)
    cases = cases[(cases["f_x"] >= CALLED_ABNORMAL) & cases["method"].isin(methods)]
    if cases.empty:
        raise EvaluationError(f"{paths.CASES} has no test slice that the classifier calls abnormal, so there is no "
                              "counterfactual to count")
    tables = {str(name): part.reset_index(drop=True) for name, part in cases.groupby("method")}
    return table_2(tables, read_json(paths.METRICS)) if number == 2 else table_3(tables)


def table_2(tables: dict[str, pd.DataFrame], metrics: dict[str, Any]) -> str:
    """Success rates, distances and paired tests of TACE against the others, as Markdown.

    tables: {method: its rows of cases.csv that are called abnormal}.
    """
    found = [name for name in DISTANCES if any(name in metrics[method] for method in tables)]
    lines = [["method", "N", "SR % (95 % interval)", "SR % of reconstructions", *(DISTANCES[name][0] for name in found),
              *(f"published SR / FID / LPIPS, {data}" for data in PUBLISHED)]]
    for method in METHODS:
        published = [" / ".join(f"{value:g}" for value in rows[method]) for rows in PUBLISHED.values()]
        if method not in tables:
            lines.append([METHODS[method], "not run", *["–"] * (2 + len(found)), *published])
            continue
        own = tables[method]
        lines.append([METHODS[method], str(len(own)), rate(own["f_x_cf"] < CALLED_ABNORMAL),
                      of_reconstructions(own, method),
                      *(cell(metrics[method], name, len(own)) for name in found), *published])
    notes = ["N: test slices that the classifier calls abnormal. SR: their counterfactuals that it calls healthy; of "
             "reconstructions: of those among them whose unchanged reconstruction it calls abnormal too. Distances of "
             "populations (FID, KID, FD) are from the N counterfactuals to the real slices labelled healthy, whose "
             "number stands behind them; the others are means over the N, or over as many as stands behind them.",
             "The perceptual distance is also what TACE's own search keeps small, and outside its region TACE is the "
             "scan: the other two are scored with all that their generator doesn't reproduce.",
             "Published FIDs below 1 can't be of 2048 features at such N; the paper doesn't say what they are of.",
             *paired(tables)]
    return "\n\n".join([markdown_rows(lines), *notes])


def cell(values: dict[str, Any], name: str, table_n: int) -> str:
    """A metric, with the number of slices that it is of where that isn't the table's N."""
    if name not in values:
        return "–"
    counted_by = DISTANCES[name][1]
    count = values.get(counted_by, table_n) if counted_by else table_n
    return f"{values[name]:.4g}" + ("" if count == table_n else f" ({count})")


def rate(success: pd.Series) -> str:
    """A share in percent with Wilson's interval; `–` of nothing."""
    if success.empty:
        return "–"
    low, high = wilson_interval(int(success.sum()), len(success), 0.95)
    return f"{100 * success.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"


def of_reconstructions(own: pd.DataFrame, method: str) -> str:
    """The rate over the slices whose reconstruction, by inversion or StylEx' encoder, is called abnormal too."""
    file = Path(f"data/explanations/{method}/index.csv") if method == "stylex" else LATENTS
    if not file.is_file():
        return "–"
    reconstructed = read_index(file)[["slice_id", "f_reconstruction"]].dropna()
    both = own.merge(reconstructed, on="slice_id", validate="one_to_one")
    if len(both) < len(own):
        raise EvaluationError(f"{file} lacks {len(own) - len(both)} slices of {paths.CASES}: run `dvc repro`")
    kept = both[both["f_reconstruction"] >= CALLED_ABNORMAL]
    return f"{rate(kept['f_x_cf'] < CALLED_ABNORMAL)}, N {len(kept)}"


def paired(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Wilcoxon's signed ranks of TACE against each other method, on the same slices."""
    notes = []
    for other in (name for name in tables if "tace" in tables and name != "tace"):
        pair = tables["tace"].merge(tables[other], on="slice_id", suffixes=("", "_other"), validate="one_to_one")
        for column, name in PAIRED.items():
            rows = pair[[column, f"{column}_other"]].dropna()
            if rows.empty:
                continue
            difference = rows[column] - rows[f"{column}_other"]
            notes.append(f"TACE against {METHODS[other]}, {name}: mean difference {difference.mean():+.4g}, lower on "
                         f"{(difference < 0).sum()} of {len(rows)} slices, Wilcoxon p = "
                         f"{paired_p(difference.to_numpy()):.2g} (too small: a patient's slices are not independent)")
    return notes


def table_3(tables: dict[str, pd.DataFrame]) -> str:
    """Seconds per counterfactual, inversion included, and what 250 would take with AttFind before, as Markdown.

    A slice that a method left as it was costs next to no search: all the search's time is put down to those searched.
    """
    lines = [["method", "N", "s each", "s before (AttFind)", f"hours for {COUNTERFACTUALS}", "device",
              "published hours (V100)"]]
    for method in METHODS:
        published = f"{PUBLISHED_HOURS[method]:g}"
        if method not in tables:
            lines.append([METHODS[method], "not run", *["–"] * 4, published])
            continue
        timing = read_json(f"data/explanations/{method}/timing.json")
        index = read_index(f"data/explanations/{method}/index.csv")
        searched = int(((index["f_x"] >= CALLED_ABNORMAL) | (index["steps"] > 0)).sum())
        before = inversion_seconds(method)
        seconds = before + (timing["seconds"] - before * timing["images"]) / searched
        once = attribute_seconds(method)
        lines.append([METHODS[method], str(searched), f"{seconds:.3g}", f"{once:.3g}",
                      f"{(once + seconds * COUNTERFACTUALS) / 3600:.3g}", timing["device"], published])
    return "\n\n".join([markdown_rows(lines), "N: explained slices (validation and test) that are called "
                        "abnormal or were searched all the same (`stop: none`); all of the search's time is theirs. "
                        "Training is not counted; inversion is, and AttFind, which is done once for all. The hours "
                        "follow from the seconds of these N."])


def inversion_seconds(method: str) -> float:
    """Per image, of a method that searches among inverted slices; else 0."""
    needs = Path(value_at(read_params(), f"methods.{method}.needs"))
    return read_json(needs / "timing.json")["seconds_per_image"] if needs.parts[:2] == ("data", "latents") else 0.0


def attribute_seconds(method: str) -> float:
    """Of the search for the attributes that a method moves, done once before all counterfactuals; else 0."""
    needs = Path(value_at(read_params(), f"methods.{method}.needs"))
    if needs.parts[:2] != ("models", "attributes"):
        return 0.0
    return read_json(f"reports/training/{needs.name}_attributes/timing.json")["seconds"]

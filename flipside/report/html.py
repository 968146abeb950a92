"""The HTML report: gathers what the template shows and fills it in. One file, no network, nothing to install."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml

from flipside.core.params import value_at
from flipside.metrics.inpainting import ARMS
from flipside.report import charts, glossary, pictures, report_tables, tables
from flipside.report.figures import ReportParams, rank_metric
from flipside.report.gallery import comparison, method_section
from flipside.report.headline import answer
from flipside.report.inputs import ReportInputs

PAGE = Path(__file__).with_name("page")  # templates, style and script, all of which end up in the one file
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-image", "scikit-learn", "captum",
            "torchmetrics", "pytorch-fid", "lpips", "nibabel", "pydicom", "pydantic", "safetensors", "dvc", "dvclive",
            "matplotlib", "jinja2")
SHAPING = ("stages", "params.yaml", "dvc.yaml", "requirements.txt")  # what makes a run differ from its commit
LONGEST_LIST = 100  # rows of a manifest's list that are printed; the file has them all


class PlainDumper(yaml.SafeDumper):
    """Writes what occurs twice out twice, where YAML would point back to the first place."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(inputs: ReportInputs, params: ReportParams) -> str:
    """The whole page. The same inputs, packages and git revision give the same text."""
    rank_by = rank_metric(inputs, params)
    order = tables.ranking(inputs.metrics, rank_by)
    return page_environment().get_template("report.html.jinja").render(
        title=params.title, dataset=inputs.parameters["dataset"], profile=inputs.parameters["profile"],
        answer=answer(inputs, rank_by, order, params.policy), counts=case_counts(inputs),
        confidence=100 * value_at(inputs.parameters, "evaluate.confidence"),
        rank_label=glossary.label(rank_by), rank_meaning=glossary.meaning(rank_by), policy=params.policy,
        policies=glossary.POLICIES, has_lesion_masks=inputs.has_lesion_masks,
        controls=[name for name in order if name in params.controls],
        table=report_tables.ranked_table(inputs, rank_by, order), unchanged=tables.UNCHANGED,
        warnings=tables.warnings(inputs.metrics),
        strong=tables.STRONG if tables.is_strongly_supervised(inputs.metrics) else None,
        patients=report_tables.patients_table(inputs, order, params.policy),
        subgroups=report_tables.subgroup_table(inputs, order), all_metrics=report_tables.all_metrics(inputs, order),
        glossary=report_tables.meanings(inputs, order), comparison=comparison(inputs, params, order),
        methods=[method_section(inputs, params, name) for name in order],
        realism=report_tables.realism(inputs, order),
        quality=report_tables.quality_table(inputs), confusion=report_tables.confusion_tables(inputs),
        thresholds=threshold_charts(inputs, order), training=training_charts(inputs),
        inpainter=inpainter_section(inputs),
        timing=report_tables.timing(inputs, order), populations=report_tables.population_rows(inputs),
        manifests=inputs.manifests, longest=LONGEST_LIST,
        parameters=yaml.dump(inputs.parameters, Dumper=PlainDumper, sort_keys=False, allow_unicode=True),
        origin=origin(inputs), versions=versions(), difference_limit=pictures.DIFFERENCE_LIMIT, missing=tables.MISSING,
    )


def page_environment() -> jinja2.Environment:
    """The templates of the page, with tests for the two shapes of mappings that are shown compactly."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(PAGE), autoescape=True, trim_blocks=True,
                                     undefined=jinja2.StrictUndefined, lstrip_blocks=True)
    environment.tests["flat"] = is_flat
    environment.tests["grid"] = lambda value: (
        all(isinstance(row, dict) and row and is_flat(row) for row in value.values())
        and len({tuple(row) for row in value.values()}) == 1)
    return environment


def is_flat(value: dict[str, Any]) -> bool:
    """Whether a mapping holds single values only."""
    return not any(isinstance(inner, dict | list) for inner in value.values())


def case_counts(inputs: ReportInputs) -> dict[str, int]:
    """On how many test cases everything below rests."""
    cases = inputs.cases.drop_duplicates("slice_id")
    lesions = cases[(cases["label"] == 1) & ((cases["lesion_px"] > 0) | (not inputs.has_lesion_masks))]
    return {"lesion": len(lesions), "healthy": int((cases["label"] == 0).sum()),
            "patients": cases["patient_id"].nunique(), "lesion_patients": lesions["patient_id"].nunique()}


def run_line(inputs: ReportInputs) -> str:
    """Command, data set, profile, hardware and counts in one line of Markdown; no date, so equal runs are equal."""
    counts = case_counts(inputs)
    devices = sorted({result.explanations.timing["device"] for result in inputs.results.values()})
    shown = inputs.parameters
    return (f"`dvc repro`, data set `{shown['dataset']}`, profile `{shown['profile']}`, {shown['image_size']} x "
            f"{shown['image_size']} pixels, seed {shown['seed']}; {', '.join(devices)}; test split: "
            f"{counts['lesion']} lesion slices of {counts['lesion_patients']} patients, "
            f"{counts['healthy']} healthy slices.")


def threshold_charts(inputs: ReportInputs, order: list[str]) -> list[dict[str, Any]]:
    """IoU over the threshold, one small chart per method with all others behind it."""
    if inputs.curves.empty:
        return []
    curves = {name: table.sort_values("threshold") for name, table in inputs.curves.groupby("method")}
    lines = [(table["threshold"].to_numpy(), table["iou"].to_numpy()) for table in curves.values()]
    top = max(float(inputs.curves["iou"].max()) * 1.05, 1e-6)
    x_range = (float(inputs.curves["threshold"].min()), float(inputs.curves["threshold"].max()))
    shown = []
    for name in (name for name in order if name in curves):
        x, y = curves[name]["threshold"].to_numpy(), curves[name]["iou"].to_numpy()
        marks = [(policy, chosen, float(np.interp(chosen, x, y)))
                 for policy in ("val", "oracle") if (chosen := inputs.results[name].thresholds.get(policy)) is not None]
        shown.append({"title": name, "drawing": charts.draw(charts.Chart(
            name, x, y, "threshold", "IoU", behind=lines, marks=marks, x_range=x_range, y_range=(0.0, top)))})
    return shown


def training_charts(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """Learning curves of every trained model, one small chart per recorded value."""
    shown = {}
    for model, curves in inputs.training.items():
        shown[model] = []
        for name, table in curves.items():
            table = charts.thin(table)
            x_name, y_name = ("fpr", "tpr") if name == "roc" else ("step", table.columns[-1])
            fixed = (0.0, 1.0) if name == "roc" else None
            x_label = "false positive rate" if name == "roc" else "step"
            chart = charts.Chart(name, table[x_name].to_numpy(float), table[y_name].to_numpy(float), x_label, name,
                                 x_range=fixed, y_range=fixed)
            shown[model].append({"title": "ROC, test split" if name == "roc" else name, "drawing": charts.draw(chart)})
    return shown


def inpainter_section(inputs: ReportInputs) -> dict[str, Any] | None:
    """ROC curves of the classifier on slices as they are, with healthy tissue and with lesions inpainted; or None.

    Each arm's chart has the mean over the draws in front of all draws of all arms.
    """
    if inputs.inpainter is None:
        return None
    metrics, curves = inputs.inpainter
    grid = np.linspace(0, 1, 101)
    lines = {arm: [np.interp(grid, draw["fpr"], draw["tpr"]) for _, draw in table.groupby("draw")]
             for arm, table in curves.groupby("arm")}
    behind = [(grid, line) for draws in lines.values() for line in draws]
    shown = []
    for arm, meaning in ARMS.items():
        chart = charts.Chart(meaning, grid, np.mean(lines[arm], axis=0), "false positive rate", "true positive rate",
                             behind=behind, x_range=(0.0, 1.0), y_range=(0.0, 1.0))
        shown.append({"title": f"{meaning}, AUC {metrics[f'auc_{arm}']:.3f}", "drawing": charts.draw(chart)})
    return {"charts": shown, "metrics": metrics}


def origin(inputs: ReportInputs) -> dict[str, str]:
    """What one needs to run it again: seed, data fingerprint, git revision, Python and system."""
    return {"seed": str(inputs.parameters["seed"]), "data fingerprint": inputs.store.fingerprint,
            "git revision": git_revision(), "Python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}"}


def versions() -> dict[str, str]:
    """The installed version of each package that the results rest on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str:
    """The commit that the working folder stands on, and whether code or parameters were edited since."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        edited = subprocess.run(["git", "status", "--porcelain", "--", *SHAPING], capture_output=True, text=True,
                                check=False)
    except FileNotFoundError:
        return "git is not installed"
    if commit.returncode != 0:
        return "not a git checkout with a commit"
    return commit.stdout.strip() + (", with edits that are not committed" if edited.stdout.strip() else "")

"""What was run: data, profile and hardware in a line, the git revision, the packages' versions."""

from __future__ import annotations

import importlib.metadata
import subprocess

from flipside.core.image_size import image_shape
from flipside.report.inputs import ReportInputs

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-image", "scikit-learn", "captum",
            "torchmetrics", "pytorch-fid", "lpips", "nibabel", "pydicom", "pydantic", "safetensors", "dvc", "dvclive",
            "matplotlib", "jinja2")
# Files that shape a run's results: where they are edited, the run is not its commit's.
SHAPING = ("flipside", "stages", "params.yaml", "datasets.yaml", "dvc.yaml", "requirements.txt")


def describe_run(inputs: ReportInputs) -> str:
    """Command, data set, profile, hardware and counts in one line of Markdown; no date, so equal runs are equal."""
    counts, shown = inputs.count_cases(), inputs.parameters
    devices = sorted({device for result in inputs.results.values()
                      if (device := result.explanations.timing["device"])})  # none of maps that were made elsewhere
    rows, columns = image_shape(shown["image_size"])
    return (f"`dvc repro`, data set `{shown['dataset']}`, profile `{shown['profile']}`, {rows} x {columns} pixels, "
            f"seed {shown['seed']}; {', '.join(devices)}; test split: "
            f"{counts.lesion} lesion slices of {counts.lesion_patients} patients, {counts.healthy} healthy slices.")


def package_versions() -> dict[str, str]:
    """The installed version of each package that the results rest on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str:
    """The commit of the working folder, and whether code or parameters were edited since."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        edited = subprocess.run(["git", "status", "--porcelain", "--", *SHAPING], capture_output=True, text=True,
                                check=False)
    except FileNotFoundError:
        return "git is not installed"
    if commit.returncode != 0:
        return "not a git checkout with a commit"
    return commit.stdout.strip() + (", with edits that are not committed" if edited.stdout.strip() else "")

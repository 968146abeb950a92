"""The whole DAG in the smoke profile, run by DVC in a fresh copy of the project, as a user would."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import yaml

from flipside.cli.profile import apply_profile
from tests.quick_python import quick_python

ROOT = Path(__file__).parents[1]
DVC = (sys.executable, ROOT / "tests/quick_dvc.py")
METHODS = list(yaml.safe_load((ROOT / "params.yaml").read_text())["methods"])


@pytest.fixture(scope="module")
def python():
    """A folder whose `python` runs the stages."""
    with quick_python() as folder:
        yield folder


@pytest.fixture(scope="module")
def project(tmp_path_factory, python):
    """A copy of the project without artifacts, switched to the smoke profile, after `dvc repro`."""
    root = tmp_path_factory.mktemp("project")
    for name in ("dvc.yaml", "params.yaml", "datasets.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    for name in ("stages", "flipside", "profiles"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "reports").mkdir()
    shutil.copy(ROOT / "reports/trainings.json", root / "reports")
    here = os.getcwd()
    os.chdir(root)
    try:
        apply_profile("smoke", root / "params.yaml")
    finally:
        os.chdir(here)
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["runtime"]["threads"] = 1
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    run(root, "git", "init", "-q")
    run(root, sys.executable, "-m", "dvc", "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", root / ".dvc/plots")
    run(root, "git", "add", "-A")
    run(root, "git", "commit", "-qm", "start")
    run(root, *DVC, "repro", python=python)
    return root


def run(root, *command, python=Path(sys.executable).parent):
    environment = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}",
                   "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
                   "GIT_COMMITTER_EMAIL": "a@b", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout + result.stderr


def metrics(project):
    return json.loads((project / "reports/metrics.json").read_text())


def test_every_method_has_every_metric_on_the_same_cases(project):
    found = metrics(project)
    assert set(found) == set(METHODS)
    policies = ("label_free", "fixed", "otsu", "val", "oracle")
    names = {f"iou_{p}" for p in policies} | {f"dice_{p}" for p in policies} | {f"iou_{p}_raw" for p in policies}
    names |= {f"iou_pooled_{p}{suffix}" for p in policies for suffix in ("", "_raw")}
    names |= {"hd95_mm_val", "asd_mm_val", "lesion_sensitivity", "lesion_fp_per_slice", "iou_label_free_per_patient"}
    names |= {f"{name}_p{p}" for p in (50, 75, 90) for name in ("centre_distance_mm", "hausdorff_mm", "area_to_organ")}
    names |= {"pixel_ap", "per_fixed", "fp_area_healthy", "seconds_per_image", "n_cases", "iou_label_free_ci_low",
              "iou_label_free_ci_high"}
    for method in METHODS:
        assert names <= set(found[method]), method
    assert len({found[method]["n_cases"] for method in METHODS}) == 1
    of_counterfactuals = {"success_rate", "cv", "judge_flip_rate", "l1", "ssim", "perceptual_clf", "n_change_inside"}
    of_counterfactuals |= {"n_bounded_flip_rate", "ncc_signed"}
    explained = {"coin", "singla", "coin_aligned", "impact", "cx_gan", "va_gan", "flip_mask", "octet", "tace", "stylex"}
    for method in (*explained, "blur", "grey", "mean_healthy"):
        assert of_counterfactuals <= set(found[method]), method
    assert "success_rate" not in found["rise"]
    assert "cycle_l1" in found["cx_gan"] and "cycle_l1" not in found["coin"]
    to_abnormal = {"n_success_rate_to_abnormal", "n_judge_flip_rate_to_abnormal", "n_cv_both_directions",
                   "n_realism_both_directions", "n_added_in_organ"}
    assert to_abnormal <= set(found["singla"]) and not to_abnormal & set(found["coin"])
    trained = {method for method in METHODS if "seconds_training" in found[method]}
    assert trained == explained | {"supervised"}
    assert [method for method in METHODS if found[method].get("upper_bound")] == ["supervised"]


def test_cases_table_has_one_row_per_case_and_method(project):
    cases = pd.read_csv(project / "reports/cases.csv")
    assert not cases.duplicated(["method", "slice_id"]).any()
    per_method = cases.groupby("method")["slice_id"].apply(frozenset)
    assert set(per_method.index) == set(METHODS) and per_method.nunique() == 1


def test_metrics_follow_from_the_cases(project):
    cases = pd.read_csv(project / "reports/cases.csv")
    for method in METHODS:
        lesions = cases[(cases["method"] == method) & (cases["label"] == 1)]
        assert metrics(project)[method]["n_cases"] == len(lesions)
        assert metrics(project)[method]["iou_val"] == pytest.approx(lesions["iou_val"].mean(), abs=1e-6)


def test_patients_never_cross_splits(project):
    index = pd.read_csv(project / "data/slices/index.csv", dtype=str)
    assert (index.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(index["split"]) == {"train", "val", "test"}


def test_masks_lie_on_the_original_grid(project):
    written = sorted((project / "data/segmentations").glob("*.nii.gz"))
    assert written
    index = pd.read_csv(project / "data/slices/index.csv", dtype=str)
    test_scans = set(index.loc[index["split"] == "test", "scan_id"])
    assert {file.name.removesuffix(".nii.gz") for file in written} == test_scans
    for file in written:
        source = index.loc[index["scan_id"] == file.name.removesuffix(".nii.gz"), "source_file"].iloc[0]
        original = nibabel.load(project / "data/raw/phantom" / source if (
            project / "data/raw/phantom" / source).exists() else project / "data/raw/phantom/cases" / source)
        mask = nibabel.load(file)
        assert mask.shape == original.shape
        assert np.allclose(mask.affine, original.affine)


def test_reports_are_there_and_self_contained(project):
    html = (project / "reports/report.html").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']https?://""", html)
    for method in METHODS:
        assert method in html
        assert method in (project / "reports/metrics.md").read_text()


def test_everything_is_up_to_date_afterwards(project):
    assert "up to date" in run(project, sys.executable, "-m", "dvc", "status")


def test_outputs_are_ignored_by_git_and_the_metrics_are_not(project):
    run(project, "git", "add", "-A")
    tracked = run(project, "git", "ls-files").split()
    assert {"dvc.lock", "reports/metrics.json", "reports/metrics.md", "reports/classifier.json",
            "reports/judge.json"} <= set(tracked)
    assert not [file for file in tracked if file.endswith((".npy", ".safetensors", ".nii.gz"))]


def test_models_are_no_pickles(project):
    files = [path for path in (project / "models").rglob("*") if path.is_file() and path.name != ".gitignore"]
    assert files and {path.suffix for path in files} == {".safetensors", ".json"}


def test_dvc_shows_metrics_and_plots(project):
    assert "iou_val" in run(project, sys.executable, "-m", "dvc", "metrics", "show")
    run(project, sys.executable, "-m", "dvc", "plots", "show", "-o", "dvc_plots")
    assert (project / "dvc_plots/index.html").is_file()
    shown = run(project, sys.executable, "-m", "dvc", "plots", "show", "--json")
    plots = json.loads(shown[shown.index("{"):].splitlines()[0])["data"]
    curves = plots["IoU by threshold"][0]["content"]
    assert curves["encoding"]["color"]["field"] == "method"
    assert {row["method"] for row in curves["data"]["values"]} == set(METHODS)
    assert {"ROC, test split", "Confusion, test split", "Classifier's loss", "COIN's loss terms"} <= set(plots)
    pictures = {Path(name).stem for name in plots if "figures" in name}
    assert pictures == {"ranking", "thresholds", "gallery", "comparison", "changes", "flips", "lost_iou"}


def test_an_experiment_changes_a_parameter_and_reruns_what_depends_on_it(project, python):
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "smoke run")
    before = metrics(project)
    output = run(project, *DVC, "exp", "run", "-S", "methods.centre.sigma=0.1", python=python)
    assert "Running stage 'explain@centre'" in output
    for other in ("explain@rise", "train_generator@coin", "train_classifier@judge", "extract_slices"):
        assert f"Running stage '{other}'" not in output
    after = metrics(project)
    assert after["centre"] != before["centre"]
    assert after["coin"]["iou_val"] == before["coin"]["iou_val"]
    difference = run(project, sys.executable, "-m", "dvc", "metrics", "diff", "--json")
    assert "centre" in difference

"""What a user does wrong is refused by the stage that meets it: one line that names it, and nothing written."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from flipside.core.params import stage_main
from tests.parameters import project_parameters, write_parameters
from tests.scans.scans_fixture import write_case, write_nifti

ROOT = Path(__file__).parents[1]
AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])
CASES = "data/raw/phantom/cases"


def params(project: Path, **changes) -> None:
    """The project's own parameters with values under dotted keys (`__` for a dot) changed."""
    values = project_parameters()
    values["runtime"]["threads"] = 1
    for key, value in ({"image_size": 16, "filter__min_organ_px": 0} | changes).items():
        *parents, leaf = key.split("__")
        node = values
        for part in parents:
            node = node[part]
        node[leaf] = value
    write_parameters(project, values)


def cases(project: Path, count: int = 3) -> None:
    """Scans as simulate_scans writes them: kidney is label 1; no lesions."""
    for number in range(1, count + 1):
        write_case(project / CASES, "case_" + "0" * number, AFFINE)  # another name's length is another image
        labels(project, "case_" + "0" * number)


def labels(project: Path, case: str, shape=(12, 10, 6), affine=AFFINE, value: int = 1) -> None:
    organ = np.zeros(shape, np.uint8)
    organ[2:8, 2:6, 1:5] = value
    write_nifti(project / CASES / case / "segmentation.nii.gz", organ, affine)


def run(project: Path, stage: str) -> subprocess.CompletedProcess:
    """The stage as its command line runs it, in this process: importing torch anew for each would take minutes."""
    stdout, stderr, code, here, arguments = io.StringIO(), io.StringIO(), 0, os.getcwd(), sys.argv
    module = importlib.import_module(f"stages.{stage}")
    os.chdir(project)
    sys.argv = [stage]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            stage_main(module.main)
    except SystemExit as leave:
        code = leave.code
    finally:
        os.chdir(here)
        sys.argv = arguments
    return subprocess.CompletedProcess(stage, code, stdout.getvalue(), stderr.getvalue())


def run_command(project: Path, stage: str) -> subprocess.CompletedProcess:
    """The same as a command of its own."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=project, env=environment, check=False,
                          capture_output=True, text=True)


def refusal(project: Path, stage: str, command=run) -> str:
    """The one `error:` line of a stage that must fail; it wrote no artifact and left no half of one."""
    before = written(project)
    result = command(project, stage)
    assert result.returncode == 1, result.stdout + result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    assert written(project) == before
    return errors[0]


def written(project: Path) -> set[Path]:
    return set((project / "data").rglob("*"))


def says(sentence: str, *parts: str) -> None:
    missing = [part for part in parts if part not in sentence]
    assert not missing, f"{sentence!r} doesn't say {missing}"


@pytest.mark.parametrize("stage", ["extract_slices", "split_patients"])
def test_on_the_command_line_too(tmp_path, stage):
    params(tmp_path, filter__min_organ="x")
    cases(tmp_path, 1)
    says(refusal(tmp_path, stage, run_command), "params.yaml", "unknown parameter `filter.min_organ`",
         "known are: min_organ_px, window")


def test_a_torn_scan_on_the_command_line(tmp_path):
    params(tmp_path)
    cases(tmp_path)
    (tmp_path / CASES / "case_00/imaging.nii.gz").write_bytes(b"torn")
    says(refusal(tmp_path, "extract_slices", run_command), f"{CASES}/case_00/imaging.nii.gz", "can't be decoded")


def test_the_healthy_project_runs(tmp_path):
    """Else every refusal below might be about something else."""
    params(tmp_path)
    cases(tmp_path)
    for stage in ("extract_slices", "split_patients", "draw_anomalies"):
        result = run(tmp_path, stage)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "data/slices/index.csv").is_file()


@pytest.mark.parametrize(("changes", "parts"), [
    ({"datasets__phantom__imagge": "x"},
     ["datasets.yaml", "unknown parameter `datasets.phantom.imagge`", "known are: root, page", "image"]),
    ({"extract__on_eror": "skip"}, ["unknown parameter `extract.on_eror`", "known are: on_error"]),
    ({"image_size": "large"}, ["params.yaml", "`image_size` is 'large'", "integer"]),
    ({"extract__on_error": "ignore"}, ["`extract.on_error` is 'ignore'", "'fail' or 'skip'"]),
    ({"dataset": "kidneys"}, ["`dataset` is 'kidneys'", "no block under `datasets`", "there are: phantom, "]),
])
def test_wrong_parameters(tmp_path, changes, parts):
    params(tmp_path, **changes)
    cases(tmp_path, 1)
    says(refusal(tmp_path, "extract_slices"), *parts)


def test_a_wrong_parameter_of_a_later_stage(tmp_path):
    params(tmp_path, filter__val_fraction="a fifth")
    says(refusal(tmp_path, "split_patients"), "`filter.val_fraction` is 'a fifth'", "number")


def test_a_stage_before_its_turn(tmp_path):
    params(tmp_path)
    says(refusal(tmp_path, "split_patients"), "data/extracted/images.npy not found", "dvc repro extract_slices")
    says(refusal(tmp_path, "draw_anomalies"), "data/filtered/images.npy not found", "dvc repro")


def test_a_data_set_that_is_not_there(tmp_path):
    params(tmp_path, dataset="kits")
    says(refusal(tmp_path, "extract_slices"), "data/raw/kits not found", "datasets.kits.root",
         "https://kits-challenge.org/kits23/")


def test_a_folder_without_what_the_pattern_names(tmp_path):
    params(tmp_path)
    (tmp_path / CASES / "case_1").mkdir(parents=True)
    says(refusal(tmp_path, "extract_slices"), f"{CASES} holds nothing that matches '{{case}}/imaging.nii.gz'",
         "datasets.phantom", "simulate_scans")


def test_labels_that_are_missing(tmp_path):
    params(tmp_path)
    cases(tmp_path)
    (tmp_path / CASES / "case_00/segmentation.nii.gz").unlink()
    says(refusal(tmp_path, "extract_slices"), f"{CASES}/case_00/imaging.nii.gz", "0 label files match",
         "case_00/segmentation.nii.gz", "expected one", "Get the data set's labels")


def test_one_patient_only(tmp_path):
    params(tmp_path)
    cases(tmp_path, 1)
    assert run(tmp_path, "extract_slices").returncode == 0
    says(refusal(tmp_path, "split_patients"), "1 patients", "4 slices", "at least 3 groups",
         "Add patients")


def test_a_given_split_that_the_data_set_does_not_have(tmp_path):
    params(tmp_path, filter__use_given_split=True)
    cases(tmp_path)
    assert run(tmp_path, "extract_slices").returncode == 0
    says(refusal(tmp_path, "split_patients"), "own split says nothing", "filter.use_given_split to false")


def test_no_organ_in_any_slice(tmp_path):
    params(tmp_path, datasets__phantom__ignored=[5])
    for name in ("a", "b"):
        write_case(tmp_path / CASES, name, AFFINE)
        labels(tmp_path, name, value=5)
    says(refusal(tmp_path, "extract_slices"), "datasets.phantom", "no slice left of 2 scans", CASES,
         "2 have no organ in any slice", "Check `organ` under datasets.phantom")


def test_organs_smaller_than_the_filter_wants(tmp_path):
    params(tmp_path, filter__min_organ_px=5000)
    cases(tmp_path)
    assert run(tmp_path, "extract_slices").returncode == 0
    says(refusal(tmp_path, "split_patients"), "filter.min_organ_px = 5000", "largest organ area 24", "Lower it")


def test_a_label_that_nobody_names(tmp_path):
    params(tmp_path)
    cases(tmp_path, 1)
    labels(tmp_path, "case_0", value=7)
    says(refusal(tmp_path, "extract_slices"), "case_0/segmentation.nii.gz", "holds the label 7", "expected [1]",
         "`ignored`")


@pytest.mark.parametrize(("shape", "affine", "parts"), [
    ((12, 10, 5), AFFINE, ["shape (12, 10, 5)", "shape (12, 10, 6)"]),
    ((12, 10, 6), np.diag([0.7, 0.8, 3.0, 1.0]), ["3.0, 0.0]", "2.5, 0.0]"]),
])
def test_labels_off_the_images_grid(tmp_path, shape, affine, parts):
    params(tmp_path)
    cases(tmp_path)
    labels(tmp_path, "case_00", shape, affine)
    says(refusal(tmp_path, "extract_slices"), f"{CASES}/case_00/segmentation.nii.gz",
         f"{CASES}/case_00/imaging.nii.gz", "don't lie on the grid", "resample them onto its grid", *parts)


@pytest.mark.parametrize("kept", [0, 60, 600], ids=["empty", "header cut", "voxels cut"])
def test_a_volume_that_cannot_be_read(tmp_path, kept):
    params(tmp_path)
    cases(tmp_path)
    file = tmp_path / CASES / "case_00/imaging.nii.gz"
    assert file.stat().st_size > 600
    file.write_bytes(file.read_bytes()[:kept])
    says(refusal(tmp_path, "extract_slices"), f"{CASES}/case_00/imaging.nii.gz", "can't be decoded",
         "Get the file again", "extract.on_error: skip")


def test_skip_goes_on_and_lists_what_it_left_out(tmp_path):
    params(tmp_path, extract__on_error="skip")
    cases(tmp_path, 4)
    (tmp_path / CASES / "case_00/imaging.nii.gz").write_bytes(b"torn")
    labels(tmp_path, "case_000", shape=(12, 10, 5))
    result = run(tmp_path, "extract_slices")
    assert result.returncode == 0, result.stderr
    assert "2 scans" in result.stdout and "left out: 2 (data/extracted/manifest.json" in result.stdout
    manifest = yaml.safe_load((tmp_path / "data/extracted/manifest.json").read_text())
    assert [entry["file"] for entry in manifest["left_out"]] == [
        "case_00/imaging.nii.gz", "case_000/segmentation.nii.gz"]
    assert "decoded" in manifest["left_out"][0]["reason"] and "grid" in manifest["left_out"][1]["reason"]


def test_skip_with_nothing_left(tmp_path):
    params(tmp_path, extract__on_error="skip")
    cases(tmp_path, 2)
    for name in ("case_0", "case_00"):
        (tmp_path / CASES / name / "imaging.nii.gz").write_bytes(b"torn")
    says(refusal(tmp_path, "extract_slices"), "no slice left of 2 scans", "2 can't be read",
         "the first: case_0/imaging.nii.gz")


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (20, 24), np.uint8)).save(path)


def test_a_class_without_an_image(tmp_path):
    params(tmp_path, dataset="brain_mri")
    for number, part in enumerate(("train", "train", "test")):
        picture(tmp_path / f"data/raw/brain_mri/{part}/no_tumour/{number}.png", number)
    says(refusal(tmp_path, "extract_slices"), "data/raw/brain_mri", "class 'meningioma'",
         "datasets.brain_mri.classes", "has no image", "{'no_tumour': 3, 'meningioma': 0}", "www.kaggle.com")


def test_training_slices_of_one_class(tmp_path):
    """A data set with lesions, in which no slice has enough lesion to count as abnormal."""
    params(tmp_path, datasets__phantom__anomalies=False, datasets__phantom__lesion_threshold_px=9,
           datasets__phantom__lesion={"files": ["{case}/segmentation.nii.gz"], "values": [2]})
    for number in range(1, 5):
        write_case(tmp_path / CASES, "case_" + "0" * number, AFFINE)
    assert run(tmp_path, "extract_slices").returncode == 0
    says(refusal(tmp_path, "split_patients"), "slices of one class only", "train 8 healthy, 0 abnormal",
         "lesion_threshold_px", "anomalies")


def test_synthetic_anomalies_on_a_data_set_with_lesions(tmp_path):
    params(tmp_path, datasets__phantom__lesion={"files": ["{case}/segmentation.nii.gz"], "values": [2]})
    for number in range(1, 5):
        write_case(tmp_path / CASES, "case_" + "0" * number, AFFINE)
    for stage in ("extract_slices", "split_patients"):
        assert run(tmp_path, stage).returncode == 0
    says(refusal(tmp_path, "draw_anomalies"), "slices are abnormal already", "datasets.phantom.anomalies to false")

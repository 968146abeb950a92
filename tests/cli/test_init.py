"""`flipside init`: the block it writes fits the folder, guesses say so, and where nothing fits it writes nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from flipside.cli import app
from flipside.cli.profile import apply_profile
from flipside.cli.proposals.words import classes_of, patient_pattern
from flipside.core.params import ParamsError, check_all
from flipside.scans.layouts import DatasetParams
from tests.scans.scans_fixture import DATA, needs_data, write_nifti, write_series

ROOT = Path(__file__).parents[2]
AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def pictures(folder: Path, *names: str, shape=(8, 10)) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(1, 200, shape).astype(np.uint8)).save(path)


def init(folder: Path, *options: str, name: str = "mine"):
    """The command's output and the block that it wrote, which the parameters' check and the layout accept."""
    result = CliRunner().invoke(app, ["init", str(folder), "--name", name, *options], catch_exceptions=False)
    block = yaml.safe_load(Path("datasets.yaml").read_text())["datasets"][name]
    check_all()
    assert DatasetParams.model_validate(block).root.find_scans(name)
    return result.output, block


def refused(folder: Path, *options: str) -> str:
    """What the command says where nothing fits; nothing was written."""
    before = Path("datasets.yaml").read_text(), sorted(Path("profiles").iterdir())
    with pytest.raises(ParamsError) as error:
        CliRunner().invoke(app, ["init", str(folder), "--name", "mine", *options], catch_exceptions=False)
    assert (Path("datasets.yaml").read_text(), sorted(Path("profiles").iterdir())) == before
    assert not Path("data/raw/mine").exists()
    return str(error.value)


def test_a_table_with_paths_and_labels(project, tmp_path):
    folder = tmp_path / "scans"
    pictures(folder, *(f"png/{n}.png" for n in range(6)), "masks/3.png")
    (folder / "list.csv").write_text("image,diagnosis,subject_id,lesion_mask,set\n" + "".join(
        f"png/{n}.png,{'tumour' if n > 2 else 'normal'},{n // 2},{'masks/3.png' if n == 3 else ''},"
        f"{('train', 'val', 'test')[n // 2]}\n" for n in range(6)))
    before = Path("datasets.yaml").read_text()
    output, block = init(folder)
    assert block == {
        "layout": "table", "root": "data/raw/mine", "modality": "other", "table": "list.csv", "path_column": "image",
        "mask_column": "lesion_mask", "label_column": "diagnosis", "classes": {"normal": 0, "tumour": 1},
        "patient_column": "subject_id", "split_column": "set"}
    for text in ("holds 7 picture files, 1 table files", "3 healthy, 3 abnormal", "patients: 3", "10 x 8 (6)",
                 "window: percentiles 0.5 to 99.5 of each scan's own foreground",
                 "flipside check"):
        assert text in output
    written = Path("datasets.yaml").read_text()
    assert written.startswith(before)  # with its comments
    for key in ("classes", "patient_column", "mask_column", "modality"):
        (line,) = [line for line in written[len(before):].splitlines() if line.startswith(f"    {key}:")]
        assert "# guess: " in line and line in output
    assert Path("data/raw/mine").resolve() == folder.resolve()
    assert yaml.safe_load(Path("profiles/mine.yaml").read_text()) == {
        "extends": "cpu", "dataset": "mine", "simulated.scans": [], "filter.use_given_split": True}
    apply_profile("mine")


def test_a_table_that_names_studies_instead_of_paths(project, tmp_path):
    folder = tmp_path / "pacs"
    for study in ("A1", "B2", "C3"):
        write_series(folder / "studies" / study, PatientID=study)
    (folder / "labels.csv").write_text("study;abnormal\nA1;1\nB2;0\nC3;\n")
    output, block = init(folder, "--table", "labels.csv")
    assert block == {"layout": "table", "root": "data/raw/mine", "modality": "ct", "table": "labels.csv",
                     "path_column": "study", "path_pattern": "studies/{path}", "label_column": "abnormal"}
    for text in ("guess: the DICOM headers say CT", "1 without a label, which are left out", "6 x 8 x 4",
                 "0.75 x 0.5 x 3 mm", "no column names the patients"):
        assert text in output
    assert "Doe" not in output and "HOSP" not in output


def test_labels_that_are_names_of_pictures_too(project, tmp_path):
    pictures(tmp_path / "scans", *(f"png/{n}.png" for n in range(6)))
    (tmp_path / "scans/t.csv").write_text("Path,Label,Patient,Mask\n" + "".join(
        f"png/{n}.png,{n % 2},P{n % 3},\n" for n in range(6)))
    output, block = init(tmp_path / "scans")
    assert block["label_column"] == "Label" and block["patient_column"] == "Patient" and "mask_column" not in block
    assert "3 healthy, 3 abnormal" in output


def test_a_column_of_0_and_1_is_no_label_beside_one_that_is_called_so(project, tmp_path):
    pictures(tmp_path / "scans", *(f"png/{n}.png" for n in range(6)))
    rows = "".join(f"png/{n}.png,{n % 2},{n // 3},{n % 3}\n" for n in range(6))
    (tmp_path / "scans/t.csv").write_text(f"path,sex,contrast,tumor_grade\n{rows}")
    _, block = init(tmp_path / "scans")
    assert block["label_column"] == "tumor_grade" and block["classes"] == {"0": 0, "1": 1, "2": 1}
    (tmp_path / "scans/t.csv").write_text(f"path,sex,female,age_group\n{rows}")
    shutil.rmtree("data")
    Path("profiles/mine.yaml").unlink()
    assert "looks like a label" in refused(tmp_path / "scans")


def test_rows_without_a_patient_are_told(project, tmp_path):
    pictures(tmp_path / "raw", "0.png", "1.png", "2.png")
    (tmp_path / "raw/list.csv").write_text("path,label,patient_id\n0.png,0,p1\n1.png,1,p2\n2.png,1,\n")
    told, block = init(tmp_path / "raw")
    assert block["patient_column"] == "patient_id" and "1 of 3 rows have no patient_id" in told


def test_folders_of_classes_with_masks_beside_the_pictures(project, tmp_path):
    folder = tmp_path / "scans"
    names = [f"p{n}_{k}" for n in range(6) for k in range(2)]
    pictures(folder, *(f"{part}/{kind}/{kind[0]}{name}.png" for part in ("Training", "Testing")
                       for kind in ("normal", "ill") for name in names), "Testing/ill/ip1_0_mask.png")
    output, block = init(folder)
    assert block["layout"] == "class_folders" and block["image"] == "{split}/{class}/{case}.png"
    assert block["classes"] == {"ill": 1, "normal": 0} and block["splits"] == {"Testing": "test", "Training": "train"}
    assert block["leave_out"] == ["{split}/{class}/{case}_mask*.*"]
    assert "24 healthy, 24 abnormal" in output and "patient: ^([^_]+)_  # guess: " in output


def test_every_kind_of_picture_that_is_read_is_found(project, tmp_path):
    pictures(tmp_path / "scans", *(f"{kind}/{n}.{ending}" for kind in ("normal", "ill")
                                   for n, ending in enumerate(("pgm", "jp2", "gif"))))
    output, block = init(tmp_path / "scans")
    assert block["layout"] == "class_folders" and block["image"] == "{class}/{case}.*"
    assert "3 healthy, 3 abnormal" in output


def test_healthy_classes_as_the_user_says(project, tmp_path):
    pictures(tmp_path / "scans", "birads2/1.png", "birads1/2.png", "birads5/3.png")
    assert "say it with --healthy" in refused(tmp_path / "scans")
    _, block = init(tmp_path / "scans", "--healthy", "birads1", "--healthy", "birads2")
    assert block["classes"] == {"birads1": 0, "birads2": 0, "birads5": 1}


def test_pictures_with_masks_of_their_names(project, tmp_path):
    pictures(tmp_path / "scans", *(f"images/{n}.png" for n in range(4)), *(f"masks/{n}_seg.png" for n in range(4)))
    output, block = init(tmp_path / "scans")
    assert block["layout"] == "image_mask" and block["image"] == "images/{case}.png"
    assert block["lesion"] == {"files": ["masks/{case}_seg.png"]}
    assert "guess: every value but 0 is taken for lesion" in output
    pictures(tmp_path / "scans", "images/9.png")
    shutil.rmtree("data")
    assert "1 of 5 pictures of images have no mask in masks, such as 9" in refused(tmp_path / "scans")


@pytest.mark.parametrize(("files", "image", "lesion"), [
    (("{case}/imaging.nii.gz", "{case}/segmentation.nii.gz"), "{case}/imaging.nii.gz", "{case}/segmentation.nii.gz"),
    (("a/{case}/{case}_flair.nii", "a/{case}/{case}_seg.nii"), "a/{case}/{case}_flair.nii", "a/{case}/{case}_seg.nii"),
    (("imagesTr/{case}_0000.nii.gz", "labelsTr/{case}.nii.gz"), "imagesTr/{case}_0000.nii.gz",
     "labelsTr/{case}.nii.gz"),
    (("{case}_ct.nii.gz", "{case}_mask.nii.gz"), "{case}_ct.nii.gz", "{case}_mask.nii.gz"),
])
def test_volumes_with_labels(project, tmp_path, files, image, lesion):
    for case in ("c1", "c2", "c3"):
        for number, name in enumerate(files):
            write_nifti(tmp_path / "scans" / name.replace("{case}", case), np.full((4, 5, 3), 7 * number, np.int16),
                        AFFINE)
    output, block = init(tmp_path / "scans")
    assert (block["layout"], block["image"], block["lesion"]) == ("nifti_cases", image, {"files": [lesion]})
    assert "every value but 0 is taken for lesion; the files hold 7" in output and "4 x 5 x 3" in output


def test_where_nothing_fits_it_says_what_it_saw(project, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    assert "no layout fits" in refused(folder)
    (folder / "notes.txt").touch()
    write_series(folder / "series")
    assert "4 DICOM files, but no labels: make a table" in refused(folder)
    (folder / "list.csv").write_text("path,label\nseries,1\nother,0\n")
    assert "of the column 'path' 1 of 2 lead nowhere, such as 'other'" in refused(folder)
    (folder / "list.csv").write_text("path,weight\nseries,70\n")
    assert "looks like a label" in refused(folder, "--table", "list.csv")
    (tmp_path / "list.csv").write_text("path,label\nseries,1\n")
    assert "lies outside of" in refused(folder, "--table", str(tmp_path / "list.csv"))
    assert "is no folder" in refused(tmp_path / "nowhere")


def test_what_is_there_is_not_overwritten(project, tmp_path):
    pictures(tmp_path / "scans", "normal/1.png", "ill/2.png")
    init(tmp_path / "scans")
    with pytest.raises(ParamsError, match="profiles/mine.yaml exists already"):
        init(tmp_path / "scans")
    pictures(tmp_path / "more", "normal/1.png", "ill/2.png")
    with pytest.raises(ParamsError, match="data/raw/mine exists and leads to"):
        init(tmp_path / "more")


@pytest.mark.parametrize(("names", "found"), [
    ([f"TCGA_CS_{n}_1996_{k:03}" for n in range(9) for k in range(3)], (r"^(.+)[_-][^_-]+$", 9)),
    ([f"L{n:04}_n0_s{k}" for n in range(9) for k in range(3)], (r"^([^_]+)_", 9)),
    ([f"image_{n}" for n in range(20)], None), ([str(n) for n in range(20)], None)])
def test_patients_in_names(names, found):
    assert patient_pattern(names) == found


def test_what_classes_mean_by_their_names():
    assert classes_of(["no_tumour", "meningioma"], []) == {"meningioma": 1, "no_tumour": 0}
    assert classes_of(["nodule", "mass"], []) is None  # no healthy one
    assert classes_of(["a", "b"], ["b"]) == {"a": 1, "b": 0}


@needs_data
@pytest.mark.parametrize(("folder", "layout", "labels"), [
    ("lgg", "table", "1134 healthy, 699 abnormal"), ("busi", "table", "106 healthy, 512 abnormal"),
    ("brain_mri", "class_folders", "805 healthy, 706 abnormal"), ("curvas", "image_mask", "14 patients")])
def test_real_folders(project, folder, layout, labels):
    output, block = init(DATA / folder)
    assert block["layout"] == layout and labels in output

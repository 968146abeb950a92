"""Blocks of `datasets` name the right files, and say what is wrong where they don't."""

import shutil
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from flipside.scans import layouts
from flipside.scans.labels import find_label_files
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import LAYOUTS, DatasetParams, DatasetsParams
from flipside.scans.readers import ReadError
from flipside.scans.tables import TableError
from tests.scans.scans_fixture import CLASSES, IMAGES, NIFTI, SERIES, TABLE

ROOT = Path(__file__).parents[2]


def block(tmp_path, content: dict, files: tuple[str, ...] = (), **changes):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return DatasetParams.model_validate(content | {"root": str(tmp_path)} | changes).root


def found(params) -> list[tuple[str, str]]:
    return [(case.name, case.path.relative_to(params.root).as_posix()) for case in params.find_scans("toy")]


def test_a_case_per_folder(tmp_path):
    params = block(tmp_path, NIFTI, ("b/imaging.nii.gz", "a/imaging.nii.gz", "a/segmentation.nii.gz", "c/other.nii.gz"))
    assert found(params) == [("a", "a/imaging.nii.gz"), ("b", "b/imaging.nii.gz")]


@pytest.mark.parametrize(("pattern", "files", "names"), [
    ("imagesTr/{case}.nii.gz", ("imagesTr/k_1.nii.gz", "imagesTr/._k_1.nii.gz", "labelsTr/k_1.nii.gz"), ["k_1"]),
    ("*/{case}/{case}_flair.nii.gz", ("HGG/p1/p1_flair.nii.gz", "LGG/p2/p2_flair.nii.gz", "LGG/p2/p1_flair.nii.gz"),
     ["p1", "p2"]),
    ("{case}_?.nii", ("x_1.nii", "y_12.nii"), ["x"]),
    ("{case}[CO].png", ("a_CC.png", "a_MLO.png", "a_CC_Mask.png"), ["a_C", "a_ML"]),
    ("v1.0 (x)/{case}+b.nii", ("v1.0 (x)/a+b.nii", "v1.0 (x)/aab.nii"), ["a"]),
])
def test_patterns(tmp_path, pattern, files, names):
    assert [name for name, _ in found(block(tmp_path, NIFTI, files, image=pattern))] == names


def test_two_files_of_one_name_are_refused(tmp_path):
    params = block(tmp_path, NIFTI, ("x/a.nii", "y/a.nii"), image="*/{case}.nii")
    with pytest.raises(DatasetError, match="both named 'a'.*datasets.toy"):
        params.find_scans("toy")


def test_labels_are_found_by_the_case(tmp_path):
    block(tmp_path, NIFTI, ("lab/a [1]_v2.nii", "lab/b.nii", "two/a [1]_1.nii", "two/a [1]_2.nii"))
    image, case = tmp_path / "img/a [1].nii", "a [1]"
    assert find_label_files(image, case, tmp_path, ["lab/{case}_*.nii"]) == [tmp_path / "lab/a [1]_v2.nii"]
    for pattern, count in (("lab/{case}.nii", 0), ("two/{case}_*.nii", 2)):
        with pytest.raises(ReadError, match=f"{count} label files match"):
            find_label_files(image, case, tmp_path, [pattern])


def test_missing_folder_names_folder_and_page(tmp_path):
    for content in (NIFTI, SERIES, IMAGES, CLASSES, TABLE):
        params = block(tmp_path, content, root=str(tmp_path / "nowhere"))
        with pytest.raises(DatasetError, match="nowhere not found.*datasets.toy.root.*https://example.org/data"):
            params.find_scans("toy")
    with pytest.raises(DatasetError, match="holds nothing that matches.*https://example.org/data"):
        block(tmp_path, NIFTI).find_scans("toy")


def test_class_folders_with_their_own_split(tmp_path):
    files = ("Training/healthy/1.png", "Training/ill/1.png", "Testing/ill/1.png", "Testing/other/1.png")
    cases = block(tmp_path, CLASSES, files).find_scans("toy")
    assert [(case.name, case.class_label, case.given_split) for case in cases] == [
        ("Testing_ill_1", 1, "test"), ("Training_healthy_1", 0, "train"), ("Training_ill_1", 1, "train")]


def test_class_from_the_end_of_the_file_name(tmp_path):
    params = block(tmp_path, CLASSES, ("CHNCXR_0001_0.png", "CHNCXR_0002_1.png", "CHNCXR_0003_2.png"), splits={},
                   image="{case}_{class}.png", classes={"0": 0, "1": 1})
    assert [(case.case, case.class_label) for case in params.find_scans("toy")] == [
        ("CHNCXR_0001", 0), ("CHNCXR_0002", 1)]


def test_class_or_split_without_images_is_refused(tmp_path):
    params = block(tmp_path, CLASSES, ("Training/ill/1.png", "Testing/ill/1.png"))
    with pytest.raises(DatasetError, match="class 'healthy'.*{'healthy': 0, 'ill': 2}"):
        params.find_scans("toy")
    params = block(tmp_path / "b", CLASSES, ("Training/ill/1.png", "Training/healthy/1.png"))
    with pytest.raises(DatasetError, match="only in the train part"):
        params.find_scans("toy")


@pytest.mark.parametrize(("content", "changes", "message"), [
    (NIFTI, {"layout": "zarr"}, "layout|tag"), (NIFTI, {"imagge": 1}, "imagge"), (NIFTI, {"patient": "a"}, "one group"),
    (NIFTI, {"patient": "("}, "regular expression"), (NIFTI, {"lesion_threshold_px": -1}, "greater"),
    (CLASSES, {"splits": {}}, "{split}"), (CLASSES, {"classes": {"a": 0, "b": 0}}, "abnormal"),
    (IMAGES, {"spacing_mm": [0, 1]}, "greater"),
    (IMAGES, {"organ": {"files": ["m"], "values": [1], "colours": [[[0, 1], [0, 1], [0, 1]]]}}, "values. or .colours"),
])
def test_wrong_blocks_are_refused(tmp_path, content, changes, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        DatasetsParams.model_validate({"toy": content | {"root": "x"} | changes})


NEEDED = [(NIFTI, {"image"}), (SERIES, set()), (IMAGES, {"image"}), (CLASSES, {"image", "classes"}),
          (TABLE, {"image", "tables", "file_column", "label_column", "classes"})]


@pytest.mark.parametrize(("content", "needed"), NEEDED, ids=[content["layout"] for content, _ in NEEDED])
def test_a_block_needs_few_keys_and_the_others_have_defaults(content, needed):
    if content is CLASSES:
        content = content | {"image": "{class}/{case}.png"}
    needed = needed | {"layout", "root"}
    least = {key: value for key, value in (content | {"root": "x"}).items() if key in needed}
    DatasetsParams.model_validate({"toy": least})
    for key in needed:
        with pytest.raises(pydantic.ValidationError):
            DatasetsParams.model_validate({"toy": {name: value for name, value in least.items() if name != key}})


def test_table_of_birads(tmp_path):
    params = block(tmp_path, TABLE)
    (tmp_path / "labels.csv").write_text("File Name;Bi-Rads\n22_L; 1\n22_R;4a \n33;3\n44;1\n")
    assert params.labels_in(params.read_tables()) == {"22": (1, "", ()), "33": (None, "", ()), "44": (0, "", ())}
    for text, message in (("File;Bi-Rads\n", "no column 'File Name'.*'File'"),
                          ("File Name;Bi-Rads\n1;7\n", "line 2.*'7'"),
                          ("File Name;Bi-Rads\nx;1\n", "line 2.*file_pattern")):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises((DatasetError, TableError), match=message):
            params.labels_in(params.read_tables())
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(DatasetError, match="labels.csv not found.*https://example.org/data"):
        params.labels_in(params.read_tables())


def test_each_file_holds_the_layout_of_its_name():
    folder = Path(layouts.__file__).parent
    names = [kind.model_fields["layout"].annotation.__args__[0] for kind in LAYOUTS]
    assert names == sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")


TOY = '''
from typing import Literal

from flipside.scans.layout import FoundScan, Layout
from flipside.scans.scan import Scan


class Toy(Layout):
    layout: Literal["toy"]
    image: str

    def find_scans(self, dataset: str) -> list[FoundScan]:
        return self.find_by_pattern(dataset, self.image)

    def read_scan(self, found: FoundScan, salt: str) -> Scan:
        raise NotImplementedError
'''
USE = '''
import sys

from flipside.scans.layouts import DatasetParams, DatasetsParams

block = {"layout": "toy", "root": sys.argv[1], "page": "x", "modality": "ct", "anomalies": False,
         "lesion_threshold_px": 0, "image": "{case}.bin"}
print([found.name for found in DatasetParams.model_validate(block).root.find_scans("own")])
try:
    DatasetsParams.model_validate({"own": block | {"layout": "zarr"}})
except ValueError as error:
    print(error)
'''


def test_a_layout_is_one_more_file(tmp_path):
    shutil.copytree(ROOT / "flipside", tmp_path / "flipside", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "flipside/scans/layouts/toy.py").write_text(TOY)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/scan_7.bin").touch()
    result = subprocess.run([sys.executable, "-c", USE, "data"], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
                            capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("['scan_7']")
    layouts = "'class_folders', 'dicom_birads', 'dicom_series', 'image_mask', 'joined', 'nifti_cases', 'table', 'toy'"
    assert layouts in result.stdout


@pytest.mark.parametrize("stray", ["Testing/HEALTHY/c.png", "TESTING/ill/c.png"])
def test_a_class_or_part_in_other_capitals_is_not_left_out_unsaid(tmp_path, stray):
    files = ("Training/healthy/a.png", "Training/ill/a.png", "Testing/healthy/b.png", "Testing/ill/b.png")
    assert len(found(block(tmp_path, CLASSES, (*files, "Testing/other/c.png")))) == 4
    with pytest.raises(DatasetError, match=f"1 images lie in folders that differ .*toy.classes.* first is {stray}"):
        found(block(tmp_path, CLASSES, (stray,)))


def test_labels_beside_the_volumes_are_no_cases(tmp_path):
    files = ("a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz")
    changes = {"image": "{case}.nii.gz", "organ": None}
    named = block(tmp_path, NIFTI, files, lesion={"files": ["{case}_seg.nii.gz"]}, **changes)
    assert [name for name, _ in found(named)] == ["a", "b"]
    with pytest.raises(DatasetError, match="2 of 4 files .* seem to be labels.* a_seg.nii.gz beside a.nii.gz"):
        found(block(tmp_path, NIFTI, lesion=None, **changes))

"""The layout `table`: every kind of file in one table, and what is wrong with a table said with row and column."""

import numpy as np
import pandas as pd
import pydantic
import pytest
from PIL import Image

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractError, ExtractParams, extract
from flipside.cohort.selection import slice_labels
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from flipside.scans.row_reader import parse_spacing
from tests.scans.scans_fixture import DATA, EXTRACT, needs_data, write_nifti, write_series, write_slice

AFFINE = np.diag([0.7, 0.8, 2.5, 1.0])


def picture(path, seed=0, shape=(8, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint8)).save(path)


def block(root, text: str | None = None, **changes):
    if text is not None:
        (root / "labels.csv").write_text(text)
    return DatasetParams.model_validate({"layout": "table", "root": str(root), "table": "labels.csv"} | changes).root


def run(root, out, **changes) -> Extracted:
    out.mkdir(exist_ok=True)
    extract("toy", block(root, **changes), ExtractParams(**EXTRACT), 16, out)
    return Extracted.open(out)


@pytest.fixture
def mixed(tmp_path):
    """A volume with a mask, a DICOM series, a DICOM file and pictures, with all columns."""
    root = tmp_path / "raw"
    write_nifti(root / "ct/a.nii.gz", np.full((12, 10, 4), 7, np.int16), AFFINE)
    lesion = np.zeros((12, 10, 4), np.uint8)
    lesion[3:5, 3:6, 2] = 1
    write_nifti(root / "ct/a_mask.nii.gz", lesion, AFFINE)
    other = np.zeros((12, 10, 4), np.uint8)
    other[8, 8, 2] = 4
    write_nifti(root / "ct/a_more.nii.gz", other, AFFINE)
    write_series(root / "study")
    write_slice(root / "one.dcm", np.arange(80, dtype=np.int16).reshape(8, 10), PatientID="other",
                PatientName="Roe^Richard")
    for number in range(3):
        picture(root / f"png/{number}.png", number)
    (root / "labels.csv").write_text(
        "path,label,patient,split,mask,spacing,site\n"
        "ct/a.nii.gz,1,p1,train,ct/a_mask.nii.gz; ct/a_more.nii.gz,,NA\n"
        "study,0,,test,,,\n"
        "one.dcm,1,p2,train,,,\n"
        "png/0.png,0,p3,val,,0.5x0.2,\n"
        "png/1.png,1.0,p4,val,,2,\n"
        "png/2.png,,p4,val,,,\n")
    return root


def test_volumes_series_and_pictures_in_one_table(mixed, tmp_path):
    got = run(mixed, tmp_path / "out")
    by_scan = got.index.groupby("scan_id")
    assert by_scan.size().to_dict() == {"0": 1, "1": 1, "a": 4, "one": 1, "study": 4}
    labels = pd.Series(slice_labels(got.index, 0)).groupby(got.index["scan_id"]).agg(list).to_dict()
    assert labels == {"0": [0], "1": [1], "a": [0, 0, 1, 0], "one": [1], "study": [0] * 4}  # the mask says which slice
    assert by_scan["lesion_px"].sum().to_dict() == {"0": 0, "1": 0, "a": 7, "one": 0, "study": 0}
    assert dict(zip(got.scans["scan_id"], got.scans["given_split"], strict=True)) == {
        "0": "val", "1": "val", "a": "train", "one": "train", "study": "test"}
    assert dict(zip(got.scans["scan_id"], got.scans["site"], strict=True)) == {
        "0": "", "1": "", "a": "NA", "one": "", "study": ""}
    assert got.scans["patient_id"].is_unique  # hashes, also of what the table calls the patients
    assert not got.scans["patient_id"].isin(["p1", "p2", "p3", "HOSP-4711"]).any()


def test_a_spacing_is_the_files_own_else_the_tables(mixed):
    params = block(mixed, spacing_mm=[3, 4])
    spacings = {found.name: params.read_scan(found, "salt").spacing_mm for found in params.find_scans("toy")}
    assert {name: tuple(np.round(spacing, 4)) for name, spacing in spacings.items()} == {
        "0": (0.5, 0.2, 1), "1": (2, 2, 1), "2": (3, 4, 1), "a": (0.8, 0.7, 2.5), "one": (0.5, 0.75, 1),
        "study": (0.5, 0.75, 3)}


def test_pictures_may_say_which_slice_of_their_patients_scan_they_are(mixed, tmp_path):
    text = "path,label,patient,slice\npng/0.png,0,p,12\npng/1.png,1,q,\nct/a.nii.gz,0,p,3\n"
    numbers = run(mixed, tmp_path / "out", text=text).index.groupby("scan_id")["slice_number"].first()
    assert numbers["0"] == 12 and numbers[["1", "a"]].isna().all()  # a volume counts its own slices
    with pytest.raises(DatasetError, match="row 2, column 'slice': found 'L4', expected a slice's number"):
        block(mixed, text.replace(",12", ",L4")).find_scans("toy")


def test_an_unknown_label_is_never_healthy(mixed, tmp_path):
    got = run(mixed, tmp_path / "out")
    assert "2" not in set(got.index["scan_id"])
    assert got.manifest["left_out"] == [
        {"file": "png/2.png", "reason": "its label is unknown, or of a class that is left out"}]
    assert got.manifest["counts"]["class_left_out"] == 1 and got.manifest["counts"]["left_out"] == 0


def test_labels_come_from_masks_where_there_is_no_column_of_labels(mixed, tmp_path):
    got = run(mixed, tmp_path / "out", text="path,mask\nct/a.nii.gz,ct/a_mask.nii.gz\npng/0.png,\n")
    assert slice_labels(got.index, 0).tolist() == [0, 0, 1, 0, 0]


def test_columns_of_other_names_and_parts_of_paths(mixed, tmp_path):
    got = run(mixed, tmp_path / "out", text="id;finding\n0;none\n1;tumour\n2;unclear\n".replace(";", ","),
              path_column="id", path_pattern="png/{path}.png", label_column="finding",
              classes={"none": 0, "tumour": 1, "unclear": None})
    assert got.index[["scan_id", "class_label"]].to_numpy().tolist() == [["0", 0], ["1", 1]]
    assert [entry["file"] for entry in got.manifest["left_out"]] == ["png/2.png"]


def test_several_volumes_are_channels(mixed):
    write_nifti(mixed / "ct/a_t2.nii.gz", np.full((12, 10, 4), 9, np.int16), AFFINE)
    params = block(mixed, "path,t2,label\nct/a.nii.gz,ct/a_t2.nii.gz,1\n", image_columns=["t2"])
    (found,) = params.find_scans("toy")
    assert [channel.slice(0)[0, 0] for channel in params.read_scan(found, "salt").channels] == [7, 9]
    write_nifti(mixed / "ct/a_t2.nii.gz", np.full((12, 10, 5), 9, np.int16), AFFINE)
    with pytest.raises(ReadError, match=r"a_t2.nii.gz: lies on another grid .*5\)\) than .*labels.csv, row 2"):
        params.read_scan(found, "salt")


def test_equal_file_names_in_several_folders(mixed, tmp_path):
    picture(mixed / "png2/0.png", 9)
    params = block(mixed, "path,label\npng/0.png,0\npng2/0.png,1\n")
    assert [scan.name for scan in params.find_scans("toy")] == ["png_0", "png2_0"]


@pytest.mark.parametrize(("text", "message"), [
    ("path,label\npng/7.png,0\npng/0.png,1\npng/8.png,0\n",
     r"2 of 3 paths lead nowhere, .*labels.csv, row 2, column 'path': .*7.png; .*row 4.*Correct the table"),
    ("path,label,mask\npng/0.png,1,masks/0.png\npng/1.png,0,\n", r"1 of 3 paths .*row 2, column 'mask': .*masks/0.png"),
    ("path,label\npng/0.png,0\npng/1.png,maybe\n",
     r"row 3, column 'label': found 'maybe', expected one of \['0', '1'\]"),
    ("path,label\npng/0.png,0\npng/1.png,1\npng/0.png,0\n", r"row 4, column 'path': found png/0.png.*row 2"),
    ("path,label\npng/0.png,0\n,1\n", r"row 3, column 'path': found '', expected the path of a scan"),
    ("path,label,patient,split\npng/0.png,0,a,train\npng/1.png,1,a,test\npng/2.png,1,b,test\n",
     r"row 3, column 'split': found 'test', but .*row 2 has the same patient in 'train'"),
    ("path,label,patient\npng/0.png,0,x\npng/1.png,1,x\n", r"toy.patient_column gives one patient for all 2 scans"),
    ("path,label,split\npng/0.png,0,dev\n", r"row 2, column 'split': found 'dev', expected one of .*toy.splits"),
    ("path,label,spacing\npng/0.png,0,-1\n", r"row 2, column 'spacing': found '-1', expected mm as 0.7x0.7"),
    ("file,label\npng/0.png,0\n", r"has no column 'path', which datasets.toy.path_column names; it has \['file'"),
    ("path,kind\npng/0.png,0\n", r"neither labels nor masks: .*datasets.toy.label_column"),
    ("path,label\n", r"has no row"),
])
def test_what_is_wrong_with_a_table_is_named(mixed, text, message):
    with pytest.raises(DatasetError, match=message):
        block(mixed, text).find_scans("toy")


def test_a_column_that_the_block_names_must_be_there(mixed):
    with pytest.raises(DatasetError, match="no column 'person', which datasets.toy.patient_column names"):
        block(mixed, patient_column="person").find_scans("toy")
    with pytest.raises(DatasetError, match="labels.csv not found.*datasets.toy"):
        block(mixed / "png").find_scans("toy")


def test_what_contradicts_the_files_is_refused(mixed, tmp_path):
    empty = np.zeros((12, 10, 4), np.uint8)
    write_nifti(mixed / "ct/empty.nii.gz", empty, AFFINE)
    write_nifti(mixed / "ct/short.nii.gz", empty[..., :3], AFFINE)
    for text, message in (
            ("path,label,mask\nct/a.nii.gz,0,ct/a_mask.nii.gz\n", "label 0, but its mask holds a lesion, .*row 2"),
            ("path,label,mask\nct/a.nii.gz,1,ct/empty.nii.gz\n", "label 1, but its mask holds no lesion"),
            ("path,label,mask\nct/a.nii.gz,1,ct/short.nii.gz\n", "short.nii.gz: labels of shape .* don't lie on the"),
            ("path,label,mask\npng/0.png,1,ct/a_mask.nii.gz\n", "a_mask.nii.gz: can't be decoded"),
            ("path,label,mask\nct/a.nii.gz,1,png/0.png\n", "png/0.png: is no NIfTI file, but the mask of a volume"),
            ("path,label,spacing\nct/a.nii.gz,1,3\n", "pixels of 0.8x0.7 mm, .*row 2 says 3x3")):
        with pytest.raises(ReadError, match=message):
            run(mixed, tmp_path / "out", text=text)


@pytest.mark.parametrize(("text", "value"), [
    ("0.7x0.6", (0.7, 0.6)), ("0.7", (0.7, 0.7)), (" 0.7 × 0.6 mm", (0.7, 0.6)), ("1e-1", (0.1, 0.1)), ("0", None),
    ("a", None), ("1x2x3", None), ("nan", None), ("inf", None), ("", None)])
def test_spacing_as_people_write_it(text, value):
    assert parse_spacing(text) == value


def test_a_value_of_a_mask_that_nothing_names_is_refused(mixed):
    """255 where 1 was meant: a lesion that would be healthy tissue in silence."""
    text = "path,label,mask\nct/a.nii.gz,,ct/a_more.nii.gz\n"
    (found,) = block(mixed, text, mask_values=[1]).find_scans("toy")
    with pytest.raises(ReadError, match=r"a_more\.nii\.gz.*holds the label 4, expected \[1\].*`ignored`"):
        block(mixed, text, mask_values=[1]).read_scan(found, "salt")
    for named in ({"ignored": [4]}, {"ignored": "any"}, {"organ_values": [4]}):
        table = text.replace("mask\n", "mask,organ\n").replace("a_more.nii.gz\n", "a_more.nii.gz,ct/a_more.nii.gz\n")
        params = block(mixed, table if "organ_values" in named else text, mask_values=[1], **named)
        (found,) = params.find_scans("toy")
        lesion = params.read_scan(found, "salt").lesion
        assert not any(lesion.slice(z).any() for z in range(4))


def test_pictures_in_colours_have_three_channels(mixed):
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (8, 10, 3)).astype(np.uint8)).save(mixed / "png/rgb.png")
    for colour, channels in (("grey", 1), ("rgb", 3)):
        params = block(mixed, "path,label\npng/rgb.png,1\n", colour=colour)
        (found,) = params.find_scans("toy")
        assert len(params.read_scan(found, "salt").channels) == channels
        assert params.channel_names(channels) == (["image"] if colour == "grey" else ["red", "green", "blue"])


@needs_data
def test_a_list_that_comes_with_flipside_chooses_among_a_public_set():
    params = DatasetParams.model_validate({"layout": "table", "root": str(DATA / "brain_mri"),
                                           "table": "brain_mri_axial.csv"}).root
    found = params.find_scans("toy")
    assert len(found) == 1035 and {scan.given_split for scan in found} == {"train", "test"}
    assert all((scan.class_label == 1) == ("meningioma" in scan.path.as_posix()) for scan in found)


def test_parquet_as_csv(mixed):
    pd.DataFrame({"path": ["png/0.png", "png/1.png"], "label": [0.0, 1.0], "patient": [7, 8]}).to_parquet(
        mixed / "labels.parquet")
    found = block(mixed, table="labels.parquet").find_scans("toy")
    assert [(scan.name, scan.class_label, scan.patient) for scan in found] == [("0", 0, "7"), ("1", 1, "8")]


@pytest.mark.parametrize(("text", "message"), [
    ("path,label,Patient\npng/0.png,0,a\npng/1.png,1,b\n", "the column 'Patient', but datasets.toy.patient_column is"),
    ("path,Label,mask\npng/0.png,0,\npng/1.png,1,\n", "the column 'Label', but datasets.toy.label_column is 'label'"),
    ("path,label\n../one.png,0\n", r"row 2, column 'path': found '../one.png', expected a path below .*Copy or link"),
    ("path,label\npng/../png/0.png,0\n", r"row 2, column 'path': .*without `..`"),
    ("path,label\n/etc/hostname,0\n", "row 2, column 'path': found '/etc/hostname', expected a path below"),
    ("path,label,mask\npng/0.png,0,\npng/1.png,1,../m.png\n", "row 3, column 'mask': found '../m.png', expected"),
    ("path,label\npng\\0.png,0\n", r"1 of 1 paths lead nowhere.*write / instead of \\"),
])
def test_columns_and_paths_that_would_be_taken_for_something_else(mixed, text, message):
    picture(mixed.parent / "one.png")
    with pytest.raises(DatasetError, match=message):
        block(mixed, text).find_scans("toy")


def test_every_row_has_all_channels(mixed):
    with pytest.raises(DatasetError, match="row 3, column 't2': found '', expected the path of a further volume"):
        block(mixed, "path,t2,label\npng/0.png,png/1.png,0\npng/2.png,,1\n", image_columns=["t2"]).find_scans("toy")


def test_names_that_differ_by_what_looks_like_an_ending(mixed, tmp_path):
    for name in ("1.2.840.1", "1.2.840.2"):
        write_slice(mixed / name, np.arange(80, dtype=np.int16).reshape(8, 10))
    got = run(mixed, tmp_path / "out", text="path,label\n1.2.840.1,0\n1.2.840.2,1\npng/0.png,1\n")
    assert sorted(got.index["scan_id"]) == ["1.2.840.1", "1.2.840.2", "png_0"]


def test_a_name_in_the_unicode_form_of_the_disk(mixed, tmp_path):
    picture(mixed / "Mu\u0308ller.png")
    got = run(mixed, tmp_path / "out", text="path,label\nM\u00fcller.png,1\n")
    assert got.index["lesion_px"].tolist() == [0]


@pytest.mark.parametrize(("text", "columns", "names"), [
    ("path,label\npng/rgb.png,1\n", [], ["red", "green", "blue"]),
    ("path,t2,label\npng/rgb.png,png/0.png,1\n", ["t2"],
     ["path red", "path green", "path blue", "t2 red", "t2 green", "t2 blue"])])
def test_each_channel_of_pictures_in_colours_has_a_name(mixed, tmp_path, text, columns, names):
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (8, 10, 3)).astype(np.uint8)).save(mixed / "png/rgb.png")
    got = run(mixed, tmp_path / "out", text=text, colour="rgb", image_columns=columns)
    assert got.manifest["channels"] == names and got.images.shape[1] == len(names)


def test_classes_that_are_numbers_or_words_that_yaml_takes_for_something_else(mixed):
    params = block(mixed, "path,label\npng/0.png,2\npng/1.png,0\n", classes={0: 0, 2: 1})
    assert [scan.class_label for scan in params.find_scans("toy")] == [1, 0]
    with pytest.raises(pydantic.ValidationError, match="are true and false in YAML"):
        block(mixed, classes={False: 0, True: 1})


def test_a_table_without_a_known_label_is_named(mixed, tmp_path):
    with pytest.raises(ExtractError, match="2 have a class that is left out or unknown.*Check the labels or classes"):
        run(mixed, tmp_path / "out", text="path,label\npng/0.png,\npng/1.png,\n")

"""Several data sets as one: names, patients and sites of the parts, and what their layouts can't share."""

import numpy as np
import pydantic
import pytest
from PIL import Image

from flipside.cohort.extracted import Extracted
from flipside.cohort.extraction import ExtractParams, extract
from flipside.scans.layout import DatasetError
from flipside.scans.layouts import DatasetParams
from flipside.scans.readers import ReadError
from tests.scans.scans_fixture import EXTRACT, write_slice

FOLDERS = {"layout": "class_folders", "image": "{class}/{case}.png", "classes": {"well": 0, "ill": 1},
           "patient": "^(p[0-9]+)"}
TABLE = {"layout": "table", "table": "labels.csv"}


@pytest.fixture
def root(tmp_path):
    """Two hospitals, one with folders of classes, one with a table that names a DICOM image and a picture."""
    root = tmp_path / "raw"
    for number, name in enumerate(("north/well/p1_a.png", "north/ill/p2_a.png", "south/p1.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(1, 200, (8, 10)).astype(np.uint8)).save(root / name)
    write_slice(root / "south/one.dcm", np.arange(80, dtype=np.int16).reshape(8, 10), PatientName="Roe^Richard")
    (root / "south/labels.csv").write_text("path,label,patient,site\np1.png,1,p1,\none.dcm,0,p9,annex\n")
    return root


def block(root, **changes):
    return DatasetParams.model_validate({"layout": "joined", "root": str(root), "parts": {
        "north": FOLDERS, "south": TABLE}} | changes).root


def test_parts_become_one_set(root, tmp_path):
    (tmp_path / "out").mkdir()
    extract("toy", block(root), ExtractParams(**EXTRACT), 16, tmp_path / "out")
    got = Extracted.open(tmp_path / "out")
    assert dict(zip(got.index["scan_id"], got.index["class_label"], strict=True)) == {
        "north_ill_p2_a": 1, "north_well_p1_a": 0, "south_one": 0, "south_p1": 1}
    patients = dict(zip(got.scans["scan_id"], got.scans["patient_id"], strict=True))
    assert patients["north_well_p1_a"] == "north_p1" and len(set(patients.values())) == 4  # another p1 in the south
    assert dict(zip(got.scans["scan_id"], got.scans["site"], strict=True)) == {
        "north_ill_p2_a": "north", "north_well_p1_a": "north", "south_one": "annex", "south_p1": "south"}
    assert set(got.scans["source_file"]) == {
        "north/ill/p2_a.png", "north/well/p1_a.png", "south/one.dcm", "south/p1.png"}
    assert "Roe" not in (tmp_path / "out/manifest.json").read_text()


def test_a_torn_file_of_a_part_is_named_below_it(root, tmp_path):
    (root / "north/ill/p2_a.png").write_bytes(b"torn")
    with pytest.raises(ReadError, match=r"north/ill/p2_a\.png"):
        extract("toy", block(root), ExtractParams(**EXTRACT), 16, tmp_path)


@pytest.mark.parametrize(("changes", "match"), [
    ({"parts": {"north": FOLDERS}}, "at least 2"),
    ({"parts": {"north": FOLDERS | {"modality": "mr"}, "south": TABLE}}, r"parts\.north\.modality.*same for all"),
    ({"parts": {"north": FOLDERS | {"imagee": 1}, "south": TABLE}}, r"parts\.north.*imagee"),
])
def test_wrong_parts_are_refused(root, changes, match):
    with pytest.raises(pydantic.ValidationError, match=match):
        block(root, **changes)


def test_parts_that_lack_their_folder_or_their_channels_are_named(root):
    with pytest.raises(DatasetError, match=r"raw/west not found"):
        block(root, parts={"north": FOLDERS, "west": FOLDERS}).find_scans("toy")
    with pytest.raises(DatasetError, match=r"channels of south are \['path'\].*red"):
        block(root, parts={"north": FOLDERS | {"colour": "rgb"}, "south": TABLE}).channel_names(3)

"""Nothing that a DICOM header says of a patient reaches data/, models/ or reports/, and what is left out is told."""

import gzip
import json
import re
import zipfile

import pytest

from tests.faults.project import FOLDER, PATIENTS, done, secrets, write_project

FOLDERS = ("data", "models", "reports", ".scratch")


def contents(root):
    """Names and bytes of every artifact, those inside of archives too; the user's own data/raw is none."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if (root / "data/raw") not in path.parents and path != root / "data/raw":
                yield path.relative_to(root).as_posix(), b""
            if path.is_file() and (root / "data/raw") not in path.parents:
                yield path.name, path.read_bytes()
                if path.suffix == ".gz":
                    yield path.name, gzip.decompress(path.read_bytes())
                if zipfile.is_zipfile(path):
                    with zipfile.ZipFile(path) as archive:
                        for name in archive.namelist():
                            yield f"{path.name}: {name}", archive.read(name)


def test_no_word_of_a_patient_is_in_any_artifact(finished, prepared):
    words = {word.encode() for word in secrets()}
    assert b"zacharias3" in words and b"klinik-08315" in words and b"1938-02-13" in words
    seen = 0
    for root in (prepared, finished):
        for name, content in contents(root):
            text = name.encode().lower() + b"\n" + content.lower()
            found = [word for word in words if word in text]
            assert not found, f"{name} holds {found}"
            seen += 1
    assert seen > 150


@pytest.mark.parametrize("text", ["report.html"])
def test_the_torn_scan_is_told_of_without_its_patient(prepared, finished, text):
    manifest = json.loads((prepared / "data/extracted/manifest.json").read_text())
    assert manifest["counts"] == {"found": PATIENTS + 1, "scans": PATIENTS, "slices": 4 * PATIENTS, "left_out": 1,
                                  "patients": PATIENTS, "without_organ": 0, "class_left_out": 0}
    (left_out,) = manifest["left_out"]
    assert re.fullmatch(r"[0-9a-f]{8}(_[0-9a-f]{8})+/dicom/1", left_out["file"])
    assert "bytes of pixel data is less than expected" in left_out["reason"]
    report = (finished / "reports" / text).read_text()
    assert left_out["file"] in report and "is less than expected" in report


@pytest.mark.parametrize("damage", [200, 700])
def test_a_header_that_cannot_be_parsed_names_nobody_either(tmp_path, damage):
    """Torn within the header: the names come from the series' other files, or from what can be parsed of this one."""
    write_project(tmp_path)
    for file in sorted((tmp_path / "data/raw/clinic" / FOLDER.format(n=2)).glob("dicom/*"))[:2]:
        file.write_bytes(file.read_bytes()[:damage])
    done(tmp_path, "extract_slices")
    words = {word.encode() for word in secrets()}
    for name, content in contents(tmp_path):
        assert not [word for word in words if word in name.encode().lower() + content.lower()], name
    left_out = json.loads((tmp_path / "data/extracted/manifest.json").read_text())["left_out"]
    assert len(left_out) == 2


def test_words_of_two_letters_go_only_where_they_stand_alone():
    from flipside.scans.privacy import without_names

    text = without_names("Li_Na/klinik/li-07/0712", ["li", "na", "07"], "salt")
    assert re.fullmatch(r"\w{8}_\w{8}/klinik/\w{8}-\w{8}/0712", text)

"""Names planted in every header that new scans can have stay out of all that is written but the DICOM objects."""

import gzip

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image, PngImagePlugin

from tests.prediction.conftest import NIFTI, body, write_run
from tests.prediction.test_dicom import ORIENTATIONS, write_study
from tests.prediction.test_predict import call, everything

NAME = "Zarathustrova"
PLANTED = {
    "PatientName": f"{NAME}^A", "PatientID": f"ID{NAME}", "OtherPatientIDs": f"OLD{NAME}", "PatientAddress": NAME,
    "PatientComments": NAME, "AccessionNumber": NAME, "InstitutionName": NAME, "ReferringPhysicianName": NAME,
    "OperatorsName": NAME, "PerformingPhysicianName": NAME, "StudyDescription": NAME, "SeriesDescription": NAME,
    "ClinicalTrialSubjectID": NAME, "ClinicalTrialSiteName": NAME, "ClinicalTrialSponsorName": NAME,
    "StationName": NAME, "ProtocolName": NAME, "ImageComments": NAME, "StudyID": NAME, "RequestedProcedureDescription":
    NAME, "EthnicGroup": NAME, "BodyPartExamined": NAME.upper()}


def named(out):
    """Files in which the name stands, in whatever case; what is packed is unpacked."""
    return {file for file, content in everything(out).items()
            if NAME.lower().encode() in (gzip.decompress(content) if file.endswith(".gz") else content).lower()
            or NAME.lower() in file.lower()}


@pytest.mark.parametrize("options", [[], ["--anonymise"]])
def test_of_dicom(options, tmp_path):
    run = write_run(tmp_path / "run", NIFTI | {"plane": "native"})
    study = tmp_path / f"{NAME} A/ct"
    write_study(study, ORIENTATIONS["oblique"])
    for file in study.iterdir():
        dataset = pydicom.dcmread(file)
        for keyword, value in PLANTED.items():
            setattr(dataset, keyword, value)
        person = pydicom.Dataset()
        person.InstitutionName = person.PersonAddress = NAME
        dataset.ReferringPhysicianIdentificationSequence = [person]
        dataset.save_as(file)
    (study / "bad.dcm").write_bytes(next(study.iterdir()).read_bytes()[:900])  # named in messages
    output = call(study.parent, "-o", tmp_path / "out", "--run", run, "--method", "coin", "--dicom", *options,
                  fails=True)
    files = everything(tmp_path / "out")
    (folder,) = [file.parent for file in (tmp_path / "out").glob("*/segmentation.dcm")]
    assert f"{folder.name}/attribution.dcm" in files and f"{folder.name}/counterfactual.nii.gz" in files
    assert named(tmp_path / "out") == (set() if options else {
        f"{folder.name}/{name}.dcm" for name in ("segmentation", "attribution")})
    assert NAME.lower() not in output.split("\ntable:")[0].lower()


def test_of_nifti_and_pictures(tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    image = nib.Nifti1Image(body(), np.diag([1.0, 1, 2, 1]))
    for field in ("descrip", "aux_file", "intent_name"):
        image.header[field] = NAME
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    nib.save(image, new / "volume.nii.gz")
    call(new, "-o", tmp_path / "volumes", "--run", write_run(tmp_path / "run"), "--method", "coin")
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", NAME)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30)).astype(np.uint8))
    picture.save(new / "picture.png", pnginfo=text)
    exif = picture.getexif()
    exif[0x010E] = NAME  # ImageDescription
    picture.save(new / "photograph.jpg", exif=exif)
    picture.save(new / "page.tif", description=NAME)
    block = {"layout": "class_folders", "root": "x", "image": "{class}/{case}.png", "classes": {"a": 0, "b": 1}}
    run = write_run(tmp_path / "other", block, "per_scan")
    call(*sorted(new.glob("p*")), "-o", tmp_path / "pictures", "--run", run, "--method", "coin")
    for planted in new.iterdir():  # they are there to be found
        content = planted.read_bytes()
        assert NAME.encode() in (gzip.decompress(content) if planted.suffix == ".gz" else content)
    assert len(everything(tmp_path / "pictures")) > 12 and named(tmp_path / "volumes") == set()
    assert named(tmp_path / "pictures") == set()

"""A whole project in a few megabytes, and its stages in processes of their own.

Its scans are DICOM series of invented patients, whose names stand in the headers and in the folders' names; one of the
series is torn.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from flipside.core.params import stage_main
from tests.apart import Ended, run_apart
from tests.parameters import project_parameters, write_parameters
from tests.scans.scans_fixture import SERIES, write_nifti, write_slice
from tests.test_dvc_yaml import BLIND, PREPARING, STAGES, TAUGHT, base, paths

ROOT = Path(__file__).parents[2]
RAW = "data/raw/clinic"
SIZE = 32
PATIENTS = 8
# What of a patient stands in the headers; none of it may stand in any artifact.
PATIENT = {
    "PatientName": "Geheimrat^Zacharias{n}^von", "PatientID": "KLINIK-08{n}15", "PatientBirthDate": "1938021{n}",
    "AccessionNumber": "ACC77{n}88", "InstitutionName": "Sankt Nirgendwo", "ReferringPhysicianName": "Doktorow^Adaline",
    "StudyInstanceUID": "1.2.826.0.777{n}", "OtherPatientIDs": "Zweitakte{n}",
}
FOLDER = "Zacharias{n}_Geheimrat_1938-02-1{n}_ACC77{n}88"
PREPARATION = [name for name in STAGES if base(name) in PREPARING and not name.startswith("simulate")]
MEASURING = [name for name in STAGES if base(name) not in PREPARING and name not in (*BLIND, *TAUGHT)]


def secrets() -> set[str]:
    """Every word that is a patient's, in lower case."""
    words = {word for n in range(PATIENTS + 1) for value in (*PATIENT.values(), FOLDER)
             for word in [value.format(n=n), *value.format(n=n).replace("^", " ").replace("_", " ").split()]}
    return {word.lower() for word in words if word != "von"}


def write_project(root: Path) -> None:
    """The parameters and the raw scans."""
    write_parameters(root, small_params())
    rng = np.random.default_rng(5)
    for n in range(PATIENTS):
        write_patient(root, n, rng)
    write_patient(root, PATIENTS, rng)
    torn = sorted((root / RAW / FOLDER.format(n=PATIENTS)).glob("dicom/*"))[1]
    torn.write_bytes(torn.read_bytes()[:-900])


def write_patient(root: Path, n: int, rng: np.random.Generator) -> None:
    folder = root / RAW / FOLDER.format(n=n)
    smooth = np.kron(rng.normal(0, 60, (4, SIZE // 8, SIZE // 8)), np.ones((1, 8, 8))) + rng.normal(0, 10, (4, 1, 1))
    for z, pixels in enumerate(smooth.astype(np.int16)):
        header = {keyword: value.format(n=n) for keyword, value in PATIENT.items()}
        write_slice(folder / f"dicom/{z}", pixels, (0.0, 0.0, 3.0 * z), f"1.2.777.{n}", RescaleSlope=1,
                    RescaleIntercept=20, PixelSpacing=[1, 1], **header)
    organ = np.zeros((SIZE, SIZE, 4), np.uint8)
    organ[6:26, 4 + n:24, :] = 1
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    write_nifti(folder / "organ.nii.gz", organ, affine)


def small_params() -> dict[str, Any]:
    """The project's own parameters with everything in them made small."""
    params = project_parameters()
    params["datasets"] = {"clinic": SERIES | {
        "root": RAW, "anomalies": True, "series": "{case}/dicom",
        "organ": {"files": ["{case}/organ.nii.gz"], "values": None}}}
    params |= {"dataset": "clinic", "image_size": SIZE, "seed": 1}
    params["runtime"] = {"device": "cpu", "precision": "float32", "threads": 1}
    params["extract"]["on_error"] = "skip"
    params["filter"] |= {"min_organ_px": 0, "val_fraction": 0.25, "test_fraction": 0.25}
    params["anomalies"] |= {"draws_per_slice": 2}
    small = {"width": 8, "epochs": 3, "steps_per_epoch": 3, "channels": [8, 16], "discriminator_channels": [8, 16],
             "skips": 1, "steps": 12, "fine_tuning_steps": 4, "masks": 16, "first_steps": 3, "blobs": 4, "latent": 8,
             "layout_width": 16, "feat": 6, "style": 6, "size_in": SIZE // 2, "encoder_channels": [8, 16], "images": 4}
    sections = ("classifiers", "generators", "encoders", "inversions", "attributes", "methods")
    blocks = [block for section in sections for block in params[section].values()]
    blocks += [params["encoders"]["blobgan"][phase] for phase in ("pretrain", "finetune")]
    for block in blocks:
        block |= {key: value for key, value in small.items() if key in block}
        block |= {"batch_size": 8} if "batch_size" in block else {}
    params["classifiers"]["judge"]["architecture"] = "small_resnet"  # a ResNet-18 has no width: 45 MB
    params["segmenter"] |= {"channels": [8, 16], "steps": 12, "batch_size": 8}
    params["synthetic_effect"]["images"] = 8
    params["evaluate"]["bootstrap_samples"] = 100
    return params


def run_stage(project: Path, name: str, **patches: Any) -> Ended:
    """A stage of dvc.yaml, as its command line runs it, in a process of its own. `patches`: see `_stage`."""
    words = STAGES[name]["cmd"].split()
    module, *arguments = words[words.index("-m") + 1:]
    return run_apart(_stage, str(project), module, arguments, patches)


def _stage(project: str, module: str, arguments: list[str], patches: dict[str, Any]) -> None:
    """Run by the child. `kill_at`: (module, function, n), SIGKILL at the n-th call; `file_limit`: bytes per file."""
    os.chdir(project)
    sys.argv = [module, *arguments]
    state = importlib.import_module("flipside.generators.base.state")
    state.SAVE_EVERY_SECONDS, state.RECORD_EVERY = 0.0, 4
    importlib.import_module("flipside.methods.latent.attributes").SAVE_EVERY_SECONDS = 0.0
    if module.split(".")[1] in map(base, BLIND):
        sys.addaudithook(_no_truth)
    if "kill_at" in patches:
        _kill_at(*patches["kill_at"])
    if "file_limit" in patches:
        resource.setrlimit(resource.RLIMIT_FSIZE, (patches["file_limit"],) * 2)
    stage_main(importlib.import_module(module).main)


def _no_truth(event: str, arguments: tuple) -> None:
    if event == "open" and any(word in str(arguments[0]) for word in ("truth", "lesion", "extracted")):
        print(f"opens {arguments[0]}", flush=True)
        os._exit(97)


def _kill_at(module: str, function: str, number: int) -> None:
    owner, left = importlib.import_module(module), [number]
    real = getattr(owner, function)

    def counted(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)

    setattr(owner, function, counted)


def done(project: Path, name: str) -> Ended:
    """The same for a stage that must succeed."""
    ended = run_stage(project, name)
    assert ended.status == 0, f"{name}: {ended.output[-3000:]}"
    return ended


def outputs(name: str) -> list[str]:
    """Paths that a stage declares to write."""
    return paths(STAGES[name].get("outs", []) + STAGES[name].get("metrics", []))


def content(project: Path, name: str) -> dict[str, bytes]:
    """Every file of a stage's outputs, without the seconds that it took."""
    found = {}
    for output in outputs(name):
        path = project / output
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.name != "timing.json":
                found[file.relative_to(project).as_posix()] = untimed(file)
    return found


def untimed(file: Path) -> bytes:
    if file.name != "metrics.json":
        return file.read_bytes()
    metrics = json.loads(file.read_text())
    for values in metrics.values():
        if isinstance(values, dict):
            values.pop("seconds_per_image", None)
            values.pop("seconds_training", None)
    return json.dumps(metrics).encode()


def snapshot(path: Path) -> dict[str, bytes]:
    """Every file of an output as it stands, but for the seconds it took; {} where nothing stands there."""
    return {file.relative_to(path.parent).as_posix(): b"" if file.name == "timing.json" else file.read_bytes()
            for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()}


def copied(project: Path, target: Path, *names: str) -> Path:
    """A project of its own with the parameters and some of another's folders."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "datasets.yaml"):
        shutil.copy(project / name, target)
    for name in names:
        shutil.copytree(project / name, target / name, dirs_exist_ok=True)
    return target

"""Predictions that are shared out: by an array job, on Dask workers, by processes that get in each other's way."""

import functools
import pickle
import shutil
import sys

import numpy as np
import pytest

from flipside.cli.predict import predict as predict_command
from flipside.prediction import outputs, parts
from flipside.prediction import predict as prediction
from flipside.prediction.finding import find_new_scans
from flipside.prediction.trained import TrainedRun
from tests.killed import dies_at
from tests.prediction.conftest import CT_AFFINE, NIFTI, body, write_run
from tests.prediction.deadly import open_deadly
from tests.prediction.test_dicom import ORIENTATIONS, write_study
from tests.prediction.test_predict import call, everything, table_of
from tests.scans.scans_fixture import write_nifti


@pytest.fixture
def many(tmp_path):
    """Six scans of three slices, one of which is damaged: a batch of four takes slices of two."""
    for number in range(6):
        write_nifti(tmp_path / f"many/s{number}.nii.gz", body((20, 20, 3), number), CT_AFFINE)
    (tmp_path / "many/s2.nii.gz").write_bytes((tmp_path / "many/s2.nii.gz").read_bytes()[:500])
    return tmp_path / "many"


@pytest.fixture
def whole(run, many, tmp_path):
    """All that one process makes of them."""
    call(many, "-o", tmp_path / "whole", "--run", run, fails=True)
    return everything(tmp_path / "whole")


def names(out):
    return {folder.name for folder in outputs.finished(out)}


def test_parts_of_an_array_job_are_the_whole_and_a_killed_one_goes_on(run, many, whole, tmp_path):
    out = tmp_path / "out"
    told = call(many, "-o", out, "--run", run, "--part", "1/2")  # which went through, though a scan is bad
    assert "part 1/2 is done: 3 of 6 scans, 1 failed" in told and "s2.nii.gz: failed: " in told
    assert names(out) == {"s0", "s4"} and not (out / prediction.TABLE).exists()
    with dies_at(2, outputs, "draw_thumbnail"):
        predict_command([many], out, run, part="2/2")
    assert names(out) == {"s0", "s1", "s4"}
    shutil.copytree(out / "s1", out / ".s3.12345678.partial")  # as kill -9 just before the renaming
    before = {name: (out / name / "mask.nii.gz").stat().st_mtime_ns for name in names(out)}
    call(many, "-o", out, "--run", run, "--part", "2/2")
    call(many, "-o", out, "--run", run, "--resume", fails=True)
    assert everything(out) == whole
    assert before == {name: (out / name / "mask.nii.gz").stat().st_mtime_ns for name in before}  # none was done twice


def test_on_dask_the_scans_of_a_killed_worker_are_done_by_others(run, many, whole, tmp_path, monkeypatch):
    (tmp_path / "workers").mkdir()
    monkeypatch.setattr(parts, "open_worker", functools.partial(open_deadly, tmp_path / "workers"))
    monkeypatch.chdir(tmp_path)
    call("many", "-o", "out", "--run", "run", "--cluster", "local", fails=True)  # relative paths are the workers', too
    assert everything(tmp_path / "out") == whole
    opened = [file.name for file in (tmp_path / "workers").iterdir()]  # once in each process, or it would have failed
    assert "killed" in opened and len(opened) >= 3


def test_scans_of_all_kinds_can_be_read_in_another_process(tmp_path):
    new = tmp_path / "new"
    write_study(new / "study", ORIENTATIONS["oblique"])
    write_nifti(new / "a/scan.nii.gz", body(), CT_AFFINE)
    write_nifti(new / "a/organ.nii.gz", np.ones((9, 9, 9), np.uint8), CT_AFFINE)  # of another size: can't be used
    block = NIFTI | {"organ": {"files": ["{case}/organ.nii.gz"], "values": [1]}, "patient": "^(.)"}
    for number, (layout, paths) in enumerate([(block, [new]), (NIFTI, [new / "study", new / "a/scan.nii.gz"])]):
        run = TrainedRun.open(write_run(tmp_path / f"run{number}", layout))
        for scan in find_new_scans(paths, [], run, tmp_path / "out"):
            here, there = scan.read(), pickle.loads(pickle.dumps(scan)).read()
            assert here.warnings == there.warnings and (number == 1 or "not used" in here.warnings[0])
            np.testing.assert_array_equal(here.scan.volume.stored, there.scan.volume.stored)
            assert (here.frames is None) == (there.frames is None)
            assert here.frames is None or len(here.frames()) == len(there.frames()) == 10


def test_two_processes_that_do_the_same_scan_leave_it_whole(run, many, whole, tmp_path, monkeypatch):
    out, original = tmp_path / "out", outputs.draw_thumbnail

    def draw(*arguments):
        monkeypatch.setattr(outputs, "draw_thumbnail", original)
        predict_command([many], out, run, part="1/1")  # another process, in the middle of this one's first scan
        return original(*arguments)

    monkeypatch.setattr(outputs, "draw_thumbnail", draw)
    call(many, "-o", out, "--run", run, fails=True)
    assert everything(out) == whole


def test_tasks_that_begin_together_can_make_the_same_folder(tmp_path, monkeypatch):
    original = prediction.write_json

    def write(*arguments):
        monkeypatch.setattr(prediction, "write_json", original)
        prediction.open_output(tmp_path / "out", {"method": "coin"}, True, False)  # another task, faster
        original(*arguments)
        prediction.open_output(tmp_path / "out", {"method": "coin"}, True, False)

    monkeypatch.setattr(prediction, "write_json", write)
    prediction.open_output(tmp_path / "out", {"method": "coin"}, True, False)
    assert [file.name for file in (tmp_path / "out").iterdir()] == [prediction.SETTINGS]


def test_without_a_cluster_dask_is_not_needed_and_with_one_the_extra_is_named(run, scans, tmp_path, monkeypatch):
    for name in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    arguments = (scans, "-o", tmp_path / "out", "--run", run, "--method", "intensity", "--resume")
    with pytest.raises(RuntimeError, match=r"'local', which needs d.*pip install 'flipside\[cluster\]'"):
        call(*arguments, "--cluster", "local")
    call(*arguments)
    assert len(table_of(tmp_path / "out")) == 3


@pytest.mark.parametrize(("arguments", "message"), [
    (["--part", "3/2"], "--part is '3/2', expected I/N with I from 1 to N, such as 2/8"),
    (["--part", "two"], "--part is 'two', expected I/N"),
    (["--part", "1/2", "--overwrite"], "--overwrite would remove what the other parts did"),
    (["--part", "1/2", "--cluster", "local"], "--part and --cluster both share the scans out"),
    (["--cluster", "lokal"], "--cluster is 'lokal', expected none, local, slurm, kubernetes or"),
])
def test_shares_that_are_none_are_refused(run, scans, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(scans, "-o", tmp_path / "out", "--run", run, *arguments)
    assert not (tmp_path / "out").exists()

"""No space left: the stage says so in one line that names what it was writing, and what stood there before is kept.

Once on a real small file system, where mounting one is permitted, and once under a limit on the size of a file.
"""

import errno
import os
import subprocess

import numpy as np
import pytest

from flipside.core.files import DiskFullError, naming_a_full_disk, new_memmap
from tests.faults.project import content, copied, done, outputs, run_stage, snapshot

STAGES = ["extract_slices", "split_patients", "draw_anomalies", "train_classifier@classifier", "train_generator@coin",
          "explain@coin", "judge_counterfactuals", "extract_masks@coin", "segment_scans", "evaluate", "report"]
MEGABYTES = 24  # the finished project needs 6


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of its own, a few megabytes large."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "flipside_test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system takes more rights than this process has")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def project(disk, prepared, finished):
    root = copied(finished, disk / "project", "data", "models", "reports")
    return copied(prepared, root, "data/raw")


def fill(disk, room: int):
    """A file that leaves so many bytes."""
    ballast = disk / "ballast"
    with open(ballast, "wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
        os.posix_fallocate(file.fileno(), 0, free - room)
    return ballast


def refused(ended, project, before) -> str:
    """The one line of a stage that ran out of space; its outputs are as they were."""
    (error,) = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert ended.status == 1 and "Traceback" not in ended.output
    assert "can't be written, the disk is full" in error and "free some space" in error
    for output, files in before.items():  # truth and clean images go first: never beside slices of another run
        assert snapshot(project / output) in ([files, {}] if output.endswith(("truth", "clean")) else [files])
    assert not [path for folder in ("data", "models", "reports") for path in (project / folder).rglob("*partial*")]
    return error


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_on_a_full_disk(disk, project, name):
    before = {output: snapshot(project / output) for output in outputs(name)}
    whole = content(project, name)
    ballast = fill(disk, 8 << 10)  # enough for the list of parameters, too little for the outputs
    try:
        ended = run_stage(project, name)
    finally:
        ballast.unlink()
    refused(ended, project, before)
    if name != "report":
        done(project, name)  # with room again it goes through
        assert content(project, name) == whole


@pytest.mark.parametrize(("name", "file"), [
    ("split_patients", ".scratch/split_patients"), ("train_classifier@judge", ".scratch/train_classifier_judge/"),
    ("train_generator@coin", ".scratch/train_generator_coin/"), ("explain@coin", ".scratch/explain_coin/"),
    ("extract_masks@coin", "data/masks/coin"), ("evaluate", "reports/metrics.json")])
def test_a_stage_whose_files_may_not_grow(finished, prepared, tmp_path, name, file):
    project = copied(finished, tmp_path / "project", "data", "models", "reports")
    copied(prepared, project, "data/extracted")
    before = {output: snapshot(project / output) for output in outputs(name)}
    error = refused(run_stage(project, name, file_limit=4000), project, before)
    assert error.startswith(f"error: {file}")


def test_a_mapping_without_room_is_an_error_and_no_crash(disk):
    """Writing to it would be SIGBUS, which kills the interpreter without a word."""
    ballast = fill(disk, 64 << 10)
    try:
        with pytest.raises(OSError, match="No space left"):
            new_memmap(disk / "large.npy", np.uint8, (1 << 20,))
    finally:
        ballast.unlink()
    array = new_memmap(disk / "large.npy", np.uint8, (1 << 20,))
    array[:] = 1
    assert np.load(disk / "large.npy").all()


def test_other_errors_of_the_system_keep_their_words(tmp_path):
    with pytest.raises(FileNotFoundError), naming_a_full_disk(tmp_path / "a"):
        (tmp_path / "nowhere/a").read_text()
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(DiskFullError, match="/a can't be written, the disk is full .*MB left"):
            with naming_a_full_disk(tmp_path / "a"):
                raise OSError(number, os.strerror(number))

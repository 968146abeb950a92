"""Parts of a stage's work: done once, in any order by anyone, read in their order; on Dask, with workers that die."""

import argparse
import functools
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import dask
import distributed
import numpy as np
import pytest

from flipside.core import parallel
from flipside.core.parallel import Work, add_share
from flipside.core.runtime import RuntimeParams
from tests.core.squares import DEADLY, Squares, noted

ROOT = Path(__file__).parents[2]
PARTS = [3, 1, 4, DEADLY, 9, 2, 6]
HERE, LOCAL = RuntimeParams(), RuntimeParams(cluster="local", workers=2, worker_memory="1GiB")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def work(folder, fingerprint="x", deaths=0, parts=PARTS):
    return Work("square/numbers", fingerprint, functools.partial(Squares, folder, deaths), parts)


def check_results(results):
    """Of all parts, in their order, as if they had never been on disk."""
    results = list(results)
    for part, (arrays, record) in zip(PARTS, results, strict=True):
        assert list(arrays) == ["squares", "all"] and record == {"part": part, "text": "\udc80", "no": None}
        np.testing.assert_array_equal(arrays["squares"], np.arange(part) ** 2)
        assert arrays["squares"].dtype == np.float16


def files(of):
    return {file.name: file.read_bytes() for file in of.folder.iterdir()}


def test_parts_that_are_there_are_not_done_again(folder, capsys):
    first = work(folder)
    results = first.run(HERE)
    next(results), next(results)
    results.close()
    assert noted(folder, "begun") == ["3", "1"] and len(files(first)) == 2
    assert "resuming" not in capsys.readouterr().out
    check_results(work(folder).run(HERE))
    assert noted(folder, "begun") == [str(part) for part in PARTS] and len(noted(folder, "opened")) == 2
    assert "resuming square/numbers: 2 of 7 parts are in .scratch/square_numbers/" in capsys.readouterr().out
    check_results(work(folder).run(HERE))
    assert len(noted(folder, "begun")) == 7 and len(noted(folder, "opened")) == 2  # nothing is loaded for nothing


def test_other_data_start_afresh_and_so_does_other_code(folder, monkeypatch, capsys):
    check_results(work(folder).run(HERE))
    other = work(folder, fingerprint="y")
    check_results(other.run(HERE))
    assert "changed since the unfinished run" in capsys.readouterr().out and len(noted(folder, "begun")) == 14
    monkeypatch.setattr(parallel, "code_digest", lambda: "edited")
    assert work(folder).folder not in (other.folder, work(folder, fingerprint="y").folder)
    check_results(work(folder).run(HERE))
    assert len(noted(folder, "begun")) == 21
    other.clear()
    assert not Path(".scratch/square_numbers").exists()


def test_shares_of_an_array_job_are_the_whole(folder, capsys):
    for share in ((2, 3), (3, 3), (1, 3)):
        work(folder).run_share(share)
    assert noted(folder, "begun") == ["1", "9", "4", "2", "3", str(DEADLY), "6"]
    assert "share 1/3 is done, 3 of 7 parts" in capsys.readouterr().out
    check_results(work(folder).run(HERE))
    assert len(noted(folder, "begun")) == 7


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_a_share_that_is_none_is_refused(text, capsys):
    parser = argparse.ArgumentParser()
    add_share(parser)
    assert parser.parse_args(["--part", "2/8"]).part == (2, 8) and parser.parse_args([]).part is None
    with pytest.raises(SystemExit):
        parser.parse_args([f"--part={text}"])
    assert "expected I/N with I from 1 to N, such as 2/8" in capsys.readouterr().err


def test_a_damaged_part_is_named(folder):
    list(work(folder).run(HERE))
    work(folder).file(2).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"square_numbers/.*/2.safetensors is damaged .*: delete it and run again"):
        list(work(folder).run(HERE))


def test_workers_that_die_change_nothing(folder, tmp_path_factory):
    alone = tmp_path_factory.mktemp("alone")
    serial = work(alone)
    check_results(serial.run(HERE))
    expected = files(serial)
    serial.clear()
    shared = work(folder, deaths=2)
    check_results(shared.run(LOCAL))
    assert noted(folder, "begun").count(str(DEADLY)) == 3 and len(noted(folder, "opened")) >= 3
    assert len(noted(folder, "opened")) == len(set(noted(folder, "opened")))  # once per process, whatever its parts
    assert files(shared) == expected


def test_a_part_that_ends_every_worker_is_no_endless_loop(folder):
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        with pytest.raises(RuntimeError, match=r"a part ended its workers.*runtime.worker_memory \(1GiB\)"):
            list(work(folder, deaths=9).run(LOCAL.model_copy(update={"workers": 1})))


def test_workers_with_several_threads_are_refused():
    with distributed.LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        with pytest.raises(RuntimeError, match="several threads.*--nthreads 1"):
            with parallel._connect(RuntimeParams.model_construct(cluster=cluster.scheduler_address)):
                pass


def test_workers_with_other_code_are_refused(folder):
    with pytest.raises(RuntimeError, match="a worker has other code than the stage"):
        parallel._on_worker(folder, "other", functools.partial(Squares, folder, 0), Path("file"), 1)


@pytest.mark.parametrize(("name", "module", "cluster", "expected"), [
    ("slurm", "dask_jobqueue", "SLURMCluster", {"n_workers": 8, "cores": 1, "processes": 1, "memory": "6GiB"}),
    ("kubernetes", "dask_kubernetes.operator", "KubeCluster", {
        "name": "flipside", "n_workers": 8, "resources": {"limits": {"memory": "6GiB"}},
        "worker_command": ["dask", "worker", "--nthreads", "1", "--memory-limit", "6GiB"]}),
])
def test_a_cluster_is_asked_for_workers_of_one_thread(monkeypatch, name, module, cluster, expected):
    params = RuntimeParams(cluster=name, workers=8, worker_memory="6GiB")
    for missing in (module, module.partition(".")[0]):
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeError, match=rf"'{name}', which needs {module[:8]}.*pip install 'flipside\[cluster\]'"):
        with parallel._connect(params):
            pass
    fake = ModuleType(module)
    setattr(fake, cluster, dict)
    for each in (module.partition(".")[0], module):
        monkeypatch.setitem(sys.modules, each, fake)
    assert parallel._start_cluster(params) == expected


@pytest.mark.parametrize("name", ["lokal", "tcp://host", "host:8786", ""])
def test_a_cluster_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="cluster"):
        RuntimeParams(cluster=name)


def test_without_a_cluster_nothing_of_dask_is_imported(folder):
    code = ("import functools, sys; from pathlib import Path; import stages.extract_slices;"
            "assert 'torch' not in sys.modules;"  # which would take the workers seconds that need none
            "import flipside.cli.predict, flipside.prediction.parts;"
            "from flipside.core.parallel import Work; from flipside.core.runtime import RuntimeParams;"
            "from tests.core.squares import Squares; import stages.explain;"
            "work = Work('s', 1, functools.partial(Squares, Path('.'), 0), [1, 2]);"
            "assert len(list(work.run(RuntimeParams()))) == 2;"
            "assert not {'dask', 'distributed', 'dask_jobqueue', 'dask_kubernetes'} & set(sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"})
    assert result.returncode == 0, result.stderr

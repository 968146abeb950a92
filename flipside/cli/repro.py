"""The pipeline as `dvc repro` runs it, several stages at a time."""

from __future__ import annotations

import functools
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from flipside.experiments.project_copy import DVC, environment
from flipside.regression.lockfile import changes_in

POLL_SECONDS = 0.2


def repro(
    target: Annotated[str | None, typer.Argument(help="A stage, which is run with all that it rests on; without one "
                                                 "the whole pipeline.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Stages that run at a time; 0: two on a CPU of two cores or more, "
                                      "one on a GPU.")] = 0,
    allow_missing: Annotated[bool, typer.Option(help="Don't run a stage only because its data are missing here, as "
                                                "DVC's option of this name.")] = False,
) -> None:
    """Run the pipeline, several stages at a time.

    It does what `dvc repro` does. Small slices hardly keep two cores busy, so two trainings side by side, with half of
    the cores each, are done sooner than one after the other. DVC runs each stage and skips what is up to date, and has
    the last word: at the end `dvc repro` looks at everything once more.
    """
    cores, options = cores_of_jobs(jobs or default_jobs()), ["--allow-missing"] if allow_missing else []
    targets = [] if target is None else [target]
    if len(cores) > 1:
        from dvc.repo import Repo

        with Repo() as repo:
            needs = {stage.addressing: {other.addressing for other in repo.index.graph.successors(stage)}
                     for stage in repo.stage.collect(target, with_deps=True)}
            status = repo.status(targets=targets or None, with_deps=bool(targets))
        changed = {name for name, _, state in changes_in(status)
                   if name in needs and not (allow_missing and state == "deleted")}
        run_stages(needs, stale_stages(needs, changed), cores, options)
    if subprocess.run([*DVC, "repro", *options, *targets], env=environment(), check=False).returncode:
        raise RuntimeError("`dvc repro` failed; its own message stands above. The same command goes on where this one "
                           "stopped")


def default_jobs() -> int:
    """Two on a CPU; trainings share no GPU, whose memory one may fill."""
    from flipside.core.params import load_section
    from flipside.core.runtime import Runtime, RuntimeParams

    return 2 if Runtime(load_section("runtime", RuntimeParams)).device.type == "cpu" else 1


def cores_of_jobs(jobs: int) -> list[set[int]]:
    """The cores of each job: this process' own, dealt out; one job where there are too few, or no system call for it
    (macOS, Windows)."""
    if not hasattr(os, "sched_getaffinity"):
        return [set()]
    own = sorted(os.sched_getaffinity(0))
    jobs = max(1, min(jobs, len(own)))
    return [set(own[number::jobs]) for number in range(jobs)]


def stale_stages(needs: Mapping[str, set[str]], changed: Iterable[str]) -> set[str]:
    """The changed stages and all that rest on them."""
    found, left = set(), list(changed)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [other for other, own in needs.items() if name in own]
    return found


def in_order(needs: Mapping[str, set[str]]) -> dict[str, tuple[int, int]]:
    """{stage: how many stages follow each other from it on, and up to it}: the more, the sooner it should run.

    Between two with as much to come, the one at the end of a longer chain goes on with what was begun first.
    """
    @functools.cache
    def to_come(name: str) -> int:
        return 1 + max((to_come(other) for other, own in needs.items() if name in own), default=0)

    @functools.cache
    def so_far(name: str) -> int:
        return 1 + max(map(so_far, needs[name]), default=0)

    return {name: (to_come(name), so_far(name)) for name in needs}


def run_stages(needs: Mapping[str, set[str]], stale: set[str], cores: list[set[int]], options: Sequence[str] = ()
               ) -> None:
    """Run the stale stages, each once those that it needs are done, as many at a time as there are sets of cores.

    options: of `dvc repro`. Lines of their output have the stage's name before them. RuntimeError names a stage that
    failed; what runs beside it is finished first.
    """
    order, left, running = in_order(needs), set(stale), dict[int, Job]()
    failed: list[str] = []
    while running or (left and not failed):
        for place, own in enumerate(cores):
            ready = [] if failed else [name for name in left if not needs[name] & (left | {
                job.name for job in running.values()})]
            if place not in running and ready:
                name = max(ready, key=lambda name: (order[name], name))
                left.remove(name)
                running[place] = Job(name, own, options)
        time.sleep(POLL_SECONDS)
        for place, job in list(running.items()):
            if (status := job.process.poll()) is not None:
                job.printing.join()
                del running[place]
                failed += [job.name] if status else []
    if failed:
        raise RuntimeError(f"stage {', '.join(failed)} failed; its own message stands above. The same command goes on "
                           "where this one stopped")


class Job:
    """One stage that DVC runs on some of the cores."""

    def __init__(self, name: str, cores: set[int], options: Sequence[str]):
        self.name = name
        self.process = subprocess.Popen(  # a lock that this process was handed is handed on, see project_copy
            [*DVC, "--wait-for-lock", "repro", "--single-item", *options, name], env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, close_fds=False)
        os.sched_setaffinity(self.process.pid, cores)  # of DVC, before it starts the stage
        self.printing = threading.Thread(target=self._print_lines, daemon=True)
        self.printing.start()

    def _print_lines(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                print(f"[{self.name}] {line}", end="", flush=True)

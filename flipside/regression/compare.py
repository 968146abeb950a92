"""Committed metrics and parameters against another revision: `flipside compare`.

The gate fails when a number got worse than its tolerance in tolerances.yaml, when a method vanished, and when dvc.lock
is stale. It reads what git holds, so a fresh clone without any data will do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flipside.core.params import load_section, read_params
from flipside.regression.comparison import compare as compared
from flipside.regression.comparison import failures, markdown_table, read_tolerances, read_values
from flipside.regression.lockfile import DVC, LOCK, run, stale_stages
from flipside.report.params import ReportParams

CASES = ("data/slices", "data/truth")  # what decides on which cases the methods are measured


def compare(rev: str, summary: Path | None = None) -> bool:
    """Print the comparison with a git revision; whether the gate passes.

    The page is also appended to the file `summary`, with `dvc metrics diff`. Raises ValueError where git doesn't know
    the revision, FileNotFoundError where either side has no finished run.
    """
    commit = short_id(rev)

    # Both sides.
    rows = compared(read_values(lambda file: at(rev, file), rev), read_values(on_disk, "now"), read_tolerances(),
                   load_section("report", ReportParams).controls)
    stale = stale_stages()
    reasons = failures(rows) + (["dvc.lock is stale"] if stale else [])

    # The page.
    page = "\n".join([
        f"## Compared with {rev} ({commit})", "",
        f"**Fails**: {'; '.join(reasons)}." if reasons else
        "**Passes**: no number got worse than its tolerance, dvc.lock is fresh.", "",
        *(f"> [!WARNING]\n> {warning}\n" for warning in incomparable(rev)),
        "### Metrics", "", markdown_table(rows, rev), "",
        "### Parameters", "", table_of("params", rev) or "No parameter differs.", "",
        "### dvc.lock", "", markdown_stale(stale),
    ])
    print(page)
    if summary:
        with summary.open("a") as file:
            file.write(f"{page}\n\n<details><summary>All metrics: <code>dvc metrics diff</code></summary>\n\n"
                       f"{table_of('metrics', rev) or 'No metric differs.'}\n\n</details>\n")
    return not reasons


def short_id(rev: str) -> str:
    """A revision's commit, abbreviated; the error says what to try where git doesn't know it."""
    try:
        return run("git", "rev-parse", "--short", "--verify", f"{rev}^{{commit}}").strip()
    except RuntimeError:
        raise ValueError(f"git knows no revision {rev!r}; a fresh clone calls its branches REV=origin/main") from None


def at(rev: str, file: str) -> str:
    """A file's text at a revision, relative to the working folder."""
    try:
        return run("git", "show", f"{rev}:./{file}")
    except RuntimeError:
        raise FileNotFoundError(f"{file} not found at {rev}: choose a revision with a finished run") from None


def on_disk(file: str) -> str:
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} not found: run `dvc repro`")
    return Path(file).read_text()


def incomparable(rev: str) -> list[str]:
    """Why the numbers of the two sides don't measure the same thing: data set or profile, or the test cases."""
    before, now = yaml.safe_load(at(rev, "params.yaml")), read_params()
    changed = [f"`{name}` is {before.get(name)} at {rev}, {now[name]} now" for name in ("dataset", "profile")
               if before.get(name) != now[name]]
    if changed:
        return [f"The numbers are **not comparable**: {'; '.join(changed)}."]
    if evaluated_cases(at(rev, str(LOCK))) != evaluated_cases(on_disk(str(LOCK))):
        return [f"The methods were measured on **other cases** than at {rev}: dvc.lock has another hash for "
                f"{' or '.join(CASES)}."]
    return []


def evaluated_cases(lock: str) -> dict[str, Any]:
    """The hashes of the data that the stage `evaluate` recorded."""
    dependencies = yaml.safe_load(lock)["stages"].get("evaluate", {}).get("deps", [])
    return {one["path"]: one["md5"] for one in dependencies if one["path"] in CASES}


def table_of(what: str, rev: str) -> str:
    """`dvc params diff` or `dvc metrics diff` as Markdown; empty where nothing differs."""
    table = run(*DVC, what, "diff", rev, "--md").strip()
    return table if table.count("\n") > 1 else ""  # head and rule alone


def markdown_stale(stale: dict[str, list[str]]) -> str:
    if not stale:
        return "Fresh: parameters, code, commands and committed results are those that the stages recorded."
    return "\n".join(["Stale: run `dvc repro` (`dvc commit` where the change can't alter a result), then commit "
                      "dvc.lock and the metrics.", "",
                      *(f"- **{stage}**: {', '.join(reasons)}" for stage, reasons in stale.items())])

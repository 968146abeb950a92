"""The page on stages and artifacts, from dvc.yaml."""

from __future__ import annotations

from docs.generate.pipeline import CODE, Stage, produces, read_stages
from docs.generate.tables import cell, code, table


def page() -> str:
    """The whole page, Markdown."""
    stages = read_stages()
    rows = [(code(out), code(stage.name), ", ".join(code(reader) for reader in readers(out, stages)) or "–")
            for stage in stages for out in stage.outs]
    parts = ["# Stages and artifacts", "",
             "What each stage of `dvc.yaml` reads and writes. `${key}` stands for one of the names in the section of "
             "`params.yaml` that a stage is run for: `dvc repro explain@coin` runs one of them. What is inside an "
             "artifact stands in [Formats](formats.md).", "",
             "## Artifacts", "", table(("artifact", "written by", "read by"), rows), "", "## Stages", ""]
    for stage in stages:
        parts += [f"### {stage.name}", "", cell(stage.description), "", f"    {stage.command}", "",
                  *([f"Run once for each of {code(stage.foreach)}.", ""] if stage.foreach else []),
                  f"* Reads: {listed([dep for dep in stage.deps if not dep.startswith(CODE)])}",
                  f"* Parameters: {listed(stage.params)}",
                  f"* Writes: {listed(stage.outs)}", ""]
    return "\n".join(parts)


def readers(out: str, stages: list[Stage]) -> list[str]:
    """The stages that read an artifact or a part of it."""
    return [stage.name for stage in stages if any(produces(out, dep) for dep in stage.deps)]


def listed(names: list[str]) -> str:
    """Names set as code; a dash for none."""
    return ", ".join(code(name) for name in names) or "–"

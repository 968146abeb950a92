"""MkDocs calls this while it builds the site: it adds the pages that are generated from the code and from results/."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # `mkdocs` may be called without the project on the path

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs.generate import artifacts, cli, metrics, parameters, results  # noqa: E402

REFERENCE = {"parameters": parameters.page, "metrics": metrics.page, "artifacts": artifacts.page, "cli": cli.page}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Every run of results/ stands in the navigation."""
    section = next(entry["Results"] for entry in config.nav or [] if "Results" in entry)
    section += [{run.about["title"]: f"results/{run.name}/index.md"} for run in results.read_runs()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The reference pages, and a page for each run that nobody has written one for."""
    for name, page in REFERENCE.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    for run in results.read_runs():
        if not files.get_file_from_path(path := f"results/{run.name}/index.md"):
            files.append(File.generated(config, path, content=results.BARE))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """A run's page gets its title, facts and table."""
    folder = Path(page.file.src_uri).parent
    if folder.parent.name != "results":
        return markdown
    return results.filled(markdown, results.read_run(results.RESULTS / folder.name))

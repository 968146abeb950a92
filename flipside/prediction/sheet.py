"""index.html: all scans of a folder of predictions on one page that needs no network, to look through in a browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from flipside.core.files import atomic_file, read_json
from flipside.prediction.outputs import ABNORMAL, ROW, THUMBNAIL, finished
from flipside.prediction.predict import TABLE
from flipside.prediction.trained import TrainedRun

PAGE = "index.html"


def write_sheet(out: Path, failed: list[dict[str, Any]], run: TrainedRun, method: str) -> None:
    """The page, the highest probability first; pictures go into it one by one, so that they needn't fit in memory."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    rows = [(folder, read_json(folder / ROW)["row"]) for folder in finished(out)]
    order = sorted((-row["probability"], row["scan"], folder) for folder, row in rows)
    page = environment.get_template("sheet.html.jinja").stream(
        scans=_scans([folder for *_, folder in order]), count=len(order), failed=failed, method=method,
        dataset=run.dataset, policy=run.segmentation.policy, table=TABLE,
        abnormal=sum(row["called"] == ABNORMAL for _, row in rows),
        warned=sum(bool(row["warnings"]) for _, row in rows))
    with atomic_file(out / PAGE) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(page)


def _scans(folders: list[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        content = read_json(folder / ROW)
        picture = base64.b64encode((folder / THUMBNAIL).read_bytes()).decode()
        row = content["row"]
        unit = "mm³" if "lesion_mm3" in row else "px"
        lesion, largest = (row.get(f"{name}_mm3", row.get(f"{name}_px")) for name in ("lesion", "largest_component"))
        yield {**row, "folder": folder.name, "files": content["files"], "picture": f"data:image/jpeg;base64,{picture}",
               "lesion": f"{lesion:,.0f} {unit}", "largest": f"{largest:,.0f} {unit}", "is_volume": unit != "px"}

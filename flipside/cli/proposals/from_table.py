"""A block of the layout `table`: which column of a CSV or Parquet file says what."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pandas as pd

from flipside.cli.proposals.proposal import Proposal
from flipside.cli.proposals.survey import Survey, bare
from flipside.cli.proposals.words import MASKS, PARTS, classes_of
from flipside.scans.row_reader import parse_spacing
from flipside.scans.tables import TableError, read_table

PATHS = r"path|file|image|img|scan|volume|study|series|name|id"
LABELS = r"label|class|diagnos|target|patholog|abnormal|finding|outcome|tumou?r|disease|status|^y$"
NO_LABELS = r"^sex$|gender|male"  # also written as 0 and 1
PATIENTS = (r"patient|subject|person|^pid$|mrn", r"group|case")
SPLITS = r"split|set|part|fold|subset"
MOST_CLASSES = 10


def propose_table(survey: Survey, table: PurePosixPath | None, healthy: list[str]) -> tuple[Proposal | None, list[str]]:
    """A block for the table given, else for the first that lists scans; and why the others are none."""
    reasons = []
    for path in [table] if table else survey.tables:
        try:
            rows = read_table(survey.folder / path)
        except TableError as error:
            reasons.append(str(error))
            continue
        found = _propose(survey, path, rows, healthy)
        if isinstance(found, Proposal):
            return found, []
        reasons.append(f"{path}: {found}")
    return None, reasons


def _propose(survey: Survey, path: PurePosixPath, rows: pd.DataFrame, healthy: list[str]) -> Proposal | str:
    paths = {column: pattern for column in rows if (pattern := _path_pattern(survey, path, rows[column].tolist()))}
    complete = [column for column in paths if (rows[column] != "").all() and rows[column].is_unique
                and not MASKS.search(column)]
    if not complete:
        return (f"no column of {list(rows.columns)} names a file or folder below {survey.folder} in every row"
                + _nearest(survey, path, rows))
    column = max(complete, key=lambda name: (bool(re.search(PATHS, name, re.IGNORECASE)), -complete.index(name)))
    block = {"layout": "table", "table": str(path), "path_column": column, "path_pattern": paths[column]}
    proposal = Proposal(block)
    if len(complete) > 1:
        proposal.guesses["path_column"] = f"{', '.join(complete)} lead to files"
    rest = [name for name in rows if name != column]
    whole = [name for name in rest if paths.get(name) == "{path}"]  # labels 0 and 1 may also name 0.png and 1.png
    masks = [name for name in whole if MASKS.search(name)]
    if masks:
        block["mask_column"] = masks[0]
        if masks[0] != "mask":
            proposal.guesses["mask_column"] = "it leads to files, and its name says so"
    _label_column(proposal, rows, [name for name in rest if name not in whole], healthy)
    if "label_column" not in block and not masks:
        return (f"no column of {rest} looks like a label with healthy and abnormal scans. Name the column `label`, or "
                "say with --healthy which of its values are healthy")
    _patient_column(proposal, rows, rest)
    _split_column(proposal, rows, rest)
    spacing = [name for name in rest if "spacing" in name.lower() and all(map(parse_spacing, rows[name]))]
    if spacing:
        block["spacing_column"] = spacing[0]
    return proposal


def _path_pattern(survey: Survey, table: PurePosixPath, cells: list[str]) -> str | None:
    """How a column's cells become paths below the folder; None where they don't."""
    cells = [part.strip() for cell in cells for part in cell.split(";") if part.strip()]
    if not cells or len(set(cells)) < 2 and len(cells) > 1:
        return None
    for pattern in dict.fromkeys(["{path}", (table.parent / "{path}").as_posix()]):
        if all((survey.folder / pattern.replace("{path}", cell)).exists() for cell in cells):
            return pattern
    return _pattern_by_names(survey, cells)


def _pattern_by_names(survey: Survey, cells: list[str]) -> str | None:
    """The same where the cells are names without folder or ending: all files lie in one folder and end alike."""
    places: dict[str, set[str]] = {}
    for path in (*survey.pictures, *survey.volumes):
        places.setdefault(bare(path.name), set()).add(
            (path.parent / ("{path}" + path.name[len(bare(path.name)):])).as_posix())
    for folder in dict.fromkeys(parent for path in survey.dicom for parent in (path.parent, path.parent.parent)):
        places.setdefault(folder.name, set()).add((folder.parent / "{path}").as_posix())
    common = set.intersection(*(places.get(cell, set()) for cell in cells))
    return common.pop() if len(common) == 1 else None


def _nearest(survey: Survey, table: PurePosixPath, rows: pd.DataFrame) -> str:
    """Of the column that comes nearest to paths, how many lead nowhere, and one of them."""
    missing = {column: [cell for cell in rows[column] if not cell or not (survey.folder / cell).exists()]
               for column in rows}
    best = min(missing, key=lambda column: len(missing[column]))
    if len(missing[best]) == len(rows):
        return ""
    return f"; of the column {best!r} {len(missing[best])} of {len(rows)} lead nowhere, such as {missing[best][0]!r}"


def _label_column(proposal: Proposal, rows: pd.DataFrame, columns: list[str], healthy: list[str]) -> None:
    columns = [name for name in columns if not re.search(NO_LABELS, name, re.IGNORECASE)]
    named = [name for name in columns if re.search(LABELS, name, re.IGNORECASE)]
    ranked = sorted(columns, key=lambda name: (name.lower() != "label", name not in named))
    for binary, candidates in ((True, named), (False, ranked), (True, [] if named else ranked)):
        for column in sorted(candidates, key=ranked.index):
            values = {re.sub(r"\.0+$", "", value) for value in rows[column]} - {""}
            if binary and values == {"0", "1"} and not healthy:
                proposal.block["label_column"] = column
                if column.lower() != "label":
                    proposal.guesses["label_column"] = "it holds 0 and 1" + (
                        "" if column in named else ", though its name doesn't say so")
                return
            classes = classes_of(set(rows[column]) - {""}, healthy) if len(values) <= MOST_CLASSES else None
            if not binary and classes and (column in named or healthy):
                proposal.block |= {"label_column": column, "classes": classes}
                if not healthy:
                    proposal.guesses["classes"] = "by the names of the values; --healthy says it otherwise"
                return


def _patient_column(proposal: Proposal, rows: pd.DataFrame, columns: list[str]) -> None:
    for words in PATIENTS:
        for column in columns:
            named = rows.loc[rows[column] != "", column]
            fits = named.nunique() > 1 and (words == PATIENTS[0] or len(named) == len(rows))
            if fits and re.search(words, column, re.IGNORECASE):
                proposal.block["patient_column"] = column
                if empty := len(rows) - len(named):
                    proposal.notes.append(f"{empty} of {len(rows)} rows have no {column}: the DICOM header's patient "
                                          "is taken, else such a row counts as a patient of its own")
                if column.lower() != "patient":
                    proposal.guesses["patient_column"] = f"by its name; {named.nunique()} of them"
                return
    proposal.notes.append("no column names the patients: the DICOM headers' patients are taken, else every row counts "
                          "as a patient of its own")


def _split_column(proposal: Proposal, rows: pd.DataFrame, columns: list[str]) -> None:
    for column in columns:
        values = set(rows[column])
        if re.search(SPLITS, column, re.IGNORECASE) and values and all(value.lower() in PARTS for value in values):
            splits = {value: PARTS[value.lower()] for value in sorted(values)}
            proposal.block |= {"split_column": column, "splits": splits}
            proposal.has_split = {"train", "test"} <= set(splits.values())
            return

"""Grades that readers saved from the review sheet, as a table by method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from flipside.cli.review_sheet.questions import QUESTIONS
from flipside.cli.review_sheet.sheet import KEY_COLUMNS, ReviewError, sheet_name
from flipside.core.index_tables import read_index

GRADE_COLUMNS = ["sheet", "reader", "case", *QUESTIONS, "remark"]


def read_grades(files: Sequence[Path], key: pd.DataFrame) -> pd.DataFrame:
    """All graded cases with their method: GRADE_COLUMNS, method, slice_id; a question without an answer is "".

    Raises ReviewError, naming file and line, for grades of another sheet, an unknown case or answer, and for a case
    that one reader graded twice.
    """
    tables = [_read(file, key) for file in files]
    grades = pd.concat(tables, ignore_index=True).merge(key, on="case", how="left", validate="many_to_one")
    twice = grades[grades.duplicated(["reader", "case"])]
    if len(twice):
        first = twice.iloc[0]
        raise ReviewError(f"reader {first['reader']!r} graded case {first['case']} twice: give each reader a name of "
                          "their own, and each file once")
    return grades


def _read(file: Path, key: pd.DataFrame) -> pd.DataFrame:
    if not file.is_file():
        raise ReviewError(f"{file} not found: save the grades from the page's button, and name that file")
    table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if missing := [column for column in GRADE_COLUMNS if column not in table]:
        raise ReviewError(f"{file} has no column {missing[0]!r}; expected {', '.join(GRADE_COLUMNS)}")
    cases = set(key["case"].astype(str))
    for line, row in enumerate(table.to_dict("records"), start=2):
        if row["sheet"] != sheet_name(key):
            raise ReviewError(f"{file}, line {line}: grades of the sheet {row['sheet']!r}, but the key is of "
                              f"{sheet_name(key)!r}: give the key that was written with that page (--key)")
        if row["case"] not in cases:
            raise ReviewError(f"{file}, line {line}: no case {row['case']!r}; there are 1 to {len(key)}")
        for name, question in QUESTIONS.items():
            if row[name] not in ("", *question.answers):
                raise ReviewError(f"{file}, line {line}: {name} is {row[name]!r}, expected one of "
                                  f"{', '.join(question.answers)}, or nothing")
    return table[GRADE_COLUMNS].astype({"case": int})


def grades_table(grades: pd.DataFrame) -> str:
    """Markdown: a line for each method, for each question the share of each answer among the cases answered."""
    head = ["method", "graded", "readers", *(f"{name}: {' / '.join(question.answers)}"
                                              for name, question in QUESTIONS.items())]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for method, own in grades.groupby("method"):
        answered = own[(own[list(QUESTIONS)] != "").any(axis=1)]
        cells = [str(method), str(len(answered)), str(answered["reader"].nunique())]
        for name, question in QUESTIONS.items():
            given = own.loc[own[name] != "", name]
            cells.append(" / ".join(f"{(given == answer).mean():.0%}" for answer in question.answers)
                         if len(given) else "–")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_key(file: Path) -> pd.DataFrame:
    """The key that was written with the page. Raises ReviewError where it is missing."""
    if not file.is_file():
        raise ReviewError(f"{file} not found: `flipside review` writes it with the page")
    return read_index(file)[KEY_COLUMNS]

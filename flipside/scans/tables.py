"""Tables that come with a data set (CSV, Parquet): every cell as the text that stands there.

A patient called NA, null or 007 keeps that name; nothing is taken for a missing value or a number.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flipside.scans.endings import PARQUET

SEPARATORS = (",", ";", "\t", "|")


class TableError(ValueError):
    """A table that can't be read right: which file and line, why, and what to do."""


def read_table(path: Path, separator: str | None = None) -> pd.DataFrame:
    """All cells as str, "" where there is nothing; no white space around them; letters in one Unicode form (NFC).

    CSV: UTF-8, UTF-16 or Windows-1252; `separator` None: the comma, semicolon, tab or bar that cuts every line into the
    same number of columns. Separators that end all lines without a heading above them are dropped, and so are empty
    lines; a first line `sep=;` says the separator. Parquet (by its suffix): whole numbers without a point, 123 also
    where they stand as 123.0.
    Raises TableError for another encoding, two columns of one name, and a line with too few or too many fields.
    """
    rows = _parquet_rows(path) if path.suffix.lower() in PARQUET else _csv_rows(path, separator)
    if not rows:
        raise TableError(f"{path} is empty, expected a line with the columns' names")
    header, body = rows[0], rows[1:]
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise TableError(f"{path} has {Counter(header)[doubled[0]]} columns named {doubled[0]!r}: rename all but one")
    return pd.DataFrame(body, columns=pd.Index(header, dtype=str), dtype=str)


def clean_text(text: str) -> str:
    """Without white space around it, in the Unicode form NFC: the same name is then the same text."""
    return unicodedata.normalize("NFC", text).strip()


def _csv_rows(path: Path, separator: str | None) -> list[list[str]]:
    """Heading and rows, all of one length."""
    text = _decoded(path)
    told = re.match(r"sep=(.)\r?\n", text)  # a first line that some spreadsheets write and read
    if told:
        text, separator = text[told.end():], separator or told[1]
    lines = _split(path, text, separator) if separator else _split_by_best(path, text)
    width = len(lines[0][1]) if lines else 0
    for number, fields in lines:
        if len(fields) < width or any(fields[width:]):
            raise TableError(f"{path}, line {number}: {len(fields)} fields, expected {width} as in the heading. Put "
                             "quotation marks around a field that holds the separator, or complete the line")
    rows = [fields[:width] for _, fields in lines]
    kept = [column for column in range(width) if any(row[column] for row in rows)]  # neither heading nor cells: dropped
    return [[row[column] for column in kept] for row in rows]


def _split(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """(line on which the row ends, its fields) of every row that holds anything."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows = []
    try:
        for fields in reader:
            cells = [clean_text(field) for field in fields]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise TableError(f"{path}, line {reader.line_num}: {error}. Correct its quotation marks") from None
    return rows


def _split_by_best(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Rows by the separator that gives the most columns, of those that give the same number in each row if any do."""
    best: list[tuple[int, list[str]]] = []
    rank, failed = (False, 0), ""
    for separator in SEPARATORS:
        try:
            rows = _split(path, text, separator)
        except TableError as error:
            failed = failed or str(error)
            continue
        width = len(rows[0][1]) if rows else 0
        even = all(len(fields) >= width and not any(fields[width:]) for _, fields in rows)
        if (even and width > 1, width) > rank:
            best, rank = rows, (even and width > 1, width)
    if failed and not best:
        raise TableError(failed)
    return best


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in content[:4096]:
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass
    raise TableError(f"{path} is in none of the encodings UTF-8, UTF-16 and Windows-1252: save it as UTF-8")


def _parquet_rows(path: Path) -> list[list[str]]:
    import pyarrow.parquet  # only here: it takes half a second

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise TableError(f"{path} can't be read as Parquet ({str(error)[:200]}): get it again") from None
    names = [clean_text(name) for name in table.column_names]
    columns = [[_text(path, name, value) for value in column.to_pylist()]
               for name, column in zip(names, table.columns, strict=True)]
    return [names, *(list(row) for row in zip(*columns, strict=True))]


def _text(path: Path, column: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (dict, list, bytes)):
        raise TableError(f"{path}: column {column!r} holds {type(value).__name__} values, expected text or numbers")
    return clean_text(str(value))


def need_columns(path: Path, table: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Raises TableError where a column is missing, naming those that are there."""
    missing = [column for column in wanted if column not in table]
    if missing:
        raise TableError(f"{path} has no column {missing[0]!r}; it has {list(table.columns)}")

"""Rows out of anything: CSV, JSONL and Parquet files, DataFrames, tables, and plain Python.

Every source gives (line, values) one by one; what is wrong with a line goes to `fault`, and reading goes on.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from langbatch.building.frames import frame_rows, parquet_rows
from langbatch.errors import BatchInitializationError
from langbatch.requests.lines import refuse_file, refuse_missing

#: Called with a line, a stable code and a sentence.
Fault = Callable[[int, str, str], None]
Row = tuple[int, Mapping[str, Any]]
FileFormat = Literal["csv", "jsonl", "parquet"]

_ENDINGS: Final[Mapping[str, FileFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
#: A cell longer than this is a quotation mark that was never closed; it would swallow the rest of the file.
CELL_LIMIT_BYTES: Final = 32 << 20
_QUOTED: Final = re.compile(rb'"[^"]*"')
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Rows:
    """`columns`: the names there are, where the source has the same for all rows; `folder`: where relative
    names in its cells begin."""

    columns: tuple[str, ...] | None
    rows: Iterator[Row]
    folder: Path


def open_rows(source: Any, fault: Fault, form: FileFormat | None = None) -> Rows:
    """Rows of a file (by its ending, or as `form`), a pandas or polars frame, an Arrow table, or an iterable
    of mappings. Strings and other plain values in an iterable are rows with one column, `text`.

    Raises `BatchValidationError` for what is no file, or of no known format, and `OSError` for a file that
    cannot be opened; `SetupError` where a library is missing.
    """
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        chosen = form or _ENDINGS.get(path.suffix.lower())
        if not path.exists():
            raise refuse_missing(path)
        if path.is_dir():
            raise refuse_file("not_a_file", f"{path.name!r} is a folder, not a file")
        if chosen is None:
            raise refuse_file(
                "format", f"{path.name!r} could be anything: name it .csv, .tsv, .jsonl or .parquet"
            )
        if chosen == "parquet":
            columns, rows = parquet_rows(path)
            return Rows(columns, enumerate(rows, 1), path.parent)
        if chosen == "csv":
            return _csv_rows(path, fault)
        return Rows(None, _jsonl_rows(path, fault), path.parent)
    found = frame_rows(source)
    if found is not None:
        columns, rows = found
        return Rows(columns, enumerate(rows, 1), Path())
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise BatchInitializationError(
            f"rows cannot be read from {type(source).__name__}",
            hint="Give a file's path, a DataFrame, or an iterable of dicts.",
        )
    return Rows(None, _plain_rows(source), Path())


def _plain_rows(items: Iterable[Any]) -> Iterator[Row]:
    for line, item in enumerate(items, 1):
        yield line, item if isinstance(item, Mapping) else {"text": item}


# ---------------------------------------------------------------- JSON lines


def _jsonl_rows(path: Path, fault: Fault) -> Iterator[Row]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            if line == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                value = json.loads(raw.decode(), parse_constant=_no_constant)
            except (ValueError, RecursionError):
                fault(line, "bad_json", "this line is not JSON")
                continue
            if isinstance(value, dict):
                yield line, value
            else:
                fault(line, "not_an_object", "this line is not a JSON object")


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


# ---------------------------------------------------------------- CSV


def _csv_rows(path: Path, fault: Fault) -> Rows:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(_UTF16_MARKS):
        raise BatchInitializationError(f"{path.name} is UTF-16", hint="Save it as UTF-8.", code="encoding")
    names: tuple[str, ...] = ()

    def tell(line: int, code: str, message: str) -> None:
        if not names:  # the next row is no header
            raise BatchInitializationError(f"the first line of {path.name}: {message}", code="header")
        fault(line, code, message)

    rows = _csv_cells(path, _delimiter(path, head), tell)
    _, header = next(rows, (0, []))
    names = tuple(name.strip() for name in header)
    twice = {name for name in names if names.count(name) > 1}
    if not names or "" in names or twice:
        what = f"names {', '.join(sorted(map(repr, twice)))} twice" if twice else "does not name every column"
        raise BatchInitializationError(f"the first line of {path.name} {what}", code="header")
    return Rows(names, _matched(names, rows, fault), path.parent)


def _matched(names: tuple[str, ...], rows: Iterator[tuple[int, list[str]]], fault: Fault) -> Iterator[Row]:
    for line, cells in rows:
        if len(cells) != len(names):
            fault(line, "cells", f"this row has {len(cells)} cells, the first line {len(names)}")
        else:
            # CSV has no other way to say that there is no value.
            yield line, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _csv_cells(path: Path, delimiter: str, fault: Fault) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins on. Bytes that are no UTF-8 cost their row, not the file."""
    if csv.field_size_limit() < CELL_LIMIT_BYTES:
        csv.field_size_limit(CELL_LIMIT_BYTES)  # the process's; there is no other
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault(line, "bad_csv", _in_words(str(error)))
                continue
            if not cells:
                continue
            if not _is_text(cells):
                fault(line, "encoding", "this row is not UTF-8")
                continue
            yield line, cells


def _is_text(cells: list[str]) -> bool:
    joined = "".join(cells)
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_words(error: str) -> str:
    if "unexpected end of data" in error or "field limit" in error:
        return "a quotation mark that opens here is never closed"
    if "expected after" in error:
        return "text stands behind a closing quotation mark; a mark inside a cell is written twice"
    return "this row is not CSV"


def _delimiter(path: Path, head: bytes) -> str:
    """Comma, semicolon (spreadsheets in half of Europe), tab or bar: what the first line has most of outside
    of quotation marks."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = _QUOTED.sub(b"", head).lstrip(b"\r\n").split(b"\n", 1)[0]
    return max(",;\t|", key=lambda mark: first.count(mark.encode()))

"""The files that users take away: JSONL as the joined files are, and CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Final

from langbatch.publish import publishing
from langbatch.results.result import (
    BLOCK_BYTES,
    Result,
    next_request,
    no_more,
    open_joined,
    paths_of,
    records_of,
    with_request_body,
)
from langbatch.results.tables import Table, cell_text, plain_table


def export_jsonl(
    paths: Iterable[Path] | Path, out: Path | BinaryIO, requests: Iterator[bytes] | None = None
) -> int:
    """Write the joined files one after another to a path (whole or not at all) or an open stream.

    With `requests`, the input lines of the same requests, each record gets `"request"`: the body as the
    user wrote it. Returns the number of records.
    """
    written = 0
    with _opened(out) as sink:
        if requests is None:
            for path in paths_of(paths):
                with open_joined(path) as file:
                    while block := file.read(BLOCK_BYTES):
                        written += block.count(b"\n")
                        sink.write(block)
            return written
        for record in records_of(paths):
            sink.write(with_request_body(record, next_request(requests)))
            written += 1
        no_more(requests)
    return written


def export_records(results: Iterable[Result], out: Path | BinaryIO) -> int:
    """Write results as JSONL, one by one: slower than `export_jsonl`, for a choice of them."""
    written = 0
    with _opened(out) as sink:
        for result in results:
            sink.write(result.to_jsonl())
            written += 1
    return written


#: A spreadsheet takes a cell that begins so for a formula; the wide ones where East Asian text is typed.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
#: It drops these, and then looks again (OWASP, "CSV Injection").
_ODD_STARTS: Final = ("\t", "\r", "\n")
_CSV_SPECIAL: Final = frozenset('",\r\n')


def export_csv(results: Iterable[Result], out: Path | BinaryIO, table: Table | None = None) -> int:
    """Write a table, the plain one if none is given, in UTF-8; no cell can act as a formula. Returns the
    number of records."""
    chosen = table or plain_table()
    written = 0
    with _opened(out) as sink:
        sink.write(_csv_line([column.name for column in chosen.columns]))
        for result in results:
            sink.write(_csv_line(chosen.cells(result)))
            written += 1
    return written


def export_flat_jsonl(results: Iterable[Result], out: Path | BinaryIO, table: Table) -> int:
    """Write a table as JSON lines, the columns as keys. Returns the number of records."""
    names = [column.name for column in table.columns]
    written = 0
    with _opened(out) as sink:
        for result in results:
            line = json.dumps(dict(zip(names, table.cells(result), strict=True)), ensure_ascii=False)
            sink.write(line.encode("utf-8", "replace") + b"\n")
            written += 1
    return written


def _csv_line(cells: list[Any]) -> bytes:
    # A lone surrogate has no UTF-8; the JSONL of the results keeps it exactly.
    return ",".join(map(_cell, cells)).encode("utf-8", "replace") + b"\n"


#: Escapes and bidi overrides that a terminal would obey; tab, newline and return are text.
_TERMINAL_ORDERS: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)):
        return json.dumps(value)
    text = _TERMINAL_ORDERS.sub("", cell_text(value) or "")
    formula = text.startswith(_ODD_STARTS) or text.lstrip().startswith(_FORMULA_STARTS)
    if formula or not _CSV_SPECIAL.isdisjoint(text) or text != text.strip():
        return '"' + ("'" if formula else "") + text.replace('"', '""') + '"'
    return text


def _opened(out: Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return publishing(out) if isinstance(out, Path) else nullcontext(out)

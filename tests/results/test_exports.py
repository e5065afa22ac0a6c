"""The files that users take away."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from langbatch.errors import BatchResultsError
from langbatch.results.exports import export_csv, export_jsonl
from langbatch.results.result import read_results
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success


def joined_files(folder: Path, *shards: list[dict[str, Any]]) -> list[Path]:
    paths = []
    for number, rows in enumerate(shards):
        (folder / f"{number}").mkdir()
        join(folder / f"{number}", [row["custom_id"] for row in rows], Tried([encoded(row) for row in rows]))
        paths.append(folder / f"{number}" / "joined.jsonl")
    return paths


def test_jsonl_is_the_joined_files_one_after_another(tmp_path: Path) -> None:
    paths = joined_files(tmp_path, [success("a"), never_ran("b")], [], [success("c")])
    out = tmp_path / "out.jsonl"
    assert export_jsonl(paths, out) == 3
    assert out.read_bytes() == b"".join(path.read_bytes() for path in paths)
    assert out.stat().st_mode & 0o777 == 0o600


def test_jsonl_with_requests_adds_each_body_byte_for_byte(tmp_path: Path) -> None:
    paths = joined_files(tmp_path, [success("a"), never_ran("b")])
    bodies = [b'{ "n":1.50,"big":123456789012345678901234567890,"s":"\\u00e9\\/" }', b'{"x":"\xc3\xa9"}']
    lines = [
        b'{"custom_id":"%b","method":"POST","url":"/x", "body" : %b }\n' % (name, body)
        for name, body in zip((b"a", b"b"), bodies, strict=True)
    ]
    out = io.BytesIO()
    assert export_jsonl(paths, out, iter(lines)) == 2
    written = out.getvalue().split(b"\n")
    assert written[-1] == b""
    plain = paths[0].read_bytes().split(b"\n")
    for line, before, body in zip(written, plain, bodies, strict=False):
        assert json.loads(line) == {**json.loads(before), "request": json.loads(body)}
        assert body in line
    (tmp_path / "again.jsonl").write_bytes(out.getvalue())
    assert [r.request for r in read_results(tmp_path / "again.jsonl")] == [json.loads(b) for b in bodies]


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    paths = joined_files(tmp_path, [success("a")])
    with pytest.raises(BatchResultsError):
        export_jsonl(paths, tmp_path / "out.jsonl", iter([b'{"custom_id":"z","body":{}}']))
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_csv_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    body = chat_body('two\nlines, "quoted"')
    paths = joined_files(tmp_path, [success("a", body), http_failure("b", 429), never_ran("c")])
    out = tmp_path / "out.csv"
    assert export_csv(read_results(paths), out) == 3
    assert out.read_text().split("\n")[0] == (
        "custom_id,outcome,line,text,status_code,error_code,error_message,input_tokens,output_tokens"
    )
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        ("a", "succeeded", "10", 'two\nlines, "quoted"', "200", "", "", "7", "3"),
        ("b", "errored", "11", "", "429", "content_filter", "no such thing", "", ""),
        ("c", "expired", "12", "", "", "batch_expired", "too late", "", ""),
    ]
    assert len(rows[0]) == 9


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_bad_60_a_cell_that_looks_like_a_formula_is_prefixed_and_quoted(tmp_path: Path, start: str) -> None:
    cell = start + "1"
    paths = joined_files(tmp_path, [success(cell, chat_body(cell)), never_ran("b" + cell, cell, cell)])
    out = io.BytesIO()
    export_csv(read_results(paths), out)
    quoted = "\"'" + cell + '"'
    assert out.getvalue().decode().count(quoted) == 4
    rows = list(csv.reader(io.StringIO(out.getvalue().decode(), newline="")))
    assert rows[1][0] == rows[1][3] == "'" + cell
    assert rows[2][0] == "b" + cell
    assert next(read_results(paths)).text == cell


def test_csv_takes_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    paths = joined_files(tmp_path, [success("a", chat_body("half \ud800"))])
    out = io.BytesIO()
    export_csv(read_results(paths), out)
    assert b"half ?" in out.getvalue()

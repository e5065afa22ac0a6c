"""Rows out of files and tables, with the line of everything that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from langbatch.building.sources import Row, Rows, open_rows
from langbatch.errors import BatchInitializationError, BatchValidationError


def read(source: Any, form: Any = None) -> tuple[Rows, list[Row], list[tuple[int, str]]]:
    faults: list[tuple[int, str]] = []
    rows = open_rows(source, lambda line, code, message: faults.append((line, code)), form)
    return rows, list(rows.rows), faults


def csv_file(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_csv_row_has_the_line_it_begins_on(tmp_path: Path) -> None:
    rows, found, faults = read(csv_file(tmp_path, 'id,text\r\n1,"two\r\nlines"\r\n\r\n2,"a ""b"", c"\r\n'))
    assert rows.columns == ("id", "text")
    assert found == [(2, {"id": "1", "text": "two\r\nlines"}), (5, {"id": "2", "text": 'a "b", c'})]
    assert faults == []


def test_every_faulty_csv_row_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    content = b'id,text\n1,x,y\n2\n3,\xff\n4,"a"b\n5,fine\n6,"open\n7,swallowed\n'
    _, found, faults = read(csv_file(tmp_path, content))
    assert found == [(6, {"id": "5", "text": "fine"})]
    assert faults == [(2, "cells"), (3, "cells"), (4, "encoding"), (5, "bad_csv"), (7, "bad_csv")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_what_the_first_line_has_most_of(tmp_path: Path, delimiter: str) -> None:
    content = f"id{delimiter}text\n1{delimiter}a\n"
    assert read(csv_file(tmp_path, content))[1] == [(2, {"id": "1", "text": "a"})]


def test_a_mark_of_order_and_spaces_around_names_are_no_part_of_a_name(tmp_path: Path) -> None:
    assert read(csv_file(tmp_path, "\ufeffid, text\n1,a\n"))[0].columns == ("id", "text")


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert read(csv_file(tmp_path, "text\nhello world\n"))[1] == [(2, {"text": "hello world"})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not name every column"),
        (b"a,,b\n", "does not name every column"),
        (b"a,b,a\n", "names 'a' twice"),
        ("text\na\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_a_first_line_that_names_no_columns_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BatchInitializationError, match=message):
        read(csv_file(tmp_path, content))


def test_a_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    _, found, faults = read(csv_file(tmp_path, "text\n" + "x" * 1_000_000 + "\n"))
    assert len(found[0][1]["text"]) == 1_000_000
    assert faults == []


def test_json_lines_give_objects_and_tell_the_rest(tmp_path: Path) -> None:
    content = '\ufeff{"a": 1}\n\nrubbish\n[1]\n{"a": NaN}\n{"a": {"b": [true, null]}}\n'
    _, found, faults = read(csv_file(tmp_path, content, "rows.jsonl"))
    assert found == [(1, {"a": 1}), (6, {"a": {"b": [True, None]}})]
    assert faults == [(3, "bad_json"), (4, "not_an_object"), (5, "bad_json")]


def test_parquet_rows_come_in_order_over_several_groups(tmp_path: Path) -> None:
    table = pyarrow.table({"id": list(range(3000)), "text": [f"row {n}" for n in range(3000)]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=700)
    rows, found, _ = read(tmp_path / "rows.parquet")
    assert rows.columns == ("id", "text")
    assert found[2999] == (3000, {"id": 2999, "text": "row 2999"})
    assert len(found) == 3000


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BatchInitializationError, match="not a Parquet file"):
        read(csv_file(tmp_path, "a,b\n", "rows.parquet"))


COLUMNS = {"text": ["a", None], "n": [1, 2]}


@pytest.mark.parametrize(
    "frame",
    [
        pandas.DataFrame(COLUMNS),
        pandas.DataFrame(COLUMNS).convert_dtypes(),
        polars.DataFrame(COLUMNS),
        polars.DataFrame(COLUMNS).lazy(),
        pyarrow.table(COLUMNS),
        pyarrow.table(COLUMNS).to_batches()[0],
    ],
    ids=lambda frame: f"{type(frame).__module__.partition('.')[0]}-{type(frame).__name__}",
)
def test_a_frame_of_any_library_gives_the_same_rows(frame: Any) -> None:
    if type(frame) is pyarrow.RecordBatch:
        frame = pyarrow.RecordBatchReader.from_batches(frame.schema, [frame])
    rows, found, _ = read(frame)
    assert rows.columns == ("text", "n")
    assert found == [(1, {"text": "a", "n": 1}), (2, {"text": None, "n": 2})]


def test_what_pandas_calls_missing_has_no_value() -> None:
    frame = pandas.DataFrame(
        {"f": [float("nan")], "t": [pandas.NaT], "a": pandas.array([pandas.NA], dtype="Int64"), "l": [[1, 2]]}
    )
    assert read(frame)[1] == [(1, {"f": None, "t": None, "a": None, "l": [1, 2]})]


def test_plain_python_is_read_as_it_comes() -> None:
    assert read(iter([{"a": 1}, "just text"]))[1] == [(1, {"a": 1}), (2, {"text": "just text"})]


@pytest.mark.parametrize("source", [5, {"a": 1}])
def test_what_is_no_table_is_refused(source: Any) -> None:
    with pytest.raises(BatchInitializationError, match="rows cannot be read from"):
        read(source)


def test_a_file_whose_ending_says_nothing_needs_a_format(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "text\na\n", "rows.dat")
    with pytest.raises(BatchValidationError, match=r"'rows\.dat' could be anything"):
        read(path)
    assert read(path, "csv")[1] == [(2, {"text": "a"})]


def test_what_is_no_file_is_refused_as_input(tmp_path: Path) -> None:
    with pytest.raises(BatchValidationError, match=r"there is no file 'rows\.csv'"):
        read(tmp_path / "rows.csv")
    with pytest.raises(BatchValidationError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("header", ['"Id";"Comment (free, long, all)"', '"text, long";Id'])
def test_marks_inside_quoted_names_do_not_count_for_the_delimiter(tmp_path: Path, header: str) -> None:
    columns = read(csv_file(tmp_path, f"{header}\n"))[0].columns
    assert columns is not None
    assert "Id" in columns


def test_a_header_that_cannot_be_read_refuses_the_file_instead_of_using_the_next_row(tmp_path: Path) -> None:
    with pytest.raises(BatchInitializationError, match=r"first line of rows\.csv: text stands behind"):
        read(csv_file(tmp_path, '"id" ,"text"\nid,text\nr2,b\n'))


def test_an_empty_csv_cell_is_no_value(tmp_path: Path) -> None:
    assert read(csv_file(tmp_path, "id,text\nr1,\n"))[1] == [(2, {"id": "r1", "text": None})]


def test_reading_csv_and_json_loads_no_library_of_tables(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "text\na\n")
    script = (
        "import sys; from langbatch import build_requests;"
        f"list(build_requests({str(path)!r}, prompt='{{text}}')); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"pandas", "polars", "pyarrow", "numpy", "pydantic", "openai"} & set(ran.stdout.split())


def test_a_missing_library_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "", "rows.parquet")
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from langbatch import SetupError, build_requests\n"
        f"try: build_requests({str(path)!r}, prompt='x')\n"
        "except SetupError as error: print(error, '|', error.hint)"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout == (
        'Parquet files need pyarrow, which is not installed | pip install "langbatch-manager[parquet]"\n'
    )

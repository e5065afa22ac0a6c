"""Results as tables: columns, types, and the files and frames made of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from langbatch.errors import BatchResultsError
from langbatch.extras import frugal_arrow
from langbatch.results.exports import export_csv, export_flat_jsonl
from langbatch.results.frames import to_pandas, to_polars
from langbatch.results.parquet import GROUP_ROWS, export_parquet
from langbatch.results.result import Result, read_results
from langbatch.results.tables import MOST_ANSWER_COLUMNS, Table, flat_table, plain_table
from measuring import peak_megabytes
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success


def results_of(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Result]:
    join(folder, [row["custom_id"] for row in rows], Tried([encoded(row) for row in rows]))
    return list(read_results(folder / "joined.jsonl"))


def answered(*answers: object) -> list[dict[str, Any]]:
    texts = [answer if isinstance(answer, str) else json.dumps(answer) for answer in answers]
    return [success(f"r{number}", chat_body(text)) for number, text in enumerate(texts)]


def columns(table: Table) -> dict[str, str]:
    return {column.name: column.kind for column in table.columns}


OWN = [
    "custom_id", "outcome", "line", "finish_reason", "status_code", "error_code", "error_message",
    "input_tokens", "output_tokens",
]  # fmt: skip


def test_answers_that_are_json_objects_become_columns(tmp_path: Path) -> None:
    answer = {"label": "good", "score": 0.5, "sure": True, "count": 3, "tags": ["a"], "at": {"city": "Graz"}}
    results = results_of(tmp_path, answered(answer))
    table = flat_table(results)
    assert columns(table) == {
        "custom_id": "string",
        "outcome": "string",
        "line": "integer",
        "label": "string",
        "score": "float",
        "sure": "boolean",
        "count": "integer",
        "tags": "mixed",
        "at.city": "string",
        "finish_reason": "string",
        "status_code": "integer",
        "error_code": "string",
        "error_message": "string",
        "input_tokens": "integer",
        "output_tokens": "integer",
    }
    assert table.cells(results[0]) == [
        "r0", "succeeded", 10, "good", 0.5, True, 3, ["a"], "Graz", "stop", 200, None, None, 7, 3,
    ]  # fmt: skip


def test_answers_that_are_no_json_stay_text_beside_those_that_are(tmp_path: Path) -> None:
    results = results_of(tmp_path, answered({"label": "good"}, "just words", "[1, 2]", '{"cut', '{"n": NaN}'))
    table = flat_table(results)
    assert list(columns(table))[3:5] == ["text", "label"]
    assert [table.cells(result)[3:5] for result in results] == [
        [None, "good"],
        ["just words", None],
        ["[1, 2]", None],
        ['{"cut', None],
        ['{"n": NaN}', None],
    ]


def test_failures_have_their_reason_and_no_answer(tmp_path: Path) -> None:
    results = results_of(tmp_path, [*answered({"label": "good"}), http_failure("b", 429), never_ran("c")])
    table = flat_table(results)
    rows = [dict(zip(columns(table), table.cells(result), strict=True)) for result in results]
    assert [row["label"] for row in rows] == ["good", None, None]
    assert [(row["status_code"], row["error_code"]) for row in rows] == [
        (200, None),
        (429, "content_filter"),
        (None, "batch_expired"),
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2.5], "float"),
        ([1, None, 2], "integer"),
        ([1, "one"], "mixed"),
        ([True, 1], "mixed"),
        ([None, None], "string"),
        ([2**63, 1], "mixed"),
        ([[1], "x"], "mixed"),
        ([{}, None], "mixed"),
    ],
)
def test_a_columns_type_is_what_all_its_values_share(tmp_path: Path, values: list[Any], kind: str) -> None:
    results = results_of(tmp_path, answered(*({"v": value} for value in values)))
    table = flat_table(results)
    assert columns(table)["v"] == kind
    out = io.BytesIO()
    export_parquet(results, out, table)
    written = pyarrow.parquet.read_table(io.BytesIO(out.getvalue()))["v"].to_pylist()
    if kind == "mixed":
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    assert written == values


def test_an_answers_own_outcome_does_not_pass_for_the_requests(tmp_path: Path) -> None:
    answer = {"outcome": "failed", "custom_id": "x", "a": {"b": 1}, "a.b": 2, "": 3}
    results = results_of(tmp_path, answered(answer))
    table = flat_table(results)
    row = dict(zip(columns(table), table.cells(results[0]), strict=True))
    assert (row["outcome"], row["custom_id"]) == ("succeeded", "r0")
    assert (row["answer_outcome"], row["answer_custom_id"]) == ("failed", "x")
    assert (row["a.b"], row["a.b_"], row["_"]) == (1, 2, 3)


def test_answers_whose_keys_are_data_stay_whole(tmp_path: Path) -> None:
    results = results_of(tmp_path, answered(*({f"key-{n}": n} for n in range(MOST_ANSWER_COLUMNS + 1))))
    table = flat_table(results)
    assert list(columns(table)) == [*OWN[:3], "text", *OWN[3:]]
    assert table.cells(results[5])[3] == '{"key-5": 5}'


def test_deep_answers_end_in_one_cell(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(50):
        deep = {"d": deep}
    results = results_of(tmp_path, answered(deep))
    table = flat_table(results)
    [name] = set(columns(table)) - set(OWN)
    assert name == ".".join("d" * 9)
    assert columns(table)[name] == "mixed"


def test_embeddings_are_lists_of_numbers(tmp_path: Path) -> None:
    body = {"data": [{"embedding": [0.25, -1, 3]}], "usage": {"prompt_tokens": 2}}
    several = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}
    results = results_of(tmp_path, [success("a", body), success("b", several)])
    table = flat_table(results)
    assert (columns(table)["embedding"], columns(table)["embeddings"]) == ("floats", "mixed")
    out = io.BytesIO()
    export_parquet(results, out, table)
    written = pyarrow.parquet.read_table(io.BytesIO(out.getvalue())).to_pylist()
    assert written[0]["embedding"] == [0.25, -1.0, 3.0]
    assert written[1]["embeddings"] == "[[1.0], [2.0]]"
    assert to_polars(results, table)["embedding"].to_list() == [[0.25, -1.0, 3.0], None]
    assert to_pandas(results, table)["embedding"][0] == [0.25, -1, 3]


def test_results_that_change_between_the_passes_are_noticed(tmp_path: Path) -> None:
    results = results_of(tmp_path, answered({"n": 1}, {"n": "one"}, {"m": 1}, "words"))
    table = flat_table(results[:1])
    table.cells(results[0])
    for result in results[1:]:
        with pytest.raises(BatchResultsError) as refusal:
            table.cells(result)
        assert refusal.value.code == "results_changed"


def test_no_results_make_a_table_all_the_same() -> None:
    out = io.BytesIO()
    assert export_parquet([], out, flat_table([])) == 0
    read = pyarrow.parquet.read_table(io.BytesIO(out.getvalue()))
    assert read.column_names == [*OWN[:3], "text", *OWN[3:]]
    assert read.num_rows == 0


# ---------------------------------------------------------------- forms


def test_the_same_cells_stand_in_every_form(tmp_path: Path) -> None:
    results = results_of(
        tmp_path, [*answered({"n": 1, "ok": True, "l": [1]}, {"n": 2, "ok": None, "l": None}), never_ran("c")]
    )
    table = flat_table(results)
    out = io.BytesIO()
    assert export_parquet(results, out, table) == 3
    expected = [
        {"n": 1, "ok": True, "l": "[1]"},
        {"n": 2, "ok": None, "l": None},
        {"n": None, "ok": None, "l": None},
    ]

    def parts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: row[name] for name in ("n", "ok", "l")} for row in rows]

    assert parts(pyarrow.parquet.read_table(io.BytesIO(out.getvalue())).to_pylist()) == expected
    assert parts(to_polars(results, table).to_dicts()) == expected
    frame = to_pandas(results, table)
    assert (str(frame["n"].dtype), str(frame["ok"].dtype)) == ("Int64", "boolean")
    assert frame["n"].dropna().tolist() == [1, 2]
    assert frame["l"].tolist() == [[1], None, None]
    lines = io.BytesIO()
    export_flat_jsonl(results, lines, table)
    assert [json.loads(line)["l"] for line in lines.getvalue().splitlines()] == [[1], None, None]
    rows = io.BytesIO()
    export_csv(results, rows, table)
    read = list(csv.DictReader(io.StringIO(rows.getvalue().decode())))
    assert parts(read) == [
        {"n": "1", "ok": "true", "l": "[1]"},
        {"n": "2", "ok": "", "l": ""},
        {"n": "", "ok": "", "l": ""},
    ]


def test_frames_have_the_columns_and_rows_of_the_plain_table_too(tmp_path: Path) -> None:
    results = results_of(tmp_path, [success("a"), never_ran("b")])
    table = plain_table()
    assert isinstance(to_pandas(results, table), pandas.DataFrame)
    assert isinstance(to_polars(results, table), polars.DataFrame)
    assert to_polars(results, table)["text"].to_list() == ["fine", None]
    assert to_pandas(results, table)["custom_id"].tolist() == ["a", "b"]


def test_frames_take_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    results = results_of(tmp_path, [success("a", chat_body("half \ud800"))])
    for make in (to_pandas, to_polars):
        assert list(make(results, plain_table())["text"]) == ["half ?"]


def test_plain_parquet_has_the_contracts_columns_and_the_whole_response(tmp_path: Path) -> None:
    results = results_of(tmp_path, [success("a"), http_failure("b"), never_ran("c")])
    out = io.BytesIO()
    export_parquet(results, out, plain_table(with_response=True))
    rows = pyarrow.parquet.read_table(io.BytesIO(out.getvalue())).to_pylist()
    assert list(rows[0]) == [
        "custom_id", "outcome", "line", "text", "status_code", "error_code", "error_message",
        "input_tokens", "output_tokens", "response",
    ]  # fmt: skip
    assert json.loads(rows[0]["response"]) == chat_body()
    assert rows[2]["response"] is None


def test_parquet_is_written_in_row_groups_of_one_schema(tmp_path: Path) -> None:
    [result] = results_of(tmp_path, answered({"n": 1}))
    table = flat_table([result])
    out = io.BytesIO()
    assert export_parquet((result for _ in range(2 * GROUP_ROWS + 1)), out, table) == 2 * GROUP_ROWS + 1
    file = pyarrow.parquet.ParquetFile(io.BytesIO(out.getvalue()))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [
        GROUP_ROWS, GROUP_ROWS, 1,
    ]  # fmt: skip


def test_half_a_surrogate_pair_spoils_no_table(tmp_path: Path) -> None:
    results = results_of(tmp_path, [success("a", chat_body("half \ud800"))])
    table = flat_table(results)
    for written in (io.BytesIO(), io.BytesIO()):
        export_parquet(results, written, table)
        assert pyarrow.parquet.read_table(io.BytesIO(written.getvalue()))["text"][0].as_py() == "half ?"
    assert to_polars(results, table)["text"][0] == "half ?"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", " =", "＝", "－"])
def test_neither_a_columns_name_nor_a_cell_acts_as_a_formula(tmp_path: Path, start: str) -> None:
    results = results_of(tmp_path, answered({f"{start}1+1": f"{start}2+2"}))
    out = io.BytesIO()
    export_csv(results, out, flat_table(results))
    header, row = csv.reader(io.StringIO(out.getvalue().decode(), newline=""))
    assert header[3] == f"'{start}1+1"
    assert row[3] == f"'{start}2+2"


def test_a_negative_number_is_a_number(tmp_path: Path) -> None:
    results = results_of(tmp_path, answered({"n": -5, "f": -0.5}))
    out = io.BytesIO()
    export_csv(results, out, flat_table(results))
    assert out.getvalue().splitlines()[1].split(b",")[3:5] == [b"-5", b"-0.5"]


def test_arrow_has_the_allocator_it_had_before() -> None:
    before = pyarrow.default_memory_pool().backend_name
    with frugal_arrow() as arrow:
        assert arrow.default_memory_pool().backend_name == "system"
    assert pyarrow.default_memory_pool().backend_name == before


EXPORT = """
import sys
from langbatch.results.exports import export_csv
from langbatch.results.parquet import export_parquet
from langbatch.results.result import Result
from langbatch.results.tables import flat_table
text = '{\\\\"label\\\\": \\\\"good\\\\", \\\\"why\\\\": \\\\"' + "because of this " * 60 + '\\\\", \\\\"n\\\\": 5}'
line = (
    '{"custom_id": "request-%d", "outcome": "succeeded", "line": %d, "attempt": 1, "response": {"status_code": 200,'
    ' "body": {"choices": [{"finish_reason": "stop", "message": {"content": "' + text + '"}}]}}, "error": null}'
)
def results():
    return (Result((line % (n, n)).encode()) for n in range(int(sys.argv[1])))
with open("/dev/null", "wb") as out:
    assert sys.argv[2] == "parquet" or export_csv(results(), out, flat_table(results()))
    assert sys.argv[2] == "csv" or export_parquet(results(), out, flat_table(results()))
"""


def test_memory_does_not_grow_with_the_results() -> None:
    for form in ("parquet", "csv"):
        small, large = (peak_megabytes(EXPORT, count, form) for count in (4_000, 40_000))
        assert large < 120, form
        assert large < small + 20, form

"""Tables as DataFrames: whole in memory, as DataFrames are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langbatch.extras import require_extra
from langbatch.results.result import Result
from langbatch.results.tables import Table, cell_text


def to_pandas(results: Iterable[Result], table: Table) -> Any:
    """A `pandas.DataFrame`. Whole numbers and booleans have pandas' types that know missing values; lists and
    objects of answers are Python's own."""
    pandas = require_extra("pandas", "pandas", "DataFrames")
    types = {"integer": "Int64", "boolean": "boolean", "float": "float64"}
    frame = {}
    for column, values in zip(table.columns, _columns(results, table), strict=True):
        chosen = types.get(column.kind)
        if column.kind == "string":
            values = [cell_text(value) for value in values]
        frame[column.name] = (
            pandas.Series(values, dtype=chosen)
            if chosen
            # Without a type given, what a list of lists or of texts becomes depends on what is in it.
            else pandas.Series(values, dtype="string" if column.kind == "string" else "object")
        )
    return pandas.DataFrame(frame)


def to_polars(results: Iterable[Result], table: Table) -> Any:
    """A `polars.DataFrame`. Lists and objects of answers, and columns of several types, are JSON text."""
    polars = require_extra("polars", "polars", "DataFrames")
    types = {
        "string": polars.String,
        "mixed": polars.String,
        "integer": polars.Int64,
        "float": polars.Float64,
        "boolean": polars.Boolean,
        "floats": polars.List(polars.Float64),
    }
    series = []
    for column, values in zip(table.columns, _columns(results, table), strict=True):
        if column.kind in ("string", "mixed"):
            values = [cell_text(value) for value in values]
        series.append(polars.Series(column.name, values, dtype=types[column.kind], strict=False))
    return polars.DataFrame(series)


def _columns(results: Iterable[Result], table: Table) -> list[list[Any]]:
    columns: list[list[Any]] = [[] for _ in table.columns]
    for result in results:
        for values, value in zip(columns, table.cells(result), strict=True):
            values.append(value)
    return columns

"""Rows of pandas, polars and Arrow tables. Nothing is imported before a value or a file of theirs comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from langbatch.errors import BatchInitializationError
from langbatch.extras import frugal_arrow, require_extra

#: Rows made into Python values at once.
_AT_ONCE: Final = 500
#: Without a buffer Arrow reads a whole column of a row group at once.
_BUFFER_BYTES: Final = 1 << 18

Found = tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]


def frame_rows(source: Any) -> Found | None:
    """Columns and rows of a pandas or polars frame, or an Arrow table; None for anything else."""
    library = type(source).__module__.partition(".")[0]
    if library == "pandas" and hasattr(source, "iloc") and hasattr(source, "columns"):
        return tuple(map(str, source.columns)), _pandas_rows(source)
    if library == "polars" and type(source).__name__ in ("DataFrame", "LazyFrame"):
        frame = source.collect() if type(source).__name__ == "LazyFrame" else source
        return tuple(frame.columns), frame.iter_rows(named=True, buffer_size=_AT_ONCE)
    if library == "pyarrow" and hasattr(source, "schema"):
        batches = source.to_batches(_AT_ONCE) if hasattr(source, "to_batches") else source
        return tuple(source.schema.names), _arrow_rows(batches)
    return None


def parquet_rows(path: Path) -> Found:
    """Columns and rows of a Parquet file, read in pieces."""
    parquet = require_extra("pyarrow.parquet", "parquet", "Parquet files")
    try:
        # A file keeps the allocator it was opened with.
        with frugal_arrow():
            file = parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except ValueError:  # Arrow's own are kinds of it
        raise BatchInitializationError(f"{path.name} is not a Parquet file", code="format") from None
    return tuple(file.schema_arrow.names), _parquet_rows(file)


def _parquet_rows(file: Any) -> Iterator[Mapping[str, Any]]:
    with frugal_arrow(), file:
        yield from _arrow_rows(file.iter_batches(batch_size=_AT_ONCE, use_threads=False))


def _arrow_rows(batches: Any) -> Iterator[Mapping[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()


def _pandas_rows(frame: Any) -> Iterator[Mapping[str, Any]]:
    """NaN, NaT and NA are what pandas has for a missing value."""
    pandas = require_extra("pandas", "pandas", "DataFrames")
    for first in range(0, len(frame), _AT_ONCE):
        for row in frame.iloc[first : first + _AT_ONCE].to_dict("records"):
            yield {
                str(name): None if pandas.api.types.is_scalar(value) and pandas.isna(value) else value
                for name, value in row.items()
            }

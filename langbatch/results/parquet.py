"""Tables as Parquet, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO, Final

from langbatch.extras import frugal_arrow, require_extra
from langbatch.results.arrays import ColumnBuilder, arrow_type
from langbatch.results.result import Result
from langbatch.results.tables import Table

#: A row group ends at so many rows, or so many bytes of values, roughly.
GROUP_ROWS: Final = 10_000
GROUP_BYTES: Final = 1 << 20


def require_parquet() -> Any:
    """`pyarrow.parquet`; `SetupError` with the command that installs it."""
    return require_extra("pyarrow.parquet", "parquet", "Parquet files")


def export_parquet(results: Iterable[Result], out: BinaryIO, table: Table) -> int:
    """Write a table; the number of records. Memory holds one row group, whatever there is to write."""
    parquet = require_parquet()
    with frugal_arrow() as arrow:
        schema = arrow.schema([(column.name, arrow_type(arrow, column.kind)) for column in table.columns])
        # Dictionaries of texts that hardly ever come twice only take memory; zstd finds those that do.
        with parquet.ParquetWriter(_Sink(out), schema, compression="zstd", use_dictionary=False) as writer:
            return _write_groups(results, table, arrow, schema, writer)


def _write_groups(results: Iterable[Result], table: Table, arrow: Any, schema: Any, writer: Any) -> int:
    builders = [ColumnBuilder(column.kind) for column in table.columns]
    written = waiting = 0

    def flush() -> None:
        arrays = [builder.take(arrow) for builder in builders]
        writer.write_batch(arrow.record_batch(arrays, schema=schema))

    for result in results:
        for builder, value in zip(builders, table.cells(result), strict=True):
            builder.append(value)
        written += 1
        waiting += 1
        if waiting == GROUP_ROWS or sum(builder.bytes for builder in builders) > GROUP_BYTES:
            flush()
            waiting = 0
    if waiting:
        flush()
    return written


class _Sink:
    """An output that may be a pipe: Arrow wants to know its place, and closes what it is given."""

    closed = False

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0

    def write(self, data: Any) -> int:
        block = memoryview(data)
        self._out.write(block)
        self._written += block.nbytes
        return block.nbytes

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._out.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

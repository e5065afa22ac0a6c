"""custom_ids of requests that are built: from a column, or from what is sent; none twice.

What was given out is kept in SQLite's private temporary database, which spills to disk: memory stays flat.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from langbatch.building.template import RowFault, text_of

_HASH_DIGITS: Final = 20
#: The longest that validation takes.
_ID_LIMIT_BYTES: Final = 512


class Names:
    """Gives each request its custom_id. `column` None: a hash of what is sent."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        # An empty name is a database of this connection's own that goes away with it.
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._seen.execute("PRAGMA journal_mode = OFF")
        # `line`: where an id of a column stood first; of hashed ones, how many there are.
        self._seen.execute("CREATE TABLE seen (name BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._seen.execute("BEGIN")

    def close(self) -> None:
        self._seen.close()

    def name(self, row: Mapping[str, Any], line: int, url: str, body: Any, attached: list[str]) -> str:
        """`attached` are digests of files that become part of the body. Raises `RowFault`."""
        if self._column is None:
            return self._hashed(url, body, attached)
        name = text_of(row, self._column)
        if not name or "\0" in name or len(name.encode("utf-8", "replace")) > _ID_LIMIT_BYTES:
            raise RowFault(
                "bad_custom_id",
                f"column {self._column!r} must hold an id of 1 to {_ID_LIMIT_BYTES} bytes, without NUL",
            )
        key = _key(name)
        if not self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, line)).rowcount:
            [(first,)] = self._seen.execute("SELECT line FROM seen WHERE name = ?", (key,))
            raise RowFault(
                "duplicate_custom_id", f"the id in column {self._column!r} stands already on line {first}"
            )
        return name

    def _hashed(self, url: str, body: Any, attached: list[str]) -> str:
        sent = json.dumps([url, body, attached], sort_keys=True)
        name = f"row-{hashlib.sha256(sent.encode()).hexdigest()[:_HASH_DIGITS]}"
        [(copies,)] = self._seen.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET line = line + 1 RETURNING line",
            (_key(name),),
        )
        # The same request again is wanted again: named by its place among its equals.
        return name if copies == 1 else f"{name}-{copies}"


def _key(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:16]

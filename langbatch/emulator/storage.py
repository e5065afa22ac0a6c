"""The emulator's memory: a folder with one SQLite file for state and one file per content.

Every change is one transaction, and contents are written aside and renamed, so a killed emulator comes
back as it was. Records are kept as JSON documents; columns exist only for what is searched.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from langbatch.emulator.objects import BatchRecord, FileRecord, ParkedCreate, UploadSession

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
-- calls by verb, faults and their hits, kinds of credentials seen, uploads, cancels, deletes
CREATE TABLE IF NOT EXISTS counters (
    kind TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, purpose TEXT NOT NULL,
    deleted INTEGER NOT NULL, expiring INTEGER NOT NULL, doc BLOB NOT NULL
);
-- executed_rows: rows before this position were run and count as paid; the rest of an execution was
-- worked out ahead and cut off by a cancellation or expiry
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, input_file_id TEXT,
    ended INTEGER NOT NULL, executed_rows INTEGER NOT NULL DEFAULT 0, doc BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS batches_by_input ON batches (input_file_id);
CREATE TABLE IF NOT EXISTS executions (
    batch_seq INTEGER NOT NULL, position INTEGER NOT NULL, family TEXT NOT NULL, custom_id TEXT NOT NULL,
    paid INTEGER NOT NULL, PRIMARY KEY (batch_seq, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (id INTEGER PRIMARY KEY, due REAL NOT NULL, doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS uploads (id TEXT PRIMARY KEY, doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS blobs (path TEXT PRIMARY KEY, generation INTEGER NOT NULL, content TEXT NOT NULL);
"""

_T = TypeVar("_T")
Execution = tuple[int, int, str, str, int]


def _read(kind: type[_T], row: tuple[bytes] | None) -> _T | None:
    return None if row is None else msgspec.json.decode(row[0], type=kind)


class Storage:
    """State and contents. Safe to use from several threads; long reads and writes of contents happen
    outside of its lock."""

    def __init__(self, folder: Path | None = None) -> None:
        self.persistent = folder is not None
        self.root = Path(tempfile.mkdtemp(prefix="langbatch-emulator-")) if folder is None else folder
        for part in (self.root, self.root / "contents", self.root / "runs"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self._depth = 0
        database = self.root / "emulator.sqlite"
        os.close(os.open(database, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'NORMAL' if self.persistent else 'OFF'}")
        self._db.executescript(_SCHEMA)
        for leftover in (self.root / "contents").glob("*.part"):
            leftover.unlink()
        self._finalizer = weakref.finalize(self, _dispose, self._db, None if self.persistent else self.root)

    def close(self) -> None:
        with self.lock:
            self._finalizer()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; may be nested, the outermost one commits."""
        with self.lock:
            if self._depth == 0:
                self._db.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._db
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._db.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("COMMIT")

    # ------------------------------------------------------------ contents

    def content(self, file_id: str) -> Path:
        return self.root / "contents" / file_id

    def run_folder(self, batch_id: str) -> Path:
        return self.root / "runs" / batch_id

    def incoming(self) -> Path:
        """Where content is written before it has an id; swept when the emulator starts."""
        return self.root / "contents" / f"{uuid.uuid4().hex}.part"

    # ------------------------------------------------------------ counters and settings

    def count(self, kind: str, name: str, by: int = 1) -> int:
        with self.transaction() as db:
            row = db.execute(
                "INSERT INTO counters VALUES (?, ?, ?) "
                "ON CONFLICT (kind, name) DO UPDATE SET n = n + excluded.n RETURNING n",
                (kind, name, by),
            ).fetchone()
        return int(row[0])

    def forget(self, kind: str, name: str) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM counters WHERE kind = ? AND name = ?", (kind, name))

    def counts(self, kind: str) -> dict[str, int]:
        with self.lock:
            rows = self._db.execute("SELECT name, n FROM counters WHERE kind = ? ORDER BY name", (kind,))
            return {str(name): int(n) for name, n in rows}

    def setting(self, key: str) -> str | None:
        with self.lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def keep_setting(self, key: str, value: str) -> None:
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ------------------------------------------------------------ files

    def add_file(self, record: FileRecord) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO files (id, purpose, deleted, expiring, doc) VALUES (?, ?, 0, ?, ?)",
                (record.id, record.purpose, record.expires_at is not None, msgspec.json.encode(record)),
            )

    def save_file(self, record: FileRecord) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE files SET deleted = ?, doc = ? WHERE id = ?",
                (record.deleted_at is not None, msgspec.json.encode(record), record.id),
            )

    def file(self, file_id: str) -> FileRecord | None:
        """Also a deleted one: its record says so."""
        with self.lock:
            row = self._db.execute("SELECT doc FROM files WHERE id = ?", (file_id,)).fetchone()
        return _read(FileRecord, row)

    def files(self, *, newest_first: bool = True, after: str | None = None) -> Iterator[FileRecord]:
        """Files that are not deleted, read in pages so that no list of all of them is ever held."""
        for doc in self._documents("files", "deleted = 0", newest_first, after):
            yield msgspec.json.decode(doc, type=FileRecord)

    def input_files(self, *, expiring: bool) -> int:
        with self.lock:
            row = self._db.execute(
                "SELECT COUNT(*) FROM files WHERE deleted = 0 AND expiring = ? AND purpose <> 'batch_output'",
                (expiring,),
            ).fetchone()
        return int(row[0])

    # ------------------------------------------------------------ batches

    def next_batch_number(self) -> int:
        return self.count("sequence", "batch")

    def add_batch(self, record: BatchRecord) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO batches (seq, id, input_file_id, ended, doc) VALUES (?, ?, ?, 0, ?)",
                (record.number, record.id, record.input_file_id, msgspec.json.encode(record)),
            )

    def save_batch(self, record: BatchRecord, executed_rows: int | None = None) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE batches SET ended = ?, executed_rows = COALESCE(?, executed_rows), doc = ? "
                "WHERE id = ?",
                (record.ending is not None, executed_rows, msgspec.json.encode(record), record.id),
            )

    def batch(self, batch_id: str) -> BatchRecord | None:
        with self.lock:
            row = self._db.execute("SELECT doc FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return _read(BatchRecord, row)

    def batches(
        self, *, newest_first: bool = True, after: str | None = None, open_only: bool = False
    ) -> Iterator[BatchRecord]:
        where = "ended = 0" if open_only else "1"
        for doc in self._documents("batches", where, newest_first, after):
            yield msgspec.json.decode(doc, type=BatchRecord)

    def input_in_use(self, file_id: str) -> bool:
        """Whether a batch still has to read this file."""
        with self.lock:
            row = self._db.execute(
                "SELECT 1 FROM batches WHERE input_file_id = ? AND ended = 0 LIMIT 1", (file_id,)
            ).fetchone()
        return row is not None

    def _documents(
        self, table: str, where: str, newest_first: bool, after: str | None, page: int = 200
    ) -> Iterator[bytes]:
        compare, order = ("<", "DESC") if newest_first else (">", "ASC")
        with self.lock:
            edge = (1 << 62) if newest_first else -1
            if after is not None:
                row = self._db.execute(f"SELECT seq FROM {table} WHERE id = ?", (after,)).fetchone()
                edge = edge if row is None else int(row[0])
        while True:
            with self.lock:
                rows = self._db.execute(
                    f"SELECT seq, doc FROM {table} WHERE {where} AND seq {compare} ? "
                    f"ORDER BY seq {order} LIMIT ?",
                    (edge, page),
                ).fetchall()
            for _, doc in rows:
                yield doc
            if len(rows) < page:
                return
            edge = int(rows[-1][0])

    # ------------------------------------------------------------ executions

    def forget_executions(self, batch_number: int) -> None:
        with self.transaction() as db:
            db.execute("DELETE FROM executions WHERE batch_seq = ?", (batch_number,))

    def add_executions(self, rows: Sequence[Execution]) -> None:
        with self.transaction() as db:
            db.executemany("INSERT INTO executions VALUES (?, ?, ?, ?, ?)", rows)

    def query(self, sql: str, values: Iterable[object] = ()) -> list[tuple[object, ...]]:
        with self.lock:
            return self._db.execute(sql, tuple(values)).fetchall()

    def stream(self, sql: str) -> Iterator[tuple[object, ...]]:
        """Rows of a long query over a connection of its own, so that other calls go on meanwhile."""
        db = sqlite3.connect(self.root / "emulator.sqlite", check_same_thread=False)
        try:
            yield from db.execute(sql)
        finally:
            db.close()

    # ------------------------------------------------------------ the rest

    def park(self, create: ParkedCreate) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT INTO parked (due, doc) VALUES (?, ?)", (create.due, msgspec.json.encode(create))
            )

    def take_parked(self, now: float) -> list[ParkedCreate]:
        """Creates that are due, once."""
        with self.lock:
            if self._db.execute("SELECT 1 FROM parked WHERE due <= ? LIMIT 1", (now,)).fetchone() is None:
                return []
            with self.transaction() as db:
                rows = db.execute("DELETE FROM parked WHERE due <= ? RETURNING due, doc", (now,)).fetchall()
        return [msgspec.json.decode(doc, type=ParkedCreate) for _, doc in sorted(rows)]

    def save_upload(self, session: UploadSession) -> None:
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO uploads VALUES (?, ?)", (session.id, msgspec.json.encode(session))
            )

    def upload(self, upload_id: str) -> UploadSession | None:
        with self.lock:
            row = self._db.execute("SELECT doc FROM uploads WHERE id = ?", (upload_id,)).fetchone()
        return _read(UploadSession, row)

    def put_blob(self, path: str, content: str) -> str | None:
        """Point `path` at a stored content; the name of the content it replaces."""
        with self.transaction() as db:
            old = db.execute("SELECT content FROM blobs WHERE path = ?", (path,)).fetchone()
            db.execute(
                "INSERT INTO blobs VALUES (?, 1, ?) ON CONFLICT (path) DO UPDATE "
                "SET generation = generation + 1, content = excluded.content",
                (path, content),
            )
        return None if old is None else str(old[0])

    def blob(self, path: str) -> tuple[int, str] | None:
        """Generation and content name."""
        with self.lock:
            row = self._db.execute("SELECT generation, content FROM blobs WHERE path = ?", (path,)).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))


def _dispose(db: sqlite3.Connection, folder: Path | None) -> None:
    db.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)

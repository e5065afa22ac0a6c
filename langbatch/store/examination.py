"""A look at a database that changes nothing in it: for `doctor`, which is asked when things are wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from langbatch.errors import BatchStorageError
from langbatch.store.database import (
    KNOWN_VERSIONS,
    damaged,
    foreign,
    newer,
    read_only_uri,
    schema_version,
    storage_error,
)
from langbatch.store.schema import SCHEMA_VERSION

#: How long a lock may be held before it is told of; a commit takes milliseconds.
PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Examined:
    """A database that can be used. `schema` None: it is empty, or not there yet; its tables will be made."""

    schema: str | None
    store_id: str | None
    jobs: int


def examine_file(path: Path) -> Examined:
    """The SQLite database at `path`; `BatchStorageError` says why it cannot be used."""
    if not path.exists() or path.stat().st_size == 0:
        return Examined(None, None, 0)
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True, timeout=PATIENCE_SECONDS)) as connection:
            found = _examine(connection)
        if found.schema == SCHEMA_VERSION:
            _try_lock(path)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise BatchStorageError(
                f"another program has locked the database for more than {PATIENCE_SECONDS:g} s",
                hint="Stop the program that holds it. Jobs are safe meanwhile.",
            ) from None
        raise storage_error(DBAPIError("", None, error)) from None
    return found


def _examine(connection: sqlite3.Connection) -> Examined:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return Examined(None, None, 0)
    if "alembic_version" not in tables:
        raise foreign()
    (flaw,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if flaw != "ok":
        raise damaged(str(flaw).splitlines()[0])
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    schema = row[0] if row else None
    if schema != SCHEMA_VERSION:
        if schema is not None and schema not in KNOWN_VERSIONS:
            raise newer(schema)
        return Examined(schema, None, 0)
    row = connection.execute("SELECT value FROM store_facts WHERE name = 'store_id'").fetchone()
    (jobs,) = connection.execute("SELECT count(*) FROM jobs").fetchone()
    return Examined(schema, row[0] if row else None, jobs)


def _try_lock(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")


def examine_url(url: str) -> Examined:
    """The database behind a SQLAlchemy URL."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            return examine_file(Path(parsed.database))
        engine = sa.create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise BatchStorageError(
            f"LANGBATCH_DATABASE_URL cannot be used: {type(error).__name__}",
            hint="Give a SQLAlchemy URL (postgresql+psycopg://user@host/name) and install its driver.",
        ) from None
    try:
        with engine.connect() as connection:
            schema = schema_version(connection)
            if schema != SCHEMA_VERSION:
                if schema is not None and schema not in KNOWN_VERSIONS:
                    raise newer(schema)
                return Examined(schema, None, 0)
            store_id = connection.exec_driver_sql(
                "SELECT value FROM store_facts WHERE name = 'store_id'"
            ).scalar()
            jobs = connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar()
            return Examined(schema, store_id, jobs or 0)
    except DBAPIError as error:
        raise storage_error(error) from None
    finally:
        engine.dispose()

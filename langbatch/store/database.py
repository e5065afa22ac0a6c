"""Opening the database: the rules of a connection, the schema's version, migration with a backup."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from langbatch.errors import BatchStorageError
from langbatch.store.connections import Connections
from langbatch.store.schema import SCHEMA_VERSION

#: How long a writer waits for another one before giving up, in seconds.
BUSY_SECONDS = 30.0
#: Between two tries at what SQLite does not wait for by itself.
_BUSY_PAUSE_SECONDS = 0.01

_MAGIC = b"SQLite format 3\0"

#: Schema versions older than ours, oldest first: what can be migrated.
KNOWN_VERSIONS = ("0001", "0002", "0003")


def sqlite_url(path: Path) -> str:
    return sa.URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def connect(url: str) -> Engine:
    """An engine with our connection rules; creates a SQLite file 0600. Does not touch the schema."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.database:
        _refuse_others_file(Path(parsed.database))
        _create_private(Path(parsed.database))
    engine = sa.create_engine(
        parsed,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        # Threads keep theirs (`Connections`): however many there are, none waits for another's.
        pool_size=5,
        max_overflow=-1,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The sqlite3 module's own handling would begin late and commit early; `transaction` says BEGIN.
        connection.isolation_level = None
        cursor = connection.cursor()
        _write_ahead(cursor)
        # FULL: a commit survives power loss. NORMAL in WAL could lose the last ones, and with them an intent.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """WAL, on a new file too that other processes open at the same moment. SQLite gives up on this change
    at once where waiting for one of them could be a deadlock, whatever the busy timeout: we wait instead."""
    give_up_at = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # its extended codes, too
            if not busy or time.monotonic() >= give_up_at:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)


def _refuse_others_file(path: Path) -> None:
    """Before the first connection, whose journal mode would be written into any database that lets us."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return  # absent, or for the open that follows to complain about
    if header and not header.startswith(_MAGIC[: len(header)]):
        raise damaged("its first bytes are not SQLite's")
    # Bytes 18 and 19 are 2 in WAL mode (https://sqlite.org/fileformat2.html), which ours always are in.
    if len(header) < 20 or header[18:20] == b"\x02\x02":
        return
    with closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        except sqlite3.Error:
            return  # another process is making it at this moment, or what follows says what is wrong
    if tables and "alembic_version" not in tables:
        raise foreign()


def read_only_uri(path: Path) -> str:
    return f"file:{quote(str(path))}?mode=ro"


def foreign() -> BatchStorageError:
    return BatchStorageError(
        "this database is not langbatch's: it has tables, but no schema version",
        hint="Point LANGBATCH_HOME or LANGBATCH_DATABASE_URL somewhere else. Nothing was changed.",
    )


def damaged(text: str) -> BatchStorageError:
    return BatchStorageError(
        f"the database file is damaged ({text})",
        hint="Nothing was written. Restore a backup of langbatch.db, or move the file away and rebuild "
        "the jobs with `langbatch recover --from-remote`.",
    )


def newer(found: str) -> BatchStorageError:
    return BatchStorageError(
        f"the database has schema {found}, newer than this langbatch's {SCHEMA_VERSION}",
        hint="Upgrade langbatch (pip install -U langbatch-manager). Nothing was changed.",
    )


def _create_private(path: Path) -> None:
    """Create the file 0600 before SQLite would with the umask; its -wal and -shm copy the mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise BatchStorageError(
            f"cannot open the database {path}: {error.strerror}",
            hint="Check that the folder exists and may be written, or set LANGBATCH_HOME to one that may.",
        ) from error


def schema_version(connection: Connection) -> str | None:
    """The version stored in the database; None for an empty one."""
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise foreign()
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def prepare(connections: Connections) -> None:
    """Bring the schema to `SCHEMA_VERSION`: create it, or migrate forward after a backup."""
    try:
        with connections.reading() as connection:
            found = _quick_version(connection)
        if found == SCHEMA_VERSION:
            return
        with connections.writing() as connection:
            found = schema_version(connection)
            if found == SCHEMA_VERSION:
                return
            if found is not None and found not in KNOWN_VERSIONS:
                raise newer(found)
            if found is not None:
                _backup(connection, found)
            _migrate(connection)
    except DBAPIError as error:
        raise storage_error(error) from error


def _quick_version(connection: Connection) -> str | None:
    try:
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.OperationalError) and "no such table" in str(error.orig):
            return None
        if connection.dialect.name != "sqlite":
            return None
        raise


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "langbatch.store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _backup(connection: Connection, version: str) -> None:
    """A copy of the file beside it, before anything is changed."""
    source = connection.engine.url.database
    if connection.dialect.name != "sqlite" or not source:
        return
    target = Path(f"{source}.schema-{version}.backup")
    _create_private(target)
    with sqlite3.connect(source) as original, sqlite3.connect(target) as copy:
        original.backup(copy)
    original.close()
    copy.close()


def storage_error(error: DBAPIError) -> BatchStorageError:
    """A database's complaint in words, with what to do. SQL and its values are left out of the message."""
    text = str(error.orig or error).splitlines()[0]
    lowered = text.lower()
    if "locked" in lowered or "busy" in lowered:
        return BatchStorageError(
            f"the database is locked by another process for more than {BUSY_SECONDS:g} s",
            hint="Stop the program that holds it, then run the same command again. Nothing was lost.",
        )
    if "malformed" in lowered or "not a database" in lowered:
        return damaged(text)
    if "full" in lowered:
        return BatchStorageError(
            "the disk with the database is full",
            hint="Free some space, then run `langbatch resume`. Nothing was lost.",
        )
    if "disk i/o error" in lowered:
        return BatchStorageError(
            "the disk with the database does not take writes (full, over quota, or failing)",
            hint="Free some space or mend the disk, then run `langbatch resume`. Nothing was lost.",
        )
    if "readonly" in lowered or "read-only" in lowered or "unable to open" in lowered:
        return BatchStorageError(
            f"the database cannot be written ({text})",
            hint="Make LANGBATCH_HOME writable for this user, or set it to another folder.",
        )
    return BatchStorageError(f"the database refused: {text}", hint="Run `langbatch doctor` to check it.")


def lease_clock(connection: Connection, here: float) -> float:
    """The time that leases are compared with: the server's, where machines with clocks of their own share
    one. SQLite has no server: all who open it are on one machine, whose clock `here` is."""
    if connection.dialect.name == "postgresql":
        now = sa.func.clock_timestamp()  # not `now()`, which stands still in a transaction
        return float(connection.execute(sa.select(sa.extract("epoch", now))).scalar_one())
    return here


def settle_events(connection: Connection) -> None:
    """Make sure that every event below the newest one that can be seen is there, or never will be. SQLite has
    one writer, who numbers in the order of commits. Servers let several write at once: the lock waits for
    those who have numbered an event and not yet committed it."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE events IN SHARE MODE")

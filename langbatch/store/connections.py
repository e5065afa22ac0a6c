"""Transactions on one database: how they begin, and on which connection."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError


@contextmanager
def transaction(connection: Connection, *, writing: bool) -> Iterator[Connection]:
    """Committed at the block's end, undone by an exception.

    On SQLite a writer begins at once (IMMEDIATE): one that read first could otherwise fail at its first write
    with "locked", whatever the busy timeout. Readers take no lock.
    """
    with connection.begin():
        if connection.dialect.name == "sqlite":
            begin = "BEGIN IMMEDIATE" if writing else "BEGIN"
            # On the driver's connection. An engine with a listener of its own for this makes SQLAlchemy look
            # for listeners at every statement, which costs more than most of ours.
            driver: Any = connection.connection.dbapi_connection
            try:
                driver.execute(begin)
            except sqlite3.Error as error:
                raise OperationalError(begin, None, error) from error
        yield connection


class Connections:
    """Opens transactions. On SQLite each thread keeps the connection that it was first given: to take one
    from the pool and give it back takes longer than most of what is asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._keeps = engine.dialect.name == "sqlite"
        self._mine = threading.local()
        self._all: WeakSet[Connection] = WeakSet()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._connection() as connection, transaction(connection, writing=False):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        with self._connection() as connection, transaction(connection, writing=True):
            yield connection

    def close(self) -> None:
        """Close what is kept. Threads that go on are given another connection."""
        for connection in list(self._all):
            if not connection.in_transaction():
                connection.close()
        self.engine.dispose()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        kept = self._kept() if self._keeps else None
        if kept is None or kept.in_transaction():  # a second transaction, while the first goes on
            with self.engine.connect() as connection:
                yield connection
            return
        try:
            yield kept
        except DBAPIError:
            kept.close()  # whatever was wrong with it, the next one is another
            raise

    def _kept(self) -> Connection:
        kept: tuple[int, Connection] | None = getattr(self._mine, "kept", None)
        if kept is None or kept[1].closed or kept[0] != os.getpid():  # a fork must not use its parent's
            kept = self._mine.kept = os.getpid(), self.engine.connect()
            self._all.add(kept[1])
        return kept[1]

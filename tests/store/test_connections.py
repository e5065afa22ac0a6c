"""How transactions begin, and on which connection."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from langbatch.store.connections import Connections
from langbatch.store.database import connect, sqlite_url


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Connections]:
    opened = Connections(connect(sqlite_url(tmp_path / "x.db")))
    with opened.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE facts (name TEXT)")
    yield opened
    opened.close()


def add(connections: Connections, name: str) -> None:
    with connections.writing() as connection:
        connection.execute(sa.text("INSERT INTO facts VALUES (:name)"), {"name": name})


def names(connection: Connection) -> list[str]:
    return list(connection.execute(sa.text("SELECT name FROM facts ORDER BY rowid")).scalars())


def read(connections: Connections) -> list[str]:
    with connections.reading() as connection:
        return names(connection)


def test_what_raises_is_undone_whole(connections: Connections) -> None:
    def add_two_and_fail() -> None:
        with connections.writing() as connection:
            connection.exec_driver_sql("INSERT INTO facts VALUES ('a')")
            connection.exec_driver_sql("INSERT INTO facts VALUES ('b')")
            raise ValueError("out")

    with pytest.raises(ValueError, match="out"):
        add_two_and_fail()
    assert read(connections) == []


def test_a_reading_keeps_seeing_what_it_began_with_while_its_own_thread_writes(
    connections: Connections,
) -> None:
    add(connections, "a")
    with connections.reading() as connection:
        assert names(connection) == ["a"]
        add(connections, "b")
        assert names(connection) == ["a"]
    assert read(connections) == ["a", "b"]


def test_more_threads_than_a_pool_holds_read_at_the_same_time(connections: Connections) -> None:
    all_read = threading.Barrier(40, timeout=60)
    found: list[list[str]] = []

    def run() -> None:
        with connections.reading() as connection:
            all_read.wait()
            found.append(names(connection))

    threads = [threading.Thread(target=run) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 40


def test_a_thread_keeps_its_connection_until_the_database_complains(connections: Connections) -> None:
    def which() -> object:
        with connections.reading() as connection:
            return connection

    first = which()
    assert which() is first
    with pytest.raises(DBAPIError), connections.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM nothing")
    assert which() is not first
    assert read(connections) == []


def test_threads_go_on_after_a_close(connections: Connections) -> None:
    add(connections, "a")
    connections.close()
    add(connections, "b")
    assert read(connections) == ["a", "b"]


def test_a_fork_opens_a_connection_of_its_own(connections: Connections) -> None:
    add(connections, "parent")
    with connections.reading() as connection:
        child = multiprocessing.get_context("fork").Process(target=add, args=(connections, "child"))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert names(connection) == ["parent", "child"]
    assert read(connections) == ["parent", "child"]

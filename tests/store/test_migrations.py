"""A store of an older langbatch is brought forward with all that is in it, and a copy is left."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from langbatch.records import Tally, Target
from langbatch.shards.sharding import ShardPlan
from langbatch.store import following
from langbatch.store.connections import Connections
from langbatch.store.database import connect, sqlite_url
from langbatch.store.examination import examine_file
from langbatch.store.new_jobs import NewJob
from langbatch.store.schema import SCHEMA_VERSION, metadata
from langbatch.store.store import JobStore
from support import SECRET_KEY, World, requests_file, world

FIRST = "0001"
_TABLES = ("store_facts", "jobs", "shards", "attempts", "unsuccessful", "events")


def make_empty(path: Path, version: str) -> None:
    connections = Connections(connect(sqlite_url(path)))
    config = Config()
    config.set_main_option("script_location", "langbatch.store:migrations")
    with connections.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    connections.close()


@cache
def first_columns() -> Mapping[str, str]:
    """The columns of each table of the first schema, as SQL names them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "langbatch.db"
        make_empty(path, FIRST)
        with closing(sqlite3.connect(path)) as database:
            query = "SELECT group_concat('\"' || name || '\"', ', ') FROM pragma_table_info(?)"
            return {table: database.execute(query, (table,)).fetchone()[0] for table in _TABLES}


def rows_of(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that the first schema has a place for."""
    with closing(sqlite3.connect(path)) as database:
        return {
            table: database.execute(f"SELECT {columns} FROM {table}").fetchall()
            for table, columns in first_columns().items()
        }


def take_back(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Make of a store of today one of the first schema, with the same rows; what is in it."""
    rows = rows_of(path)
    path.unlink()
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    make_empty(path, FIRST)
    with closing(sqlite3.connect(path)) as database:
        for table, columns in first_columns().items():
            marks = ", ".join("?" * (columns.count(",") + 1))
            database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows[table])
        database.commit()
    return rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("AZURE_API_KEY", SECRET_KEY)
    with world(tmp_path) as made:
        yield made


def test_everything_in_a_first_store_is_there_after_it(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        done = manager.submit(requests_file(tmp_path / "done.jsonl", ["a", "b"]), **here.azure)
        manager.wait(done.id)
        before = manager.status(done.id, offline=True)
        running = manager.submit(requests_file(tmp_path / "running.jsonl", ["c"]), **here.azure)
    path = here.home / "langbatch.db"
    rows = take_back(path)
    assert len(rows["events"]) > 10
    assert examine_file(path).schema == FIRST
    with here.manager() as manager:
        assert manager.status(done.id, offline=True) == before
        assert [result.outcome for result in manager.results(done.id)] == ["succeeded"] * 2
        assert rows_of(path) == rows
        assert manager.wait(running.id).all_succeeded
    assert here.emulator.payments().paid_twice == 0
    assert examine_file(path).schema == SCHEMA_VERSION


def test_a_copy_of_the_old_store_stays_beside_it(here: World, tmp_path: Path) -> None:
    with here.manager() as manager:
        manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), start=False, **here.azure)
    rows = take_back(here.home / "langbatch.db")
    with here.manager() as manager:
        assert len(manager.jobs()) == 1
    copy = here.home / "langbatch.db.schema-0001.backup"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert rows_of(copy) == rows
    assert examine_file(copy).schema == FIRST


def test_a_first_store_becomes_the_schema_of_today(tmp_path: Path) -> None:
    path = tmp_path / "langbatch.db"
    make_empty(path, FIRST)
    JobStore.open(tmp_path).close()
    fresh = tmp_path / "fresh.db"
    make_empty(fresh, "head")
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(fresh)) as other:
        query = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        made = one.execute(query).fetchall()
        assert made == other.execute(query).fetchall()
    # What the comparison below does not see.
    (statement,) = (sql for kind, name, sql in made if (kind, name) == ("table", "events"))
    assert "AUTOINCREMENT" in statement
    assert metadata.tables["events"].dialect_options["sqlite"]["autoincrement"]
    connections = Connections(connect(sqlite_url(path)))
    with connections.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    connections.close()


def test_the_numbers_of_a_purged_jobs_events_are_not_given_again_in_a_migrated_store(
    here: World, tmp_path: Path
) -> None:
    with here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), start=False, **here.azure)
        manager.cancel(job.id)
    take_back(here.home / "langbatch.db")
    with here.manager() as manager:
        last = list(manager.events())[-1].n
        manager.purge(job.id)
        manager.submit(requests_file(tmp_path / "other.jsonl", ["b"]), start=False, **here.azure)
        assert [event.n for event in manager.events()] == [last + 1]


def test_events_written_by_the_first_schema_are_read_as_far_as_they_tell(tmp_path: Path) -> None:
    """Its log had no job's moves and no counts in numbers."""
    store = JobStore.open(tmp_path)
    plan = ShardPlan(0, 0, 10, 0, 100)
    target = Target("azure", "h", "chat_completions", "d")
    job, _ = store.add_job(NewJob("job_a", None, "in", target, "x", "y", "k", 10, 0, [plan], [1]))
    with store._writing() as tx:
        tx.log(job.key, 0, 1, "harvested", "harvesting", "done", "9 of 10 succeeded")
    *_, event = following.read(store, 0)
    assert (event.move, event.to_dict()["counts"]["succeeded"]) == ("harvested", Tally().succeeded)
    store.close()

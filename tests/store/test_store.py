"""The store: one conditional update a move, claims with a fence, migrations."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from langbatch.errors import BatchStorageError, JobNotFound
from langbatch.lifecycle import IllegalMove
from langbatch.records import Tally, Target, Unsuccessful, Usage
from langbatch.shards.sharding import ShardPlan
from langbatch.store.connections import Connections
from langbatch.store.database import connect, prepare, sqlite_url
from langbatch.store.new_jobs import NewJob
from langbatch.store.purged import purge
from langbatch.store.schema import SCHEMA_VERSION, metadata
from langbatch.store.store import LEASE_SECONDS, JobStore
from langbatch.store.transitions import Claim, LostClaim


class ManualClock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


CLOCK = ManualClock()


def new_job(job_id: str = "job_a", reuse: str = "k", shards: int = 1) -> NewJob:
    return NewJob(
        job_id,
        None,
        "in.jsonl",
        Target("azure", "h", "chat_completions", "d", {"api_version": "v1"}),
        "sha",
        "sha",
        reuse,
        10 * shards,
        0,
        [ShardPlan(i, 10 * i, 10, 100 * i, 100) for i in range(shards)],
        [10 * i + 1 for i in range(shards)],
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore.open(tmp_path, clock=CLOCK)
    yield opened
    opened.close()


@pytest.fixture
def other(tmp_path: Path, store: JobStore) -> Iterator[JobStore]:
    """A second process's view of the same store, as far as the store can tell."""
    opened = JobStore.open(tmp_path, clock=CLOCK)
    yield opened
    opened.close()


def claimed(store: JobStore, job: int, index: int = 0) -> Claim:
    claim = store.claim(job, index)
    assert claim is not None
    return claim


def test_the_migrations_lead_to_the_schema_that_the_code_uses(tmp_path: Path) -> None:
    connections = Connections(connect(sqlite_url(tmp_path / "x.db")))
    prepare(connections)
    with connections.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    connections.close()
    config = Config()
    config.set_main_option("script_location", "langbatch.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION


def test_a_store_of_the_first_schema_is_migrated_with_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "langbatch.db"
    connections = Connections(connect(sqlite_url(path)))
    config = Config()
    config.set_main_option("script_location", "langbatch.store:migrations")
    with connections.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, input_name, provider, kind, host, settings, others, input_sha256, "
            "snapshot_sha256, total, rejected, state, cancel_requested, succeeded, errored, expired, cancelled, "
            "missing, unreadable, created_at, updated_at) VALUES ('job_1', 'in.jsonl', 'azure', "
            "'chat_completions', 'h', '{}', '[]', '', '', 3, 0, 'completed', 0, 3, 0, 0, 0, 0, 0, 1.0, 1.0)"
        )
    connections.close()
    store = JobStore.open(tmp_path, clock=CLOCK)
    assert [(job.id, job.total, job.answered, job.tally.succeeded) for job in store.jobs()] == [
        ("job_1", 3, 0, 3)
    ]
    store.close()
    assert (tmp_path / "langbatch.db.schema-0001.backup").exists()


def test_answers_of_earlier_jobs_count_beside_those_of_shards(store: JobStore) -> None:
    """15 requests, of which 5 were answered and 10 are sent."""
    job, _ = store.add_job(replace(new_job(), total=15, answered=5))
    assert (job.state, job.answered, job.tally.succeeded) == ("running", 5, 5)
    claim = claimed(store, job.key)
    store.record(claim, shard={"due_at": 1.0})
    assert store.job(job.key).tally == Tally(succeeded=5)


@pytest.mark.parametrize("draft", [True, False])
def test_a_job_that_was_answered_whole_has_no_shards_and_ends_as_soon_as_it_begins(
    draft: bool, store: JobStore
) -> None:
    new = replace(new_job(), shards=[], first_lines=[], answered=10, draft=draft)
    job, _ = store.add_job(new)
    assert (job.state, job.finished_at) == (("draft", None) if draft else ("completed", CLOCK.now()))
    CLOCK.sleep(5)
    store.add_shards(job.key, [], [])
    ended = store.job(job.key)
    assert (ended.state, ended.tally) == ("completed", Tally(succeeded=10))
    assert ended.finished_at == (CLOCK.now() if draft else job.finished_at)
    assert store.unfinished_shards() == []
    assert not store.request_cancel(job.key)


def test_the_database_file_is_private_and_durable(store: JobStore, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "langbatch.db").stat().st_mode) == 0o600
    with store._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize("home", [f"home{number}" for number in range(12)])
def test_two_processes_that_open_a_new_home_at_once_agree_on_its_id(tmp_path: Path, home: str) -> None:
    """Again and again: one time in seven a new file's mode was being changed by two of them."""
    place, found = tmp_path / home, list[str]()
    place.mkdir()
    together = threading.Barrier(4)

    def open_it() -> None:
        together.wait()
        opened = JobStore.open(place)
        found.append(opened.store_id)
        opened.close()

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    JobStore.open(tmp_path).close()
    path = tmp_path / "langbatch.db"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = path.read_bytes()
    with pytest.raises(BatchStorageError, match="newer than this langbatch"):
        JobStore.open(tmp_path)
    assert path.read_bytes() == before


def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "langbatch.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    db.close()
    with pytest.raises(BatchStorageError, match="not langbatch's"):
        JobStore.open(tmp_path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    db.close()


def test_a_damaged_database_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "langbatch.db").write_bytes(b"this is no database, but it is long enough to be read" * 40)
    with pytest.raises(BatchStorageError, match="damaged") as caught:
        JobStore.open(tmp_path)
    assert caught.value.hint is not None
    assert "recover" in caught.value.hint


def test_the_same_bytes_and_target_are_stored_once(store: JobStore) -> None:
    first, created = store.add_job(new_job("job_a"))
    again, created_again = store.add_job(new_job("job_b"))
    assert (created, created_again) == (True, False)
    assert again.id == first.id
    newer, created_new = store.add_job(new_job("job_c"), replace_old=True)
    assert created_new
    found = store.job_for("k")
    assert found is not None
    assert found.id == newer.id == "job_c"


def test_a_job_comes_back_as_it_was_stored(store: JobStore) -> None:
    job, _ = store.add_job(new_job(shards=3))
    assert store.find("job_a") == job
    assert job.target == Target("azure", "h", "chat_completions", "d", {"api_version": "v1"})
    assert [(s.index, s.first, s.first_line, s.state) for s, _ in store.shards(job.key)] == [
        (0, 0, 1, "waiting"),
        (1, 10, 11, "waiting"),
        (2, 20, 21, "waiting"),
    ]


def test_an_id_may_be_shortened_while_it_is_unique(store: JobStore) -> None:
    store.add_job(new_job("job_abc", "1"))
    store.add_job(new_job("job_abd", "2"))
    assert store.find("job_abc").id == "job_abc"
    for wrong in ("job_ab", "job_zz", "", "%", "job_ab_"):
        with pytest.raises(JobNotFound):
            store.find(wrong)


def test_a_move_stores_its_facts_and_an_event_together(store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    store.begin_upload(claim, 1, "lb-1", 10, 100)
    store.move(claim, "uploading", "upload_answered", attempt={"file_id": "file-1"}, note="file-1")
    view = store.view(job.key, 0)
    assert view.shard.state == "uploaded"
    assert view.attempt is not None
    assert (view.attempt.file_id, view.attempt.name, view.attempt.file_bytes) == ("file-1", "lb-1", 100)
    with store._reading() as connection:
        moves = connection.execute(sa.text('SELECT move, origin, "to" FROM events ORDER BY n')).all()
    assert [tuple(m) for m in moves] == [
        ("submitted", None, None),
        ("upload_begins", "waiting", "uploading"),
        ("upload_answered", "uploading", "uploaded"),
    ]


def test_an_illegal_move_raises_and_changes_nothing(store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    before = store.view(job.key, 0)
    with pytest.raises(IllegalMove):
        store.move(claim, "waiting", "create_begins", attempt={"file_id": "x"})
    assert store.view(job.key, 0) == before


def test_a_move_from_a_state_that_is_no_longer_so_changes_nothing(store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    before = store.view(job.key, 0)
    with pytest.raises(LostClaim):
        store.move(claim, "active", "batch_ended")
    assert store.view(job.key, 0) == before


def test_a_live_holder_keeps_others_out_until_it_lets_go(store: JobStore, other: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    assert other.claim(job.key, 0) is None
    store.release(claim)
    assert other.claim(job.key, 0) is not None


def test_a_lease_that_ran_out_is_taken_over_and_the_late_writer_writes_nothing(
    store: JobStore, other: JobStore
) -> None:
    job, _ = store.add_job(new_job())
    old = claimed(store, job.key)
    CLOCK.at += LEASE_SECONDS + 1
    new = claimed(other, job.key)
    assert new.fence > old.fence
    with pytest.raises(LostClaim):
        store.begin_upload(old, 1, "lb-1", 10, 100)
    assert not store.renew(old)
    store.release(old)
    assert other.view(job.key, 0).shard.state == "waiting"
    assert other.renew(new)
    assert other.view(job.key, 0).shard.crashes == 1


def test_a_dead_holders_lease_is_taken_over_at_once(store: JobStore, tmp_path: Path) -> None:
    from langbatch import processes

    job, _ = store.add_job(new_job())
    machine, _, rest = processes.identity().partition("|")
    gone = f"{machine}|{2**22 + 1}|{rest.split('|')[1]}|dead"
    connections = Connections(connect(sqlite_url(tmp_path / "langbatch.db")))
    dead = JobStore(connections, clock=CLOCK, owner=gone)
    assert dead.claim(job.key, 0) is not None
    dead.close()
    assert store.claim(job.key, 0) is not None


def test_a_lease_written_under_a_clock_that_ran_ahead_does_not_hold_for_years(
    store: JobStore, other: JobStore
) -> None:
    job, _ = store.add_job(new_job())
    CLOCK.at += 10**8
    claimed(store, job.key)
    CLOCK.at -= 10**8
    assert other.claim(job.key, 0) is not None


def test_only_one_of_many_threads_gets_a_claim(tmp_path: Path, store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    won: list[Claim | None] = []

    def run() -> None:
        mine = JobStore.open(tmp_path, clock=CLOCK)
        won.append(mine.claim(job.key, 0))
        mine.close()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in won) == 1


def test_a_finished_shard_sums_up_the_job(store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    store.begin_upload(claim, 1, "lb-1", 10, 100)
    tally = Tally(succeeded=8, errored=1, missing=1)
    lost = [Unsuccessful(3, 4, "errored", "content_filter", 1), Unsuccessful(7, 8, "missing", "missing", 1)]
    store.finish(
        claim,
        "uploading",
        "upload_refused",
        shard={"ended_as": "refused"},
        attempt={},
        tally=tally,
        usage=Usage(100, 20),
        rows_without_success=lost,
    )
    finished = store.find("job_a")
    assert (finished.state, finished.tally, finished.usage) == ("failed", tally, Usage(100, 20))
    assert finished.finished_at is not None
    assert store.unsuccessful(job.key) == lost
    assert store.unsuccessful(job.key, 5, 5) == lost[1:]
    store.reopen(claim)
    assert store.find("job_a").state == "running"
    assert store.find("job_a").finished_at is None


def test_a_purged_job_leaves_no_row_behind(store: JobStore) -> None:
    job, _ = store.add_job(new_job())
    claim = claimed(store, job.key)
    store.begin_upload(claim, 1, "lb-1", 10, 100)
    purge(store, job.key, job.id, ())
    with store._reading() as connection:
        for table in metadata.tables.values():
            if table.name != "store_facts":
                assert connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0

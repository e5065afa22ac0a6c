"""Disks that are full, read-only or lossy, and a database that is held, damaged or too new."""

from __future__ import annotations

import random
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from killing.audit import Audit, audit, check_manners
from killing.enumerated import IDS, INPUT, RESUME, SUBMIT
from killing.ground import Ground, ground
from killing.lives import Life, Order
from killing.processes import Child, Nursery
from langbatch.store.schema import metadata

#: How long a writer waits for the database here, in seconds, where langbatch takes 30.
BUSY_SECONDS = 0.3

WAITING = (*SUBMIT, "--wait")
#: The documented exit code for what must be mended on this machine.
MEND_THIS_MACHINE = 5


@contextmanager
def stage(folder: Path, nursery: Nursery) -> Iterator[Ground]:
    with ground(folder, nursery, manners=Life((), busy_seconds=BUSY_SECONDS)) as place:
        place.input_file(INPUT, IDS)
        yield place


def disk_full_from(place: Ground, name: str, hit: int) -> Child:
    """ENOSPC at this hit of a failpoint and at all later ones of its name."""
    return _told(place, place.run(*WAITING, orders=(Order("fail", name, hit),)))


def no_file_beyond(place: Ground, file_bytes: int) -> Child:
    """From the job's second process on no file grows beyond so many bytes: database and its log,
    payloads, pieces, results."""
    check_manners(place.run(*SUBMIT))
    return _told(place, place.begin(replace(place.life(*RESUME), file_bytes=file_bytes)))


def lossy_disk_at(place: Ground, hit: int) -> Child:
    """The power fails behind the rename of this number, and the disk has not kept it: what was renamed
    last is gone. Nothing in the database may count on it yet."""
    child = place.run(*WAITING, orders=(Order("kill", "rename.after", hit),))
    assert child.killed
    jobs = [path for path in (place.home / "jobs").iterdir() if not path.name.startswith(".")]
    files = [path for job in jobs for path in job.glob("*/*.jsonl")]
    if files:
        max(files, key=lambda path: path.stat().st_mtime_ns).unlink()
    else:
        # The first rename is that of the job's whole folder.
        shutil.rmtree(jobs[0])
    return child


def read_only_home(place: Ground, *command: str) -> Child:
    """A home that may be read, but not written."""
    folders = [place.home, *(path for path in place.home.rglob("*") if path.is_dir())]
    files = [path for path in place.home.rglob("*") if path.is_file()]
    for path in (*files, *folders):
        path.chmod(0o400 if path.is_file() else 0o500)
    try:
        return _told(place, place.begin(replace(place.life(*command), ordinary_powers=True)))
    finally:
        for path in (*folders, *files):
            path.chmod(0o700 if path.is_dir() else 0o600)


@contextmanager
def database_held(place: Ground) -> Iterator[None]:
    """Somebody else is in the middle of a writing transaction."""
    with closing(sqlite3.connect(place.home / "langbatch.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def database_held_from(place: Ground, name: str, hit: int) -> Child:
    """The database is taken away at this hit of a failpoint, until the process has given up."""
    child = place.start(*WAITING, orders=(Order("stop", name, hit),))
    place.nursery.stopped(child)
    with database_held(place):
        place.nursery.signal(child, signal.SIGCONT)
        return _told(place, child)


def database_damaged(place: Ground, table: str, *, recover: bool) -> Child:
    """The first page of a table (of the list of tables: of the file) turns to noise. Then either a backup
    comes back, or the file is moved away and the service is asked, as the message says."""
    check_manners(place.run(*SUBMIT))
    database = place.home / "langbatch.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    backup = database.read_bytes()
    start = ({"sqlite_master": 1, **roots}[table] - 1) * page_bytes
    noise = random.Random(table).randbytes(page_bytes)
    database.write_bytes(backup[:start] + noise + backup[start + page_bytes :])
    child = _told(place, place.start(*RESUME))
    if child.code == 0:
        return child  # it holds nothing that was needed
    assert "the database file is damaged" in child.err, child.err
    _without_database(place)
    if recover:
        recovered = place.run("recover", "--from-remote", "--provider", "azure")
        check_manners(recovered)
        assert recovered.code == 0, recovered.err
    else:
        database.write_bytes(backup)
    return child


def _without_database(place: Ground) -> None:
    for path in place.home.glob("langbatch.db*"):
        path.unlink()


def database_of_a_newer_version(place: Ground) -> Child:
    """A newer langbatch has migrated the database; it is upgraded here too, as the message says."""
    check_manners(place.run(*SUBMIT))
    (own,) = place.rows("SELECT version_num FROM alembic_version")[0]
    place.change("UPDATE alembic_version SET version_num = '9999'")
    child = _told(place, place.start(*RESUME))
    assert "newer" in child.err, child.err
    place.change(f"UPDATE alembic_version SET version_num = '{own}'")
    return child


def _told(place: Ground, child: Child) -> Child:
    """Wait for the process's end; it must have said what is wrong and what to do."""
    place.nursery.ended(child)
    check_manners(child)
    if child.code != 0:
        assert child.code == MEND_THIS_MACHINE, (child.life, child.code, child.err)
        assert re.search(r"^Error: .+\nTry: .+", child.err, re.M), child.err
    return child


def finish(place: Ground) -> Audit:
    """The disturbance is gone: everything ends, and nothing was lost."""
    if not place.rows("SELECT 1 FROM jobs"):
        submitted = place.run(*SUBMIT)
        check_manners(submitted)
        assert submitted.code == 0, submitted.err
    last = place.run(*RESUME)
    check_manners(last)
    assert last.code == 0, last.err
    # A recovered job does not know any more what its file was called.
    ((name,),) = place.rows("SELECT input_name FROM jobs")
    found = audit(place, {name: IDS})
    assert found.zeros == (0, 0, 0, 0), found
    assert found.operator_stops == 0
    assert place.rows("SELECT sum(succeeded) FROM shards") == [(len(IDS),)]
    return found


def every_kind() -> list[tuple[str, Callable[[Ground], int]]]:
    """All disturbances of a campaign, each with its kind; what they return is the process's exit code."""
    found: list[tuple[str, Callable[[Ground], int]]] = []

    def add(kind: str, disturb: Callable[..., Child], *arguments: object, **named: object) -> None:
        def run(place: Ground) -> int:
            code = disturb(place, *arguments, **named).code
            assert code is not None
            return code

        found.append((kind, run))

    # As many as an undisturbed run reaches.
    for hit in range(1, 25):
        add("disk full from an fsync on", disk_full_from, "fsync.before", hit)
    for hit in range(1, 12):
        add("disk full from a rename on", disk_full_from, "rename.before", hit)
        add("rename not on the disk after a power cut", lossy_disk_at, hit)
    for file_bytes in (1_000, 70_000, 100_000, 135_000, 150_000, 180_000):
        add("files cannot grow (RLIMIT_FSIZE)", no_file_beyond, file_bytes)
    for name, hit in HELD_FROM:
        add("database held by another process", database_held_from, name, hit)
    for table in ("sqlite_master", *metadata.tables, "alembic_version"):
        add("database damaged, backup restored", database_damaged, table, recover=False)
        add("database damaged, recovered from the service", database_damaged, table, recover=True)
    add("database of a newer version", database_of_a_newer_version)
    add("home read-only from the start", read_only_fresh_home)
    add("home read-only later", read_only_later)
    return found


#: Moments at which the database is taken away: none within a transaction of the process's own.
HELD_FROM = (
    ("commit.after", 4),
    ("call.upload.before", 1),
    ("call.upload.after", 1),
    ("call.get_file.after", 1),
    ("call.create_batch.before", 1),
    ("call.create_batch.after", 1),
    ("call.create_batch.after", 2),
    ("call.get_batch.after", 3),
    ("call.download.after", 2),
    ("fsync.after", 21),
)


def read_only_fresh_home(place: Ground) -> Child:
    """A home that cannot even be made."""
    place.folder.chmod(0o500)
    try:
        return _told(place, place.begin(replace(place.life(*WAITING), ordinary_powers=True)))
    finally:
        place.folder.chmod(0o700)


def read_only_later(place: Ground) -> Child:
    check_manners(place.run(*SUBMIT))
    return read_only_home(place, *RESUME)

"""What happens when the machine is the trouble: catalogue rows 35 to 40, as far as they are ours alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from langbatch import BatchStorageError
from langbatch.running import journal, space
from support import requests_file, world

IDS = ["a", "b", "c"]


def entries(home: Path) -> list[Path]:
    return sorted((home / journal.NAME).iterdir())


def test_bad_36_an_id_the_database_could_not_take_is_read_from_the_journal_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is locked by a stranger from the moment the service has answered the create."""
    monkeypatch.setattr("langbatch.store.database.BUSY_SECONDS", 0.1)
    from langbatch import failpoints

    with world(tmp_path) as here:
        strangers: list[sqlite3.Connection] = []

        def lock_after_create(name: str) -> None:
            if name == "call.create_batch.after" and not strangers:
                stranger = sqlite3.connect(here.home / "langbatch.db", check_same_thread=False)
                stranger.execute("BEGIN IMMEDIATE")
                strangers.append(stranger)

        with here.manager() as manager, failpoints.listening(lock_after_create):
            with pytest.raises(BatchStorageError, match="locked by another process"):
                manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        strangers[0].rollback()
        strangers[0].close()
        [entry] = entries(here.home)
        assert entry.stat().st_mode & 0o777 == 0o600
        # Listing is of no use now: only the journal knows.
        here.emulator.add_faults("list-500")
        here.clock.sleep(60)  # the lease that could not be let go either runs out
        monkeypatch.setenv("AZURE_API_KEY", "any")
        with here.manager() as manager:
            status = manager.jobs()[0]
            assert status.shards[0].state == "active"
            assert entries(here.home) == []
            assert manager.wait(status.id).counts.succeeded == 3
        assert here.counts()["batches"] == 1


def test_an_entry_that_cannot_be_read_stops_nobody_and_one_of_a_job_not_here_waits_for_it(
    tmp_path: Path,
) -> None:
    """Its database may be lost, and come back: the entry is all that is known of that batch."""
    gone = "job_" + "0" * 26
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure).id
            manager.wait(job)
        journal.append(here.home, attempt=f"lb-01234567-{gone}-f0n3t1-00000-1-89abcdef.jsonl", batch_id="b")
        (here.home / journal.NAME / "cut-off.json").write_bytes(b'{"attempt": "lb-')
        assert len(entries(here.home)) == 2
        with here.manager() as manager:
            assert manager.jobs()[0].shards[0].batch_id != "b"
            manager.purge(job)
        assert len(entries(here.home)) == 1
        journal.forget_job(here.home, gone)
        assert entries(here.home) == []


def test_purge_drops_what_the_journal_says_of_the_job(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure).id
        manager.wait(job)
        (attempt,) = manager._store.attempts(1, 0)
        journal.append(here.home, attempt=attempt.name, batch_id="b")
        manager.purge(job)
        assert entries(here.home) == []


def test_bad_35_a_disk_without_room_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "RESERVE_BYTES", 1 << 60)
    with world(tmp_path) as here, here.manager() as manager:
        with pytest.raises(BatchStorageError, match="MB left"):
            manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        assert manager.jobs() == []
        assert here.counts()["uploads"] == 0


def test_bad_35_a_disk_that_fills_up_before_the_fetch_pauses_the_job_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        with monkeypatch.context() as full:
            full.setattr(space, "RESERVE_BYTES", 1 << 60)
            with pytest.raises(BatchStorageError, match="fetching these results"):
                manager.wait(job.id)
            assert manager.status(job.id, offline=True).state == "paused"
        assert manager.wait(job.id).counts.succeeded == 3
        assert here.counts()["batches"] == 1


MOUNTS = "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n//nas/my\\040files /mnt/my\\040files cifs rw 0 0\n"


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/var/x", "ext4"), ("/home/me", "nfs4"), ("/mnt/my files/y", "cifs"), ("/homes", "ext4")],
)
def test_bad_39_a_network_file_system_is_recognised_by_its_mount(folder: str, kind: str) -> None:
    assert space.file_system_of(Path(folder), MOUNTS) == kind


def test_bad_39_a_local_disk_passes_and_a_network_disk_would_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.refuse_network_disk(tmp_path)
    here = space.file_system_of(tmp_path.resolve(), Path("/proc/mounts").read_text())
    assert here is not None
    monkeypatch.setattr(space, "NETWORK_FILE_SYSTEMS", frozenset({here}))
    with pytest.raises(BatchStorageError, match="network file system"), world(tmp_path) as world_here:
        world_here.manager().jobs()

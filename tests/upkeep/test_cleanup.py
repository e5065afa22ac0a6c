"""`gc`: what finished jobs left goes; what anybody may still need, or is not ours, stays."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from langbatch import AccessRefused, JobNotFound
from langbatch.config.resolving import resolve_target
from langbatch.providers import open_provider
from langbatch.store.purged import purge
from support import World, requests_file, world

DAY = 86_400.0


def names(here: World) -> set[str]:
    return {file["filename"] for file in here.emulator.report()["files"]}


def upload(here: World, name: str) -> str:
    """A file put there by somebody who is not a job of this store."""
    arguments = {key: value for key, value in here.azure.items() if key != "provider"}
    provider = open_provider(*resolve_target("azure", "chat_completions", **arguments))
    path = here.home.parent / "upload.jsonl"
    path.write_bytes(b"{}\n")
    with path.open("rb") as stream:
        file_id = provider.upload(name, stream, 3).id
    provider.close()
    return file_id


def finished(here: World, tmp_path: Path, name: str = "in.jsonl", **options: Any) -> str:
    with here.manager() as manager:
        job = manager.submit(
            requests_file(tmp_path / name, [f"{name}-{n}" for n in range(4)]), **here.azure, **options
        )
        manager.wait(job.id)
    return job.id


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")


def test_a_finished_jobs_files_are_deleted_once_and_its_results_stay(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path, max_requests_per_shard=2)
        with here.manager() as manager:
            told = manager.gc(dry_run=True)
            assert len(told.deleted) == 2 + 2 + 2  # inputs, outputs, and Azure's empty error files
            assert len(here.emulator.report()["files"]) == 6
            done = manager.gc()
            assert sorted(done.deleted) == sorted(told.deleted)
            assert done.kept == told.kept == 0
            assert here.emulator.report()["files"] == []
            deletes = here.counts()["deletes"]
            assert manager.gc().deleted == ()
            assert here.counts()["deletes"] == deletes
            assert manager.status(job).counts.succeeded == 4
            assert len(list(manager.results(job))) == 4


def test_a_running_jobs_files_stay(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        here.clock.sleep(3 * DAY)
        done = manager.gc()
        assert (done.deleted, done.kept) == ((), 1)
        assert manager.wait(job.id).counts.succeeded == 1


def test_other_stores_files_and_the_users_own_are_never_touched(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        other = World(tmp_path / "other", here.clock, here.emulator)
        finished(other, tmp_path, "other.jsonl")
        upload(here, "training-data.jsonl")
        theirs = names(here)
        finished(here, tmp_path)
        here.clock.sleep(3 * DAY)
        with here.manager() as manager:
            manager.gc()
        assert names(here) == theirs


def test_a_file_of_ours_that_no_job_knows_is_deleted_after_a_day(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        finished(here, tmp_path)
        with here.manager() as manager:
            manager.gc()
            store_id = manager._store.store_id
            orphan = upload(here, f"lb-{store_id}-job_purged-00000-1-abcdef01.jsonl")
            upload(here, "lb-00000000-job_other-00000-1-abcdef01.jsonl")
            assert (manager.gc().deleted, manager.gc().kept) == ((), 1)
            here.clock.sleep(DAY + 60)
            assert manager.gc(dry_run=True).deleted == (orphan,)
            assert manager.gc().deleted == (orphan,)
            assert names(here) == {"lb-00000000-job_other-00000-1-abcdef01.jsonl"}


def test_an_upload_that_was_lost_and_came_late_is_deleted_though_its_shard_goes_on(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-committed-drop@1", "list-files-lag=500@1")) as here:
        with here.manager() as manager:
            job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
            while manager.status(job.id).shards[0].state != "active":
                here.clock.sleep(5)
            assert here.counts()["uploads"] == 2
            here.clock.sleep(DAY + 60)
            done = manager.gc()
            assert (len(done.deleted), done.kept) == (1, 1)
            assert manager.wait(job.id).counts.succeeded == 1


def test_results_whose_only_copy_is_at_the_service_stay_there(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path)
        (here.home / "jobs" / job / "joined" / "00000.jsonl").unlink()
        with here.manager() as manager:
            assert len(manager.gc().deleted) == 1
        assert sorted(file["purpose"] for file in here.emulator.report()["files"]) == ["batch_output"] * 2


def test_one_endpoints_trouble_is_told_and_holds_up_no_other(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        for host in ("one", "two"):
            azure = {**here.azure, "azure_endpoint": f"https://{host}.openai.azure.com"}
            job = manager.submit(requests_file(tmp_path / f"{host}.jsonl", [host]), **azure)
            manager.wait(job.id)
        here.emulator.add_faults("list-files-403@1")
        done = manager.gc()
        assert [type(error) for error in done.errors] == [AccessRefused]
        assert len(done.deleted) == 3


def aged(path: Path, at: float) -> Path:
    """Pretend that nobody has touched it since."""
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        os.utime(entry, (at, at))
    return path


def test_leftovers_of_dead_processes_are_swept_and_nothing_else(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path)
        jobs = here.home / "jobs"
        old, young = here.clock.now() - 2 * DAY, here.clock.now() - 60

        def folder(name: str, *parts: str) -> Path:
            (jobs / name).mkdir()
            for part in ("requests.jsonl", *parts):
                (jobs / name / part).parent.mkdir(exist_ok=True)
                (jobs / name / part).write_text("{}\n")
            return jobs / name

        (here.home / "created").mkdir(exist_ok=True)
        spool = here.home / "created" / "stdin.jsonl"
        spool.write_text("{}\n")
        outgoing = jobs / job / "outgoing"
        spent = outgoing / "00000-1.jsonl"
        spent.write_text("{}\n")
        coming = outgoing / "00000-2.jsonl"
        coming.write_text("{}\n")
        temporary = jobs / job / ".langbatch-tmp-0011"
        temporary.write_text("half")
        swept = {
            aged(folder(".new-job_dead"), old),
            aged(folder("job_unborn"), old),
            aged(spool, old),
            aged(temporary, old),
            spent,
        }
        lost = aged(folder("job_lost", "outgoing/x"), old)
        stays = {aged(folder(".new-job_alive"), young), lost, aged(folder("users-own-folder"), old), coming}
        with here.manager() as manager:
            assert set(manager.gc(dry_run=True).swept) == swept
            assert all(path.exists() for path in swept)
            assert set(manager.gc().swept) == swept
            assert manager.gc().swept == ()
        assert not any(path.exists() for path in swept)
        assert all(path.exists() for path in stays)
        with here.manager() as manager:
            out = io.BytesIO()
            manager.export(job, out)
            assert out.getvalue().count(b"\n") == 4


# ---------------------------------------------------------------- what a purge could not delete


def test_a_purge_says_what_is_left_at_the_service_and_gc_deletes_it_later(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path)
        at_service = {file["id"] for file in here.emulator.report()["files"]}
        here.emulator.add_faults("delete-file-500")
        with here.manager() as manager:
            assert set(manager.purge(job)) == at_service
            assert manager.gc().errors != ()
            here.emulator.remove_faults("delete-file-500")
            monkey = {"AZURE_API_KEY": here.azure["api_key"]}
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(*next(iter(monkey.items())))
                tidied = manager.gc()
            assert set(tidied.deleted) == at_service
            assert tidied.errors == ()
            assert manager.gc().deleted == ()
        assert names(here) == set()


@pytest.mark.parametrize("by", ["purge", "gc"])
def test_a_purge_that_was_cut_short_behind_its_commit_is_finished(by: str, tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path)
        with here.manager() as manager:
            purge(manager._store, manager._store.find(job).key, job, ())
            folder = here.home / "jobs" / job
            assert folder.exists()
            if by == "gc":
                assert folder in manager.gc().swept
            else:
                manager.purge(job)
            assert not folder.exists()
            with pytest.raises(JobNotFound):
                manager.purge(job)


def test_a_purged_job_is_not_recovered(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = finished(here, tmp_path)
        here.emulator.add_faults("delete-file-500")
        arguments = {key: value for key, value in here.azure.items() if key != "provider"}
        with here.manager() as manager:
            manager.purge(job)
            found = manager.recover("azure", **arguments)
        assert (found.jobs, found.skipped) == ((), ())

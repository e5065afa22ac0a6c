"""`recover`: with the database lost, or the whole home, every row is there again and nothing is paid twice."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from langbatch import BatchStateError, FateUnknown, NeedsOperator, ProviderError, Recovery
from langbatch.config.resolving import resolve_target
from langbatch.emulator import RowError
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.records import BatchPage, FilePage, RemoteBatch, RemoteFile, Target
from langbatch.store.store import JobStore
from langbatch.upkeep.purging import delete_remote_files
from langbatch.upkeep.recovery import Opened, Recoverer
from langbatch.upkeep.traces import Listing, read_traces
from support import World, requests_file, world

IDS = [f"task-{n}" for n in range(7)]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")


def lose_database(here: World) -> None:
    for path in here.home.glob("langbatch.db*"):
        path.unlink()


def lose_home(here: World) -> None:
    shutil.rmtree(here.home)


def submit(here: World, tmp_path: Path, *, wait: bool = True, **options: Any) -> str:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with here.manager() as manager:
        job = manager.submit(source, **here.azure, **options)
        if wait:
            manager.wait(job.id)
    return job.id


def fetched(here: World, job: str) -> bytes:
    with here.manager() as manager:
        out = io.BytesIO()
        manager.export(job, out)
    return out.getvalue()


def recover(here: World, **options: Any) -> Recovery:
    with here.manager() as manager:
        return manager.recover(**here.azure, **options)


def finish(here: World, job: str) -> list[str]:
    """Wait for the job; its custom_ids in order."""
    with here.manager() as manager:
        manager.wait(job)
        return [result.custom_id for result in manager.results(job)]


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_finished_job_is_brought_back_with_every_row_as_it_was(
    lose: Any, size: int | None, tmp_path: Path
) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path, max_requests_per_shard=size)
        before, counts = fetched(here, job), here.counts()
        lose(here)
        assert recover(here).jobs == (job,)
        assert fetched(here, job) == before
        assert {name: here.counts()[name] for name in ("uploads", "batches")} == {
            name: counts[name] for name in ("uploads", "batches")
        }
        assert here.emulator.payments().max_paid == 1
        assert recover(here) == Recovery(known=(job,))
        with here.manager() as manager:
            status = manager.status(job)
            assert status.state == "completed"
            assert "recovered from the service" in str(status.attention)
            assert ("lines count from 1" in str(status.attention)) is (lose is lose_home)


@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_running_job_goes_on_and_its_batch_is_not_made_again(lose: Any, tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path, wait=False, max_requests_per_shard=4)
        lose(here)
        assert recover(here).jobs == (job,)
        assert finish(here, job) == IDS
        assert here.counts()["batches"] == here.counts()["uploads"] == 2
        assert here.emulator.payments().max_paid == 1


def test_the_same_bytes_are_the_same_job_after_a_recovery(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path)
        lose_database(here)
        recover(here)
        with here.manager() as manager:
            again = manager.submit(tmp_path / "in.jsonl", **here.azure)
        assert (again.id, again.created) == (job, False)


def test_the_users_line_numbers_come_back_with_the_jobs_folder_only(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    source.write_text("\n\n" + source.read_text())
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = manager.submit(source, **here.azure).id
        lose_database(here)
        recover(here)
        finish(here, job)
        assert [json.loads(line)["line"] for line in fetched(here, job).splitlines()] == list(range(3, 10))
        lose_home(here)
        recover(here)
        assert [json.loads(line)["line"] for line in fetched(here, job).splitlines()] == list(range(1, 8))


@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_retried_job_comes_back_with_the_results_of_all_its_attempts(lose: Any, tmp_path: Path) -> None:
    failing = {"task-1", "task-5"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(500, "500") if custom_id in failing else f"fine {custom_id}"

    with world(tmp_path, answer=answer) as here:
        job = submit(here, tmp_path, max_requests_per_shard=4)
        failing.remove("task-1")
        with here.manager() as manager:
            manager.retry(job)
            manager.wait(job)
        before = fetched(here, job)
        lose(here)
        assert recover(here).jobs == (job,)
        assert fetched(here, job) == before
        assert [json.loads(line)["attempt"] for line in before.splitlines()] == [1, 2, 1, 1, 1, 2, 1]
        failing.clear()
        with here.manager() as manager:
            manager.retry(job)
            assert manager.wait(job).counts.succeeded == 7
        assert [json.loads(line)["attempt"] for line in fetched(here, job).splitlines()] == [
            1,
            2,
            1,
            1,
            1,
            3,
            1,
        ]
        assert here.emulator.payments().executed == 7 + 2 + 1


@pytest.mark.parametrize("fault", ["create-drop@1", "create-committed-drop@1", "batch-token-limit@1"])
@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_retry_that_was_under_way_goes_on_and_sends_only_the_rest(
    lose: Any, fault: str, tmp_path: Path
) -> None:
    failing = {"task-1"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(500, "500") if custom_id in failing else f"fine {custom_id}"

    with world(tmp_path, answer=answer) as here:
        job = submit(here, tmp_path)
        failing.clear()
        here.emulator.add_faults(fault, "list-500@1")
        with here.manager() as manager:
            manager.retry(job)
        lose(here)
        here.emulator.remove_faults("list-500")
        assert recover(here).jobs == (job,)
        assert finish(here, job) == IDS
        with here.manager() as manager:
            assert manager.status(job).counts.succeeded == 7
        assert here.emulator.payments().executed == 7 + 1


@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_fenced_attempt_leaves_no_gap(lose: Any, tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop@1",)) as here:
        job = submit(here, tmp_path)
        before = fetched(here, job)
        lose(here)
        assert recover(here).jobs == (job,)
        assert fetched(here, job) == before
        assert here.counts()["batches"] == 1


def test_a_shard_that_was_never_sent_is_sent_after_the_recovery(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-quota@2", "upload-quota@2")) as here:
        job = submit(here, tmp_path, wait=False, max_requests_per_shard=3)
        assert here.counts()["uploads"] == 1
        lose_database(here)
        assert recover(here).jobs == (job,)
        assert finish(here, job) == IDS
        assert here.emulator.payments().max_paid == 1
        assert here.emulator.payments().executed == 7


def test_a_shard_whose_batch_may_have_been_forgotten_is_given_to_a_person(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-quota@2", "upload-quota@2")) as here:
        job = submit(here, tmp_path, wait=False, max_requests_per_shard=3)
        lose_database(here)
        here.clock.sleep(2 * 86_400)
        recover(here)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator, match="may never have been sent"):
                manager.wait(job)
            assert here.counts()["uploads"] == 1
            manager.resubmit(job)
            manager.wait(job)
        assert finish(here, job) == IDS


@pytest.mark.parametrize("fault", ["create-drop@1", "create-committed-drop@1"])
@pytest.mark.parametrize("lose", [lose_database, lose_home])
def test_a_create_of_unknown_fate_is_looked_for_and_fenced_as_ever(
    lose: Any, fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=(fault, "list-500@1")) as here:
        job = submit(here, tmp_path, wait=False)
        lose(here)
        here.emulator.remove_faults("list-500")
        assert recover(here).jobs == (job,)
        assert finish(here, job) == IDS
        assert here.counts()["batches"] == 1
        assert here.emulator.payments().max_paid == 1


def test_a_file_whose_batch_the_service_may_have_forgotten_is_not_sent_again(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path)
        here.clock.sleep(10 * 86_400)
        here.emulator.add_faults("old-batch-404=86400")
        lose_home(here)
        assert recover(here).jobs == (job,)
        with here.manager() as manager, pytest.raises(NeedsOperator, match="not listed"):
            manager.wait(job)
        assert here.counts()["uploads"] == 1


@pytest.mark.parametrize("faults", [(), ("old-batch-404=86400",)])
def test_results_that_are_here_are_enough_when_the_service_has_forgotten(
    faults: tuple[str, ...], tmp_path: Path
) -> None:
    with world(tmp_path, answer=lambda _, name: RowError(500, "500") if name == "task-3" else name) as here:
        job = submit(here, tmp_path, max_requests_per_shard=4)
        before = fetched(here, job)
        with here.manager() as manager:
            manager.gc()
            usage = manager.status(job).usage
        requests_file(tmp_path / "other.jsonl", ["x"])
        lose_database(here)
        here.clock.sleep(10 * 86_400)
        here.emulator.add_faults(*faults)
        done = recover(here)
        if faults:
            # Without files and batches nothing at the service names the job.
            assert done.jobs == ()
            return
        assert done.jobs == (job,)
        assert fetched(here, job) == before
        with here.manager() as manager:
            status = manager.status(job)
            assert (status.counts.succeeded, status.counts.errored, status.usage) == (6, 1, usage)


def test_a_shard_that_only_its_results_tell_of_is_done_and_can_be_retried(tmp_path: Path) -> None:
    failing = {"task-3"}

    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(500, "500") if custom_id in failing else f"fine {custom_id}"

    with world(tmp_path, answer=answer, faults=("batch-metadata-null",)) as here:
        job = submit(here, tmp_path, max_requests_per_shard=4)
        before = fetched(here, job)
        with here.manager() as manager:
            delete_remote_files(manager._store, manager._store.find(job), manager._access.provider)
            manager.submit(requests_file(tmp_path / "later.jsonl", ["later"]), **here.azure)
        # Only the second shard's file comes back under its name: nothing tells of the first one.
        report = here.emulator.report()
        second = report["batches"][0 if report["batches"][0]["requests"] == 3 else 1]
        put_back(here, tmp_path, second["filename"])
        lose_database(here)
        failing.clear()
        assert job in recover(here).jobs
        assert fetched(here, job) == before
        with here.manager() as manager:
            assert manager.retry(job).state == "running"
            assert manager.wait(job).counts.succeeded == 7
        assert [json.loads(line)["attempt"] for line in fetched(here, job).splitlines()] == [
            1,
            1,
            1,
            2,
            1,
            1,
            1,
        ]


def opened(here: World) -> tuple[Target, Provider]:
    arguments = {key: value for key, value in here.azure.items() if key != "provider"}
    target, credentials = resolve_target("azure", "chat_completions", **arguments)
    return target, open_provider(target, credentials)


def put_back(here: World, tmp_path: Path, name: str) -> None:
    _, provider = opened(here)
    lines = (tmp_path / "in.jsonl").read_bytes().splitlines(keepends=True)[4:]
    path = tmp_path / "again.jsonl"
    path.write_bytes(b"".join(lines))
    with path.open("rb") as stream:
        provider.upload(name, stream, path.stat().st_size)
    provider.close()


def test_of_several_lost_stores_one_must_be_named(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        first = submit(here, tmp_path)
        second_home = World(tmp_path / "second", here.clock, here.emulator)
        with second_home.manager() as manager:
            second = manager.submit(tmp_path / "in.jsonl", **here.azure, new=True).id
            second_id = manager._store.store_id
        fresh = World(tmp_path / "fresh", here.clock, here.emulator)
        with pytest.raises(BatchStateError, match="several stores"):
            recover(fresh)
        done = recover(fresh, store_id=second_id)
        assert done.jobs == (second,)
        assert len(done.other_stores) == 1
        assert finish(fresh, second) == IDS
        # A store with jobs takes over nobody's by itself.
        assert recover(fresh).jobs == ()
        assert recover(fresh, store_id="ffffffff").jobs == ()
        assert recover(here).jobs == ()
        assert first not in fetched_ids(fresh)


def fetched_ids(here: World) -> list[str]:
    with here.manager() as manager:
        return [status.id for status in manager.jobs()]


def test_a_store_that_was_empty_takes_its_old_id_back(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path)
        with here.manager() as manager:
            old = manager._store.store_id
        lose_home(here)
        recover(here)
        with here.manager() as manager:
            assert manager._store.store_id == old
            assert len(manager.gc().deleted) == 3
            assert len(list(manager.results(job))) == 7


@pytest.mark.parametrize("fault", ["list-500", "list-html", "list-files-500", "list-401-key"])
def test_a_list_that_cannot_be_read_changes_nothing(fault: str, tmp_path: Path) -> None:
    with world(tmp_path) as here:
        submit(here, tmp_path)
        lose_home(here)
        here.emulator.add_faults(fault)
        with pytest.raises(ProviderError):
            recover(here)
        with here.manager() as manager:
            assert manager.jobs() == []


@dataclass
class Endless:
    """A service whose lists say that there is more, and show the same page again."""

    real: Provider
    broken: str

    def list_batches(self, after: str | None = None) -> BatchPage:
        page = self.real.list_batches()
        return replace(page, has_more=True) if self.broken == "batches" else page

    def list_files(self, after: str | None = None) -> FilePage:
        page = self.real.list_files()
        return replace(page, has_more=True) if self.broken == "files" else page

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.parametrize("broken", ["batches", "files"])
def test_a_list_without_an_end_changes_nothing(broken: str, tmp_path: Path) -> None:
    with world(tmp_path) as here:
        submit(here, tmp_path)
        target, provider = opened(here)
        endless: Any = Endless(provider, broken)
        store = JobStore.open(tmp_path, clock=here.clock)
        with pytest.raises(FateUnknown, match=f"the list of {broken} cannot be read to its end"):
            Recoverer(store, tmp_path, [Opened(target, endless)], here.clock).recover()
        assert store.jobs() == []
        store.close()


def test_a_cancelled_jobs_unsent_shards_are_not_sent(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-quota@2", "upload-quota@2")) as here:
        job = submit(here, tmp_path, wait=False, max_requests_per_shard=3)
        with here.manager() as manager:
            manager.cancel(job)
            manager.wait(job)
            counts = manager.status(job).counts
        lose_database(here)
        # What langbatch itself had settled is known from its results; the first shard's batch says cancelled.
        recover(here)
        with here.manager() as manager:
            assert manager.wait(job).counts == counts
        assert here.counts()["uploads"] == 1


def test_uploads_that_are_not_what_their_names_say_are_not_taken_for_requests(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            manager.jobs()
        put_back_name = "lb-0a1b2c3d-job_01m7aaaaaaaaaaaaaaaaaaaaaa-00000-1-00000000.jsonl"
        requests_file(tmp_path / "in.jsonl", IDS)
        put_back(here, tmp_path, put_back_name)
        done = recover(here)
        assert done.jobs == ()
        assert done.skipped[0][0] == "job_01m7aaaaaaaaaaaaaaaaaaaaaa"
        assert "none of its input files is left" in done.skipped[0][1]
        with here.manager() as manager:
            assert manager.jobs() == []


def test_a_folder_that_does_not_fit_what_was_sent_is_left_alone(tmp_path: Path) -> None:
    with world(tmp_path) as here:
        job = submit(here, tmp_path, wait=False)
        lose_database(here)
        ids = here.home / "jobs" / job / "requests.ids"
        ids.write_text(ids.read_text().replace("task-3", "task-X"))
        done = recover(here)
        assert done.jobs == ()
        assert "does not hold the requests" in done.skipped[0][1]
        assert "task-X" in ids.read_text()


def test_traces_are_read_from_names_input_files_and_tags() -> None:
    name = "lb-0a1b2c3d-job_01m7aaaaaaaaaaaaaaaaaaaaaa-00002-3-abcdef01.jsonl"
    files = [
        RemoteFile("f1", "processed", filename=name),
        RemoteFile("f2", "processed", filename="mine.jsonl"),
    ]
    tagged = {"langbatch_tag": name.replace("-3-", "-4-")}
    batches = [
        RemoteBatch("b1", "completed", "f1"),
        RemoteBatch("b2", "completed", "f2"),
        RemoteBatch("b3", "in_progress", "f9", metadata=tagged),
        RemoteBatch("b4", "in_progress", "f9", metadata={"langbatch_tag": "nonsense"}),
    ]
    (job,) = read_traces([Listing(files, batches)]).values()
    assert (job.job_id, job.store_id) == ("job_01m7aaaaaaaaaaaaaaaaaaaaaa", "0a1b2c3d")
    third, fourth = job.shards[2]
    assert (third.parts.number, third.file_id, third.batch and third.batch.id) == (3, "f1", "b1")
    assert (fourth.parts.number, fourth.file_id, fourth.batch and fourth.batch.id) == (4, "f9", "b3")
    assert (job.target_count, job.extent(2)) == (None, None)

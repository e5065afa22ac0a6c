"""What only a person can settle: the words name the very commands, and these do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from langbatch import BatchStateError, JobManager, NeedsOperator, failpoints
from support import World, requests_file, world

IDS = [f"task-{n}" for n in range(6)]


def submitted(here: World, manager: JobManager, tmp_path: Path) -> str:
    return manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure).id


def in_doubt(here: World, manager: JobManager, tmp_path: Path) -> str:
    """A job whose batch may exist, and no list tells."""
    here.emulator.add_faults("create-drop@1", "list-500")
    job = submitted(here, manager, tmp_path)
    with pytest.raises(NeedsOperator):
        manager.wait(job)
    here.emulator.remove_faults()
    return job


class Killed(BaseException):
    """SIGKILL, as far as one process can play it."""


def test_a_shard_whose_harvest_kills_every_process_names_its_own_batch_and_goes_on_unpaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")

    def die(point: str) -> None:
        # Not even the lease is let go: the next process finds it held by one that is gone.
        if point == "call.download.after" or (point == "commit.before" and downloading):
            downloading.append(point)
            raise Killed

    with world(tmp_path) as here:
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
        for _ in range(5):
            downloading: list[str] = []
            with here.manager() as manager, failpoints.listening(die), pytest.raises(Killed):
                manager.wait(job)
            here.clock.sleep(60)
        with here.manager() as manager:
            with pytest.raises(
                NeedsOperator, match="5 processes in a row died while the shard was harvesting"
            ):
                manager.wait(job)
            status = manager.status(job)
            batch_id = status.shards[0].batch_id
            assert f"`langbatch reconcile {job} --adopt {batch_id}` goes on with its batch" in str(
                status.attention
            )
            assert "to be paid again" in str(status.attention)
            manager.adopt(job, str(batch_id))
            assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


def test_a_batch_id_that_the_service_does_not_know_settles_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = in_doubt(here, manager, tmp_path)
        with pytest.raises(BatchStateError, match="the service knows no batch batch_nope"):
            manager.adopt(job, "batch_nope")
        assert manager.status(job).state == "needs_operator"
        with pytest.raises(BatchStateError) as caught:
            manager.retry(job)
        assert "names the commands" in str(caught.value.hint)


def test_a_cancelled_job_in_doubt_ends_by_resubmit_without_being_sent(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = in_doubt(here, manager, tmp_path)
        assert "--resubmit` sends it again" in str(manager.status(job).attention)
        manager.cancel(job)
        assert "--resubmit` ends it, since the job is cancelled" in str(manager.status(job).attention)
        assert manager.resubmit(job).state == "cancelled"
        assert here.counts()["batches"] == 0


def test_of_several_shards_in_doubt_the_words_name_one_and_count_the_others(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop*3", "list-500")) as here, here.manager() as manager:
        source = requests_file(tmp_path / "in.jsonl", IDS)
        job = manager.submit(source, max_requests_per_shard=2, **here.azure).id
        with pytest.raises(NeedsOperator) as caught:
            manager.wait(job)
        assert f"`langbatch reconcile {job} --shard 0 --resubmit`" in str(caught.value)
        assert "(and 2 more like it)" in str(caught.value)


def test_resubmit_stops_the_batch_that_it_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGBATCH_POLL_SECONDS", "3600")
    with world(tmp_path, faults=("batch-unknown-status",)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        with pytest.raises(NeedsOperator, match="unknown status"):
            manager.wait(job)
        given_up = manager.status(job).shards[0].batch_id
        manager.resubmit(job)
        here.emulator.remove_faults()
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.emulator.report()["calls"]["cancel"] == 1
        assert manager.status(job).shards[0].batch_id != given_up


@pytest.mark.parametrize("fault", ["cancel-500", "cancel-403"])
def test_a_running_batch_that_cannot_be_cancelled_is_not_purged_out_of_sight(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        here.emulator.add_faults(fault)
        with pytest.raises(BatchStateError, match="cannot be cancelled yet"):
            manager.purge(job, force=True)
        assert manager.status(job, offline=True).id == job
        here.emulator.remove_faults()
        here.clock.sleep(60)
        manager.purge(job, force=True)
        assert here.counts()["cancels"] == 1
        assert manager.jobs() == []


def test_a_batch_that_may_exist_is_not_purged_before_it_is_known(tmp_path: Path) -> None:
    with (
        world(tmp_path, faults=("create-committed-drop@1", "list-lag=600")) as here,
        here.manager() as manager,
    ):
        job = submitted(here, manager, tmp_path)
        with pytest.raises(BatchStateError, match="looking whether the batch was created") as caught:
            manager.purge(job, force=True)
        assert f"langbatch resume {job} --wait" in str(caught.value.hint)
        assert manager.wait(job).state == "cancelled"
        manager.purge(job)
        assert here.counts()["cancels"] == 1


@pytest.mark.parametrize("fault", ["upload-429-long=3600@1", "create-429-long=3600@1"])
def test_a_job_that_was_asked_to_wait_before_its_batch_is_cancelled_at_once(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        asked = here.clock.now()
        manager.cancel(job)
        assert manager.wait(job).state == "cancelled"
        assert here.clock.now() - asked < 60
        assert here.counts()["batches"] == 0


def test_a_batch_is_told_to_stop_though_looks_at_it_were_to_wait_and_only_once(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        here.emulator.add_faults("poll-429-long=3600@1", "cancel-429-long=3600@1")
        manager.status(job)  # the look that is told to wait
        manager.cancel(job)
        assert here.emulator.report()["calls"]["cancel"] == 1
        # The answer to that asked to wait as well, and is heeded.
        manager.cancel(job)
        assert here.emulator.report()["calls"]["cancel"] == 1
        here.clock.sleep(3600)
        assert manager.wait(job).state == "cancelled"
        assert here.counts()["cancels"] == 1

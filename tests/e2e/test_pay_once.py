"""Promise 2 through the real SDK: whatever happens to a reply, one batch is paid for one shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from langbatch import BatchStateError, JobManager, NeedsOperator
from support import World, requests_file, world

IDS = [f"task-{n}" for n in range(6)]


def run(here: World, tmp_path: Path) -> str:
    """Submit a small file and see it through; the job's id."""
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with here.manager() as manager:
        job = manager.submit(source, **here.azure)
        status = manager.wait(job.id)
        assert status.state == "completed"
        assert [r.custom_id for r in manager.results(job.id)] == IDS
        assert status.counts.succeeded == len(IDS)
    return job.id


LOST_REPLIES = [
    "create-committed-drop",
    "create-committed-reset",
    "create-committed-500",
    "create-committed-408",
    "create-committed-409",
    "create-committed-html",
    "create-committed-503-html",
    "create-committed-truncated-json",
    "create-committed-null-id",
    "create-committed-other-file",
    "create-committed-redirect",
]


@pytest.mark.parametrize("fault", LOST_REPLIES)
def test_a_batch_whose_reply_was_lost_is_found_and_not_made_again(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(f"{fault}@1",)) as here:
        run(here, tmp_path)
        assert here.emulator.faults_fired() == {fault: 1}
        assert here.counts()["batches"] == here.counts()["uploads"] == 1
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize(
    "fault", ["create-drop", "create-reset", "create-500", "create-409", "create-redirect"]
)
def test_a_create_that_came_to_nothing_is_fenced_before_the_next_attempt(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(f"{fault}@1",)) as here:
        began = here.clock.now()
        run(here, tmp_path)
        counts = here.counts()
        assert (counts["batches"], counts["uploads"], counts["deletes"]) == (1, 2, 1)
        assert here.emulator.payments().max_paid == 1
        # Half an hour of grace: nobody has proven for this endpoint that the fence holds.
        assert here.clock.now() - began >= 1800


def test_a_create_that_arrives_late_fails_at_the_fence(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-late=600@1",)) as here:
        run(here, tmp_path)
        assert here.emulator.report()["late_creates_refused"] == 1
        assert here.emulator.payments().max_paid == 1


def test_a_create_that_arrives_late_but_before_the_fence_is_adopted(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-late=20@1",)) as here:
        run(here, tmp_path)
        assert here.counts()["batches"] == 1
        assert here.counts()["uploads"] == 1


@pytest.mark.parametrize("lag", [30, 600])
def test_a_batch_that_the_list_shows_late_is_adopted(lag: int, tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-committed-drop@1", f"list-lag={lag}")) as here:
        run(here, tmp_path)
        assert here.counts()["batches"] == 1
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize("fault", ["list-500", "list-drop", "list-html", "list-truncated-json"])
def test_bad_47_a_list_that_cannot_be_read_is_never_taken_for_absence(fault: str, tmp_path: Path) -> None:
    """Catalogue row 47: without a readable list the shard stops and asks a person."""
    with world(tmp_path) as here, here.manager() as manager:
        manager.wait(manager.submit(requests_file(tmp_path / "earlier.jsonl", ["other"]), **here.azure).id)
        here.emulator.add_faults("create-drop@1", fault)
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        with pytest.raises(NeedsOperator) as caught:
            manager.wait(job.id)
        assert f"langbatch reconcile {job.id} --adopt" in str(caught.value)
        assert f"langbatch reconcile {job.id} --resubmit" in str(caught.value)
        assert here.counts()["uploads"] == 2
        assert here.counts()["batches"] == 1
        assert manager.status(job.id).state == "needs_operator"
        here.emulator.remove_faults()
        manager.resubmit(job.id)
        assert manager.wait(job.id).state == "completed"
        assert here.counts()["batches"] == 2


@pytest.mark.parametrize("fault", ["list-no-has-more", "list-as-value"])
def test_bad_47_odd_but_complete_lists_are_read(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-committed-drop@1", fault)) as here:
        run(here, tmp_path)
        assert here.counts()["batches"] == 1


@pytest.mark.parametrize(
    "fault", ["batch-metadata-null", "batch-metadata-reordered", "batch-metadata-non-string"]
)
def test_bad_43_a_batch_is_known_by_its_input_file_whatever_its_metadata_says(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=("create-committed-drop@1", fault)) as here:
        run(here, tmp_path)
        assert here.counts()["batches"] == 1


@pytest.mark.parametrize(
    "fault", ["upload-committed-drop", "upload-committed-500", "upload-committed-null-id"]
)
def test_an_upload_whose_reply_was_lost_is_found_by_its_name(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=(f"{fault}@1",)) as here:
        run(here, tmp_path)
        assert here.counts()["uploads"] == here.counts()["batches"] == 1


def test_bad_44_a_renamed_upload_with_a_lost_reply_is_not_adopted_by_name(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-committed-drop@1", "upload-renamed@1")) as here:
        run(here, tmp_path)
        assert here.counts()["uploads"] == 2
        assert here.counts()["batches"] == 1


def test_bad_44_a_renamed_upload_is_used_by_the_id_that_the_reply_gave(tmp_path: Path) -> None:
    with world(tmp_path, faults=("upload-renamed",)) as here:
        run(here, tmp_path)
        assert here.counts()["uploads"] == here.counts()["batches"] == 1


@pytest.mark.parametrize("fault", ["file-error@1", "upload-wrong-bytes@1", "file-stays-pending@1"])
def test_bad_45_46_a_file_the_service_cannot_take_in_is_deleted_and_uploaded_anew(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=(fault,)) as here:
        run(here, tmp_path)
        counts = here.counts()
        assert (counts["uploads"], counts["deletes"], counts["batches"]) == (2, 1, 1)


@pytest.mark.parametrize("fault", ["file-error", "create-500"])
def test_what_never_gets_better_is_given_up_without_a_batch_and_with_the_reason(
    fault: str, tmp_path: Path
) -> None:
    with world(tmp_path, faults=(fault,)) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        with pytest.raises(NeedsOperator, match=r"5 attempts came to nothing; the last trouble: (?!None)"):
            manager.wait(job.id)
        assert here.counts()["batches"] == 0


def test_bad_52_a_404_for_a_known_batch_is_checked_against_the_list_before_it_is_believed(
    tmp_path: Path,
) -> None:
    with world(tmp_path, faults=("poll-404*3",)) as here:
        run(here, tmp_path)
        assert here.counts()["batches"] == 1


def test_bad_52_a_batch_that_the_service_forgot_is_never_sent_again_by_itself(tmp_path: Path) -> None:
    with world(tmp_path, faults=("poll-404", "list-lag=100000000")) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure)
        with pytest.raises(NeedsOperator, match="no longer knows the batch"):
            manager.wait(job.id)
        assert here.counts()["batches"] == here.counts()["uploads"] == 1
        here.emulator.remove_faults()
        with pytest.raises(BatchStateError, match="belongs to another attempt"):
            manager.adopt(job.id, other_batch(here, manager, tmp_path))
        batch_id = manager.status(job.id, offline=True).shards[0].batch_id
        assert batch_id is not None
        manager.adopt(job.id, batch_id)
        assert manager.wait(job.id).counts.succeeded == len(IDS)
        with pytest.raises(BatchStateError, match="that need an operator: none"):
            manager.resubmit(job.id)


def other_batch(here: World, manager: JobManager, tmp_path: Path) -> str:
    job = manager.submit(requests_file(tmp_path / "other.jsonl", ["x"]), **here.azure)
    batch_id = manager.wait(job.id).shards[0].batch_id
    assert batch_id is not None
    return batch_id


def test_two_managers_that_submit_the_same_bytes_at_once_make_one_job(tmp_path: Path) -> None:
    source = requests_file(tmp_path / "in.jsonl", IDS)
    with world(tmp_path) as here, here.manager() as one, here.manager() as two:
        first = one.submit(source, **here.azure)
        second = two.submit(source, **here.azure)
        assert (first.created, second.created) == (True, False)
        assert first.id == second.id
        two.wait(second.id)
        assert here.counts()["batches"] == 1
        third = one.submit(source, new=True, **here.azure)
        assert third.id != first.id
        one.wait(third.id)
        assert here.counts()["batches"] == 2

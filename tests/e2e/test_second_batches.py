"""A batch more than there should be, and one that is not where it should be: never paid in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from langbatch import BatchStateError, JobManager, NeedsOperator, failpoints
from langbatch.running import journal
from support import VirtualClock, World, requests_file, world

IDS = [f"task-{n}" for n in range(6)]


class Killed(BaseException):
    """SIGKILL, as far as one process can play it."""


def die(_: str) -> None:
    raise Killed


def at(point: str, act: Callable[[str], None], nth: int = 1) -> Callable[[str], None]:
    """A listener that acts at the `nth` time that a failpoint is reached, once."""
    left = [nth]

    def listen(reached: str) -> None:
        if reached == point and left[0] > 0:
            left[0] -= 1
            if left[0] == 0:
                act(reached)

    return listen


def submitted(here: World, manager: JobManager, tmp_path: Path) -> str:
    return manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **here.azure).id


def moves(here: World) -> list[str]:
    import sqlite3

    with sqlite3.connect(here.home / "langbatch.db") as database:
        found = [move for (move,) in database.execute("SELECT move FROM events ORDER BY n")]
    database.close()
    return found


# ---------------------------------------------------------------- two batches on one file


def test_of_two_batches_on_one_file_one_is_stopped_and_the_status_says_what_it_cost(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-twice@1", "create-committed-drop@1")) as here:
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
            status = manager.wait(job)
            assert status.counts.succeeded == len(IDS)
            stopped = [
                b["id"] for b in here.emulator.report()["batches"] if b["id"] != status.shards[0].batch_id
            ]
            assert len(stopped) == here.counts()["cancels"] == 1
            said = (
                f"a second batch was made for shard 0 ({stopped[0]}: cancelled; none of its requests had run)"
            )
            assert status.attention == said
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize("point", ["call.cancel_batch.before", "call.cancel_batch.after"])
def test_a_second_batch_is_stopped_though_the_process_that_found_it_is_killed(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path, faults=("create-twice@1", "create-committed-drop@1")) as here:
        with here.manager() as manager, failpoints.listening(at(point, die)), pytest.raises(Killed):
            submitted(here, manager, tmp_path)
        with here.manager() as manager:
            status = manager.wait(manager.jobs()[0].id)
            assert status.counts.succeeded == len(IDS)
            assert str(status.attention).count("a second batch was made") == 1
        assert here.counts()["batches"] == 2
        assert here.counts()["cancels"] == 1


def test_a_second_batch_that_cannot_be_stopped_now_is_stopped_later_and_not_forgotten(tmp_path: Path) -> None:
    faults = ("create-twice@1", "create-committed-drop@1", "cancel-500*2")
    with world(tmp_path, faults=faults) as here, here.manager() as manager:
        manager.wait(submitted(here, manager, tmp_path))
        assert here.counts()["cancels"] == 1


# ---------------------------------------------------------------- a batch that cannot be recognised


def test_a_batch_behind_a_gateway_with_file_ids_of_its_own_is_known_by_its_tag(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-other-file",)) as here, here.manager() as manager:
        assert manager.wait(submitted(here, manager, tmp_path)).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == here.counts()["uploads"] == 1
        assert here.counts()["deletes"] == 0


def test_a_batch_that_nothing_tells_from_others_is_a_persons_to_settle_and_not_made_again(
    tmp_path: Path,
) -> None:
    faults = ("batch-other-file", "batch-metadata-null")
    with world(tmp_path, faults=faults) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        with pytest.raises(NeedsOperator, match="in the list it cannot be told from others") as caught:
            manager.wait(job)
        assert here.counts()["batches"] == 1
        (batch,) = here.emulator.report()["batches"]
        assert batch["id"] in str(caught.value)
        manager.adopt(job, batch["id"])
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


def test_a_batch_with_another_shards_tag_is_not_adopted_where_the_service_hides_files(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = requests_file(tmp_path / "in.jsonl", IDS)
        job = manager.submit(source, max_requests_per_shard=3, **here.azure).id
        manager.wait(job)
        taken = [shard.batch_id for shard in manager.status(job).shards]
        other = manager.submit(requests_file(tmp_path / "other.jsonl", IDS[:2]), start=False, **here.azure).id
        here.emulator.add_faults("batch-other-file", "create-committed-drop@1", "list-500")
        manager.start(other)
        with pytest.raises(NeedsOperator):
            manager.wait(other)
        here.emulator.remove_faults("list-500")
        for batch_id in taken:
            with pytest.raises(BatchStateError, match="belongs to another attempt"):
                manager.adopt(other, str(batch_id))
        manager.purge(job)
        for batch_id in taken:
            with pytest.raises(BatchStateError, match="bears another shard's tag"):
                manager.adopt(other, str(batch_id))
        mine = next(b["id"] for b in here.emulator.report()["batches"] if b["id"] not in taken)
        manager.adopt(other, mine)
        assert manager.wait(other).counts.succeeded == 2


# ---------------------------------------------------------------- lists, clocks


def crowd(here: World, manager: JobManager, batches: int) -> None:
    """Others use the resource: so many batches of theirs, one a minute."""
    job = manager._store.jobs()[0]
    provider = manager._access.provider(job)
    source = requests_file(here.home / "crowd.jsonl", ["x"])
    with source.open("rb") as stream:
        file = provider.upload("crowd.jsonl", stream, source.stat().st_size)
    provider.get_file(file.id)
    for _ in range(batches):
        provider.create_batch(file.id, {})
        here.clock.sleep(60)


@pytest.fixture
def killed_after_its_create(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[World], None]:
    monkeypatch.setenv("AZURE_API_KEY", "any")

    def play(here: World) -> None:
        listener = at("call.create_batch.after", die)
        with here.manager() as manager, failpoints.listening(listener), pytest.raises(Killed):
            submitted(here, manager, tmp_path)
        here.clock.sleep(60)

    return play


def finish_with_one_batch_of_ours(here: World) -> None:
    with here.manager() as manager:
        assert manager.wait(manager.jobs()[0].id).counts.succeeded == len(IDS)
    ours = [p for p in here.emulator.each_payment() if p.custom_id in IDS]
    assert [payment.paid for payment in ours] == [1] * len(IDS)


def test_a_list_that_is_oldest_first_hides_no_batch(
    tmp_path: Path, killed_after_its_create: Callable[[World], None]
) -> None:
    with world(tmp_path) as here:
        with here.manager() as manager:
            manager.wait(manager.submit(requests_file(tmp_path / "first.jsonl", ["y"]), **here.azure).id)
            crowd(here, manager, 101)
        here.clock.sleep(86_400)
        killed_after_its_create(here)
        here.emulator.add_faults("list-oldest-first")
        with here.manager() as manager:
            job = manager.jobs()[1].id
            assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["deletes"] == 0
        assert max(p.paid for p in here.emulator.each_payment() if p.custom_id in IDS) == 1


@dataclass
class SetClock(VirtualClock):
    """This machine's clock, which somebody sets; steady time runs on."""

    right: VirtualClock
    ahead: float = 0.0

    def __post_init__(self) -> None:
        self.emulated = self.right.emulated

    def now(self) -> float:
        return self.right.now() + self.ahead

    def monotonic(self) -> float:
        return self.right.now()


@pytest.mark.parametrize("ahead", [7_200.0, 3 * 86_400.0])
def test_bad_40_a_clock_that_is_set_back_after_the_create_hides_no_batch(
    ahead: float, tmp_path: Path, killed_after_its_create: Callable[[World], None]
) -> None:
    with world(tmp_path) as right:
        clock = SetClock(right.clock, ahead)
        here = World(right.home, clock, right.emulator)
        killed_after_its_create(here)
        with here.manager() as manager:
            crowd(here, manager, 101)
        clock.ahead = 0.0
        finish_with_one_batch_of_ours(here)


@pytest.mark.parametrize("jump", [3_600.0, -30 * 86_400.0])
def test_bad_40_a_clock_that_is_set_behind_the_fence_neither_cuts_the_grace_nor_draws_it_out(
    jump: float, tmp_path: Path
) -> None:
    with world(tmp_path, faults=("create-committed-drop@1", "list-lag=900@1")) as right:
        clock = SetClock(right.clock)
        here = World(right.home, clock, right.emulator)

        def set_it(_: str) -> None:
            clock.ahead = jump

        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
            began = right.clock.now()
            # The third list is the first one behind the fence.
            with failpoints.listening(at("call.list_batches.before", set_it, nth=3)):
                manager.advance(job)
                while not (status := manager.status(job)).finished:
                    right.clock.sleep(30)
            assert status.counts.succeeded == len(IDS)
            assert clock.ahead == jump
        assert right.clock.now() - began < 2_400
        assert here.counts()["batches"] == 1


@pytest.mark.parametrize("all_of_them", [True, False])
def test_bad_40_a_clock_that_is_set_back_while_a_process_waits_does_not_keep_it_waiting(
    all_of_them: bool, tmp_path: Path
) -> None:
    with world(tmp_path) as right:
        clock = SetClock(right.clock)
        here = World(right.home, clock, right.emulator)

        def set_back(_: str) -> None:
            clock.ahead = -30 * 86_400.0

        with here.manager() as manager, failpoints.listening(at("call.get_batch.after", set_back, nth=2)):
            job = submitted(here, manager, tmp_path)
            began = right.clock.now()
            if all_of_them:
                assert manager.wait_all([job]) == {}
            else:
                manager.wait(job)
            assert clock.ahead < 0
            assert right.clock.now() - began < 3_600


# ---------------------------------------------------------------- the fence


@pytest.mark.parametrize("profile", ["azure", "openai"])
def test_a_gateway_that_cannot_delete_files_sets_no_fence(profile: str, tmp_path: Path) -> None:
    """It answers 404 to the deletion, and the file is still there."""
    with world(tmp_path, faults=("create-drop@1", "delete-file-404")) as here, here.manager() as manager:
        target = here.azure
        if profile == "openai":
            target = {"provider": "openai", "base_url": "https://api.openai.com/v1", "api_key": "any"}
        job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), **target).id
        with pytest.raises(NeedsOperator, match="the input file cannot be deleted"):
            manager.wait(job)
        assert here.counts()["uploads"] == 1


def test_a_role_that_may_not_delete_files_asks_a_person_in_the_end(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop@1", "delete-file-403")) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        for _ in range(5):
            here.clock.sleep(120)
            manager.advance(job, eager=True)
        assert "the input file cannot be deleted: HTTP 403" in str(manager.status(job).attention)
        manager.resubmit(job)
        assert manager.wait(job).counts.succeeded == len(IDS)


@pytest.mark.parametrize("fault", ["delete-file-401-key", "delete-file-403"])
def test_access_that_is_refused_altogether_pauses_a_fence(fault: str, tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop@1", fault)) as here, here.manager() as manager:
        job = submitted(here, manager, tmp_path)
        here.clock.sleep(120)
        manager.advance(job, eager=True)
        here.emulator.add_faults("list-403")
        for _ in range(5):
            here.clock.sleep(120)
            manager.advance(job, eager=True)
        assert manager.status(job).state == "paused"
        here.emulator.remove_faults()
        assert manager.wait(job).counts.succeeded == len(IDS)


def test_a_deletion_whose_reply_was_lost_is_a_fence_once_the_file_is_gone(tmp_path: Path) -> None:
    with world(tmp_path, faults=("create-drop@1", "delete-file-committed-drop@1")) as here:
        with here.manager() as manager:
            assert manager.wait(submitted(here, manager, tmp_path)).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


def test_a_late_create_that_the_service_takes_and_fails_for_want_of_its_file_is_no_refusal(
    tmp_path: Path,
) -> None:
    """Some services look for the input file only in validation; nothing has run then."""
    with world(tmp_path, faults=("create-late=600@1",), missing_file="fail") as here:
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
            assert manager.wait(job).counts.succeeded == len(IDS)
            assert manager.status(job).shards[0].attempt == 2
        assert "stopped_by_fence" in moves(here)
        assert here.counts()["batches"] == 2
        assert here.emulator.payments().max_paid == 1


@pytest.mark.parametrize("answer", [{"missing_file_status": 400}, {"missing_file_status": 404}])
def test_an_input_file_that_somebody_else_deleted_is_uploaded_anew_and_fails_no_job(
    answer: dict[str, object], tmp_path: Path
) -> None:
    with world(tmp_path, **answer) as here, here.manager() as manager:

        def tidy(_: str) -> None:
            job = manager._store.jobs()[0]
            (attempt,) = manager._store.attempts(job.key, 0)
            manager._access.provider(job).delete_file(str(attempt.file_id))

        with failpoints.listening(at("call.create_batch.before", tidy)):
            job = submitted(here, manager, tmp_path)
        assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


# ---------------------------------------------------------------- frozen with a batch in its hand


def overtaken(here: World, tmp_path: Path, *, finish: bool) -> str:
    """A process freezes between its create and its commit; another one takes the shard over and goes on as
    long as it can, or to the end."""
    with here.manager() as one, here.manager() as two:

        def freeze(_: str) -> None:
            here.clock.sleep(40)
            job = two.jobs()[0].id
            two.use_credentials(job, one._access._credentials[job, 0])
            with pytest.raises(NeedsOperator) if not finish else failpoints.listening(lambda _: None):
                two.wait(job)

        with failpoints.listening(at("call.create_batch.after", freeze)):
            return submitted(here, one, tmp_path)


def test_the_id_that_a_frozen_process_brings_back_settles_what_a_list_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path, faults=("list-500",)) as here:
        job = overtaken(here, tmp_path, finish=False)
        with here.manager() as manager:
            assert manager.status(job, offline=True).shards[0].state == "active"
            assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1
        assert list((here.home / journal.NAME).iterdir()) == []


def test_a_batch_that_a_frozen_process_made_in_spite_of_all_is_stopped_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its list lags behind for longer than the grace period: an assumption that did not hold."""
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path, faults=("list-lag=100000@1",)) as here:
        job = overtaken(here, tmp_path, finish=True)
        with here.manager() as manager:
            status = manager.status(job)
            assert status.counts.succeeded == len(IDS)
            late = next(b for b in here.emulator.report()["batches"] if b["id"] != status.shards[0].batch_id)
            assert late["id"] in str(status.attention)
        assert list((here.home / journal.NAME).iterdir()) == []


# ---------------------------------------------------------------- an older copy of the database


def copy_database(here: World, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for path in here.home.glob("langbatch.db*"):
        shutil.copy(path, to)


def restore_database(here: World, kept: Path) -> None:
    for path in here.home.glob("langbatch.db*"):
        path.unlink()
    for path in kept.iterdir():
        shutil.copy(path, here.home)


#: Commits, each a moment of which a backup may be; the last ones are those of a job that is waited for.
@pytest.mark.parametrize(
    ("ended", "commit"), [*((False, commit) for commit in range(2, 10)), *((True, n) for n in range(2, 13))]
)
def test_a_database_restored_from_any_moment_before_pays_nothing_again(
    ended: bool, commit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    kept = tmp_path / "backup"
    with world(tmp_path) as here:
        with here.manager() as manager:
            listener = at("commit.after", lambda _: copy_database(here, kept), nth=commit)
            with failpoints.listening(listener):
                job = submitted(here, manager, tmp_path)
                if ended:
                    manager.wait(job)
        assert kept.exists()
        restore_database(here, kept)
        here.clock.sleep(60)
        with here.manager() as manager:
            found = manager.jobs()
            if found:
                assert manager.wait(job).counts.succeeded == len(IDS)
                assert here.counts()["batches"] == 1


def test_an_older_database_whose_batch_no_list_tells_asks_a_person_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    kept = tmp_path / "backup"
    with world(tmp_path, faults=("batch-metadata-null",)) as here:
        with here.manager() as manager:
            source = requests_file(tmp_path / "in.jsonl", IDS)
            job = manager.submit(source, start=False, **here.azure).id
        copy_database(here, kept)
        with here.manager() as manager:
            manager.wait(job)
        restore_database(here, kept)
        with here.manager() as manager:
            with pytest.raises(NeedsOperator, match="recover --from-remote"):
                manager.wait(job)
            assert here.counts()["batches"] == 1
            (batch,) = here.emulator.report()["batches"]
            manager.adopt(job, batch["id"])
            assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


def test_gc_with_an_older_database_spares_files_that_a_batch_may_be_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    kept = tmp_path / "backup"
    with world(tmp_path) as here:
        with here.manager() as manager:
            source = requests_file(tmp_path / "in.jsonl", IDS)
            job = manager.submit(source, start=False, **here.azure).id
        copy_database(here, kept)
        with here.manager() as manager:
            manager.start(job)
        restore_database(here, kept)
        here.clock.sleep(3 * 86_400)
        with here.manager() as manager:
            assert manager.gc().deleted == ()
            assert manager.wait(job).counts.succeeded == len(IDS)
        assert here.counts()["batches"] == 1


# ---------------------------------------------------------------- no database at all


def test_the_same_requests_are_not_paid_again_because_the_database_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "any")
    with world(tmp_path) as here:
        with here.manager() as manager:
            job = submitted(here, manager, tmp_path)
        for path in here.home.glob("langbatch.db*"):
            path.unlink()
        with here.manager() as manager:
            with pytest.raises(BatchStateError, match=f"sent before, as {job}") as caught:
                submitted(here, manager, tmp_path)
            assert "recover --from-remote" in str(caught.value.hint)
            other = manager.submit(requests_file(tmp_path / "other.jsonl", ["x"]), **here.azure)
            again = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), new=True, **here.azure)
            assert len({job, other.id, again.id}) == 3
        assert here.counts()["batches"] == 3

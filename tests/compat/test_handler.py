"""`BatchHandler`: each finished batch is handled once, and no error ends it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.pipeline import ROUNDS, Calls, do, handler, kwargs, queue_file, rounds, saved
from langbatch import AccessRefused, BatchHandler, BatchStorageError, JobManager, OpenAIChatCompletionBatch
from langbatch.compat.queues import BatchQueue, FileBatchQueue, Queues
from langbatch.compat.storages import FileBatchStorage
from support import SECRET_PROMPT, World, world

#: After so many seconds a service gives a batch up.
DAY = 86_400.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def queues(place: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(queue_file(place).read_text())
    return found


def test_a_pending_batch_is_started_watched_and_handled_once(place: World) -> None:
    calls = Calls(then=lambda batch: results.append(batch.get_results()))
    results: list[Any] = []
    batch = saved(place, "a", "b")
    worker = handler(place, calls)
    do(worker.add_batch(batch.id))
    rounds(place, worker)
    rounds(place, worker, most=2)
    assert calls.ids == [batch.id]
    assert [one["custom_id"] for one in results[0][0]] == ["a", "b"]
    assert queues(place) == {"pending": [], "processing": []}


def test_a_batch_is_handled_once_by_handlers_that_each_live_for_one_round(place: World) -> None:
    calls = Calls()
    ids = [saved(place, name).id for name in ("a", "b", "c")]
    for batch_id in ids:
        do(handler(place, calls).add_batch(batch_id))
    for _ in range(12):
        do(handler(place, calls).run_once())
        place.clock.sleep(60)
    assert sorted(calls.ids) == sorted(ids)
    assert place.emulator.payments().paid_twice == 0


def test_a_batch_whose_handler_died_after_the_start_is_not_sent_again(place: World) -> None:
    calls = Calls()
    batch = saved(place, "a")
    do(handler(place, calls).add_batch(batch.id))
    batch.start()  # and then the process dies before the queue says so
    assert queues(place)["pending"] == [batch.id]
    rounds(place, handler(place, calls))
    assert calls.ids == [batch.id]
    assert place.counts()["batches"] == 1


def test_a_batch_during_whose_call_the_process_died_is_handled_again(place: World) -> None:
    class Died(BaseException):
        pass

    def die(batch: Any) -> None:
        raise Died

    batch = saved(place, "a")
    calls = Calls(then=die)
    do(handler(place, calls).add_batch(batch.id))
    with pytest.raises(Died):
        rounds(place, handler(place, calls))
    survivor = Calls()
    rounds(place, handler(place, survivor))
    assert (calls.ids, survivor.ids) == ([batch.id], [batch.id])


def test_a_function_that_raises_holds_up_no_other_batch_and_loses_none(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = saved(place, "a").id, saved(place, "b").id

    def raises(batch: Any) -> None:
        if batch.id == bad:
            raise RuntimeError(SECRET_PROMPT)

    calls = Calls(then=raises)
    worker = handler(place, calls)
    for batch_id in (bad, good):
        do(worker.add_batch(batch_id))
    rounds(place, worker)
    assert sorted(calls.ids) == sorted([bad, good])
    assert queues(place) == {"pending": [], "processing": [], "failed": [bad]}
    assert "RuntimeError" in caplog.text
    assert "in raises" in caplog.text
    assert SECRET_PROMPT not in caplog.text


def test_a_failed_batch_is_taken_up_again_when_it_is_added_again(place: World) -> None:
    batch = saved(place, "a")
    faults = [RuntimeError("the user's database is down")]

    def once(_: Any) -> None:
        if faults:
            raise faults.pop()

    calls = Calls(then=once)
    worker = handler(place, calls)
    do(worker.add_batch(batch.id))
    rounds(place, worker)
    do(worker.add_batch(batch.id))
    rounds(place, worker)
    assert calls.ids == [batch.id, batch.id]
    assert queues(place) == {"pending": [], "processing": [], "failed": []}


def test_a_coroutine_function_is_awaited(place: World) -> None:
    finished: list[str] = []

    async def process(batch: Any) -> None:
        await asyncio.sleep(0)
        finished.append(batch.id)

    batch = saved(place, "a")
    worker = handler(place, process)
    do(worker.add_batch(batch.id))
    rounds(place, worker)
    assert finished == [batch.id]


def test_a_coroutine_function_that_raises_leaves_its_batch_in_failed(place: World) -> None:
    async def process(batch: Any) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("no")

    batch = saved(place, "a")
    worker = handler(place, process)
    do(worker.add_batch(batch.id))
    rounds(place, worker)
    assert queues(place)["failed"] == [batch.id]


def test_a_batch_that_is_nowhere_holds_up_no_other_and_stays_queued(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls()
    batch = saved(place, "a")
    worker = handler(place, calls)
    do(worker.add_batch("job_unknown"))
    do(worker.add_batch(batch.id))
    rounds(place, worker, most=8)
    assert calls.ids == [batch.id]
    assert queues(place)["pending"] == ["job_unknown"]
    assert "Batch with id job_unknown not found" in caplog.text


def test_batches_that_cannot_be_started_keep_none_behind_them_waiting(place: World) -> None:
    """As many as a round starts, and one more."""
    calls = Calls()
    batch = saved(place, "a")
    worker = handler(place, calls)
    lost = [f"job_unknown{number}" for number in range(5)]
    for batch_id in (*lost, batch.id):
        worker.queue_batch(batch_id)
    rounds(place, worker, most=8)
    assert calls.ids == [batch.id]
    assert sorted(queues(place)["pending"]) == lost


def test_the_loop_goes_on_after_a_round_that_could_not_be_done(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    batch = saved(place, "a")
    slept: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            queue_file(place).write_text('{"pending": ["' + batch.id + '"], "processing": []}')
        place.clock.sleep(seconds)
        if calls.ids:
            raise Enough

    calls = Calls()
    worker = handler(place, calls, wait_time=60, sleep=sleep)
    queue_file(place).write_text("not JSON")
    with pytest.raises(Enough):
        do(worker.run())
    assert calls.ids == [batch.id]
    assert set(slept) == {60}
    assert "cannot be read" in caplog.text


def test_a_round_starts_four_batches_at_most(place: World) -> None:
    ids = [saved(place, f"r{number}").id for number in range(6)]
    worker = handler(place, Calls())
    for batch_id in ids:
        worker.queue_batch(batch_id)
    do(worker.run_once())
    assert (queues(place)["processing"], queues(place)["pending"]) == (ids[:4], ids[4:])


def test_a_batch_that_is_queued_already_is_not_queued_twice(place: World) -> None:
    batch = saved(place, "a")
    worker = handler(place, Calls())
    do(worker.add_batch(batch.id))
    do(worker.add_batch(batch.id))
    assert queues(place)["pending"] == [batch.id]


def test_taking_a_batch_out_of_the_queue_leaves_its_job_alone(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    batch = saved(place, "a")
    worker = handler(place, Calls())
    do(worker.add_batch(batch.id))
    do(worker.cancel_batch(batch.id))
    assert queues(place) == {"pending": [], "processing": []}
    assert batch.status().state == "draft"
    assert "no queue" not in caplog.text
    do(worker.cancel_batch(batch.id))
    assert "no queue" in caplog.text


def test_a_batch_that_was_cancelled_leaves_the_queue_without_being_handled(place: World) -> None:
    calls = Calls()
    batch = saved(place, "a")
    worker = handler(place, calls)
    worker.queue_batch(batch.id)
    do(worker.run_once())
    assert batch.cancel()
    rounds(place, worker)
    assert calls.ids == []
    assert queues(place) == {"pending": [], "processing": []}


def test_an_expired_batch_is_sent_again_and_then_handled(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-expire=0@1",)) as place:
        results: list[Any] = []
        calls = Calls(then=lambda batch: results.append(batch.get_results()))
        batch = saved(place, "a")
        worker = handler(place, calls)
        worker.queue_batch(batch.id)
        rounds(place, worker, apart=DAY)
        assert calls.ids == [batch.id]
        assert [one["custom_id"] for one in results[0][0]] == ["a"]
        assert place.counts()["batches"] == 2


def test_a_batch_that_expires_for_ever_ends_in_failed_and_not_in_ever_more_batches(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-expire=0",)) as place:
        calls = Calls()
        batch = saved(place, "a")
        worker = handler(place, calls)
        worker.queue_batch(batch.id)
        rounds(place, worker, apart=DAY)
        assert calls.ids == []
        assert queues(place)["failed"] == [batch.id]
        assert place.counts()["batches"] <= 4


def test_a_round_without_room_leaves_retries_for_the_next(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-expire=0*2",)) as place:
        calls = Calls()
        ids = [saved(place, name).id for name in ("a", "b")]
        starter = handler(place, calls)
        for batch_id in ids:
            starter.queue_batch(batch_id)
        do(starter.run_once())
        worker = handler(place, calls, starts_per_round=1)
        grown = []
        for _ in range(ROUNDS):
            before = place.counts()["batches"]
            do(worker.run_once())
            grown.append(place.counts()["batches"] - before)
            place.clock.sleep(DAY)
        assert (max(grown), sum(grown)) == (1, 2)
        assert sorted(calls.ids) == sorted(ids)


def test_a_batch_that_ran_out_of_time_with_all_answers_is_handled(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-expire=all",)) as place:
        calls = Calls()
        batch = saved(place, "a")
        worker = handler(place, calls)
        worker.queue_batch(batch.id)
        rounds(place, worker, apart=DAY)
        assert calls.ids == [batch.id]
        assert place.counts()["batches"] == 1


def test_a_batch_refused_for_good_goes_to_failed(tmp_path: Path) -> None:
    with world(tmp_path, deployments=frozenset({"another"})) as place:
        calls = Calls()
        batch = saved(place, "a")
        worker = handler(place, calls)
        worker.queue_batch(batch.id)
        rounds(place, worker)
        assert calls.ids == []
        assert queues(place)["failed"] == [batch.id]


def test_one_step_at_a_time_can_be_asked_for(place: World, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()
    batch = saved(place, "a")
    worker = handler(place, calls)

    async def steps() -> None:
        await worker.start_batch(batch)  # not queued: says so
        await worker.add_batch(batch.id)
        await worker.start_batch(batch)
        await worker.process_completed_batch(saved(place, "b"))  # not started: says so

    do(steps())
    assert queues(place)["processing"] == [batch.id]
    assert "is not pending" in caplog.text
    assert "is not in processing" in caplog.text
    while batch.get_status() != "completed":
        place.clock.sleep(60)
    do(worker.process_completed_batch(batch))
    do(worker.process_completed_batch(batch))
    assert calls.ids == [batch.id]


def test_a_start_that_fails_is_raised_and_the_batch_stays_pending(tmp_path: Path) -> None:
    with world(tmp_path, api_key="the-right-one-0123456789") as place:
        batch = saved(place, "a")
        worker = handler(place, Calls())
        worker.queue_batch(batch.id)
        with pytest.raises(AccessRefused):
            do(worker.start_batch(batch))
        assert queues(place)["pending"] == [batch.id]
        calls = Calls()
        right = {**kwargs(place), "api_key": "the-right-one-0123456789"}
        queue = FileBatchQueue(queue_file(place))
        rounds(place, BatchHandler(calls, OpenAIChatCompletionBatch, queue, batch_kwargs=right))
        assert calls.ids == [batch.id]


def test_of_two_handlers_on_one_queue_only_one_works_at_a_time(place: World) -> None:
    calls = Calls()
    batch = saved(place, "a")
    worker = handler(place, calls)
    worker.queue_batch(batch.id)
    do(worker.run_once())
    while batch.get_status() != "completed":
        place.clock.sleep(60)
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Any) -> None:
        entered.set()
        leave.wait(60)

    calls.then = slow
    second = Calls()

    async def both() -> None:
        first = asyncio.create_task(worker.run_once())
        await asyncio.to_thread(entered.wait, 60)
        first.cancel()  # as at a shutdown: the call goes on, and with it the turn
        for _ in range(10):
            await asyncio.sleep(0)
        assert not first.done()
        await handler(place, second).run_once()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        await handler(place, second).run_once()

    try:
        do(both())
    finally:
        leave.set()
    assert (calls.ids, second.ids) == ([batch.id], [])
    assert queues(place) == {"pending": [], "processing": []}


class Kept(BatchQueue):
    """A queue of a user's own, as LangBatch's documentation tells to write one."""

    def __init__(self) -> None:
        self.kept: Queues = {"pending": [], "processing": []}

    def save(self, queue: Queues) -> None:
        self.kept = json.loads(json.dumps(queue))

    def load(self) -> Queues:
        loaded: Queues = json.loads(json.dumps(self.kept))
        return loaded


def test_a_queue_and_a_storage_of_ones_own_serve(place: World, tmp_path: Path) -> None:
    calls, queue, storage = Calls(), Kept(), FileBatchStorage(tmp_path / "mine")
    batch = saved(place, "a")
    batch.save(storage)

    def fresh() -> BatchHandler:
        return BatchHandler(
            calls, OpenAIChatCompletionBatch, batch_queue=queue, batch_storage=storage, batch_kwargs=kwargs(place)
        )  # fmt: skip

    do(fresh().add_batch(batch.id))
    rounds(place, fresh())
    rounds(place, fresh(), most=2)
    assert calls.ids == [batch.id]
    assert queue.kept == {"pending": [], "processing": []}
    meta = json.loads(storage.load(batch.id)[1].read_text())
    assert meta["platform_batch_id"] == batch.platform_batch_id
    assert meta["platform_batch_id"] is not None


def test_a_queue_file_that_is_damaged_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"pending": 3}'):
        (tmp_path / "queue.json").write_text(text)
        with pytest.raises(BatchStorageError):
            BatchHandler(Calls(), OpenAIChatCompletionBatch, FileBatchQueue(tmp_path / "queue.json"))
        assert (tmp_path / "queue.json").read_text() == text


def test_without_a_queue_the_file_is_batch_queue_json_in_the_working_folder(
    place: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worker = BatchHandler(Calls(), OpenAIChatCompletionBatch)
    worker.queue_batch("job_x")
    assert queues(place) == {"pending": ["job_x"], "processing": []}
    assert (tmp_path / "batch_queue.json").stat().st_mode & 0o777 == 0o600


def test_jobs_stay_in_the_store_after_they_were_handled(place: World) -> None:
    batch = saved(place, "a")
    worker = handler(place, Calls())
    worker.queue_batch(batch.id)
    rounds(place, worker)
    manager: JobManager = place.manager()
    assert [status.state for status in manager.jobs()] == ["completed"]

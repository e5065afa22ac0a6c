"""`BatchDispatcher`: every request that was queued becomes part of one job, whatever goes wrong between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from compat.pipeline import Calls, do, handler, queue_file, rounds
from compat.redis_server import running_redis
from langbatch import BatchDispatcher, BatchHandler
from langbatch.compat.redis_queue import RedisRequestQueue
from langbatch.compat.request_queues import Claim, InMemoryRequestQueue
from support import World, chat_line, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def client() -> Iterator[Any]:
    with running_redis() as url, closing(redis.from_url(url)) as client:
        yield client


def messages(*texts: str) -> list[Any]:
    return [[{"role": "user", "content": text}] for text in texts]


def dispatcher(
    place: World, queue: Any, worker: BatchHandler | None = None, **options: Any
) -> BatchDispatcher:
    given = {"queue_threshold": 2, "request_kwargs": {"model": "dep"}, **options}
    return BatchDispatcher(worker or handler(place, Calls()), queue, clock=place.clock, **given)


def pending(place: World) -> list[str]:
    ids: list[str] = json.loads(queue_file(place).read_text())["pending"]
    return ids


def asked(place: World) -> list[list[str]]:
    """Per job of the store, what its requests ask."""
    manager = place.manager()
    found = []
    for status in manager.jobs():
        snapshot = manager.snapshot(status.id)
        lines = [json.loads(line) for line in snapshot.lines(0, snapshot.total)]
        found.append([line["body"]["messages"][0]["content"] for line in lines])
    return found


def test_a_full_queue_becomes_batches_at_once_and_the_rest_waits_for_its_time(place: World) -> None:
    queue = InMemoryRequestQueue()
    work = dispatcher(place, queue, time_threshold=3600)
    queue.add_requests(messages("a", "b", "c", "d", "e"))
    do(work.run_once())
    assert asked(place) == [["a", "b"], ["c", "d"]]
    assert len(queue) == 1
    place.clock.sleep(3599)
    do(work.run_once())
    assert len(queue) == 1
    place.clock.sleep(1)
    do(work.run_once())
    assert asked(place)[2:] == [["e"]]
    assert len(pending(place)) == 3


def test_what_was_dispatched_is_handled(place: World) -> None:
    answers: list[str] = []
    calls = Calls(then=lambda batch: answers.extend(one["custom_id"] for one in batch.get_results()[0]))
    worker = handler(place, calls)
    queue = InMemoryRequestQueue()
    queue.add_requests(messages("a", "b", "a", "b"))
    do(dispatcher(place, queue, worker).run_once())
    rounds(place, worker)
    assert len(calls.ids) == 2  # the same questions, asked twice, are two batches
    assert len(set(answers)) == 4
    assert place.emulator.payments().paid_twice == 0


def test_full_requests_are_taken_as_they_are(place: World) -> None:
    queue = InMemoryRequestQueue()
    queue.add_requests([json.loads(chat_line(name)) for name in ("x", "y")])
    do(dispatcher(place, queue, requests_type="full").run_once())
    manager = place.manager()
    (status,) = manager.jobs()
    assert list(manager.snapshot(status.id).ids(0, 2)) == ["x", "y"]


def test_invalid_requests_are_left_out_and_listed(place: World) -> None:
    queue = InMemoryRequestQueue()
    queue.add_requests([json.loads(chat_line("good")), {"custom_id": "bad", "method": "POST"}])
    do(dispatcher(place, queue, requests_type="full").run_once())
    manager = place.manager()
    (status,) = manager.jobs()
    assert (status.total, status.rejected) == (1, 1)
    rejects = manager.rejects_file(status.id)
    assert rejects is not None
    assert json.loads(rejects.read_text())["custom_id"] == "bad"
    assert pending(place) == [status.id]


@pytest.mark.parametrize("value", [float("nan"), {"no", "JSON"}, "half \ud800"])
def test_a_request_that_json_cannot_hold_is_left_out_and_the_others_go_on(place: World, value: Any) -> None:
    queue = InMemoryRequestQueue()
    (good,) = messages("good")
    queue.add_requests([good, {"messages": good, "user": value}])
    do(dispatcher(place, queue).run_once())
    (status,) = place.manager().jobs()
    assert (status.total, status.rejected) == (1, 1)
    assert queue.refused() == []


@pytest.mark.parametrize(
    "requests", [[{"custom_id": "bad"}] * 2, [{"not": {"JSON"}}] * 2, [{"JSON"}, object()]]
)
def test_requests_no_batch_can_be_made_of_are_set_aside_and_the_next_go_on(
    place: World, requests: list[Any]
) -> None:
    queue = InMemoryRequestQueue()
    queue.add_requests([*requests, *(json.loads(chat_line(name)) for name in ("x", "y"))])
    do(dispatcher(place, queue, requests_type="full").run_once())
    assert queue.refused() == requests
    assert len(pending(place)) == 1
    assert len(queue) == 0


class FailingHandler(BatchHandler):
    """A handler whose queue cannot be written the first time."""

    broken = True

    def queue_batch(self, batch_id: str) -> None:
        if self.broken:
            self.broken = False
            raise OSError(28, "No space left on device")
        super().queue_batch(batch_id)


def failing(place: World) -> FailingHandler:
    whole = handler(place, Calls())
    return FailingHandler(Calls(), whole.batch_type, whole.batch_queue, batch_kwargs=whole.batch_kwargs)


def test_an_error_in_between_loses_nothing_and_makes_no_second_job(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    queue = InMemoryRequestQueue()
    queue.add_requests(messages("a", "b"))
    work = dispatcher(place, queue, failing(place))
    do(work.run_once())
    assert not queue_file(place).exists()
    assert "OSError" in caplog.text
    do(work.run_once())
    assert asked(place) == [["a", "b"]]
    assert pending(place) == [status.id for status in place.manager().jobs()]
    assert queue.open_claims() == []


def test_the_loop_goes_on_while_the_queue_cannot_be_reached(
    place: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(InMemoryRequestQueue):
        away = 2

        def __len__(self) -> int:
            if self.away:
                self.away -= 1
                raise ConnectionError
            return super().__len__()

    class Enough(Exception):
        pass

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise Enough

    queue = Away()
    queue.add_requests(messages("a", "b"))
    with pytest.raises(Enough):
        do(dispatcher(place, queue, time_interval=600, sleep=sleep).run())
    assert slept == [600, 600, 600]
    assert caplog.text.count("raised ConnectionError") == 2
    assert asked(place) == [["a", "b"]]


class Died(BaseException):
    """The end of a process, as far as what follows can tell."""


class Mortal(RedisRequestQueue):
    """Dies before or after one of its methods."""

    def __init__(self, client: Any, when: str) -> None:
        super().__init__(client)
        self.when = when

    def claim(self, count: int) -> Claim | None:
        claimed = super().claim(count)
        if self.when == "claimed":
            raise Died
        return claimed

    def became(self, claim: Claim, job_id: str) -> None:
        if self.when == "saved":
            raise Died
        super().became(claim, job_id)
        if self.when == "noted":
            raise Died

    def acknowledge(self, claim: Claim) -> None:
        if self.when == "queued":
            raise Died
        super().acknowledge(claim)


@pytest.mark.parametrize("when", ["claimed", "saved", "noted", "queued"])
@pytest.mark.parametrize("started", [False, True])
def test_a_death_at_any_point_leads_to_one_job_that_is_handled_once(
    place: World, client: Any, when: str, started: bool
) -> None:
    queue = Mortal(client, when)
    queue.add_requests(messages("a", "b"))
    calls = Calls()
    with pytest.raises(Died):
        do(dispatcher(place, queue, handler(place, calls)).run_once())
    if started:
        rounds(place, handler(place, calls))  # the handler lives in another process, and is quick
    client.delete(*client.keys("request_queue:lease:*"))  # ten minutes later
    survivor = dispatcher(
        place, RedisRequestQueue(client), handler(place, calls), request_kwargs={"model": "dep"}
    )
    do(survivor.run_once())
    do(survivor.run_once())
    rounds(place, handler(place, calls))
    assert asked(place) == [["a", "b"]]
    assert len(calls.ids) == 1
    assert client.keys("*") == []
    assert place.counts()["batches"] == 1
    assert place.emulator.payments().paid_twice == 0


def test_a_dispatcher_whose_claim_was_taken_over_steps_back(
    place: World, client: Any, tmp_path: Path
) -> None:
    taker = dispatcher(place, RedisRequestQueue(client))

    class Slow(RedisRequestQueue):
        """Wakes up after its lease has run out and another machine has dispatched what it holds."""

        def claim(self, count: int) -> Claim | None:
            claimed = super().claim(count)
            client.delete(*client.keys("request_queue:lease:*"))
            do(taker.run_once())
            return claimed

    queue = Slow(client)
    queue.add_requests(messages("a", "b"))
    elsewhere = replace(place, home=tmp_path / "another machine" / "home")
    do(dispatcher(elsewhere, queue, time_threshold=3600).run_once())
    assert len(pending(place)) == 1
    assert elsewhere.manager().jobs() == []
    assert not queue_file(elsewhere).exists()

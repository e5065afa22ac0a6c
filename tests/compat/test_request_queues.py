"""Request queues: one suite for all, and what Redis adds. The Redis here is a server over TCP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import redis

from compat.redis_server import running_redis
from langbatch.compat.redis_queue import RedisRequestQueue
from langbatch.compat.request_queues import InMemoryRequestQueue, RequestQueue


class ListQueue(RequestQueue):
    """A queue of a user's own, with no more than LangBatch asked for."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def add_requests(self, requests: list[Any]) -> None:
        self.requests += requests

    def get_requests(self, count: int) -> list[Any]:
        taken, self.requests = self.requests[:count], self.requests[count:]
        return taken

    def __len__(self) -> int:
        return len(self.requests)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with closing(redis.from_url(redis_url)) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["memory", "a user's own", "redis", "redis in text"])
def queue(request: pytest.FixtureRequest) -> Iterator[RequestQueue]:
    with ExitStack() as stack:
        match request.param:
            case "memory":
                yield InMemoryRequestQueue()
            case "a user's own":
                yield ListQueue()
            case "redis":
                yield RedisRequestQueue(request.getfixturevalue("client"))
            case _:
                request.getfixturevalue("client")
                url = request.getfixturevalue("redis_url")
                text = stack.enter_context(closing(redis.from_url(url, decode_responses=True)))
                yield RedisRequestQueue(text)


MESSAGES = [[{"role": "user", "content": f"frage {number} ü"}] for number in range(5)]


def test_requests_come_out_in_the_order_they_went_in(queue: RequestQueue) -> None:
    queue.add_requests(MESSAGES[:3])
    queue.add_requests(MESSAGES[3:])
    assert len(queue) == 5
    assert queue.get_requests(2) == MESSAGES[:2]
    assert queue.get_requests(10) == MESSAGES[2:]
    assert queue.get_requests(1) == []
    assert queue.get_requests(0) == []


def test_a_claim_takes_the_oldest_requests_and_stays_open_until_it_is_acknowledged(
    queue: RequestQueue,
) -> None:
    queue.add_requests(MESSAGES)
    claim = queue.claim(3)
    assert claim is not None
    assert list(claim.requests) == MESSAGES[:3]
    assert len(queue) == 2
    assert [one.id for one in queue.open_claims()] == [claim.id]
    assert queue.hold(claim)
    queue.acknowledge(claim)
    assert queue.open_claims() == []
    assert queue.get_requests(5) == MESSAGES[3:]


def test_a_claim_remembers_what_became_of_it(queue: RequestQueue) -> None:
    queue.add_requests(MESSAGES)
    claim = queue.claim(5)
    assert claim is not None
    assert claim.job_id is None
    queue.became(claim, "job_x")
    assert [one.job_id for one in queue.open_claims()] == ["job_x"]


def test_an_empty_queue_has_nothing_to_claim(queue: RequestQueue) -> None:
    assert queue.claim(3) is None
    assert queue.open_claims() == []


def test_refused_requests_are_set_aside(queue: RequestQueue) -> None:
    queue.add_requests(MESSAGES)
    claim = queue.claim(2)
    assert claim is not None
    queue.refuse(claim)
    assert queue.refused() == MESSAGES[:2]
    assert queue.open_claims() == []
    assert len(queue) == 3


def test_more_requests_than_one_transaction_moves_come_whole_and_in_order(client: Any) -> None:
    queue = RedisRequestQueue(client)
    queue.add_requests(list(range(2500)))
    claim = queue.claim(2200)
    assert claim is not None
    assert list(claim.requests) == list(range(2200))
    assert queue.get_requests(999) == list(range(2200, 2500))


def test_requests_of_a_dispatcher_that_died_come_again_when_its_lease_has_run_out(client: Any) -> None:
    dead, alive = RedisRequestQueue(client), RedisRequestQueue(client)
    dead.add_requests(MESSAGES)
    claim = dead.claim(5)
    assert claim is not None
    assert alive.open_claims() == []
    client.delete(*client.keys("request_queue:lease:*"))  # ten minutes later
    again = alive.open_claims()
    assert [(one.id, list(one.requests)) for one in again] == [(claim.id, MESSAGES)]
    # Should the first not have been dead, it finds that the claim is not its own any more.
    assert not dead.hold(claim)
    assert alive.hold(again[0])


def test_a_lease_ends_by_itself(client: Any) -> None:
    queue = RedisRequestQueue(client, "q", lease_seconds=90)
    queue.add_requests(MESSAGES)
    assert queue.claim(1) is not None
    (lease,) = client.keys("q:lease:*")
    assert 0 < client.pttl(lease) <= 90_000


def test_a_crash_in_the_middle_of_claiming_loses_nothing(client: Any) -> None:
    queue = RedisRequestQueue(client, "q")
    queue.add_requests(MESSAGES)
    # As `claim` does it, and the process dies after two of five requests.
    client.hset("q:claims", "0" * 32, "")
    for _ in range(2):
        client.lmove("q", "q:claim:" + "0" * 32, "LEFT", "RIGHT")
    (claim,) = RedisRequestQueue(client, "q").open_claims()
    assert [*claim.requests, *queue.get_requests(5)] == MESSAGES


def test_a_claim_that_got_nothing_before_the_crash_is_forgotten(client: Any) -> None:
    client.hset("request_queue:claims", "0" * 32, "")
    assert RedisRequestQueue(client).open_claims() == []
    assert client.keys("*") == []


def test_an_acknowledged_claim_leaves_no_key_behind(client: Any) -> None:
    queue = RedisRequestQueue(client)
    queue.add_requests(MESSAGES)
    claim = queue.claim(5)
    assert claim is not None
    queue.acknowledge(claim)
    assert client.keys("*") == []


def test_an_acknowledged_claim_is_not_held_any_more(client: Any) -> None:
    queue = RedisRequestQueue(client)
    queue.add_requests(MESSAGES)
    claim = queue.claim(5)
    assert claim is not None
    queue.acknowledge(claim)
    assert not queue.hold(claim)


def test_requests_that_langbatch_put_into_redis_are_read(client: Any) -> None:
    client.rpush("request_queue", '[{"role": "user", "content": "from before"}]')
    claim = RedisRequestQueue(client).claim(1)
    assert claim is not None
    assert claim.requests[0][0]["content"] == "from before"


def test_an_entry_that_is_not_json_is_set_aside_and_holds_up_nobody(client: Any) -> None:
    queue = RedisRequestQueue(client)
    client.rpush("request_queue", "not json")
    queue.add_requests([["a"], ["b"]])
    claim = queue.claim(2)
    assert claim is not None
    assert claim.requests == [["a"]]
    assert queue.refused() == ["not json"]
    assert [found.requests for found in queue.open_claims()] == [[["a"]]]
    assert queue.get_requests(1) == [["b"]]


def test_what_is_no_redis_client_is_refused() -> None:
    with pytest.raises(TypeError, match=r"redis\.Redis"):
        RedisRequestQueue("redis://")  # type: ignore[arg-type]

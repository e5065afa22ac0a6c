"""Equal requests are paid for once, and each has its result: through the real SDK against the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langbatch import JobManager, failpoints
from langbatch.emulator import RowError
from support import World, world

SAYINGS = ["a", "b", "a", "c", "b", "a"]


class Died(BaseException):
    """The process ends here."""


def written(path: Path, sayings: list[str]) -> Path:
    lines = [
        {
            "custom_id": f"task-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-4o", "messages": [{"role": "user", "content": saying}]},
        }
        for n, saying in enumerate(sayings)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def check(manager: JobManager, job_id: str, sayings: list[str]) -> None:
    """One result a request, in order; equal requests of a shard have equal answers; the sums agree."""
    results = list(manager.results(job_id))
    assert [result.custom_id for result in results] == [f"task-{n}" for n in range(len(sayings))]
    assert [result.line for result in results] == list(range(1, len(sayings) + 1))
    counts = manager.status(job_id).counts
    assert counts.succeeded == sum(result.outcome == "succeeded" for result in results)


def paid(here: World) -> int:
    return here.emulator.payments().paid


def test_equal_requests_of_a_batch_are_sent_once_and_each_has_the_result(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", SAYINGS)
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(source, dedupe=True, **here.azure)
        assert manager.wait(job.id).state == "completed"
        check(manager, job.id, SAYINGS)
        texts = [result.text for result in manager.results(job.id)]
        assert texts[0] == texts[2] == texts[5]
        assert texts[1] == texts[4]
        assert (paid(here), here.counts()["batches"]) == (3, 1)


def test_without_the_wish_every_request_is_sent(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), **here.azure)
        manager.wait(job.id)
        assert paid(here) == len(SAYINGS)


def test_a_copy_is_sought_in_its_own_shard_only(tmp_path: Path) -> None:
    """`aba cba abb`: the second and third shard each send what the first sent too."""
    sayings = list("abacbbabb")
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", sayings)
        job = manager.submit(source, dedupe=True, max_requests_per_shard=3, **here.azure)
        assert manager.wait(job.id).state == "completed"
        check(manager, job.id, sayings)
        assert (paid(here), here.counts()["batches"]) == (6, 3)


def test_the_same_file_is_the_same_job_whatever_is_wished(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        first = manager.submit(source, dedupe=True, **here.azure)
        manager.wait(first.id)
        assert manager.submit(source, **here.azure).id == first.id
        assert paid(here) == 3


def test_a_failure_is_copied_and_a_retry_pays_for_it_once(tmp_path: Path) -> None:
    failing = {"a"}

    def answer(body: dict[str, Any], _: str) -> str | RowError:
        saying = body["messages"][0]["content"]
        return RowError(400, "content_filter") if saying in failing else f"said {saying}"

    with world(tmp_path, answer=answer) as here, here.manager() as manager:
        job = manager.submit(written(tmp_path / "in.jsonl", SAYINGS), dedupe=True, **here.azure)
        assert manager.wait(job.id).counts.errored == 3
        check(manager, job.id, SAYINGS)
        assert {result.error.code for result in manager.results(job.id) if result.error} == {"content_filter"}
        failing.clear()
        before = paid(here)
        manager.retry(job.id)
        assert manager.wait(job.id).counts.succeeded == len(SAYINGS)
        check(manager, job.id, SAYINGS)
        assert [result.text for result in manager.results(job.id)] == [f"said {saying}" for saying in SAYINGS]
        assert (paid(here) - before, here.counts()["batches"]) == (1, 2)


def test_copies_are_cancelled_with_their_originals(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        source = written(tmp_path / "in.jsonl", SAYINGS)
        job = manager.submit(source, dedupe=True, start=False, **here.azure)
        manager.cancel(job.id)
        assert manager.wait(job.id).counts.cancelled == len(SAYINGS)
        check(manager, job.id, SAYINGS)
        assert paid(here) == 0


@pytest.mark.parametrize("nth", [1, 3, 6, 10, 15, 20, 25, 30, 35, 40, 45, 50])
def test_a_death_anywhere_costs_nothing_and_loses_no_copy(nth: int, tmp_path: Path) -> None:
    reached = 0

    def die(_: str) -> None:
        nonlocal reached
        reached += 1
        if reached == nth:
            raise Died

    source = written(tmp_path / "in.jsonl", SAYINGS)
    with world(tmp_path) as here:
        with here.manager() as manager, failpoints.listening(die), pytest.raises(Died):
            manager.wait(manager.submit(source, dedupe=True, **here.azure).id)
        with here.manager() as manager:
            job = manager.submit(source, dedupe=True, **here.azure)
            here.clock.sleep(3600)
            assert manager.wait(job.id).state == "completed"
            check(manager, job.id, SAYINGS)
            assert manager.status(job.id).counts.succeeded == len(SAYINGS)
            assert paid(here) == 3

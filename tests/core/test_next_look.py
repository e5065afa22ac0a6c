"""What a status says of time and progress: when the next look is due, and how many requests are done."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from langbatch import FailureCount
from support import requests_file, world


def test_the_next_look_is_told_while_something_is_left_to_look_at(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure).id
        told = manager.status(job, offline=True)
        assert told.next_look_at is not None
        due = datetime.fromisoformat(told.next_look_at).timestamp()
        wait = manager.advance(job)
        assert wait is not None
        assert abs(due - (here.clock.now() + wait)) <= 1  # told in whole seconds
        assert told.to_dict()["next_look_at"] == told.next_look_at
        assert manager.wait(job).next_look_at is None


def test_requests_that_the_service_is_through_with_count_as_done(tmp_path: Path) -> None:
    with world(tmp_path) as here, here.manager() as manager:
        names = [str(n) for n in range(10)]
        job = manager.submit(
            requests_file(tmp_path / "in.jsonl", names), max_requests_per_shard=5, **here.azure
        ).id
        seen = [manager.status(job, offline=True).done]

        manager.wait(job, progress=lambda _: seen.append(manager.status(job, offline=True).done))
        assert seen[0] == 0
        assert seen == sorted(seen)
        assert seen[-1] == 10
        assert any(0 < done < 10 for done in seen)


def test_failures_are_counted_by_their_code(tmp_path: Path) -> None:
    with world(tmp_path, faults=("rows-fail=1", "rows-filtered=2")) as here, here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", list("abcde")), **here.azure).id
        assert manager.failures(job) == []
        manager.wait(job)
        assert manager.failures(job) == [
            FailureCount("content_filter", "errored", 2),
            FailureCount("server_error", "errored", 1),
        ]

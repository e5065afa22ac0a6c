"""A job whose input and results are read by an executor's workers ends as any other does."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from langbatch import JobManager
from langbatch.emulator import RowError
from langbatch.requests.ranges import judge_range
from langbatch.results.facts import facts_of_range
from langbatch.results.stretches import records_of
from support import requests_file, world

REQUESTS = 5_000


class Told(ThreadPoolExecutor):
    """Remembers what was given to it."""

    def __init__(self) -> None:
        super().__init__(2)
        self.given: set[object] = set()

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.given.add(work)
        return super().submit(work, *arguments, **named)


def test_a_job_read_by_workers_has_one_result_per_request_in_input_order(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(400, "content_filter") if custom_id.endswith("7") else "fine " * 200

    ids = [f"request-{number}" for number in range(REQUESTS)]
    source = requests_file(tmp_path / "in.jsonl", ids, user="x" * 1_000)
    with world(tmp_path, answer=answer) as here, Told() as executor:
        with JobManager(here.home, clock=here.clock, executor=executor) as manager:
            assert manager.validate(source).total == REQUESTS
            job = manager.submit(source, **here.azure)
            status = manager.wait(job.id)
            results = list(manager.results(job.id))
    assert executor.given == {judge_range, facts_of_range, records_of}
    assert [result.custom_id for result in results] == ids
    assert (status.counts.succeeded, status.counts.errored) == (REQUESTS * 9 // 10, REQUESTS // 10)

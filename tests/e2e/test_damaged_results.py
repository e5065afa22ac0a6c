"""Joined results that somebody cut or took away are told, never handed out as all there is."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langbatch import BatchResultsError, JobManager
from support import requests_file, world

IDS = [f"task-{n}" for n in range(6)]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[JobManager]:
    with world(tmp_path) as here, here.manager() as manager:
        yield manager


def finished(manager: JobManager, tmp_path: Path, *, dedupe: bool = False) -> tuple[str, Path]:
    service: dict[str, Any] = {
        "provider": "azure",
        "azure_endpoint": "https://res.openai.azure.com",
        "api_key": "any",
    }
    job = manager.submit(requests_file(tmp_path / "in.jsonl", IDS), dedupe=dedupe, **service).id
    manager.wait(job)
    (joined,) = (manager.home / "jobs" / job / "joined").iterdir()
    return job, joined


def keep(path: Path, size: int) -> None:
    os.chmod(path, 0o600)
    os.truncate(path, size)


@pytest.mark.parametrize("at_a_line_end", [True, False])
@pytest.mark.parametrize("format_", ["jsonl", "csv"])
@pytest.mark.parametrize("with_request", [True, False])
def test_a_joined_file_that_was_cut_gives_no_export(
    at_a_line_end: bool, format_: str, with_request: bool, manager: JobManager, tmp_path: Path
) -> None:
    job, joined = finished(manager, tmp_path)
    end_of_first = joined.read_bytes().index(b"\n") + 1
    keep(joined, end_of_first if at_a_line_end else end_of_first + 10)
    out = tmp_path / "out"
    with pytest.raises(BatchResultsError):
        manager.export(job, out, format=format_, with_request=with_request and format_ == "jsonl")
    assert not out.exists()


def test_a_stream_of_results_ends_with_an_error_where_records_are_missing(
    manager: JobManager, tmp_path: Path
) -> None:
    job, joined = finished(manager, tmp_path)
    keep(joined, joined.read_bytes().index(b"\n") + 1)
    results = manager.results(job)
    assert next(results).custom_id == IDS[0]
    with pytest.raises(BatchResultsError, match="records are missing") as caught:
        next(results)
    assert "recover --from-remote" in str(caught.value.hint)


def test_a_joined_file_that_is_gone_is_called_damage_not_a_full_disk(
    manager: JobManager, tmp_path: Path
) -> None:
    job, joined = finished(manager, tmp_path)
    joined.unlink()
    with pytest.raises(BatchResultsError, match="records are missing"):
        manager.export(job, io.BytesIO())


def test_results_of_a_job_that_sent_equal_requests_once_are_held_against_their_number_too(
    manager: JobManager, tmp_path: Path
) -> None:
    job, joined = finished(manager, tmp_path, dedupe=True)
    keep(joined, 0)
    with pytest.raises(BatchResultsError, match="records are missing"):
        list(manager.results(job))

"""Batches that LangBatch itself saved, started or not, go on as jobs of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AzureOpenAI

from compat.pipeline import ROUNDS, Calls, do, handler, kwargs, queue_file, rounds
from langbatch import BatchStateError, OpenAIChatCompletionBatch, RemoteNotFound
from langbatch.compat.storages import FileBatchStorage
from support import SECRET_KEY, World, requests_file, world

OLD_ID = "55d506ef-2a1f-4ca1-9c6c-3fd2415c83f7"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def left_behind(place: World, *names: str, started: bool) -> FileBatchStorage:
    """What LangBatch 0.1.2 leaves in a storage, and at the service, after `save` or `start` and `save`."""
    storage = FileBatchStorage(place.home)
    folder = storage.saved_batches_directory
    data = requests_file(folder / f"{OLD_ID}.jsonl", names)
    batch_id = send(place, data) if started else None
    (folder / f"{OLD_ID}.json").write_text(json.dumps({"platform_batch_id": batch_id}))
    return storage


def send(place: World, data: Path) -> str:
    """Upload and create as LangBatch does."""
    given = {name: value for name, value in place.azure.items() if name != "provider"}
    with AzureOpenAI(**given) as client:
        with data.open("rb") as file:
            uploaded = client.files.create(file=file, purpose="batch")
        while uploaded.status != "processed":
            place.clock.sleep(1)
            uploaded = client.files.retrieve(uploaded.id)
        made = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    return made.id


def finished(place: World, batch: OpenAIChatCompletionBatch) -> OpenAIChatCompletionBatch:
    for _ in range(ROUNDS):
        if batch.status().finished:
            return batch
        place.clock.sleep(60)
    raise AssertionError(batch.status())


def test_a_batch_that_runs_is_watched_and_harvested_and_nothing_is_sent(place: World) -> None:
    storage = left_behind(place, "a", "b", started=True)
    sent = place.counts()
    batch = finished(place, OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place)))
    successful, unsuccessful = batch.get_results()
    assert [one["custom_id"] for one in successful] == ["a", "b"]
    assert unsuccessful == []
    assert (place.counts()["batches"], place.counts()["uploads"]) == (sent["batches"], sent["uploads"])
    assert SECRET_KEY not in (place.home / "langbatch.db").read_bytes().decode("latin-1")


def test_loading_it_again_leads_to_the_same_job(place: World) -> None:
    storage = left_behind(place, "a", started=True)
    first = OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
    second = OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
    assert first.id == second.id
    assert first.platform_batch_id == second.platform_batch_id is not None
    second.start()
    assert place.counts()["batches"] == 1


def test_its_failed_requests_can_be_retried(tmp_path: Path) -> None:
    with world(tmp_path, faults=("batch-expire=1@1",)) as place:
        storage = left_behind(place, "a", "b", "c", started=True)
        batch = OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
        place.clock.sleep(86_400)
        finished(place, batch)
        assert len(batch.get_results()[0]) == 1
        assert batch.is_retryable_failure()
        batch.retry()
        finished(place, batch)
        assert [one["custom_id"] for one in batch.get_results()[0]] == ["a", "b", "c"]
        assert place.emulator.payments().paid_twice == 0


def test_one_that_was_not_started_can_be_started(place: World) -> None:
    storage = left_behind(place, "a", started=False)
    batch = OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
    batch.start()
    again = OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
    again.start()
    assert again.id == batch.id
    assert place.counts()["batches"] == 1


def test_a_handler_goes_on_with_langbatchs_queue_file(place: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGBATCH_DATA_PATH", str(place.home))
    left_behind(place, "a", started=True)
    other = requests_file(place.home / "saved_batches/10d71a17.jsonl", ["x"])
    other.with_suffix(".json").write_text('{"platform_batch_id": null}')
    queue_file(place).write_text(json.dumps({"pending": ["10d71a17"], "processing": [OLD_ID]}))
    answered: list[str] = []
    calls = Calls(then=lambda batch: answered.extend(one["custom_id"] for one in batch.get_results()[0]))
    rounds(place, handler(place, calls))
    rounds(place, handler(place, calls), most=2)
    assert sorted(answered) == ["a", "x"]
    assert place.counts()["batches"] == 2


def test_a_batch_with_other_requests_is_refused(place: World) -> None:
    storage = left_behind(place, "a", started=True)
    requests_file(storage.saved_batches_directory / f"{OLD_ID}.jsonl", ["a", "b"])
    batch_validated(place)
    with pytest.raises(BatchStateError, match="has 1 requests, but 2 were saved"):
        OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))


def batch_validated(place: World) -> None:
    """Look at the batch until the service says how many requests it has."""
    given = {name: value for name, value in place.azure.items() if name != "provider"}
    with AzureOpenAI(**given) as client:
        (batch,) = client.batches.list()
        for _ in range(ROUNDS):
            counts = client.batches.retrieve(batch.id).request_counts
            if counts is not None and counts.total:
                return
            place.clock.sleep(60)
    raise AssertionError("never validated")


def test_a_batch_the_service_does_not_know_leaves_nothing_behind(place: World) -> None:
    storage = left_behind(place, "a", started=False)
    meta = storage.saved_batches_directory / f"{OLD_ID}.json"
    meta.write_text('{"platform_batch_id": "batch_unknown"}')
    with pytest.raises(RemoteNotFound):
        OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))
    assert place.manager().jobs() == []


def test_a_batch_of_several_parts_is_left_to_the_store_that_made_it(place: World) -> None:
    storage = left_behind(place, "a", started=False)
    meta: dict[str, Any] = {"platform_batch_id": "batch_1", "job": "job_elsewhere", "shards": 2}
    (storage.saved_batches_directory / f"{OLD_ID}.json").write_text(json.dumps(meta))
    with pytest.raises(BatchStateError, match="2 parts"):
        OpenAIChatCompletionBatch.load(OLD_ID, storage, kwargs(place))


def test_an_error_of_the_function_does_not_bring_the_old_id_back(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_DATA_PATH", str(place.home))
    left_behind(place, "a", started=False)
    queue_file(place).write_text(json.dumps({"pending": [OLD_ID], "processing": []}))
    worker = handler(place, Calls())
    do(worker.run_once())
    (job,) = place.manager().jobs()
    assert worker.queues == {"pending": [], "processing": [job.id]}

"""LangBatch's classes on our jobs: making, saving, loading, and what they say of results."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import AzureOpenAI, OpenAI

import langbatch
from compat.pipeline import kwargs, saved
from langbatch import (
    BatchInitializationError,
    BatchStateError,
    BatchStorageError,
    BatchValidationError,
    JobNotFound,
    OpenAIChatCompletionBatch,
    OpenAIEmbeddingBatch,
    chat_completion_batch,
)
from langbatch.compat.storages import BatchStorage, FileBatchStorage
from langbatch.config.settings import Settings
from langbatch.emulator import RowError
from support import World, chat_line, requests_file, world


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def lines(batch: langbatch.Batch, *names: str) -> list[dict[str, Any]]:
    return batch.get_requests_by_custom_ids(names)


# ---------------------------------------------------------------- import paths


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("langbatch.Batch", "Batch"),
        ("langbatch.ChatCompletionBatch", "ChatCompletionBatch"),
        ("langbatch.EmbeddingBatch", "EmbeddingBatch"),
        ("langbatch.BatchHandler", "BatchHandler"),
        ("langbatch.BatchDispatcher", "BatchDispatcher"),
        ("langbatch.openai", "OpenAIChatCompletionBatch"),
        ("langbatch.factory", "chat_completion_batch"),
    ],
)
def test_a_class_is_the_same_one_by_either_path_and_stays_a_class_in_the_package(
    path: str, name: str
) -> None:
    code = f"""
import langbatch
from {path} import {name} as by_module
from langbatch import {name} as by_package
import {path}
assert by_module is by_package is langbatch.{name}, langbatch.{name}
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_langbatchs_openai_module_leaves_the_sdk_alone() -> None:
    module = importlib.import_module("langbatch.openai")
    assert module.__name__ == "langbatch.openai"
    assert sys.modules["openai"].OpenAI is OpenAI


def test_importing_langbatchs_paths_loads_no_sdk_and_writes_nothing(tmp_path: Path) -> None:
    code = """
import sys
import langbatch.openai, langbatch.BatchHandler, langbatch.BatchDispatcher, langbatch.request_queues
import langbatch.batch_storages, langbatch.batch_queues, langbatch.factory, langbatch.Batch
print(*sorted({"openai", "redis", "sqlalchemy", "pydantic", "azure"} & set(sys.modules)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert ran.stdout.split() == []
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- making


def test_a_client_says_where_a_batch_goes(place: World, tmp_path: Path) -> None:
    path = requests_file(tmp_path / "r.jsonl", ["a"])
    azure = AzureOpenAI(
        azure_endpoint="https://res.openai.azure.com", api_key="k", api_version="2025-04-01-preview"
    )
    with azure, OpenAI(api_key="k") as plain:
        manager = place.manager()
        assert OpenAIChatCompletionBatch(path, azure, manager=manager).status().provider == "azure"
        assert (
            OpenAIChatCompletionBatch(file=path, client=plain, manager=manager).status().provider == "openai"
        )


def test_custom_ids_are_made_unique_unless_they_are_given(place: World) -> None:
    def make(**options: Any) -> list[str]:
        batch = OpenAIEmbeddingBatch.create(["x", "y"], {"model": "m"}, kwargs(place), **options)
        batch.save()
        assert isinstance(batch, OpenAIEmbeddingBatch)
        return [request["custom_id"] for request in every_request(place, batch.id)]

    assert len({*make(), *make()}) == 4
    assert make(custom_ids=["one", "two"]) == ["one", "two"]
    with pytest.raises(BatchInitializationError, match="more items than custom_ids"):
        make(custom_ids=["one"])


def every_request(place: World, job_id: str) -> list[dict[str, Any]]:
    snapshot = place.manager().snapshot(job_id)
    return [json.loads(line) for line in snapshot.lines(0, snapshot.total)]


def test_items_may_name_their_own_key_and_more_of_the_body(place: World) -> None:
    messages = [{"role": "user", "content": "hello"}]
    batch = OpenAIChatCompletionBatch.create(
        [messages, {"messages": messages, "temperature": 0}], {"model": "m", "temperature": 1}, kwargs(place)
    )
    batch.save()
    assert [request["body"] for request in every_request(place, batch.id)] == [
        {"model": "m", "temperature": 1, "messages": messages},
        {"model": "m", "temperature": 0, "messages": messages},
    ]


def test_arguments_are_left_as_they_were(place: World) -> None:
    request_kwargs, batch_kwargs = {"model": "m"}, kwargs(place)
    before = dict(batch_kwargs)
    OpenAIChatCompletionBatch.create([[{"role": "user", "content": "x"}]], request_kwargs, batch_kwargs)
    assert (request_kwargs, batch_kwargs) == ({"model": "m"}, before)


def test_an_item_without_a_model_is_refused_before_anything_is_sent(place: World) -> None:
    with pytest.raises(BatchValidationError):
        OpenAIChatCompletionBatch.create([[{"role": "user", "content": "x"}]], None, kwargs(place))


# ---------------------------------------------------------------- running


def test_a_batch_has_a_platform_batch_id_once_it_was_started(place: World) -> None:
    batch = saved(place, "a")
    assert batch.platform_batch_id is None
    batch.start()
    assert batch.platform_batch_id == batch.status().shards[0].batch_id
    assert str(batch.platform_batch_id).startswith("batch_")


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("ask", ["get_status", "get_results", "get_results_file", "cancel", "retry", "wait"])
def test_what_needs_a_started_batch_says_so(place: World, tmp_path: Path, ask: str, is_saved: bool) -> None:
    batch = OpenAIChatCompletionBatch(requests_file(tmp_path / "r.jsonl", ["a"]), **kwargs(place))
    if is_saved:
        batch.save()
    assert batch.platform_batch_id is None
    with pytest.raises(BatchStateError) as refusal:
        getattr(batch, ask)()
    assert "start" in f"{refusal.value} {refusal.value.hint}" or is_saved
    batch.start()
    assert batch.wait().all_succeeded  # nothing of it was taken down


def test_requests_can_be_looked_up_before_the_start_and_after(place: World, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + "".join(chat_line(name) + "\n\n" for name in "abc").encode() + b"{broken\n"
    )
    batch = OpenAIChatCompletionBatch(path, skip_invalid=True, **kwargs(place))
    before = lines(batch, "c", "a", "nobody")
    batch.save()
    assert [request["custom_id"] for request in before] == ["a", "c"]
    assert lines(batch, "c", "a", "nobody") == before
    assert lines(batch) == []


def test_a_failed_batch_gives_no_success_and_every_error(tmp_path: Path) -> None:
    with world(tmp_path, deployments=frozenset({"another"})) as place:
        batch = saved(place, "a", "b")
        batch.start()
        batch.wait()
        assert batch.get_status() == "failed"
        successful, errors = batch.get_results()
        assert successful == []
        assert [error["custom_id"] for error in errors] == ["a", "b"]
        assert {error["error"]["code"] for error in errors} == {"model_not_found"}
        assert not batch.is_retryable_failure()


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (500, "InternalServerError", True),
        (500, "a word nobody has written down", True),
        (503, "", True),
        (429, "rate_limit_exceeded", True),
        (429, "too busy", True),
        (408, "408", True),
        (409, "", True),
        (400, "content_filter", False),
        (400, "another word nobody has written down", False),
        (404, "model_not_found", False),
    ],
)
def test_a_failure_is_retryable_where_another_attempt_may_bring_an_answer(
    tmp_path: Path, status: int, code: str, retryable: bool
) -> None:
    def answer(_: dict[str, Any], custom_id: str) -> str | RowError:
        return RowError(status, code) if custom_id == "b" else "fine"

    with world(tmp_path, answer=answer) as place:
        batch = saved(place, "a", "b")
        batch.start()
        assert not batch.is_retryable_failure()  # it has not ended
        batch.wait()
        assert batch.is_retryable_failure() is retryable


def test_a_batch_in_which_nothing_failed_is_no_retryable_failure(place: World) -> None:
    batch = saved(place, "a")
    batch.start()
    batch.wait()
    assert not batch.is_retryable_failure()


# ---------------------------------------------------------------- saving and loading


class Kept(BatchStorage):
    """A storage of a user's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, id: str, data_file: Path, meta_data: dict[str, Any]) -> None:  # noqa: A002 - LangBatch's word
        (self.folder / f"{id}-requests").write_bytes(Path(data_file).read_bytes())
        (self.folder / f"{id}-meta.json").write_text(json.dumps(meta_data))

    def load(self, id: str) -> tuple[Path, Path]:  # noqa: A002
        return self.folder / f"{id}-requests", self.folder / f"{id}-meta.json"


@pytest.mark.parametrize("make", [FileBatchStorage, Kept])
def test_a_storage_gets_the_requests_and_gives_the_batch_back(
    place: World, tmp_path: Path, make: Any
) -> None:
    storage = make(tmp_path)
    batch = saved(place, "a", "b")
    batch.save(storage=storage)
    data_file, meta_file = storage.load(batch.id)
    assert [json.loads(line)["custom_id"] for line in data_file.read_text().splitlines()] == ["a", "b"]
    assert json.loads(meta_file.read_text())["platform_batch_id"] is None
    loaded = OpenAIChatCompletionBatch.load(batch.id, storage=storage, batch_kwargs=kwargs(place))
    assert (type(loaded), loaded.id) == (OpenAIChatCompletionBatch, batch.id)
    loaded.start()
    loaded.save(storage)
    assert json.loads(meta_file.read_text())["platform_batch_id"] == loaded.platform_batch_id is not None


def test_a_storage_given_to_the_constructor_is_used_by_save(place: World, tmp_path: Path) -> None:
    storage = FileBatchStorage(tmp_path / "mine")
    batch = OpenAIChatCompletionBatch(
        requests_file(tmp_path / "r.jsonl", ["a"]), storage=storage, **kwargs(place)
    )
    batch.save()
    assert storage.load(batch.id)[0].exists()


def test_the_functions_batches_take_a_storage_as_well(place: World, tmp_path: Path) -> None:
    storage = FileBatchStorage(tmp_path / "mine")
    azure = {name: value for name, value in place.azure.items() if name != "provider"}
    batch = chat_completion_batch(
        requests_file(tmp_path / "r.jsonl", ["a"]), "azure", manager=place.manager(), **azure
    )
    batch.save(storage)
    loaded = type(batch).load(batch.id, storage, kwargs(place))
    assert loaded.id == batch.id


def test_an_unknown_id_is_a_storage_error_for_langbatchs_classes(place: World, home: Path) -> None:
    with pytest.raises(BatchStorageError, match="Batch with id nobody not found"):
        OpenAIChatCompletionBatch.load("nobody", batch_kwargs=kwargs(place))
    with pytest.raises(BatchStorageError, match="not found"):
        OpenAIChatCompletionBatch.load("../r", batch_kwargs=kwargs(place))
    with pytest.raises(JobNotFound):
        langbatch.ChatCompletionBatch.load("nobody", manager=place.manager())


def test_saved_files_are_for_their_owner_and_appear_whole(tmp_path: Path) -> None:
    storage = FileBatchStorage(tmp_path / "mine")
    data = tmp_path / "data"
    data.write_text("{}\n")
    storage.save("one", data, {"platform_batch_id": "x"})
    assert [path.stat().st_mode & 0o777 for path in storage.load("one")] == [0o600, 0o600]
    with pytest.raises(BatchStorageError, match="not JSON"):
        storage.save("two", data, {"client": object()})
    with pytest.raises(BatchStorageError, match="not found"):
        storage.load("two")
    assert sorted(path.name for path in storage.saved_batches_directory.iterdir()) == [
        "one.json", "one.jsonl",
    ]  # fmt: skip


def test_a_pickle_is_not_opened(place: World, tmp_path: Path) -> None:
    class Pickled(Kept):
        def load(self, id: str) -> tuple[Path, Path]:  # noqa: A002
            return tmp_path / "r.jsonl", tmp_path / "meta.pkl"

    requests_file(tmp_path / "r.jsonl", ["a"])
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"platform_batch_id": None}))
    with pytest.raises(BatchStorageError, match="pickle"):
        OpenAIChatCompletionBatch.load("one", Pickled(tmp_path), kwargs(place))


def test_langbatchs_data_path_is_home_where_no_home_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_DATA_PATH", str(tmp_path / "data"))
    assert Settings.load().home == tmp_path / "data"
    assert FileBatchStorage().saved_batches_directory == tmp_path / "data/saved_batches"
    storages = importlib.import_module("langbatch.batch_storages")
    assert tmp_path / "data" == storages.DATA_PATH
    monkeypatch.setenv("LANGBATCH_HOME", str(tmp_path / "home"))
    assert Settings.load().home == tmp_path / "home"

"""docs/langbatch.md: what it lists is there, what LangBatch has is listed, and its examples run."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.redis_server import running_redis
from langbatch.emulator import EmulatorConfig, RowError, RunningServer

PAGE = (Path(__file__).resolve().parents[2] / "docs/langbatch.md").read_text()
ROWS = [
    (name, verdict)
    for names, verdict in re.findall(r"^\| (`[\w.`, ]+`) \| (\w+) \|", PAGE, re.M)
    for name in re.findall(r"`([\w.]+)`", names)
]

#: LangBatch 0.1.2's names that concern OpenAI and Azure: by module, and methods by class.
THEIRS = {
    "langbatch": "chat_completion_batch embedding_batch BatchHandler BatchDispatcher",
    "langbatch.Batch": "Batch",
    "langbatch.BatchDispatcher": "BatchDispatcher",
    "langbatch.BatchHandler": "BatchHandler BatchStatus",
    "langbatch.ChatCompletionBatch": "ChatCompletionBatch",
    "langbatch.EmbeddingBatch": "EmbeddingBatch",
    "langbatch.batch_queues": "BatchQueue FileBatchQueue",
    "langbatch.batch_storages": "BatchStorage FileBatchStorage DATA_PATH",
    "langbatch.errors": "SetupError BatchError BatchInitializationError BatchStateError BatchValidationError "
    "BatchStartError BatchStorageError BatchResultsError",
    "langbatch.openai": "OpenAIBatch OpenAIChatCompletionBatch OpenAIEmbeddingBatch",
    "langbatch.request_queues": "RequestQueue InMemoryRequestQueue RedisRequestQueue",
    "langbatch.schemas": "OpenAIChatCompletionRequest OpenAIEmbeddingRequest",
}
THEIR_METHODS = {
    "Batch": "id platform_batch_id create create_from_requests load save start get_status get_results "
    "get_results_file cancel is_retryable_failure retry get_unsuccessful_requests get_requests_by_custom_ids",
    "BatchHandler": "run add_batch start_batch process_completed_batch retry_batch cancel_batch",
    "BatchDispatcher": "run",
    "BatchStorage": "save load",
    "BatchQueue": "save load",
    "RequestQueue": "add_requests get_requests",
}
#: Their parameters, which programs give by position or by name.
THEIR_PARAMETERS = {
    "langbatch.chat_completion_batch": "file provider model",
    "langbatch.embedding_batch": "file provider model",
    "langbatch.BatchDispatcher": "batch_handler queue queue_threshold time_threshold time_interval requests_type "
    "request_kwargs",
    "langbatch.BatchHandler": "batch_process_func batch_type batch_queue batch_storage wait_time batch_kwargs",
    "langbatch.BatchHandler.add_batch": "self batch_id",
    "langbatch.BatchHandler.cancel_batch": "self batch_id",
    "langbatch.BatchHandler.process_completed_batch": "self batch",
    "langbatch.BatchHandler.retry_batch": "self batch",
    "langbatch.BatchHandler.start_batch": "self batch",
    "langbatch.OpenAIChatCompletionBatch": "file client",
    "langbatch.OpenAIChatCompletionBatch.create": "data request_kwargs batch_kwargs",
    "langbatch.OpenAIChatCompletionBatch.create_from_requests": "requests batch_kwargs",
    "langbatch.OpenAIChatCompletionBatch.get_requests_by_custom_ids": "self custom_ids",
    "langbatch.OpenAIChatCompletionBatch.load": "id storage batch_kwargs",
    "langbatch.OpenAIChatCompletionBatch.save": "self storage",
    "langbatch.OpenAIEmbeddingBatch": "file client",
    "langbatch.OpenAIEmbeddingBatch.create": "data request_kwargs batch_kwargs",
    "langbatch.batch_queues.BatchQueue.save": "self queue",
    "langbatch.batch_queues.FileBatchQueue": "file_path",
    "langbatch.batch_storages.BatchStorage.load": "self id",
    "langbatch.batch_storages.BatchStorage.save": "self id data_file meta_data",
    "langbatch.batch_storages.FileBatchStorage": "directory",
    "langbatch.request_queues.RedisRequestQueue": "redis_client queue_name",
    "langbatch.request_queues.RequestQueue.add_requests": "self requests",
    "langbatch.request_queues.RequestQueue.get_requests": "self count",
}


def test_every_name_of_langbatchs_is_listed_once_with_a_verdict() -> None:
    listed = [name for name, _ in ROWS]
    wanted = {f"{module}.{name}" for module, names in THEIRS.items() for name in names.split()}
    wanted |= {f"{name}.{method}" for name, methods in THEIR_METHODS.items() for method in methods.split()}
    assert len(listed) == len(set(listed))
    assert wanted <= set(listed)
    assert {verdict for _, verdict in ROWS} == {"same", "better", "differs"}


@pytest.mark.parametrize(("module", "names"), THEIRS.items())
def test_langbatchs_import_paths_lead_to_its_names(module: str, names: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


def found_at(path: str) -> Any:
    """What is imported by LangBatch's path, or an attribute of that."""
    module, *attributes = path.split(".")
    found: Any = importlib.import_module(module)
    for name in attributes:
        found = getattr(found, name, None) or importlib.import_module(f"langbatch.{name}")
    return found


@pytest.mark.parametrize(("name", "methods"), THEIR_METHODS.items())
def test_langbatchs_methods_are_there(name: str, methods: str) -> None:
    home = next(module for module, names in THEIRS.items() if name in names.split())
    made = set(dir(getattr(importlib.import_module(home), name))) | {"id"}
    assert set(methods.split()) <= made


@pytest.mark.parametrize(("path", "names"), THEIR_PARAMETERS.items())
def test_langbatchs_parameters_have_their_names_and_places(path: str, names: str) -> None:
    parameters = list(inspect.signature(found_at(path)).parameters.values())
    assert [parameter.name for parameter in parameters][: len(names.split())] == names.split()
    # `model` has no meaning for OpenAI and Azure there, so nobody gives it by its place.
    by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert set(names.split()) - {"model"} <= set(by_place)


def test_what_the_page_lists_beyond_that_is_there_too() -> None:
    for name, _ in ROWS:
        module, _, attribute = name.rpartition(".")
        if module.startswith("langbatch") and name != "langbatch.factory":
            assert hasattr(importlib.import_module(module), attribute), name


# ---------------------------------------------------------------- examples

REQUESTS = [
    {"custom_id": f"task-{number}", "method": "POST", "url": "/chat/completions", "body": body}
    for number, body in enumerate(
        {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}
        for text in ("When did the first heron land?", "Where?")
    )
]


def answer(body: dict[str, Any], custom_id: str) -> str | RowError | dict[str, Any]:
    if "input" in body:
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        return {"object": "list", "data": [vector], "model": "m"}
    if custom_id == "task-1":
        return RowError(500, "InternalServerError", "asked to fail")
    return f"the answer to {body['messages'][-1]['content']}"


@pytest.fixture
def langbatch_emulator_config() -> EmulatorConfig:
    return EmulatorConfig.instant(answer=answer)


@pytest.fixture
def ground(
    langbatch_emulator: RunningServer, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningServer:
    """A folder with requests, and the environment that LangBatch's examples expect."""
    import json

    monkeypatch.chdir(tmp_path)
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(request) + "\n" for request in REQUESTS))
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("OPENAI_BASE_URL", langbatch_emulator.openai_base_url)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "any")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", langbatch_emulator.azure_endpoint)
    return langbatch_emulator


def example(name: str) -> Any:
    found = re.search(rf"<!-- run: {re.escape(name)} -->\n```python\n(.*?)```", PAGE, re.S)
    assert found is not None, name
    return compile(found[1], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run_example(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    unfinished = eval(example(name), names)
    if inspect.isawaitable(unfinished):
        await unfinished
    return names


def run(name: str) -> dict[str, Any]:
    return asyncio.run(run_example(name))


def in_the_end(name: str, reached: Callable[[], bool]) -> dict[str, Any]:
    """Run an example that leaves tasks behind, and its rounds as soon as they may, until `reached`."""

    async def go() -> dict[str, Any]:
        before = asyncio.all_tasks()
        names = await run_example(name)
        loops = asyncio.all_tasks() - before
        handler, dispatcher = names["batch_handler"], names.get("dispatcher")
        async with asyncio.timeout(60):
            while not reached():
                rounds: list[Awaitable[None]] = [handler.run_once()]
                if dispatcher is not None:
                    rounds.append(dispatcher.run_once())
                await asyncio.gather(*rounds)
                await asyncio.sleep(0)
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        return names

    return asyncio.run(go())


def test_getting_started_prints_the_answer_once_the_batch_has_completed(
    ground: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run("getting started")["batch"].wait()
    capsys.readouterr()
    run("getting started")
    assert capsys.readouterr().out.splitlines() == [
        "Custom ID: task-0",
        "Content: the answer to When did the first heron land?",
    ]


@pytest.mark.parametrize("name", ["a client", "an Azure client", "Azure by arguments"])
def test_each_way_to_sign_in_leads_to_a_batch(ground: RunningServer, name: str) -> None:
    batch = run(name)["batch"]
    batch.wait()
    successful, unsuccessful = batch.get_results()
    assert [one["custom_id"] for one in successful] == ["task-0"]
    assert [one["custom_id"] for one in unsuccessful] == ["task-1"]
    assert batch.status().provider == ("azure" if "Azure" in name else "openai")


def test_batches_are_made_of_data(ground: RunningServer) -> None:
    names = run("from data")
    names["batch"].wait()
    names["texts"].wait()
    answers, _ = names["batch"].get_results()
    assert [one["choices"][0]["message"]["content"] for one in answers] == [
        "the answer to Which planet is the largest?",
        "the answer to Which planet is the smallest?",
    ]
    vectors, _ = names["texts"].get_results()
    assert [one["embedding"] for one in vectors] == [[0.5, 0.25], [0.5, 0.25]]
    assert [set(one) for one in vectors] == [{"custom_id", "embedding"}] * 2


def test_one_batch_goes_through_all_that_can_be_done_with_it(
    ground: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run("one batch")["batch"].wait()
    capsys.readouterr()
    names = run("one batch")
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == ["task-1", "task-0", "task-1"]
    assert len(names["lines"]) == 2
    assert names["batch"].get_status() != "completed"  # it was sent again


def test_a_handler_handles_the_batch_it_was_given_once(
    ground: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def handled() -> bool:
        printed.extend(capsys.readouterr().out.splitlines())
        return bool(printed)

    names = in_the_end("a handler", handled)
    asyncio.run(names["batch_handler"].run_once())
    handled()
    assert printed == ["the answer to When did the first heron land?"]
    assert names["batch_handler"].queues == {"pending": [], "processing": []}


def test_a_stream_of_requests_becomes_a_batch_that_is_handled(
    ground: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: list[str] = []

    def handled() -> bool:
        printed.extend(capsys.readouterr().out.splitlines())
        return bool(printed)

    in_the_end("a stream of requests", handled)
    assert printed[1::2] == ["the answer to How do herons fish?", "the answer to Where do herons sleep?"]
    assert ground.emulator.payments().paid_twice == 0


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with running_redis() as url:
        monkeypatch.setenv("REDIS_URL", url)
        yield


def test_a_queue_in_redis_is_filled(redis_url: None) -> None:
    names = run("a queue in Redis")
    with names["redis_client"]:
        assert len(names["request_queue"]) == 2
        assert [len(messages) for messages in names["request_queue"].get_requests(5)] == [1, 3]

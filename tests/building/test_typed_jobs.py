"""Typed answers through whole jobs: asked for by a model, asked again where they do not fit, taken away."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest
from pydantic import BaseModel

from langbatch import (
    BatchInitializationError,
    BatchStateError,
    ChatCompletionBatch,
    EmbeddingBatch,
    JobManager,
    ResponseBatch,
    SetupError,
    build_requests,
)
from support import World, world


class Label(BaseModel):
    label: str


def answer(body: dict[str, Any], custom_id: str) -> str:
    """Requests called `odd…` get words, unless their temperature is 1."""
    if custom_id.startswith("odd") and body.get("temperature") != 1:
        return f"I cannot say, {custom_id}"
    return json.dumps({"label": f"of {custom_id}"})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, answer=answer) as made:
        yield made


def labelled_batch(service: World, manager: JobManager, *ids: str) -> ChatCompletionBatch:
    requests = build_requests(
        [{"id": name, "text": f"text {name}"} for name in ids],
        prompt="Classify: {text}",
        model="dep",
        id_column="id",
        response_format=Label,
    )
    batch = ChatCompletionBatch.create_from_requests(requests, manager=manager, **service.azure)
    batch.start()
    batch.wait(progress=lambda _: None)
    return batch


def test_create_turns_a_model_into_the_form_of_its_endpoint(service: World) -> None:
    with service.manager() as manager:
        kwargs = {"model": "dep", "response_format": Label}
        chat = ChatCompletionBatch.create(
            [[{"role": "user", "content": "x"}]], kwargs, manager=manager, **service.azure
        )
        [request] = chat.get_requests_by_custom_ids(["request-0"])
        assert request["body"]["response_format"]["json_schema"]["name"] == "Label"
        responses = ResponseBatch.create(
            ["x"], {"model": "dep"}, text_format=Label, manager=manager, **service.azure
        )
        [request] = responses.get_requests_by_custom_ids(["request-0"])
        assert request["body"]["text"]["format"]["strict"] is True
        with pytest.raises(BatchInitializationError, match="no structured answers"):
            EmbeddingBatch.create(["x"], response_format=Label, manager=manager, **service.azure)


def test_each_item_and_each_request_may_name_a_model_of_its_own(service: World) -> None:
    class Other(BaseModel):
        number: int

    def names(batch: ChatCompletionBatch) -> list[str | None]:
        found = batch.get_requests_by_custom_ids([f"request-{number}" for number in range(3)])
        formats = [request["body"].get("response_format") for request in found]
        return [wanted and wanted["json_schema"]["name"] for wanted in formats]

    messages = [{"role": "user", "content": "x"}]
    items: list[dict[str, Any]] = [
        {"messages": messages, "response_format": Label},
        {"messages": messages, "response_format": Other},
        {"messages": messages, "response_format": None},
    ]
    with service.manager() as manager:
        where = {**service.azure, "manager": manager}
        made = ChatCompletionBatch.create(items, {"model": "dep"}, **where)
        assert names(made) == ["Label", "Other", None]
        requests: list[dict[str, Any]] = [
            {
                "custom_id": f"request-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "dep", **item},
            }
            for number, item in enumerate(items)
        ]
        assert names(ChatCompletionBatch.create_from_requests(requests, **where)) == ["Label", "Other", None]
        assert requests[0]["body"]["response_format"] is Label  # the user's own objects stay as they were
        with pytest.raises(BatchInitializationError, match="as JSON"):
            ChatCompletionBatch.create_from_requests([{**requests[0], "custom_id": Label}], **where)


def test_unfit_answers_are_asked_again_as_a_job_of_their_own(service: World) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a", "odd-b", "c", "odd-d")
        before = batch.get_results_file().read_bytes()
        again = batch.ask_again(Label, changes={"temperature": 1, "response_format": None})
        again.wait(progress=lambda _: None)
        asked = list(again.results(with_request=True))
        assert [result.custom_id for result in asked] == ["odd-b", "odd-d"]
        assert [sorted(result.request or {}) for result in asked] == [
            ["messages", "model", "temperature"]
        ] * 2
        assert batch.get_results_file().read_bytes() == before
        assert [found.misfit and found.misfit.code for found in batch.answers(Label)] == [
            None, "not_json", None, "not_json",
        ]  # fmt: skip
        values = [found.value for found in batch.answers(Label, follow_ups=[again])]
        assert values == [Label(label=f"of {name}") for name in ("a", "odd-b", "c", "odd-d")]


def test_asking_again_twice_pays_once_unless_wished(service: World) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a", "odd-b")
        first = batch.ask_again(Label)
        assert service.counts()["batches"] == 2
        assert batch.ask_again(Label).id == first.id
        assert service.counts()["batches"] == 2
        assert batch.ask_again(Label, new=True).id != first.id
        assert service.counts()["batches"] == 3


def test_an_unchanged_request_is_asked_again_byte_for_byte(service: World) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a", "odd-b")
        again = batch.ask_again(where=lambda result: result.custom_id == "odd-b")
        lines = list(manager.snapshot(batch.id).lines(0, 2))
        assert list(manager.snapshot(again.id).lines(0, 1)) == lines[1:]


def test_where_every_answer_fits_there_is_nothing_to_ask_again(service: World) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a")
        with pytest.raises(BatchStateError) as refusal:
            batch.ask_again(Label)
        assert refusal.value.code == "nothing_to_do"
        with pytest.raises(BatchInitializationError):
            batch.ask_again()
        assert list((service.home / "created").glob("job_*")) == [Path(str(batch._file))]


def test_results_are_taken_away_in_the_form_of_the_files_ending(service: World, tmp_path: Path) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a", "odd-b")
        flat = batch.export(tmp_path / "flat.parquet", flatten=True, with_request=True)
        assert polars.read_parquet(flat)["label"].to_list() == ["of a", None]
        assert json.loads(polars.read_parquet(flat)["request"][0])["model"] == "dep"
        plain = batch.export(tmp_path / "plain.pq")
        assert "choices" in json.loads(polars.read_parquet(plain)["response"][0])
        rows = batch.export(tmp_path / "rows.csv", flatten=True).read_text().splitlines()
        assert rows[0].startswith("custom_id,outcome,line,text,label,finish_reason,")
        lines = batch.export(tmp_path / "flat.ndjson", flatten=True).read_text().splitlines()
        assert [json.loads(line)["label"] for line in lines] == ["of a", None]
        with pytest.raises(SetupError, match="unknown format 'xlsx'"):
            batch.export(tmp_path / "rows.xlsx")
        assert not (tmp_path / "rows.xlsx").exists()


def test_dataframes_have_a_row_for_each_request(service: World) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a", "odd-b")
        for frame in (batch.to_pandas(), batch.to_polars()):
            assert next(iter(frame["label"])) == "of a"
            assert list(frame["outcome"]) == ["succeeded", "succeeded"]
        plain = batch.to_polars(flatten=False, with_request=True)
        assert plain.columns[3] == "text"
        assert json.loads(plain["request"][1])["messages"][0]["content"] == "Classify: text odd-b"


def test_parquet_can_be_written_into_a_pipe(service: World, tmp_path: Path) -> None:
    with service.manager() as manager:
        batch = labelled_batch(service, manager, "a")
        read, write = os.pipe()
        with open(write, "wb") as sink:
            manager.export(batch.id, sink, format="parquet")
        with open(read, "rb") as source:
            (tmp_path / "piped.parquet").write_bytes(source.read())
        assert polars.read_parquet(tmp_path / "piped.parquet").height == 1

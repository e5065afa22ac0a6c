"""Joined records read back as `Result`s."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from langbatch.errors import BatchResultsError
from langbatch.records import Usage
from langbatch.results.result import Result, ResultError, langbatch_pairs, read_results
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success


def result_of(folder: Path, row: dict[str, Any]) -> Result:
    return results_of(folder, [row])[0]


def results_of(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Result]:
    join(folder, [row["custom_id"] for row in rows], Tried([encoded(row) for row in rows]))
    return list(read_results(folder / "joined.jsonl"))


def responses_body(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "role": "assistant", "content": list(parts)},
        ],
        "usage": {"input_tokens": 4, "output_tokens": 2},
        **fields,
    }


def said(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def test_a_success_reads_back_with_every_field(tmp_path: Path) -> None:
    result = result_of(tmp_path, success("a"))
    assert (result.custom_id, result.outcome, result.line, result.attempt) == ("a", "succeeded", 10, 1)
    assert result.response == {"status_code": 200, "request_id": "req", "body": chat_body()}
    assert result.error is None
    assert result.status_code == 200
    assert result.usage == Usage(input_tokens=7, output_tokens=3)
    assert result.text == "fine"
    assert result.request is None


def test_a_failure_reads_back_with_its_reason(tmp_path: Path) -> None:
    result = result_of(tmp_path, http_failure("a", 400))
    assert (result.outcome, result.status_code) == ("errored", 400)
    assert result.error == ResultError("content_filter", "no such thing")
    assert (result.text, result.usage) == (None, None)


def test_a_request_that_never_ran_has_no_response(tmp_path: Path) -> None:
    result = result_of(tmp_path, never_ran("a"))
    assert (result.response, result.status_code, result.usage, result.text) == (None, None, None, None)
    assert result.outcome == "expired"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (chat_body("first"), "first"),
        (chat_body(None), None),
        ({"choices": []}, None),
        ({"choices": [{"text": "legacy"}]}, "legacy"),
        (responses_body(said("one "), {"type": "refusal", "refusal": "no"}, said("two")), "one two"),
        (responses_body(), None),
        ({"data": [{"embedding": [0.5]}]}, None),
        ({"output": "odd"}, None),
        ("odd", None),
        ({"choices": [{"message": {"content": "half \ud800"}}]}, "half \ud800"),
    ],
)
def test_text_is_what_the_model_said(tmp_path: Path, body: object, text: str | None) -> None:
    assert result_of(tmp_path, success("a", body)).text == text


def test_an_answer_beside_an_error_is_no_text(tmp_path: Path) -> None:
    result = result_of(tmp_path, success("a", error={"code": "late", "message": "x"}))
    assert (result.outcome, result.text, result.status_code) == ("errored", None, 200)


def test_a_lone_surrogate_spoils_no_field(tmp_path: Path) -> None:
    body = chat_body("half \ud800")
    result = result_of(tmp_path, success("a", body))
    assert result.outcome == "succeeded"
    assert result.response == success("a", body)["response"]
    assert (result.status_code, result.usage) == (200, Usage(7, 3))


def test_a_result_cannot_be_changed(tmp_path: Path) -> None:
    result = result_of(tmp_path, success("a"))
    for name in ("custom_id", "other", "_record"):
        with pytest.raises(AttributeError):
            setattr(result, name, b"")
    with pytest.raises(AttributeError):
        del result._record
    response = result.response
    assert response is not None
    response.clear()
    assert result.response == success("a")["response"]


def test_results_are_equal_by_content_and_survive_pickling(tmp_path: Path) -> None:
    one, other = results_of(tmp_path, [success("a"), success("b")])
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
    assert one != other


def test_repr_shows_no_answer(tmp_path: Path) -> None:
    assert "secret" not in repr(result_of(tmp_path, success("a", chat_body("secret"))))


class City(BaseModel):
    name: str
    people: int

    @field_validator("name")
    @classmethod
    def _real(cls, name: str) -> str:
        if name.startswith("fake"):
            raise ValueError(f"{name} is not a city")
        return name


def test_parse_gives_the_structured_answer(tmp_path: Path) -> None:
    answer = '{"name": "Graz", "people": 300000}'
    chat, responses = results_of(
        tmp_path, [success("a", chat_body(answer)), success("b", responses_body(said(answer)))]
    )
    assert chat.parse(City) == City(name="Graz", people=300_000)
    assert responses.parse(City) == chat.parse(City)
    assert chat.parse(dict) == {"name": "Graz", "people": 300_000}


def _cut(body: dict[str, Any], reason: str) -> dict[str, Any]:
    body["choices"][0]["finish_reason"] = reason
    return body


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (http_failure("a"), "not_succeeded"),
        (never_ran("a"), "not_succeeded"),
        (success("a", chat_body("secret words")), "not_json"),
        (success("a", chat_body('{"name": "secret words"}')), "does_not_fit"),
        (success("a", chat_body('{"name": "secret words", "people": "secret words"}')), "does_not_fit"),
        (success("a", chat_body('{"name": "fake secret words", "people": 1}')), "does_not_fit"),
        (success("a", chat_body(None, refusal="secret words")), "refusal"),
        (success("a", responses_body({"type": "refusal", "refusal": "secret words"})), "refusal"),
        (success("a", _cut(chat_body('{"name": "secret words'), "length")), "truncated"),
        (success("a", _cut(chat_body(None), "content_filter")), "content_filter"),
        (
            success(
                "a", responses_body(said("secret words"), incomplete_details={"reason": "max_output_tokens"})
            ),
            "truncated",
        ),
        (success("a", chat_body(None)), "no_text"),
        (success("a", "secret words"), "no_text"),
        (success("a", chat_body('{"name": "secret words \ud800", "people": 1}')), "does_not_fit"),
    ],
)
def test_parse_says_what_is_in_the_way_and_quotes_no_answer(
    tmp_path: Path, row: dict[str, Any], code: str
) -> None:
    with pytest.raises(BatchResultsError) as refusal:
        result_of(tmp_path, row).parse(City)
    assert refusal.value.code == code
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__ or refusal.value.__context__ is None


def test_parse_names_the_fields_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BatchResultsError, match=r"City: people: Field required"):
        result_of(tmp_path, success("a", chat_body('{"name": "Graz"}'))).parse(City)


def request_line(custom_id: str, body: object) -> bytes:
    return encoded({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def test_request_is_the_body_where_lines_are_given(tmp_path: Path) -> None:
    join(tmp_path, ["a", "b"], Tried([encoded(success("b"))]))
    lines = iter([request_line("a", {"n": 1}) + b"\n", request_line("b", {"n": 2})])
    assert [r.request for r in read_results(tmp_path / "joined.jsonl", lines)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "lines",
    [
        [request_line("b", {}), request_line("a", {})],
        [request_line("a", {})],
        [request_line("a", {}), request_line("b", {}), request_line("c", {})],
    ],
)
def test_requests_out_of_step_with_results_are_refused(tmp_path: Path, lines: list[bytes]) -> None:
    join(tmp_path, ["a", "b"], Tried())
    with pytest.raises(BatchResultsError) as refusal:
        [result.request for result in read_results(tmp_path / "joined.jsonl", iter(lines))]
    assert refusal.value.code == "out_of_step"


def test_several_files_are_read_one_after_another(tmp_path: Path) -> None:
    paths = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        join(tmp_path / name, [name], Tried([encoded(success(name, chat_body("\u2028\x85")))]))
        paths.append(tmp_path / name / "joined.jsonl")
    assert [(r.custom_id, r.text) for r in read_results(paths)] == [("x", "\u2028\x85"), ("y", "\u2028\x85")]


@pytest.mark.parametrize("line", [b"{}\n", b"rubbish\n", b"[]\n", b'{"custom_id":"a"}\n'])
def test_a_file_that_is_no_record_of_ours_is_refused_when_read(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "other.jsonl").write_bytes(line)
    [result] = read_results(tmp_path / "other.jsonl")
    with pytest.raises(BatchResultsError):
        _ = result.custom_id


def test_langbatch_pairs_have_the_form_that_langbatch_gave(tmp_path: Path) -> None:
    embedding: Callable[..., dict[str, Any]] = lambda *vectors: {  # noqa: E731
        "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    }
    rows = [
        success("chat"),
        success("one", embedding([0.5, 1.0])),
        success("two", embedding([0.5], [1.5])),
        success("responses", responses_body(said("x"))),
        success("legacy", {"choices": [{"text": "t"}]}),
        success("odd", {"other": 1}),
        http_failure("failed"),
        never_ran("late"),
    ]
    successful, unsuccessful = langbatch_pairs(results_of(tmp_path, rows))
    assert successful == [
        {"custom_id": "chat", "choices": chat_body()["choices"]},
        {"custom_id": "one", "embedding": [0.5, 1.0]},
        {"custom_id": "two", "embedding": [0.5], "embeddings": [[0.5], [1.5]]},
        {"custom_id": "responses", "output": responses_body(said("x"))["output"]},
        {"custom_id": "legacy", "choices": [{"text": "t"}]},
        {"custom_id": "odd", "body": {"other": 1}},
    ]
    assert unsuccessful == [
        {"custom_id": "failed", "error": {"code": "content_filter", "message": "no such thing"}},
        {"custom_id": "late", "error": {"code": "batch_expired", "message": "too late"}},
    ]


def test_importing_the_reader_loads_nothing_heavy() -> None:
    script = "import langbatch.results.result, langbatch.results.join, sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"pydantic", "openai", "sqlalchemy", "rich", "starlette"} & set(ended.stdout.split())

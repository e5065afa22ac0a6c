"""What the bodies of the four kinds may hold, and what a refusal says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from input_files import chat, embedding, intake_of, write
from langbatch.records import EndpointKind

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}}


def messages_of(tmp_path: Path, url: str, body: dict[str, Any]) -> list[str]:
    request = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "dep", **body}}
    intake = intake_of(write(tmp_path, [request]))
    assert {problem.code for problem in intake.problems} <= {"invalid_body"}
    return [problem.message for problem in intake.problems]


def said(role: str, content: object) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    "body",
    [
        {
            "messages": [
                {"role": role, "content": "x"} for role in ("system", "developer", "user", "assistant")
            ]
        },
        {
            "messages": [
                {"role": "assistant", "tool_calls": CALL},
                {"role": "tool", "tool_call_id": "c", "content": "1"},
            ]
        },
        said("assistant", None),
        said("user", [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:"}}]),
        said("user", []),
        said("user", "x") | {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        said("user", "x") | {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        said("user", "x") | {"response_format": FORMAT},
        said("user", "x")
        | {"response_format": {"type": "json_object"}, "stop": ["a", "b"], "logit_bias": {"1": 2}},
        said("user", "x") | {"n": None, "temperature": None, "max_tokens": 1e2, "seed": -1, "stop": "x"},
        said("user", "x") | {"data_sources": [{"type": "azure_search"}], "metadata": {"k": "v"}},
    ],
)
def test_usual_chat_bodies_pass(tmp_path: Path, body: dict[str, Any]) -> None:
    assert messages_of(tmp_path, "/chat/completions", body) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "body.messages is missing"),
        ({"messages": []}, "body.messages is empty"),
        ({"messages": "hi"}, "body.messages must be array, not string"),
        ({"messages": ["hi"]}, "body.messages[0] must be object, not string"),
        ({"messages": [{"content": "x"}]}, "body.messages[0].role is missing"),
        (
            said("bot", "x"),
            "body.messages[0].role is not one of system, developer, user, assistant, tool, function",
        ),
        ({"messages": [{"role": "user"}]}, "body.messages[0].content is missing"),
        (said("user", 5), "body.messages[0].content must be string or array or null, not integer"),
        (said("user", [{"text": "x"}]), "body.messages[0].content[0].type is missing"),
        (said("user", [{"type": "text"}]), "body.messages[0].content[0].text must be a string"),
        (said("user", "x") | {"temperature": "hot"}, "body.temperature must be number, not string"),
        (said("user", "x") | {"n": [1]}, "body.n must be number, not array"),
        (said("user", "x") | {"tools": {}}, "body.tools must be array, not object"),
        (said("user", "x") | {"tools": [{"type": "function"}]}, "body.tools[0].function is missing"),
        (
            said("user", "x") | {"response_format": {"type": "json_schema"}},
            "body.response_format.json_schema is missing",
        ),
        (said("user", "x") | {"response_format": "json"}, "body.response_format must be object, not string"),
        (said("user", "x") | {"stop": [1]}, "body.stop[0] must be string, not integer"),
    ],
)
def test_chat_faults_name_their_place(tmp_path: Path, body: dict[str, Any], message: str) -> None:
    assert messages_of(tmp_path, "/v1/chat/completions", body) == [message]


@pytest.mark.parametrize(
    ("url", "body", "message"),
    [
        ("/embeddings", {"input": "x"}, None),
        ("/v1/embeddings", {"input": ["x", ""], "dimensions": 3, "encoding_format": "base64"}, None),
        ("/embeddings", {"input": [1, 2]}, None),
        ("/embeddings", {"input": [[1], [2, 3]]}, None),
        ("/embeddings", {}, "body.input is missing"),
        ("/embeddings", {"input": []}, "body.input is empty"),
        ("/embeddings", {"input": None}, "body.input must be string or array, not null"),
        ("/embeddings", {"input": ["x", 1]}, "body.input mixes strings, numbers and arrays"),
        ("/embeddings", {"input": [1.5]}, "body.input[0] must be integer or string or array, not number"),
        ("/responses", {"input": "x", "max_output_tokens": 5, "text": {"format": {"type": "text"}}}, None),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]},
            None,
        ),
        ("/responses", {"input": [{"type": "function_call_output", "call_id": "c", "output": "1"}]}, None),
        ("/responses", {"prompt": {"id": "p"}}, None),
        ("/responses", {}, "body.input is missing"),
        ("/responses", {"input": []}, "body.input is empty"),
        ("/responses", {"input": 5}, "body.input must be string or array, not number"),
        ("/responses", {"input": ["x"]}, "body.input[0] must be object, not string"),
        ("/completions", {"prompt": "x", "max_tokens": 5, "logprobs": 3}, None),
        ("/v1/completions", {"prompt": ["x", "y"]}, None),
        ("/completions", {"prompt": [[1, 2]]}, None),
        ("/completions", {"messages": []}, "body.prompt is missing"),
        ("/completions", {"prompt": {}}, "body.prompt must be string or array, not object"),
    ],
)
def test_other_kinds_have_their_own_shapes(
    tmp_path: Path, url: str, body: dict[str, Any], message: str | None
) -> None:
    assert messages_of(tmp_path, url, body) == ([] if message is None else [message])


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (prefix + path, kind)
        for prefix in ("", "/v1")
        for path, kind in {
            "/chat/completions": "chat_completions",
            "/embeddings": "embeddings",
            "/responses": "responses",
            "/completions": "completions",
        }.items()
    ],
)
def test_kind_is_read_from_the_url(tmp_path: Path, url: str, kind: EndpointKind) -> None:
    prompts = {"messages": [{"role": "user", "content": "x"}], "input": "x", "prompt": "x"}
    needed = {"chat_completions": "messages", "completions": "prompt"}.get(kind, "input")
    body = {"model": "dep", needed: prompts[needed]}
    request = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    intake = intake_of(write(tmp_path, [request]))
    assert (intake.kind, intake.problems) == (kind, ())


def test_inputs_are_counted_by_element_for_embeddings_and_by_line_otherwise(tmp_path: Path) -> None:
    lines = [embedding("a", "x"), embedding("b", ["x", "y"]), embedding("c", [1, 2, 3])]
    assert intake_of(write(tmp_path, lines)).embedding_inputs == 4
    assert intake_of(write(tmp_path, [chat("a"), chat("b")])).embedding_inputs == 2

"""Tokens of one body, and the bound that it sets on its output."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from langbatch.money.bodies import input_tokens, output_bound
from langbatch.money.images import image_size, image_tokens
from langbatch.records import EndpointKind
from money.counting import MADE_UP

MODEL = "gpt-4o"


def tokens(body: dict[str, Any], kind: EndpointKind = "chat_completions") -> tuple[int, int, int]:
    found = input_tokens(body, kind, MADE_UP, MODEL)
    return found.low, found.tokens, found.high


def chat(*contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return "data:image/png;base64," + base64.b64encode(head + bytes(5000)).decode()


def test_a_chat_costs_its_words_three_a_message_and_three_for_the_answer() -> None:
    # "user" is one token, "Hello, world!" four.
    assert tokens(chat("Hello, world!")) == (11, 11, 11)
    assert tokens(chat("Hello, world!", "Hello, world!")) == (19, 19, 19)


def test_a_name_costs_itself_and_one_more() -> None:
    named = {"messages": [{"role": "user", "name": "user", "content": "Hello, world!"}]}
    assert tokens(named) == (13, 13, 13)


def test_text_parts_cost_what_the_same_text_costs() -> None:
    assert tokens(chat([{"type": "text", "text": "Hello, world!"}])) == tokens(chat("Hello, world!"))


def test_a_responses_body_counts_input_and_instructions() -> None:
    plain = tokens({"input": "Hello, world!"}, "responses")
    assert plain == (10, 10, 10)
    items = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello, world!"}]}]}
    assert tokens(items, "responses") == (11, 11, 11)
    assert tokens({"input": "Hello, world!", "instructions": "Hello, world!"}, "responses") == (17, 17, 17)


def test_embeddings_count_texts_and_ready_made_tokens() -> None:
    assert tokens({"input": ["Hello, world!", "Hello, world!"]}, "embeddings") == (8, 8, 8)
    assert tokens({"input": [[1, 2, 3], [4, 5]]}, "embeddings") == (5, 5, 5)


def test_a_legacy_completion_counts_its_prompt() -> None:
    assert tokens({"prompt": "Hello, world!", "suffix": "Hello, world!"}, "completions") == (8, 8, 8)


def test_a_schema_is_counted_with_a_band() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    low, middle, high = tokens({**chat("Hello, world!"), "response_format": schema})
    assert 11 < low < middle < high


_LONG = "word " * 500


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": _LONG}},
        {"role": "assistant", "content": "a", "refusal": _LONG},
        {"role": "assistant", "content": "a", "reasoning_content": _LONG},
        {"role": "user", "content": [{"type": "text", "text": "a", "of_tomorrow": {"deep": [_LONG]}}]},
    ],
)
def test_what_nobody_here_has_heard_of_in_a_message_is_counted(message: dict[str, Any]) -> None:
    assert tokens({"messages": [message]})[2] >= 500


@pytest.mark.parametrize(
    "item",
    [
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": _LONG},
        {"type": "code_interpreter_call", "code": _LONG},
        {"type": "reasoning", "encrypted_content": _LONG, "summary": []},
        {"type": "mcp_list_tools", "server_label": "s", "tools": [{"description": _LONG}]},
    ],
)
def test_what_nobody_here_has_heard_of_in_an_item_is_counted(item: dict[str, Any]) -> None:
    assert tokens({"input": [item]}, "responses")[2] >= 500


def test_a_prediction_is_counted() -> None:
    assert tokens({**chat("a"), "prediction": {"type": "content", "content": _LONG}})[2] >= 500


def test_a_screenshot_costs_what_an_image_does() -> None:
    shot = {"type": "computer_screenshot", "image_url": png(512, 512)}
    image = {"type": "input_image", "image_url": png(512, 512)}
    outputs = [{"type": "computer_call_output", "call_id": "c", "output": part} for part in (shot, image)]
    one, other = (tokens({"input": [output]}, "responses") for output in outputs)
    assert one == other
    assert one[2] > 80


@pytest.mark.parametrize(
    ("kind", "body", "name"),
    [
        ("responses", {"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("responses", {"input": "a", "conversation": "conv_1"}, "conversation"),
        ("responses", {"input": "a", "prompt": {"id": "pmpt_1"}}, "prompt"),
        (
            "responses",
            {"input": "a", "tools": [{"type": "web_search_preview"}]},
            "the tool web_search_preview",
        ),
        ("responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ("chat_completions", {**chat("a"), "web_search_options": {}}, "web_search_options"),
        ("chat_completions", {**chat("a"), "data_sources": [{}]}, "data_sources"),
        ("chat_completions", chat([{"type": "file", "file": {"file_id": "file-1"}}]), "file_id"),
        ("chat_completions", {**chat("a"), "tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ("responses", {"input": "a", "previous_response_id": None, "tools": []}, None),
    ],
)
def test_input_that_is_not_in_the_request_is_named(
    kind: EndpointKind, body: dict[str, Any], name: Any
) -> None:
    assert input_tokens(body, kind, MADE_UP, MODEL).elsewhere == name


def test_an_image_in_the_line_costs_tiles_not_its_base64() -> None:
    image = {"type": "image_url", "image_url": {"url": png(1024, 1024), "detail": "high"}}
    # 1024 x 1024 is scaled to 768 x 768: four tiles, as in OpenAI's own example, 765 tokens.
    assert tokens(chat([image])) == (7 + 765, 7 + 765, 7 + 765)


def test_audio_is_open_to_a_high_bound() -> None:
    low, _, high = tokens(chat([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]))
    assert low == 7
    assert high > 10_000


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("model", "size", "detail", "cost"),
    [
        ("gpt-4o", (2048, 4096), "high", 1105),  # OpenAI's second example: six tiles
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o-mini", (512, 512), "high", 2833 + 5667),
        ("o3", (512, 512), "high", 225),
        ("gpt-4.1-mini", (1024, 1024), "high", 1659),  # 1,024 patches times 1.62
    ],
)
def test_an_image_of_known_size_costs_what_the_rule_says(
    model: str, size: tuple[int, int], detail: str, cost: int
) -> None:
    found = image_tokens(model, png(*size), detail)
    assert (found.low, found.high) == (cost, cost)


def test_an_image_of_unknown_size_is_between_one_tile_and_eight() -> None:
    found = image_tokens("gpt-4o", "https://example.org/a.png", "high")
    assert (found.low, found.high) == (85 + 170, 85 + 8 * 170)


def test_an_unknown_models_image_is_between_the_least_and_the_most_of_all() -> None:
    found = image_tokens(None, None, None)
    assert found.low <= 85
    assert found.high >= 2833 + 8 * 5667


def data_url(kind: str, head: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(head).decode()}"


@pytest.mark.parametrize(
    ("url", "size"),
    [
        (data_url("gif", b"GIF89a" + struct.pack("<HH", 30, 20)), (30, 20)),
        (
            data_url("jpeg", b"\xff\xd8\xff\xe0\x00\x10" + bytes(14) + b"\xff\xc0\x00\x11\x08\x00\x14\x00\x1e" + bytes(9)),
            (30, 20),
        ),
        (data_url("webp", b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x1d\0\0\x13\0\0" + bytes(8)), (30, 20)),
        (data_url("webp", b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 30, 20)), (30, 20)),
        (data_url("png", b"no image at all"), None),
        (data_url("png", b"\x89PNG\r\n\x1a\n" + bytes(20)), None),
        ("data:image/png;base64,***", None),
        ("https://example.org/a.png", None),
    ],
)  # fmt: skip
def test_an_images_size_is_read_from_its_first_bytes(url: str, size: tuple[int, int] | None) -> None:
    assert image_size(url) == size


# ---------------------------------------------------------------- output


def line(body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": "/x", "body": body}).encode()


@pytest.mark.parametrize(
    ("kind", "body", "bound"),
    [
        ("chat_completions", {"max_tokens": 50}, 50),
        ("chat_completions", {"max_completion_tokens": 70, "n": 3}, 210),
        ("chat_completions", {"max_completion_tokens": 70.0, "n": 3.0}, 210),
        ("chat_completions", {"max_completion_tokens": 70, "max_tokens": 5}, 70),
        ("chat_completions", {}, None),
        ("chat_completions", {"metadata": {"max_tokens": 5}}, None),
        ("chat_completions", {"messages": [{"role": "user", "content": '"max_tokens": 5'}]}, None),
        ("responses", {"max_output_tokens": 9}, 9),
        ("responses", {"max_tokens": 9}, None),
        ("completions", {"prompt": "a"}, 16),
        ("completions", {"prompt": ["a", "b"], "max_tokens": 10, "best_of": 2}, 40),
        ("completions", {"prompt": [1, 2, 3], "max_tokens": 10}, 10),
        ("embeddings", {"input": "a"}, 0),
    ],
)
def test_a_body_bounds_its_output(kind: EndpointKind, body: dict[str, Any], bound: int | None) -> None:
    assert output_bound(line(body), kind).tokens == bound


def test_where_a_body_sets_no_bound_the_models_own_holds_for_each_answer() -> None:
    bound = output_bound(line({"model": "m", "n": 2}), "chat_completions")
    assert bound.model == "m"
    assert bound.at_most(100) == 200
    assert bound.at_most(None) is None

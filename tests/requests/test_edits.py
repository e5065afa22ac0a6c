"""Editing one value of a line leaves every other byte alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from input_files import chat, line
from langbatch.requests.edits import with_custom_id
from langbatch.requests.jsonscan import find, scan_line
from langbatch.requests.validation import Editor, edit_line

V1 = "/v1/chat/completions"


def test_model_and_url_are_replaced_and_nothing_else() -> None:
    before = (
        b'{"custom_id":"a", "method" :"POST","url":"/chat/completions","body":{"n":1.50, "model" : "m" }}'
    )
    after = before.replace(b'"/chat', b'"/v1/chat').replace(b'"m"', b'"dep"')
    assert edit_line(before, "dep", V1) == after
    assert edit_line(before + b"\n", "dep", V1) == after + b"\n"
    assert edit_line(before, None, None) == before
    assert edit_line(after, "dep", V1) == after


def test_words_model_and_url_elsewhere_are_left_alone() -> None:
    request = chat(
        "model", 'say "model": "gpt" and "url"', tools=[{"type": "x", "model": "inner", "url": "u"}]
    )
    request = {"url": request["url"], "body": {"url": "mine", **request["body"]}, **request}
    expected = json.loads(line(request))
    expected["body"]["model"] = "new"
    assert edit_line(line(request), "new", None) == line(expected)


def test_body_without_model_gets_one_in_front() -> None:
    request = chat("a")
    del request["body"]["model"]
    assert edit_line(line(request), "dep", None) == line(request).replace(
        b'"body": {', b'"body": {"model": "dep", '
    )
    assert edit_line(b'{"body": { }}', "dep", None) == b'{"body": {"model": "dep" }}'


@pytest.mark.parametrize("written", [b'"\\/chat\\/completions"', b'"/chat\\u002fcompletions"'])
def test_value_written_with_other_escapes_stays_as_it_is(written: bytes) -> None:
    escaped = line(chat("a")).replace(b'"/chat/completions"', written)
    assert edit_line(escaped, None, "/chat/completions") == escaped


def test_odd_deployment_names_are_written_as_json() -> None:
    name = 'dé"p\\1'
    assert json.loads(edit_line(line(chat("a")), name, None))["body"]["model"] == name


@given(
    st.dictionaries(st.sampled_from(["model", "messages", "url", "n", "é"]), st.text(max_size=5), max_size=4),
    st.permutations(["custom_id", "method", "url", "body"]),
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " : ")]),
    st.text(min_size=1, max_size=6),
    st.none() | st.just(V1),
    st.booleans(),
)
def test_every_other_byte_is_identical(
    body: dict[str, str],
    order: list[str],
    separators: tuple[str, str],
    model: str,
    url: str | None,
    ascii_only: bool,
) -> None:
    request = {"custom_id": "a", "method": "POST", "url": "/chat/completions", "body": body}
    text = json.dumps(
        {key: request[key] for key in order}, separators=separators, ensure_ascii=ascii_only
    ).encode()
    editor = Editor(model, url)
    # The first time the line is scanned, the second time its frame is known.
    edited = editor.edit(text)
    assert editor.edit(text) == edited
    after = json.loads(edited)
    assert after["body"]["model"] == model
    assert after["url"] == (url or "/chat/completions")
    assert _without(edited) == _without(text)


def _without(text: bytes) -> bytes:
    """The line without its url's value and without its model, key and comma included."""
    scanned = scan_line(text)
    url, model = scanned.member("url"), find(scanned.body or (), "model")
    assert url is not None
    cuts = [(url.value_start, url.value_end)]
    if model is not None:
        start, end = model.key_start, model.value_end
        follows = text[end:].lstrip(b" \t")
        if follows.startswith(b","):
            behind = follows[1:].lstrip(b" \t")
            end = len(text) - len(behind)
        else:
            start = len(text[:start].rstrip(b" \t,"))
        cuts.append((start, end))
    for start, end in sorted(cuts, reverse=True):
        text = text[:start] + text[end:]
    return text


def test_custom_id_is_put_in_place_of_a_bad_one_or_in_front() -> None:
    assert with_custom_id(b'{"a": 1, "custom_id": null}', b'"x"') == b'{"a": 1, "custom_id": "x"}'
    assert with_custom_id(b'{"a": 1}', b'"x"') == b'{"custom_id": "x", "a": 1}'
    assert with_custom_id(b"{ }", b'"x"') == b'{"custom_id": "x" }'

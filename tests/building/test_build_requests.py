"""Requests built from rows: bodies, ids, images, and what is said of rows that cannot be sent."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from langbatch import (
    BatchInitializationError,
    BatchResultsError,
    BatchValidationError,
    JobManager,
    build_requests,
    write_requests,
)
from langbatch.building.images import IMAGE_LIMIT_BYTES, ImageFile, find_image
from measuring import peak_megabytes

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9


def bodies(rows: Any, **wishes: Any) -> list[dict[str, Any]]:
    return [request["body"] for request in build_requests(rows, **wishes)]


def test_a_chat_request_has_the_system_text_the_prompt_and_what_goes_into_every_body() -> None:
    [request] = build_requests(
        [{"id": "a", "text": "good"}],
        prompt="Classify: {text}",
        system="You know {text}.",
        model="gpt-4o-mini",
        id_column="id",
        max_tokens=5,
        temperature=0,
    )
    assert request == {
        "custom_id": "a",
        "method": "POST",
        "url": "/chat/completions",
        "body": {
            "model": "gpt-4o-mini",
            "max_completion_tokens": 5,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": "You know good."},
                {"role": "user", "content": "Classify: good"},
            ],
        },
    }


def test_every_kind_of_endpoint_gets_its_own_body() -> None:
    row = [{"text": "x"}]
    assert bodies(row, prompt="{text}", url="/v1/responses", system="s", max_tokens=9) == [
        {"max_output_tokens": 9, "instructions": "s", "input": "x"}
    ]
    assert bodies(row, prompt="{text}", url="/completions", max_tokens=9) == [
        {"max_tokens": 9, "prompt": "x"}
    ]
    assert bodies(row, embed_column="text", dimensions=8) == [{"dimensions": 8, "input": "x"}]
    [request] = build_requests(row, embed_column="text")
    assert request["url"] == "/embeddings"


class Label(BaseModel):
    label: str


def test_a_model_or_a_schema_becomes_the_form_of_the_answers() -> None:
    [typed] = bodies([{"t": "x"}], prompt="{t}", response_format=Label)
    [plain] = bodies(
        [{"t": "x"}], prompt="{t}", response_format={**Label.model_json_schema(), "title": "Label"}
    )
    assert typed == plain
    assert typed["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    [responses] = bodies([{"t": "x"}], prompt="{t}", url="/responses", response_format=Label)
    assert responses["text"]["format"]["name"] == "Label"


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"prompt": "x", "embed_column": "t"},
        {"embed_column": "t", "url": "/responses"},
        {"embed_column": "t", "system": "s"},
        {"embed_column": "t", "image_column": "t"},
        {"embed_column": "t", "max_tokens": 5},
        {"embed_column": "t", "response_format": Label},
        {"prompt": "x", "url": "/images/generations"},
    ],
)
def test_wishes_that_contradict_each_other_are_refused_at_once(wishes: dict[str, Any]) -> None:
    with pytest.raises(BatchInitializationError):
        build_requests([{"t": "x"}], **wishes)


def test_a_column_that_a_table_does_not_have_is_refused_with_those_there_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Id,Text\n1,a\n")
    with pytest.raises(BatchInitializationError) as refusal:
        build_requests(path, prompt="{text}")
    assert refusal.value.message == "there is no column 'text'"
    assert refusal.value.hint == "the columns are: Id, Text"


def test_every_faulty_row_is_told_after_the_good_ones_came() -> None:
    rows = [{"t": "a"}, {}, {"t": " "}, {"t": "b"}, {"t": None}]
    requests = build_requests(rows, prompt="{t}")
    assert [next(requests)["body"]["messages"][0]["content"] for _ in range(2)] == ["a", "b"]
    with pytest.raises(BatchValidationError) as refusal:
        next(requests)
    assert [(p.line, p.code) for p in refusal.value.problems] == [
        (2, "missing_column"),
        (3, "empty_prompt"),
        (5, "no_value"),
    ]


# ---------------------------------------------------------------- ids


def ids(rows: Any, **wishes: Any) -> list[str]:
    return [request["custom_id"] for request in build_requests(rows, **wishes)]


def test_an_id_of_content_stays_whatever_the_order_and_changes_with_what_is_sent() -> None:
    one, other = {"t": "one"}, {"t": "other"}
    first = ids([one, other], prompt="{t}")
    assert ids([other, one], prompt="{t}") == first[::-1]
    assert not set(ids([one, other], prompt="{t}", temperature=1)) & set(first)
    assert first[0] == "row-3bf91fe81118a0827762"


def test_equal_rows_get_ids_by_their_place_among_equals() -> None:
    first, second, third = ids([{"t": "x"}] * 3, prompt="{t}")
    assert (second, third) == (f"{first}-2", f"{first}-3")


def test_an_id_that_stands_twice_is_told_with_the_first_line() -> None:
    with pytest.raises(BatchValidationError) as refusal:
        ids([{"id": 7}, {"id": 8}, {"id": "7"}], prompt="x", id_column="id")
    [problem] = refusal.value.problems
    assert (problem.line, problem.code) == (3, "duplicate_custom_id")
    assert problem.message.endswith("already on line 1")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 513])
def test_an_id_that_validation_would_refuse_is_a_fault_of_its_row(name: str) -> None:
    with pytest.raises(BatchValidationError) as refusal:
        ids([{"id": name}], prompt="x", id_column="id")
    assert refusal.value.problems[0].code == "bad_custom_id"


# ---------------------------------------------------------------- images


def test_an_address_passes_as_it_is_and_an_empty_cell_is_no_image() -> None:
    rows = [{"i": "https://x.test/a.png"}, {"i": ""}, {"i": None}]
    with_image, *without = bodies(rows, prompt="see", image_column="i")
    assert with_image["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
    ]
    assert [body["messages"][0]["content"] for body in without] == ["see", "see"]
    [responses] = bodies(rows[:1], prompt="see", image_column="i", url="/responses")
    assert responses["input"][0]["content"][1] == {"type": "input_image", "image_url": "https://x.test/a.png"}


def test_a_file_becomes_a_data_url_the_same_when_written_and_when_iterated(tmp_path: Path) -> None:
    content = PNG * 700
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "rows.csv").write_text("image\na.jpg\n")
    wishes: dict[str, Any] = {"prompt": "see", "image_column": "image"}
    [request] = build_requests(tmp_path / "rows.csv", **wishes)
    url = request["body"]["messages"][0]["content"][1]["image_url"]["url"]
    kind, _, encoded = url.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded) == content
    out = io.BytesIO()
    write_requests(tmp_path / "rows.csv", out, **wishes)
    assert json.loads(out.getvalue()) == request


def test_an_images_content_is_part_of_its_requests_id(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(PNG)
    (tmp_path / "b").write_bytes(PNG + b"x")
    rows = [{"i": "a"}, {"i": "b"}, {"i": "a"}]
    first, other, again = ids(rows, prompt="see", image_column="i", image_folder=tmp_path)
    assert other != first
    assert again == f"{first}-2"


@pytest.mark.parametrize(
    ("head", "media_type"),
    [(b"\xff\xd8\xff\xe0", "image/jpeg"), (b"GIF89a", "image/gif"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp")],
)
def test_an_image_is_known_by_its_first_bytes(tmp_path: Path, head: bytes, media_type: str) -> None:
    (tmp_path / "image").write_bytes(head)
    [body] = bodies([{"i": "image"}], prompt="x", image_column="i", image_folder=tmp_path)
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith(f"data:{media_type};")


def test_what_is_no_image_is_never_sent(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password=hunter2 and more of it")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"GIF89a")
    with (tmp_path / "large").open("r+b") as file:
        file.truncate(IMAGE_LIMIT_BYTES + 1)
    rows = [{"i": name} for name in ("secret", "pipe", "large", "nowhere", ".", "a\0b", "ftp://x/y.png")]
    with pytest.raises(BatchValidationError) as refusal:
        bodies(rows, prompt="x", image_column="i", image_folder=tmp_path)
    assert [problem.code for problem in refusal.value.problems] == [
        "not_an_image", "no_image", "image_too_large", "no_image", "no_image", "no_image", "no_image",
    ]  # fmt: skip
    assert "hunter2" not in str(refusal.value.problems)


def test_an_image_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    found = find_image("a.png", tmp_path)
    assert isinstance(found, ImageFile)
    for content in (PNG[:-1] + b"x", PNG[:-1]):
        path.write_bytes(content)
        with pytest.raises(BatchInitializationError, match=r"a\.png changed"):
            b"".join(found.data_url())


# ---------------------------------------------------------------- files


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    built = write_requests([{"t": "é"}, {"t": "b"}], out, prompt="{t}")
    assert (built.requests, built.problems) == (2, ())
    assert [json.loads(line) for line in out.read_text().splitlines()] == list(
        build_requests([{"t": "é"}, {"t": "b"}], prompt="{t}")
    )
    assert out.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_where_a_row_is_faulty(tmp_path: Path) -> None:
    stream = io.BytesIO()
    for out in (tmp_path / "out.jsonl", stream):
        with pytest.raises(BatchValidationError):
            write_requests([{"t": "a"}, {"t": None}], out, prompt="{t}")
    assert list(tmp_path.iterdir()) == []
    assert stream.getvalue() == b""


def test_faulty_rows_can_be_left_out_and_are_still_told(tmp_path: Path) -> None:
    built = write_requests([{"t": "a"}, {"t": None}], tmp_path / "out", prompt="{t}", skip_invalid=True)
    assert built.requests == 1
    assert [problem.line for problem in built.problems] == [2]


def test_an_existing_file_stays_without_replace(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(BatchResultsError):
        write_requests([{"t": "a"}], out, prompt="{t}", replace=False)
    assert out.read_text() == "mine"


def test_what_is_built_passes_validation(tmp_path: Path, home: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    rows = [{"t": "a", "i": "a.png"}, {"t": "b", "i": None}]
    for url in ("/chat/completions", "/responses"):
        out = tmp_path / "out.jsonl"
        write_requests(
            rows, out, prompt="{t}", url=url, model="m", image_column="i", image_folder=tmp_path,
            response_format=Label, max_tokens=5, system="s",
        )  # fmt: skip
        with JobManager() as manager:
            intake = manager.validate(out)
        assert (intake.total, intake.problems) == (2, ())
        assert not {"unknown_field"} & {warning.code for warning in intake.warnings}


BUILD = """
import sys
from langbatch import write_requests
rows = ({"text": f"{number} " + "words " * 100} for number in range(int(sys.argv[1])))
with open("/dev/null", "wb") as out:
    write_requests(rows, out, prompt="Classify: {text}", model="m")
"""


def test_memory_does_not_grow_with_the_rows() -> None:
    small, large = peak_megabytes(BUILD, 10_000), peak_megabytes(BUILD, 100_000)
    assert large < 120
    assert large < small + 20

"""Answers as types: what fits, what does not and why, and what is flagged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from langbatch.errors import UnfitAnswer
from langbatch.results.answers import answers, with_follow_ups
from langbatch.results.result import Result, read_results
from results.joining import Tried, chat_body, encoded, http_failure, join, never_ran, success


def results_of(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Result]:
    folder.mkdir(exist_ok=True)
    join(folder, [row["custom_id"] for row in rows], Tried([encoded(row) for row in rows]))
    return list(read_results(folder / "joined.jsonl"))


class Address(BaseModel):
    city: str


class Person(BaseModel):
    name: str
    age: int
    homes: list[Address] = []


GOOD = '{"name": "Ada", "age": 36}'


def ended(reason: str | None, text: str | None = "x") -> dict[str, Any]:
    body = chat_body(text)
    body["choices"][0]["finish_reason"] = reason
    return body


def test_each_result_comes_with_its_answer_or_with_what_is_in_the_way(tmp_path: Path) -> None:
    rows = [
        success("a", chat_body(GOOD)),
        success("b", chat_body('{"name": "Ada", "age": "old", "homes": [{"city": 5}]}')),
        success("c", ended("length", '{"name')),
        never_ran("d"),
    ]
    good, unfit, cut, late = answers(results_of(tmp_path, rows), Person)
    assert (good.value, good.misfit) == (Person(name="Ada", age=36), None)
    assert unfit.misfit is not None
    assert unfit.misfit.code == "does_not_fit"
    assert unfit.misfit.fields == ("age", "homes.0.city")
    assert unfit.value is None
    assert unfit.result.text == '{"name": "Ada", "age": "old", "homes": [{"city": 5}]}'
    assert [answer.misfit and answer.misfit.code for answer in (cut, late)] == ["truncated", "not_succeeded"]


def test_a_misfit_keeps_neither_the_answer_nor_the_frames_it_was_found_in(tmp_path: Path) -> None:
    [result] = results_of(tmp_path, [success("a", chat_body('{"name": "secret"}'))])
    misfit = result.misfit(Person)
    assert isinstance(misfit, UnfitAnswer)
    assert misfit.fields == ("age",)
    assert "secret" not in misfit.message
    assert misfit.__traceback__ is None
    assert result.misfit(dict) is None


@pytest.mark.parametrize(
    ("row", "reason", "flags"),
    [
        (success("a", ended("stop")), "stop", ""),
        (success("a", ended("length")), "length", "truncated"),
        (success("a", ended("content_filter", None)), "content_filter", "filtered"),
        (success("a", ended(None)), None, ""),
        (success("a", chat_body(None, refusal="no")), "stop", "refused"),
        (success("a", {"output": [], "status": "completed"}), "completed", ""),
        (
            success("a", {"output": [], "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}),
            "max_output_tokens",
            "truncated",
        ),
        (success("a", {"data": [{"embedding": [1]}]}), None, ""),
        (http_failure("a"), None, "filtered"),
        (http_failure("a", 500, {"error": {"code": "other"}}), None, ""),
        (never_ran("a"), None, ""),
    ],
)  # fmt: skip
def test_why_an_answer_ended_is_flagged(
    tmp_path: Path, row: dict[str, Any], reason: str | None, flags: str
) -> None:
    [result] = results_of(tmp_path, [row])
    assert result.finish_reason == reason
    raised = [name for name in ("truncated", "filtered", "refused") if getattr(result, name)]
    assert " ".join(raised) == flags


def test_follow_ups_stand_in_for_unfit_answers_where_they_fit(tmp_path: Path) -> None:
    bad = chat_body("words")
    first = results_of(
        tmp_path / "first",
        [success("a", chat_body(GOOD)), success("b", bad), success("c", bad), success("d", chat_body(GOOD))],
    )
    later = results_of(tmp_path / "later", [success("b", chat_body(GOOD)), success("c", ended("length"))])
    merged = list(with_follow_ups(answers(first, Person), answers(later, Person)))
    assert [answer.result.custom_id for answer in merged] == ["a", "b", "c", "d"]
    assert [answer.misfit and answer.misfit.code for answer in merged] == [None, None, "not_json", None]
    assert merged[1].result == later[0]

"""Prompt templates: columns between braces, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langbatch.building.template import RowFault, Template
from langbatch.errors import BatchInitializationError


def test_a_column_between_braces_is_the_rows_value() -> None:
    assert Template.parse("Is {text} a {kind}?").fill({"text": "a cat", "kind": "dog"}) == "Is a cat a dog?"


def test_doubled_braces_are_braces() -> None:
    assert Template.parse('{{"label": "{text}"}}').fill({"text": "x"}) == '{"label": "x"}'


@pytest.mark.parametrize("name", ["Product name", "a.b", "a[0]", "text!r", "text:>10", "__class__", "ä"])
def test_a_columns_name_is_taken_letter_by_letter(name: str) -> None:
    assert Template.parse("{" + name + "}").fill({name: "found"}) == "found"


@pytest.mark.parametrize("template", ["{text.__class__}", "{text[0]}", "{text!r}", "{0}"])
def test_no_attribute_or_index_of_a_value_is_reached(template: str) -> None:
    with pytest.raises(RowFault) as fault:
        Template.parse(template).fill({"text": "secret"})
    assert fault.value.code == "missing_column"
    assert "secret" not in fault.value.message
    assert fault.value.message.endswith("the columns are: text")


def test_braces_in_a_value_stay_as_they_are() -> None:
    assert Template.parse("{a} {b}").fill({"a": "{b} }} {", "b": "2"}) == "{b} }} { 2"


@pytest.mark.parametrize("template", ["{", "}", "a {b", "a} b", "{}", "{{}", "{a{b}}"])
def test_a_stray_brace_is_refused_with_its_place(template: str) -> None:
    with pytest.raises(BatchInitializationError, match="at character") as refusal:
        Template.parse(template)
    assert refusal.value.code == "template"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "5"), (1.5, "1.5"), (True, "True"), ([1, "é"], '[1, "é"]'), ({"a": None}, '{"a": null}'), ("", "")],
)
def test_values_that_are_no_text_are_written_as_people_would(value: Any, text: str) -> None:
    assert Template.parse("{v}").fill({"v": value}) == text


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "no_value"),
        (float("nan"), "no_value"),
        (b"x", "odd_value"),
        ([b"x"], "odd_value"),
        ("\ud800", "odd_value"),
    ],
)
def test_what_cannot_be_said_is_a_fault_of_the_row(value: Any, code: str) -> None:
    with pytest.raises(RowFault) as fault:
        Template.parse("{v}").fill({"v": value})
    assert fault.value.code == code


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_when_its_braces_are_doubled(text: str) -> None:
    assert Template.parse(text.replace("{", "{{").replace("}", "}}")).fill({}) == text

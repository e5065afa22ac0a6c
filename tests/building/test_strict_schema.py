"""Schemas for strict answers: what the services' guides ask for, and what has no such form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from langbatch.building.strict_schema import answer_format, schema_of, strict_schema, with_answer_format
from langbatch.errors import BatchInitializationError


class Size(Enum):
    small = "small"
    large = "large"


class Part(BaseModel):
    """A part of it."""

    count: int = Field(1, ge=1, le=9, description="How many")
    parts: list[Part] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Order(BaseModel):
    name: str = Field(max_length=20, pattern="^[A-Z]")
    size: Size
    note: str | None = None
    main: Part = Field(description="The main one")
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    day: date
    either: int | str = 5


def nodes(value: Any) -> list[dict[str, Any]]:
    """Every schema in a schema."""
    if isinstance(value, list):
        return [node for item in value for node in nodes(item)]
    if not isinstance(value, dict):
        return []
    inner = [
        node for key, item in value.items() if key not in ("properties", "$defs") for node in nodes(item)
    ]
    for key in ("properties", "$defs"):
        inner += [node for item in value.get(key, {}).values() for node in nodes(item)]
    return [value, *inner]


def test_every_object_is_closed_and_requires_all_it_has() -> None:
    objects = [node for node in nodes(schema_of(Order)) if node.get("type") == "object"]
    assert len(objects) >= 4
    for node in objects:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])


def test_only_words_of_the_strict_subset_are_left() -> None:
    allowed = {
        "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const",
        "$ref", "$defs", "title", "description",
    }  # fmt: skip
    for node in nodes(schema_of(Order)):
        assert set(node) <= allowed


def test_nothing_stands_beside_a_reference() -> None:
    references = [node for node in nodes(schema_of(Order)) if "$ref" in node]
    assert references
    assert all(set(node) == {"$ref"} for node in references)
    assert schema_of(Order)["properties"]["main"]["description"] == "The main one"


def test_limits_that_not_every_service_takes_are_told_in_words() -> None:
    properties = schema_of(Order)["properties"]
    assert properties["name"]["description"] == "at most 20 characters; matching ^[A-Z]"
    assert properties["day"]["description"] == "format date"
    count = schema_of(Order)["$defs"]["Part"]["properties"]["count"]
    assert count["description"] == "How many (at least 1; at most 9)"


def test_a_union_by_discriminator_becomes_any_of() -> None:
    pet = schema_of(Order)["properties"]["pet"]
    assert pet["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]


def test_a_model_that_holds_itself_is_written_out_once_at_the_top() -> None:
    class Node(BaseModel):
        name: str
        children: list[Node]

    Node.model_rebuild(_types_namespace={"Node": Node})
    schema = schema_of(Node)
    assert schema["type"] == "object"
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    assert schema["$defs"]["Node"]["required"] == ["name", "children"]


def test_described_references_in_a_circle_come_to_an_end() -> None:
    circle = {"$ref": "#/$defs/a", "description": "again"}
    schema = {
        "type": "object",
        "properties": {"first": circle},
        "$defs": {"a": {"type": "object", "properties": {"next": circle}}},
    }
    first = strict_schema(schema)["properties"]["first"]
    assert first["description"] == "again"
    assert first["properties"]["next"] == {"$ref": "#/$defs/a"}


def test_values_of_several_types_get_their_types() -> None:
    class Mixed(BaseModel):
        value: Literal[1, "one", None]

    assert schema_of(Mixed)["properties"]["value"]["type"] == ["integer", "string", "null"]


def test_dataclasses_have_schemas_too() -> None:
    @dataclass
    class City:
        name: str

    assert schema_of(City)["properties"] == {"name": {"title": "Name", "type": "string"}}


class Anything(BaseModel):
    value: Any


class FreeKeys(BaseModel):
    counts: dict[str, int]


class Pair(BaseModel):
    both: tuple[int, str]


class Impossible(BaseModel):
    value: Callable[[], int]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Anything, "answer.value: may be anything"),
        (FreeKeys, "answer.counts: has keys of any name"),
        (Pair, "answer.both: uses `prefixItems`"),
        (list[Cat], "answer: must be an object at the top"),
        (int, "answer: must be an object at the top"),
        (Impossible, "answer: Cannot generate"),
    ],
)
def test_what_strict_answers_cannot_have_is_named_with_its_field(model: Any, message: str) -> None:
    with pytest.raises(BatchInitializationError) as refusal:
        schema_of(model)
    assert refusal.value.message.startswith(message)
    assert refusal.value.code == "schema_not_strict"


def test_a_model_that_names_an_unknown_type_is_refused_with_its_name() -> None:
    class Unfinished(BaseModel):
        part: NoSuchModel  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(BatchInitializationError, match=r"Unfinished.*not fully defined"):
        schema_of(Unfinished)


def test_a_reference_to_nowhere_is_refused() -> None:
    with pytest.raises(BatchInitializationError, match="not in the schema"):
        strict_schema({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}})


def test_the_schema_given_is_not_changed() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    strict_schema(schema)
    assert schema == {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}


def test_each_kind_of_endpoint_has_its_place_for_the_format() -> None:
    chat = answer_format("chat_completions", Cat)["response_format"]
    assert chat["type"] == "json_schema"
    assert chat["json_schema"] == {"name": "Cat", "strict": True, "schema": schema_of(Cat)}
    responses = answer_format("responses", Cat)["text"]["format"]
    assert responses == {"type": "json_schema", "name": "Cat", "strict": True, "schema": schema_of(Cat)}
    with pytest.raises(BatchInitializationError, match="no structured answers"):
        answer_format("embeddings", Cat)


def test_a_formats_name_has_only_characters_that_services_take() -> None:
    schema = {"title": "Antwort für alle " * 10, "type": "object", "properties": {}}
    name = answer_format("chat_completions", schema)["response_format"]["json_schema"]["name"]
    assert name.startswith("Antwort_f_r_alle_")
    assert len(name) == 64


def test_a_type_in_a_body_becomes_what_the_endpoint_takes_and_a_dict_stays() -> None:
    body = with_answer_format("responses", {"text_format": Cat, "text": {"verbosity": "low"}})
    assert set(body) == {"text"}
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["name"] == "Cat"
    ready = {"response_format": {"type": "json_object"}, "temperature": 0}
    assert with_answer_format("chat_completions", ready) == ready


def test_a_format_that_is_ready_stays_as_it_is() -> None:
    assert answer_format("responses", {"type": "json_object"}) == {
        "text": {"format": {"type": "json_object"}}
    }

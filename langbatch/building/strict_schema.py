"""JSON schemas in the subset that strict structured outputs take, and the part of a body that asks for one.

The rules are those of the services' guides ("Structured outputs", OpenAI and Azure OpenAI): an object at the
root, every property required, `additionalProperties: false`, nothing beside a `$ref`, `anyOf` but no `oneOf`.
Azure's guide lists more words as unsupported than OpenAI's (`minimum`, `pattern`, `maxItems`, …), and a
schema that is refused fails every request of a batch a day later. So those words become part of the
description, which the model reads on both services; `Result.parse` holds the answer to the model itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from langbatch.errors import BatchInitializationError
from langbatch.records import EndpointKind

_JSON_TYPES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}

#: Constraints that not every service takes, as the model is told them.
_IN_WORDS: Final[Mapping[str, Callable[[Any], str]]] = {
    "minimum": lambda value: f"at least {value}",
    "exclusiveMinimum": lambda value: f"more than {value}",
    "maximum": lambda value: f"at most {value}",
    "exclusiveMaximum": lambda value: f"less than {value}",
    "multipleOf": lambda value: f"a multiple of {value}",
    "minLength": lambda value: f"at least {value} characters",
    "maxLength": lambda value: f"at most {value} characters",
    "pattern": lambda value: f"matching {value}",
    "format": lambda value: f"format {value}",
    "minItems": lambda value: f"at least {value} items",
    "maxItems": lambda value: f"at most {value} items",
    "uniqueItems": lambda value: "no item twice" if value else "",
}
#: What changes the meaning of a schema and has no form in the subset.
_IMPOSSIBLE: Final = (
    "allOf",
    "not",
    "if",
    "dependentRequired",
    "dependentSchemas",
    "patternProperties",
    "propertyNames",
    "prefixItems",
    "contains",
    "minProperties",
    "maxProperties",
)
_NAME_CHARACTERS: Final = re.compile(r"[^A-Za-z0-9_-]+")
#: Longest name of an answer's format (OpenAI's API reference, `json_schema.name`).
_NAME_LIMIT: Final = 64


#: Types of formats, none of them a type of JSON Schema.
_READY: Final = ("json_schema", "json_object", "text")


def schema_of(model: Any) -> dict[str, Any]:
    """The strict schema of a pydantic model, or of any type that pydantic makes a JSON object of.

    Raises `BatchInitializationError` naming the field that strict answers cannot have.
    """
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        schema = TypeAdapter(model).json_schema()
    except PydanticUserError as error:
        # The first line names the type at fault; the others are advice on pydantic.
        raise _refusal("answer", str(error).splitlines()[0]) from None
    except PydanticUndefinedAnnotation as error:  # what pydantic 2.7 says
        name = getattr(model, "__name__", repr(model))
        raise _refusal("answer", f"`{name}` is not fully defined: {error}") from None
    return strict_schema(schema)


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`schema` in the strict subset; raises `BatchInitializationError` where it has no such form."""
    return _Strict(schema).root()


def answer_format(kind: EndpointKind, wanted: Any, name: str | None = None) -> dict[str, Any]:
    """The part of a body that asks for answers of this form: `response_format`, or Responses' `text`.

    `wanted` is a pydantic model, another type, or a JSON schema as a mapping; what is a format as the
    services take it already stays as it is.
    """
    if kind not in ("chat_completions", "responses"):
        raise BatchInitializationError(
            f"{kind} requests have no structured answers", hint="They are for chat completions and responses."
        )
    if isinstance(wanted, Mapping) and wanted.get("type") in _READY and "properties" not in wanted:
        return {"response_format": wanted} if kind == "chat_completions" else {"text": {"format": wanted}}
    if isinstance(wanted, Mapping):
        schema, title = strict_schema(wanted), wanted.get("title")
    else:
        schema, title = schema_of(wanted), getattr(wanted, "__name__", None)
    called = _NAME_CHARACTERS.sub("_", str(name or title or "answer"))[:_NAME_LIMIT] or "answer"
    described = {"name": called, "strict": True, "schema": schema}
    if kind == "chat_completions":
        return {"response_format": {"type": "json_schema", "json_schema": described}}
    return {"text": {"format": {"type": "json_schema", **described}}}


#: Where users say what an answer should be: the SDK's names for chat completions and for responses.
FORMAT_WORDS: Final = ("response_format", "text_format")


def with_answer_format(kind: EndpointKind, body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with a type under `response_format` or `text_format` turned into what the endpoint takes.

    What is no type there (a dict, None) passes as it is.
    """
    made = dict(body)
    for word in FORMAT_WORDS:
        wanted = made.get(word)
        if wanted is None or isinstance(wanted, (Mapping, str)):
            continue
        del made[word]
        add_format(made, _format_of_type(kind, wanted))
    return made


def requests_with_answer_formats(
    kind: EndpointKind, requests: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Request objects with the types that their bodies name under `response_format` or `text_format` turned
    into what the endpoint takes; the rest as they are."""
    for request in requests:
        body = request.get("body") if isinstance(request, Mapping) else None
        if isinstance(body, Mapping) and not body.keys().isdisjoint(FORMAT_WORDS):
            yield {**request, "body": with_answer_format(kind, body)}
        else:
            yield request


def _format_of_type(kind: EndpointKind, wanted: Any) -> dict[str, Any]:
    try:
        return _known_format(kind, wanted)
    except TypeError:  # a type that cannot be hashed
        return answer_format(kind, wanted)


@lru_cache(maxsize=32)
def _known_format(kind: EndpointKind, wanted: Any) -> dict[str, Any]:
    # A schema takes a millisecond to make, and a hundred thousand requests may name one type.
    return answer_format(kind, wanted)


def add_format(body: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Put an `answer_format` into a body: Responses' `text` may hold a verbosity as well."""
    for key, value in part.items():
        there = body.get(key)
        body[key] = {**there, **value} if isinstance(there, Mapping) else value


class _Strict:
    """One schema's walk. `open_refs` are the definitions a place lies in, to stop at recursion."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema

    def root(self) -> dict[str, Any]:
        top = {key: value for key, value in self._schema.items() if key not in ("$defs", "definitions")}
        strict = self._node(top, "answer", ())
        if "$ref" in strict:
            strict = self._node(self._definition(strict["$ref"], "answer"), "answer", (strict["$ref"],))
        if strict.get("type") != "object":
            raise _refusal(
                "answer", "must be an object at the top", hint="Put it into a model as its only field."
            )
        for word in ("$defs", "definitions"):
            if isinstance(defined := self._schema.get(word), Mapping):
                strict[word] = {
                    name: self._node(node, name, (f"#/{word}/{name}",)) for name, node in defined.items()
                }
        return strict

    def _node(self, node: Any, place: str, open_refs: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            raise _refusal(place, "may be anything; strict answers need a type")
        words = dict(node)
        if isinstance(alone := words.get("allOf"), list) and len(alone) == 1:
            words = {**alone[0], **{key: value for key, value in words.items() if key != "allOf"}}
        if "$ref" in words:
            return self._reference(words, place, open_refs)
        for word in _IMPOSSIBLE:
            if word in words:
                raise _refusal(place, f"uses `{word}`, which strict answers do not have")
        strict = {key: words[key] for key in ("title", "type", "const", "enum") if key in words}
        if description := _described(words):
            strict["description"] = description
        variants = words.get("anyOf", words.get("oneOf"))
        if isinstance(variants, list):
            strict["anyOf"] = [
                self._node(variant, f"{place}[{number}]", open_refs)
                for number, variant in enumerate(variants)
            ]
        if "type" not in strict and "anyOf" not in strict:
            strict["type"] = _type_of_values(words, place)
        kinds = strict.get("type")
        if "object" in (kinds if isinstance(kinds, list) else [kinds]):
            strict.update(self._object(words, place, open_refs))
        if "array" in (kinds if isinstance(kinds, list) else [kinds]):
            strict["items"] = self._node(words.get("items"), f"{place}[]", open_refs)
        return strict

    def _object(self, words: Mapping[str, Any], place: str, open_refs: tuple[str, ...]) -> dict[str, Any]:
        properties = words.get("properties")
        if properties is None:
            raise _refusal(
                place, "has keys of any name", hint="Use a model with fields, or a list of name and value."
            )
        return {
            "properties": {
                name: self._node(node, f"{place}.{name}", open_refs) for name, node in properties.items()
            },
            "required": list(properties),
            "additionalProperties": False,
        }

    def _reference(self, words: Mapping[str, Any], place: str, open_refs: tuple[str, ...]) -> dict[str, Any]:
        """Nothing may stand beside a `$ref`: with a description of its own, what it names is written out.
        Inside itself it cannot be, and the description goes."""
        ref = words["$ref"]
        own = {key: value for key, value in words.items() if key not in ("$ref", "default", "title")}
        if not own or ref in open_refs:
            self._definition(ref, place)
            return {"$ref": ref}
        return self._node({**self._definition(ref, place), **own}, place, (*open_refs, ref))

    def _definition(self, ref: Any, place: str) -> Mapping[str, Any]:
        found: Any = self._schema
        for part in str(ref).removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, Mapping) else None
        if not str(ref).startswith("#") or not isinstance(found, Mapping):
            raise _refusal(place, f"refers to {ref}, which is not in the schema")
        return found


def _described(words: Mapping[str, Any]) -> str:
    limits = [told for word, tell in _IN_WORDS.items() if word in words and (told := tell(words[word]))]
    said = str(words.get("description", ""))
    if not limits:
        return said
    return f"{said} ({'; '.join(limits)})" if said else "; ".join(limits)


def _type_of_values(words: Mapping[str, Any], place: str) -> str | list[str]:
    values = [words["const"]] if "const" in words else words.get("enum")
    if not isinstance(values, list) or not values:
        raise _refusal(place, "may be anything; strict answers need a type")
    kinds = list(dict.fromkeys(_JSON_TYPES.get(type(value), "") for value in values))
    if "" in kinds:
        raise _refusal(place, f"has a value that is no plain one: {json.dumps(values)[:100]}")
    return kinds[0] if len(kinds) == 1 else kinds


def _refusal(place: str, what: str, hint: str | None = None) -> BatchInitializationError:
    return BatchInitializationError(f"{place}: {what}", hint=hint, code="schema_not_strict")

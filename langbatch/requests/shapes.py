"""What a request's body must look like, per endpoint kind.

Lenient on purpose: a known field of the wrong type is refused, with its path; fields nobody here has heard
of pass and are counted. Only what the services' public API references state is refused; ranges, lengths
and combinations are left to the service. Types are told by a JSON value's first byte, so that integers of
any size pass without becoming floats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from langbatch.records import EndpointKind
from langbatch.requests.jsonscan import MAX_DEPTH
from langbatch.requests.prompts import Messages, Prompts, Role, Unfit

_JSON_TYPES: Mapping[int, str] = {
    **dict.fromkeys(b"-0123456789", "number"),
    **dict.fromkeys(b"tf", "boolean"),
    ord('"'): "string",
    ord("n"): "null",
    ord("{"): "object",
    ord("["): "array",
}


def json_type(value: bytes) -> str:
    """The type of a sound JSON value without white space before it."""
    return _JSON_TYPES[value[0]]


# ---------------------------------------------------------------- deeper shapes

_Object = dict[str, Raw]


class _Part(msgspec.Struct, gc=False):
    type: str
    text: str | UnsetType | None = UNSET


class _Message(msgspec.Struct, gc=False):
    role: Role
    content: str | list[_Part] | UnsetType | None = UNSET
    name: str | None = None
    tool_calls: list[_Object] | None = None
    tool_call_id: str | None = None
    function_call: _Object | None = None


class _Function(msgspec.Struct, gc=False):
    name: str
    description: str | None = None
    parameters: _Object | None = None
    strict: bool | None = None


class _ChatTool(msgspec.Struct, gc=False):
    type: str
    function: _Function | UnsetType = UNSET


class _Tool(msgspec.Struct, gc=False):
    type: str


class _JsonSchema(msgspec.Struct, gc=False):
    name: str
    schema: _Object | None = None
    strict: bool | None = None


class _ResponseFormat(msgspec.Struct, gc=False):
    type: str
    json_schema: _JsonSchema | UnsetType = UNSET


_Tokens = list[str | int | list[int]]
_Texts = str | Annotated[_Tokens, Meta(min_length=1)]

_Decode = Callable[[Any], Any]
_decode_any: _Decode = msgspec.json.Decoder().decode
_decode_texts: _Decode = msgspec.json.Decoder(_Texts).decode


def _decoded(type_: Any) -> Callable[[bytes], Any]:
    decode = msgspec.json.Decoder(type_).decode

    def check(value: bytes) -> Any:
        return decode(value)

    return check


def _messages(value: bytes) -> None:
    for index, message in enumerate(_read_messages(value)):
        if message.content is UNSET and message.role != "assistant":
            raise Unfit(f"[{index}].content", "is missing")
        if isinstance(message.content, list):
            for number, part in enumerate(message.content):
                if part.type == "text" and not isinstance(part.text, str):
                    raise Unfit(f"[{index}].content[{number}].text", "must be a string")


_read_messages = _decoded(Annotated[list[_Message], Meta(min_length=1)])
_read_tools = _decoded(list[_ChatTool] | None)
_read_format = _decoded(_ResponseFormat | None)
_read_items = _decoded(str | Annotated[list[_Object], Meta(min_length=1)])


def _chat_tools(value: bytes) -> None:
    for index, tool in enumerate(_read_tools(value) or ()):
        if tool.type == "function" and tool.function is UNSET:
            raise Unfit(f"[{index}].function", "is missing")


def _response_format(value: bytes) -> None:
    wanted = _read_format(value)
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is UNSET:
        raise Unfit(".json_schema", "is missing")


def _texts(value: bytes) -> None:
    if json_type(value) != "null":
        _count_texts(_decode_texts(value))


def _input_texts(value: bytes) -> None:
    _count_texts(_decode_texts(value))


def _count_texts(texts: str | _Tokens) -> int:
    """How many inputs an embedding or completion call makes of its array: one per text or token list."""
    if isinstance(texts, str):
        return 1
    if len({type(item) for item in texts}) > 1:
        raise Unfit("", "mixes strings, numbers and arrays")
    return 1 if isinstance(texts[0], int) else len(texts)


# ---------------------------------------------------------------- the four kinds

_STRING = ("string", "null")
_NUMBER = ("number", "null")
_BOOLEAN = ("boolean", "null")
_OBJECT = ("object", "null")
_ARRAY = ("array", "null")

_SHARED: Mapping[str, tuple[str, ...]] = {
    "model": ("string",),
    "user": _STRING,
    "stream": _BOOLEAN,
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "metadata": _OBJECT,
    "service_tier": _STRING,
    "store": _BOOLEAN,
    "parallel_tool_calls": _BOOLEAN,
    "prompt_cache_key": _STRING,
    "prompt_cache_retention": _STRING,
    "safety_identifier": _STRING,
    "stream_options": _OBJECT,
    "top_logprobs": _NUMBER,
}
_SAMPLING: Mapping[str, tuple[str, ...]] = {
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "logit_bias": _OBJECT,
    "max_tokens": _NUMBER,
    "n": _NUMBER,
    "seed": _NUMBER,
    "stop": ("string", "array", "null"),
}


@dataclass(frozen=True, slots=True)
class BodyShape:
    """One kind's fields. `main` carries the prompt; `instead` may stand in its place.

    `prompt` is the type of `main` that decoding in one go proves sound and well shaped, with `count` where
    there is one, which says how many inputs the call has.
    """

    kind: EndpointKind
    main: str
    fields: Mapping[str, tuple[str, ...]]
    prompt: Any
    deeper: Mapping[str, Callable[[bytes], Any]] = field(default_factory=dict)
    instead: tuple[str, ...] = ()
    count: Callable[[Any], int] | None = None

    def prompts(self) -> Prompts:
        """What decodes `main`, for one thread."""
        return Prompts(self.prompt, self.count)

    def fault(self, key: str, value: bytes) -> str | None:
        """What is wrong with a sound JSON value as the body's `key`; None if nothing is."""
        allowed = self.fields.get(key)
        if allowed is None:
            return None
        if json_type(value) not in allowed:
            expected = " or ".join(name for name in allowed if name != "null")
            return f"body.{key} must be {expected}, not {json_type(value)}"
        deeper = self.deeper.get(key)
        if deeper is None:
            return None
        try:
            deeper(value)
        except msgspec.ValidationError as error:
            return f"body.{key}{_place(error)}"
        except Unfit as unfit:
            return f"body.{key}{unfit.where} {unfit.what}"
        return None

    def missing(self, keys: frozenset[str]) -> str | None:
        """The required field that a body with these keys lacks, as a sentence."""
        if self.main in keys or not keys.isdisjoint(self.instead):
            return None
        return f"body.{self.main} is missing"

    def inputs(self, value: bytes) -> int:
        """How many inputs `main` has, where the kind counts them; its shape has been checked."""
        return _count_texts(_decode_texts(value)) if self.kind == "embeddings" else 1


def _place(error: msgspec.ValidationError) -> str:
    """msgspec's "Expected `str`, got `int` - at `$[0].role`" as "[0].role …", without quoting values."""
    what, _, where = str(error).partition(" - at `$")
    where = where.rstrip("`")
    if what.startswith("Invalid enum value"):
        return f"{where} is not one of system, developer, user, assistant, tool, function"
    if what.startswith("Object missing required field"):
        return f"{where}.{what.split('`')[1]} is missing"
    if "of length >= 1" in what:
        return f"{where} is empty"
    named = _PYTHON_TYPES.sub(
        lambda match: _JSON_NAMES[match[1]], what.replace("`", "").replace(" | ", " or ")
    )
    return f"{where} must be{named.removeprefix('Expected').replace(', got ', ', not ')}"


_JSON_NAMES: Mapping[str, str] = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_PYTHON_TYPES = re.compile(r"\b(str|int|float|bool)\b")


SHAPES: Mapping[EndpointKind, BodyShape] = {
    "chat_completions": BodyShape(
        kind="chat_completions",
        main="messages",
        fields={
            **_SHARED,
            **_SAMPLING,
            "messages": ("array",),
            "audio": _OBJECT,
            "data_sources": _ARRAY,
            "function_call": ("string", "object", "null"),
            "functions": _ARRAY,
            "logprobs": _BOOLEAN,
            "max_completion_tokens": _NUMBER,
            "modalities": _ARRAY,
            "prediction": _OBJECT,
            "reasoning_effort": _STRING,
            "response_format": _OBJECT,
            "tool_choice": ("string", "object", "null"),
            "tools": _ARRAY,
            "user_security_context": _OBJECT,
            "verbosity": _STRING,
            "web_search_options": _OBJECT,
        },
        prompt=Messages,
        deeper={
            "messages": _messages,
            "tools": _chat_tools,
            "functions": _decoded(list[_Function] | None),
            "response_format": _response_format,
            "stop": _decoded(str | list[str] | None),
        },
    ),
    "embeddings": BodyShape(
        kind="embeddings",
        main="input",
        fields={
            "model": ("string",),
            "user": _STRING,
            "stream": _BOOLEAN,
            "input": ("string", "array"),
            "dimensions": _NUMBER,
            "encoding_format": _STRING,
            "input_type": _STRING,
        },
        prompt=_Texts,
        count=_count_texts,
        deeper={"input": _input_texts},
    ),
    "responses": BodyShape(
        kind="responses",
        main="input",
        fields={
            **_SHARED,
            "input": ("string", "array"),
            "background": _BOOLEAN,
            "conversation": ("string", "object", "null"),
            "include": _ARRAY,
            "instructions": ("string", "array", "null"),
            "max_output_tokens": _NUMBER,
            "max_tool_calls": _NUMBER,
            "previous_response_id": _STRING,
            "prompt": _OBJECT,
            "reasoning": _OBJECT,
            "text": _OBJECT,
            "tool_choice": ("string", "object", "null"),
            "tools": _ARRAY,
            "truncation": _STRING,
        },
        prompt=str | Messages,
        deeper={"input": _read_items, "tools": _decoded(list[_Tool] | None)},
        # A stored prompt or an earlier turn can be all there is.
        instead=("prompt", "previous_response_id", "conversation"),
    ),
    "completions": BodyShape(
        kind="completions",
        main="prompt",
        fields={
            **_SHARED,
            **_SAMPLING,
            "prompt": ("string", "array", "null"),
            "best_of": _NUMBER,
            "echo": _BOOLEAN,
            "logprobs": _NUMBER,
            "suffix": _STRING,
        },
        prompt=_Texts,
        count=_count_texts,
        deeper={"prompt": _texts, "stop": _decoded(str | list[str] | None)},
    ),
}


def _without_repeats(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")


_decode_pairs: _Decode = json.JSONDecoder(object_pairs_hook=_without_repeats).decode


def sound(value: bytes) -> bool:
    """Whether a value in a body, whose grammar msgspec has accepted unread, surely hides no fault.

    Reading it in full refuses invalid UTF-8, overflowing numbers and repeated keys; few brackets cannot
    nest deep. False means only that the exact scanner must judge.
    """
    objects = value.count(b"{")
    if value.count(b"[") + objects > MAX_DEPTH - 2:
        return False
    try:
        _decode_any(value)
        if objects:
            _decode_pairs(value.decode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True

"""What one request body asks for, in tokens: its input, and the most output it allows.

Facts: three tokens around each chat message and three that open the answer are OpenAI's Cookbook ("How to
count tokens with tiktoken"). How tools and response schemas are written into the prompt is not documented:
their JSON text is counted, with a band; so is whatever else a message or an item holds that is not known
here, since what is not counted could pass any budget. `max_tokens` of legacy completions defaults to 16 (API
reference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from langbatch.money.images import image_tokens
from langbatch.money.tokens import TokenCounter
from langbatch.records import EndpointKind

_PER_MESSAGE: Final = 3
_PER_NAME: Final = 1
_PRIMING: Final = 3
#: Of the tokens of a tool's or schema's JSON text.
_SCHEMA_LOW: Final = 0.4
_SCHEMA_HIGH: Final = 1.3
#: Audio and files in a request: nothing about them can be told from their bytes.
_UNKNOWN_PART_HIGH: Final = 50_000
_COMPLETION_DEFAULT: Final = 16

#: Where text for the model stands, in any part or item of either API.
_TEXT_KEYS: Final = ("text", "content", "output", "arguments", "refusal", "summary")
_IMAGE_TYPES: Final = frozenset({"image_url", "input_image", "computer_screenshot"})
_OPAQUE_TYPES: Final = frozenset({"input_audio", "file", "input_file", "item_reference"})
#: Of a chat message, what is counted as what it is; the rest as JSON.
_MESSAGE_KEYS: Final = frozenset({"role", "name", "tool_call_id", "type", "content", "id", "status"})
#: Of a part or an item, what is no text for the model.
_PART_KEYS: Final = frozenset({*_TEXT_KEYS, "role", "name", "tool_call_id", "type", "id", "status"})

#: What names input that is kept at the service, or that it fetches itself: of any size.
_FETCHING_KEYS: Final[Mapping[EndpointKind, tuple[str, ...]]] = {
    "chat_completions": ("data_sources", "web_search_options"),
    "responses": ("previous_response_id", "conversation"),
}
#: Tools that run at the service, in any number of turns whose results are input again.
_HOSTED_TOOLS: Final = (
    "web_search",
    "file_search",
    "mcp",
    "code_interpreter",
    "image_generation",
    "computer",
)
_REFERENCES: Final = ("file_id", "file_url")


@dataclass(frozen=True, slots=True)
class BodyTokens:
    """Input tokens of one request: the best single figure, and bounds.

    `elsewhere` names what brings input that is not in the request: then `high` bounds what is in it alone.
    """

    tokens: int
    low: int
    high: int
    elsewhere: str | None = None


class _Sum:
    """Adds up one body."""

    def __init__(self, counter: TokenCounter, model: str | None) -> None:
        self._count = counter.count
        self._model = model
        self.text = self.schema = self.fixed = 0
        self.parts_low = self.parts_high = 0
        self.elsewhere: str | None = None

    def add_text(self, value: Any) -> None:
        """A string, a list of parts, or one part."""
        if isinstance(value, str):
            self.text += self._count(value)
        elif isinstance(value, Sequence):
            for part in value:
                self.add_text(part)
        elif isinstance(value, Mapping):
            self._add_part(value)

    def _add_part(self, part: Mapping[str, Any]) -> None:
        kind = part.get("type")
        if kind in _IMAGE_TYPES:
            image = part.get("image_url")
            nested = image if isinstance(image, Mapping) else {"url": image, "detail": part.get("detail")}
            url, detail = nested.get("url"), nested.get("detail")
            bounds = image_tokens(
                self._model,
                url if isinstance(url, str) else None,
                detail if isinstance(detail, str) else None,
            )
            self.parts_low += bounds.low
            self.parts_high += bounds.high
        elif kind in _OPAQUE_TYPES:
            self.parts_high += _UNKNOWN_PART_HIGH
            inner = part.get("file")
            named = {*part, *(inner if isinstance(inner, Mapping) else ())}
            if kind == "item_reference":
                self.elsewhere = "item_reference"
            elif found := next((name for name in _REFERENCES if name in named), None):
                self.elsewhere = found
        else:
            for key in _TEXT_KEYS:
                if key in part:
                    self.add_text(part[key])
            self._add_rest(part, _PART_KEYS)

    def _add_rest(self, value: Mapping[str, Any], known: frozenset[str]) -> None:
        """What nobody here has heard of may be read by the model as well."""
        for key in value.keys() - known:
            self.add_schema(value[key])

    def add_message(self, message: Any) -> None:
        """A chat message, or an item of a Responses input."""
        self.fixed += _PER_MESSAGE
        if not isinstance(message, Mapping):
            self.add_text(message)
            return
        for key in ("role", "name", "tool_call_id"):
            self.add_text(message.get(key))
        self.fixed += _PER_NAME * ("name" in message)
        if "type" in message and message["type"] != "message":
            self._add_part(message)
        else:
            self.add_text(message.get("content"))
            self._add_rest(message, _MESSAGE_KEYS)

    def add_schema(self, value: Any) -> None:
        if value:
            self.schema += self._count(msgspec.json.encode(value).decode())

    def add_tools(self, tools: Any) -> None:
        self.add_schema(tools)
        for tool in tools if isinstance(tools, list) else ():
            kind = tool.get("type") if isinstance(tool, Mapping) else None
            if isinstance(kind, str) and kind.startswith(_HOSTED_TOOLS):
                self.elsewhere = f"the tool {kind}"

    def add_inputs(self, value: Any) -> None:
        """Texts, or tokens that the user has made already."""
        if isinstance(value, int):
            self.fixed += 1
        elif isinstance(value, str):
            self.text += self._count(value)
        elif isinstance(value, Sequence):
            for each in value:
                self.add_inputs(each)

    def total(self, counter: TokenCounter) -> BodyTokens:
        low = self.text * counter.low + self.schema * counter.low * _SCHEMA_LOW
        high = self.text * counter.high + self.schema * counter.high * _SCHEMA_HIGH
        middle = self.text + self.schema + self.fixed + (self.parts_low + self.parts_high) // 2
        return BodyTokens(
            middle,
            int(low) + self.fixed + self.parts_low,
            int(high + 0.999) + self.fixed + self.parts_high,
            self.elsewhere,
        )


def input_tokens(
    body: Mapping[str, Any], kind: EndpointKind, counter: TokenCounter, model: str | None
) -> BodyTokens:
    """Input tokens of `body`, a sound request of this kind; `model` decides what images cost."""
    found = _Sum(counter, model)
    match kind:
        case "chat_completions":
            found.fixed += _PRIMING
            for message in body.get("messages") or ():
                found.add_message(message)
            found.add_tools(body.get("tools"))
            found.add_schema(body.get("functions"))
            found.add_schema(body.get("prediction"))
            found.add_schema(_schema_of(body.get("response_format")))
        case "responses":
            found.fixed += _PRIMING
            given = body.get("input")
            for item in given if isinstance(given, list) else [given]:
                found.add_message(item)
            if body.get("instructions"):
                found.add_message(body["instructions"])
            found.add_tools(body.get("tools"))
            template = body.get("prompt")
            if isinstance(template, Mapping):
                found.elsewhere = "prompt"
                found.add_schema(template.get("variables"))
            text = body.get("text")
            found.add_schema(_schema_of(text.get("format") if isinstance(text, Mapping) else None))
        case "embeddings":
            found.add_inputs(body.get("input"))
        case "completions":
            found.add_inputs(body.get("prompt"))
            found.add_inputs(body.get("suffix"))
    for key in _FETCHING_KEYS.get(kind, ()):
        if body.get(key) is not None:
            found.elsewhere = key
    return found.total(counter)


def _schema_of(response_format: Any) -> Any:
    if isinstance(response_format, Mapping) and response_format.get("type") == "json_schema":
        return response_format.get("json_schema") or response_format.get("schema")
    return None


# ---------------------------------------------------------------- output, cheaply, for every request


class _Bounds(msgspec.Struct):
    """Only what bounds a body's output; the rest is skipped unread."""

    model: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None
    prompt: Any = None


class _Line(msgspec.Struct):
    body: _Bounds


class _PlainBounds(msgspec.Struct):
    """As `_Bounds` without `prompt`, which only completions need and which may be long."""

    model: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None


class _PlainLine(msgspec.Struct):
    body: _PlainBounds


_decode_completion = msgspec.json.Decoder(_Line).decode
_decode_other = msgspec.json.Decoder(_PlainLine).decode


@dataclass(frozen=True, slots=True)
class OutputBound:
    """The model a line names, and the most tokens its answer may have: None where the line sets no bound.

    `answers` is how many answers it asks for; a bound of the model's own holds for each.
    """

    model: str | None
    tokens: int | None
    answers: int = 1

    def at_most(self, model_most: int | None) -> int | None:
        """In tokens, with the most that the model itself can write in one answer, where known."""
        if self.tokens is not None:
            return self.tokens
        return None if model_most is None else self.answers * model_most


def output_bound(line: bytes, kind: EndpointKind) -> OutputBound:
    """Reads a sound request line; costs about a microsecond a kilobyte."""
    if kind == "completions":
        body = _decode_completion(line).body
        many = body.prompt
        prompts = len(many) if isinstance(many, list) and many and not isinstance(many[0], int) else 1
        each = max(_whole(body.n) or 1, _whole(body.best_of) or 1)
        limit = _whole(body.max_tokens)
        answers = prompts * each
        return OutputBound(
            _name(body.model), answers * (_COMPLETION_DEFAULT if limit is None else limit), answers
        )
    plain = _decode_other(line).body
    if kind == "embeddings":
        return OutputBound(_name(plain.model), 0)
    if kind == "responses":
        return OutputBound(_name(plain.model), _whole(plain.max_output_tokens))
    answers = _whole(plain.n) or 1
    newer = _whole(plain.max_completion_tokens)
    limit = _whole(plain.max_tokens) if newer is None else newer
    return OutputBound(_name(plain.model), None if limit is None else answers * limit, answers)


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 50.0 asks for as much as 50
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) else None

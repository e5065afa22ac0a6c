"""Results as tables: which columns there are, of which type, and the cells of each result.

The plain table has the contract's columns. The flat one has a column for each part of the answers that are
JSON objects. Its columns and types are settled by a first pass over all results, so that a file written in
pieces has one schema, and the second pass holds one result at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from langbatch.errors import BatchResultsError
from langbatch.records import Usage
from langbatch.results.answers import answer_text, finish_reason
from langbatch.results.result import Result

#: `mixed`: values of several types, lists or objects; where a column needs one type they are JSON text.
Kind = Literal["string", "integer", "float", "boolean", "floats", "mixed"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Table:
    """`cells` gives a result's values, one for each column, in order."""

    columns: tuple[Column, ...]
    cells: Callable[[Result], list[Any]]


_OWN: Final[Mapping[str, Kind]] = {
    "custom_id": "string",
    "outcome": "string",
    "line": "integer",
    "text": "string",
    "finish_reason": "string",
    "status_code": "integer",
    "error_code": "string",
    "error_message": "string",
    "input_tokens": "integer",
    "output_tokens": "integer",
    "embedding": "floats",
    "embeddings": "mixed",
    "request": "mixed",
    "response": "mixed",
}
_PLAIN: Final = (
    "custom_id",
    "outcome",
    "line",
    "text",
    "status_code",
    "error_code",
    "error_message",
    "input_tokens",
    "output_tokens",
)
#: Before and behind the columns of the answers.
_FLAT_HEAD: Final = ("custom_id", "outcome", "line")
_FLAT_TAIL: Final = (
    "finish_reason",
    "status_code",
    "error_code",
    "error_message",
    "input_tokens",
    "output_tokens",
)
#: Answers with more keys than this have keys that are data; they stay whole, as text.
MOST_ANSWER_COLUMNS: Final = 1_000
#: Objects inside an answer become columns so deep; below they are one cell.
_DEEPEST: Final = 8
_INT64: Final = range(-(2**63), 2**63)


def plain_table(*, with_request: bool = False, with_response: bool = False) -> Table:
    """The columns of section 10 of the contract, and where wished the bodies."""
    names = [*_PLAIN, *(["request"] if with_request else []), *(["response"] if with_response else [])]

    def cells(result: Result) -> list[Any]:
        values = _own_values(result, None)
        values["text"] = result.text
        if with_response:
            values["response"] = (result.response or {}).get("body")
        return [values.get(name) for name in names]

    return Table(tuple(Column(name, _OWN[name]) for name in names), cells)


def flat_table(results: Iterable[Result], *, with_request: bool = False) -> Table:
    """The flat columns for these results, which are read once for it."""
    survey = _Survey()
    for result in results:
        survey.look(_read(result, parse=not survey.overflown))
    columns = survey.columns(with_request)
    names = [column.name for column in columns]
    known = frozenset(names)
    kinds = {column.name: column.kind for column in columns if column.name not in _OWN}
    parse = not survey.overflown

    def cells(result: Result) -> list[Any]:
        found = _read(result, parse=parse)
        for name, value in found.answer.items():
            if name not in known or not _fits(value, kinds.get(name)):
                # A retry's results came between the two passes.
                raise BatchResultsError(
                    "results changed while they were read", hint="Try again.", code="results_changed"
                )
        values = {**_own_values(result, found.body), **found.answer}
        return [values.get(name) for name in names]

    return Table(columns, cells)


def cell_text(value: Any) -> str | None:
    """A value of a `mixed` or `string` column where only text will do."""
    if value is None or isinstance(value, str):
        # Half a surrogate pair has no UTF-8; the JSONL of the results keeps it exactly.
        return value if value is None or value.isascii() else value.encode("utf-8", "replace").decode()
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- one result


@dataclass(frozen=True, slots=True)
class _Found:
    body: Mapping[str, Any] | None
    answer: Mapping[str, Any]


def _own_values(result: Result, body: Mapping[str, Any] | None) -> dict[str, Any]:
    error = result.error
    usage = result.usage or _NO_USAGE
    return {
        "custom_id": result.custom_id,
        "outcome": result.outcome,
        "line": result.line,
        "finish_reason": None if body is None else finish_reason(dict(body)),
        "status_code": result.status_code,
        "error_code": None if error is None else error.code,
        "error_message": None if error is None else error.message,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "request": result.request,
    }


_NO_USAGE: Final = Usage()


def _read(result: Result, *, parse: bool) -> _Found:
    """What the model said, as cells: a JSON object's parts, else `text`; of an embedding its numbers."""
    if result.outcome != "succeeded":
        return _Found(None, {})
    body = (result.response or {}).get("body")
    if not isinstance(body, dict):
        return _Found(None, {})
    vectors = _vectors(body)
    if vectors is not None:
        return _Found(body, {"embedding": vectors[0]} if len(vectors) == 1 else {"embeddings": vectors})
    text = answer_text(body)
    parts = _json_object(text) if parse and text is not None else None
    if parts is None:
        return _Found(body, {} if text is None else {"text": text})
    answer: dict[str, Any] = {}
    for name, value in _parts(parts, "", _DEEPEST):
        # An answer's own `outcome` must not pass for the request's.
        named = f"answer_{name}" if name in _OWN else name or "_"
        while named in answer:
            named += "_"
        answer[named] = value
    return _Found(body, answer)


def _vectors(body: Mapping[str, Any]) -> list[Any] | None:
    data = body.get("data")
    if isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
        found = [item.get("embedding") for item in data]
        # As base64 they are text, and one number that is no number spoils a column of them.
        if all(isinstance(vector, list) and set(map(type, vector)) <= {int, float} for vector in found):
            return found
    return None


def _json_object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _parts(value: Mapping[str, Any], before: str, deeper: int) -> Iterator[tuple[str, Any]]:
    for key, part in value.items():
        if isinstance(part, dict) and part and deeper:
            yield from _parts(part, f"{before}{key}.", deeper - 1)
        else:
            yield before + key, part


# ---------------------------------------------------------------- all of them


class _Survey:
    """Names and kinds of the answers' columns, in order of appearance."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind | None] = {}
        self.overflown = False

    def look(self, found: _Found) -> None:
        for name, value in found.answer.items():
            self._kinds[name] = _merged(self._kinds.get(name), _kind_of(value))
        if len(self._kinds) > MOST_ANSWER_COLUMNS:
            self.overflown = True
            self._kinds = {name: kind for name, kind in self._kinds.items() if name in _OWN}
            self._kinds["text"] = "string"

    def columns(self, with_request: bool) -> tuple[Column, ...]:
        kinds = self._kinds or {"text": "string"}
        # Where some answers are no JSON, their text comes first.
        names = sorted(kinds, key=lambda name: name != "text")
        return (
            *(Column(name, _OWN[name]) for name in _FLAT_HEAD),
            *(Column(name, _OWN.get(name) or kinds[name] or "string") for name in names),
            *(Column(name, _OWN[name]) for name in _FLAT_TAIL),
            *([Column("request", "mixed")] if with_request else []),
        )


def _kind_of(value: Any) -> Kind | None:
    match value:
        case None:
            return None
        case bool():
            return "boolean"
        case int():
            return "integer" if value in _INT64 else "mixed"
        case float():
            return "float"
        case str():
            return "string"
        case _:
            return "mixed"


def _fits(value: Any, kind: Kind | None) -> bool:
    return kind is None or _merged(kind, _kind_of(value)) == kind


def _merged(one: Kind | None, other: Kind | None) -> Kind | None:
    if one == other or other is None:
        return one
    if one is None:
        return other
    return "float" if {one, other} == {"integer", "float"} else "mixed"

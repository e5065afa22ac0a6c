"""Joined records read back: one `Result` per request."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, cast

import msgspec

from langbatch.errors import BatchResultsError, UnfitAnswer
from langbatch.records import OUTCOMES, Outcome, Usage
from langbatch.results.answers import (
    FILTERED,
    TRUNCATED,
    answer_text,
    finish_reason,
    read_answer,
    was_refused,
)
from langbatch.results.usage import read_usage

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")

BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ResultError:
    """Why a request has no success: the provider's own code, or one of langbatch's."""

    code: str
    message: str


#: Default of a part that may be absent. (`Raw | None` would make msgspec take `null` alone.)
_ABSENT: Final = msgspec.Raw(b"")


class _Head(msgspec.Struct):
    custom_id: str
    outcome: str
    line: int
    attempt: int
    response: msgspec.Raw
    error: msgspec.Raw
    request: msgspec.Raw = _ABSENT


class _ResponseHead(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = _ABSENT


class _BodyUsage(msgspec.Struct):
    usage: msgspec.Raw = _ABSENT


class _RequestHead(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


_head_decoder: Final = msgspec.json.Decoder(_Head)
_response_decoder: Final = msgspec.json.Decoder(_ResponseHead)
_body_usage_decoder: Final = msgspec.json.Decoder(_BodyUsage)
_request_decoder: Final = msgspec.json.Decoder(_RequestHead)


class Result:
    """The one record a request ends with. Immutable; its parts are read from the record when asked for.

    `line` counts from 1 in the user's file, `attempt` is the try that brought this result. `response` is
    the provider's `{status_code, request_id, body}`, None where no answer came; `error` is None exactly
    for `succeeded`.
    """

    __slots__ = ("_parsed", "_record", "_request_line")

    _record: bytes
    _request_line: bytes | None
    _parsed: _Head | None

    def __init__(self, record: bytes, request_line: bytes | None = None) -> None:
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_request_line", request_line)
        object.__setattr__(self, "_parsed", None)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Result cannot be changed ({name})")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Result cannot be changed ({name})")

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, bytes | None]]:
        return type(self), (self._record, self._request_line)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return (self._record, self._request_line) == (other._record, other._request_line)

    def __hash__(self) -> int:
        return hash(self._record)

    def to_jsonl(self) -> bytes:
        """The record as one line of JSON, with the request's body where requests were asked for."""
        if self._request_line is None:
            return self._record
        return with_request_body(self._record, self._request_line)

    def __repr__(self) -> str:
        return f"Result(custom_id={self.custom_id!r}, outcome={self.outcome!r}, line={self.line})"

    @property
    def _head(self) -> _Head:
        head = self._parsed
        if head is None:
            head = _read_head(self._record)
            object.__setattr__(self, "_parsed", head)
        return head

    @property
    def custom_id(self) -> str:
        return self._head.custom_id

    @property
    def outcome(self) -> Outcome:
        outcome = self._head.outcome
        if outcome not in OUTCOMES:
            raise BatchResultsError("a result has an unknown outcome", code="unreadable_record")
        return outcome

    @property
    def line(self) -> int:
        return self._head.line

    @property
    def attempt(self) -> int:
        return self._head.attempt

    @property
    def response(self) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", _value(self._head.response))

    @property
    def error(self) -> ResultError | None:
        error = _value(self._head.error)
        if error is None:
            return None
        return ResultError(str(error.get("code", "")), str(error.get("message", "")))

    @property
    def status_code(self) -> int | None:
        return self._response_head.status_code

    @property
    def usage(self) -> Usage | None:
        """Tokens of this answer; None where the service reported none."""
        body = self._response_head.body
        if not _present(body):
            return None
        try:
            usage = _body_usage_decoder.decode(body).usage
        except msgspec.DecodeError:
            # A body that is no object, or one that holds a lone surrogate escape.
            value = _value(body)
            usage = msgspec.Raw(_encode(value.get("usage"))) if isinstance(value, dict) else _ABSENT
        return read_usage(usage) if _present(usage) else None

    @property
    def text(self) -> str | None:
        """The first choice's text, or the output text of a Responses answer; None where there is none."""
        body = self._body
        return answer_text(body) if body is not None and self.outcome == "succeeded" else None

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, in the service's words: `stop`, `length`, `content_filter`, …; of a
        Responses answer why it is incomplete, or `completed`. None where no model answered."""
        body = self._body
        return finish_reason(body) if body is not None and self.outcome == "succeeded" else None

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut off at the token limit."""
        return self.finish_reason in TRUNCATED

    @property
    def filtered(self) -> bool:
        """Whether the content filter cut the answer off, or refused the prompt (an errored result)."""
        error = self.error
        return self.finish_reason == FILTERED if error is None else error.code == FILTERED

    @property
    def refused(self) -> bool:
        """Whether the model declined to give a structured answer."""
        body = self._body
        return body is not None and was_refused(body)

    @property
    def request(self) -> dict[str, Any] | None:
        """The request's body, where it was asked for (`with_request=True`)."""
        if self._request_line is not None:
            return cast("dict[str, Any]", _value(request_body(self._request_line, self.custom_id)))
        raw = self._head.request
        return cast("dict[str, Any] | None", _value(raw)) if _present(raw) else None

    @property
    def request_line(self) -> bytes | None:
        """The request's line as it was given, where requests were asked for."""
        return self._request_line

    def parse(self, model: type[T]) -> T:
        """The structured answer as `model`, a pydantic model or any type that pydantic validates.

        Raises `UnfitAnswer`, whose `code` says what is in the way and `fields` where: `not_succeeded`,
        `refusal`, `content_filter`, `truncated`, `no_text`, `not_json` or `does_not_fit`.
        """
        if self.outcome != "succeeded":
            reason = "" if self.error is None else f" ({self.error.code})"
            raise UnfitAnswer(
                f"request {self.custom_id!r} ended {self.outcome}{reason}: there is no answer to parse",
                hint="look at `outcome` and `error` first",
                code="not_succeeded",
            )
        return read_answer(self._body or {}, model, self.custom_id)

    def misfit(self, model: type[Any]) -> UnfitAnswer | None:
        """What is in the way of `parse(model)`; None where the answer fits."""
        try:
            self.parse(model)
        except UnfitAnswer as misfit:
            # Without the frames it was raised in: they would keep the whole answer.
            return misfit.with_traceback(None)
        return None

    @property
    def _response_head(self) -> _ResponseHead:
        raw = self._head.response
        if raw == _NULL:
            return _NO_RESPONSE
        try:
            return _response_decoder.decode(raw)
        except msgspec.DecodeError:
            value = _value(raw)
            return _ResponseHead(value["status_code"], msgspec.Raw(_encode(value.get("body"))))

    @property
    def _body(self) -> dict[str, Any] | None:
        body = self._response_head.body
        value = _value(body) if _present(body) else None
        return value if isinstance(value, dict) else None


_NULL: Final = msgspec.Raw(b"null")
_NO_RESPONSE: Final = _ResponseHead()


def _read_head(record: bytes) -> _Head:
    try:
        return _head_decoder.decode(record)
    except msgspec.DecodeError:
        try:
            value = json.loads(record)
            return _Head(
                value["custom_id"],
                value["outcome"],
                value["line"],
                value["attempt"],
                msgspec.Raw(_encode(value["response"])),
                msgspec.Raw(_encode(value["error"])),
                msgspec.Raw(_encode(value["request"])) if "request" in value else _ABSENT,
            )
        except (ValueError, LookupError, TypeError, RecursionError):
            raise BatchResultsError(
                "a line of the joined results is not a record of langbatch's", code="unreadable_record"
            ) from None


def _present(raw: msgspec.Raw) -> bool:
    return len(memoryview(raw)) > 0


def _value(raw: msgspec.Raw) -> Any:
    """Python's own reader takes what msgspec will not: a lone surrogate escape in an answer."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(bytes(raw))


def _encode(value: object) -> bytes:
    return json.dumps(value).encode()


def with_request_body(record: bytes, request_line: bytes) -> bytes:
    body = request_body(request_line, _read_head(record).custom_id)
    return b'%b, "request": %b}\n' % (record.rstrip()[:-1], bytes(body))


def request_body(request_line: bytes, custom_id: str) -> msgspec.Raw:
    try:
        request = _request_decoder.decode(request_line)
    except msgspec.DecodeError:
        raise BatchResultsError("a stored request cannot be read", code="unreadable_request") from None
    if request.custom_id != custom_id:
        raise BatchResultsError("requests and results are out of step", code="out_of_step")
    return request.body


# ---------------------------------------------------------------- streams


def read_results(paths: Iterable[Path] | Path, requests: Iterator[bytes] | None = None) -> Iterator[Result]:
    """Every record of the joined files, in order. `requests` are the input lines of the same requests."""
    for record in records_of(paths):
        yield Result(record, None if requests is None else next_request(requests))
    no_more(requests)


def langbatch_pairs(results: Iterable[Result]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """LangBatch's form of results: (successful, unsuccessful). Holds them all in memory, as it did.

    A success has `custom_id` and `choices` (chat, completions), `embedding` (the first, and all as
    `embeddings` where the request had several inputs) or `output` (Responses).
    """
    successful: list[dict[str, Any]] = []
    unsuccessful: list[dict[str, Any]] = []
    for result in results:
        error = result.error
        if error is not None:
            said = {"code": error.code, "message": error.message}
            unsuccessful.append({"custom_id": result.custom_id, "error": said})
            continue
        response = result.response or {}
        successful.append({"custom_id": result.custom_id, **_langbatch_part(response.get("body"))})
    return successful, unsuccessful


def _langbatch_part(body: Any) -> dict[str, Any]:
    if isinstance(body, dict):
        for key in ("choices", "output"):
            if key in body:
                return {key: body[key]}
        data = body.get("data")
        if isinstance(data, list) and data and all(isinstance(i, dict) and "embedding" in i for i in data):
            found = [item["embedding"] for item in data]
            return {"embedding": found[0], **({"embeddings": found} if len(found) > 1 else {})}
    return {"body": body}


def paths_of(paths: Iterable[Path] | Path) -> Iterable[Path]:
    return [paths] if isinstance(paths, Path) else paths


def records_of(paths: Iterable[Path] | Path) -> Iterator[bytes]:
    for path in paths_of(paths):
        # Binary files iterate on `\n` bytes alone.
        with open_joined(path) as file:
            yield from file


def open_joined(path: Path) -> BinaryIO:
    """A shard's joined file; `BatchResultsError` where somebody took it away."""
    try:
        return path.open("rb", buffering=BLOCK_BYTES)
    except FileNotFoundError:
        raise results_damaged(path) from None


def results_damaged(path: Path) -> BatchResultsError:
    """A joined file takes its name when it is whole; what lacks records was damaged since."""
    return BatchResultsError(
        f"the joined results {path} are damaged: records are missing",
        hint="restore the file, or fetch the job anew into another home while the service has it:"
        " langbatch recover --from-remote --home NEW",
        code="results_damaged",
    )


def next_request(requests: Iterator[bytes]) -> bytes:
    line = next(requests, None)
    if line is None:
        raise BatchResultsError("there are more results than requests", code="out_of_step")
    return line


def no_more(requests: Iterator[bytes] | None) -> None:
    if requests is not None and next(requests, None) is not None:
        raise BatchResultsError("there are more requests than results", code="out_of_step")

"""What a model said, out of a response body: its text, why it stopped, and its text as a type.

Body shapes: chat completions, legacy completions and Responses, as the wire reference and the services'
public API documentation give them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from langbatch.errors import UnfitAnswer

if TYPE_CHECKING:
    from langbatch.results.result import Result

T = TypeVar("T")

#: So many faults of an answer are named in one message.
_FAULTS_NAMED = 5
#: Messages of a user's own validators may quote the answer, so they are not repeated.
_USERS_FAULTS = frozenset({"value_error", "assertion_error"})
#: Why an answer ends before its end: chat's words, and those of Responses.
TRUNCATED: Final = frozenset({"length", "max_output_tokens"})
FILTERED: Final = "content_filter"


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A result, and its answer as a type, or what is in the way of that. One of the two is None."""

    result: Result
    value: T | None
    misfit: UnfitAnswer | None


def answers(results: Iterable[Result], model: type[T]) -> Iterator[Answer[T]]:
    """Each result with its answer as `model`; what does not fit is marked, and stays in its result."""
    for result in results:
        try:
            yield Answer(result, result.parse(model), None)
        except UnfitAnswer as misfit:
            # Kept for long, in lists of them; the frames it was raised in would keep the whole answer twice.
            yield Answer(result, None, misfit.with_traceback(None))


def with_follow_ups(first: Iterable[Answer[T]], later: Iterable[Answer[T]]) -> Iterator[Answer[T]]:
    """`first`, with the answers of a job that asked some of the requests again, where those fit.

    Both are in the order of the first job's input, `later` with some of its requests.
    """
    others = iter(later)
    other = next(others, None)
    for answer in first:
        if other is not None and other.result.custom_id == answer.result.custom_id:
            yield answer if other.misfit else other
            other = next(others, None)
        else:
            yield answer


def answer_text(body: dict[str, Any]) -> str | None:
    """First choice's content or text; for Responses all output text in order; else None."""
    choice = _first_choice(body)
    if choice is not None:
        message = choice.get("message")
        said = message.get("content") if isinstance(message, dict) else choice.get("text")
        return said if isinstance(said, str) else None
    parts = [part.get("text") for part in _output_parts(body) if part.get("type") == "output_text"]
    texts = [text for text in parts if isinstance(text, str)]
    return "".join(texts) if texts else None


def read_answer(body: dict[str, Any], model: type[T], custom_id: str) -> T:
    """The answer's text as `model`; raises `UnfitAnswer` with the reason why not."""
    # Pydantic takes a fifth of a second to import, and most readers of results never need it.
    from pydantic import BaseModel, TypeAdapter, ValidationError

    text = answer_text(body)
    _refuse_unfinished(body, text, custom_id)
    assert text is not None
    try:
        if _is_class_of(model, BaseModel):
            return model.model_validate_json(text)  # type: ignore[attr-defined, no-any-return]
        return TypeAdapter(model).validate_json(text)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    # Raised here, outside the handler: pydantic's own error quotes the answer.
    if any(fault["type"] == "json_invalid" for fault in faults):
        raise _refusal(custom_id, "not_json", "is not JSON")
    named = "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'answer'}: "
        + (fault["type"] if fault["type"] in _USERS_FAULTS else fault["msg"])
        for fault in faults[:_FAULTS_NAMED]
    )
    more = f" (and {len(faults) - _FAULTS_NAMED} more)" if len(faults) > _FAULTS_NAMED else ""
    name = getattr(model, "__name__", "the type")
    fields = dict.fromkeys(".".join(map(str, fault["loc"])) for fault in faults)
    raise _refusal(custom_id, "does_not_fit", f"does not fit {name}: {named}{more}", tuple(fields))


def _is_class_of(candidate: object, parent: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, parent)


def _refuse_unfinished(body: dict[str, Any], text: str | None, custom_id: str) -> None:
    if was_refused(body):
        raise _refusal(custom_id, "refusal", "is a refusal by the model")
    reason = finish_reason(body)
    if reason in TRUNCATED:
        raise _refusal(custom_id, "truncated", "was cut off at the token limit; raise it and ask again")
    if reason == FILTERED:
        raise _refusal(custom_id, "content_filter", "was cut off by the content filter")
    if text is None:
        raise _refusal(custom_id, "no_text", "holds no text")


def _refusal(custom_id: str, code: str, what: str, fields: tuple[str, ...] = ()) -> UnfitAnswer:
    return UnfitAnswer(f"the answer to request {custom_id!r} {what}", code=code, fields=fields)


def was_refused(body: dict[str, Any]) -> bool:
    """Whether the model declined, in the words that structured answers have for it."""
    choice = _first_choice(body)
    if choice is not None:
        message = choice.get("message")
        return isinstance(message, dict) and bool(message.get("refusal"))
    return any(part.get("type") == "refusal" for part in _output_parts(body))


def finish_reason(body: dict[str, Any]) -> str | None:
    """The first choice's `finish_reason`; of a Responses answer why it is incomplete, or else its status."""
    choice = _first_choice(body)
    if choice is not None:
        reason = choice.get("finish_reason")
    else:
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        reason = reason or body.get("status")
    return reason if isinstance(reason, str) else None


def _first_choice(body: dict[str, Any]) -> dict[str, Any] | None:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    return None


def _output_parts(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The content parts of a Responses answer's messages; reasoning and tool calls are passed over."""
    output = body.get("output")
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "message":
            content = item.get("content")
            for part in content if isinstance(content, list) else ():
                if isinstance(part, dict):
                    yield part

"""What a model said, out of a response body: its text, and its text as a type.

Body shapes: chat completions, legacy completions and Responses, as the wire reference and the services'
public API documentation give them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from langbatch.errors import BatchResultsError

T = TypeVar("T")

#: So many faults of an answer are named in one message.
_FAULTS_NAMED = 5
#: Messages of a user's own validators may quote the answer, so they are not repeated.
_USERS_FAULTS = frozenset({"value_error", "assertion_error"})


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
    """The answer's text as `model`; raises `BatchResultsError` with the reason why not."""
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
    raise _refusal(custom_id, "does_not_fit", f"does not fit {name}: {named}{more}")


def _is_class_of(candidate: object, parent: type) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, parent)


def _refuse_unfinished(body: dict[str, Any], text: str | None, custom_id: str) -> None:
    if _was_refused(body):
        raise _refusal(custom_id, "refusal", "is a refusal by the model")
    reason = _stop_reason(body)
    if reason in ("length", "max_output_tokens"):
        raise _refusal(custom_id, "truncated", "was cut off at the token limit; raise it and retry")
    if reason == "content_filter":
        raise _refusal(custom_id, "content_filter", "was cut off by the content filter")
    if text is None:
        raise _refusal(custom_id, "no_text", "holds no text")


def _refusal(custom_id: str, code: str, what: str) -> BatchResultsError:
    return BatchResultsError(f"the answer to request {custom_id!r} {what}", code=code)


def _was_refused(body: dict[str, Any]) -> bool:
    choice = _first_choice(body)
    if choice is not None:
        message = choice.get("message")
        return isinstance(message, dict) and bool(message.get("refusal"))
    return any(part.get("type") == "refusal" for part in _output_parts(body))


def _stop_reason(body: dict[str, Any]) -> str | None:
    """Chat's `finish_reason`, or why a Responses answer is incomplete."""
    choice = _first_choice(body)
    if choice is not None:
        reason = choice.get("finish_reason")
    else:
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
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

"""Response bodies: deterministic, in the shapes the services really send (§5)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

#: Azure reports the base model, not the deployment (§5); any name does.
AZURE_BASE_MODEL = "gpt-4o-mini-2024-07-18"
EMBEDDING_DIMENSIONS = 8
_ECHO_CHARACTERS = 120


class AskedBody(msgspec.Struct):
    """The few members of a request's body that an answer depends on."""

    model: str = ""
    messages: Any = None
    input: Any = None
    prompt: Any = None
    instructions: Any = None
    response_format: Any = None
    text: Any = None
    user: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


def asked_text(body: AskedBody) -> str:
    """The last thing the user said, whatever the kind of request."""
    said = (
        body.messages if body.messages is not None else body.input if body.input is not None else body.prompt
    )
    return _text_of(said)


def _text_of(said: Any) -> str:
    if isinstance(said, str):
        return said
    if isinstance(said, list) and said:
        return _text_of(said[-1])
    if isinstance(said, dict):
        return _text_of(said.get("content", said.get("text", "")))
    return ""


def standard_text(body: AskedBody, custom_id: str) -> str:
    """What the emulator answers: an echo, or an example of the JSON schema that was asked for."""
    schema = _schema_asked(body)
    if schema is not None:
        return msgspec.json.encode(example_of(schema)).decode()
    return f"Answer to {custom_id}: {asked_text(body)[:_ECHO_CHARACTERS]}"


def _schema_asked(body: AskedBody) -> Any:
    chosen = body.response_format
    if chosen is None and isinstance(body.text, dict):
        chosen = body.text.get("format")
    if not isinstance(chosen, dict):
        return None
    if chosen.get("type") == "json_object":
        return {}
    holder = chosen.get("json_schema", chosen)
    return holder.get("schema") if isinstance(holder, dict) else None


def example_of(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A small value that fits a JSON schema, for structured answers."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > 20:
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        found = root
        for part in reference[2:].split("/"):
            found = found.get(part, {}) if isinstance(found, dict) else {}
        return example_of(found, root, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example_of(schema[key][0], root, depth + 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema or not schema:
        properties = schema.get("properties", {})
        return {name: example_of(part, root, depth + 1) for name, part in properties.items()}
    if kind == "array":
        return [example_of(schema.get("items", {"type": "string"}), root, depth + 1)]
    plain = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.5), "boolean": True}
    return plain.get(str(kind), None if kind == "null" else "example")


def unique(*parts: object) -> str:
    """32 hexadecimal digits that depend on nothing but the parts."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def _safe() -> dict[str, Any]:
    return {
        kind: {"filtered": False, "severity": "safe"} for kind in ("hate", "self_harm", "sexual", "violence")
    }


def response_body(
    kind: str,
    body: AskedBody,
    key: str,
    text: str,
    *,
    created: int,
    input_tokens: int,
    azure: bool,
    finish_reason: str = "stop",
) -> tuple[dict[str, Any], int]:
    """A whole body and its output tokens. `kind` is the url without `/v1`, `key` 32 hexadecimal digits."""
    output_tokens = max(1, len(text) // 4)
    most = _most_output(body, kind)
    if most is not None:  # no service bills more than was asked for; the text is left whole
        output_tokens = min(output_tokens, most)
    model = body.model
    if kind == "/embeddings":
        inputs = body.input if isinstance(body.input, list) and body.input else [body.input]
        if isinstance(inputs[0], int):
            inputs = [inputs]
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(f"{key}{index}")}
            for index in range(len(inputs))
        ]
        counted = {"prompt_tokens": input_tokens, "total_tokens": input_tokens}
        return {"object": "list", "data": data, "model": model, "usage": counted}, 0
    if kind == "/responses":
        usage: dict[str, Any] = {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + output_tokens,
        }
        cut = finish_reason != "stop"
        reason = "max_output_tokens" if finish_reason == "length" else finish_reason
        answer: dict[str, Any] = {
            "id": f"resp_{key}",
            "object": "response",
            "created_at": float(created) if azure else created,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": reason} if cut else None,
            "error": None,
            "model": model,
            "output": [
                {
                    "id": f"msg_{key}",
                    "type": "message",
                    "role": "assistant",
                    "status": "incomplete" if cut else "completed",
                    "content": [{"type": "output_text", "text": text, "annotations": []}],
                }
            ],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage,
        }
        if azure:
            answer["content_filters"] = [
                {"blocked": False, "source_type": "prompt", "content_filter_results": _safe()}
            ]
        return answer, output_tokens
    chat = kind != "/completions"
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    if chat:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    answer = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{key}",
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": AZURE_BASE_MODEL if azure else model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        },
        "system_fingerprint": "fp_emulator",
    }
    if azure:
        choice["content_filter_results"] = _safe()
        if finish_reason == "content_filter":
            choice["content_filter_results"]["violence"] = {"filtered": True, "severity": "high"}
        answer["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": _safe()}]
    return answer, output_tokens


def _most_output(body: AskedBody, kind: str) -> int | None:
    for limit in (body.max_completion_tokens, body.max_output_tokens, body.max_tokens):
        if isinstance(limit, int) and limit > 0:
            return limit
    return 16 if kind == "/completions" else None  # the API's default


def _vector(key: str) -> list[float]:
    digest = hashlib.blake2b(key.encode(), digest_size=EMBEDDING_DIMENSIONS).digest()
    return [round(byte / 127.5 - 1, 6) for byte in digest]


def error_body(
    code: str, message: str, *, kind: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The body of a row that failed with an HTTP status; the row's own `error` stays null (§5)."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def filtered_body(azure: bool) -> dict[str, Any]:
    """A prompt that the content filter refused, status 400 (§5)."""
    body = error_body(
        "content_filter" if azure else "content_policy_violation",
        "The response was filtered due to the prompt triggering the content management policy.",
        param="prompt",
    )
    if azure:
        results = _safe()
        results["violence"] = {"filtered": True, "severity": "high"}
        body["error"]["status"] = 400
        body["error"]["innererror"] = {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": results,
        }
    return body

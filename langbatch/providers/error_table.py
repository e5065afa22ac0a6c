"""What a service's refusal means: one table from (verb, status, body) to an exception. Pure.

Bodies seen (wire reference, 6): `{"error": {code, message, …}}` with `code` always a string; Entra's 401
without the wrapper; HTML from proxies; nothing. The table itself is in `providers.base`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
)
from langbatch.providers.wire import advice_in_text, describe_body, quota_tokens, retry_after_seconds
from langbatch.redaction import clean_text, safe_text

Verb = Literal[
    "upload",
    "get_file",
    "list_files",
    "delete_file",
    "create_batch",
    "get_batch",
    "list_batches",
    "cancel_batch",
    "download",
]
#: Verbs after which something may exist that did not before.
MAKING_VERBS: frozenset[Verb] = frozenset({"upload", "create_batch"})

_QUOTA_CODES = frozenset({"token_limit_exceeded", "quotaexceeded"})
_BROKE = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
#: Codes by which services say that the path, not the object, is unknown.
_ROUTE_CODES = frozenset({"404", "unknown_url", "not_found_route"})
_REQUEST_ID_HEADERS = ("apim-request-id", "x-request-id", "x-ms-request-id")


@dataclass(frozen=True, slots=True)
class Complaint:
    """An error body, read: masked and short. `codes` holds every code in it, lower case."""

    code: str | None
    message: str
    parameter: str | None
    codes: frozenset[str]
    #: Whether it was a service's JSON error rather than a page of something in between.
    structured: bool


def read_complaint(body: bytes, known_secrets: Iterable[str] = ()) -> Complaint:
    """The error in `body`, whatever its shape."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return Complaint(None, describe_body(body), None, frozenset(), structured=False)
    known = tuple(known_secrets)
    wrapped = document.get("error")
    error: Mapping[str, Any] = wrapped if isinstance(wrapped, dict) else document
    inner = error.get("innererror") or error.get("inner_error")
    inner_code = _word(inner.get("code"), known) if isinstance(inner, dict) else None
    code = _word(error.get("code"), known)
    if code is None and error is document:
        # Entra through the gateway: {"statusCode": 401, "message": …}; OAuth: {"error": "invalid_client", …}
        code = _word(wrapped, known) or _word(document.get("statusCode"), known)
    message = error.get("message") or document.get("error_description") or ""
    codes = {word.lower() for word in (code, inner_code, _word(error.get("type"), known)) if word}
    return Complaint(
        code=code or inner_code,
        message=safe_text(message if isinstance(message, str) else "", known=known),
        parameter=_word(error.get("param"), known) or _word(error.get("target"), known),
        codes=frozenset(codes),
        structured=True,
    )


def _word(value: object, known: tuple[str, ...]) -> str | None:
    """A code as text: `error.code` is a string on both services, `statusCode` a number."""
    if isinstance(value, bool) or value is None or not isinstance(value, str | int):
        return None
    return safe_text(str(value), 100, known) or None


def error_for(
    verb: Verb,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    known_secrets: Iterable[str] = (),
) -> ProviderError:
    """The exception for an answer that is not 2xx. `headers` have lower-case names."""
    complaint = read_complaint(body, known_secrets)
    message = _message(status, headers, complaint)
    code = complaint.code
    advice = retry_after_seconds(headers, now) or advice_in_text(complaint.message)
    if status in (401, 403):
        return AccessRefused(message, status=status, code=code, hint=_access_hint(status, complaint))
    if status == 429 and not (verb == "create_batch" and "token_limit_exceeded" in complaint.codes):
        hint = "the account's credit is used up: see its billing page" if _BROKE & complaint.codes else None
        return Throttled(message, retry_after_seconds=advice, status=status, code=code, hint=hint)
    if status in (400, 429) and complaint.codes & _QUOTA_CODES:
        return QuotaFull(message, limit_tokens=quota_tokens(headers), status=status, code=code)
    if status == 404:
        return _not_found(message, complaint)
    # 408 says that the request was not read in time: on calls that only look, plain trouble.
    if status == 408 or (status == 409 and verb in MAKING_VERBS) or not 400 <= status < 500:
        return FateUnknown(
            message, retry_after_seconds=advice, status=status, code=code, hint=_redirect_hint(status)
        )
    return Refused(message, status=status, code=code)


def _message(status: int, headers: Mapping[str, str], complaint: Complaint) -> str:
    parts = [f"HTTP {status}"]
    if complaint.code and complaint.code != str(status):
        parts.append(complaint.code)
    text = " ".join(parts)
    if complaint.parameter:
        text = f"{text} ({complaint.parameter})"
    if complaint.message:
        text = f"{text}: {complaint.message}"
    request_id = next((headers[name] for name in _REQUEST_ID_HEADERS if headers.get(name)), None)
    return f"{text} (request {clean_text(request_id, 80)})" if request_id else text


def _not_found(message: str, complaint: Complaint) -> RemoteNotFound:
    """`404`: no such path, and nothing can be said of the object; else the service's code, or `notFound`."""
    if not complaint.structured or complaint.codes & _ROUTE_CODES:
        return RemoteNotFound(
            message,
            status=404,
            code="404",
            hint="check the endpoint and the api-version; batch needs 2024-07-01-preview or later, or v1",
        )
    return RemoteNotFound(message, status=404, code=complaint.code or "notFound")


def _access_hint(status: int, complaint: Complaint) -> str:
    text = complaint.message.lower()
    if "permissiondenied" in complaint.codes or "principal does not have access" in text:
        return (
            "give this identity the role Cognitive Services OpenAI User on the resource; "
            "a new assignment may take five minutes"
        )
    if "subscription key" in text:
        return "the key does not belong to this endpoint: check AZURE_API_KEY and AZURE_API_BASE"
    if "audience" in text or "access token" in text:
        return "the token has expired or is meant for another service: sign in again, or set AZURE_SCOPE"
    if status == 403:
        return "key access may be disabled on the resource, or its network rules keep this machine out"
    return "check the key or token and that it belongs to this endpoint"


def _redirect_hint(status: int) -> str | None:
    if 300 <= status < 400:
        return "redirects are not followed: set the endpoint to its final address"
    return None

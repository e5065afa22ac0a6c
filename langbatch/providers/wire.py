"""Reading what a service answered: pure functions from headers and bytes to records.

Lenient about spelling (`""` for null, ISO times, `"Validating"`, null counts, lists under `value`), strict
about what money depends on: a reply without an id is no reply, and a list entry without an id makes the
whole page unusable, because skipping it could hide the very batch that is looked for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from langbatch.records import (
    BatchCounts,
    BatchFault,
    BatchPage,
    FilePage,
    RemoteBatch,
    RemoteFile,
    Usage,
)
from langbatch.redaction import clean_text, safe_text

#: The longest wait a service may ask for, in seconds; 86,400 has been seen (wire reference, 6).
LONGEST_ADVICE_SECONDS = 86_400.0

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_ADVICE_IN_TEXT = re.compile(r"(?i)retry after ([0-9]{1,6}) (milli)?seconds?", re.ASCII)
#: Other spellings of the eight status words: one seen in samples, the rest cheap to forgive.
_STATUS_ALIASES = {"canceled": "cancelled", "canceling": "cancelling", "inprogress": "in_progress"}
#: Entries of `errors.data` that are kept; a service may list one per line of a 100,000-line file.
_FAULTS_KEPT = 100


class Garbled(ValueError):
    """A 2xx body that is not the object asked for. The message is safe to show."""


# ---------------------------------------------------------------- headers


def http_date(value: str | None) -> float | None:
    """Epoch seconds of an HTTP date; None for anything else."""
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def quota_tokens(headers: Mapping[str, str]) -> int | None:
    """The deployment's quota of enqueued tokens, in replies to `POST /batches` of some previews (wire
    reference, 3). `headers` have lower-case names."""
    text = headers.get("deployment-maximum-enqueued-tokens", "").strip()
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 19 and int(text) else None


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long the service asks to wait; None where it says nothing useful (zero, past, garbage).

    `headers` have lower-case names. A date is measured against the reply's own `Date`, so that a wrong
    clock here does no harm; `now` stands in where there is none.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("x-ms-retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if _NUMBER.fullmatch(text):
            return _advice(float(text) / unit)
    moment = http_date(headers.get("retry-after"))
    if moment is None:
        return None
    sent_at = http_date(headers.get("date"))
    return _advice(moment - (now if sent_at is None else sent_at))


def advice_in_text(message: str) -> float | None:
    """Azure's 429 text says "Please retry after N seconds", sometimes without any header."""
    found = _ADVICE_IN_TEXT.search(message)
    return _advice(float(found[1]) / (1000.0 if found[2] else 1.0)) if found else None


def _advice(seconds: float) -> float | None:
    return min(seconds, LONGEST_ADVICE_SECONDS) if seconds > 0 else None


# ---------------------------------------------------------------- values


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object, or `Garbled`."""
    document = _json(body)
    if not isinstance(document, dict):
        raise Garbled(f"the reply is a JSON {type(document).__name__}, not an object")
    return document


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled(describe_body(body)) from None


def describe_body(body: bytes) -> str:
    """What a body that is not JSON seems to be, without quoting it."""
    start = body[:512].lstrip().lower()
    if not start:
        return "the reply is empty"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        return "the reply is an HTML or XML page, not JSON"
    if start.startswith((b"{", b"[")):
        return "the reply is truncated or broken JSON"
    return "the reply is not JSON"


def _text(value: object) -> str | None:
    """`""` and other types are null: test truthiness (wire reference, 3)."""
    return value if isinstance(value, str) and value else None


def _moment(value: object) -> float | None:
    """Epoch seconds from a number or, in old previews, an ISO-8601 text with seven fractional digits."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return _finite(value)
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return float(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _finite(value: int | float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    """A count from an int, an integral float or digits in a string; negative ones are nonsense."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value, re.ASCII):
        return int(value)
    if isinstance(value, int | float):
        number = _finite(value)
        return int(value) if number is not None and number >= 0 else None
    return None


def _status(value: object) -> str | None:
    text = _text(value)
    if text is None:
        return None
    word = clean_text(text, 60).casefold().replace("-", "_").replace(" ", "_")
    return _STATUS_ALIASES.get(word, word)


# ---------------------------------------------------------------- objects


def remote_file(document: Mapping[str, Any], known: Collection[str] = ()) -> RemoteFile:
    """A file object; `Garbled` without an id. `known`: secrets that it may echo."""
    identity = _text(document.get("id"))
    if identity is None:
        raise Garbled("the reply is a file object without an id")
    filename = _text(document.get("filename"))
    details = _text(document.get("status_details"))
    return RemoteFile(
        id=identity,
        status=_status(document.get("status")),
        bytes=_whole(document.get("bytes")),
        # Compared with our own name, so never cut or cleaned: a gateway's rename must show.
        filename=filename,
        created_at=_moment(document.get("created_at")),
        status_details=safe_text(details, known=known) if details else None,
    )


def file_expires_at(document: Mapping[str, Any]) -> float | None:
    """When the service says it will drop the file; None where it does not say (or ignored the wish)."""
    return _moment(document.get("expires_at"))


def remote_batch(document: Mapping[str, Any], known: Collection[str] = ()) -> RemoteBatch:
    """A batch object; `Garbled` without an id. Without a status it is `unknown`, and polled on. `known`:
    secrets that it may echo."""
    identity = _text(document.get("id"))
    if identity is None:
        raise Garbled("the reply is a batch object without an id")
    return RemoteBatch(
        id=identity,
        status=_status(document.get("status")) or "unknown",
        input_file_id=_text(document.get("input_file_id")),
        output_file_id=_text(document.get("output_file_id")),
        error_file_id=_text(document.get("error_file_id")),
        created_at=_moment(document.get("created_at")),
        expires_at=_moment(document.get("expires_at")),
        counts=_counts(document.get("request_counts")),
        faults=_faults(document.get("errors"), known),
        metadata=_metadata(document.get("metadata")),
        usage=_usage(document.get("usage")),
        endpoint=_text(document.get("endpoint")),
    )


def _counts(value: object) -> BatchCounts | None:
    if not isinstance(value, dict):
        return None
    return BatchCounts(*(_whole(value.get(name)) or 0 for name in ("total", "completed", "failed")))


def _faults(value: object, known: Collection[str]) -> tuple[BatchFault, ...]:
    entries = value.get("data") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        return ()
    return tuple(_fault(entry, known) for entry in entries[:_FAULTS_KEPT] if isinstance(entry, dict))


def _fault(entry: Mapping[str, Any], known: Collection[str]) -> BatchFault:
    return BatchFault(
        code=safe_text(_text(entry.get("code")) or "unknown", 100, known),
        message=safe_text(_text(entry.get("message")) or "", known=known),
        line=_whole(entry.get("line")),  # an int on OpenAI, a string in Azure's dated spec, often null
    )


def _metadata(value: object) -> dict[str, str] | None:
    """Only its string pairs: a service that changes ours is recognised by the pair's absence."""
    if not isinstance(value, dict):
        return None
    return {key: item for key, item in value.items() if isinstance(item, str)}


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None

    def detail(part: str, name: str) -> int | None:
        details = value.get(part)
        return _whole(details.get(name)) if isinstance(details, dict) else None

    usage = Usage(
        input_tokens=_whole(value.get("input_tokens")),
        output_tokens=_whole(value.get("output_tokens")),
        cached_tokens=detail("input_tokens_details", "cached_tokens"),
        reasoning_tokens=detail("output_tokens_details", "reasoning_tokens"),
    )
    return None if usage == Usage() else usage


# ---------------------------------------------------------------- pages


def batch_page(body: bytes, headers: Mapping[str, str], known: Collection[str] = ()) -> BatchPage:
    """One page of batches; `Garbled` when any entry cannot be read."""
    entries, has_more = _page(body)
    batches = tuple(remote_batch(entry, known) for entry in entries)
    return BatchPage(batches, has_more, http_date(headers.get("date")))


def file_page(body: bytes, headers: Mapping[str, str], known: Collection[str] = ()) -> FilePage:
    """One page of files; `Garbled` when any entry cannot be read."""
    entries, has_more = _page(body)
    files = tuple(remote_file(entry, known) for entry in entries)
    return FilePage(files, has_more, http_date(headers.get("date")))


def _page(body: bytes) -> tuple[list[dict[str, Any]], bool | None]:
    """The entries, and whether there are more; None where the service does not say."""
    document = json_object(body)
    entries = document.get("data")
    if not isinstance(entries, list):
        entries = document.get("value")  # some Azure samples wrap the list so
    if not isinstance(entries, list):
        raise Garbled("the reply holds no list")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Garbled("the reply's list holds an entry that is not an object")
    return entries, _has_more(document)


def _has_more(document: Mapping[str, Any]) -> bool | None:
    said = document.get("has_more")
    if isinstance(said, bool):
        return said
    # Azure's own list style names the next page instead.
    return True if _text(document.get("nextLink")) or _text(document.get("next_link")) else None

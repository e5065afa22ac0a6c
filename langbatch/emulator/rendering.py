"""A batch as its family writes it, with the oddities that were seen or are feared (§3)."""

from __future__ import annotations

import datetime
from typing import Any

from langbatch.emulator.context import Context
from langbatch.emulator.execution import Totals
from langbatch.emulator.objects import BatchRecord, LineFault
from langbatch.emulator.profiles import (
    FIRST_BLOB_VERSION,
    FIRST_NUMERIC_TIMES_VERSION,
    PROFILES,
    LineStyle,
    at_least,
)
from langbatch.emulator.stages import Stage

_TIMES = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def render(context: Context, record: BatchRecord, stage: Stage | None, totals: Totals) -> dict[str, Any]:
    """The batch object. `stage` is None for one that ended; `totals` are the sums of the rows run."""
    profile = PROFILES[record.family]
    ending = record.ending
    status = ending.status if ending is not None else stage.status if stage is not None else "validating"
    missing: str | None = profile.missing_id
    if context.fires("batch-ids-empty"):
        missing = ""
    elif context.fires("batch-ids-null"):
        missing = None
    output = (ending.output_file_id if ending else None) or missing
    if status == "completed" and context.fires("batch-no-output-file"):
        output = missing
    known = record.checked.requests if record.checked is not None else 0
    shown: dict[str, Any] = {
        "id": record.id,
        "object": "batch",
        "endpoint": _echoed_endpoint(context, record),
        "errors": _errors(context, record, profile.line_style),
        "input_file_id": record.input_file_id,
        "completion_window": record.completion_window,
        "status": _status(context, record, status),
        "output_file_id": output,
        "error_file_id": (ending.error_file_id if ending else None) or missing,
        **_times(context, record, stage, status),
        "request_counts": {"total": known, "completed": totals.completed, "failed": totals.failed},
        "metadata": _metadata(context, record.metadata),
    }
    if context.fires("batch-other-file"):
        shown["input_file_id"] = f"gateway-{record.input_file_id}"
    if context.fires("batch-null-counts"):
        shown["request_counts"] = {"total": None, "completed": None, "failed": None}
    if profile.usage:
        shown["model"] = record.model
        shown["usage"] = _usage(totals)
    elif at_least(record.version, FIRST_BLOB_VERSION):
        shown |= _blobs(record)
    return shown


def _blobs(record: BatchRecord) -> dict[str, str]:
    """Both paths are reported even where a blob was never written (§3, blob mode)."""
    done = record.output_folder is not None and record.ending is not None and record.ending.status != "failed"
    folder = f"{record.output_folder}/{record.id.removeprefix('batch_')}" if done else ""
    return {
        "input_blob": record.input_blob or "",
        "output_blob": f"{folder}/results.jsonl" if folder else "",
        "error_blob": f"{folder}/errors.jsonl" if folder else "",
    }


def _usage(totals: Totals) -> dict[str, Any]:
    return {
        "input_tokens": totals.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": totals.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": totals.input_tokens + totals.output_tokens,
    }


def _echoed_endpoint(context: Context, record: BatchRecord) -> str | None:
    """Azure was seen to answer `/chat/completions` for `/v1/chat/completions`; samples also show null."""
    if context.fires("batch-endpoint-null"):
        return None
    return record.endpoint if record.family == "openai" else record.endpoint.removeprefix("/v1")


def _legacy(record: BatchRecord) -> bool:
    """Whether the old previews' texts for times and `Validating` are due."""
    return not at_least(record.version, FIRST_NUMERIC_TIMES_VERSION)


def _status(context: Context, record: BatchRecord, status: str) -> str:
    unknown = context.fires("batch-unknown-status")
    if unknown is not None:
        return unknown.param or "paused"
    if status == "cancelled" and context.fires("batch-canceled"):
        status = "canceled"
    return status.capitalize() if _legacy(record) or context.fires("batch-capital-status") else status


def _times(context: Context, record: BatchRecord, stage: Stage | None, status: str) -> dict[str, Any]:
    times: dict[str, float | None] = dict.fromkeys(_TIMES)
    times["created_at"] = record.created_at
    times["expires_at"] = record.created_at + context.config.window_seconds
    # Looks are no seconds: with them every stage began when the batch did.
    timing, scale = context.config.timing, 1.0 if context.config.timing.unit == "seconds" else 0.0
    if status != "validating" and record.checked is not None and not record.checked.faults:
        times["in_progress_at"] = record.created_at + timing.validating * scale
    if stage is not None and status == "finalizing":
        times["finalizing_at"] = record.created_at + stage.since * scale
    times["cancelling_at"] = record.cancel_seen_at
    if record.ending is not None:
        times[f"{status}_at"] = record.ending.at
        if status == "completed":
            times["finalizing_at"] = record.ending.at - timing.finalizing * scale
    iso = _legacy(record) or context.fires("batch-iso-times") is not None
    return {name: None if at is None else _iso(at) if iso else int(at) for name, at in times.items()}


def _iso(at: float) -> str:
    """ISO-8601 with seven fractional digits, as .NET writes it."""
    moment = datetime.datetime.fromtimestamp(at, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def _errors(context: Context, record: BatchRecord, style: LineStyle) -> dict[str, Any] | None:
    faults: tuple[LineFault, ...] = record.ending.faults if record.ending is not None else ()
    if not faults:
        return None
    forced = context.fires("batch-line-int", "batch-line-string", "batch-line-null")
    chosen = forced.name.removeprefix("batch-line-") if forced is not None else style
    data = []
    for fault in faults:
        line: int | str | None = fault.line
        if line is not None and chosen == "string":
            line = str(line)
        elif chosen == "null":
            line = None
        data.append({"code": fault.code, "message": fault.message, "param": fault.param, "line": line})
    return {"object": "list", "data": data}


def _metadata(context: Context, metadata: dict[str, str] | None) -> dict[str, Any] | None:
    if metadata is None or context.fires("batch-metadata-null"):
        return None
    if context.fires("batch-metadata-non-string"):
        return {key: index if index % 2 else [value] for index, (key, value) in enumerate(metadata.items())}
    if context.fires("batch-metadata-reordered"):
        return dict(reversed(metadata.items()))
    return dict(metadata)

"""The Batches service (§3)."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from langbatch.emulator.admission import Asked, read_create, read_json
from langbatch.emulator.blobs import blob_path
from langbatch.emulator.context import Context
from langbatch.emulator.execution import QUIRK_MARKS, Totals
from langbatch.emulator.files import Files, checked_expiry, expiry_floor, list_response, page_limit
from langbatch.emulator.listing import BatchFilter
from langbatch.emulator.objects import BatchRecord, LineFault, ParkedCreate
from langbatch.emulator.profiles import Family
from langbatch.emulator.progress import Progress
from langbatch.emulator.rendering import render
from langbatch.emulator.routing import Call
from langbatch.emulator.validation import first_model
from langbatch.emulator.wire import Refusal, Request, Response, json_response

#: Faults drawn when a batch is created; they stay with it.
CREATION_QUIRKS = (
    "batch-fail",
    "batch-token-limit",
    "batch-all-fail",
    "batch-expire",
    "batch-cancel",
    "rows-no-final-newline",
    *QUIRK_MARKS,
)
_OUTCOME_QUIRKS: dict[str, tuple[str, str | None]] = {
    "all_fail": ("batch-all-fail", None),
    "expire_half": ("batch-expire", "half"),
    "cancel_half": ("batch-cancel", "half"),
    "fail": ("batch-fail", "invalid_request"),
}


class Batches:
    """Handlers for batches."""

    def __init__(self, context: Context, files: Files, progress: Progress) -> None:
        self._context = context
        self._files = files
        self._progress = progress

    # ------------------------------------------------------------ verbs

    def create(self, call: Call, request: Request) -> Response:
        body = read_json(request)
        late = self._context.fires("create-late")
        if late is not None:
            due = self._context.now() + late.amount
            self._context.storage.park(ParkedCreate(due, call.family, call.version, body))
            return Response(500, drop_connection="close")
        record = self._admit(call.family, call.version, body)
        if self._context.fires("create-twice"):
            self._admit(call.family, call.version, body)
        # 2024-10-21 answers 200, 2025-04-01-preview and v1 answer 201, OpenAI 200 (§1).
        created = call.family == "azure-v1" or (call.version or "") >= "2025-04-01"
        return json_response(self._show(record.id, looked=False), 201 if created else 200)

    def release_parked(self) -> None:
        """Carry out creates whose time has come; one whose input is gone by then fails, unseen."""
        for parked in self._context.storage.take_parked(self._context.now()):
            try:
                self._admit(parked.family, parked.version, parked.body)
            except Refusal:
                self._context.storage.count("committed", "late creates refused")

    def poll(self, call: Call, request: Request) -> Response:
        self._known(call)
        return json_response(self._show(call.id, looked=True))

    def list(self, call: Call, request: Request) -> Response:
        context, query, now = self._context, request.query, self._context.now()
        limit = page_limit(query, 20, 100)
        after = query.get("after")
        repeats = after is not None and context.fires("list-repeats-cursor") is not None
        wanted = BatchFilter.read(query.get("$filter")) if call.family == "azure" else BatchFilter()
        oldest_first = call.family == "azure" and query.get("$orderby") == "created_at asc"
        oldest_first = oldest_first or context.fires("list-oldest-first") is not None
        oldest = self._oldest_served(now)
        stale = context.fires("list-stale") is not None
        page: list[dict[str, Any]] = []
        more = False
        for record in context.storage.batches(
            newest_first=not oldest_first, after=None if repeats else after
        ):
            if record.listed_from > now or record.created_at < oldest or not wanted.by_time(record):
                continue
            if wanted.status is not None and not wanted.by_status(self._status(record)):
                continue
            if len(page) == limit:
                more = True
                break
            page.append(self._as_made(record) if stale else self._show(record.id, looked=True))
        return list_response(context, "list", page, more or repeats)

    def cancel(self, call: Call, request: Request) -> Response:
        record = self._known(call)
        record, stage, totals = self._progress.cancel(record.id)
        if record.ending is not None and record.ending.status != "cancelled":
            message = f"Cannot cancel a batch with status '{record.ending.status}'."
            raise Refusal(409, "conflict" if call.family != "openai" else None, message)
        return json_response(render(self._context, record, stage, totals))

    # ------------------------------------------------------------ showing

    def _known(self, call: Call) -> BatchRecord:
        record = self._context.storage.batch(call.id)
        if record is None or record.created_at < self._oldest_served(self._context.now()):
            code = "notFound" if call.family != "openai" else None
            raise Refusal(404, code, f"No batch found with id '{call.id[:100]}'.", param="batch_id")
        return record

    def _show(self, batch_id: str, *, looked: bool) -> dict[str, Any]:
        record, stage, totals = self._progress.look(batch_id, counts=looked)
        return render(self._context, record, stage, totals)

    def _as_made(self, record: BatchRecord) -> dict[str, Any]:
        young = replace(record, checked=None, ending=None, cancelled_at=None, cancel_seen_at=None)
        return render(self._context, young, None, Totals())

    def _status(self, record: BatchRecord) -> str:
        record, stage, _ = self._progress.look(record.id, counts=False)
        if record.ending is not None:
            return record.ending.status
        return stage.status if stage is not None else "validating"

    def _oldest_served(self, now: float) -> float:
        """Batches from before that moment answer 404."""
        old = self._context.fires("old-batch-404")
        return float("-inf") if old is None else now - old.amount

    # ------------------------------------------------------------ creating

    def _admit(self, family: Family, version: str | None, body: dict[str, Any]) -> BatchRecord:
        """Commits the batch, or raises what create answers instead."""
        context, storage = self._context, self._context.storage
        asked = read_create(family, version, body)
        seconds = None
        if asked.output_expires is not None:
            floor = expiry_floor(family, context.config.azure_expiry_floor_seconds)
            seconds = checked_expiry(
                asked.output_expires.get("anchor"), asked.output_expires.get("seconds"), floor
            )
        if context.fires("create-token-limit"):
            raise Refusal(400, "token_limit_exceeded", _token_message(None), kind="invalid_request_error")
        self._settle_open()
        with storage.transaction():
            record = self._record(family, version, asked, seconds)
            record = self._within_quota(record)
            storage.add_batch(record)
            storage.count("committed", "batches")
        return record

    def _record(
        self, family: Family, version: str | None, asked: Asked, seconds: float | None
    ) -> BatchRecord:
        context, storage, now = self._context, self._context.storage, self._context.now()
        quirks = self._draw_quirks()
        lag = context.fires("list-lag")
        record = BatchRecord(
            id=f"batch_{uuid.uuid4().hex if family == 'openai' else uuid.uuid4()}",
            number=0,
            family=family,
            version=version,
            input_file_id=asked.input_file_id,
            sent_filename="",
            endpoint=asked.endpoint,
            completion_window=asked.completion_window,
            created_at=now,
            metadata=asked.metadata,
            output_expires_seconds=seconds,
            input_blob=asked.input_blob,
            output_folder=asked.output_folder,
            quirks=quirks,
            refused=_bound_to_fail(asked, quirks),
            listed_from=now + (lag.amount if lag else 0),
        )
        record = self._with_blob(record) if asked.input_blob else self._with_file(record)
        return replace(record, number=storage.next_batch_number())

    def _draw_quirks(self) -> dict[str, str | None]:
        quirks: dict[str, str | None] = {}
        if self._context.config.outcome is not None:
            name, param = _OUTCOME_QUIRKS[self._context.config.outcome]
            quirks[name] = param
        for name in CREATION_QUIRKS:
            fault = self._context.fires(name)
            if fault is not None:
                quirks[name] = fault.param
        return quirks

    def _with_blob(self, record: BatchRecord) -> BatchRecord:
        path = blob_path(record.input_blob or "")
        blob = self._context.storage.blob(path)
        return replace(
            record,
            sent_filename=path.rsplit("/", 1)[-1],
            input_blob_generation=None if blob is None else blob[0],
        )

    def _with_file(self, record: BatchRecord) -> BatchRecord:
        """The record with what its input file tells; refuses files that cannot be a batch's input."""
        config, file_id = self._context.config, record.input_file_id or ""
        file = self._files.known(file_id)
        if file is None:
            message = f"The input file '{file_id[:100]}' was not found."
            if config.missing_file == "fail":
                return replace(record, refused=LineFault("invalid_request", message))
            status = config.missing_file_status or (400 if record.family == "openai" else 404)
            code = "notFound" if record.family != "openai" else None
            raise Refusal(status, code, message, param="input_file_id")
        record = replace(record, sent_filename=file.sent_filename)
        if file.purpose != "batch":
            message = "The input file's purpose must be 'batch'."
            raise Refusal(400, "invalidPayload", message, param="input_file_id")
        status_word = self._files.status(file)
        if status_word != "processed":
            message = (
                config.pending_file_message if status_word == "pending" else "The input file is in error."
            )
            if config.pending_file == "fail":
                return replace(record, refused=LineFault("invalid_request", message))
            raise Refusal(400, "unexpectedEntityState", message, param="input_file_id")
        path = self._context.storage.content(file.id)
        return replace(
            record, model=first_model(path), tokens=max(1, int(file.bytes * config.tokens_per_byte))
        )

    # ------------------------------------------------------------ quota

    def _within_quota(self, record: BatchRecord) -> BatchRecord:
        """Enqueued tokens per deployment are held until a batch ends (§3, queueing)."""
        config = self._context.config
        limit = config.enqueued_token_limits.get(record.model or "", config.enqueued_token_limit)
        if limit is None or record.refused is not None:
            return record
        held = sum(
            batch.tokens
            for batch in self._context.storage.batches(open_only=True)
            if batch.model == record.model and batch.refused is None
        )
        if held + record.tokens <= limit:
            return record
        if config.token_limit_at == "create":
            raise Refusal(400, "token_limit_exceeded", self._token_message(record, limit))
        return replace(record, refused=LineFault("token_limit_exceeded", self._token_message(record, limit)))

    def _token_message(self, record: BatchRecord, limit: int) -> str:
        if not self._context.config.token_limit_named:
            return "The quota of enqueued tokens is exhausted."
        if record.family == "openai":
            # As openai/openai-python#2084 quotes it.
            return (
                f"Enqueued token limit reached for {record.model} in organization org-emulated. "
                f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been "
                "completed."
            )
        return _token_message(limit)

    def _settle_open(self) -> None:
        """Let batches that are over by now give their tokens back, looked at or not."""
        config = self._context.config
        if config.enqueued_token_limit is None and not config.enqueued_token_limits:
            return
        for batch in list(self._context.storage.batches(open_only=True)):
            self._progress.look(batch.id, counts=False)


def _bound_to_fail(asked: Asked, quirks: dict[str, str | None]) -> LineFault | None:
    if "batch-token-limit" in quirks:
        return LineFault("token_limit_exceeded", _token_message(None))
    if "batch-fail" in quirks:
        code = quirks["batch-fail"] or "invalid_request"
        return LineFault(code, "The emulator was asked to fail this batch.")
    if asked.completion_window != "24h":
        # On Azure any other window fails the job, not the create (§3).
        return LineFault("invalid_request", "completion_window must be '24h'.")
    return None


def _token_message(limit: int | None) -> str:
    shown = "30K" if limit is None else f"{limit // 1000}K" if limit >= 1000 else str(limit)
    return (
        f"The number of enqueued tokens has surpassed the configured limit of {shown} for the deployment. "
        "Wait until running batches have ended, or ask for more quota."
    )

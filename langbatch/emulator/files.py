"""The Files service (§2)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from langbatch.emulator.admission import read_json
from langbatch.emulator.blobs import blob_path
from langbatch.emulator.context import Context
from langbatch.emulator.multipart import Form, read_form
from langbatch.emulator.objects import FileRecord
from langbatch.emulator.profiles import (
    DAY_SECONDS,
    EXPIRY_CEILING_SECONDS,
    FIRST_BATCH_VERSION,
    FIRST_EXPIRY_VERSION,
    PROFILES,
    UNPAGED_FILES_VERSION,
    Family,
    at_least,
)
from langbatch.emulator.routing import Call
from langbatch.emulator.wire import FileBlocks, Refusal, Request, Response, create_private, json_response

PURPOSES = frozenset({"batch", "fine-tune", "assistants", "vision", "user_data", "evals"})
_FILES_PAGE = 10_000


class Files:
    """Handlers for files, and the one way by which a file comes to be."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # ------------------------------------------------------------ verbs

    def upload(self, call: Call, request: Request) -> Response:
        storage = self._context.storage
        incoming = storage.incoming()
        limit = self._context.config.file_bytes_limit
        try:
            form = read_form(request.headers.get("content-type", ""), request.body, "file", incoming, limit)
            record = self.admit(call.family, call.version, _checked_form(call.family, form), form, incoming)
        finally:
            incoming.unlink(missing_ok=True)
        response = json_response(self.present(record), 201 if call.family == "azure" else 200)
        if call.family == "azure":
            where = f"{request.base_url}/openai/files/{record.id}?api-version={call.version}"
            response = response.with_headers(("Location", where))
        return response

    def import_by_url(self, call: Call, request: Request) -> Response:
        """`/files/import` of dated Azure paths; the URL must lead to the emulator's own blobs."""
        asked = read_json(request)
        storage = self._context.storage
        blob = storage.blob(blob_path(str(asked.get("content_url", ""))))
        if blob is None:
            raise Refusal(400, "fileImportFailed", "The content could not be read.", param="content_url")
        incoming = storage.incoming()
        try:
            source = storage.content(blob[1])
            with create_private(incoming) as file:
                file.writelines(FileBlocks(source, source.stat().st_size))
            name = str(asked.get("filename", "import.jsonl"))
            form = Form({"purpose": str(asked.get("purpose", ""))}, name, "application/json")
            form.has_file, form.file_bytes = True, incoming.stat().st_size
            purpose = _checked_form(call.family, form)
            record = self.admit(call.family, call.version, purpose, form, incoming)
        finally:
            incoming.unlink(missing_ok=True)
        return json_response(self.present(record), 201)

    def get(self, call: Call, request: Request) -> Response:
        record = self.find(call)
        if self.status(record) == "pending":
            record = replace(record, looks=record.looks + 1)
            self._context.storage.save_file(record)
        return json_response(self.present(record))

    def list(self, call: Call, request: Request) -> Response:
        paged = call.version != UNPAGED_FILES_VERSION
        query = request.query
        now = self._context.now()
        purpose = query.get("purpose")
        after = query.get("after") if paged and not self._context.fires("list-files-repeats-cursor") else None
        repeats = paged and after is None and query.get("after") is not None
        limit = page_limit(query, _FILES_PAGE, _FILES_PAGE) if paged else _FILES_PAGE
        found = (
            record
            for record in self._context.storage.files(newest_first=query.get("order") != "asc", after=after)
            if record.listed_from <= now and not _gone(record, now) and purpose in (None, record.purpose)
        )
        page = [self.present(record) for record in islice(found, limit + 1)]
        more = len(page) > limit or repeats
        return list_response(self._context, "list-files", page[:limit], more if paged else None)

    def delete(self, call: Call, request: Request) -> Response:
        storage = self._context.storage
        with storage.transaction():
            record = replace(self.find(call), deleted_at=self._context.now())
            storage.save_file(record)
            storage.count("committed", "deletes")
            needed = storage.input_in_use(record.id)
        if not needed:
            storage.content(record.id).unlink(missing_ok=True)
        return json_response({"id": record.id, "object": "file", "deleted": True})

    def download(self, call: Call, request: Request) -> Response:
        record = self.find(call)
        path = self._context.storage.content(record.id)
        headers = (
            ("content-type", "application/octet-stream"),
            ("content-disposition", f'attachment; filename="{record.id}.jsonl"'),
        )
        return Response(200, headers, FileBlocks(path, record.bytes))

    # ------------------------------------------------------------ records

    def find(self, call: Call) -> FileRecord:
        record = self.known(call.id)
        if record is None:
            raise Refusal(
                404, "notFound" if call.family != "openai" else None, f"No such File object: {call.id}"
            )
        return record

    def known(self, file_id: str) -> FileRecord | None:
        """A file that exists by now: neither deleted nor expired."""
        record = self._context.storage.file(file_id)
        if record is None or record.deleted_at is not None or _gone(record, self._context.now()):
            return None
        return record

    def status(self, record: FileRecord) -> str:
        if record.instant:
            return record.fate
        elapsed = self._context.elapsed(record.created_at, record.looks, self._context.now())
        if record.fate == "pending" or elapsed < self._context.config.timing.file_pending:
            return "pending"
        return record.fate

    def present(self, record: FileRecord) -> dict[str, Any]:
        status = self.status(record)
        shown: dict[str, Any] = {
            "id": record.id,
            "object": "file",
            "bytes": None if status == "pending" and record.family != "openai" else record.shown_bytes,
            "created_at": int(record.created_at),
            "filename": record.filename,
            "purpose": record.purpose,
            "status": status,
            "status_details": "The file could not be processed." if status == "error" else None,
        }
        if record.expires_at is not None:
            shown["expires_at"] = int(record.expires_at)
        return shown

    def admit(
        self, family: Family, version: str | None, purpose: str, form: Form, incoming: Path
    ) -> FileRecord:
        """Make a file of content that lies ready, if the rules allow it. Commits."""
        context = self._context
        if not at_least(version, FIRST_BATCH_VERSION):
            raise Refusal(400, "invalidPayload", "Invalid value for purpose.", param="purpose")
        if form.file_bytes > context.config.file_bytes_limit:
            raise Refusal(400, "invalidPayload", "The file is larger than the service accepts.", param="file")
        expiring = asked_expiry(form.fields)
        seconds: float | None = None
        if expiring is not None and at_least(version, FIRST_EXPIRY_VERSION):
            seconds = self._checked_expiry(family, expiring)
        if context.fires("upload-quota"):
            raise _quota_refusal(context.config.files_limit, expiring=False)
        return self._commit(family, purpose, form, incoming, seconds)

    def _commit(
        self, family: Family, purpose: str, form: Form, incoming: Path, seconds: float | None
    ) -> FileRecord:
        context, storage, now = self._context, self._context.storage, self._context.now()
        if seconds is None and family == "openai" and purpose == "batch":
            seconds = 30 * DAY_SECONDS
        sent = form.filename or "file.jsonl"
        renamed = context.fires("upload-renamed")
        off = context.fires("upload-wrong-bytes")
        bad = context.fires("file-stays-pending", "file-error")
        lag = context.fires("list-files-lag")
        shown = (
            None if context.fires("upload-null-bytes") else form.file_bytes + int(off.amount if off else 0)
        )
        record = FileRecord(
            id=f"file-{uuid.uuid4().hex}" if family != "openai" else f"file-{uuid.uuid4().hex[:22]}",
            family=family,
            filename=(renamed.param or sent) if renamed else sent,
            sent_filename=sent,
            purpose=purpose,
            bytes=form.file_bytes,
            shown_bytes=shown,
            created_at=now,
            expires_at=None if seconds is None else now + seconds,
            fate="processed" if bad is None else "pending" if bad.name == "file-stays-pending" else "error",
            instant=not PROFILES[family].pending_files and bad is None,
            listed_from=now + (lag.amount if lag else 0),
        )
        with storage.transaction():
            if family != "openai":
                expires = record.expires_at is not None
                limit = context.config.expiring_files_limit if expires else context.config.files_limit
                if storage.input_files(expiring=expires) >= limit:
                    raise _quota_refusal(limit, expiring=expires)
            os.replace(incoming, storage.content(record.id))
            storage.add_file(record)
            storage.count("committed", "uploads")
        return record

    def add_result(
        self, family: Family, filename: str, part: Path, created_at: float, seconds: float | None
    ) -> FileRecord:
        """Make an output or error file of written content; call it inside the batch's transaction."""
        size = part.stat().st_size
        record = FileRecord(
            id=f"file-{uuid.uuid4()}" if family != "openai" else f"file-{uuid.uuid4().hex[:22]}",
            family=family,
            filename=filename,
            sent_filename=filename,
            purpose="batch_output",
            bytes=size,
            shown_bytes=size,
            created_at=created_at,
            expires_at=None if seconds is None else created_at + seconds,
            instant=True,
        )
        os.replace(part, self._context.storage.content(record.id))
        self._context.storage.add_file(record)
        return record

    def _checked_expiry(self, family: Family, asked: Mapping[str, str]) -> float:
        return checked_expiry(
            asked.get("anchor"),
            asked.get("seconds"),
            expiry_floor(family, self._context.config.azure_expiry_floor_seconds),
        )


def _checked_form(family: Family, form: Form) -> str:
    """The purpose, once the form itself is in order."""
    purpose = form.fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise Refusal(400, "invalidPayload", "Invalid value for purpose.", param="purpose")
    if not form.has_file or form.filename is None:
        raise Refusal(400, "invalidPayload", "A file part with a file name is required.", param="file")
    if family != "openai" and form.content_type is None:
        # Azure refuses a file part without a content type (betalgo/openai#628).
        raise Refusal(400, "invalidPayload", "The file part must have a content type.", param="file")
    if family == "openai" and purpose == "batch" and not form.filename.endswith(".jsonl"):
        raise Refusal(400, None, "Invalid file format for Batch API. Must be .jsonl", param="file")
    return purpose


def asked_expiry(fields: Mapping[str, str]) -> dict[str, str] | None:
    """Anchor and seconds in any of the three spellings that were seen (§2); None if not asked for."""
    found: dict[str, str] = {}
    for name in ("anchor", "seconds"):
        for spelling in (f"expires_after[{name}]", f"expires_after.{name}", name):
            if spelling in fields:
                found[name] = fields[spelling]
                break
    return found or None


def expiry_floor(family: Family, azure_floor: int | None) -> int:
    own = PROFILES[family].expiry_floor_seconds
    return own if family == "openai" or azure_floor is None else azure_floor


def checked_expiry(anchor: object, seconds: object, floor: int) -> float:
    if anchor != "created_at":
        raise Refusal(
            400, "invalidPayload", "expires_after.anchor must be 'created_at'.", param="expires_after"
        )
    try:
        wanted = int(str(seconds))
    except ValueError:
        wanted = -1
    if not floor <= wanted <= EXPIRY_CEILING_SECONDS:
        message = f"expires_after.seconds must be between {floor} and {EXPIRY_CEILING_SECONDS}."
        raise Refusal(400, "invalidPayload", message, param="expires_after")
    return float(wanted)


def _quota_refusal(limit: int, *, expiring: bool) -> Refusal:
    which = "with" if expiring else "without"
    message = f"The quota for files {which} expiry is reached. The maximum is {limit}."
    return Refusal(400, "quotaExceeded", message)


def _gone(record: FileRecord, now: float) -> bool:
    return record.expires_at is not None and record.expires_at <= now


def page_limit(query: Mapping[str, str], default: int, highest: int) -> int:
    asked = query.get("limit")
    if asked is None:
        return default
    if not asked.isdigit() or not 1 <= int(asked) <= highest:
        raise Refusal(400, "invalidPayload", f"limit must be between 1 and {highest}.", param="limit")
    return int(asked)


def list_response(context: Context, verb: str, page: list[dict[str, Any]], has_more: bool | None) -> Response:
    """A list as the service writes it. `has_more` None: this version of the service never says."""
    reply: dict[str, Any] = {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
    }
    if has_more is not None and not context.fires(f"{verb}-no-has-more"):
        reply["has_more"] = has_more
    if context.fires(f"{verb}-as-value"):
        reply = {"value": reply.pop("data"), **reply}
    return json_response(reply)

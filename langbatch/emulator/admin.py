"""The view from behind the counter, under `/_emulator/`; it needs no credentials.

| request | answer |
|---|---|
| `GET /_emulator/` | counts, faults, kinds of credentials, every batch and file |
| `GET /_emulator/payments` | how often requests were executed and paid, and the worst cases |
| `GET /_emulator/payments?each=1` | one JSON line per request: family, custom_id, executed, paid |
| `GET /_emulator/faults` | the registry of fault names, with how often each fired |
| `POST /_emulator/faults` `{"add": [...], "remove": [...], "clear": true}` | the faults now set |
| `POST /_emulator/clock` `{"advance": seconds}` | the time after that |
| `PUT`, `GET /_blobs/PATH` | the blob storage beside the service (Azure's blob mode) |
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from langbatch.emulator.admission import read_json
from langbatch.emulator.blobs import blob_path
from langbatch.emulator.clock import ManualClock, MovableClock, ScaledClock
from langbatch.emulator.context import Context
from langbatch.emulator.faults import FAULTS
from langbatch.emulator.ledger import Ledger
from langbatch.emulator.progress import Progress
from langbatch.emulator.wire import (
    FileBlocks,
    Refusal,
    Request,
    Response,
    TextBlocks,
    create_private,
    json_response,
)

PREFIX = "/_emulator"
BLOBS_PREFIX = "/_blobs/"


class Admin:
    """Reads and steers one emulator."""

    def __init__(self, context: Context, progress: Progress, ledger: Ledger) -> None:
        self._context = context
        self._progress = progress
        self._ledger = ledger

    def handle(self, request: Request) -> Response:
        path = request.path.removeprefix(PREFIX).strip("/")
        if request.path.startswith(BLOBS_PREFIX):
            return self._blob(request)
        if request.method == "GET" and path == "":
            return json_response(self.report())
        if request.method == "GET" and path == "payments":
            if request.query.get("each"):
                return Response(200, (("content-type", "application/x-ndjson"),), TextBlocks(self._lines()))
            return json_response(self._ledger.payments())
        if request.method == "GET" and path == "faults":
            return json_response(self.fault_table())
        if request.method == "POST" and path == "faults":
            return self._set_faults(request)
        if request.method == "POST" and path == "clock":
            return self._move_clock(request)
        raise Refusal(404, "404", "Resource not found")

    def report(self) -> dict[str, Any]:
        storage = self._context.storage
        committed = storage.counts("committed")
        return {
            "now": self._context.now(),
            "counts": {what: committed.get(what, 0) for what in ("uploads", "batches", "cancels", "deletes")},
            "late_creates_refused": committed.get("late creates refused", 0),
            "calls": storage.counts("call"),
            "auth_kinds": storage.counts("auth"),
            "faults_set": self._context.faults.texts,
            "faults_fired": storage.counts("fault"),
            "batches": [self._batch(record.id) for record in storage.batches()],
            "files": [
                {
                    "id": file.id,
                    "filename": file.sent_filename,
                    "purpose": file.purpose,
                    "bytes": file.bytes,
                    "created_at": file.created_at,
                }
                for file in storage.files()
            ],
        }

    def fault_table(self) -> list[dict[str, Any]]:
        fired = self._context.storage.counts("fault")
        return [
            {
                "name": entry.name,
                "summary": entry.summary,
                "default": entry.default,
                "fired": fired.get(entry.name, 0),
            }
            for entry in FAULTS.values()
        ]

    def advance(self, seconds: float) -> float:
        clock = self._context.clock
        if not isinstance(clock, MovableClock):
            raise Refusal(409, "clock", "This emulator's clock is real time and cannot be moved.")
        clock.advance(seconds)
        keep_clock(self._context)
        return clock.now()

    def add_faults(self, *texts: str) -> None:
        with self._context.storage.lock:
            self._context.faults.add(texts)

    def remove_faults(self, *texts: str) -> None:
        """Without names: all of them."""
        with self._context.storage.lock:
            for text in texts or (None,):
                self._context.faults.remove(text)

    def put_blob(self, url: str, content: bytes) -> None:
        storage = self._context.storage
        name = f"blob-{uuid.uuid4().hex}"
        part = storage.incoming()
        with create_private(part) as file:
            file.write(content)
        os.replace(part, storage.content(name))
        old = storage.put_blob(blob_path(url), name)
        if old is not None:
            storage.content(old).unlink(missing_ok=True)

    def blob(self, url: str) -> bytes | None:
        found = self._context.storage.blob(blob_path(url))
        return None if found is None else self._context.storage.content(found[1]).read_bytes()

    def _batch(self, batch_id: str) -> dict[str, Any]:
        record, stage, totals = self._progress.look(batch_id, counts=False)
        status = record.ending.status if record.ending else stage.status if stage else "validating"
        return {
            "id": record.id,
            "input_file_id": record.input_file_id,
            "filename": record.sent_filename,
            "status": status,
            "metadata": record.metadata,
            "created_at": record.created_at,
            "model": record.model,
            "requests": record.checked.requests if record.checked else None,
            "completed": totals.completed,
            "failed": totals.failed,
            "tokens_paid": totals.input_tokens + totals.output_tokens,
        }

    def _lines(self) -> Iterator[bytes]:
        lines: list[bytes] = []
        for payment in self._ledger.each():
            lines.append(msgspec.json.encode(payment))
            if len(lines) == 1000:
                yield b"\n".join(lines) + b"\n"
                lines = []
        if lines:
            yield b"\n".join(lines) + b"\n"

    def _set_faults(self, request: Request) -> Response:
        asked = read_json(request)
        try:
            if asked.get("clear"):
                self.remove_faults()
            if asked.get("remove"):
                self.remove_faults(*map(str, asked["remove"]))
            self.add_faults(*map(str, asked.get("add", ())))
        except ValueError as problem:
            raise Refusal(400, "fault", str(problem)) from None
        return json_response({"faults_set": self._context.faults.texts})

    def _move_clock(self, request: Request) -> Response:
        seconds = read_json(request).get("advance")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds < 0:
            raise Refusal(400, "clock", "advance must be a number of seconds, not below zero.")
        return json_response({"now": self.advance(float(seconds))})

    def _blob(self, request: Request) -> Response:
        if request.method == "PUT":
            self.put_blob(request.path, b"".join(request.body))
            return Response(201)
        found = self._context.storage.blob(blob_path(request.path))
        if request.method != "GET" or found is None:
            raise Refusal(404, "BlobNotFound", "The specified blob does not exist.")
        path = self._context.storage.content(found[1])
        return Response(200, (), FileBlocks(path, path.stat().st_size))


def keep_clock(context: Context) -> None:
    """Remember emulated time, so that a restarted emulator does not go back."""
    clock = context.clock
    if isinstance(clock, ScaledClock):
        context.storage.keep_setting("clock", msgspec.json.encode((*clock.anchor, clock.speed)).decode())
    elif isinstance(clock, ManualClock):
        context.storage.keep_setting("clock", msgspec.json.encode((0.0, clock.now(), 0.0)).decode())

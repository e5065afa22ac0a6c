"""Upload sessions (§2): a file in parts, on dated Azure paths and on OpenAI; Azure v1 lists none."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from langbatch.emulator.admission import read_json
from langbatch.emulator.context import Context
from langbatch.emulator.files import Files, checked_expiry, expiry_floor
from langbatch.emulator.multipart import Form, read_form
from langbatch.emulator.objects import FileRecord, UploadSession
from langbatch.emulator.profiles import FIRST_EXPIRY_VERSION, at_least
from langbatch.emulator.routing import Call
from langbatch.emulator.wire import FileBlocks, Refusal, Request, Response, create_private, json_response

#: §2: Azure 9 GB and 2 h, OpenAI 8 GB, parts of up to 64 MB and 1 h.
_AZURE_LIFE_SECONDS, _OPENAI_LIFE_SECONDS = 7_200, 3_600
_AZURE_BYTES, _OPENAI_BYTES = 9 * 1024**3, 8 * 1024**3
_PART_BYTES = 64 * 1024 * 1024


class Uploads:
    """Handlers for upload sessions."""

    def __init__(self, context: Context, files: Files) -> None:
        self._context = context
        self._files = files

    def open(self, call: Call, request: Request) -> Response:
        body = read_json(request)
        for name, kind in (("purpose", str), ("filename", str), ("bytes", int), ("mime_type", str)):
            if not isinstance(body.get(name), kind):
                raise Refusal(400, "invalidPayload", f"Missing required parameter: '{name}'.", param=name)
        if body["bytes"] > (_OPENAI_BYTES if call.family == "openai" else _AZURE_BYTES):
            raise Refusal(
                400, "invalidPayload", "The upload is larger than the service accepts.", param="bytes"
            )
        expires = body.get("expires_after")
        seconds = None
        if isinstance(expires, dict) and at_least(call.version, FIRST_EXPIRY_VERSION):
            floor = expiry_floor(call.family, self._context.config.azure_expiry_floor_seconds)
            seconds = checked_expiry(expires.get("anchor"), expires.get("seconds"), floor)
        session = UploadSession(
            id=f"upload_{uuid.uuid4().hex}",
            family=call.family,
            filename=body["filename"],
            purpose=body["purpose"],
            bytes=body["bytes"],
            mime_type=body["mime_type"],
            created_at=self._context.now(),
            expires_after_seconds=seconds,
        )
        self._context.storage.save_upload(session)
        return json_response(self._present(session, None))

    def add_part(self, call: Call, request: Request) -> Response:
        storage = self._context.storage
        self._open_session(call)
        incoming = storage.incoming()
        part, block = f"part_{uuid.uuid4().hex}", uuid.uuid4().hex
        try:
            kind = request.headers.get("content-type", "")
            form = read_form(kind, request.body, "data", incoming, _PART_BYTES)
            if not form.has_file or form.file_bytes > _PART_BYTES:
                raise Refusal(400, "invalidPayload", "A part needs `data` of up to 64 MB.", param="data")
            with storage.transaction():
                session = self._open_session(call)
                incoming.replace(storage.content(part))
                storage.save_upload(
                    replace(session, parts=(*session.parts, part), blocks=(*session.blocks, block))
                )
        finally:
            incoming.unlink(missing_ok=True)
        shown: dict[str, Any] = {
            "id": part,
            "object": "upload.part",
            "created_at": int(self._context.now()),
            "upload_id": session.id,
        }
        if call.family == "azure":
            shown["azure_block_id"] = block
        return json_response(shown)

    def complete(self, call: Call, request: Request) -> Response:
        asked = read_json(request).get("part_ids")
        storage = self._context.storage
        session = self._open_session(call)
        # Azure's own example passes azure_block_id values where OpenAI passes part ids.
        known = dict(zip((*session.parts, *session.blocks), (*session.parts, *session.parts), strict=True))
        if not isinstance(asked, list) or not asked or any(part not in known for part in asked):
            raise Refusal(400, "invalidPayload", "part_ids must name parts of this upload.", param="part_ids")
        incoming = storage.incoming()
        try:
            with create_private(incoming) as file:
                for part in asked:
                    path = storage.content(known[part])
                    file.writelines(FileBlocks(path, path.stat().st_size))
            size = incoming.stat().st_size
            if size != session.bytes:
                message = f"The parts hold {size} bytes, the upload promised {session.bytes}."
                raise Refusal(400, "invalidPayload", message, param="part_ids")
            fields = {}
            if session.expires_after_seconds is not None:
                fields = {"anchor": "created_at", "seconds": str(int(session.expires_after_seconds))}
            form = Form(fields, session.filename, session.mime_type, size, has_file=True)
            record = self._files.admit(call.family, call.version, session.purpose, form, incoming)
        finally:
            incoming.unlink(missing_ok=True)
        session = replace(session, status="completed", file_id=record.id)
        storage.save_upload(session)
        self._drop_parts(session)
        return json_response(self._present(session, record))

    def cancel(self, call: Call, request: Request) -> Response:
        session = replace(self._open_session(call), status="cancelled")
        self._context.storage.save_upload(session)
        self._drop_parts(session)
        return json_response(self._present(session, None))

    def _open_session(self, call: Call) -> UploadSession:
        session = self._context.storage.upload(call.id)
        if session is None:
            raise Refusal(404, "notFound", f"No such Upload object: {call.id}")
        status = self._status(session)
        if status != "pending":
            raise Refusal(400, "unexpectedEntityState", f"The upload is {status}.")
        return session

    def _status(self, session: UploadSession) -> str:
        life = _OPENAI_LIFE_SECONDS if session.family == "openai" else _AZURE_LIFE_SECONDS
        over = self._context.now() - session.created_at >= life
        return "expired" if session.status == "pending" and over else session.status

    def _drop_parts(self, session: UploadSession) -> None:
        for part in session.parts:
            self._context.storage.content(part).unlink(missing_ok=True)

    def _present(self, session: UploadSession, file: FileRecord | None) -> dict[str, Any]:
        life = _OPENAI_LIFE_SECONDS if session.family == "openai" else _AZURE_LIFE_SECONDS
        return {
            "id": session.id,
            "object": "upload",
            "bytes": session.bytes,
            "created_at": int(session.created_at),
            "expires_at": int(session.created_at + life),
            "filename": session.filename,
            "purpose": session.purpose,
            "status": self._status(session),
            "file": None if file is None else self._files.present(file),
        }

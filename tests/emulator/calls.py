"""Plain calls to an emulator, without any client library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langbatch.emulator.service import Emulator
from langbatch.emulator.wire import Request, Response

_BASES = {"azure": "/openai", "azure-v1": "/openai/v1", "openai": "/v1"}
BOUNDARY = "the-boundary"
TERMINAL = {"completed", "failed", "expired", "cancelled"}


def request_line(
    custom_id: str = "t-0", *, url: str = "/v1/chat/completions", model: str = "gpt", **body: Any
) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": f"about {custom_id}"}], **body}
    line = {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def request_lines(count: int, **settings: Any) -> bytes:
    return b"".join(request_line(f"t-{index}", **settings) for index in range(count))


def form_bytes(
    content: bytes,
    *,
    name: str = "job-0-1.jsonl",
    part: str = "file",
    content_type: str | None = "application/octet-stream",
    fields: Mapping[str, str] | None = None,
) -> bytes:
    pieces = []
    for key, value in (fields or {}).items():
        pieces.append(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        )
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="{name}"\r\n{kind}\r\n'
    return b"".join([*pieces, head.encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode()])


@dataclass
class Caller:
    """Speaks one URL family to an emulator."""

    emulator: Emulator
    family: str
    version: str
    credentials: Mapping[str, str] = field(default_factory=lambda: {"authorization": "Bearer any"})

    def at(self, family: str, version: str | None = None) -> Caller:
        return Caller(self.emulator, family, version or self.version, self.credentials)

    def call(
        self,
        method: str,
        path: str,
        *,
        value: Any = None,
        body: Iterable[bytes] = (),
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        dated = {"api-version": self.version} if self.family == "azure" else {}
        return self.raw(
            method,
            _BASES[self.family] + path,
            body=body if value is None else (json.dumps(value).encode(),),
            query={**dated, **(query or {})},
            headers={**self.credentials, **(headers or {})},
        )

    def raw(
        self,
        method: str,
        path: str,
        *,
        body: Iterable[bytes] = (),
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return self.emulator.handle(Request(method, path, query or {}, headers or {}, body))

    # ------------------------------------------------------------ verbs

    def upload(
        self,
        content: bytes,
        *,
        fields: Mapping[str, str] | None = None,
        form: bytes | None = None,
        **part: Any,
    ) -> Response:
        whole = form or form_bytes(content, fields={"purpose": "batch", **(fields or {})}, **part)
        blocks = [whole[start : start + 1000] for start in range(0, len(whole), 1000)]
        kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.call("POST", "/files", body=blocks, headers=kind)

    def ready_file(self, content: bytes, **part: Any) -> str:
        """An uploaded file that is `processed`."""
        file = self.upload(content, **part).json()
        while file["status"] == "pending":
            file = self.call("GET", f"/files/{file['id']}").json()
        return str(file["id"])

    def create(self, file_id: str, **more: Any) -> Response:
        endpoint = "/v1/chat/completions"
        asked = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **more}
        return self.call("POST", "/batches", value=asked)

    def poll(self, batch_id: str) -> dict[str, Any]:
        batch = self.call("GET", f"/batches/{batch_id}").json()
        assert isinstance(batch, dict)
        return batch

    def finish(self, batch_id: str) -> dict[str, Any]:
        """Look until it ends."""
        for _ in range(20):
            batch = self.poll(batch_id)
            if batch["status"] in TERMINAL:
                return batch
        raise AssertionError(f"still {batch['status']} after 20 looks")

    def begin(self, content: bytes, *, name: str = "job-0-1.jsonl", **more: Any) -> str:
        """The id of a batch just created."""
        return str(self.create(self.ready_file(content, name=name), **more).json()["id"])

    def run(self, content: bytes, **more: Any) -> dict[str, Any]:
        """A batch from upload to end."""
        return self.finish(self.begin(content, **more))

    def content(self, file_id: str) -> bytes:
        return self.call("GET", f"/files/{file_id}/content").read()

    def rows(self, file_id: str | None) -> list[dict[str, Any]]:
        if not file_id:
            return []
        return [json.loads(line) for line in self.content(file_id).split(b"\n") if line]


#: The `start` fixture: family, version and settings to a caller.
Start = Callable[..., Caller]


def error_of(response: Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert isinstance(error, dict)
    return error

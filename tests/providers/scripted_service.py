"""A loopback HTTP server that answers as the test says, oddly too, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_KEPT_BODY_BYTES = 1 << 20


@dataclass(frozen=True)
class Answer:
    """`cut_to`: promise the whole body, send only so many bytes and close. `silent`: read, then close.
    `reset`: read, send half a head and reset. `hang`: read and keep quiet until the test is over."""

    status: int = 200
    body: bytes | dict[str, Any] | list[Any] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_to: int | None = None
    chunked: bool = False
    silent: bool = False
    reset: bool = False
    hang: bool = False

    @property
    def payload(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    body_bytes: int

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


class ScriptedService:
    """Answers are used up in order; asking for more than there are fails the test by a 599."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.answers: list[Answer] = []
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def will(self, *answers: Answer) -> None:
        self.answers.extend(answers)


@contextmanager
def scripted_service() -> Iterator[ScriptedService]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    service = ScriptedService(server)
    server.service = service  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        service: ScriptedService = self.server.service  # type: ignore[attr-defined]
        kept, total = self._read()
        parts = urlsplit(self.path)
        service.asked.append(
            Asked(
                self.command,
                parts.path,
                parse_qs(parts.query),
                {name.lower(): value for name, value in self.headers.items()},
                kept,
                total,
            )
        )
        answer = service.answers.pop(0) if service.answers else Answer(599, b"nothing was scripted")
        self.close_connection = True
        if answer.hang:
            service.over.wait(20)
            return
        if answer.silent:
            return
        if answer.reset:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        self._send(answer)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names http.server calls

    def _read(self) -> tuple[bytes, int]:
        left = int(self.headers.get("Content-Length") or 0)
        kept, total = bytearray(), 0
        while left:
            block = self.rfile.read(min(left, 65536))
            if not block:
                break
            left -= len(block)
            total += len(block)
            if len(kept) < _KEPT_BODY_BYTES:
                kept += block
        return bytes(kept), total

    def _send(self, answer: Answer) -> None:
        payload = answer.payload
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", "Connection": "close", **answer.headers}
        if answer.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers.setdefault("Content-Length", str(len(payload)))
        for name, value in headers.items():
            if name.lower() == "date":
                continue
            self.send_header(name, value)
        self.end_headers()
        sent = payload if answer.cut_to is None else payload[: answer.cut_to]
        if answer.chunked:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent))
            if answer.cut_to is None:
                self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(sent)

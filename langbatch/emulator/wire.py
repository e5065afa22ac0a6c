"""Requests and responses as values, so that one service can stand behind a socket or inside a process.

What happens below HTTP (a closed connection, a cut body, a slow answer) is part of the response value;
each face carries it out in its own way.
"""

from __future__ import annotations

import email.utils
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Header names are lower case; `body` is read once, in blocks.

    `base_url` is where the client thinks the service is, for `Location`.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()
    base_url: str = "http://emulator"


@dataclass(frozen=True, slots=True)
class FileBlocks:
    """The first `length` bytes of a file, read when they are sent."""

    path: Path
    length: int

    def __iter__(self) -> Iterator[bytes]:
        left = self.length
        with self.path.open("rb") as file:
            while left > 0:
                block = file.read(min(BLOCK_BYTES, left))
                if not block:
                    return
                left -= len(block)
                yield block


@dataclass(frozen=True, slots=True)
class TextBlocks:
    """A body whose length nobody knows before it is written."""

    blocks: Iterable[bytes]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)


def create_private(path: Path) -> IO[bytes]:
    """A new file that only its owner may read: contents are prompts and answers."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb")


Drop = Literal["close", "reset"]


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP response, with what goes wrong on the way.

    `drop_connection`: nothing is answered; the connection is closed, or reset.
    `truncate_after`: the connection closes after that many bytes of a body that promised more.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | FileBlocks | TextBlocks = b""
    drop_connection: Drop | None = None
    truncate_after: int | None = None
    delay_seconds: float = 0.0

    @property
    def length(self) -> int | None:
        """Bytes promised in Content-Length; None for a body that is sent in chunks."""
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.length if isinstance(self.body, FileBlocks) else None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_headers(self, *more: tuple[str, str]) -> Response:
        return replace(self, headers=(*self.headers, *more))

    def blocks(self) -> Iterator[bytes]:
        """The body as it goes out, cut where it is to be cut."""
        left = self.truncate_after
        for block in (self.body,) if isinstance(self.body, bytes) else self.body:
            if left is None:
                yield block
                continue
            if left <= 0:
                return
            yield block[:left]
            left -= len(block)

    def read(self) -> bytes:
        return b"".join(self.blocks())

    def json(self) -> Any:
        return msgspec.json.decode(self.read())


class Refusal(Exception):
    """A handler's definite answer that is not a success."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind


def json_response(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    return Response(status, (("content-type", "application/json"), *headers), msgspec.json.encode(value))


def html_response(status: int) -> Response:
    """What a proxy in front of the service says of itself."""
    page = f"<html><head><title>{status}</title></head><body><h1>The gateway says {status}</h1></body></html>"
    return Response(status, (("content-type", "text/html"),), page.encode())


def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)

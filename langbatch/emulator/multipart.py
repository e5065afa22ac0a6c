"""Forms as a stream: the file part goes to disk block by block, fields are kept in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from langbatch.emulator.wire import Refusal, create_private

FIELD_BYTES_LIMIT = 64 * 1024


@dataclass(slots=True)
class Form:
    """A read form. `file_bytes` counts the file part, which was written where `read_form` was told."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    content_type: str | None = None
    file_bytes: int = 0
    has_file: bool = False


class _Reader:
    """Callbacks of the parser: they are told pieces, and remember where in the form they are."""

    def __init__(self, file_part: str, sink: IO[bytes], limit: int) -> None:
        self.form = Form()
        self.finished = False
        self._file_part = file_part
        self._sink = sink
        self._limit = limit
        self._header = b""
        self._value = b""
        self._headers: dict[str, bytes] = {}
        self._name = ""
        self._in_file = False
        self._text = bytearray()

    def on_part_begin(self) -> None:
        self._headers = {}
        self._text = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header.decode("latin-1").lower()] = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header

        _, options = parse_options_header(self._headers.get("content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._in_file = self._name == self._file_part
        if self._in_file:
            self.form.has_file = True
            filename = options.get(b"filename")
            self.form.filename = None if filename is None else filename.decode("utf-8", "replace")
            kind = self._headers.get("content-type")
            self.form.content_type = None if kind is None else kind.decode("latin-1")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._in_file:
            self._text += data[start:end]
            if len(self._text) > FIELD_BYTES_LIMIT:
                raise Refusal(400, "invalidPayload", "A form field is too long.")
            return
        self.form.file_bytes += end - start
        # A file that is too big is read to its end, so that the client gets its answer, but not kept.
        if self.form.file_bytes <= self._limit:
            self._sink.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        if not self._in_file:
            self.form.fields[self._name] = self._text.decode("utf-8", "replace")

    def on_end(self) -> None:
        self.finished = True


def read_form(content_type: str, body: Iterable[bytes], file_part: str, target: Path, limit: int) -> Form:
    """Read a multipart body; the part called `file_part` is written to `target`, up to `limit` bytes."""
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise Refusal(400, "invalidPayload", "A multipart/form-data body is required.")
    with create_private(target) as sink:
        reader = _Reader(file_part, sink, limit)
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.on_part_begin,
                "on_part_data": reader.on_part_data,
                "on_part_end": reader.on_part_end,
                "on_header_field": reader.on_header_field,
                "on_header_value": reader.on_header_value,
                "on_header_end": reader.on_header_end,
                "on_headers_finished": reader.on_headers_finished,
                "on_end": reader.on_end,
            },
        )
        try:
            for block in body:
                if block:
                    parser.write(block)
        except MultipartParseError:
            raise Refusal(400, "invalidPayload", "The multipart body cannot be read.") from None
    if not reader.finished:
        raise Refusal(400, "invalidPayload", "The multipart body ends early.")
    return reader.form

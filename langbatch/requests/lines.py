"""An input file as blocks of lines: bytes, cut at `\\n` only, never more held than a block and one line.

Text mode and `splitlines` would also cut at U+2028, U+0085 and lone CR, which are legal inside JSON strings.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from langbatch.errors import BatchStorageError, BatchValidationError
from langbatch.records import Problem

if TYPE_CHECKING:
    from hashlib import _Hash

#: Small enough to stay in a core's own cache while it is hashed, cut, searched and decoded.
BLOCK_BYTES = 256 << 10
#: A line that is longer than this is measured before it is taken into memory.
_MEASURED_FROM_BYTES = 8 << 20
BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
_OTHER_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"\xfd7zXZ\x00": "xz data",
    b"BZh": "bzip2 data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
#: Before this much has come out, a ratio says nothing: a short file of equal lines packs well.
_RATIO_FROM_BYTES = 64 << 20


def refuse_file(code: str, message: str) -> BatchValidationError:
    """The error for a file that is refused as a whole."""
    return BatchValidationError(message, [Problem(0, 0, None, code, message)])


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines without their newlines.

    `parts` are the same bytes as they stand in the file, where every line ends with a newline and nothing
    was dropped; None otherwise. `oversized_bytes` is the length of one line too long to hold, which comes
    after `lines`; 0 if there is none.
    """

    first_line: int
    offset: int
    lines: list[bytes]
    parts: tuple[bytes | memoryview, ...] | None
    oversized_bytes: int = 0
    #: Where each line begins, filled in by whoever needs it.
    starts: list[int] = field(default_factory=list)


class _Plain:
    """The file's bytes as they are."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0

    def read(self) -> bytes:
        block = os.read(self._descriptor, BLOCK_BYTES)
        self._at += len(block)
        return block

    def newline_within(self, limit: int) -> bool:
        """Whether a newline, or the end, comes within the next `limit` bytes. Reads ahead, keeps nothing."""
        at = self._at
        while limit > 0:
            block = os.pread(self._descriptor, min(BLOCK_BYTES, limit), at)
            if not block or b"\n" in block:
                return True
            at += len(block)
            limit -= len(block)
        return not os.pread(self._descriptor, 1, at)


class _Gunzip:
    """Unpacked gzip, members one after another, within bounds: bombs are refused, not unpacked."""

    def __init__(self, descriptor: int, max_bytes: int, max_ratio: int) -> None:
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._stream = zlib.decompressobj(wbits=31)
        self._waiting = b""
        self._at = 0
        self._out = 0

    def read(self) -> bytes:
        block = self._unpack()
        self._out += len(block)
        if self._out > self._max_bytes:
            raise refuse_file(
                "unpacked_too_large", f"the gzip file unpacks to more than {self._max_bytes} bytes"
            )
        if self._out > max(_RATIO_FROM_BYTES, self._at * self._max_ratio):
            raise refuse_file(
                "unpacked_too_large",
                f"the gzip file unpacks to over {self._max_ratio} times its size; unpack it by hand",
            )
        return block

    def newline_within(self, limit: int) -> bool:
        """As `_Plain.newline_within`, on a copy of the unpacking state."""
        state = (self._stream.copy(), self._waiting, self._at, self._out)
        try:
            while limit > 0:
                block = self._unpack()
                if not block or b"\n" in block[:limit]:
                    return True
                limit -= len(block)
            return False
        finally:
            self._stream, self._waiting, self._at, self._out = state

    def _unpack(self) -> bytes:
        while True:
            if not self._waiting:
                self._waiting = os.pread(self._descriptor, 1 << 16, self._at)
                self._at += len(self._waiting)
                if not self._waiting:
                    # All input is read, but the last call may have stopped at its output limit.
                    block = b"" if self._stream.eof else self._stream.decompress(b"", BLOCK_BYTES)
                    if not block and not self._stream.eof:
                        raise refuse_file("broken_gzip", "the gzip file is cut off; fetch or pack it again")
                    return block
            if self._stream.eof:
                # Padding behind the last member is allowed; another member is not rare (`cat a.gz b.gz`).
                self._waiting = self._waiting.lstrip(b"\0")
                if not self._waiting:
                    continue
                self._stream = zlib.decompressobj(wbits=31)
            try:
                block = self._stream.decompress(self._waiting, BLOCK_BYTES)
            except zlib.error as error:
                raise refuse_file(
                    "broken_gzip", "the gzip file is damaged; fetch or pack it again"
                ) from error
            self._waiting = self._stream.unconsumed_tail or self._stream.unused_data
            if block:
                return block


class InputFile:
    """One opened input. Use `open_input`. May be read several times; the file must stay as it is."""

    def __init__(
        self, descriptor: int, *, gzip: bool, max_unpacked_bytes: int, max_unpacked_ratio: int
    ) -> None:
        self._descriptor = descriptor
        self._opened_as = _identity(os.fstat(descriptor))
        self._caps = (max_unpacked_bytes, max_unpacked_ratio)
        self.size_bytes = os.fstat(descriptor).st_size
        start = os.pread(descriptor, 8, 0)
        self.packed = start.startswith(GZIP_MAGIC)
        if self.packed and not gzip:
            raise refuse_file("compressed_file", "the file is gzip data; use --gzip, or unpack it first")
        for magic, name in _OTHER_ARCHIVES.items():
            if start.startswith(magic):
                raise refuse_file("compressed_file", f"the file is {name}; unpack it first")
        self._digest = hashlib.sha256()
        self._undigested: tuple[bytes | memoryview, ...] = ()
        self._before_passed_by: _Hash | None = None
        self.had_bom = False

    def digest_before_block(self) -> _Hash:
        """The hash of all text before the block that `blocks` gave last; for packed files, of none."""
        return (self._before_passed_by or self._digest).copy()

    def sha256(self) -> str:
        """Of the user's file as it is on disk. Call after `blocks` has ended."""
        return self.digest().hexdigest()

    def digest(self) -> _Hash:
        """As `sha256`, as a hash object."""
        if not self.packed:
            self._catch_up(())
            return self._digest
        digest = hashlib.sha256()
        at = 0
        while block := os.pread(self._descriptor, BLOCK_BYTES, at):
            digest.update(block)
            at += len(block)
        return digest

    def check_unchanged(self) -> None:
        """Refuse a file that somebody wrote to while it was read: what was validated is not what is there."""
        if _identity(os.fstat(self._descriptor)) != self._opened_as:
            raise refuse_file(
                "file_changed", "the file changed while it was read; wait for its writer to finish"
            )

    def blocks(self, max_line_bytes: int) -> Iterator[Block]:
        """Every line of the file, from the start. Lines above `max_line_bytes` are passed by unheld."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._digest = hashlib.sha256()
        self._undigested = ()
        self.had_bom = False
        source = _Gunzip(self._descriptor, *self._caps) if self.packed else _Plain(self._descriptor)
        rest: list[bytes] = []
        rest_bytes = offset = 0
        line = 1
        fits = False
        while block := source.read():
            cut = block.rfind(b"\n") + 1
            if not cut:
                rest.append(block)
                rest_bytes += len(block)
                if fits or rest_bytes < _MEASURED_FROM_BYTES:
                    continue
                fits = source.newline_within(max_line_bytes + 1 - rest_bytes)
                if fits:
                    continue
                size, block = self._pass_by(source, rest)
                yield Block(line, offset, [], None, oversized_bytes=size)
                self._before_passed_by = None
                offset += size + 1
                line += 1
                rest, rest_bytes = [], 0
                cut = block.rfind(b"\n") + 1
                if not cut:
                    rest, rest_bytes = [block], len(block)
                    continue
            fits = False
            head = b"".join(rest)
            lines = block.split(b"\n")
            rest = [lines.pop()]
            rest_bytes = len(rest[0])
            lines[0] = head + lines[0]
            parts: tuple[bytes | memoryview, ...] | None
            parts = raw = (head, memoryview(block)[:cut])
            self._catch_up(raw)
            mark = 0
            if offset == 0 and lines[0].startswith(BOM):
                mark = len(BOM)
                lines[0] = lines[0][mark:]
                self.had_bom = True
                parts = None
            yield Block(line, offset + mark, lines, parts)
            offset += len(head) + cut
            line += len(lines)
        last = b"".join(rest)
        if last:
            self._catch_up((last,))
            if offset == 0 and last.startswith(BOM):
                last = last[len(BOM) :]
                offset = len(BOM)
                self.had_bom = True
            yield Block(line, offset, [last], None)

    def _pass_by(self, source: _Plain | _Gunzip, held: list[bytes]) -> tuple[int, bytes]:
        """Read to the next newline. The passed line's length, and what was read behind it."""
        self._catch_up(())
        self._before_passed_by = self._digest.copy()
        self._catch_up(tuple(held))
        size = sum(map(len, held))
        while block := source.read():
            end = block.find(b"\n")
            if end >= 0:
                self._catch_up((block[: end + 1],))
                return size + end, block[end + 1 :]
            self._catch_up((block,))
            size += len(block)
        return size, b""

    def _catch_up(self, then: tuple[bytes | memoryview, ...]) -> None:
        """Hash what the last block gave, and remember `then` for the next time."""
        if self.packed:
            return
        for part in self._undigested:
            self._digest.update(part)
        self._undigested = then


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@contextmanager
def open_input(
    path: Path, *, gzip: bool = False, max_unpacked_bytes: int = 16 << 30, max_unpacked_ratio: int = 200
) -> Iterator[InputFile]:
    """Open a regular file for reading, symbolic links followed; anything else is refused without hanging."""
    try:
        # Non-blocking: opening a FIFO that nobody writes to would otherwise wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise refuse_file("file_not_found", f"there is no file {path.name!r}") from error
    except OSError as error:
        raise refuse_file("file_unreadable", f"{path.name!r} cannot be read: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise refuse_file(
                "not_a_file", f"{path.name!r} is {_kind(mode)}, not a file; use - to read standard input"
            )
        yield InputFile(
            descriptor,
            gzip=gzip,
            max_unpacked_bytes=max_unpacked_bytes,
            max_unpacked_ratio=max_unpacked_ratio,
        )
    finally:
        os.close(descriptor)


def _kind(mode: int) -> str:
    names = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in names if test(mode)), "a device")


#: What a spooled standard input's name begins with.
SPOOLED_PREFIX = "stdin-"


def spool_stdin(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream that can be read only once into a private file (0600) in `folder`; its path.

    The caller removes it. Its name is its own: others may be reading their standard input too, and a
    killed process leaves its file behind.
    """
    path = folder / f"{SPOOLED_PREFIX}{secrets.token_hex(8)}.jsonl"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as sink:
            os.fchmod(descriptor, 0o600)
            while block := stream.read(BLOCK_BYTES):
                view = memoryview(block)
                while view:
                    view = view[sink.write(view) :]
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise BatchStorageError(
            f"standard input cannot be kept in {folder}: {error.strerror}",
            hint="Free space there or make it writable, or write the requests to a file and name that.",
        ) from error
    return path

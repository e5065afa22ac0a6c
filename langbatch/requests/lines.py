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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from langbatch.errors import BatchStorageError, BatchValidationError
from langbatch.records import Problem

if TYPE_CHECKING:
    from hashlib import _Hash

#: Small enough to stay in a core's own cache while it is hashed, cut, searched and decoded; large enough for
#: what is done once a block to take little of the time.
BLOCK_BYTES = 384 << 10
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


def refuse_missing(path: Path) -> BatchValidationError:
    """The error for a file that is not there: where a relative path was looked for is part of it."""
    folder = path.absolute().parent
    missing = f"file {path.name!r} in {str(folder)!r}" if folder.is_dir() else f"folder {str(folder)!r}"
    return refuse_file("file_not_found", f"there is no {missing}; check its name")


def file_changed() -> BatchValidationError:
    return refuse_file("file_changed", "the file changed while it was read; wait for its writer to finish")


@dataclass(slots=True)
class Block:
    """Consecutive whole lines.

    The first `size` bytes of `text` are lines with their newlines; they begin at `offset` in the file.
    `unended` tells that the file's last line lacks its newline, which was added here. `oversized_bytes` is
    the length of a line too long to hold, all that such a block is about; else 0.
    """

    offset: int
    text: bytes
    size: int
    unended: bool = False
    oversized_bytes: int = 0

    @property
    def end(self) -> int:
        """Where the file goes on."""
        return self.offset + (self.oversized_bytes + 1 if self.oversized_bytes else self.size - self.unended)

    def lines(self) -> list[bytes]:
        """The lines without their newlines."""
        lines = self.text[: self.size].split(b"\n")
        lines.pop()
        return lines


class _Plain:
    """The file's bytes as they are, from `start` to `end`."""

    def __init__(self, descriptor: int, start: int, end: int | None) -> None:
        self._descriptor = descriptor
        self._at = start
        self._end = end

    def read(self) -> bytes:
        size = BLOCK_BYTES if self._end is None else min(BLOCK_BYTES, self._end - self._at)
        block = os.pread(self._descriptor, size, self._at)
        self._at += len(block)
        return block

    def give_back(self, block: bytes, kept: int) -> None:
        """All but the first `kept` bytes of what was read last are to be read once more."""
        self._at -= len(block) - kept

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
        self._given_back = b""

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
        block, self._given_back = self._given_back + block, b""
        return block

    def give_back(self, block: bytes, kept: int) -> None:
        """As `_Plain.give_back`."""
        self._given_back = block[kept:]

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
        self, path: Path, descriptor: int, *, gzip: bool, max_unpacked_bytes: int, max_unpacked_ratio: int
    ) -> None:
        self.path = path
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
        self.had_bom = False

    @property
    def identity(self) -> tuple[int, ...]:
        """What tells this file, as it was when it was opened, from any other."""
        return self._opened_as

    def real_path(self) -> Path | None:
        """The path by which other processes can open the file, too; None where there is none: what
        /dev/stdin is differs from one to the next."""
        real = Path(os.path.realpath(self.path))
        try:
            return real if _identity(real.stat()) == self._opened_as else None
        except OSError:
            return None

    def digest(self, start: int = 0, end: int | None = None, into: _Hash | None = None) -> _Hash:
        """The SHA-256 of the file's bytes as they are on disk, or of a part of them behind `into`."""
        digest = into or hashlib.sha256()
        end = self.size_bytes if end is None else end
        while start < end and (block := os.pread(self._descriptor, min(BLOCK_BYTES, end - start), start)):
            digest.update(block)
            start += len(block)
        return digest

    def text(self, offset: int, size: int) -> bytes:
        """Bytes of the file. Fewer where it has become shorter, which `check_unchanged` then tells."""
        parts = []
        while size > 0 and (part := os.pread(self._descriptor, size, offset)):
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)

    def line_start(self, offset: int) -> int:
        """Where the first line begins that does not begin before `offset`; the file's end if none does."""
        at = max(offset - 1, 0)
        while block := os.pread(self._descriptor, BLOCK_BYTES, at):
            found = block.find(b"\n")
            if found >= 0:
                return at + found + 1
            at += len(block)
        return self.size_bytes

    def check_unchanged(self) -> None:
        """Refuse a file that somebody wrote to while it was read: what was validated is not what is there."""
        if _identity(os.fstat(self._descriptor)) != self._opened_as:
            raise file_changed()

    def blocks(self, max_line_bytes: int, start: int = 0, end: int | None = None) -> Iterator[Block]:
        """Every line, or those from `start` to `end`, two places where lines begin.

        Lines above `max_line_bytes` are passed by unheld. Packed files have no such places.
        """
        source: _Plain | _Gunzip = _Plain(self._descriptor, start, end)
        if self.packed:
            source = _Gunzip(self._descriptor, *self._caps)
        rest: list[bytes] = []
        rest_bytes = 0
        offset = start
        fits = False
        while block := source.read():
            if offset == 0 and not rest and block.startswith(BOM):
                block = block[len(BOM) :]
                offset = len(BOM)
                self.had_bom = True
            cut = block.rfind(b"\n") + 1
            if not cut:
                rest.append(block)
                rest_bytes += len(block)
                if fits or rest_bytes < _MEASURED_FROM_BYTES:
                    continue
                fits = source.newline_within(max_line_bytes + 1 - rest_bytes)
                if fits:
                    continue
                long = Block(offset, b"", 0, oversized_bytes=self._pass_by(source, rest_bytes))
                yield long
                offset = long.end
                rest, rest_bytes = [], 0
                continue
            fits = False
            if rest:
                # The end of a line longer than a block; what follows is read again.
                cut = block.find(b"\n") + 1
            source.give_back(block, cut)
            if rest:
                block = b"".join([*rest, block[:cut]])
                cut = len(block)
                rest, rest_bytes = [], 0
            yield Block(offset, block, cut)
            offset += cut
        if rest:
            last = b"".join(rest) + b"\n"
            yield Block(offset, last, len(last), unended=True)

    @staticmethod
    def _pass_by(source: _Plain | _Gunzip, held_bytes: int) -> int:
        """Read to the next newline; the passed line's length."""
        size = held_bytes
        while block := source.read():
            end = block.find(b"\n")
            if end >= 0:
                source.give_back(block, end + 1)
                return size + end
            size += len(block)
        return size


class Fingerprint:
    """The SHA-256 of an input file as it is on disk: known from a pass that copied it, or hashed when it is
    first asked for."""

    def __init__(self, path: Path, identity: tuple[int, ...]) -> None:
        self._path = path
        self._identity = identity
        self.known: str | None = None

    def sha256(self) -> str:
        """`BatchValidationError` where the file is no longer the one that was read."""
        if self.known is None:
            with open_input(self._path, gzip=True) as file:
                if file.identity != self._identity:
                    raise file_changed()
                digest = file.digest().hexdigest()
                file.check_unchanged()
            self.known = digest
        return self.known


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
        raise refuse_missing(path) from error
    except OSError as error:
        raise refuse_file("file_unreadable", f"{path.name!r} cannot be read: {error.strerror}") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise refuse_file(
                "not_a_file", f"{path.name!r} is {_kind(mode)}, not a file; use - to read standard input"
            )
        yield InputFile(
            path,
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

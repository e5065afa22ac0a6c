"""A job's private copy of its input: what was accepted, where each line is, and what it is called.

Five files (docs/design.md): `requests.jsonl`, `requests.idx` (`<II`: bytes of the line with its newline,
line number in the user's file), `requests.ids` (custom_id as a JSON string token, one a line),
`requests.marks` (`<QQ` for every 4096th request: where its line and its id begin) and, under
`--skip-invalid`, `rejects.jsonl`. Embedding jobs add `requests.inputs` (`<I`: inputs of the request).
Every other place is a sum of lengths from the mark before it, so that no shard is found by walking through
those before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from pathlib import Path
from struct import unpack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from langbatch import failpoints
from langbatch.errors import BatchStorageError
from langbatch.publish import private_folder, sync_folder
from langbatch.writeback import WritebackFile

if TYPE_CHECKING:
    from hashlib import _Hash

REQUESTS = "requests.jsonl"
INDEX = "requests.idx"
IDS = "requests.ids"
MARKS = "requests.marks"
INPUTS = "requests.inputs"
REJECTS = "rejects.jsonl"

_BLOCK_BYTES = 1 << 20
_INDEX_ENTRY_BYTES = 8
#: Index entries read at once: 64 kB.
_INDEX_RUN = 8192
_MARK_EVERY = 4096
_MARK_BYTES = 16


@dataclass(frozen=True, slots=True)
class Written:
    """A finished snapshot. `sha256` is that of `requests.jsonl`."""

    total: int
    bytes: int
    sha256: str


class SnapshotWriter:
    """Writes a snapshot into `folder`, which is made if it is not there (0700; files 0600).

    Everything is on disk when `close` returns. Left by an exception, or by `discard`, nothing remains of
    the files. Raises `BatchStorageError` for every trouble with the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, WritebackFile] = {}
        self._own_digest: _Hash | None = None
        self._total = 0
        self._bytes = 0
        self._id_bytes = 0
        self.written: Written | None = None
        with _storage(folder):
            private_folder(folder)
            folder.chmod(0o700)
        try:
            for name in (REQUESTS, INDEX, IDS, MARKS):
                self._open(name)
        except BatchStorageError:
            self.discard()
            raise

    @property
    def total(self) -> int:
        return self._total

    def follow(self, digest: _Hash) -> None:
        """From here on hash what is written by itself; `digest` is the hash of everything written so far.

        As long as the snapshot repeats the user's file byte for byte, the reader's hash of the file is the
        snapshot's too, and hashing once is enough.
        """
        if self._own_digest is None:
            self._own_digest = digest

    @property
    def follows_input(self) -> bool:
        """Whether every byte so far is the user's, so that the reader's hash serves."""
        return self._own_digest is None

    def add(
        self,
        parts: Sequence[bytes | memoryview],
        lengths: array[int],
        line_numbers: array[int],
        id_tokens: Sequence[bytes],
        inputs: array[int] | None = None,
    ) -> None:
        """Append requests: their lines' bytes (newlines included) in any number of parts, and an entry each.

        `lengths` count the newline. `id_tokens` are canonical JSON strings without newline.
        """
        if not id_tokens:
            return
        entries = array("I", bytes(_INDEX_ENTRY_BYTES * len(lengths)))
        entries[0::2] = lengths
        entries[1::2] = line_numbers
        ids = b"\n".join(id_tokens) + b"\n"
        with _storage(self._folder):
            self._files[MARKS].write(_little(self._marks(lengths, id_tokens)))
            for part in parts:
                self._files[REQUESTS].write(part)
                self._bytes += len(part)
                if self._own_digest is not None:
                    self._own_digest.update(part)
            self._files[INDEX].write(_little(entries))
            self._files[IDS].write(ids)
            if inputs is not None:
                self._open(INPUTS).write(_little(inputs))
        self._total += len(id_tokens)
        self._id_bytes += len(ids)

    def _marks(self, lengths: array[int], id_tokens: Sequence[bytes]) -> array[int]:
        """The marks that fall on the requests that are about to be written."""
        marks = array("Q")
        for index in range(-self._total % _MARK_EVERY, len(id_tokens), _MARK_EVERY):
            marks.append(self._bytes + sum(lengths[:index]))
            marks.append(self._id_bytes + sum(map(len, id_tokens[:index])) + index)
        return marks

    def reject(self, record: Mapping[str, Any]) -> None:
        """Append one refused line, with its reasons, to `rejects.jsonl`."""
        with _storage(self._folder):
            self._open(REJECTS).write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def restart(self) -> None:
        """Forget everything written so far; for a second pass over the input."""
        with _storage(self._folder):
            for file in self._files.values():
                file.seek(0)
                file.truncate()
        self._own_digest = None
        self._total = self._bytes = self._id_bytes = 0

    def close(self, input_digest: _Hash | None = None) -> Written:
        """Put everything on disk. `input_digest` is the reader's, for a snapshot that `follows_input`."""
        digest = self._own_digest or input_digest or hashlib.sha256()
        with _storage(self._folder):
            for file in self._files.values():
                file.flush()
                with failpoints.around("fsync"):
                    file.sync()
                file.close()
            self._files.clear()
            sync_folder(self._folder)
        self.written = Written(self._total, self._bytes, digest.hexdigest())
        return self.written

    def discard(self) -> None:
        """Remove what was written; the folder too, if that leaves it empty. May be called twice."""
        if not self._folder.exists():
            return
        for file in self._files.values():
            # A full disk fails the last flush; these bytes are not wanted anyway.
            with suppress(OSError):
                file.close()
        with _storage(self._folder):
            for name in self._files:
                (self._folder / name).unlink(missing_ok=True)
            self._files.clear()
            if not any(self._folder.iterdir()):
                shutil.rmtree(self._folder)

    def __enter__(self) -> SnapshotWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.written is None:
            self.discard()

    def _open(self, name: str) -> WritebackFile:
        file = self._files.get(name)
        if file is None:
            with _storage(self._folder):
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(self._folder / name, flags, 0o600)
                os.fchmod(descriptor, 0o600)
                file = self._files[name] = WritebackFile(descriptor, self._folder / name, _BLOCK_BYTES)
        return file


class Snapshot:
    """Reads a finished snapshot, a stretch of requests at a time. `first` counts requests from 0."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with _storage(folder):
            size = (folder / INDEX).stat().st_size
        if size % _INDEX_ENTRY_BYTES:
            raise BatchStorageError(f"{folder / INDEX} is damaged; restore it, or submit the input again")
        self.total = size // _INDEX_ENTRY_BYTES

    def lengths(self, first: int, count: int) -> array[int]:
        """Bytes of each line, its newline included."""
        return self._column(first, count, 0)

    def line_numbers(self, first: int, count: int) -> array[int]:
        """Where each request stood in the user's file, from 1."""
        return self._column(first, count, 1)

    def inputs(self, first: int, count: int) -> array[int]:
        """How many embedding inputs each request has; 1 for requests of other kinds."""
        self._check(first, count)
        path = self._folder / INPUTS
        if not path.exists():
            return array("I", [1]) * count
        with _storage(self._folder), path.open("rb") as file:
            file.seek(4 * first)
            return self._entries(file, 4 * count)

    def span(self, first: int, count: int, byte_start: int | None = None) -> tuple[int, int]:
        """Where these requests' lines begin and end in `requests.jsonl`; `byte_start`: where, if known."""
        self._check(first, count)
        start = self._line_start(first) if byte_start is None else byte_start
        return start, start + self._sum_lengths(first, count)

    def lines(self, first: int, count: int, byte_start: int | None = None) -> Iterator[bytes]:
        """The requests' lines, each with its newline."""
        self._check(first, count)
        start = self._line_start(first) if byte_start is None else byte_start
        return self._stream_lines(start, count)

    def _stream_lines(self, start: int, count: int) -> Iterator[bytes]:
        with _storage(self._folder), (self._folder / REQUESTS).open("rb", buffering=_BLOCK_BYTES) as file:
            file.seek(start)
            for _ in range(count):
                line = file.readline()
                if not line.endswith(b"\n"):
                    raise BatchStorageError(f"{self._folder / REQUESTS} is shorter than its index says")
                yield line

    def ids(self, first: int, count: int) -> list[str]:
        """The requests' custom_ids."""
        return _decode_ids(b"[" + b",".join(self._id_lines(first, count)) + b"]")

    def id_tokens(self, first: int, count: int) -> list[bytes]:
        """The requests' custom_ids, as JSON strings."""
        return [line.removesuffix(b"\n") for line in self._id_lines(first, count)]

    def _id_lines(self, first: int, count: int) -> list[bytes]:
        self._check(first, count)
        at, _, start = self._mark(first)
        with _storage(self._folder), (self._folder / IDS).open("rb", buffering=_BLOCK_BYTES) as file:
            file.seek(start)
            lines = list(islice(file, first - at, first - at + count))
        if len(lines) != count:
            raise BatchStorageError(f"{self._folder / IDS} is shorter than its index says")
        return lines

    @property
    def sha256(self) -> str:
        """Of `requests.jsonl` as it is on disk now: reads it all."""
        digest = hashlib.sha256()
        with _storage(self._folder), (self._folder / REQUESTS).open("rb", buffering=0) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _check(self, first: int, count: int) -> None:
        if first < 0 or count < 0 or first + count > self.total:
            raise ValueError(f"requests {first}+{count} are not within the snapshot's {self.total}")

    def _mark(self, request: int) -> tuple[int, int, int]:
        """The marked request nearest before, where its line begins, and where its id does."""
        place = request // _MARK_EVERY
        try:
            with (self._folder / MARKS).open("rb") as file:
                file.seek(_MARK_BYTES * place)
                mark = file.read(_MARK_BYTES)
        except FileNotFoundError:  # written before there were marks
            return 0, 0, 0
        if len(mark) != _MARK_BYTES:
            return 0, 0, 0
        line, id_ = unpack("<QQ", mark)
        return place * _MARK_EVERY, line, id_

    def _line_start(self, request: int) -> int:
        at, start, _ = self._mark(request)
        return start + self._sum_lengths(at, request - at)

    def _column(self, first: int, count: int, column: int) -> array[int]:
        self._check(first, count)
        values = array("I")
        for run in self._index(first, count):
            values.extend(run[column::2])
        return values

    def _sum_lengths(self, first: int, count: int) -> int:
        return sum(sum(run[0::2]) for run in self._index(first, count))

    def _index(self, first: int, count: int) -> Iterator[array[int]]:
        with _storage(self._folder), (self._folder / INDEX).open("rb") as file:
            file.seek(_INDEX_ENTRY_BYTES * first)
            while count > 0:
                entries = min(count, _INDEX_RUN)
                yield self._entries(file, _INDEX_ENTRY_BYTES * entries)
                count -= entries

    def _entries(self, file: BufferedReader | WritebackFile, size: int) -> array[int]:
        data = file.read(size)
        if len(data) != size:
            raise BatchStorageError(
                f"{file.name} is shorter than it was; restore it, or submit the input again"
            )
        values = array("I", data)
        if sys.byteorder == "big":
            values.byteswap()
        return values


_decode_ids: Callable[[bytes], list[str]] = msgspec.json.Decoder(list[str]).decode


def _little(values: array[int]) -> array[int]:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BatchStorageError(
            f"the snapshot in {folder} cannot be read or written: {error.strerror or error}",
            hint="free or repair the disk, then try again",
        ) from error

"""Which successful results earlier jobs have: `<home>/cache/<job id>.idx`, one file a job.

A file holds digests and places, no text. It can be deleted at any time and built again from the job's
snapshot and joined results; it appears whole or not at all. An entry is a promise that is checked when it
is used: what lies at its place must have the hash it had. So a job that was deleted, or joined anew after a
retry, is not found, and never a wrong result.

    header   8s  magic and version
             Q   the caller's mark, to tell whether the file is still up to date
    fanout   256 x Q, entries whose digest begins with at most this byte (as in git's pack index)
    entries  40 bytes each, sorted: digest 16s, shard I, offset Q, length I, hash of the record 8s
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from langbatch.errors import BatchStorageError
from langbatch.folders import JobFolder
from langbatch.publish import private_folder, publishing
from langbatch.reuse.digests import DIGEST_BYTES
from langbatch.reuse.spool import PARTS, Spool

_MAGIC: Final = b"lbcache1"
_HEADER: Final = struct.Struct("<8sQ")
_FANOUT: Final = struct.Struct(f"<{PARTS}Q")
_ENTRY: Final = struct.Struct(f"<{DIGEST_BYTES}sIQI8s")
_START: Final = _HEADER.size + _FANOUT.size
_HASH_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class JoinedShard:
    """A shard's joined results: `requests` records in the order of the requests."""

    index: int
    path: Path
    requests: int


@dataclass(frozen=True, slots=True)
class Found:
    """A result that an earlier job has had. `record` is its joined record, one line of JSON."""

    job_id: str
    shard: int
    offset: int
    record: bytes


class _Outcome(msgspec.Struct):
    outcome: str


_decode_outcome = msgspec.json.Decoder(_Outcome).decode


def cache_folder(home: Path) -> Path:
    return home / "cache"


def index_job(
    home: Path, job_id: str, digests: Iterable[bytes], shards: Iterable[JoinedShard], mark: int
) -> int:
    """Make what a job has had findable; returns how many results those are.

    `digests` are those of its requests, in order, over all `shards`. `mark` is kept for `is_indexed`: give
    a number that changes with the results, such as how many succeeded. Of equal requests the last one
    counts. Raises `ValueError` where requests and results are not equally many.
    """
    folder = private_folder(cache_folder(home))
    of_requests = iter(digests)
    with Spool(folder, _ENTRY.size - DIGEST_BYTES) as spool:
        for shard in shards:
            for offset, record in _records(shard):
                digest = next(of_requests, None)
                if digest is None:
                    raise ValueError("there are more results than requests")
                if _decode_outcome(record).outcome == "succeeded":
                    payload = _ENTRY.pack(b"", shard.index, offset, len(record), _hash(record))
                    spool.add(digest, payload[DIGEST_BYTES:])
        if next(of_requests, None) is not None:
            # Out of step, every answer would be given to a wrong question.
            raise ValueError("there are more requests than results")
        counts: list[int] = []
        with publishing(_path(home, job_id)) as out:
            out.write(bytes(_START))
            total = 0
            for first_byte in range(PARTS):
                latest = {entry[:DIGEST_BYTES]: entry for entry in spool.entries_of(first_byte)}
                out.write(b"".join(sorted(latest.values())))
                total += len(latest)
                counts.append(total)
            out.seek(0)
            out.write(_HEADER.pack(_MAGIC, mark) + _FANOUT.pack(*counts))
    return total


def is_indexed(home: Path, job_id: str, mark: int) -> bool:
    """Whether the job's file is there, with this mark."""
    try:
        with _path(home, job_id).open("rb") as file:
            return file.read(_HEADER.size) == _HEADER.pack(_MAGIC, mark)
    except OSError:
        return False


def forget_job(home: Path, job_id: str) -> None:
    """For `purge`; entries of a job that is gone do no harm, but take room."""
    _path(home, job_id).unlink(missing_ok=True)


class Cache:
    """Looks digests up in all files there are, those of the latest jobs first (ids sort by time).

    `leave_out` is a job that must not find itself.
    """

    def __init__(self, home: Path, *, leave_out: str | None = None) -> None:
        self._home = home
        paths = sorted(cache_folder(home).glob("*.idx"), reverse=True)
        self._paths = [path for path in paths if path.stem != leave_out]

    def find(self, first_byte: int, wanted: Iterable[bytes]) -> Iterator[tuple[bytes, Found]]:
        """Results for those of the digests, all beginning with this byte, that have one; each once."""
        missing = set(wanted)
        for path in self._paths:
            if not missing:
                return
            for digest, shard, offset, length, record_hash in _entries(path, first_byte):
                if digest not in missing:
                    continue
                record = self._record(path.stem, shard, offset, length, record_hash)
                if record is not None:
                    missing.discard(digest)
                    yield digest, Found(path.stem, shard, offset, record)

    def _record(self, job_id: str, shard: int, offset: int, length: int, record_hash: bytes) -> bytes | None:
        try:
            with JobFolder.of(self._home, job_id).joined(shard).open("rb", buffering=0) as file:
                file.seek(offset)
                record = file.read(length)
        except OSError:
            return None
        return record if _hash(record) == record_hash else None


def _entries(path: Path, first_byte: int) -> Iterator[tuple[bytes, int, int, int, bytes]]:
    """A file that is damaged or of another version has nothing to say: it is only an index."""
    try:
        with path.open("rb") as file:
            head = file.read(_START)
            if len(head) < _START or not head.startswith(_MAGIC):
                return
            counts = _FANOUT.unpack_from(head, _HEADER.size)
            first = counts[first_byte - 1] if first_byte else 0
            file.seek(_START + first * _ENTRY.size)
            data = file.read((counts[first_byte] - first) * _ENTRY.size)
    except OSError:
        return
    yield from _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size])


def _records(shard: JoinedShard) -> Iterator[tuple[int, bytes]]:
    """Each record with its place."""
    offset = 0
    try:
        with shard.path.open("rb") as file:
            for _ in range(shard.requests):
                record = file.readline()
                if not record.endswith(b"\n"):
                    raise BatchStorageError(f"{shard.path} has fewer records than its shard has requests")
                yield offset, record
                offset += len(record)
    except OSError as error:
        raise BatchStorageError(f"{shard.path} cannot be read: {error.strerror or error}") from error


def _hash(record: bytes) -> bytes:
    return blake2b(record, digest_size=_HASH_BYTES).digest()


def _path(home: Path, job_id: str) -> Path:
    return cache_folder(home) / f"{job_id}.idx"

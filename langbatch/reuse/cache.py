"""Which successful results earlier jobs have: `<home>/cache/<job id>.idx`, one file a job.

A file holds digests and places, no text. It can be deleted at any time and built again from the job's
snapshot and results; it appears whole or not at all. An entry is a promise that is checked when it is used:
what lies at its place must have the hash it had. So a job that was deleted, or joined anew after a retry, is
not found, and never a wrong result.

    header   8s  magic and version
             Q   the caller's mark, to tell whether the file is still up to date
    fanout   256 x Q, entries whose digest begins with at most this byte (as in git's pack index)
    entries  40 bytes each, sorted: digest 16s, shard I, offset Q, length I, hash of the record 8s
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

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

#: Stands for a shard's number where the record is one that the job itself had from an earlier job.
HELD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Answer:
    """A success to be made findable: the question's digest, and its record with its place in the shard's
    joined file (or, for `HELD`, among the results held)."""

    digest: bytes
    shard: int
    offset: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A result that an earlier job has had. `record` is its joined record, one line of JSON."""

    job_id: str
    record: bytes


def cache_folder(home: Path) -> Path:
    return home / "cache"


def index_path(folder: Path, job_id: str) -> Path:
    """Where the job's index is in a folder of such."""
    return folder / f"{job_id}.idx"


def write_index(path: Path, answers: Iterable[Answer], mark: int) -> int:
    """Make what a job has had findable; returns how many results those are. Of equal questions the last one
    counts. `mark` is kept for `is_indexed`: give a number that changes with the results."""
    with Spool(private_folder(path.parent), _ENTRY.size - DIGEST_BYTES) as spool:
        for answer in answers:
            record = answer.record
            entry = _ENTRY.pack(b"", answer.shard, answer.offset, len(record), _hash(record))
            spool.add(answer.digest, entry[DIGEST_BYTES:])
        counts: list[int] = []
        with publishing(path) as out:
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


def is_indexed(path: Path, mark: int) -> bool:
    """Whether the index is there, with this mark."""
    try:
        with path.open("rb") as file:
            return file.read(_HEADER.size) == _HEADER.pack(_MAGIC, mark)
    except OSError:
        return False


def forget_job(home: Path, job_id: str) -> None:
    """For `purge`; entries of a job that is gone do no harm, but take room."""
    index_path(cache_folder(home), job_id).unlink(missing_ok=True)


class Cache:
    """Looks questions up in the given indexes, in their order. Each is named after its job."""

    def __init__(self, home: Path, indexes: Sequence[Path]) -> None:
        self._home = home
        self._indexes = indexes

    def find(self, first_byte: int, wanted: Iterable[bytes]) -> Iterator[tuple[bytes, Found]]:
        """Results for those of the digests, all beginning with this byte, that have one; each once."""
        missing = set(wanted)
        for path in self._indexes:
            if not missing:
                return
            for digest, shard, offset, length, record_hash in _entries(path, first_byte):
                if digest not in missing:
                    continue
                record = self._record(path.stem, shard, offset, length, record_hash)
                if record is not None:
                    missing.discard(digest)
                    yield digest, Found(path.stem, record)

    def _record(self, job_id: str, shard: int, offset: int, length: int, record_hash: bytes) -> bytes | None:
        folder = JobFolder.of(self._home, job_id)
        path = folder.held if shard == HELD else folder.joined(shard)
        try:
            with path.open("rb", buffering=0) as file:
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
            data = file.read(max(counts[first_byte] - first, 0) * _ENTRY.size)
    except OSError:
        return
    yield from _ENTRY.iter_unpack(data[: len(data) // _ENTRY.size * _ENTRY.size])


def _hash(record: bytes) -> bytes:
    return blake2b(record, digest_size=_HASH_BYTES).digest()

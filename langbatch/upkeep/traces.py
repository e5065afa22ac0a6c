"""What a service's lists tell about jobs whose database is gone: every file and batch of ours bears the
attempt's name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from langbatch.records import RemoteBatch, RemoteFile
from langbatch.running.creating import TAG
from langbatch.running.decisions import choose_batch

#: store, job, shard, attempt, first eight digits of the payload's SHA-256 (`outgoing.prepare_payload`).
ATTEMPT_NAME = re.compile(
    r"lb-([0-9a-f]{8})-(job_[0-9a-hjkmnp-tv-z]{26})-(\d{5,})-(\d+)-([0-9a-f]{8})\.jsonl"
)


@dataclass(slots=True)
class Trace:
    """One attempt, as far as the service shows it. A file without a batch, or a batch whose file is gone."""

    name: str
    store_id: str
    job_id: str
    shard: int
    number: int
    sha256_start: str
    files: list[RemoteFile] = field(default_factory=list)
    batches: list[RemoteBatch] = field(default_factory=list)

    @property
    def batch(self) -> RemoteBatch | None:
        return choose_batch(self.batches)[0] if self.batches else None

    @property
    def others(self) -> Sequence[RemoteBatch]:
        """Batches beside the chosen one: paid for twice, or about to be."""
        return choose_batch(self.batches)[1] if self.batches else ()

    @property
    def file_id(self) -> str | None:
        batch = self.batch
        if batch is not None and batch.input_file_id is not None:
            return batch.input_file_id
        return self.files[0].id if self.files else None

    @property
    def seen_at(self) -> float | None:
        """The earliest time that the service gives for anything of it, on the service's clock."""
        times = [file.created_at for file in self.files] + [batch.created_at for batch in self.batches]
        return min((at for at in times if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class JobTrace:
    """A job's attempts by shard, each shard's oldest first."""

    job_id: str
    shards: Mapping[int, Sequence[Trace]]

    @property
    def batches(self) -> list[RemoteBatch]:
        return [batch for traces in self.shards.values() for trace in traces for batch in trace.batches]

    @property
    def is_tagged(self) -> bool:
        """Whether every batch seen shows its tag, so that one that is not seen was never made."""
        return all(TAG in (batch.metadata or {}) for batch in self.batches)

    @property
    def store_id(self) -> str:
        """The store that submitted it: a later one may have retried it after a recovery."""
        return self.shards[min(self.shards)][0].store_id


def read_traces(files: Iterable[RemoteFile], batches: Iterable[RemoteBatch]) -> dict[str, JobTrace]:
    """Jobs by id, from everything listed. Files with other names and batches on them are passed over."""
    by_name: dict[str, Trace] = {}
    name_of_file: dict[str, str] = {}

    def trace(name: str | None) -> Trace | None:
        match = ATTEMPT_NAME.fullmatch(name or "")
        if match is None:
            return None
        store_id, job_id, shard, number, start = match.groups()
        fresh = Trace(match[0], store_id, job_id, int(shard), int(number), start)
        return by_name.setdefault(match[0], fresh)

    for file in files:
        found = trace(file.filename)
        if found is not None:
            found.files.append(file)
            name_of_file[file.id] = found.name
    for batch in batches:
        # The input file is the key; the tag tells where the file is gone (docs/design.md).
        name = name_of_file.get(batch.input_file_id or "") or (batch.metadata or {}).get(TAG)
        found = trace(name)
        if found is not None:
            found.batches.append(batch)
    return _by_job(by_name.values())


def _by_job(traces: Iterable[Trace]) -> dict[str, JobTrace]:
    jobs: dict[str, dict[int, dict[int, Trace]]] = {}
    for found in traces:
        numbers = jobs.setdefault(found.job_id, {}).setdefault(found.shard, {})
        before = numbers.get(found.number)
        # The same attempt under two names: its payload was written anew before it was ever accepted.
        if before is None or (found.batches and not before.batches):
            numbers[found.number] = found
    return {
        job_id: JobTrace(
            job_id,
            {index: [numbers[n] for n in sorted(numbers)] for index, numbers in sorted(shards.items())},
        )
        for job_id, shards in sorted(jobs.items())
    }

"""What services' lists tell about jobs whose database is gone: every file and batch of ours bears the
attempt's name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from langbatch.records import RemoteBatch, RemoteFile
from langbatch.running.creating import BUDGET, PLACE, TARGETS
from langbatch.running.decisions import choose_batch
from langbatch.running.fate import TAG
from langbatch.shards.names import AttemptName, Extent, read_name


@dataclass(frozen=True, slots=True)
class Listing:
    """All that one endpoint lists."""

    files: Sequence[RemoteFile]
    batches: Sequence[RemoteBatch]


@dataclass(slots=True)
class Trace:
    """One attempt, as far as it is listed. A file without a batch, or a batch whose file is gone.

    `listing`: which of the lists shows it."""

    name: str
    parts: AttemptName
    listing: int
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

    @property
    def place(self) -> int | None:
        """Its target's place among the job's, where a batch says it."""
        for batch in self.batches:
            text = (batch.metadata or {}).get(PLACE, "")
            if text.isascii() and text.isdigit():
                return int(text)
        return None


@dataclass(frozen=True, slots=True)
class JobTrace:
    """A job's attempts by shard, each shard's oldest first."""

    job_id: str
    shards: Mapping[int, Sequence[Trace]]

    @property
    def traces(self) -> list[Trace]:
        return [trace for traces in self.shards.values() for trace in traces]

    @property
    def batches(self) -> list[RemoteBatch]:
        return [batch for trace in self.traces for batch in trace.batches]

    @property
    def is_tagged(self) -> bool:
        """Whether every batch seen shows its tag, so that one that is not seen was never made."""
        return all(TAG in (batch.metadata or {}) for batch in self.batches)

    @property
    def has_budget(self) -> bool:
        return any(BUDGET in (batch.metadata or {}) for batch in self.batches)

    @property
    def store_id(self) -> str:
        """The store that submitted it: a later one may have retried it after a recovery."""
        return self.shards[min(self.shards)][0].parts.store_id

    @property
    def target_count(self) -> int | None:
        """How many targets the job has; None where only attempts from before that was told are seen."""
        said = [trace.parts.targets for trace in self.traces if trace.parts.targets is not None]
        return max([*said, len(self.target_marks)], default=None) or None

    @property
    def target_marks(self) -> tuple[str, ...]:
        """The marks of the job's targets in their order; empty where no batch tells them, or not all the
        same."""
        told = {text for batch in self.batches if (text := (batch.metadata or {}).get(TARGETS))}
        return tuple(told.pop().split()) if len(told) == 1 else ()

    def extent(self, shard: int) -> Extent | None:
        """Where a shard begins and how long it is; None where its names do not say.

        The oldest attempt knows where: after a recovery without the folder, requests are counted anew. The
        newest knows how long: a shard may have been cut since."""
        said = [trace.parts.extent for trace in self.shards.get(shard, ()) if trace.parts.extent is not None]
        return Extent(said[0].first, said[-1].count) if said else None


def read_traces(listings: Iterable[Listing]) -> dict[str, JobTrace]:
    """Jobs by id, from everything listed. Files with other names and batches on them are passed over."""
    by_name: dict[str, Trace] = {}
    for number, listing in enumerate(listings):
        _read_listing(number, listing, by_name)
    return _by_job(by_name.values())


def strangers(listing: Listing) -> list[RemoteBatch]:
    """Batches of which it cannot be said whose they are: they show no tag, and their file is not listed."""
    listed = {file.id for file in listing.files}
    return [
        batch
        for batch in listing.batches
        if TAG not in (batch.metadata or {}) and batch.input_file_id not in listed
    ]


def _read_listing(number: int, listing: Listing, by_name: dict[str, Trace]) -> None:
    name_of_file: dict[str, str] = {}

    def trace(name: str | None) -> Trace | None:
        parts = read_name(name or "")
        return None if parts is None else by_name.setdefault(str(name), Trace(str(name), parts, number))

    for file in listing.files:
        found = trace(file.filename)
        if found is not None:
            name_of_file[file.id] = found.name
            # One resource may be listed twice, under two of its names.
            if all(known.id != file.id for known in found.files):
                found.files.append(file)
    for batch in listing.batches:
        # The input file is the key; the tag tells where the file is gone (docs/design.md).
        name = name_of_file.get(batch.input_file_id or "") or (batch.metadata or {}).get(TAG)
        found = trace(name)
        if found is not None and all(known.id != batch.id for known in found.batches):
            found.batches.append(batch)


def _by_job(traces: Iterable[Trace]) -> dict[str, JobTrace]:
    jobs: dict[str, dict[int, dict[int, Trace]]] = {}
    for found in traces:
        parts = found.parts
        numbers = jobs.setdefault(parts.job_id, {}).setdefault(parts.shard, {})
        before = numbers.get(parts.number)
        # The same attempt under two names: its payload was written anew before it was ever accepted.
        if before is None or (found.batches and not before.batches):
            numbers[parts.number] = found
    return {
        job_id: JobTrace(
            job_id,
            {index: [numbers[n] for n in sorted(numbers)] for index, numbers in sorted(shards.items())},
        )
        for job_id, shards in sorted(jobs.items())
    }

"""What services still have of a lost job's uploaded files, fetched into a folder. Downloads cost nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from langbatch.errors import BadDownload, RemoteNotFound
from langbatch.providers.base import Provider
from langbatch.publish import publishing
from langbatch.upkeep.traces import JobTrace, Trace


class Sent(msgspec.Struct):
    """A request line, as far as a recovery reads it."""

    custom_id: str
    url: str
    body: dict[str, object]


decode_line = msgspec.json.Decoder(Sent).decode


@dataclass(frozen=True, slots=True)
class Payload:
    """One attempt's file, byte for byte as its name says. `model` is what its first line names."""

    trace: Trace
    path: Path
    requests: int
    model: str | None

    def lines(self, skip: int = 0, count: int | None = None) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from islice(file, skip, None if count is None else skip + count)

    def ids(self, skip: int = 0, count: int | None = None) -> Iterator[str]:
        return (decode_line(line).custom_id for line in self.lines(skip, count))


@dataclass(frozen=True, slots=True)
class Uploads:
    """Every payload that could be read, by its attempt's name."""

    job: JobTrace
    payloads: Mapping[str, Payload]

    @property
    def models(self) -> dict[str, str | None]:
        return {name: payload.model for name, payload in self.payloads.items()}

    def of(self, shard: int) -> list[Payload]:
        """A shard's, the oldest attempt's first."""
        names = [trace.name for trace in self.job.shards.get(shard, ())]
        return [self.payloads[name] for name in names if name in self.payloads]

    def best(self, shard: int) -> tuple[Payload | None, bool]:
        """The payload that tells most of a shard's requests, and whether it begins with all of them.

        One from before the shard was cut holds more; a retry's holds only what had no success yet."""
        readable = self.of(shard)
        whole = [payload for payload in readable if self.is_whole(payload)]
        extent = self.job.extent(shard)
        if extent is not None:
            whole = [payload for payload in whole if payload.requests >= extent.count]
        if whole:
            return min(whole, key=lambda payload: payload.requests), True
        return (readable[0], False) if readable else (None, False)

    def is_whole(self, payload: Payload) -> bool:
        """Whether it holds the whole shard as it was then: a retry after a batch sends only the rest.

        Where the name does not say: an earlier attempt of which nothing is seen had no batch, if batches
        show their tags."""
        parts = payload.trace.parts
        if parts.extent is not None:
            return payload.requests == parts.extent.count
        earlier = [t.batch for t in self.job.shards[parts.shard] if t.parts.number < parts.number]
        if parts.number > 1 + len(earlier) and not self.job.is_tagged:
            return False
        return all(
            batch is None or (batch.status == "failed" and not batch.output_file_id) for batch in earlier
        )


def fetch_uploads(job: JobTrace, providers: Sequence[Provider], folder: Path, notes: list[str]) -> Uploads:
    """Fetch what is left of a job's uploads into `folder`. `providers` in the order of the lists.

    What is not as its name says is left out and noted. Raises what downloads raise, but for what is gone."""
    found: dict[str, Payload] = {}
    for trace in job.traces:
        for file in trace.files:
            path = folder / trace.name
            try:
                with publishing(path) as sink:
                    providers[trace.listing].download(file.id, sink)
            except (RemoteNotFound, BadDownload):
                continue
            if not _sha256(path).startswith(trace.parts.sha256_start):
                notes.append(f"{file.id} is not what was uploaded as {trace.name}")
                continue
            found[trace.name] = _read(trace, path)
            break
    return Uploads(job, found)


def _read(trace: Trace, path: Path) -> Payload:
    requests = 0
    model: object = None
    with path.open("rb") as file:
        for line in file:
            if requests == 0:
                model = decode_line(line).body.get("model")
            requests += 1
    return Payload(trace, path, requests, model if isinstance(model, str) else None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

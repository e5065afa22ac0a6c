"""A lost job's requests where its folder is lost, too: those that were sent, as they were sent."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice, pairwise
from pathlib import Path

from langbatch.records import EndpointKind
from langbatch.requests.examine import KNOWN_URLS, canonical
from langbatch.shards.names import Extent
from langbatch.shards.sharding import ShardPlan
from langbatch.shards.snapshot import SnapshotWriter
from langbatch.upkeep.destinations import NotRebuilt
from langbatch.upkeep.traces import JobTrace
from langbatch.upkeep.uploads import Payload, Uploads, decode_line

_LINES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Regathered:
    """The shards that are known again. `unsent` were cut off others and not seen since."""

    plans: Sequence[ShardPlan]
    unsent: frozenset[int]
    kind: EndpointKind | None


@dataclass(frozen=True, slots=True)
class _Run:
    """A shard's requests: `count` lines of a payload behind `skip` others."""

    shard: int
    payload: Payload
    skip: int
    count: int

    def blocks(self) -> Iterator[list[bytes]]:
        lines = self.payload.lines(self.skip, self.count)
        while block := list(islice(lines, _LINES_AT_ONCE)):
            yield block


def regather(folder: Path, job: JobTrace, uploads: Uploads, notes: list[str]) -> Regathered:
    """Write a snapshot into `folder` of every request that is known, in input order as far as that is known.

    Raises `NotRebuilt` where none is, or where files contradict each other."""
    runs, unsent = _runs(job, uploads, notes)
    if not runs:
        raise NotRebuilt("none of its input files is left at the service, and its folder is gone")
    plans: list[ShardPlan] = []
    first = byte_start = 0
    kind: EndpointKind | None = None
    with SnapshotWriter(folder) as writer:
        for run in runs:
            done, size = first, 0
            for lines in run.blocks():
                requests = [decode_line(line) for line in lines]
                kind = kind or KNOWN_URLS.get(requests[0].url)
                writer.add(
                    [b"".join(lines)],
                    array("I", map(len, lines)),
                    array("I", range(done + 1, done + len(lines) + 1)),
                    [canonical(request.custom_id) for request in requests],
                )
                done += len(lines)
                size += sum(map(len, lines))
            plans.append(ShardPlan(run.shard, first, done - first, byte_start, size))
            first, byte_start = done, byte_start + size
        writer.close(hashlib.sha256())
    return Regathered(plans, unsent, kind)


def _runs(job: JobTrace, uploads: Uploads, notes: list[str]) -> tuple[list[_Run], frozenset[int]]:
    extents: dict[int, Extent] = {}
    for shard in job.shards:
        extent = job.extent(shard)
        if extent is not None:
            extents[shard] = extent
    if len(extents) == len(job.shards):
        extents = _cut(extents, uploads)
        order = sorted(extents, key=lambda shard: (extents[shard].first, shard))
    else:
        firsts = [extent.first for _, extent in sorted(extents.items())]
        if firsts != sorted(firsts):
            raise NotRebuilt("its shards were cut, and some of its files do not say where they begin")
        extents, order = {}, sorted(job.shards)
    runs: list[_Run] = []
    for shard in order:
        payload, is_whole = uploads.best(shard)
        if payload is None:
            continue
        if not is_whole:
            number = payload.trace.parts.number
            notes.append(f"of shard {shard} only the requests of attempt {number} are known")
        length = extents[shard].count if is_whole and extents else payload.requests
        runs.append(_Run(shard, payload, 0, length))
    begins = {shard: extent.first for shard, extent in extents.items()}
    cut_off = dict(zip(count(max(job.shards) + 1), _left_over(extents, uploads), strict=False))
    for shard, (first, length, payload, skip) in cut_off.items():
        begins[shard] = first
        runs.append(_Run(shard, payload, skip, length))
    if cut_off:
        runs.sort(key=lambda run: begins[run.shard])
    # Requests that were cut off are known under other numbers than they had.
    for shard in job.shards if cut_off else range(max(job.shards) + 1):
        if uploads.best(shard)[0] is None:
            _note_lost(job, shard, notes)
    return runs, frozenset(cut_off)


def _cut(extents: Mapping[int, Extent], uploads: Uploads) -> dict[int, Extent]:
    """A shard that reaches into one with a higher number was cut there: its newest attempt seen is from
    before. Only where their requests show it, too: they are counted anew by every recovery like this."""
    order = sorted(extents.items(), key=lambda item: (item[1].first, item[0]))
    found = dict(extents)
    for (shard, extent), (other, next_extent) in pairwise(order):
        if extent.end <= next_extent.first:
            continue
        payload, is_whole = uploads.best(shard)
        if payload is None or not is_whole:
            continue  # what it holds is not taken by its place
        offset = next_extent.first - extent.first
        theirs, _ = uploads.best(other)
        shared = theirs is None or next(theirs.ids()) in payload.ids(offset)
        if other < shard or offset == 0 or not shared:
            raise NotRebuilt(f"where shards {shard} and {other} begin and end is not known")
        found[shard] = replace(extent, count=offset)
    return found


def _left_over(extents: Mapping[int, Extent], uploads: Uploads) -> list[tuple[int, int, Payload, int]]:
    """Pieces of cut shards that were not seen since, out of what was uploaded before the cut: where each
    begins, how many requests it has, the payload that holds them, and how many lines stand before."""
    taken = list(extents.values())
    found: list[tuple[int, int, Payload, int]] = []
    for shard, extent in sorted(extents.items()):
        for payload in uploads.of(shard):
            said = payload.trace.parts.extent
            if said is None or said.first != extent.first or not uploads.is_whole(payload):
                continue
            at = said.first
            for other in sorted([*taken, Extent(said.end, 0)], key=lambda each: each.first):
                end = min(other.first, said.end)
                if at < end:
                    found.append((at, end - at, payload, at - said.first))
                    taken.append(Extent(at, end - at))
                at = max(at, other.end)
    return found


def _note_lost(job: JobTrace, shard: int, notes: list[str]) -> None:
    batches = [batch for trace in job.shards.get(shard, ()) if (batch := trace.batch) is not None]
    text = f"the requests of shard {shard} are not known any more"
    if batches:
        outputs = ", ".join(batch.output_file_id or "no output file" for batch in batches)
        text += f"; its batch is {batches[-1].id} ({outputs})"
    notes.append(text)

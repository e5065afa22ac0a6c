"""A lost job's requests, put together again: from its folder, where that is left, else from what was
uploaded. Downloads cost nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import msgspec

from langbatch import failpoints
from langbatch.errors import BadDownload, BatchStorageError, RemoteNotFound
from langbatch.folders import JobFolder
from langbatch.providers.base import Provider
from langbatch.publish import private_folder, publishing
from langbatch.records import EndpointKind, Target
from langbatch.requests.examine import KNOWN_URLS, canonical
from langbatch.results.result import read_results
from langbatch.shards.sharding import ShardPlan, plan_shards
from langbatch.shards.snapshot import IDS, INDEX, REQUESTS, Snapshot, SnapshotWriter
from langbatch.targets import growth_bytes
from langbatch.upkeep.traces import JobTrace, Trace

#: Stands in a folder whose snapshot was made of uploaded files, so that line numbers are not the user's.
REBUILT = "rebuilt"
_LINES_AT_ONCE = 1024
_PIECE = re.compile(r"(\d{5,})-(\d+)-(?:output|error)\.jsonl")


class NotRebuilt(Exception):
    """Why this job's requests cannot be put together; a sentence for people."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A job's requests and its shards' borders. `unsent` are shards of which nothing was ever seen.

    `notes` say what is not as it was. `sent_model` is the model that was uploaded where the target put
    another one into the lines, `lines_model` the one that all lines name, None where they name several.
    """

    folder: JobFolder
    snapshot: Snapshot
    plans: Sequence[ShardPlan]
    unsent: frozenset[int]
    sent_model: str | None
    lines_model: str | None
    kind: EndpointKind | None
    notes: Sequence[str]


class _Sent(msgspec.Struct):
    custom_id: str
    url: str
    body: dict[str, object]


_decode: msgspec.json.Decoder[_Sent] = msgspec.json.Decoder(_Sent)


@dataclass(slots=True)
class Rebuilder:
    """Works in a folder beside the job's, which it removes when it is done."""

    home: Path
    job: JobTrace
    provider: Provider
    notes: list[str] = field(default_factory=list)

    @property
    def _folder(self) -> JobFolder:
        return JobFolder.of(self.home, self.job.job_id)

    @property
    def _making(self) -> Path:
        return self._folder.path.with_name(f".new-{self.job.job_id}")

    def rebuild(self, target: Target, model: str | None) -> Rebuilt:
        """The job's folder holds a whole snapshot when this returns. Raises `NotRebuilt`, and what
        downloads raise."""
        shutil.rmtree(self._making, ignore_errors=True)
        private_folder(self._making / "sent")
        try:
            sent = {index: self._download(traces) for index, traces in self.job.shards.items()}
            snapshot = _whole_snapshot(self._folder)
            if snapshot is None:
                return self._from_uploads(sent)
            return self._from_folder(snapshot, sent, target, model)
        finally:
            shutil.rmtree(self._making, ignore_errors=True)

    # ------------------------------------------------------------ what was uploaded

    def _download(self, traces: Sequence[Trace]) -> Path | None:
        """The first attempt's payload that the service still has, if it is what its name says."""
        for trace in traces:
            for file in trace.files:
                path = self._making / "sent" / f"{trace.shard:05d}-{trace.number}.jsonl"
                try:
                    with publishing(path) as sink:
                        self.provider.download(file.id, sink)
                except (RemoteNotFound, BadDownload):
                    continue
                if _sha256(path).startswith(trace.sha256_start):
                    return path
                self.notes.append(f"{file.id} is not what was uploaded as {trace.name}")
        return None

    def _is_full(self, index: int, path: Path) -> bool:
        """Whether a payload holds the whole shard: a retry after a batch sends only the rest of it.

        An earlier attempt of which nothing is seen had no batch, where batches show their tags.
        """
        number = _number_of(path)
        earlier = [trace.batch for trace in self.job.shards[index] if trace.number < number]
        if number > 1 + len(earlier) and not self.job.is_tagged:
            return False
        return all(
            batch is None or (batch.status == "failed" and not batch.output_file_id) for batch in earlier
        )

    def _from_uploads(self, sent: Mapping[int, Path | None]) -> Rebuilt:
        """The home is lost, too: the requests are those that were sent, as they were sent."""
        plans: list[ShardPlan] = []
        first = byte_start = 0
        kind: EndpointKind | None = None
        with SnapshotWriter(self._making / "snapshot") as writer:
            for index in range(max(sent) + 1):
                path = sent.get(index)
                if path is None:
                    self._note_lost(index)
                    continue
                if not self._is_full(index, path):
                    number = _number_of(path)
                    self.notes.append(f"of shard {index} only the requests of attempt {number} are known")
                count = 0
                for lines in _blocks(path):
                    requests = [_decode.decode(line) for line in lines]
                    kind = kind or KNOWN_URLS.get(requests[0].url)
                    done = first + count
                    writer.add(
                        [b"".join(lines)],
                        array("I", map(len, lines)),
                        array("I", range(done + 1, done + len(lines) + 1)),
                        [canonical(request.custom_id) for request in requests],
                    )
                    count += len(lines)
                size = path.stat().st_size
                plans.append(ShardPlan(index, first, count, byte_start, size))
                first += count
                byte_start += size
            if not plans:
                raise NotRebuilt("none of its input files is left at the service, and its folder is gone")
            writer.close(hashlib.sha256())
        (self._making / "snapshot" / REBUILT).touch(mode=0o600)
        self._publish(self._making / "snapshot")
        snapshot = Snapshot(self._folder.path)
        return Rebuilt(
            self._folder,
            snapshot,
            plans,
            frozenset(),
            None,
            _one_model(snapshot),
            kind,
            [_rebuilt_note(snapshot.total), *self.notes],
        )

    def _publish(self, made: Path) -> None:
        """Into the job's place. What else is left in its folder stays: it was paid for. The index comes last,
        so that a crash in between leaves a snapshot that is seen not to be whole."""
        private_folder(self._folder.path)
        for name in (REBUILT, REQUESTS, IDS, INDEX):
            with failpoints.around("rename"):
                os.replace(made / name, self._folder.path / name)

    def _note_lost(self, index: int) -> None:
        traces = self.job.shards.get(index, ())
        batches = [batch for trace in traces if (batch := trace.batch) is not None]
        text = f"the requests of shard {index} are not known any more"
        if batches:
            outputs = ", ".join(batch.output_file_id or "no output file" for batch in batches)
            text += f"; its batch is {batches[-1].id} ({outputs})"
        self.notes.append(text)

    # ------------------------------------------------------------ what is left here

    def _from_folder(
        self, snapshot: Snapshot, sent: Mapping[int, Path | None], target: Target, model: str | None
    ) -> Rebuilt:
        """The snapshot is here: only the shards' borders have to be found."""
        evidence: dict[int, list[Iterator[str]]] = {}
        for index, path in sent.items():
            if path is not None and self._is_full(index, path):
                evidence[index] = [_ids_of(path), _ids_of(path)]
        for index in sorted(_joined_shards(self._folder)):
            path = self._folder.joined(index)
            evidence[index] = [_joined_ids(path), _joined_ids(path)]
        known = self._locate(snapshot, evidence)
        first_line = next(iter(snapshot.lines(0, 1)))
        kept = _decode.decode(first_line)
        sent_model = next((m for path in sent.values() if path and (m := _first_model(path))), None)
        if sent_model == kept.body.get("model"):
            sent_model = None
        plans, unsent = self._fill(snapshot, known, target, model or sent_model)
        if (self._folder.path / REBUILT).exists():
            self.notes.insert(0, _rebuilt_note(snapshot.total))
        return Rebuilt(
            self._folder,
            snapshot,
            plans,
            unsent,
            sent_model,
            _one_model(snapshot),
            KNOWN_URLS.get(kept.url),
            list(self.notes),
        )

    def _locate(
        self, snapshot: Snapshot, evidence: Mapping[int, Sequence[Iterator[str]]]
    ) -> dict[int, tuple[int, int]]:
        """First ordinal and count of each shard of which all ids are known."""
        firsts: dict[str, int] = {}
        for index, (ids, _) in evidence.items():
            first_id = next(ids, None)
            if first_id is not None:
                firsts[first_id] = index
        starts: dict[int, int] = {}
        with (self._folder.path / IDS).open("rb") as file:
            for ordinal, token in enumerate(file):
                index = firsts.get(json.loads(token), -1)
                if index >= 0:
                    starts[index] = ordinal
        found: dict[int, tuple[int, int]] = {}
        for index, (_, ids) in evidence.items():
            if index not in starts:
                raise NotRebuilt(f"its folder does not hold the requests that shard {index} sent")
            known = list(ids)
            first = starts[index]
            within = first + len(known) <= snapshot.total
            if not within or snapshot.ids(first, len(known)) != known:
                raise NotRebuilt(f"its folder does not hold the requests that shard {index} sent")
            found[index] = (first, len(known))
        return found

    def _fill(
        self,
        snapshot: Snapshot,
        known: Mapping[int, tuple[int, int]],
        target: Target,
        model: str | None,
    ) -> tuple[list[ShardPlan], frozenset[int]]:
        """Borders of all shards: those between two known ones follow from them, and what nobody ever sent
        is planned anew."""
        seen = {*known, *self.job.shards, *_local_shards(self._folder)}
        borders: list[tuple[int, int, int]] = []
        unsent: set[int] = set()
        at, last = 0, -1
        for index, (first, count) in [*sorted(known.items()), (max(seen) + 1, (snapshot.total, 0))]:
            if first < at:
                raise NotRebuilt("its shards overlap")
            between = list(range(last + 1, index))
            if first > at:
                lost = [number for number in between if number in seen]
                if len(between) == 1:
                    if lost and self._contradicts(between[0], first - at, at_end=first == snapshot.total):
                        raise NotRebuilt(f"where shard {between[0]} begins and ends is not known")
                    borders.append((between[0], at, first - at))
                    unsent.update(set(between) - set(lost))
                elif lost:
                    raise NotRebuilt(f"where shards {between[0]} to {between[-1]} begin and end is not known")
                else:
                    numbers = between or [index]
                    planned = self._plan(snapshot, at, first, target, model, numbers)
                    borders += planned
                    unsent.update(number for number, _, _ in planned)
            elif any(number in seen for number in between):
                raise NotRebuilt("its shards leave no room for one that was sent")
            if count:
                borders.append((index, first, count))
            at, last = first + count, index
        plans = []
        for index, first, count in borders:
            start, end = snapshot.span(first, count)
            plans.append(ShardPlan(index, first, count, start, end - start))
        return plans, frozenset(unsent)

    def _contradicts(self, index: int, requests: int, *, at_end: bool) -> bool:
        """Whether a shard without any readable payload has another size than the room for it. Behind the last
        one there may be others that were never sent."""
        totals = [b.counts.total for t in self.job.shards.get(index, ()) for b in t.batches if b.counts]
        sent = max(totals, default=0)
        return sent != requests if sent else at_end

    def _plan(
        self,
        snapshot: Snapshot,
        first: int,
        end: int,
        target: Target,
        model: str | None,
        numbers: Sequence[int],
    ) -> list[tuple[int, int, int]]:
        """A stretch that was never sent, cut as at submission; never over a border between models."""
        from langbatch.providers import limits_for

        stretches: list[tuple[int, int]] = []
        if model is None:
            at, previous = first, None
            for ordinal, line in enumerate(snapshot.lines(first, end - first), first):
                own = _decode.decode(line).body.get("model")
                if ordinal > first and own != previous:
                    stretches.append((at, ordinal - at))
                    at = ordinal
                previous = own
            stretches.append((at, end - at))
        else:
            stretches.append((first, end - first))
        cuts: list[tuple[int, int]] = []
        for start, count in stretches:
            plans = plan_shards(
                snapshot.lengths(start, count),
                growth_bytes(target),
                limits_for(target),
                embedding_inputs=snapshot.inputs(start, count) if target.kind == "embeddings" else None,
            )
            cuts += [(start + plan.first, plan.count) for plan in plans]
        is_last = end == snapshot.total
        if len(cuts) > len(numbers) and not is_last:
            raise NotRebuilt("a stretch that was never sent cannot be cut as it was")
        return [(numbers[0] + n, *cut) for n, cut in enumerate(cuts)]


def local_numbers(folder: JobFolder) -> dict[int, set[int]]:
    """Attempts of which downloaded pieces are here, by shard."""
    found: dict[int, set[int]] = {}
    for path in (folder.path / "pieces").glob("*.jsonl"):
        match = _PIECE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    return found


def _local_shards(folder: JobFolder) -> set[int]:
    return set(local_numbers(folder)) | _joined_shards(folder)


def _joined_shards(folder: JobFolder) -> set[int]:
    return {int(path.stem) for path in (folder.path / "joined").glob("*.jsonl") if path.stem.isdigit()}


def _whole_snapshot(folder: JobFolder) -> Snapshot | None:
    """The folder's snapshot, if its three files agree."""
    if not (folder.path / INDEX).exists():
        return None
    try:
        snapshot = Snapshot(folder.path)
        _, end = snapshot.span(0, snapshot.total)
        with (folder.path / IDS).open("rb") as file:
            ids = sum(1 for _ in file)
        size = (folder.path / REQUESTS).stat().st_size
    except (BatchStorageError, OSError):
        return None
    return snapshot if snapshot.total and (ids, size) == (snapshot.total, end) else None


def _one_model(snapshot: Snapshot) -> str | None:
    models = {_decode.decode(line).body.get("model") for line in snapshot.lines(0, snapshot.total)}
    model = models.pop()
    return model if isinstance(model, str) and not models else None


def _rebuilt_note(total: int) -> str:
    return (
        f"lines count from 1 within the {total} requests that were uploaded, not in your file, and requests "
        "that were never uploaded are not known"
    )


def _blocks(path: Path) -> Iterator[list[bytes]]:
    with path.open("rb") as file:
        while lines := list(islice(file, _LINES_AT_ONCE)):
            yield lines


def _ids_of(path: Path) -> Iterator[str]:
    for lines in _blocks(path):
        yield from (_decode.decode(line).custom_id for line in lines)


def _joined_ids(path: Path) -> Iterator[str]:
    return (result.custom_id for result in read_results(path))


def _number_of(path: Path) -> int:
    """The attempt's number, from a file named as in `outgoing/`."""
    return int(path.stem.rpartition("-")[2])


def _first_model(path: Path) -> str | None:
    with path.open("rb") as file:
        model = _decode.decode(file.readline()).body.get("model")
    return model if isinstance(model, str) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

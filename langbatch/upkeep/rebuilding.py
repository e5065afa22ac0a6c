"""A lost job's requests, put together again: from its folder, where that is left, else from what was
uploaded."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, pairwise
from pathlib import Path
from types import TracebackType

from langbatch import failpoints
from langbatch.errors import BatchStorageError
from langbatch.folders import JobFolder
from langbatch.providers.base import Provider
from langbatch.publish import private_folder
from langbatch.records import EndpointKind, Target
from langbatch.requests.examine import KNOWN_URLS
from langbatch.results.result import read_results
from langbatch.reuse.parting import Requests, all_requests
from langbatch.reuse.plan import ReusePlan, copies_of
from langbatch.shards.names import Extent
from langbatch.shards.sharding import ShardPlan, plan_shards
from langbatch.shards.snapshot import IDS, INDEX, INPUTS, MARKS, REQUESTS, Snapshot
from langbatch.targets import common_limits, growth_bytes, stated_quota_bytes
from langbatch.upkeep.destinations import NotRebuilt
from langbatch.upkeep.regathering import regather
from langbatch.upkeep.traces import JobTrace
from langbatch.upkeep.uploads import Uploads, decode_line, fetch_uploads

#: Stands in a folder whose snapshot was made of uploaded files, so that line numbers are not the user's.
REBUILT = "rebuilt"
_PIECE = re.compile(r"(\d{5,})-(\d+)-(?:output|error)\.jsonl")


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

    @property
    def asked(self) -> Requests:
        return all_requests(self.folder)

    @property
    def answered(self) -> int:
        """How many requests earlier jobs had answered."""
        return ReusePlan(self.folder).answered if ReusePlan.exists(self.folder) else 0


@dataclass(slots=True)
class Rebuilder:
    """Works in a folder beside the job's, which goes away with the block. `providers` in the order of the
    lists that the job was found in."""

    home: Path
    job: JobTrace
    providers: Sequence[Provider]
    notes: list[str] = field(default_factory=list)
    uploads: Uploads = field(init=False)

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.job, {})

    @property
    def _folder(self) -> JobFolder:
        return JobFolder.of(self.home, self.job.job_id)

    @property
    def _making(self) -> Path:
        return self._folder.path.with_name(f".new-{self.job.job_id}")

    def __enter__(self) -> Rebuilder:
        """Fetches what was uploaded. Raises what downloads raise."""
        shutil.rmtree(self._making, ignore_errors=True)
        private_folder(self._making / "sent")
        try:
            self.uploads = fetch_uploads(self.job, self.providers, self._making / "sent", self.notes)
        except BaseException:
            shutil.rmtree(self._making, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self._making, ignore_errors=True)

    def rebuild(self, where: Sequence[Target]) -> Rebuilt:
        """The job's folder holds a whole snapshot when this returns. `where`: the job's targets. Raises
        `NotRebuilt`."""
        snapshot = _whole_snapshot(self._folder)
        if snapshot is not None and not _plan_fits(self._folder, snapshot):
            _drop_plan(self._folder)
            self.notes.append("results of requests that were not sent (--dedupe, --cache) are lost")
        rebuilt = self._from_uploads() if snapshot is None else self._from_folder(snapshot, where)
        named = [replace(plan, model=_model_at(rebuilt.snapshot, plan)) for plan in rebuilt.plans]
        return replace(rebuilt, plans=named)

    # ------------------------------------------------------------ what was uploaded

    def _from_uploads(self) -> Rebuilt:
        """The home is lost, too."""
        made = self._making / "snapshot"
        found = regather(made, self.job, self.uploads, self.notes)
        (made / REBUILT).touch(mode=0o600)
        self._publish(made)
        snapshot = Snapshot(self._folder.path)
        return Rebuilt(
            self._folder,
            snapshot,
            found.plans,
            found.unsent,
            None,
            _one_model(snapshot),
            found.kind,
            [_rebuilt_note(snapshot.total), *self.notes],
        )

    def _publish(self, made: Path) -> None:
        """Into the job's place. What else is left in its folder stays: it was paid for. The index comes last,
        so that a crash in between leaves a snapshot that is seen not to be whole."""
        private_folder(self._folder.path)
        # They speak of a snapshot that was not whole.
        (self._folder.path / INPUTS).unlink(missing_ok=True)
        _drop_plan(self._folder)
        for name in (REBUILT, REQUESTS, IDS, MARKS, INDEX):
            with failpoints.around("rename"):
                os.replace(made / name, self._folder.path / name)

    # ------------------------------------------------------------ what is left here

    def _from_folder(self, snapshot: Snapshot, where: Sequence[Target]) -> Rebuilt:
        """The snapshot is here: only the shards' borders have to be found."""
        is_rebuilt = (self._folder.path / REBUILT).exists()
        known = self._locate(snapshot)
        for shard in set(self.job.shards) - set(known):
            extent = self.job.extent(shard)
            # Requests of a snapshot that was rebuilt are counted otherwise than names from before do.
            if extent is not None and not is_rebuilt:
                known[shard] = extent
        kept = decode_line(next(iter(snapshot.lines(0, 1))))
        sent_model = next((model for model in self.uploads.models.values() if model), None)
        if sent_model == kept.body.get("model"):
            sent_model = None
        plans, unsent = self._fill(snapshot, self._without_overlaps(known), where, sent_model)
        if is_rebuilt:
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

    def _locate(self, snapshot: Snapshot) -> dict[int, Extent]:
        """Each shard of which all requests are known by their ids, from its results or its payload."""
        evidence: dict[int, list[Iterator[str]]] = {}
        for shard in self.job.shards:
            payload, is_whole = self.uploads.best(shard)
            if payload is not None and is_whole:
                extent = self.job.extent(shard)
                most = None if extent is None else extent.count
                evidence[shard] = [payload.ids(0, most), payload.ids(0, most)]
        for shard in sorted(_joined_shards(self._folder)):
            path = self._folder.joined(shard)
            evidence[shard] = [_joined_ids(path), _joined_ids(path)]
        firsts: dict[str, int] = {}
        for shard, (ids, _) in evidence.items():
            first_id = next(ids, None)
            if first_id is not None:
                firsts[first_id] = shard
        starts: dict[int, int] = {}
        with (self._folder.path / IDS).open("rb") as file:
            for ordinal, token in enumerate(file):
                shard = firsts.get(json.loads(token), -1)
                if shard >= 0:
                    starts[shard] = ordinal
        found: dict[int, Extent] = {}
        for shard, (_, ids) in evidence.items():
            known = list(ids)
            extent = Extent(starts.get(shard, snapshot.total), len(known))
            if extent.end > snapshot.total or snapshot.ids(extent.first, extent.count) != known:
                raise NotRebuilt(f"its folder does not hold the requests that shard {shard} sent")
            found[shard] = extent
        return found

    def _without_overlaps(self, known: Mapping[int, Extent]) -> dict[int, Extent]:
        """A shard that reaches into one with a higher number was cut there: its newest attempt seen is from
        before. One with results here was not cut after them."""
        order = sorted(known.items(), key=lambda item: (item[1].first, item[0]))
        found = dict(order)
        firm = _joined_shards(self._folder)
        for (shard, extent), (other, next_extent) in pairwise(order):
            if extent.end <= next_extent.first:
                continue
            if other < shard or next_extent.first == extent.first or shard in firm:
                raise NotRebuilt("its shards overlap")
            found[shard] = replace(extent, count=next_extent.first - extent.first)
        return found

    def _fill(
        self,
        snapshot: Snapshot,
        known: Mapping[int, Extent],
        where: Sequence[Target],
        sent_model: str | None,
    ) -> tuple[list[ShardPlan], frozenset[int]]:
        """Borders of all shards, in input order: those between two known ones follow from them, and what
        nobody ever sent is planned anew."""
        seen = {*known, *self.job.shards, *_local_shards(self._folder)}
        lost = seen - known.keys()
        end = max(seen) + 1
        order = [*known.items(), (end, Extent(snapshot.total, 0))]
        numbers = [shard for shard, _ in order]
        if known and max(extent.end for extent in known.values()) > snapshot.total:
            raise NotRebuilt("its folder holds fewer requests than were sent")
        # Pieces of a shard that was cut have higher numbers than those behind it.
        is_counted_through = numbers == sorted(numbers)
        if lost and not is_counted_through:
            raise NotRebuilt(f"where shard {min(lost)} begins and ends is not known")
        spare = count(end)
        borders: list[tuple[int, Extent]] = []
        unsent: set[int] = set()
        at, last = 0, -1
        for shard, extent in order:
            between = list(range(last + 1, shard)) if is_counted_through else []
            lost_here = lost.intersection(between)
            lost -= lost_here
            gap = Extent(at, extent.first - at)
            if gap.count and len(lost_here) == len(between) == 1:
                if self._contradicts(between[0], gap.count, at_end=gap.end == snapshot.total):
                    raise NotRebuilt(f"where shard {between[0]} begins and ends is not known")
                borders.append((between[0], gap))
            elif gap.count and lost_here:
                raise NotRebuilt(f"where shards {between[0]} to {between[-1]} begin and end is not known")
            elif gap.count:
                cuts = self._plan(snapshot, gap, where, sent_model)
                planned = list(zip(cuts, chain(between, spare), strict=False))
                borders += [(number, cut) for cut, number in planned]
                unsent.update(number for _, number in planned)
            elif lost_here:
                raise NotRebuilt("its shards leave no room for one that was sent")
            if extent.count:
                borders.append((shard, extent))
            at, last = extent.end, shard
        plans = []
        for shard, extent in borders:
            start, stop = snapshot.span(extent.first, extent.count)
            plans.append(ShardPlan(shard, extent.first, extent.count, start, stop - start))
        return plans, frozenset(unsent)

    def _contradicts(self, shard: int, requests: int, *, at_end: bool) -> bool:
        """Whether a shard without any readable payload has another size than the room for it. Behind the last
        one there may be others that were never sent."""
        totals = [b.counts.total for t in self.job.shards.get(shard, ()) for b in t.batches if b.counts]
        sent = max(totals, default=0)
        return sent != requests if sent else at_end

    def _plan(
        self, snapshot: Snapshot, gap: Extent, where: Sequence[Target], sent_model: str | None
    ) -> list[Extent]:
        """A stretch that was never sent, cut as at submission; never over a border between models."""
        from langbatch.providers import limits_for

        stretches: list[Extent] = []
        if sent_model is None and any(target.model is None for target in where):
            at, previous = gap.first, None
            for ordinal, line in enumerate(snapshot.lines(gap.first, gap.count), gap.first):
                own = decode_line(line).body.get("model")
                if ordinal > gap.first and own != previous:
                    stretches.append(Extent(at, ordinal - at))
                    at = ordinal
                previous = own
            stretches.append(Extent(at, gap.end - at))
        else:
            stretches.append(gap)
        cuts: list[Extent] = []
        for stretch in stretches:
            plans = plan_shards(
                snapshot.lengths(stretch.first, stretch.count),
                max(growth_bytes(target) for target in where),
                common_limits([limits_for(target) for target in where]),
                preferred_bytes=stated_quota_bytes(where),
                embedding_inputs=(
                    snapshot.inputs(stretch.first, stretch.count) if where[0].kind == "embeddings" else None
                ),
            )
            cuts += [Extent(stretch.first + plan.first, plan.count) for plan in plans]
        return cuts


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


def _plan_fits(folder: JobFolder, snapshot: Snapshot) -> bool:
    """Whether the job has no plan of reuse, or one that can be read and speaks of this snapshot."""
    if not ReusePlan.exists(folder):
        return True
    try:
        plan, unsent = ReusePlan(folder), Snapshot(folder.unsent)
        copies = copies_of(folder)
    except BatchStorageError:
        return False
    sizes = (plan.sent, plan.total - plan.sent, plan.sent)
    return sizes == (snapshot.total, unsent.total, len(copies or ()))


def _drop_plan(folder: JobFolder) -> None:
    for path in (folder.reuse_plan, folder.copies, folder.held_index, folder.held):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder.unsent, ignore_errors=True)


def _one_model(snapshot: Snapshot) -> str | None:
    models = {decode_line(line).body.get("model") for line in snapshot.lines(0, snapshot.total)}
    model = models.pop()
    return model if isinstance(model, str) and not models else None


def _rebuilt_note(total: int) -> str:
    return (
        f"lines count from 1 within the {total} requests that were uploaded, not in your file, and requests "
        "that were never uploaded are not known"
    )


def _joined_ids(path: Path) -> Iterator[str]:
    return (result.custom_id for result in read_results(path))


def _model_at(snapshot: Snapshot, plan: ShardPlan) -> str | None:
    model = decode_line(next(iter(snapshot.lines(plan.first, 1)))).body.get("model")
    return model if isinstance(model, str) else None

"""Jobs whose database is lost, brought back from what the service shows of them, then harvested as ever.

Nothing is sent that might have been sent before: a shard of which the service shows nothing is sent only
where its batch, had there been one, would be seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch import ids, targets
from langbatch.clock import Clock
from langbatch.errors import BatchStateError, FateUnknown
from langbatch.providers.base import Provider
from langbatch.records import TERMINAL_BATCH_STATUSES, BatchPage, RemoteBatch, Target
from langbatch.running.reconcile import MARGIN_SECONDS, walk_batches, walk_files
from langbatch.upkeep.destinations import Destinations, Listed, NotRebuilt, find_destinations
from langbatch.upkeep.rebuilding import Rebuilder, Rebuilt
from langbatch.upkeep.standing import Endpoint, Standing
from langbatch.upkeep.traces import JobTrace, Listing, read_traces, strangers

if TYPE_CHECKING:
    from langbatch.store.store import JobStore


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `recover` did. `jobs`: ids brought back. `known`: ids found there that were here already.
    `skipped`: ids that could not be brought back, with the reason. `other_stores`: how many jobs of which
    other stores are on the resource and were left alone."""

    jobs: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    other_stores: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """A target that may have been sent to; its `model` is what `submit` was given as deployment or model, if
    anything. `who` tells apart those who see different lists at one endpoint."""

    target: Target
    provider: Provider
    who: object = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything that the endpoints show: jobs, the endpoints and batches of nobody in the order of their
    lists, and which list each target has."""

    jobs: Mapping[str, JobTrace]
    endpoints: Sequence[Endpoint]
    strangers: Sequence[Sequence[RemoteBatch]]
    listed: Sequence[Listed]


@dataclass(frozen=True, slots=True)
class Recoverer:
    """Recovers into one store what was sent to `opened`."""

    store: JobStore
    home: Path
    opened: Sequence[Opened]
    clock: Clock

    def recover(self, store_id: str | None = None) -> Recovery:
        """Bring back every job of one store that is missing here. May be repeated at any time."""
        from langbatch.store.purged import purged

        seen = self._look()
        traces = seen.jobs
        known = {job.id for job in self.store.jobs()}
        # What a purge could not delete is no loss.
        given_up = purged(self.store).keys()
        missing = {
            job_id: trace
            for job_id, trace in traces.items()
            if job_id not in known and job_id not in given_up
        }
        chosen, others = choose_store(missing, self.store.store_id, store_id, is_empty=not known)
        jobs: list[str] = []
        skipped: list[tuple[str, str]] = []
        if chosen is not None:
            from langbatch.store.left_behind import bring_back, leave
            from langbatch.store.restoring import take_over_id

            theirs = [trace for trace in missing.values() if trace.store_id == chosen]
            # First, so that nobody who bears the store's id takes their files for leftovers.
            leave(self.store, [trace.job_id for trace in theirs])
            if not known:
                take_over_id(self.store, chosen)
            for trace in theirs:
                try:
                    self._bring_back(trace, seen)
                except NotRebuilt as reason:
                    skipped.append((trace.job_id, str(reason)))
                else:
                    bring_back(self.store, trace.job_id)
                    jobs.append(trace.job_id)
        return Recovery(tuple(jobs), tuple(sorted(known & traces.keys())), tuple(skipped), others)

    def _look(self) -> _Seen:
        """Read every list to its end, one that several targets share only once."""
        shared: list[tuple[object, object]] = []
        listings: list[Listing] = []
        endpoints: list[Endpoint] = []
        listed: list[Listed] = []
        for opened in self.opened:
            key = (_list_of(opened.target), opened.who)
            if key not in shared:
                shared.append(key)
                listing, skew = self._read_lists(opened.provider)
                listings.append(listing)
                endpoints.append(Endpoint(opened.provider, skew))
            listed.append(Listed(opened.target, shared.index(key)))
        return _Seen(read_traces(listings), endpoints, [strangers(each) for each in listings], listed)

    def _read_lists(self, provider: Provider) -> tuple[Listing, float]:
        """Everything one endpoint shows, and how far its clock is ahead of ours."""
        skew = 0.0
        now = self.clock.now()

        def list_batches(after: str | None) -> BatchPage:
            nonlocal skew
            page = provider.list_batches(after)
            skew = skew if page.server_time is None else page.server_time - now
            return page

        files, all_files = walk_files(provider.list_files)
        batches = walk_batches(list_batches, now)
        if not (all_files and batches.complete):
            which = "batches" if all_files else "files"
            raise FateUnknown(
                f"the list of {which} cannot be read to its end; what it lacks might be taken for what "
                "was never sent",
                hint="Nothing was changed. Try again later.",
            )
        return Listing(files, batches.found), skew

    def _bring_back(self, trace: JobTrace, seen: _Seen) -> None:
        from langbatch.store.new_jobs import NewJob
        from langbatch.store.restoring import RestoredJob, restore

        providers = [endpoint.provider for endpoint in seen.endpoints]
        with Rebuilder(self.home, trace, providers) as rebuilder:
            models = rebuilder.uploads.models
            found = find_destinations(trace, seen.listed, models)
            rebuilt = rebuilder.rebuild([each.target for each in found.targets])
        where = _targets(found, rebuilt)
        hold = _hold(trace, found, seen)
        work = Standing(
            self.store,
            self.home,
            seen.endpoints,
            self.clock,
            trace,
            rebuilt,
            found,
            where,
            models,
            hold,
        )
        shards = [work.shard(plan) for plan in rebuilt.plans]
        asked = rebuilt.asked
        sha256 = asked.sha256
        # As at submission: the deployment in the lines and the one given are the same thing.
        named = [replace(target, model=target.model or rebuilt.lines_model) for target in where]
        rejects = rebuilt.folder.rejects
        restored = RestoredJob(
            NewJob(
                id=trace.job_id,
                name=None,
                input_name=f"{trace.job_id}.jsonl",
                target=where[0],
                others=tuple(where[1:]),
                input_sha256=sha256,
                snapshot_sha256=rebuilt.snapshot.sha256,
                reuse_key=targets.reuse_key(sha256, *named),
                total=asked.total,
                answered=rebuilt.answered,
                rejected=_count_lines(rejects),
                shards=rebuilt.plans,
                first_lines=[rebuilt.snapshot.line_numbers(plan.first, 1)[0] for plan in rebuilt.plans],
            ),
            created_at=ids.made_at(trace.job_id),
            cancel_requested=_was_cancelled(trace),
            remark=_remark(self.clock.now(), [*rebuilt.notes, *work.notes]),
            shards=shards,
        )
        restore(self.store, restored)


def _list_of(target: Target) -> object:
    """What shows one list, as far as a target tells: api-versions, weights and the like show the same."""
    place = ("azure_endpoint", "base_url", "organization", "project")
    return target.provider, target.host.lower(), [target.settings.get(name) for name in place]


def _targets(found: Destinations, rebuilt: Rebuilt) -> list[Target]:
    """The job's targets as it was given them: the kind, and an only target's model, are seen by what was
    sent."""
    where = [replace(each.target, kind=rebuilt.kind or each.target.kind) for each in found.targets]
    if len(where) == 1:
        where = [replace(where[0], model=where[0].model or rebuilt.sent_model)]
    return where


def _hold(trace: JobTrace, found: Destinations, seen: _Seen) -> str | None:
    """Why nothing of the job may be sent by itself."""
    if not found.are_all:
        return "which targets the job had is not known; it may have been sent to one that was not looked at"
    made_at = ids.made_at(trace.job_id)
    for listing in sorted({each.listing for each in found.targets}):
        since = made_at + seen.endpoints[listing].skew - MARGIN_SECONDS
        for batch in seen.strangers[listing]:
            if batch.created_at is None or batch.created_at >= since:
                return f"batch {batch.id} may be its own: it shows no tag, and its file is gone"
    if trace.has_budget:
        return "the job had a budget, which is lost: give it again before this is sent"
    return None


def choose_store(
    missing: Mapping[str, JobTrace], own: str, wanted: str | None, *, is_empty: bool
) -> tuple[str | None, dict[str, int]]:
    """Whose jobs to bring back, and what is left alone. Another store's jobs are taken only by name, or into
    an empty store where there is no choice: that store may be alive elsewhere."""
    found: dict[str, int] = {}
    for trace in missing.values():
        found[trace.store_id] = found.get(trace.store_id, 0) + 1
    foreign = sorted(set(found) - {own})
    chosen = wanted
    if wanted is None:
        if own in found:
            chosen = own
        elif is_empty and len(foreign) == 1:
            chosen = foreign[0]
        elif is_empty and foreign:
            listed = ", ".join(f"{store} (jobs: {found[store]})" for store in foreign)
            raise BatchStateError(
                f"several stores' jobs are on this resource: {listed}",
                hint="Name the one that was lost with --store-id; one that is in use elsewhere must not "
                "be taken over.",
            )
    elif wanted not in found:
        chosen = None
    return chosen, {store: count for store, count in found.items() if store != chosen}


def _was_cancelled(trace: JobTrace) -> bool:
    """Whether somebody stopped the whole job: what had not been sent by then must not be sent now. One
    stopped batch beside running ones says nothing of the kind."""
    newest = [batch for traces in trace.shards.values() if (batch := traces[-1].batch) is not None]
    stopped = [batch.status in ("cancelling", "cancelled") for batch in newest]
    over = [batch.status in TERMINAL_BATCH_STATUSES or batch.status == "cancelling" for batch in newest]
    return any(stopped) and all(over)


def _remark(now: float, notes: Sequence[str]) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    return "; ".join((f"recovered from the service on {day}", *notes))


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0

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
from langbatch.records import TERMINAL_BATCH_STATUSES, BatchPage, Target
from langbatch.upkeep.listing import walk_batches, walk_files
from langbatch.upkeep.rebuilding import NotRebuilt, Rebuilder
from langbatch.upkeep.standing import Standing
from langbatch.upkeep.traces import JobTrace, read_traces

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
class Recoverer:
    """Recovers into one store. `model` is what `submit` was given as deployment or model, if anything."""

    store: JobStore
    home: Path
    provider: Provider
    target: Target
    clock: Clock

    def recover(self, store_id: str | None = None) -> Recovery:
        """Bring back every job of one store that is missing here. May be repeated at any time."""
        traces, skew = self._look()
        known = {job.id for job in self.store.jobs()}
        missing = {job_id: trace for job_id, trace in traces.items() if job_id not in known}
        chosen, others = choose_store(missing, self.store.store_id, store_id, is_empty=not known)
        jobs: list[str] = []
        skipped: list[tuple[str, str]] = []
        if chosen is not None:
            from langbatch.store.restoring import take_over_id

            if not known:
                take_over_id(self.store, chosen)
            for trace in missing.values():
                if trace.store_id != chosen:
                    continue
                try:
                    self._bring_back(trace, skew)
                except NotRebuilt as reason:
                    skipped.append((trace.job_id, str(reason)))
                else:
                    jobs.append(trace.job_id)
        return Recovery(tuple(jobs), tuple(sorted(known & traces.keys())), tuple(skipped), others)

    def _look(self) -> tuple[dict[str, JobTrace], float]:
        """Everything the service shows, and how far its clock is ahead of ours."""
        skew = 0.0
        now = self.clock.now()

        def list_batches(after: str | None) -> BatchPage:
            nonlocal skew
            page = self.provider.list_batches(after)
            skew = skew if page.server_time is None else page.server_time - now
            return page

        files, all_files = walk_files(self.provider.list_files)
        batches = walk_batches(list_batches, now)
        if not (all_files and batches.complete):
            which = "batches" if all_files else "files"
            raise FateUnknown(
                f"the list of {which} cannot be read to its end; what it lacks might be taken for what "
                "was never sent",
                hint="Nothing was changed. Try again later.",
            )
        return read_traces(files, batches.found), skew

    def _bring_back(self, trace: JobTrace, skew: float) -> None:
        from langbatch.store.restoring import RestoredJob, restore
        from langbatch.store.store import NewJob

        rebuilt = Rebuilder(self.home, trace, self.provider).rebuild(self.target, self.target.model)
        target = replace(
            self.target,
            kind=rebuilt.kind or self.target.kind,
            model=self.target.model or rebuilt.sent_model,
        )
        work = Standing(self.store, self.home, self.provider, self.clock, trace, rebuilt, target, skew)
        shards = [work.shard(plan) for plan in rebuilt.plans]
        sha256 = rebuilt.snapshot.sha256
        # As at submission: the deployment in the lines and the one given are the same thing.
        named = replace(target, model=target.model or rebuilt.lines_model)
        rejects = rebuilt.folder.rejects
        restored = RestoredJob(
            NewJob(
                id=trace.job_id,
                name=None,
                input_name=f"{trace.job_id}.jsonl",
                target=target,
                input_sha256=sha256,
                snapshot_sha256=sha256,
                reuse_key=targets.reuse_key(sha256, named),
                total=sum(plan.count for plan in rebuilt.plans),
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

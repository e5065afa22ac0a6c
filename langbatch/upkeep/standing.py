"""Where each shard of a recovered job stands, from what the service shows and what is left here.

A shard that may have had a batch which nobody sees any more is a person's to settle, never sent again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from langbatch import ids
from langbatch.clock import Clock
from langbatch.errors import ProviderError, RemoteNotFound
from langbatch.folders import Part
from langbatch.providers.base import Provider
from langbatch.publish import private_folder, publishing
from langbatch.records import (
    TERMINAL_BATCH_STATUSES,
    UNKNOWN_BATCH,
    Attempt,
    AttemptEnd,
    BatchCounts,
    Job,
    Shard,
    ShardState,
    ShardView,
    Tally,
    Target,
    Unsuccessful,
    Usage,
)
from langbatch.results.join import AttemptPieces, Piece, Verdict, join_shard
from langbatch.results.result import read_results
from langbatch.reuse.expansion import with_copies
from langbatch.reuse.plan import copies_of
from langbatch.running.decisions import is_quota_bounce, silence_of
from langbatch.running.fetching import Harvester
from langbatch.running.quota import estimate_tokens
from langbatch.shards.names import AttemptName
from langbatch.shards.sharding import ShardPlan
from langbatch.targets import account_label
from langbatch.upkeep.destinations import Destinations
from langbatch.upkeep.rebuilding import Rebuilt, local_numbers
from langbatch.upkeep.traces import JobTrace, Trace

if TYPE_CHECKING:
    from langbatch.store.restoring import RestoredShard
    from langbatch.store.store import JobStore

#: A file this young without a batch may just have been named in a create; behind an older one without a batch
#: there may have been one that the service has forgotten. It is also how long lists certainly go back.
YOUNG_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class _SoFar:
    """What a shard's finished attempts have brought."""

    tally: Tally = field(default_factory=Tally)
    usage: Usage = field(default_factory=Usage)
    unsuccessful: Sequence[Unsuccessful] = ()
    last_attempt: int = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one list was read from. `skew`: seconds by which its clock is ahead of ours."""

    provider: Provider
    skew: float


@dataclass(slots=True)
class Standing:
    """Decides, for each shard of one job, where it stands. `endpoints` in the order of the lists; `models`
    are what uploaded files name; `hold`: why nothing of the job may be sent without a person's word."""

    store: JobStore
    home: Path
    endpoints: Sequence[Endpoint]
    clock: Clock
    trace: JobTrace
    rebuilt: Rebuilt
    destinations: Destinations
    targets: Sequence[Target]
    models: Mapping[str, str | None]
    hold: str | None = None
    notes: list[str] = field(default_factory=list)
    #: Whether files of an earlier attempt at the shard in hand are gone.
    _lost_pieces: bool = False

    def shard(self, plan: ShardPlan) -> RestoredShard:
        """One shard's state and attempts; pieces of its earlier batches are here when this returns."""
        self._lost_pieces = False
        traces = {trace.parts.number: trace for trace in self.trace.shards.get(plan.index, ())}
        here = local_numbers(self.rebuilt.folder).get(plan.index, set())
        numbers = sorted({*traces, *here})
        attempts = [
            self._attempt(plan, number, traces.get(number), newest=number == numbers[-1])
            for number in numbers
        ]
        newest = traces.get(numbers[-1]) if numbers else None
        so_far = self._results_so_far(plan, attempts)
        if newest is not None and newest.batch is not None:
            self._cancel_others(newest)
            if self.hold is not None and is_quota_bounce(newest.batch):
                return self._restored(plan, "needs_operator", attempts, so_far, {"attention": self.hold})
            return self._restored(plan, "active", attempts, so_far, {"waits_for": "batch"})
        state, why = self._without_batch(plan, newest)
        if self.hold is not None:
            state, why = "needs_operator", self.hold
        if so_far is not None:
            # A retry that was under way is looked for; what the results do not speak of is not known.
            whole = not so_far.unsuccessful
            if whole or state != "uncertain" or newest is None or newest.parts.number <= so_far.last_attempt:
                return self._done(plan, attempts, so_far)
        if state == "uncertain" and newest is not None and not self._lost_pieces:
            now = self.clock.now()
            seen_at = self._ours(newest) or now
            attempts[-1] = replace(attempts[-1], create_intent_at=seen_at, fate_unknown_at=now)
            return self._restored(plan, state, attempts, so_far, {"waits_for": "fate", "attention": why})
        if state == "uncertain":
            # The next attempt would not know what an earlier one has brought already.
            state, why = "needs_operator", "results of an earlier attempt are gone at the service"
        if state == "needs_operator" and not attempts:
            attempts = [self._placeholder(plan, 1)]
        return self._restored(plan, state, attempts, so_far, {"attention": why})

    def _restored(
        self,
        plan: ShardPlan,
        state: ShardState,
        attempts: Sequence[Attempt],
        so_far: _SoFar | None,
        facts: Mapping[str, str | None],
    ) -> RestoredShard:
        """What earlier attempts brought stands beside the state: the next one sends only the rest."""
        from langbatch.store.restoring import RestoredShard

        known = so_far or _SoFar()
        return RestoredShard(
            plan.index,
            state,
            tuple(attempts),
            facts,
            tally=known.tally,
            usage=known.usage,
            unsuccessful=known.unsuccessful,
        )

    def _without_batch(self, plan: ShardPlan, newest: Trace | None) -> tuple[ShardState, str | None]:
        now = self.clock.now()
        if newest is not None:
            seen_at = self._ours(newest)
            if seen_at is not None and now - seen_at < YOUNG_SECONDS:
                return "uncertain", "looking whether the batch was created (the database was lost)"
            return "needs_operator", "its file is at the service, a batch is not listed (any more)"
        young = now - ids.made_at(self.trace.job_id) < YOUNG_SECONDS
        if plan.index in self.rebuilt.unsent and young and self.trace.is_tagged:
            return "waiting", None
        return "needs_operator", "the service shows nothing of it (any more); it may never have been sent"

    def _attempt(self, plan: ShardPlan, number: int, trace: Trace | None, *, newest: bool) -> Attempt:
        if trace is None:
            return self._placeholder(plan, number)
        batch = trace.batch
        seen_at = self._ours(trace) or ids.made_at(self.trace.job_id)
        size = next((file.bytes for file in trace.files if file.bytes), None)
        place = self.destinations.place_of(trace, self.models.get(trace.name))
        attempt = Attempt(
            job=0,
            shard=plan.index,
            number=number,
            name=trace.name,
            requests=plan.count,
            opened_at=seen_at,
            target=place,
            account=account_label(self.targets[place], plan.model),
            tokens=estimate_tokens(size or plan.bytes),
            file_id=trace.file_id,
            file_bytes=size,
            uploaded_at=seen_at,
            file_ready_at=seen_at,
        )
        if batch is None:
            return attempt if newest else self._ended(attempt, "no_batch")
        if batch.counts is not None and batch.counts.total:
            attempt = replace(attempt, requests=batch.counts.total)  # a retry sent only some of them
        fault = batch.faults[0] if batch.faults else None
        attempt = replace(
            attempt,
            create_intent_at=self._ours(trace, batch.created_at) or seen_at,
            batch_id=batch.id,
            batch_status=batch.status,
            batch_counts=batch.counts or BatchCounts(),
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            fault_code=fault.code if fault else None,
            fault_message=fault.message if fault else None,
        )
        if newest:
            return attempt
        if is_quota_bounce(batch):
            return self._ended(attempt, "quota_bounced")
        if batch.status not in TERMINAL_BATCH_STATUSES:
            self.notes.append(f"batch {batch.id} of an earlier attempt at shard {plan.index} still runs")
            return self._ended(attempt, "resubmitted")
        self._fetch(plan, attempt, self.endpoints[trace.listing].provider)
        return self._ended(attempt, "harvested")

    def _fetch(self, plan: ShardPlan, attempt: Attempt, provider: Provider) -> None:
        """An earlier batch's rows: the join takes them from here, and only the newest batch is harvested."""
        shard = _shard_of(plan)
        view = ShardView(_job_of(self.trace.job_id, self.targets), shard, attempt)
        try:
            Harvester(self.home, self.store).fetch(view, provider)
        except RemoteNotFound:
            self.notes.append(f"files of batch {attempt.batch_id} are gone at the service")
            self._lost_pieces = True

    def _placeholder(self, plan: ShardPlan, number: int) -> Attempt:
        """An attempt of which the service shows nothing. Its number must not be used again, because files
        here bear it."""
        at = ids.made_at(self.trace.job_id)
        name = AttemptName(self.trace.store_id, self.trace.job_id, plan.index, number, "forgotten")
        attempt = Attempt(0, plan.index, number, str(name), plan.count, at)
        folder = self.rebuilt.folder
        if any(folder.piece(plan.index, number, part).exists() for part in ("output", "error")):
            # With a batch's id, however unknown, the join takes its pieces.
            return self._ended(
                replace(attempt, batch_id=UNKNOWN_BATCH, batch_status="completed"), "harvested"
            )
        return attempt

    def _done(self, plan: ShardPlan, attempts: Sequence[Attempt], so_far: _SoFar) -> RestoredShard:
        """The service shows no batch of it any more, but its results are here, whole."""
        ended = [
            attempt if attempt.ended_at is not None else self._ended(attempt, "harvested")
            for attempt in attempts or [self._placeholder(plan, so_far.last_attempt)]
        ]
        return replace(self._restored(plan, "done", ended, so_far, {}), ended_as="harvested")

    def _results_so_far(self, plan: ShardPlan, attempts: Sequence[Attempt]) -> _SoFar | None:
        """What finished attempts have brought; None where there is none. Joined anew where the joined results
        are lost with the home."""
        folder = self.rebuilt.folder
        joined = folder.joined(plan.index)
        if not joined.exists():
            harvested = [attempt for attempt in attempts if attempt.ended_as == "harvested"]
            if not harvested:
                return None
            self._join(plan, harvested)
        tally: dict[str, int] = {}
        tokens: list[Usage] = []
        failed: list[Unsuccessful] = []
        last = 1
        for ordinal, result in enumerate(read_results(joined), plan.first):
            tally[result.outcome] = tally.get(result.outcome, 0) + 1
            last = max(last, result.attempt)
            if result.usage is not None:
                tokens.append(result.usage)
            if result.error is not None:
                failed.append(
                    Unsuccessful(ordinal, result.line, result.outcome, result.error.code, result.attempt)
                )
        found, copies = Tally(**tally), copies_of(folder, plan.first, plan.count)
        if copies is not None:
            found = with_copies(found, failed, plan.first, copies)
        return _SoFar(found, _sum(tokens), failed, last)

    def _join(self, plan: ShardPlan, harvested: Sequence[Attempt]) -> None:
        """As the harvest of the last of these attempts did before everything was lost."""
        folder, snapshot = self.rebuilt.folder, self.rebuilt.snapshot
        parts: tuple[Part, ...] = ("output", "error")
        pieces = [
            AttemptPieces(
                attempt.number,
                tuple(
                    Piece(attempt.number, path, part)
                    for part in parts
                    if (path := folder.piece(plan.index, attempt.number, part)).exists()
                ),
                Verdict(
                    attempt.number,
                    *silence_of(attempt.batch_status, attempt.fault_code, attempt.fault_message),
                ),
            )
            for attempt in harvested
        ]
        private_folder(folder.joined(plan.index).parent)
        private_folder(folder.quarantine)
        with (
            publishing(folder.joined(plan.index)) as out,
            publishing(folder.quarantined(plan.index)) as quarantine,
        ):
            join_shard(
                snapshot.ids(plan.first, plan.count),
                snapshot.line_numbers(plan.first, plan.count),
                plan.first,
                pieces,
                out,
                quarantine,
            )

    def _cancel_others(self, trace: Trace) -> None:
        for other in trace.others:
            if other.status in TERMINAL_BATCH_STATUSES:
                continue
            with suppress(ProviderError):
                self.endpoints[trace.listing].provider.cancel_batch(other.id)
            self.notes.append(f"a second batch of shard {trace.parts.shard} was stopped: {other.id}")

    def _ended(self, attempt: Attempt, how: AttemptEnd) -> Attempt:
        return replace(attempt, ended_at=self.clock.now(), ended_as=how)

    def _ours(self, trace: Trace, at: float | None = None) -> float | None:
        """A time that the attempt's service gave, by our clock; without `at` that of the first sight."""
        at = trace.seen_at if at is None else at
        return None if at is None else at - self.endpoints[trace.listing].skew


def _shard_of(plan: ShardPlan) -> Shard:
    return Shard(0, plan.index, plan.first, 0, plan.count, plan.byte_start, plan.bytes, state="harvesting")


def _job_of(job_id: str, targets: Sequence[Target]) -> Job:
    target, *others = targets
    return Job(
        0,
        job_id,
        None,
        "",
        target,
        "",
        0,
        0,
        "running",
        False,
        None,
        Tally(),
        Usage(),
        0.0,
        0.0,
        None,
        tuple(others),
    )


def _sum(usages: Sequence[Usage]) -> Usage:
    def total(name: str) -> int | None:
        seen = [value for usage in usages if (value := getattr(usage, name)) is not None]
        return sum(seen) if seen else None

    return Usage(
        *(total(name) for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"))
    )

"""What must hold at the end of every seed, told from what is true at the service, not from what the core believes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from langbatch.lifecycle import MOVES, SETTLED_JOB_STATES
from langbatch.records import Attempt, Job, Shard
from langbatch.results.delivery import Delivery
from langbatch.results.result import Result
from langbatch.store.schema import events
from langbatch.store.store import JobStore
from simulation.batches import NEVER, Reading, StoredBatch
from simulation.world import World

#: Which knobs may bring a shard to an operator by each move; without one of them the truth was to be found.
EXCUSES = {
    "batch_lost": {"batch_lost", "batch_hidden", "batch_strange", "poll_404"},
    "results_withheld": {"batch_counts_null", "batch_output_late", "batch_output_gone", "download_404"},
    "unsettled": {
        "list_trouble",
        "list_throttled",
        "list_partial",
        "list_repeats",
        "list_no_has_more",
        "delete_refused",
    },
    "parked": {
        "crash_here",
        "crash_elsewhere",
        "freeze",
        "upload_drop",
        "upload_committed_drop",
        "upload_late",
        "file_never_ready",
        "file_error",
        "file_wrong_bytes",
        "file_renamed",
        "create_no_file",
        "create_drop",
        "create_late",
        "create_late_unchecked",
    },
}


@dataclass(slots=True)
class Verdict:
    """The four zeros, liveness, and everything else that was found wrong, in words."""

    paid_twice: list[str] = field(default_factory=list)
    ids_lost: list[str] = field(default_factory=list)
    rows_lost: list[str] = field(default_factory=list)
    rows_doubled: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    orphan_files: int = 0
    moves: list[tuple[float, int, int, str]] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return [
            *(f"paid twice: {text}" for text in self.paid_twice),
            *(f"id lost: {text}" for text in self.ids_lost),
            *(f"row lost: {text}" for text in self.rows_lost),
            *(f"row doubled: {text}" for text in self.rows_doubled),
            *(f"never ended: {text}" for text in self.unended),
            *self.others,
        ]


def judge(world: World, *, ended: bool = True) -> Verdict:
    """Every promise, checked. `ended` False: in the middle of a play, where only some can be."""
    verdict = Verdict()
    store = JobStore(world.connections, clock=world.clock, owner="judge")
    history = _history(world)
    for job in store.jobs():
        shards = store.shards(job.key)
        for shard, _ in shards:
            _check_moves(verdict, shard, history[job.key, shard.index])
            attempts = store.attempts(job.key, shard.index)
            truth = _Truth(world, shard, attempts, history[job.key, shard.index])
            truth.check_payments(verdict)
            if ended:
                truth.check_ids(verdict)
        if ended and job.state not in SETTLED_JOB_STATES:
            verdict.unended.append(f"{job.id} is {job.state}, {job.attention}")
        _check_results(verdict, world, job, [shard for shard, _ in shards], store, history)
    if ended:
        tried = [
            attempt
            for job in store.jobs()
            for shard, _ in store.shards(job.key)
            for attempt in store.attempts(job.key, shard.index)
        ]
        known = {attempt.batch_id for attempt in tried}
        resubmitted = {attempt.name for attempt in tried if attempt.ended_as == "resubmitted"}
        noted = {
            str(event.note).split()[0]
            for rows in history.values()
            for event in rows
            if event.move == "extra_batch"
        }
        for batch in world.batches:
            # Who saw it died over it, and then the service denied it for ever: to the person who had more paid
            # for after that, it was one never made.
            forever = batch.hidden[1] == NEVER and batch.denied(world.clock.now())
            if batch.id not in known | noted and not (forever and batch.file.name in resubmitted):
                verdict.ids_lost.append(f"{batch.id} on {batch.file.name}")
        verdict.orphan_files = _orphans(world, store)
    verdict.moves = [
        (e.at, e.job, e.shard, e.move) for rows in history.values() for e in rows if e.move in MOVES
    ]
    return verdict


History = dict[tuple[int, int], list[sa.Row[Any]]]


def _history(world: World) -> History:
    found: History = defaultdict(list)
    query = sa.select(events).where(events.c.shard.is_not(None)).order_by(events.c.n)
    with world.connections.reading() as connection:
        for row in connection.execute(query):
            found[row.job, row.shard].append(row)
    return found


def _orphans(world: World, store: JobStore) -> int:
    """Input files left at the service that no attempt with a batch reads: they cost nothing, `gc` removes them."""
    read = {batch.file.id for batch in world.batches}
    return sum(
        file.name.startswith("lb-") and file.id not in read and file.deleted_at > world.clock.now()
        for file in world.files
    )


def _check_moves(verdict: Verdict, shard: Shard, history: Iterable[sa.Row[Any]]) -> None:
    at = "waiting"
    for event in history:
        rule = MOVES.get(event.move)
        if rule is None:
            continue
        if event.origin != at or event.origin not in rule.origins or event.to != rule.to:
            verdict.others.append(
                f"shard {shard.index}: illegal {event.move} {event.origin}->{event.to} at {at}"
            )
        at = event.to
    if at != shard.state:
        verdict.others.append(f"shard {shard.index} is {shard.state}, its events say {at}")


class _Truth:
    """One shard's batches at the service, by the generation in which they were paid.

    A generation ends where a person decides that more may be paid: by a retry, or by `--resubmit`.
    """

    def __init__(
        self, world: World, shard: Shard, attempts: list[Attempt], history: list[sa.Row[Any]]
    ) -> None:
        self.world = world
        self.shard = shard
        self.attempts = attempts
        self.history = history
        self.retried_after = [e.attempt for e in history if e.move == "retry_requested"]
        self.resubmitted_after = [e.attempt for e in history if e.move == "operator_resubmits"]
        names = {attempt.name: attempt for attempt in attempts}
        self.batches: list[tuple[Attempt, StoredBatch]] = sorted(
            ((names[batch.file.name], batch) for batch in world.batches if batch.file.name in names),
            key=lambda pair: (pair[0].number, pair[1].id),
        )

    def generation(self, number: int) -> int:
        return sum(after < number for after in (*self.retried_after, *self.resubmitted_after))

    def check_payments(self, verdict: Verdict) -> None:
        now = self.world.clock.now()
        paid: dict[tuple[int, str], str] = {}
        for attempt, batch in self.batches:
            generation = self.generation(attempt.number)
            for row in batch.executed(now):
                before = paid.setdefault((generation, row.custom_id), batch.id)
                if before != batch.id:
                    verdict.paid_twice.append(f"{row.custom_id} in {before} and {batch.id}")

    def check_ids(self, verdict: Verdict) -> None:
        """A success that was there to be read is not asked for again by a retry."""
        succeeded: set[str] = set()
        for attempt, batch in self.batches:
            if attempt.ended_as == "harvested":
                asked = {row.custom_id for row in batch.rows}
                for custom_id in sorted(asked & succeeded):
                    verdict.paid_twice.append(f"{custom_id} had succeeded and was sent again in {batch.id}")
                succeeded |= {
                    i for i, reading in batch.readings.items() if reading and reading[0] == "succeeded"
                }

    def expected(self, custom_id: str) -> tuple[set[Reading], str | None]:
        """What the harvested batches say of a request: the readings that may stand, and the success that must."""
        latest: Reading = None
        refused: set[Reading] = set()
        made = {attempt.number: batch for attempt, batch in self.batches}
        for attempt in self.attempts:
            batch = made.get(attempt.number)
            reading: Reading = None
            if attempt.ended_as == "refused":
                # The service refused the whole of it before there was a batch.
                # It says something, but is no row: a later attempt's silence may cover it.
                refused.add(("errored", attempt.fault_code or ""))
            elif attempt.ended_as == "harvested" and batch is not None:
                reading = batch.readings.get(custom_id)
                if reading is not None and reading[0] == "succeeded":
                    return {reading}, reading[1]
                if batch.end == "refused" and batch.cancelled_at is None and custom_id in _asked(batch):
                    reading = ("errored", "model_not_found")
            if reading is not None:
                latest = reading
        return {latest} | refused, None

    def given_up(self, custom_id: str) -> set[str]:
        """The answers in batches that a person gave up for others. What had been fetched of them by then is a
        success like any other, and is not overwritten by a later one."""
        readings = [
            batch.readings.get(custom_id)
            for attempt, batch in self.batches
            if attempt.ended_as == "resubmitted"
        ]
        return {reading[1] for reading in readings if reading is not None and reading[0] == "succeeded"}


def _asked(batch: StoredBatch) -> set[str]:
    return {row.custom_id for row in batch.rows}


def _check_results(
    verdict: Verdict, world: World, job: Job, shards: list[Shard], store: JobStore, history: History
) -> None:
    finished = [shard for shard in shards if shard.state == "done"]
    if job.tally.total > job.total:
        verdict.others.append(f"{job.id}: outcomes add up to {job.tally.total} of {job.total}")
    if job.state in SETTLED_JOB_STATES and job.tally.total != job.total:
        verdict.others.append(f"{job.id}: ended with {job.tally.total} of {job.total} outcomes")
    if not finished:
        return
    results = list(Delivery(world.home, job, finished).results(with_request=False))
    # Requests repeat in turn: the first of each is sent, the others are its copies.
    sent = sum(shard.requests for shard in shards)
    numbers_of = {
        shard.index: [n for n in range(job.total) if 0 <= n % sent - shard.first < shard.requests]
        for shard in finished
    }
    wanted = [f"r{number}" for number in sorted(n for numbers in numbers_of.values() for n in numbers)]
    got = [result.custom_id for result in results]
    if got != wanted:
        for custom_id in sorted(set(got)):
            if got.count(custom_id) > 1:
                verdict.rows_doubled.append(f"{custom_id} has {got.count(custom_id)} results")
        if set(got) != set(wanted):
            verdict.rows_lost.append(
                f"{sorted(set(wanted) ^ set(got))} have no result, or were not asked for"
            )
        verdict.others.append(f"results are not in the input's order: {got}")
        return
    by_id = {result.custom_id: result for result in results}
    for shard in finished:
        truth = _Truth(world, shard, store.attempts(job.key, shard.index), history[job.key, shard.index])
        outcomes = []
        for number in numbers_of[shard.index]:
            result = by_id[f"r{number}"]
            outcomes.append(result.outcome)
            _check_result(verdict, truth, f"r{number % sent}", result)
        for outcome in set(outcomes):
            if outcomes.count(outcome) != getattr(shard.tally, outcome):
                verdict.others.append(f"shard {shard.index} counts {shard.tally}, results say {outcomes}")


def _check_result(verdict: Verdict, truth: _Truth, asked_as: str, result: Result) -> None:
    allowed, serial = truth.expected(asked_as)
    body = (result.response or {}).get("body", {})
    if result.outcome == "succeeded" and body.get("id") in truth.given_up(asked_as):
        return
    if serial is not None:
        if result.outcome != "succeeded" or body.get("id") != serial:
            verdict.rows_lost.append(
                f"{result.custom_id}: {serial} succeeded, the result is {result.outcome} {body}"
            )
        return
    silent = None in allowed and result.outcome in ("missing", "cancelled", "errored")
    said = (result.outcome, result.error.code if result.error else "")
    if not silent and said not in allowed:
        verdict.rows_lost.append(f"{result.custom_id}: the service said {allowed}, the result is {said}")


def unexcused_stops(world: World, verdict: Verdict) -> list[str]:
    """Stops for an operator that nothing which went wrong in this seed explains."""
    fired = {knob for knob, count in world.plan.fired.items() if count}
    if "commit_fails" in fired or world.stage.turns == 0:
        fired |= {"crash_here"}
    return [
        f"shard {shard} needed an operator ({move}) although nothing hid the truth"
        for _, _, shard, move in verdict.moves
        if move in EXCUSES and not fired & EXCUSES[move]
    ]

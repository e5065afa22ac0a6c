"""A job as people and programs read it: `status --json`, with the same names as attributes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from langbatch.lifecycle import SETTLED_JOB_STATES, BatchWord, ShardSummary, batch_word
from langbatch.records import (
    OUTCOMES,
    UNKNOWN_BATCH,
    Account,
    Attempt,
    Job,
    JobState,
    Shard,
    Tally,
    Target,
    Usage,
)

if TYPE_CHECKING:
    from langbatch.money.costs import Commitment


class _Document:
    """Fields are attributes and items alike, as in the JSON."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def keys(self) -> list[str]:
        return [field.name for field in fields(self)]  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


@dataclass(frozen=True, slots=True)
class Counts(_Document):
    """Requests by outcome; `pending` have none yet. They add up to the job's total."""

    succeeded: int
    errored: int
    expired: int
    cancelled: int
    missing: int
    unreadable: int
    pending: int


@dataclass(frozen=True, slots=True)
class UsageSums(_Document):
    """Tokens summed over harvested rows; None while no row reported any."""

    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None


@dataclass(frozen=True, slots=True)
class RemoteCounts(_Document):
    """The provider's own `request_counts`."""

    total: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class ShardStatus(_Document):
    index: int
    first_line: int
    requests: int
    state: str
    attempt: int
    target: str
    attention: str | None
    input_file_id: str | None
    batch_id: str | None
    batch_status: str | None
    batch_counts: RemoteCounts


@dataclass(frozen=True, slots=True)
class QuotaStatus(_Document):
    """The token quota of one of the job's targets. `limit_tokens` and `headroom_tokens` are None where the
    limit is not known; `enqueued_tokens` are those of this store's batches there, estimated."""

    target: str
    limit_tokens: int | None
    enqueued_tokens: int
    headroom_tokens: int | None
    held_until: str | None


@dataclass(frozen=True, slots=True)
class CostStatus(_Document):
    """What the harvested rows cost by the price list, batch discount included. `as_of`: the list's date."""

    amount: str
    currency: str
    as_of: str | None


@dataclass(frozen=True, slots=True)
class BudgetStatus(_Document):
    """The job's limits; None: no such limit. What is committed is used, or reserved for what was sent; None
    where that is not known. Costs are amounts of `currency`."""

    max_tokens: int | None
    committed_tokens: int | None
    max_cost: str | None
    committed_cost: str | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class ReuseStatus(_Document):
    """Of a job's requests, how many are sent, are copies of these, or had an answer from earlier jobs."""

    sent: int
    copies: int
    answered: int


@dataclass(frozen=True, slots=True)
class JobStatus(_Document):
    """A snapshot of one job. `state` is the job's own word, `status` the nearest of OpenAI's eight."""

    id: str
    name: str | None
    state: JobState
    status: BatchWord
    provider: str
    target: str
    input: str
    total: int
    rejected: int
    counts: Counts
    usage: UsageSums
    attention: str | None
    cancel_requested: bool
    created_at: str
    finished_at: str | None
    shards: tuple[ShardStatus, ...]
    #: As far as something is known; empty in lists of jobs.
    quotas: tuple[QuotaStatus, ...] = ()
    #: When the next shard is due; None where nothing is left that langbatch could do by itself.
    next_look_at: str | None = None
    #: None where it is not known.
    cost: CostStatus | None = None
    #: None without one.
    budget: BudgetStatus | None = None
    #: None where every request is sent.
    reuse: ReuseStatus | None = None

    @property
    def finished(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")

    @property
    def done(self) -> int:
        """Requests with a result, and those that the service says it is through with."""
        running = sum(
            shard.batch_counts.completed + shard.batch_counts.failed
            for shard in self.shards
            if shard.state in ("active", "harvesting")
        )
        return min(self.total - self.counts.pending + running, self.total)

    @property
    def all_succeeded(self) -> bool:
        return self.finished and self.counts.succeeded == self.total

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, ready for `json.dumps`."""
        return asdict(self)


def iso(at: float | None) -> str | None:
    """UTC to the second, as in `2026-11-21T01:02:03Z`."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def quota_status(account: Account, enqueued_tokens: int, now: float) -> QuotaStatus:
    """One quota, for people and programs."""
    limit = account.limit_tokens
    return QuotaStatus(
        account.label,
        limit,
        enqueued_tokens,
        None if limit is None else max(0, limit - enqueued_tokens),
        iso(account.hold_until) if account.hold_until > now else None,
    )


def budget_status(job: Job, committed: Commitment) -> BudgetStatus:
    """The budget of a job that has one."""
    from langbatch.money.costs import exact_text, of_nanos

    limited = job.max_cost_nanos is not None
    return BudgetStatus(
        job.max_tokens,
        committed.tokens,
        None if job.max_cost_nanos is None else exact_text(of_nanos(job.max_cost_nanos)),
        exact_text(committed.cost) if limited and committed.cost is not None else None,
        job.currency,
    )


def draft_status(job_id: str, target: Target, total: int, rejected: int, now: float) -> JobStatus:
    """The snapshot of a job that was validated but never stored."""
    draft = Job(
        key=0,
        id=job_id,
        name=None,
        input_name="",
        target=target,
        input_sha256="",
        total=total,
        rejected=rejected,
        state="draft",
        cancel_requested=False,
        attention=None,
        tally=Tally(),
        usage=Usage(),
        created_at=now,
        updated_at=now,
        finished_at=None,
    )
    return job_status(draft, [])


def job_status(
    job: Job,
    shards: Sequence[tuple[Shard, Attempt | None]],
    quotas: Sequence[QuotaStatus] = (),
    cost: CostStatus | None = None,
    budget: BudgetStatus | None = None,
) -> JobStatus:
    """The snapshot of a job as stored."""
    summaries = [
        ShardSummary(s.state, s.blocker, s.ended_as, a.batch_status if a else None) for s, a in shards
    ]
    return JobStatus(
        id=job.id,
        name=job.name,
        state=job.state,
        status=batch_word(job.state, job.cancel_requested, summaries),
        provider=job.target.provider,
        target=job.target.label,
        input=job.input_name,
        total=job.total,
        rejected=job.rejected,
        counts=Counts(
            **{name: getattr(job.tally, name) for name in OUTCOMES}, pending=job.total - job.tally.total
        ),
        usage=UsageSums(
            job.usage.input_tokens,
            job.usage.output_tokens,
            job.usage.cached_tokens,
            job.usage.reasoning_tokens,
        ),
        attention=_attention(job, shards),
        cancel_requested=job.cancel_requested,
        created_at=iso(job.created_at) or "",
        finished_at=iso(job.finished_at),
        shards=tuple(_shard_status(job, shard, attempt) for shard, attempt in shards),
        quotas=tuple(quotas),
        next_look_at=iso(_next_look(job, shards)),
        cost=cost,
        budget=budget,
        reuse=_reuse(job, shards),
    )


def _reuse(job: Job, shards: Sequence[tuple[Shard, Attempt | None]]) -> ReuseStatus | None:
    if job.state == "draft":
        return None  # without shards yet
    sent = sum(shard.requests for shard, _ in shards)
    found = ReuseStatus(sent, job.total - job.answered - sent, job.answered)
    return found if found.copies or found.answered else None


def _next_look(job: Job, shards: Sequence[tuple[Shard, Attempt | None]]) -> float | None:
    if job.state in SETTLED_JOB_STATES or job.state == "draft":
        return None
    due = [max(s.due_at, s.not_before) for s, _ in shards if s.state not in ("done", "needs_operator")]
    # Zero says "at once", which is no time of day.
    return max(min(due), job.updated_at) if due else None


def _shard_status(job: Job, shard: Shard, attempt: Attempt | None) -> ShardStatus:
    counts = attempt.batch_counts if attempt else None
    return ShardStatus(
        index=shard.index,
        first_line=shard.first_line,
        requests=shard.requests,
        state=shard.state,
        attempt=shard.attempt,
        target=job.targets[attempt.target if attempt else 0].label,
        attention=shard.attention,
        input_file_id=attempt.file_id if attempt else None,
        batch_id=attempt.batch_id if attempt else None,
        batch_status=attempt.batch_status if attempt else None,
        batch_counts=RemoteCounts(counts.total, counts.completed, counts.failed)
        if counts
        else RemoteCounts(0, 0, 0),
    )


def _attention(job: Job, shards: Sequence[tuple[Shard, Attempt | None]]) -> str | None:
    stuck = [(s, a) for s, a in shards if s.state == "needs_operator"]
    if not stuck:
        return job.attention
    shard, attempt = stuck[0]
    which = f" --shard {shard.index}" if len(shards) > 1 else ""
    adopt = f"`langbatch reconcile {job.id}{which} --adopt "
    resubmit = f"`langbatch reconcile {job.id}{which} --resubmit`"
    again = "ends it, since the job is cancelled" if job.cancel_requested else "sends it again"
    if attempt is not None and attempt.batch_id not in (None, UNKNOWN_BATCH):
        ways = f"{adopt}{attempt.batch_id}` goes on with its batch; {resubmit} gives that up and {again}"
        ways += "" if job.cancel_requested else ", to be paid again"
    else:
        ways = f"If you find its batch at the provider: {adopt}BATCH_ID`; "
        ways += f"if there is certainly none: {resubmit} {again}"
    more = f" (and {len(stuck) - 1} more like it)" if len(stuck) > 1 else ""
    return f"shard {shard.index} needs you: {(shard.attention or '').rstrip('.')}. {ways}{more}"

"""What happens inside a writing transaction: moves, facts, events, and the job's own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from langbatch import processes
from langbatch.errors import BatchStateError
from langbatch.lifecycle import SETTLED_JOB_STATES, Move, ShardSummary, destination, job_state
from langbatch.records import OUTCOMES, Tally, Usage
from langbatch.store.schema import attempts, events, jobs, shards

USAGE = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


class LostClaim(BatchStateError):
    """Another process took the shard over (this one was frozen or too slow). Nothing was written."""

    code = "lost_claim"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to act on a shard until the lease runs out. Writes carry `fence`."""

    job: int
    index: int
    fence: int


def is_held(row: sa.Row[Any], now: float, lease_seconds: float) -> bool:
    """Whether a live process holds the row, as far as can be seen."""
    # A lease reaching further than any lease can was written under a clock since set back.
    held = row.lease_owner is not None and now < row.lease_until <= now + 2 * lease_seconds
    return held and not processes.is_gone(row.lease_owner)


@dataclass(frozen=True, slots=True)
class Writing:
    """One writing transaction at one moment."""

    connection: Connection
    now: float

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[Any]:
        return cast("sa.CursorResult[Any]", self.connection.execute(statement, parameters))

    def require(self, claim: Claim) -> sa.Row[Any]:
        held_shard = {"job": claim.job, "index": claim.index, "fence": claim.fence}
        row = self.execute(_HELD_SHARD, held_shard).one_or_none()
        if row is None:
            raise LostClaim(
                "another process took this shard over",
                hint="Nothing is wrong: it goes on there. `langbatch status` shows it.",
            )
        return row

    def move(
        self,
        claim: Claim,
        origin: str,
        move: Move,
        shard: Mapping[str, Any],
        attempt: Mapping[str, Any],
        note: str | None,
        *,
        number: int | None = None,
    ) -> sa.Row[Any]:
        row = self.require(claim)
        to = destination(cast(Any, origin), move)
        if row.state != origin:
            raise LostClaim(f"the shard is {row.state}, not {origin} any more")
        self.patch(claim, number or row.attempt, {**shard, "state": to}, attempt, state=origin)
        self.log(claim.job, claim.index, number or row.attempt, move, origin, to, note)
        self.refresh_job(claim.job)
        return row

    def set_on_held(self, claim: Claim, facts: Mapping[str, Any], *, state: str | None = None) -> bool:
        """Set columns of the claimed shard; False where it is not ours any more, or not in `state`."""
        where = {"its_job": claim.job, "its_index": claim.index, "its_fence": claim.fence}
        update = update_of_shard(tuple(facts), of_state=state is not None)
        return self.execute(update, {**facts, **where, "its_state": state}).rowcount == 1

    def patch(
        self,
        claim: Claim,
        number: int,
        shard: Mapping[str, Any],
        attempt: Mapping[str, Any],
        *,
        state: str | None = None,
    ) -> None:
        if shard and not self.set_on_held(claim, shard, state=state):
            raise LostClaim("another process changed this shard")
        if attempt:
            where = {"its_job": claim.job, "its_shard": claim.index, "its_number": number}
            self.execute(_update_of_attempt(tuple(attempt)), {**attempt, **where})

    def log(
        self,
        job: int,
        shard: int | None,
        attempt: int | None,
        move: str,
        origin: str | None,
        to: str | None,
        note: str | None,
    ) -> None:
        values = {"at": self.now, "job": job, "shard": shard, "attempt": attempt}
        self.execute(_LOG, {**values, "move": move, "origin": origin, "to": to, "note": note})

    def refresh_job(self, job: int) -> None:
        """A job's row says what its shards say, in the transaction that changed one of them."""
        now = self.now
        seen = self.execute(_STATES, {"job": job}).all()
        state = job_state(ShardSummary(r.state, r.blocker, r.ended_as, r.batch_status) for r in seen)
        before, answered, *sums = tuple(self.execute(_SUMS, {"job": job}).one())
        known = dict(zip(_SUMMED, sums, strict=True))
        if not seen:
            # A draft is never refreshed. What has no shards all the same has nothing to send.
            state, known = "completed", known | dict.fromkeys(OUTCOMES, 0)
        known["succeeded"] += answered
        waiting = [r.attention for r in seen if r.attention and r.state != "done"]
        settled = state in SETTLED_JOB_STATES
        values = {"its_key": job, "state": state, "updated_at": now, "reasons": attention_of(waiting)}
        self.execute(_REFRESH_SETTLED if settled else _REFRESH, {**values, **known})
        if before != state:
            self.log(job, None, None, "job_moved", before, state, facts_note(known) if settled else None)


def attention_of(reasons: Sequence[str]) -> str | None:
    if not reasons:
        return None
    more = len(set(reasons)) - 1
    return reasons[0] if more < 1 else f"{reasons[0]} (and {more} more)"


def facts_note(facts: Mapping[str, int | None], said: str | None = None) -> str:
    """A note with numbers that an event's reader finds again (`langbatch.events`): all that are known, but
    for outcomes that no request had."""
    told = (
        f"{name}={number}"
        for name, number in facts.items()
        if number or (number is not None and name not in OUTCOMES)
    )
    return " ".join(([said] if said else []) + list(told))


def summary(tally: Tally, usage: Usage) -> dict[str, Any]:
    return {name: getattr(tally, name) for name in OUTCOMES} | {name: getattr(usage, name) for name in USAGE}


def with_newest_attempt() -> sa.Join:
    return shards.outerjoin(
        attempts,
        sa.and_(
            attempts.c.job == shards.c.job,
            attempts.c.shard == shards.c.index,
            attempts.c.number == shards.c.attempt,
        ),
    )


# Put together once: for statements of many columns that costs more than running them.
_HELD_SHARD = sa.select(shards).where(
    shards.c.job == sa.bindparam("job"),
    shards.c.index == sa.bindparam("index"),
    shards.c.fence == sa.bindparam("fence"),
)
_STATES = (
    sa.select(
        shards.c.state,
        shards.c.blocker,
        shards.c.ended_as,
        shards.c.attention,
        attempts.c.batch_status,
    )
    .select_from(with_newest_attempt())
    .where(shards.c.job == sa.bindparam("job"))
    .order_by(shards.c.index)
)
_LOG = events.insert()


@lru_cache(maxsize=200)
def update_of_shard(columns: tuple[str, ...], *, of_state: bool = False) -> sa.Update:
    """Sets these columns of the shard `its_job`, `its_index` under the fence `its_fence`."""
    update = shards.update().where(
        shards.c.job == sa.bindparam("its_job"),
        shards.c.index == sa.bindparam("its_index"),
        shards.c.fence == sa.bindparam("its_fence"),
    )
    if of_state:
        update = update.where(shards.c.state == sa.bindparam("its_state"))
    return update.values({name: sa.bindparam(name) for name in columns})


@lru_cache(maxsize=200)
def _update_of_attempt(columns: tuple[str, ...]) -> sa.Update:
    update = attempts.update().where(
        attempts.c.job == sa.bindparam("its_job"),
        attempts.c.shard == sa.bindparam("its_shard"),
        attempts.c.number == sa.bindparam("its_number"),
    )
    return update.values({name: sa.bindparam(name) for name in columns})


def _refresh(*, settled: bool) -> sa.Update:
    finished = sa.func.coalesce(jobs.c.finished_at, sa.bindparam("updated_at")) if settled else sa.null()
    return (
        jobs.update()
        .where(jobs.c.key == sa.bindparam("its_key"))
        .values(
            state=sa.bindparam("state"),
            attention=sa.func.coalesce(sa.bindparam("reasons"), jobs.c.remark),
            updated_at=sa.bindparam("updated_at"),
            finished_at=finished,
            **{name: sa.bindparam(name) for name in (*OUTCOMES, *USAGE)},
        )
    )


_REFRESH, _REFRESH_SETTLED = _refresh(settled=False), _refresh(settled=True)
_SUMMED = (*OUTCOMES, *USAGE)
#: What the job's row says comes with them: a query of its own would be one more in every transaction.
_SUMS = sa.select(
    *(
        sa.select(column).where(jobs.c.key == sa.bindparam("job")).scalar_subquery()
        for column in (jobs.c.state, jobs.c.answered)
    ),
    *(sa.func.sum(shards.c[name]) for name in _SUMMED),
).where(shards.c.job == sa.bindparam("job"))

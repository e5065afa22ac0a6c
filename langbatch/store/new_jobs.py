"""A job's first rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from langbatch.records import OUTCOMES, JobState, Target
from langbatch.shards.sharding import ShardPlan
from langbatch.store import rows
from langbatch.store.schema import jobs, shards
from langbatch.store.transitions import Writing, facts_note


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is stored when a job is submitted."""

    id: str
    name: str | None
    input_name: str
    target: Target
    input_sha256: str
    snapshot_sha256: str
    reuse_key: str
    total: int
    rejected: int
    shards: Sequence[ShardPlan]
    first_lines: Sequence[int]
    others: tuple[Target, ...] = ()
    #: The budget, as in `Job`.
    max_tokens: int | None = None
    max_cost_nanos: int | None = None
    currency: str | None = None
    #: Of `total`, those that earlier jobs had answered.
    answered: int = 0
    #: A draft is stored without shards, and gets them when it is started.
    draft: bool = False

    @property
    def state(self) -> JobState:
        if self.shards:
            return "running"
        return "completed" if self.answered == self.total and not self.draft else "draft"


def insert_job(tx: Writing, new: NewJob) -> int:
    """Store a job with its shards; its key."""
    now = tx.now
    result = tx.execute(
        jobs.insert().values(
            id=new.id,
            name=new.name,
            input_name=new.input_name,
            provider=new.target.provider,
            kind=new.target.kind,
            host=new.target.host,
            model=new.target.model,
            settings=json.dumps(dict(new.target.settings), sort_keys=True),
            others=rows.targets_text(new.others),
            input_sha256=new.input_sha256,
            snapshot_sha256=new.snapshot_sha256,
            reuse_key=new.reuse_key,
            total=new.total,
            rejected=new.rejected,
            answered=new.answered,
            max_tokens=new.max_tokens,
            max_cost_nanos=new.max_cost_nanos,
            currency=new.currency,
            state=new.state,
            cancel_requested=False,
            created_at=now,
            updated_at=now,
            finished_at=now if new.state == "completed" else None,
            **{**dict.fromkeys(OUTCOMES, 0), "succeeded": new.answered},
        )
    )
    key = int(result.inserted_primary_key[0])  # type: ignore[index]
    insert_shards(tx, key, new.shards, new.first_lines)
    tx.log(key, None, None, "submitted", None, None, f"{new.total} requests")
    if new.state == "completed":
        # Followers of the log are told of its end as of any other's.
        tx.log(key, None, None, "job_moved", "draft", new.state, facts_note({"succeeded": new.answered}))
    return key


def insert_shards(tx: Writing, job: int, plans: Sequence[ShardPlan], first_lines: Sequence[int]) -> None:
    """Store a job's shards, each with the input's line that it begins with."""
    if not plans:
        return
    fresh: dict[str, float] = dict.fromkeys(
        (*OUTCOMES, "attempt", "troubles", "crashes", "in_vain", "fence"), 0
    )
    fresh |= dict.fromkeys(("due_at", "not_before", "lease_until"), 0.0)
    tx.execute(
        shards.insert(),
        [
            {
                "job": job,
                "index": plan.index,
                "first": plan.first,
                "first_line": line,
                "requests": plan.count,
                "byte_start": plan.byte_start,
                "bytes": plan.bytes,
                "model": plan.model,
                "state": "waiting",
                **rows.from_bounds(plan.bounds),
                **fresh,
            }
            for plan, line in zip(plans, first_lines, strict=True)
        ],
    )

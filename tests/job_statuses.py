"""Statuses as `JobManager.status` gives them, without a store: for what is only drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langbatch import JobStatus, ShardStatus
from langbatch.status import Counts, QuotaStatus, RemoteCounts, UsageSums

NOON = 1_763_726_400.0  # 2025-11-21T12:00:00Z


def a_shard(index: int = 0, state: str = "active", done: int = 40, **changes: Any) -> ShardStatus:
    shard = ShardStatus(
        index=index,
        first_line=1 + 100 * index,
        requests=100,
        state=state,
        attempt=1,
        target="azure/x.openai.azure.com/gpt",
        attention=None,
        input_file_id="file-1",
        batch_id="batch_0a1b2c3d-0000-1111-2222-333344445555" if state in ("active", "done") else None,
        batch_status={"active": "in_progress", "done": "completed"}.get(state),
        batch_counts=RemoteCounts(100, done, 0) if state == "active" else RemoteCounts(0, 0, 0),
    )
    return replace(shard, **changes)


def a_job(*shards: ShardStatus, number: int = 0, **changes: Any) -> JobStatus:
    shards = shards or (a_shard(),)
    total, done = sum(s.requests for s in shards), sum(s.requests for s in shards if s.state == "done")
    job = JobStatus(
        id=f"job_{number:026}",
        name=None,
        state="running",
        status="in_progress",
        provider="azure",
        target="azure/x.openai.azure.com/gpt",
        input="requests.jsonl",
        total=total,
        rejected=0,
        counts=Counts(done, 0, 0, 0, 0, 0, total - done),
        usage=UsageSums(None, None, None, None),
        attention=None,
        cancel_requested=False,
        created_at="2025-11-21T11:00:00Z",
        finished_at=None,
        shards=tuple(shards),
        quotas=(QuotaStatus("azure/x.openai.azure.com/gpt", 30_000, 20_000, 10_000, None),),
        next_look_at="2025-11-21T12:00:42Z",
    )
    return replace(job, **changes)

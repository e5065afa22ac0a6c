"""While a batch runs: poll it, cancel it, and notice when the service has lost it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langbatch.errors import Refused, RemoteNotFound
from langbatch.providers.base import Provider
from langbatch.records import RemoteBatch
from langbatch.running import decisions as d
from langbatch.running import placing
from langbatch.running.reconcile import search_batches
from langbatch.running.step import CLEAR, Step, batch_facts


def poll(step: Step, provider: Provider) -> None:
    """Look at the batch once and record what it says."""
    attempt = step.attempt
    assert attempt.batch_id is not None
    try:
        batch = provider.get_batch(attempt.batch_id)
    except RemoteNotFound:
        _check_lost(step, provider, attempt.batch_id)
        return
    observe(step, batch)


def observe(step: Step, batch: RemoteBatch) -> None:
    """Record what the service shows of the shard's batch, in a reply of its own or in a list."""
    attempt, now = step.attempt, step.clock.now()
    age = now - (attempt.create_intent_at or now)
    match d.judge_batch(batch, age):
        case "ended" if attempt.fenced_at is not None and d.ran_nothing(batch):
            # It was listed too late: its input file was deleted while the service had not read it yet.
            ended = {**batch_facts(batch), "polled_at": now, **step.ended("no_batch")}
            step.move("stopped_by_fence", shard=CLEAR, attempt=ended, note=batch.id)
        case "ended":
            facts = {**batch_facts(batch), "polled_at": now}
            step.move("batch_ended", shard=CLEAR, attempt=facts, note=batch.status)
        case "quota_bounced":
            # The wait grows with the attempts, since each of them has cleared the shard's troubles.
            wait = d.backoff_seconds(step.shard.attempt, step.policy.poll_seconds, step.roll())
            held = placing.learn_of_bounce(step, batch.faults[0].message)
            text = "waiting for token quota"
            shard = {**CLEAR, "due_at": held or now + wait, "attention": text, "waits_for": "quota"}
            ended = {**batch_facts(batch), "polled_at": now, **step.ended("quota_bounced")}
            step.move("quota_bounced", shard=shard, attempt=ended, note=batch.id)
            step = step.again()
            if placing.asks_too_much(step):
                placing.halve(step)
        case "strange":
            step.ask_operator(
                "batch_lost", f"the batch has had the unknown status {batch.status!r} for two days"
            )
        case "running":
            news = running_news(batch, attempt.batch_status, age, step.policy, step.roll(), now)
            step.record(shard=news.shard, attempt=news.attempt, event=news.event, note=batch.status)


@dataclass(frozen=True, slots=True)
class News:
    """What to record of an active shard whose state stays as it is; see `JobStore.record`."""

    shard: dict[str, Any]
    attempt: dict[str, Any]
    event: str | None


def running_news(
    batch: RemoteBatch, status_before: str | None, age: float, policy: d.Policy, roll: float, now: float
) -> News:
    """Of a batch that runs, `age` seconds old: its counts, and when to look again."""
    strange = batch.status not in d.KNOWN_BATCH_STATUSES
    shard = {
        **CLEAR,
        "due_at": now + d.poll_wait_seconds(age, policy.poll_seconds, roll),
        "attention": f"the service reports the unknown status {batch.status!r}" if strange else None,
        "waits_for": "batch",
    }
    event = "status" if batch.status != status_before else None
    return News(shard, {**batch_facts(batch), "polled_at": now}, event)


def _check_lost(step: Step, provider: Provider, batch_id: str) -> None:
    """404 for a batch we know: believed only after several looks and a complete list without it."""
    now = step.clock.now()
    since = step.attempt.create_intent_at or now
    search = search_batches(provider.list_batches, lambda batch: batch.id == batch_id, since, now)
    if not search.found and search.complete and step.shard.troubles >= d.HARVEST_TRIES:
        step.ask_operator("batch_lost", f"the service no longer knows the batch {batch_id}")
    else:
        step.set_back(d.Setback(f"the service answers 404 for the batch {batch_id}"))


def cancel(step: Step, provider: Provider) -> None:
    """Ask the service to stop the batch. Cancelling twice is harmless, so an unknown fate is tried again."""
    attempt = step.attempt
    assert attempt.batch_id is not None
    now = step.clock.now()
    facts: dict[str, Any] = {"cancel_sent_at": now}
    try:
        facts |= batch_facts(provider.cancel_batch(attempt.batch_id))
    except (Refused, RemoteNotFound):
        pass  # it ended before (409 for a completed one, wire reference, 3); the next poll says how
    step.record(shard={**CLEAR, "due_at": now}, attempt=facts, event="cancel_sent", note=attempt.batch_id)

"""Which target a waiting shard goes to, or why it waits; what the calls there teach about its quota."""

from __future__ import annotations

from dataclasses import replace

from langbatch.errors import AccessRefused, ProviderError, QuotaFull, Throttled, Unreachable
from langbatch.folders import JobFolder
from langbatch.money.costs import Budget
from langbatch.providers import limits_for
from langbatch.providers.base import Provider
from langbatch.records import Account, ShardView
from langbatch.running import quota
from langbatch.running.step import CLEAR, Step
from langbatch.shards.budgeting import bound_plans, pricing_for
from langbatch.shards.sharding import plan_shards
from langbatch.shards.snapshot import Snapshot
from langbatch.store import budgets, ledger
from langbatch.store.commitments import OverBudget
from langbatch.targets import BYTES_PER_TOKEN, account_label, growth_bytes

#: A target that does not take calls is left alone for so long, where a job has others.
AVOID_SECONDS = 300.0


def find_place(step: Step) -> int | None:
    """The place of the target that the waiting shard goes to now. None: it was recorded why it waits, cut
    into pieces that fit, or stopped for a person."""
    view = step.view
    if view.job.has_budget:
        try:
            budgets.check_room(step.store, step.claim, _next_number(view), view.shard.bounds)
        except OverBudget as over:
            wait_for_budget(step, over)
            return None
    if len(view.job.targets) == 1 and not _known_of(step):
        return 0
    need = tokens_needed(step)
    now = step.clock.now()
    match quota.place(need, options(step), now, step.policy.poll_seconds):
        case quota.Go(place):
            return place
        case quota.Hold(until, _, attention):
            _wait(step, until, attention)
        case quota.TooLarge(limit):
            _cut(step, need, limit)
    return None


def _next_number(view: ShardView) -> int:
    """Of the attempt that an upload would be: one that is open goes on."""
    goes_on = view.attempt is not None and view.attempt.ended_at is None
    return view.shard.attempt if goes_on else view.shard.attempt + 1


def wait_for_budget(step: Step, over: OverBudget) -> None:
    """The shard does not fit the job's budget now. What others give back may make room; else a person must
    raise it."""
    budgets.wait_for_room(step.store, step.claim, over.message, step.clock.now() + step.policy.poll_seconds)


def _known_of(step: Step) -> bool:
    """Whether anything is known of the only quota: most jobs never meet one."""
    label = account_label(step.view.job.target, step.shard.model)
    account, _ = ledger.known(step.store, [label])[label]
    stated = step.view.job.target.quota_tokens
    return account != Account(label) or stated is not None


def options(step: Step) -> list[quota.Option]:
    """The job's targets with what is known of their quotas, this shard's own reservation left out."""
    view = step.view
    labels = [account_label(target, view.shard.model) for target in view.job.targets]
    for label, target in zip(labels, view.job.targets, strict=True):
        if target.quota_tokens is not None:
            ledger.state_limit(step.store, label, target.quota_tokens)
    known = ledger.known(step.store, labels, but=(view.job.key, view.shard.index))
    return [
        quota.Option(place, *known[label], target.weight)
        for place, (label, target) in enumerate(zip(labels, view.job.targets, strict=True))
    ]


def tokens_needed(step: Step) -> int:
    """Of a quota, by the shard's next attempt: what has succeeded is not sent again."""
    shard = step.shard
    failed = step.store.unsuccessful_count(shard.job, shard.first, shard.requests)
    return quota.estimate_tokens(shard.bytes * (failed or shard.requests) // max(shard.requests, 1))


def _wait(step: Step, until: float, attention: str) -> None:
    # Told once, not at every look.
    event = None if step.shard.waits_for == "quota" else "quota_wait"
    shard = {**CLEAR, "due_at": until, "attention": attention, "waits_for": "quota"}
    step.record(shard=shard, event=event)


def _cut(step: Step, need: int, limit: int) -> None:
    """No quota could hold the shard: cut it, unless it is one request, or was harvested before."""
    view, shard = step.view, step.shard
    harvested = any(a.ended_as == "harvested" for a in step.store.attempts(shard.job, shard.index))
    snapshot = Snapshot(JobFolder.of(step.home, view.job.id).path)
    growth = max(growth_bytes(target) for target in view.job.targets)
    room = max(1, limit * BYTES_PER_TOKEN * quota.SPLIT_PERCENT // 100)
    lengths = list(snapshot.lengths(shard.first, shard.requests))
    if harvested or len(lengths) == 1 or max(lengths) + growth > limit * BYTES_PER_TOKEN:
        reason = f"it needs about {need:,} enqueued tokens at once, and the quota is {limit:,}"
        step.ask_operator("parked", f"{reason}: ask for more quota")
        return
    limits = limits_for(view.job.target)
    # A single request may be larger than the cautious share, as long as the whole quota holds it.
    room = max(room, max(lengths) + growth)
    pieces = plan_shards(lengths, growth, replace(limits, file_bytes=room * 100 // 95 + 1))
    placed = [
        replace(
            piece,
            first=shard.first + piece.first,
            byte_start=shard.byte_start + piece.byte_start,
            model=shard.model,
        )
        for piece in pieces
    ]
    if view.job.has_budget:
        pricing = pricing_for(step.store, step.home, view.job.targets, [shard.model])
        placed = bound_plans(snapshot, placed, view.job.targets, Budget(), pricing)
    lines = [snapshot.line_numbers(piece.first, 1)[0] for piece in placed]
    step.store.split(step.claim, placed, lines)


# ---------------------------------------------------------------- what calls teach


def learn(step: Step, error: ProviderError) -> float | None:
    """Keep what a refused upload or create says of the target; the time until which nothing is sent there."""
    label = step.attempt.account
    if label is None:
        return None
    now = step.clock.now()
    account, _ = ledger.known(step.store, [label])[label]
    if isinstance(error, QuotaFull) and (error.code or "").lower() == "token_limit_exceeded":
        told = quota.limit_in_text(error.message)
        held = quota.after_refusal(account, told, now, step.policy.poll_seconds, step.roll())
        ledger.remember(step.store, held, told=told is not None)
        return held.hold_until
    if len(step.view.job.targets) > 1 and isinstance(error, AccessRefused | Throttled | Unreachable):
        advice = error.retry_after_seconds if isinstance(error, Throttled) else None
        ledger.remember(step.store, quota.after_trouble(account, now, advice or AVOID_SECONDS))
    return None


def learn_of_bounce(step: Step, message: str) -> float | None:
    """As `learn`, for a batch that ended in validation with `token_limit_exceeded`."""
    return learn(step, QuotaFull(message, code="token_limit_exceeded"))


def no_room_after_all(step: Step, tokens: int) -> None:
    """Another process took the room since the place was found, or the payload is larger than was thought."""
    choices = options(step)
    limits = [option.account.limit_tokens for option in choices]
    if all(limit is not None and tokens > limit for limit in limits):
        _cut(step, tokens, max(limit for limit in limits if limit is not None))
        return
    _wait(step, step.clock.now() + step.policy.poll_seconds, quota.waiting_words(tokens, choices))


def wait_for_room(step: Step, provider: Provider) -> None:
    """An uploaded file, and no room any more: another process was faster, or the limit was learnt since."""
    attempt, now = step.attempt, step.clock.now()
    assert attempt.account is not None
    account, _ = ledger.known(step.store, [attempt.account])[attempt.account]
    if account.limit_tokens is not None and attempt.tokens > account.limit_tokens:
        move_away(step, provider)  # never fits: cut when it is placed anew
        return
    words = quota.waiting_words(attempt.tokens, options(step)[attempt.target : attempt.target + 1])
    _wait(step, max(now + step.policy.poll_seconds, account.hold_until), words)


def better_elsewhere(step: Step) -> bool:
    """Whether an uploaded shard whose target has no room, or takes no calls, is better sent to another."""
    now, need = step.clock.now(), step.attempt.tokens
    mine, others = None, []
    for option in options(step):
        if option.place == step.attempt.target:
            mine = option
        else:
            others.append(option)
    assert mine is not None
    limit = mine.account.limit_tokens
    if limit is not None and need > limit:
        return True
    held = mine.account.hold_until > now
    if not held and quota.has_room(mine, need, now):
        return False
    return any(quota.has_room(o, need, now) and o.account.hold_until <= now for o in others)


def move_away(step: Step, provider: Provider) -> None:
    """Give up an upload that no batch was made of. Its file goes first: whatever may still be under way
    there then fails. Certain already, since only definite refusals lead here."""
    assert step.attempt.file_id is not None
    try:
        provider.delete_file(step.attempt.file_id)
    except ProviderError:
        pass  # ours and unused; `langbatch gc` tries again
    step.move("moved_away", shard=CLEAR, attempt=step.ended("moved_away"), note=step.attempt.account)

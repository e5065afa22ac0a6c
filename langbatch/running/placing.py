"""Which target a waiting shard goes to, or why it waits; what the calls there teach about its quota."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from langbatch.errors import AccessRefused, ProviderError, QuotaFull, Throttled, Unreachable
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
#: What a target that does not take calls answers.
AVOIDED = (AccessRefused, Throttled, Unreachable)


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


# ---------------------------------------------------------------- cutting


def _cut(step: Step, need: int, limit: int) -> None:
    """No quota could hold the shard: cut it, unless that helps nothing, or it has results already."""
    lengths, growth = _sizes(step)
    room = limit * BYTES_PER_TOKEN
    if step.shard.tally.succeeded or len(lengths) == 1 or max(lengths) + growth > room:
        reason = f"it needs about {need:,} enqueued tokens at once, and the quota is {limit:,}"
        step.ask_operator("parked", f"{reason}: ask for more quota")
        return
    _split(step, lengths, growth, room * quota.SPLIT_PERCENT // 100)


def halve(step: Step) -> None:
    """The waiting shard is larger than what its quota has, whatever was known of that: cut it in two. A
    single request waits on, for a day; then it is a person's matter."""
    lengths, growth = _sizes(step)
    if len(lengths) > 1 and not step.shard.tally.succeeded:
        _split(step, lengths, growth, (sum(lengths) + growth * len(lengths)) // 2)
    elif _refusals_alone(step) >= quota.REFUSALS_GIVEN_UP:
        reason = "for more than a day its quota had no room for it, with nothing of ours enqueued"
        step.ask_operator("parked", f"{reason}: it may be larger than the quota")


def _sizes(step: Step) -> tuple[list[int], int]:
    """Bytes of the shard's lines, and the most that is added to one when it is sent."""
    snapshot = Snapshot(step.folder.path)
    growth = max(growth_bytes(target) for target in step.view.job.targets)
    return list(snapshot.lengths(step.shard.first, step.shard.requests)), growth


def _split(step: Step, lengths: Sequence[int], growth: int, room_bytes: int) -> None:
    view, shard = step.view, step.shard
    # A single request may be larger than the share that is meant for a piece.
    pieces = plan_shards(lengths, growth, limits_for(view.job.target), preferred_bytes=room_bytes)
    placed = [
        replace(
            piece,
            first=shard.first + piece.first,
            byte_start=shard.byte_start + piece.byte_start,
            model=shard.model,
        )
        for piece in pieces
    ]
    snapshot = Snapshot(step.folder.path)
    if view.job.has_budget:
        pricing = pricing_for(step.store, step.home, view.job.targets, [shard.model])
        placed = bound_plans(snapshot, placed, view.job.targets, Budget(), pricing)
    lines = [snapshot.line_numbers(piece.first, 1)[0] for piece in placed]
    earlier = step.store.attempts(shard.job, shard.index)

    def forget_rows() -> None:
        # Of attempts without a success, at requests of which some are another shard's now.
        for attempt in earlier:
            for part in ("output", "error"):
                step.folder.piece(shard.index, attempt.number, part).unlink(missing_ok=True)

    step.store.split(step.claim, placed, lines, files=forget_rows)


# ---------------------------------------------------------------- what calls teach


def learn(step: Step, error: ProviderError) -> float | None:
    """Keep what a refused upload or create says of the target; the time until which nothing is sent there."""
    label = step.attempt.account
    if label is None:
        return None
    now = step.clock.now()
    account, _ = ledger.known(step.store, [label])[label]
    if isinstance(error, QuotaFull) and (error.code or "").lower() == "token_limit_exceeded":
        told = error.limit_tokens or quota.limit_in_text(error.message)
        held = quota.after_refusal(account, told, now, step.policy.poll_seconds, step.roll())
        ledger.remember(step.store, held, told=told is not None)
        return held.hold_until
    if len(step.view.job.targets) > 1 and isinstance(error, AVOIDED):
        advice = error.retry_after_seconds if isinstance(error, Throttled) else None
        ledger.remember(step.store, quota.after_trouble(account, now, advice or AVOID_SECONDS))
    return None


def learn_limit(step: Step, limit_tokens: int) -> None:
    """Keep the quota that the service has named beside an answer."""
    assert step.attempt.account is not None
    account, _ = ledger.known(step.store, [step.attempt.account])[step.attempt.account]
    if account.limit_tokens != limit_tokens:
        ledger.remember(step.store, replace(account, limit_tokens=limit_tokens), told=True)


def learn_of_bounce(step: Step, message: str) -> float | None:
    """As `learn`, for a batch that ended in validation with `token_limit_exceeded`."""
    return learn(step, QuotaFull(message, code="token_limit_exceeded"))


def others_take_calls(step: Step) -> bool:
    """Whether the job has a target beside the attempt's that is not held for trouble."""
    now = step.clock.now()
    return any(
        option.place != step.attempt.target and quota.takes_calls(option.account, now)
        for option in options(step)
    )


def asks_too_much(step: Step) -> bool:
    """Whether the shard, refused just now, is larger than the quota, or than what others leave of
    it, whatever its bytes have told."""
    refusals = _refusals_alone(step)
    if step.shard.requests == 1:
        return refusals >= quota.REFUSALS_GIVEN_UP
    return refusals > 0 and refusals % quota.REFUSALS_ALONE == 0


def _refusals_alone(step: Step) -> int:
    """How often in a row the quota of the shard's newest attempt had no room, while nothing else of ours held
    any of it; 0 where something does, or where the shard is so small that it is others who hold it all."""
    label = step.attempt.account
    if label is None:
        return 0
    account, _ = ledger.known(step.store, [label])[label]
    limit = account.limit_tokens
    if limit is not None and tokens_needed(step) * BYTES_PER_TOKEN <= limit:
        return 0  # no text has more tokens than bytes
    alone = ledger.holds_nothing(step.store, label, but=(step.shard.job, step.shard.index))
    return account.refusals if account.hold_reason == "quota" and alone else 0


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

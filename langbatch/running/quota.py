"""Token quotas: what a shard needs, where there is room for it, what a refusal teaches. Pure.

The quota is enqueued tokens per deployment, held until a batch ends (wire reference, 3). No endpoint reports
it, so our own reservations are added up, and a refusal is a wait, never a failure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from langbatch.records import Account
from langbatch.targets import BYTES_PER_TOKEN

#: Of a limit, for pieces of a shard that could never fit whole: the service may count otherwise than we do.
SPLIT_PERCENT: Final = 80

#: Azure: "…surpassed the configured limit of 30K for the deployment…" (wire reference, 4). OpenAI: "Enqueued
#: token limit reached for gpt-4o-mini in organization org-…. Limit: 2,000,000 enqueued tokens."
#: (openai/openai-python#2084).
_LIMIT_IN_TEXT = re.compile(r"\blimit(?: of|:) ?([\d][\d,_.]*)\s*([KkMmBb]?)\b", re.IGNORECASE)
_UNITS: Mapping[str, int] = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000}
#: Refusals of a quota of which we hold nothing before the shard is halved. They come at growing intervals, so
#: that this takes minutes. Others may hold it all, which looks the same: then smaller ones find room earlier.
REFUSALS_ALONE: Final = 8
#: Refusals in a row, at a minute each more than a day, after which a single request is a person's matter.
REFUSALS_GIVEN_UP: Final = 2048


def estimate_tokens(file_bytes: int) -> int:
    """What a payload of so many bytes is taken to hold of the quota."""
    return max(1, math.ceil(file_bytes / BYTES_PER_TOKEN))


def limit_in_text(text: str) -> int | None:
    """The quota that a refusal names."""
    found = _LIMIT_IN_TEXT.search(text)
    if found is None:
        return None
    digits = found[1].rstrip(".,").replace(",", "").replace("_", "")
    try:
        limit = int(float(digits) * _UNITS[found[2].lower()])
    except ValueError:
        return None
    return limit if limit > 0 else None


def after_refusal(account: Account, told: int | None, now: float, cap_seconds: float, roll: float) -> Account:
    """A refusal for want of quota: nothing is sent there for a growing, jittered while. One of our own
    batches that ends lifts the hold (`after_release`)."""
    refusals = account.refusals + 1
    span = min(cap_seconds, 2.0 ** min(refusals, 16))
    return replace(
        account,
        limit_tokens=told or account.limit_tokens,
        hold_until=now + span * (0.5 + 0.5 * roll),
        hold_reason="quota",
        refusals=refusals,
    )


def after_trouble(account: Account, now: float, seconds: float) -> Account:
    """A target that does not take calls is avoided for a while, if there are others."""
    return replace(account, hold_until=now + seconds, hold_reason="trouble")


# ---------------------------------------------------------------- placing


@dataclass(frozen=True, slots=True)
class Option:
    """One target a shard may go to: its place among the job's, its quota, what is reserved of it."""

    place: int
    account: Account
    reserved_tokens: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Go:
    place: int


@dataclass(frozen=True, slots=True)
class Hold:
    """No room now. `until`: the time of the next try."""

    until: float
    reason: Literal["quota", "trouble"]
    attention: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """No quota of a target that takes calls could ever hold it, even empty."""

    limit_tokens: int


def place(
    need_tokens: int, options: Sequence[Option], now: float, look_again_seconds: float
) -> Go | Hold | TooLarge:
    """Where a shard of `need_tokens` goes: among the targets with room, to the least loaded by weight.

    A target held for trouble is avoided while there is another, even if that has room later, or for pieces of
    the shard alone. When there is no other, it is tried all the same, since its own waits (backoff,
    `Retry-After`) are kept on the shard.
    """
    healthy = [option for option in options if takes_calls(option.account, now)]
    candidates = healthy or options
    limits = [option.account.limit_tokens for option in candidates]
    if all(limit is not None and need_tokens > limit for limit in limits):
        return TooLarge(max(limit for limit in limits if limit is not None))
    roomy = [option for option in candidates if has_room(option, need_tokens, now)]
    if roomy:
        return Go(min(roomy, key=lambda o: (o.reserved_tokens + need_tokens) / o.weight).place)
    waits = [o.account.hold_until for o in options if o.account.hold_until > now]
    until = min([now + look_again_seconds, *waits])
    return Hold(until, "quota", waiting_words(need_tokens, options))


def rounds(needs: Sequence[int], limits: Sequence[int]) -> tuple[int, int]:
    """How many of the shards fit the quotas at once, in order, and how often these must be filled."""
    waiting = [min(need, max(limits)) for need in needs]  # one that is larger is cut
    at_once = count = 0
    while waiting:
        free, left = list(limits), []
        for need in waiting:
            room = next((place for place, tokens in enumerate(free) if need <= tokens), None)
            if room is None:
                left.append(need)
            else:
                free[room] -= need
        count += 1
        at_once = at_once or len(waiting) - len(left)
        waiting = left
    return at_once, count


def takes_calls(account: Account, now: float) -> bool:
    """Whether the target is not held for trouble."""
    return account.hold_reason != "trouble" or account.hold_until <= now


def has_room(option: Option, need_tokens: int, now: float) -> bool:
    """Whether a batch of `need_tokens` may be sent there now, as far as is known here."""
    account = option.account
    if account.hold_reason == "quota" and account.hold_until > now:
        return False
    return account.limit_tokens is None or option.reserved_tokens + need_tokens <= account.limit_tokens


def waiting_words(need_tokens: int, options: Sequence[Option]) -> str:
    """What is waited for, for people."""
    parts = []
    for option in options:
        limit = option.account.limit_tokens
        of = f" of {limit:,}" if limit is not None else ""
        parts.append(
            f"{option.account.label.rpartition('/')[2]}: {option.reserved_tokens:,}{of} tokens enqueued"
        )
    return f"waiting for token quota: {need_tokens:,} tokens needed ({'; '.join(parts)})"

"""Sizes and limits → shards. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final

from langbatch.errors import BatchValidationError
from langbatch.records import Bounds, Limits, Problem

#: Of a provider's bytes; its request counts are used in full (contract, section 10).
BYTES_PERCENT: Final = 95


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A run of `count` requests from `first` (counted from 0); the place of its lines in the snapshot."""

    index: int
    first: int
    count: int
    byte_start: int
    bytes: int
    model: str | None = None
    #: For a job with a budget only.
    bounds: Bounds = field(default_factory=Bounds)


def plan_shards(
    lengths: Iterable[int],
    growth_bytes: int,
    limits: Limits,
    *,
    max_requests: int | None = None,
    preferred_bytes: int | None = None,
    embedding_inputs: Iterable[int] | None = None,
) -> list[ShardPlan]:
    """Cut requests, in order, into the fewest shards that each fit one batch.

    `lengths` are bytes of the snapshot's lines with their newline; `growth_bytes` is the most that the
    target's edits add to one line, since limits hold for what is sent. `embedding_inputs` counts the
    inputs of each request, arrays by element. Shards are no larger than `preferred_bytes`, unless they are
    one request. Reads its arguments as streams.
    """
    room = limits.file_bytes * BYTES_PERCENT // 100
    preferred = room if preferred_bytes is None else min(room, preferred_bytes)
    most = limits.requests if max_requests is None else min(limits.requests, max_requests)
    if most < 1:
        raise ValueError("a shard must be allowed at least one request")
    growth = max(growth_bytes, 0)
    most_inputs = limits.embedding_inputs
    counted: Iterable[int] = repeat(0)
    if embedding_inputs is not None and most_inputs is not None:
        counted = embedding_inputs
    inputs_room = float("inf") if most_inputs is None else most_inputs

    plans: list[ShardPlan] = []
    first = start = 0
    count = size = grown = inputs = 0
    for length, holds in zip(lengths, counted, strict=counted is embedding_inputs):
        sent = length + growth
        if count and (count >= most or grown + sent > preferred or inputs + holds > inputs_room):
            plans.append(ShardPlan(len(plans), first, count, start, size))
            first += count
            start += size
            count = size = grown = inputs = 0
        if sent > room or holds > inputs_room:
            raise _too_large(first + count, start + size, sent > room, room, most_inputs)
        count += 1
        size += length
        grown += sent
        inputs += holds
    if count:
        plans.append(ShardPlan(len(plans), first, count, start, size))
    return plans


def _too_large(
    ordinal: int, byte_start: int, by_bytes: bool, room: int, most_inputs: int | None
) -> BatchValidationError:
    """Validation refuses such a line first, by its number in the user's file, which is not known here."""
    if by_bytes:
        message = f"request {ordinal + 1} alone is larger than the {room:,} bytes planned for one batch"
    else:
        message = f"request {ordinal + 1} alone holds more than the {most_inputs:,} inputs of one batch"
    problem = Problem(0, byte_start, None, "line_too_large", message)
    return BatchValidationError(message, [problem], hint="split the request")

"""What a target means for the lines sent to it, and when two targets are the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from langbatch.records import ENDPOINT_PATHS, Limits, Target

#: Rough, as the services' own estimates at enqueueing are; English prose has about four bytes a token.
BYTES_PER_TOKEN: Final = 4
#: Of a quota that was stated, for a shard.
STATED_PERCENT: Final = 95


def sent_url(target: Target) -> str | None:
    """The `url` every line must carry; None where lines keep what the user wrote.

    OpenAI wants `/v1/…` equal to the batch's endpoint; Azure takes both spellings (wire reference, 1).
    """
    return "/v1" + ENDPOINT_PATHS[target.kind] if target.provider == "openai" else None


def growth_bytes(target: Target) -> int:
    """The most bytes that the target's edits can add to a line: a longer or missing model, a longer url."""
    growth = 0
    if target.model is not None:
        growth += len(json.dumps(target.model)) + len('"model": , ')
    if sent_url(target) is not None:
        growth += len("/v1")
    return growth


def common_limits(limits: Sequence[Limits]) -> Limits:
    """What fits every target: the least of each limit."""
    inputs = [limit.embedding_inputs for limit in limits if limit.embedding_inputs is not None]
    return Limits(
        min(limit.requests for limit in limits),
        min(limit.file_bytes for limit in limits),
        min(inputs, default=None),
    )


def stated_quota_bytes(where: Sequence[Target]) -> int | None:
    """The least of the quotas that were stated, in bytes: shards of that size may go to any target. None
    where none was."""
    stated = [target.quota_tokens for target in where if target.quota_tokens is not None]
    return min(stated) * BYTES_PER_TOKEN * STATED_PERCENT // 100 if stated else None


def account_label(target: Target, model: str | None) -> str:
    """The quota that a batch counts against: its deployment's. `model`: what the lines name."""
    return "/".join((target.provider, target.host, target.model or model or "-"))


def with_settings_of(stored: Sequence[Target], given: Sequence[Target]) -> tuple[Target, ...]:
    """The stored targets in their order, since attempts name them by place, reached as now `given`."""

    def settings_for(target: Target) -> Mapping[str, str]:
        for other in given:
            same_host = (other.provider, other.host.lower()) == (target.provider, target.host.lower())
            # The deployment may be said in the lines, or beside them.
            if same_host and (other.model == target.model or None in (other.model, target.model)):
                return other.settings
        return target.settings

    return tuple(replace(target, settings=settings_for(target)) for target in stored)


def identity(target: Target) -> str:
    """Provider, host, deployment or model, and kind; not api-version, trailing slash or credentials."""
    return "\n".join((target.provider, target.host.lower(), target.model or "", target.kind))


def mark(target: Target) -> str:
    """Eight digits that stand for the target where it shall not be named, such as in a batch's metadata."""
    place = (target.provider, target.host.lower(), target.model or "")
    return hashlib.sha256("\n".join(place).encode()).hexdigest()[:8]


def reuse_key(input_sha256: str, *targets: Target) -> str:
    """Names the job that the same bytes on the same target make, or on the same several in any order."""
    where = "\n".join(sorted(identity(target) for target in targets))
    return hashlib.sha256(f"{input_sha256}\n{where}".encode()).hexdigest()

"""Rows to records and back: the only place that knows both spellings."""

from __future__ import annotations

import json
from dataclasses import asdict, astuple, fields
from typing import Any

import sqlalchemy as sa

from langbatch.records import (
    OUTCOMES,
    Attempt,
    BatchCounts,
    Bounds,
    Job,
    Shard,
    Tally,
    Target,
    Unsuccessful,
    Usage,
)

_USAGE = tuple(f.name for f in fields(Usage))
_SHARD = tuple(f.name for f in fields(Shard) if f.name not in ("tally", "usage", "bounds"))
#: In the order of the record's fields.
BOUNDS = (
    "most_input_tokens",
    "most_tokens",
    "most_cost_nanos",
    "cautious_tokens",
    "cautious_cost_nanos",
)
_ATTEMPT = tuple(f.name for f in fields(Attempt) if f.name != "batch_counts")
_JOB = tuple(f.name for f in fields(Job) if f.name not in ("target", "others", "tally", "usage"))


def job(row: sa.Row[Any], prefix: str = "") -> Job:
    values = row._mapping
    return Job(
        target=Target(
            values[f"{prefix}provider"],
            values[f"{prefix}host"],
            values[f"{prefix}kind"],
            values[f"{prefix}model"],
            json.loads(values[f"{prefix}settings"]),
        ),
        others=targets_of(values[f"{prefix}others"]),
        tally=Tally(*(values[prefix + name] for name in OUTCOMES)),
        usage=Usage(*(values[prefix + name] for name in _USAGE)),
        **{name: values[prefix + name] for name in _JOB},
    )


def targets_text(targets: tuple[Target, ...]) -> str:
    return json.dumps([asdict(target) for target in targets], sort_keys=True)


def targets_of(text: str) -> tuple[Target, ...]:
    return tuple(Target(**values) for values in json.loads(text))


def shard_and_attempt(row: sa.Row[Any]) -> tuple[Shard, Attempt | None]:
    values = row._mapping
    shard = Shard(
        tally=Tally(*(values[f"s_{name}"] for name in OUTCOMES)),
        usage=Usage(*(values[f"s_{name}"] for name in _USAGE)),
        bounds=Bounds(*(values[f"s_{name}"] for name in BOUNDS)),
        **{name: values[f"s_{name}"] for name in _SHARD},
    )
    return shard, None if values["a_number"] is None else _attempt(values, "a_")


def attempt(row: sa.Row[Any]) -> Attempt:
    return _attempt(row._mapping, "")


def _attempt(values: Any, prefix: str) -> Attempt:
    return Attempt(
        batch_counts=BatchCounts(
            values[f"{prefix}batch_total"],
            values[f"{prefix}batch_completed"],
            values[f"{prefix}batch_failed"],
        ),
        **{name: values[prefix + name] for name in _ATTEMPT},
    )


def from_bounds(bounds: Bounds) -> dict[str, int | None]:
    return dict(zip(BOUNDS, astuple(bounds), strict=True))


def unsuccessful(row: sa.Row[Any]) -> Unsuccessful:
    return Unsuccessful(row.ordinal, row.line, row.outcome, row.code, row.attempt)


def from_unsuccessful(job_key: int, item: Unsuccessful) -> dict[str, Any]:
    return {
        "job": job_key,
        "ordinal": item.ordinal,
        "line": item.line,
        "outcome": item.outcome,
        "code": item.code,
        "attempt": item.attempt,
    }

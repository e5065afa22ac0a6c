"""What happens to jobs, as typed records read from the store's log.

Every change of a job or a shard is written into the log in the transaction that makes it. Events are that
log read back: they tell what is committed, whoever did it, and nothing that was rolled back. No event holds a
prompt, an answer, or a key.

`Event` is what all have in common; `match event: case JobFinished(): …` picks the kinds that matter. Kinds,
keys and words of `move` may be added; what there is keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar

from langbatch.lifecycle import MOVES, SETTLED_JOB_STATES
from langbatch.records import OUTCOMES, Tally

__all__ = [
    "BatchCreated",
    "BatchEnded",
    "BatchStatus",
    "Event",
    "JobFinished",
    "JobMoved",
    "JobSubmitted",
    "Noted",
    "QuotaWait",
    "ShardFinished",
    "ShardMoved",
    "Trouble",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of the log. `n` rises with every event of a store and is never given twice; `store` and `n`
    together name the event anywhere.

    `at` is in seconds since the epoch. `shard` and `attempt` are None where it is the job's as a whole.
    `origin` and `to` are states, where one was left or entered. `note`: codes and ids, masked.
    """

    type: ClassVar[str] = "event"
    store: str
    n: int
    at: float
    job: str
    shard: int | None = None
    attempt: int | None = None
    move: str
    origin: str | None = None
    to: str | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, ready for `json.dumps`: `type`, and the attributes by their names. Times are
        UTC, as in `2026-11-21T01:02:03.004Z`."""
        document: dict[str, Any] = {"type": self.type}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tally):
                value = asdict(value)
            elif value is not None and (field.name == "at" or field.name.endswith("_at")):
                value = iso_millis(value)
            document[field.name] = value
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted(Event):
    """A job was stored (`move` is `submitted`), or brought back (`recovered`)."""

    type: ClassVar[str] = "job_submitted"
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMoved(Event):
    """The job's own state has changed."""

    type: ClassVar[str] = "job_moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished(JobMoved):
    """Every request has a result; `to` is `completed`, `failed` or `cancelled`. After a `retry` there may be
    another one. Tokens are None where no row reported any."""

    type: ClassVar[str] = "job_finished"
    name: str | None
    requests: int
    counts: Tally
    input_tokens: int | None
    output_tokens: int | None
    submitted_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardMoved(Event):
    """A shard went from one state to another; docs/states.md says what each `move` records."""

    type: ClassVar[str] = "shard_moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCreated(ShardMoved):
    """The shard's attempt has a batch at the service, or it was found there."""

    type: ClassVar[str] = "batch_created"
    batch_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEnded(ShardMoved):
    """The batch has reached a terminal status, after `seconds` since the create was sent."""

    type: ClassVar[str] = "batch_ended"
    batch_id: str | None
    status: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFinished(ShardMoved):
    """Every request of the shard has a result. `counts` are those that this attempt brought: what had
    succeeded before it is not among them. Tokens are those that its rows report."""

    type: ClassVar[str] = "shard_finished"
    batch_id: str | None
    counts: Tally
    input_tokens: int | None
    output_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus(Event):
    """The service reports another status of a batch that runs."""

    type: ClassVar[str] = "batch_status"
    batch_id: str | None
    status: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaWait(Event):
    """The shard begins to wait for token quota; that it goes on waiting is not told again."""

    type: ClassVar[str] = "quota_wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble(Event):
    """A call failed, and will be made again; `note` is its code."""

    type: ClassVar[str] = "trouble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Event):
    """Whatever else is worth keeping; `move` says what."""

    type: ClassVar[str] = "noted"


# ---------------------------------------------------------------- reading the log


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the log, and what the store knows of its job and its attempt."""

    n: int
    at: float
    shard: int | None
    attempt: int | None
    move: str
    origin: str | None
    to: str | None
    note: str | None
    job_id: str
    job_name: str | None
    job_total: int
    job_created_at: float
    batch_id: str | None
    create_intent_at: float | None
    input_tokens: int | None
    output_tokens: int | None


_BATCH_CREATED = frozenset({"create_answered", "batch_found", "operator_adopts", "taken_over"})
_BATCH_ENDED = frozenset({"batch_ended", "quota_bounced"})
_KINDS: Mapping[str, type[Event]] = {"quota_wait": QuotaWait, "trouble": Trouble}


def read_event(store_id: str, row: Logged) -> Event:
    """The event that a row of the log tells."""
    common: dict[str, Any] = {
        "store": store_id,
        "n": row.n,
        "at": row.at,
        "job": row.job_id,
        "shard": row.shard,
        "attempt": row.attempt,
        "move": row.move,
        "origin": row.origin,
        "to": row.to,
        "note": row.note,
    }
    if row.move in ("submitted", "recovered"):
        return JobSubmitted(**common, requests=row.job_total)
    if row.move == "job_moved":
        return _finished(common, row) if row.to in SETTLED_JOB_STATES else JobMoved(**common)
    if row.move in _BATCH_CREATED:
        return BatchCreated(**common, batch_id=row.note)
    if row.move in _BATCH_ENDED:
        since = row.create_intent_at
        seconds = None if since is None else round(max(0.0, row.at - since), 3)
        status = row.note if row.move == "batch_ended" else "failed"
        return BatchEnded(**common, batch_id=row.batch_id, status=status, seconds=seconds)
    if row.move in MOVES and row.to == "done":
        tokens = (row.input_tokens, row.output_tokens) if row.move == "harvested" else (None, None)
        return ShardFinished(
            **common,
            batch_id=row.batch_id,
            counts=_tally(_numbers_in(row.note)),
            input_tokens=tokens[0],
            output_tokens=tokens[1],
        )
    if row.move in MOVES:
        return ShardMoved(**common)
    if row.move == "status":
        return BatchStatus(**common, batch_id=row.batch_id, status=row.note)
    return _KINDS.get(row.move, Noted)(**common)


def _finished(common: Mapping[str, Any], row: Logged) -> JobFinished:
    numbers = _numbers_in(row.note)
    return JobFinished(
        **common,
        name=row.job_name,
        requests=row.job_total,
        counts=_tally(numbers),
        input_tokens=numbers.get("input_tokens"),
        output_tokens=numbers.get("output_tokens"),
        submitted_at=row.job_created_at,
    )


def _numbers_in(note: str | None) -> dict[str, int]:
    """The numbers that the store put into a note, as in `cancelled succeeded=4 cancelled=2`."""
    pairs = (word.partition("=") for word in (note or "").split())
    return {name: int(number) for name, _, number in pairs if number.isascii() and number.isdigit()}


def _tally(numbers: Mapping[str, int]) -> Tally:
    return Tally(**{name: numbers.get(name, 0) for name in OUTCOMES})


def iso_millis(at: float) -> str:
    """UTC to the millisecond, as in `2026-11-21T01:02:03.004Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

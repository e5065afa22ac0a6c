"""What to do next with a shard, and what a reply or an error means. Pure: values in, values out.

`decide` is asked only by a process that holds the shard's claim. So a shard found `uploading` or
`creating` was left there by a process that died or was frozen: its call's fate is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.lifecycle import Move
from langbatch.records import (
    TERMINAL_BATCH_STATUSES,
    Attempt,
    Blocker,
    Outcome,
    RemoteBatch,
    RemoteFile,
    ShardEnd,
    ShardView,
    WaitsFor,
)

#: The service's own advice is honoured up to a day: 86,400 s has been seen.
LONGEST_ADVICE_SECONDS = 86_400.0
#: How long an absent batch may still turn up, unless the user chose otherwise; and where it was seen that
#: the fence holds and the list is quick.
GRACE_SECONDS = 1800.0
FENCED_GRACE_SECONDS = 600.0
#: Attempts that came to nothing without costing anything, before a person is asked.
FRUITLESS_ATTEMPTS = 5
#: Paid attempts in a row without a further success, before `retry` wants to be told twice.
ATTEMPTS_IN_VAIN = 3
#: Processes that died in a row without the shard having moved, before a person is asked.
CRASHES = 5
#: How long a batch may show a status we do not know before a person is asked.
STRANGE_STATUS_SECONDS = 48 * 3600.0
#: How often an ended batch is looked at again before missing files or rows are believed.
HARVEST_TRIES = 3
#: A service's `Date` has whole seconds.
DATE_SECONDS = 1.0

#: Codes of a create that surely made a batch, though its id cannot be believed or is not known here: the
#: reply named a batch on another file, or the same attempt was sent before, of which the store has lost all
#: memory. That no list shows the batch then says that it cannot be recognised, never that it is absent.
REPLY_MISMATCH = "reply_mismatch"
SENT_BEFORE = "sent_before"
SURELY_MADE = frozenset({REPLY_MISMATCH, SENT_BEFORE})

KNOWN_BATCH_STATUSES = TERMINAL_BATCH_STATUSES | {"validating", "in_progress", "finalizing", "cancelling"}


@dataclass(frozen=True, slots=True)
class Policy:
    """Waiting times, in seconds, and what was measured on the endpoint.

    `fence_holds`: whether absence can be believed once the input file is deleted, because a create is
    refused then; None: nobody has tried (`langbatch doctor --canary` does).
    """

    poll_seconds: float = 60.0
    grace_seconds: float = GRACE_SECONDS
    file_wait_seconds: float = 3600.0
    fence_holds: bool | None = None

    @property
    def settle_seconds(self) -> float:
        """How long an uncertain create is looked for before the input file is deleted."""
        return min(60.0, self.grace_seconds / 10)


# ---------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class Nothing:
    """The shard will not move by itself any more."""


@dataclass(frozen=True, slots=True)
class Wait:
    until: float


@dataclass(frozen=True, slots=True)
class Upload:
    """Find a target with room, and upload there."""


@dataclass(frozen=True, slots=True)
class FindUpload:
    pass


@dataclass(frozen=True, slots=True)
class CheckFile:
    pass


@dataclass(frozen=True, slots=True)
class Create:
    pass


@dataclass(frozen=True, slots=True)
class DoubtCreate:
    """The create's fate is unknown: say so in the store, then look."""


@dataclass(frozen=True, slots=True)
class LookForBatch:
    pass


@dataclass(frozen=True, slots=True)
class Fence:
    pass


@dataclass(frozen=True, slots=True)
class Poll:
    pass


@dataclass(frozen=True, slots=True)
class CancelBatch:
    pass


@dataclass(frozen=True, slots=True)
class Harvest:
    pass


@dataclass(frozen=True, slots=True)
class SettleCancelled:
    """No batch exists and the user wants no more: its requests end as cancelled."""


@dataclass(frozen=True, slots=True)
class Park:
    reason: str


Action = (
    Nothing
    | Wait
    | Upload
    | FindUpload
    | CheckFile
    | Create
    | DoubtCreate
    | LookForBatch
    | Fence
    | Poll
    | CancelBatch
    | Harvest
    | SettleCancelled
    | Park
)


def decide(view: ShardView, now: float, *, eager: bool = False) -> Action:
    """The next action for a shard. `eager`: look now even if our own next look is later; what the
    service asked us to wait for is still honoured."""
    shard, attempt = view.shard, view.attempt
    if shard.state in ("done", "needs_operator"):
        return Nothing()
    cancelling = view.job.cancel_requested
    if cancelling and shard.state in ("waiting", "uploaded"):
        return SettleCancelled()
    if shard.not_before > now:
        return Wait(shard.not_before)
    if shard.due_at > now and not eager:
        return Wait(shard.due_at)
    if shard.crashes >= CRASHES and shard.state in ("waiting", "uploaded", "harvesting"):
        return Park(f"{shard.crashes} processes in a row died while the shard was {shard.state}")
    if shard.state == "waiting":
        if view.fruitless_attempts >= FRUITLESS_ATTEMPTS and (attempt is None or attempt.ended_at):
            trouble = shard.attention or (attempt and attempt.fault_message) or "the service took no batch"
            return Park(f"{view.fruitless_attempts} attempts came to nothing; the last trouble: {trouble}")
        return Upload()
    if attempt is None:
        raise AssertionError(f"a shard in {shard.state} has an attempt")
    match shard.state:
        case "uploading":
            return FindUpload()
        case "uploaded":
            return Create() if attempt.file_ready_at is not None else CheckFile()
        case "creating":
            return DoubtCreate()
        case "uncertain":
            return LookForBatch()
        case "fencing":
            return LookForBatch() if attempt.fenced_at is not None else Fence()
        case "active":
            return CancelBatch() if cancelling and attempt.cancel_sent_at is None else Poll()
        case _:
            return Harvest()


# ---------------------------------------------------------------- waiting


def backoff_seconds(troubles: int, cap_seconds: float, roll: float) -> float:
    """Full jitter: `roll` in [0, 1) of a span that doubles from 1 s to the cap, never quite zero."""
    span = min(cap_seconds, 2.0 ** min(troubles, 16))
    return max(span * roll, min(0.05, cap_seconds))


def poll_wait_seconds(age_seconds: float, cap_seconds: float, roll: float) -> float:
    """The time to the next look: a tenth of the age, at most the cap, spread by up to 10 %.

    Young batches are looked at more often because mistakes (a wrong deployment) show early; Microsoft
    advises at most one look a minute, the default cap.
    """
    return min(cap_seconds, max(1.0, age_seconds / 10)) * (0.9 + 0.1 * roll)


# ---------------------------------------------------------------- setbacks


@dataclass(frozen=True, slots=True)
class Setback:
    """What an error means: a move or none, what to tell people, and how long the service asked us to wait."""

    attention: str
    move: Move | None = None
    blocker: Blocker | None = None
    advice_seconds: float | None = None
    code: str | None = None
    waits_for: WaitsFor = "trouble"


def _plain(error: ProviderError, doing: str) -> Setback:
    if isinstance(error, AccessRefused):
        hint = f" ({error.hint})" if error.hint else ""
        text = f"access refused while {doing}: {error.message}{hint}"
        return Setback(text, blocker="access", code=error.code)
    if isinstance(error, Throttled):
        advice = error.retry_after_seconds
        text = f"the service asks to slow down while {doing}"
        advice = advice and min(advice, LONGEST_ADVICE_SECONDS)
        return Setback(text, advice_seconds=advice, code=error.code, waits_for="throttle")
    if isinstance(error, FateUnknown) and error.retry_after_seconds:
        return Setback(
            f"trouble while {doing}: {error.message}",
            advice_seconds=min(error.retry_after_seconds, LONGEST_ADVICE_SECONDS),
            code=error.code,
        )
    return Setback(f"trouble while {doing}: {error.message}", code=error.code)


#: A missing file may be told with 400 as well as with 404 (wire reference, 6: unverified). Somebody else may
#: have deleted it, or it has expired: a new upload costs nothing.
_LOST_FILE = re.compile(
    r"(?i)\bfile\b.*\b(not found|not exist|no longer exists?|been deleted|has expired)|no such file"
)


def is_wrong_path(error: ProviderError) -> bool:
    """A 404 for the path itself: Azure's body says code "404", "Resource not found" (wire reference, 6)."""
    return isinstance(error, RemoteNotFound) and error.code in ("404", "not_found")


def after_upload_error(error: ProviderError) -> Setback:
    """What an upload's error means. A lost reply leaves the shard `uploading`, to be looked for."""
    plain = _plain(error, "uploading")
    if isinstance(error, FateUnknown):
        return plain
    if isinstance(error, QuotaFull):
        text = f"no room for another file: {error.message} (`langbatch gc` deletes our finished ones)"
        return Setback(text, "upload_not_now", code=error.code, waits_for="quota")
    if isinstance(error, RemoteNotFound):
        text = f"this endpoint or api-version has no /files: {error.message}"
        return Setback(text, "upload_not_now", "setup", code=error.code)
    if isinstance(error, Refused):
        return Setback(f"the upload was refused: {error.message}", "upload_refused", code=error.code)
    return replace(plain, move="upload_not_now")


def after_create_error(error: ProviderError) -> Setback:
    """What a create's error means: the one place where a mistake costs money twice."""
    plain = _plain(error, "creating the batch")
    if isinstance(error, QuotaFull):
        text = f"waiting for token quota: {error.message}"
        return Setback(text, "create_not_now", code=error.code, waits_for="quota")
    if isinstance(error, AccessRefused | Throttled | Unreachable):
        return replace(plain, move="create_not_now")
    if isinstance(error, RemoteNotFound):
        if is_wrong_path(error) and "file" not in error.message.lower():
            text = f"this endpoint or api-version has no /batches: {error.message}"
            return Setback(text, "create_not_now", "setup", code=error.code)
        if "deployment" in f"{error.code} {error.message}".lower():
            return Setback(f"the batch was refused: {error.message}", "create_refused", code=error.code)
        return _file_gone(error)
    if isinstance(error, Refused):
        if _LOST_FILE.search(error.message):
            return _file_gone(error)
        return Setback(f"the batch was refused: {error.message}", "create_refused", code=error.code)
    return replace(plain, move="create_fate_unknown")


def _file_gone(error: ProviderError) -> Setback:
    text = f"the service no longer has the file: {error.message}"
    return Setback(text, "file_unusable", code=error.code)


def after_read_error(error: ProviderError, doing: str) -> Setback:
    """What a failed look means: never anything about the job, only about when to look again."""
    return _plain(error, doing)


# ---------------------------------------------------------------- replies

FileVerdict = Literal["ready", "pending", "unusable"]


def judge_file(file: RemoteFile, sent_bytes: int | None, age_seconds: float, policy: Policy) -> FileVerdict:
    """Whether a batch may name this file. `bytes` may be null on a young Azure upload (wire reference, 2)."""
    if file.status in ("error", "deleted", "deleting"):
        return "unusable"
    if file.status in (None, "processed", "uploaded"):
        if file.bytes is not None and sent_bytes is not None and file.bytes not in (0, sent_bytes):
            return "unusable"
        return "ready"
    return "unusable" if age_seconds > policy.file_wait_seconds else "pending"


BatchVerdict = Literal["running", "ended", "quota_bounced", "strange"]


def judge_batch(batch: RemoteBatch, age_seconds: float) -> BatchVerdict:
    """What a batch's status asks for. Unknown words keep being polled, for two days."""
    if batch.status == "failed" and is_quota_bounce(batch):
        return "quota_bounced"
    if batch.status in TERMINAL_BATCH_STATUSES:
        return "ended"
    if batch.status not in KNOWN_BATCH_STATUSES and age_seconds > STRANGE_STATUS_SECONDS:
        return "strange"
    return "running"


def says_enough(batch: RemoteBatch) -> bool:
    """Whether a list's entry of an ended batch can stand for a look at the batch itself. One that leaves out
    the files or the reasons would cost rows: they would be taken for absent."""
    if batch.status == "failed":
        return bool(batch.faults)
    counts = batch.counts
    none_ran = batch.status != "completed" and counts is not None and not counts.completed + counts.failed
    return none_ran or bool(batch.output_file_id or batch.error_file_id)


def is_quota_bounce(batch: RemoteBatch) -> bool:
    """Validation that failed only for want of quota: nothing ran, and it will fit when others end."""
    return (
        bool(batch.faults)
        and not batch.output_file_id
        and all(fault.code == "token_limit_exceeded" for fault in batch.faults)
    )


def ran_nothing(batch: RemoteBatch) -> bool:
    """Whether a batch failed before any row was run."""
    counts = batch.counts
    ran = batch.output_file_id or (counts is not None and counts.completed + counts.failed)
    return batch.status == "failed" and not ran


def choose_batch(found: Sequence[RemoteBatch]) -> tuple[RemoteBatch, tuple[RemoteBatch, ...]]:
    """Which of several batches on one input file is ours: the oldest live one, else the oldest that
    completed, else the oldest. The second value are the others, to be cancelled."""

    def rank(batch: RemoteBatch) -> tuple[int, float, str]:
        live = batch.status not in TERMINAL_BATCH_STATUSES and batch.status != "cancelling"
        order = 0 if live else 1 if batch.status == "completed" else 2
        return order, batch.created_at or 0.0, batch.id

    ordered = sorted(found, key=rank)
    return ordered[0], tuple(ordered[1:])


LookVerdict = Literal["look_again", "fence", "ruled_out", "unfenced", "unrecognised", "unsettled"]


def judge_absence(
    view: ShardView, complete: bool, started_at: float, policy: Policy, server_time: float | None = None
) -> LookVerdict:
    """No batch on our file was listed by a look that began at `started_at`: what follows. `server_time`:
    the service's clock at that look, where it says it.

    Only a complete listing counts; a partial one is "unknown", never "absent". `unfenced`: absent over
    the whole grace period, on an endpoint where that proves nothing. `unrecognised`: there is one for sure.
    """
    attempt = view.attempt
    assert attempt is not None
    since = attempt.fate_unknown_at or started_at
    if not complete:
        patience = max(2 * policy.grace_seconds, 10 * policy.settle_seconds)
        return "unsettled" if started_at - since > patience else "look_again"
    if attempt.fenced_at is not None:
        if _waited(attempt, attempt.fenced_at, started_at, server_time) < policy.grace_seconds:
            return "look_again"
        # Where a create succeeds without its file, a late one may still come: no new attempt by ourselves.
        return "unfenced" if policy.fence_holds is False else "ruled_out"
    if attempt.fault_code in SURELY_MADE:
        return "unrecognised" if started_at >= since + policy.grace_seconds else "look_again"
    return "fence" if started_at >= since + policy.settle_seconds else "look_again"


def _waited(attempt: Attempt, fenced_at: float, now: float, server_time: float | None) -> float:
    """Seconds behind the fence by both clocks: ours may have been set meanwhile, which must not cut the
    grace period short, nor draw it out when it went back."""
    here = now - fenced_at
    if server_time is None or attempt.absent_since is None:
        return here
    there = server_time - attempt.absent_since + DATE_SECONDS
    return there if here < 0 else min(here, there)


HarvestDoubt = Literal["no_output_file", "no_error_file", "rows_short"]


def doubt_harvest(
    batch: RemoteBatch, output_rows: int | None, error_rows: int | None, sent: int = 0
) -> HarvestDoubt | None:
    """Whether an ended batch's files contradict its own counts, or, where it gives none, the requests `sent`.

    Only `completed` promises sums: after expiry or cancellation they do not add up (wire reference, 3).
    Rows that were finished by then were paid for all the same, so a file of them must be offered.
    """
    counts = batch.counts
    if batch.status in ("expired", "cancelled"):
        return "no_output_file" if counts and counts.completed and not batch.output_file_id else None
    if batch.status != "completed":
        return None
    rows = (output_rows or 0) + (error_rows or 0)
    if counts is None or not counts.total:
        if rows >= sent:
            return None
        return "rows_short" if batch.output_file_id else "no_output_file"
    if counts.completed and not batch.output_file_id:
        return "no_output_file"
    if output_rows is not None and output_rows < counts.completed:
        return "rows_short"
    if counts.failed and (error_rows or 0) < counts.failed and rows < counts.completed + counts.failed:
        return "no_error_file" if error_rows is None else "rows_short"
    return None


def silence_of(status: str | None, code: str | None, message: str | None) -> tuple[Outcome, str, str]:
    """What a request ended with when its ended batch says nothing about it: outcome, code, message."""
    if status == "failed":
        return "errored", code or "batch_failed", message or "the service refused the batch as a whole"
    return "missing", "missing", "the service's files say nothing about this request"


def end_of(status: str | None, found_rows: bool) -> ShardEnd:
    """How a shard ended, from its batch's last status. A failed batch is a refusal, unless rows ran;
    its output ids say nothing: Azure was seen to set them for an empty file (wire reference, 3)."""
    if status == "failed":
        return "harvested" if found_rows else "refused"
    if status == "cancelled":
        return "cancelled"
    if status == "expired":
        return "expired"
    return "harvested"

"""A job's end as a document to post, and when to try again. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from langbatch.events import JobFinished, iso_millis

if TYPE_CHECKING:
    from langbatch.telling.posting import Reply

PATIENCE_SECONDS = 3 * 24 * 3600.0
FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 6 * 3600.0
#: The longest `Retry-After` that is believed.
LONGEST_ADVICE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a job's end is posted, how it is signed, and for how many seconds it is tried."""

    #: May hold a secret of the receiver's, as may the keys: neither is shown or stored.
    url: str = field(repr=False)
    keys: tuple[bytes, ...] = field(repr=False)
    patience_seconds: float = PATIENCE_SECONDS

    @property
    def consumer(self) -> str:
        """A receiver's name in the store: another address is another consumer."""
        return f"webhook:{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"


def body_of(event: JobFinished) -> str:
    """The document that is posted."""
    data = {
        "id": event.job,
        "name": event.name,
        "state": event.to,
        "total": event.requests,
        "counts": asdict(event.counts),
        "usage": {"input_tokens": event.input_tokens, "output_tokens": event.output_tokens},
        "created_at": iso_millis(event.submitted_at),
        "finished_at": iso_millis(event.at),
    }
    document = {"type": "job.finished", "timestamp": iso_millis(event.at), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def next_try(
    told_at: float, tries: int, reply: Reply, now: float, patience_seconds: float, roll: float
) -> float | None:
    """When to try again after `reply`, the job having ended at `told_at` and `tries` having failed before;
    None to give up. The last try is at the end of the patience."""
    deadline = told_at + patience_seconds
    if reply.gone or now >= deadline:
        return None
    wait = min(FIRST_WAIT_SECONDS * 4.0 ** min(tries, 20), LONGEST_WAIT_SECONDS)
    wait *= 0.8 + 0.4 * roll
    advice = min(reply.retry_after_seconds or 0.0, LONGEST_ADVICE_SECONDS)
    return min(now + max(wait, advice), deadline)

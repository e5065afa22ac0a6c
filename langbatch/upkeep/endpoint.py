"""What has been measured on an endpoint, and what it means for the waits there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from langbatch.records import Target
from langbatch.running import decisions as d

if TYPE_CHECKING:
    from langbatch.store.store import JobStore

#: With a slower list than this, the short grace would not be long enough twice over.
_QUICK_LIST_SECONDS = d.FENCED_GRACE_SECONDS / 2


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """What is known of an endpoint; None: not measured, or the measurement came to nothing."""

    fence_holds: bool | None = None
    list_lag_seconds: float | None = None
    input_file_id_listed: bool | None = None
    metadata_listed: bool | None = None
    list_complete: bool | None = None

    @property
    def absence_is_proof(self) -> bool | None:
        """Whether a batch that is not listed over the grace period, behind the fence, cannot exist."""
        if self.input_file_id_listed is False and self.metadata_listed is False:
            return False  # nothing by which a batch of ours could be recognised
        return self.fence_holds

    @property
    def grace_seconds(self) -> float:
        """How long an absent batch may still turn up here."""
        lag = self.list_lag_seconds
        quick = lag is not None and lag <= _QUICK_LIST_SECONDS
        return d.FENCED_GRACE_SECONDS if self.absence_is_proof and quick else d.GRACE_SECONDS


def known_facts(store: JobStore, target: Target) -> EndpointFacts:
    """What this store remembers of the target's endpoint."""
    from langbatch.store.endpoint_facts import recall

    found = recall(store, target.provider, target.host)
    names = {f.name for f in fields(EndpointFacts)}
    return EndpointFacts(**{name: json.loads(value) for name, value in found.items() if name in names})


def keep_facts(store: JobStore, target: Target, facts: EndpointFacts) -> None:
    """Remember what was measured; what was not stays as it was known."""
    from langbatch.store.endpoint_facts import remember

    measured = {name: json.dumps(value) for name, value in asdict(facts).items() if value is not None}
    remember(store, target.provider, target.host, measured)

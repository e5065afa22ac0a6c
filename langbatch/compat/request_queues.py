"""Requests on their way to a dispatcher. What is taken out stays known until its job is stored."""

from __future__ import annotations

import logging
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

_log = logging.getLogger("langbatch")


@dataclass(frozen=True, slots=True)
class Claim:
    """Requests taken out of a queue together. `job_id` is what became of them, once that is stored."""

    id: str
    requests: Sequence[Any]
    job_id: str | None = None


class Added:
    """What `add_requests` returns: LangBatch's documentation both awaits it and does not."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


class RequestQueue(ABC):
    """What a queue of one's own must do.

    With these three methods alone, what a dispatcher has taken out is kept in this process until its job is
    stored: an error loses nothing, a crash does. A queue that outlives the process overrides the methods
    about claims as well.
    """

    @abstractmethod
    def add_requests(self, requests: list[Any]) -> Any:
        """Add requests at the end."""

    @abstractmethod
    def get_requests(self, count: int) -> list[Any]:
        """Take up to `count` requests out, the oldest first."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def _claims(self) -> dict[str, Claim]:
        # Queues of users' own need not call our constructor, for which LangBatch had no use.
        claims: dict[str, Claim] = self.__dict__.setdefault("_open_claims", {})
        return claims

    def claim(self, count: int) -> Claim | None:
        """Take up to `count` requests out until they are acknowledged; None where there are none."""
        requests = self.get_requests(count)
        if not requests:
            return None
        claim = Claim(uuid.uuid4().hex, requests)
        self._claims[claim.id] = claim
        return claim

    def open_claims(self) -> list[Claim]:
        """Claims that were neither acknowledged nor refused and that nobody else works on, oldest first."""
        return list(self._claims.values())

    def hold(self, claim: Claim) -> bool:
        """Make sure, before something is done that others see, that the claim is still ours."""
        return True

    def became(self, claim: Claim, job_id: str) -> None:
        """Note that the claim's requests are stored as this job: it is not to be made a second time."""
        self._claims[claim.id] = replace(claim, job_id=job_id)

    def acknowledge(self, claim: Claim) -> None:
        """Forget the claim: its job is stored and handed on."""
        self._claims.pop(claim.id, None)

    def refuse(self, claim: Claim) -> None:
        """Set requests aside that no job can be made of; a person finds them in `refused`."""
        self._claims.pop(claim.id, None)
        self.refused().extend(claim.requests)

    def refused(self) -> list[Any]:
        """The requests that were set aside."""
        refused: list[Any] = self.__dict__.setdefault("_refused", [])
        return refused


class InMemoryRequestQueue(RequestQueue):
    """A queue that ends with its process."""

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()

    def add_requests(self, requests: list[Any]) -> Added:
        self.queue.extend(requests)
        _log.info("added %d requests to the queue", len(requests))
        return Added()

    def get_requests(self, count: int) -> list[Any]:
        taken: list[Any] = []
        while len(taken) < count:
            try:
                taken.append(self.queue.popleft())
            except IndexError:  # another thread was faster
                break
        return taken

    def __len__(self) -> int:
        return len(self.queue)

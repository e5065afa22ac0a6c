"""What an attempt's file is called at the service, and what such a name tells when all else is lost. Pure.

    lb-<store>-<job>-f<first>n<requests>t<targets>-<shard>-<attempt>-<sha256>.jsonl

`first` counts the job's requests from 0, `requests` are the whole shard's (a retry sends fewer), `targets` is
how many targets the job has, and the last part the first eight digits of the payload's SHA-256. Files have no
metadata, and a shard may have a file without ever getting a batch: so the name itself has to say where the
shard belongs and whether there are other places to look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = re.compile(
    r"lb-([0-9a-f]{8})-(job_[0-9a-hjkmnp-tv-z]{26})-(?:f(\d+)n(\d+)t(\d+)-)?(\d{5,})-(\d+)-([0-9a-f]{8})\.jsonl"
)


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of requests: `first` counts from 0."""

    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class AttemptName:
    """A name's parts. `extent` and `targets` are None in names from before they were part of them."""

    store_id: str
    job_id: str
    shard: int
    number: int
    sha256_start: str
    extent: Extent | None = None
    targets: int | None = None

    def __str__(self) -> str:
        where = ""
        if self.extent is not None:
            where = f"f{self.extent.first}n{self.extent.count}t{self.targets}-"
        shard = f"{self.shard:05d}-{self.number}-{self.sha256_start}"
        return f"lb-{self.store_id}-{self.job_id}-{where}{shard}.jsonl"


def read_name(text: str) -> AttemptName | None:
    """The parts of an attempt's name; None for any other name."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    store_id, job_id, first, count, targets, shard, number, start = match.groups()
    extent = None if first is None else Extent(int(first), int(count))
    said = None if targets is None else int(targets)
    return AttemptName(store_id, job_id, int(shard), int(number), start, extent, said)

"""Where a job's files are, by name. Names are made of our own ids only, never of a user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Part = Literal["output", "error"]


@dataclass(frozen=True, slots=True)
class JobFolder:
    """`<home>/jobs/<job id>/`; docs/design.md lists what is in it."""

    path: Path

    @classmethod
    def of(cls, home: Path, job_id: str) -> JobFolder:
        return cls(home / "jobs" / job_id)

    @property
    def rejects(self) -> Path:
        return self.path / "rejects.jsonl"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine"

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    @property
    def sent(self) -> Path:
        return self.path / "sent"

    @property
    def unsent(self) -> Path:
        """A snapshot of the requests that are not sent: copies of others, and those answered before."""
        return self.path / "unsent"

    @property
    def reuse_plan(self) -> Path:
        """What becomes of each request; there is none where all are sent."""
        return self.path / "requests.reuse"

    @property
    def copies(self) -> Path:
        return self.path / "requests.copies"

    @property
    def held(self) -> Path:
        """Results of earlier jobs, copied."""
        return self.path / "reused.jsonl"

    @property
    def held_index(self) -> Path:
        return self.path / "reused.idx"

    def outgoing(self, shard: int, attempt: int) -> Path:
        return self.path / "outgoing" / f"{shard:05d}-{attempt}.jsonl"

    def piece(self, shard: int, attempt: int, part: Part) -> Path:
        return self.path / "pieces" / f"{shard:05d}-{attempt}-{part}.jsonl"

    def joined(self, shard: int) -> Path:
        return self.path / "joined" / f"{shard:05d}.jsonl"

    def quarantined(self, shard: int) -> Path:
        return self.quarantine / f"{shard:05d}.jsonl"

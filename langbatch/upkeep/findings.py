"""What a check found, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from langbatch.errors import LangBatchError

if TYPE_CHECKING:
    from langbatch.upkeep.endpoint import EndpointFacts

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is a stable word for programs; `mend` is None where nothing needs mending."""

    check: str
    level: Level
    what: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found. `canary` is what `--canary` measured, of several targets at the first; None
    where it was not run."""

    findings: tuple[Finding, ...]
    canary: EndpointFacts | None = None

    @property
    def healthy(self) -> bool:
        """Whether nothing found stands in the way of a job; warnings do not."""
        return all(finding.level != "problem" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, ready for `json.dumps`."""
        return {
            "healthy": self.healthy,
            "findings": [asdict(finding) for finding in self.findings],
            "canary": None if self.canary is None else asdict(self.canary),
        }


def fine(check: str, what: str) -> Finding:
    return Finding(check, "ok", what)


def warning(check: str, what: str, mend: str) -> Finding:
    return Finding(check, "warning", what, mend)


def problem(check: str, what: str, mend: str) -> Finding:
    return Finding(check, "problem", what, mend)


def of_error(check: str, error: LangBatchError) -> Finding:
    return Finding(check, "problem", error.message, error.hint)

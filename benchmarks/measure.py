"""Processes, measured: how long their work took, and the most memory they ever held."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

#: `ru_maxrss` counts kibibytes on Linux, bytes on macOS.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Contender:
    """A command to be measured so many times."""

    command: tuple[str, ...]
    environment: Mapping[str, str] | None
    runs: int


@dataclass(slots=True)
class Measured:
    """`seconds` are those the process printed, or its own from start to end; `peak` is in bytes."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def failed(self) -> str | None:
        return str(self.facts["failed"]) if "failed" in self.facts else None


def measure(*contenders: Contender) -> list[Measured]:
    """All contenders by turns, so that a slow moment of the machine hits none of them alone."""
    results = [Measured() for _ in contenders]
    for turn in range(max(contender.runs for contender in contenders)):
        for contender, result in zip(contenders, results, strict=True):
            if turn < contender.runs:
                _run(contender, result)
    return results


def _run(contender: Contender, result: Measured) -> None:
    began = time.perf_counter()
    with TemporaryFile() as errors:
        process = subprocess.Popen(
            contender.command, stdout=subprocess.PIPE, stderr=errors, env=contender.environment
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode:
            errors.seek(0)
            sys.stderr.buffer.write(errors.read()[-4000:])
            raise SystemExit(f"{' '.join(contender.command)} ended with {process.returncode}")
    facts: dict[str, object] = {}
    last = said.strip().rpartition(b"\n")[2]
    if last.startswith(b"{"):
        facts = json.loads(last)
    result.facts = facts
    result.seconds.append(float(str(facts.get("seconds", took))))
    result.peak = max(result.peak, usage.ru_maxrss * _RSS_UNIT)


@contextmanager
def serve(script: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """A server that prints what it is called as one JSON document when it is ready."""
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()

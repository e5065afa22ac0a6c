"""Files of short questions, and what jobs made of them must say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langbatch import JobManager
from langbatch.records import OUTCOMES
from support import World


def written(path: Path, sayings: Sequence[str], *, name: str = "task", model: str = "gpt-4o") -> Path:
    """A file with one request for each saying; equal sayings are equal requests."""
    lines = [
        {
            "custom_id": f"{name}-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": saying}]},
        }
        for n, saying in enumerate(sayings)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def say(body: dict[str, Any], _: str) -> str:
    """An emulator's answer that follows from the question alone."""
    return f"said {body['messages'][0]['content']}"


def check(manager: JobManager, job_id: str, sayings: Sequence[str], *, name: str = "task") -> None:
    """One result a request, in order; equal requests ended alike; all sums agree."""
    results = list(manager.results(job_id))
    assert [result.custom_id for result in results] == [f"{name}-{n}" for n in range(len(sayings))]
    assert [result.line for result in results] == list(range(1, len(sayings) + 1))
    ends = {(saying, r.outcome, r.text) for saying, r in zip(sayings, results, strict=True)}
    assert len(ends) == len(set(sayings))
    status = manager.status(job_id, offline=True)
    for outcome in OUTCOMES:
        assert status.counts[outcome] == sum(result.outcome == outcome for result in results)
    assert status.counts.pending == 0
    assert sum(status.counts[name] for name in status.counts) == status.total == len(sayings)
    failed = [(r.line, r.outcome, r.error.code) for r in results if r.error is not None]
    assert [(item.line, item.outcome, item.code) for item in manager.unsuccessful(job_id)] == failed
    assert [item.ordinal + 1 for item in manager.unsuccessful(job_id)] == [line for line, *_ in failed]
    assert sum(failure.requests for failure in manager.failures(job_id)) == len(failed)


def paid(here: World) -> int:
    return here.emulator.payments().paid


def paid_ids(here: World) -> dict[str, int]:
    """How often each request was paid for, over all jobs; those that were run for nothing included."""
    found: Counter[str] = Counter()
    for payment in here.emulator.each_payment():
        found[payment.custom_id] += payment.paid
    return dict(found)

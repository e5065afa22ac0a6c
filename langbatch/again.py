"""Asking again: requests whose answers are of no use become a job of their own.

A success is never overwritten: it was paid for, and what a job says must not change under those who read it.
So `retry` leaves it, and whoever wants another answer gets another job, whose requests may differ (a higher
token limit for answers that were cut off), and which is one job however often this is called: a crash in
between pays for nothing twice. `with_follow_ups` lays both jobs' answers together again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from langbatch.errors import BatchStateError
from langbatch.publish import publishing
from langbatch.results.result import Result

Choose = Callable[[Result], bool]


def write_chosen(results: Iterator[Result], out: Path, choose: Choose, changes: Mapping[str, Any]) -> int:
    """Write the requests of the chosen results, byte for byte where nothing is changed; their number.

    `results` carry their requests. `changes` go into each body; None takes a key away. Raises
    `BatchStateError` where none is chosen.
    """
    count = 0
    with publishing(out) as sink:
        for result in results:
            if not choose(result):
                continue
            line = result.request_line
            assert line is not None
            sink.write(_changed(line, changes) if changes else line)
            count += 1
        if not count:
            raise BatchStateError(
                "no answer was chosen, so there is nothing to ask again", code="nothing_to_do"
            )
    return count


def does_not_fit(model: Any) -> Choose:
    """Chooses successes whose answer is not a `model`; the rest is for `retry`."""

    def choose(result: Result) -> bool:
        if result.outcome != "succeeded":
            return False
        return result.misfit(model) is not None

    return choose


def _changed(line: bytes, changes: Mapping[str, Any]) -> bytes:
    request = json.loads(line)
    body = {**request["body"], **changes}
    request["body"] = {key: value for key, value in body.items() if key not in changes or value is not None}
    # As ASCII: a request may hold half a surrogate pair, which has no UTF-8.
    return json.dumps(request, allow_nan=False).encode() + b"\n"

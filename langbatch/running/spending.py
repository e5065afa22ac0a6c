"""What an attempt used, by the service's own report: for costs, and for what a budget gets back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from langbatch.errors import SetupError
from langbatch.folders import Part
from langbatch.money.costs import cost_of_usage, nanos
from langbatch.money.prices import read_prices
from langbatch.money.pricing import price_of_answers
from langbatch.records import Attempt, Usage
from langbatch.results.join import JoinReport
from langbatch.results.pieces import MAX_ROW_BYTES
from langbatch.results.usage import UsageSum
from langbatch.running.step import Step

_PARTS: tuple[Part, ...] = ("output", "error")
#: Rows in which the answers' model is looked for; every answer names it.
_ROWS_FOR_MODEL: Final = 10


@dataclass(frozen=True, slots=True)
class Used:
    """`facts` are columns of the attempt. `counts_agree`: whether no more input was reported than we had
    counted; None where that cannot be told."""

    facts: dict[str, Any] = field(default_factory=dict)
    counts_agree: bool | None = None


def used_by_attempt(step: Step, report: JoinReport) -> Used:
    """Of the newest attempt, whose pieces are here. A budget gets back only what is certain: where a row is
    missing, garbled or without a usage report, the attempt's bound stays committed."""
    attempt, job = step.attempt, step.view.job
    paths = [step.folder.piece(step.shard.index, attempt.number, part) for part in _PARTS]
    there = [path for path in paths if path.exists()]
    before, after = step.shard.usage, report.usage
    model = answers_model(there)
    facts: dict[str, Any] = {
        "input_tokens": _more(before.input_tokens, after.input_tokens),
        "output_tokens": _more(before.output_tokens, after.output_tokens),
        "cached_tokens": _more(before.cached_tokens, after.cached_tokens),
        "answer_model": model,
    }
    if not job.has_budget or report.notes:
        return Used(facts)
    seen = _report(there, attempt)
    if seen is None:
        return Used(facts)
    usage, all_ran = seen
    facts["committed_tokens"] = (usage.input_tokens or 0) + (usage.output_tokens or 0)
    cost = _cost(step, usage, model)
    if cost is not None:
        facts["committed_cost_nanos"] = cost
    agree = None
    if all_ran and usage.input_tokens is not None and attempt.counted_input_tokens is not None:
        agree = usage.input_tokens <= attempt.counted_input_tokens
    return Used(facts, agree)


def answers_model(pieces: Iterable[Path]) -> str | None:
    """The model that the first answers name."""
    for path in pieces:
        with path.open("rb") as file:
            for _ in range(_ROWS_FOR_MODEL):
                try:
                    row = _decode(file.readline(MAX_ROW_BYTES))
                except _UNREADABLE:
                    continue
                if row.response is not None and row.response.body.model:
                    return row.response.body.model
    return None


def _more(before: int | None, after: int | None) -> int | None:
    return after if after is None or before is None else after - before


def _cost(step: Step, usage: Usage, model: str | None) -> int | None:
    """In billionths; None where it is not known any more what the model costs."""
    if usage.input_tokens is None and usage.output_tokens is None:
        return 0
    try:
        prices = read_prices(step.home)
    except SetupError:
        return None  # a damaged price file must not keep results from being fetched
    price = price_of_answers(prices, step.view.target, step.shard.model, model)
    cost = cost_of_usage(usage, price)
    if cost is None or price is None or price.currency != step.view.job.currency:
        return None
    return nanos(cost)


# ---------------------------------------------------------------- reading the rows


#: Default of a part that may be absent. (`Raw | None` would make msgspec take `null` alone.)
_ABSENT: Final = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    model: str | None = None
    usage: msgspec.Raw = _ABSENT


class _Response(msgspec.Struct):
    status_code: int
    body: _Body


class _Row(msgspec.Struct):
    response: _Response | None = None


_decode = msgspec.json.Decoder(_Row).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _report(pieces: Iterable[Path], attempt: Attempt) -> tuple[Usage, bool] | None:
    """What the attempt's rows report together, and whether every request was run; None where something may
    have been run that no row reports."""
    used = UsageSum()
    rows = ran = reported = 0
    for line in _lines(pieces):
        try:
            response = _decode(line).response
        except _UNREADABLE:
            return None
        rows += 1
        if response is None:
            continue  # never run: expired or cancelled before
        ran += 1
        if bytes(response.body.usage)[:1] == b"{":
            used.add(response.body.usage)
            reported += 1
        elif response.status_code < 400:
            return None
    return (used.total(), reported == attempt.requests) if _complete(attempt, rows, ran) else None


def _complete(attempt: Attempt, rows: int, ran: int) -> bool:
    """Whether every request has a row, or else the service says that no more were run than have one."""
    if rows >= attempt.requests:
        return True
    counts = attempt.batch_counts
    if attempt.batch_status == "completed":
        return False
    if counts.total:
        return ran >= counts.completed + counts.failed
    return attempt.batch_status == "failed" and not rows  # refused in validation


def _lines(pieces: Iterable[Path]) -> Iterator[bytes]:
    for path in pieces:
        with path.open("rb") as file:
            while line := file.readline(MAX_ROW_BYTES):
                if line.strip():
                    yield line

"""Tokens and money as people read them: plain functions from values to lines, as in `render`."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from langbatch_cli.render import Line, amount, labelled, number, visible

if TYPE_CHECKING:
    from langbatch import JobStatus, Preview


def cost_text(status: JobStatus) -> str | None:
    """`1.23 USD (list prices of 2025-08-31)`; None where it is not known."""
    cost = status.cost
    return (
        None
        if cost is None
        else f"{money(Decimal(cost.amount))} {visible(cost.currency)}{_dated(cost.as_of)}"
    )


def budget_texts(status: JobStatus) -> list[str]:
    """What is used or reserved of each limit; none where there is none."""
    budget = status.budget
    texts = []
    if budget is not None and budget.max_cost is not None:
        gone = "unknown" if budget.committed_cost is None else money(Decimal(budget.committed_cost))
        texts.append(
            f"{gone} of {money(Decimal(budget.max_cost))} {visible(budget.currency or '')} used or reserved"
        )
    if budget is not None and budget.max_tokens is not None:
        gone = "unknown" if budget.committed_tokens is None else number(budget.committed_tokens)
        texts.append(f"{gone} of {number(budget.max_tokens)} tokens used or reserved")
    return texts


def reuse_text(sent: int, copies: int, answered: int) -> str:
    """`3 are sent, 2 are copies of these, 1 was answered by an earlier job`."""
    parts = ["none is sent" if not sent else f"{number(sent)} {'is' if sent == 1 else 'are'} sent"]
    if copies:
        parts.append("1 is a copy" if copies == 1 else f"{number(copies)} are copies of these")
    if answered:
        parts.append(f"{number(answered)} {'was' if answered == 1 else 'were'} answered by earlier jobs")
    return ", ".join(parts)


def money(value: Decimal) -> str:
    """Two decimals; small amounts with two digits that say something."""
    if value >= 1 or value == 0:
        return f"{value:,.2f}"
    return f"{value.quantize(Decimal(1).scaleb(min(value.adjusted() - 1, -2))):f}"


def token_lines(preview: Preview, width: int | None) -> list[Line]:
    """What a file's requests take: how sure that is, and what it was told from."""
    tokens = preview.forecast.tokens
    if not tokens.requests:
        return labelled("tokens", "none", width)
    if tokens.method == "exact":
        text = f"{number(tokens.input_tokens)} in, {preview.forecast.counter}"
    else:
        text = f"about {number(tokens.input_tokens)} in ({number(tokens.low)} to {number(tokens.high)}; "
        text += preview.forecast.counter
        if tokens.method == "sampled":
            text += f" in {number(tokens.counted_requests)} of {amount(tokens.requests, 'request')}"
        text += ")"
    most = tokens.output_tokens_at_most
    if most is None:
        text += "; the output has no bound (max_completion_tokens)"
    elif most:
        text += f"; at most {number(most)} out"
    if tokens.elsewhere is not None:
        text += f"; and what {visible(tokens.elsewhere)} brings, which is not in the requests"
    return labelled("tokens", text, width)


def preview_lines(preview: Preview, width: int | None, limit: int | None) -> list[Line]:
    """Tokens, cost, quota and shards of what would be sent."""
    lines = token_lines(preview, width)
    cost = preview.forecast.cost
    if preview.reuse is not None:
        found = preview.reuse
        lines = labelled("reuse", reuse_text(found.sent, found.copies, found.answered), width) + lines
    if not preview.shards:
        text = "nothing"
    elif cost is None:
        text = f"unknown: {preview.forecast.cost_unknown} (`langbatch prices` shows where that is said)"
    else:
        unbounded = "output" if preview.forecast.tokens.elsewhere is None else "input"
        high = f"any amount, since the {unbounded} has no bound" if cost.high is None else money(cost.high)
        as_of = preview.forecast.as_of
        dated = _dated(None if as_of is None else as_of.isoformat())
        text = f"{money(cost.low)} to {high} {visible(cost.currency)}{dated}"
    lines += labelled("cost", text, width)
    lines += labelled("batches", number(len(preview.shards)), width)
    if preview.quota is not None:
        at_once, rounds = preview.quota.at_once, preview.quota.rounds
        text = f"{number(at_once)} of {amount(len(preview.shards), 'shard')} fit the quota at once"
        lines += labelled("quota", f"{text}: {amount(rounds, 'round')}" if rounds > 1 else text, width)
    if preview.budget is not None:
        need = preview.budget
        text = f"{number(need.at_once)} of {amount(len(preview.shards), 'shard')} fit the budget at once"
        parts = [] if need.most_tokens is None else [f"{number(need.most_tokens)} tokens"]
        if need.most_cost is not None and need.currency:
            parts.append(f"{money(need.most_cost)} {visible(need.currency)}")
        lines += labelled("budget", f"{text}; all together reserve {' and '.join(parts)}", width)
    for shard in preview.shards[:limit]:
        about = f"{amount(shard.requests, 'request')}, {number(shard.bytes)} bytes"
        text = f"{about}, about {number(shard.estimated_tokens)} tokens in"
        lines += labelled(f"shard {shard.index}", text, width)
    return lines


def _dated(as_of: str | None) -> str:
    return f" (list prices of {visible(as_of)})" if as_of else " (list prices)"

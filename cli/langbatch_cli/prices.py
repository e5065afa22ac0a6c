"""`langbatch prices`: what models cost, and in which file that stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from langbatch_cli import options
from langbatch_cli.exits import Exit
from langbatch_cli.render import Line, labelled, plain, visible

if TYPE_CHECKING:
    from langbatch import Price


def prices(ctx: typer.Context, json: options.Json = False, home: options.Home = None) -> Exit:
    """Tell what models cost, and where to change that.

    Prices are read from files and never looked up. Your own file comes first; in it, name the model that each
    deployment runs.
    """
    session = options.session_of(ctx, json, home)
    with session.manager() as manager:
        known = manager.prices()
    if session.json:
        session.put_document(
            {
                "own_file": str(known.own_file),
                "own_file_exists": known.has_own_file,
                "shipped_file": str(known.shipped_file),
                "deployments": dict(known.deployments),
                "models": {name: _document(price) for name, price in known.models.items()},
            }
        )
        return Exit.DONE
    width = session.width
    state = "" if known.has_own_file else " (not there yet: write your deployments and prices into it)"
    lines: list[Line] = [plain("Prices for 1,000,000 tokens, before the batch discount", "bold")]
    lines += labelled("yours", visible(str(known.own_file)) + state, width)
    lines += labelled("shipped", visible(str(known.shipped_file)), width)
    for name, model in sorted(known.deployments.items()):
        lines += labelled("deployment", f"{visible(name)} runs {visible(model)}", width)
    # People compare models of one list, so they come as the lists name them.
    for name, price in known.models.items():
        lines.append(plain(f"  {visible(name):<28} {_text(price)}"))
    session.say(lines)
    return Exit.DONE


def _text(price: Price) -> str:
    parts = [f"{price.input:f} in"]
    if price.cached_input is not None:
        parts.append(f"{price.cached_input:f} cached")
    if price.output is not None:
        parts.append(f"{price.output:f} out")
    if price.per_tokens != 1_000_000:
        parts.append(f"for {price.per_tokens:,} tokens")
    dated = "" if price.as_of is None else f", {price.as_of.isoformat()}"
    return f"{visible(price.currency)} {', '.join(parts)}; {price.batch_discount:.0%} off in a batch{dated}"


def _document(price: Price) -> dict[str, Any]:
    return {
        "input": f"{price.input:f}",
        "cached_input": None if price.cached_input is None else f"{price.cached_input:f}",
        "output": None if price.output is None else f"{price.output:f}",
        "per_tokens": price.per_tokens,
        "batch_discount": f"{price.batch_discount:f}",
        "currency": price.currency,
        "as_of": None if price.as_of is None else price.as_of.isoformat(),
        "most_output_tokens": price.most_output_tokens,
    }
